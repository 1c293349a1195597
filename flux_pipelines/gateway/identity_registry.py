"""The identity providers that people sign in with here, by what is registered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.gateway.github import GitHub
from flux_pipelines.gateway.identity import IdentityProvider
from flux_pipelines.gateway.openid import OpenId

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.state.credentials.apps import App
    from flux_pipelines.transport import Transport

Opener = Callable[["App", "dict[str, str]", "Transport"], IdentityProvider]

_KINDS: dict[str, tuple[str, Opener]] = {"google": ("Google", OpenId), "github": ("GitHub", GitHub)}


class Identities:
    """The identity providers that are registered (`flux apps set google ...`), each opened once until it is changed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mutex = threading.Lock()
        self._opened: dict[str, tuple[Any, IdentityProvider]] = {}

    def available(self) -> list[tuple[str, str]]:
        """Return name and title of those that are registered."""
        names = {app.name for app in self._runtime.state.apps.list()}
        return [(name, title) for name, (title, _) in _KINDS.items() if name in names]

    def get(self, name: str) -> IdentityProvider:
        """Return one.

        Raises:
            ConfigurationError: it is not registered, or not registered well.

        """
        kind = _KINDS.get(name)
        app = self._runtime.state.apps.get(name) if kind is not None else None
        if kind is None or app is None:
            raise ConfigurationError(
                f"nobody can sign in with {name!r} here", next_step="See `flux apps list`: it is not registered."
            )
        with self._mutex:
            known = self._opened.get(name)
            if known is None or known[0] != app.updated_at:
                secrets = self._runtime.state.apps.secrets(name, purpose="sign people in")
                if known is not None:
                    known[1].close()
                known = (app.updated_at, kind[1](app, secrets, self._runtime.transport))
                self._opened[name] = known
            return known[1]

    def close(self) -> None:
        """Release the HTTP connections of all."""
        with self._mutex:
            for _, opened in self._opened.values():
                opened.close()
            self._opened.clear()
