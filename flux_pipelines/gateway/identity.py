"""Identity providers: whom people sign in with, and what is believed of what those say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec

from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import ConfigurationError, SignInRefusedError
from flux_pipelines.transport.redact import remember

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.state.credentials.apps import App
    from flux_pipelines.transport import Transport


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as an identity provider vouches for: a key that never changes, and a verified address."""

    subject: str
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The values of one sign-in that the browser must not be able to choose. Kept encrypted until it comes back."""

    redirect_uri: str
    code_verifier: str
    nonce: str


class IdentityProvider(Protocol):
    """One identity provider, with the app that is registered there."""

    title: str

    def authorize_url(self, state: str, trip: RoundTrip) -> str:
        """Return where to send the browser."""

    def identify(self, code: str, trip: RoundTrip, issuer: str | None) -> Identity:
        """Exchange the code and return who it is.

        Args:
            code: what the browser brought.
            trip: the values of the round trip that this is the end of.
            issuer: the `iss` parameter that the browser brought (RFC 9207), if any.

        Raises:
            SignInRefusedError: it cannot be believed, or the address is not verified.

        """

    def close(self) -> None:
        """Release the HTTP connections."""


class Identities:
    """The identity providers that are registered (`flux apps set google ...`), each opened once until it is changed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mutex = threading.Lock()
        self._opened: dict[str, tuple[Any, IdentityProvider]] = {}

    def available(self) -> list[tuple[str, str]]:
        """Return name and title of those that are registered."""
        names = {app.name for app in self._runtime.state.apps.list()}
        return [(name, title) for name, (title, _) in _kinds().items() if name in names]

    def get(self, name: str) -> IdentityProvider:
        """Return one.

        Raises:
            ConfigurationError: it is not registered, or not registered well.

        """
        kind = _kinds().get(name)
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


Opener = Callable[["App", "dict[str, str]", "Transport"], IdentityProvider]


def _kinds() -> dict[str, tuple[str, Opener]]:
    from flux_pipelines.gateway.github import GitHub
    from flux_pipelines.gateway.openid import OpenId

    return {"google": ("Google", OpenId), "github": ("GitHub", GitHub)}


def client_credentials(app: App, secrets: dict[str, str]) -> tuple[str, str]:
    """Return the app's client id and secret; the secret is masked in every message from now on.

    Raises:
        ConfigurationError: one is missing.

    """
    client_id, client_secret = secrets.get("client_id", ""), secrets.get("client_secret", "")
    if not (client_id and client_secret):
        raise ConfigurationError(
            f"the app {app.name!r} has no client id or secret",
            next_step=f"Register it again: `flux apps set {app.name} --secrets -`.",
        )
    remember(client_secret)
    return client_id, client_secret


def safe_origin_of(url: str, what: str) -> str:
    """Return scheme, host and port of an address that Flux itself may call.

    Raises:
        ConfigurationError: it is neither https nor on this machine, or has a user or a password in it.

    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    host = parts.hostname or ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not safe or port == -1 or "@" in parts.netloc:
        raise ConfigurationError(f"{what} must be an https address, and is {url!r}")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def decoded(content: bytes, kind: type[msgspec.Struct], who: str) -> Any:
    """Read an identity provider's answer.

    Raises:
        SignInRefusedError: it is not of the documented form.

    """
    try:
        return decode(content, kind)
    except msgspec.DecodeError:
        # The parser's message may repeat what it read, tokens included.
        raise SignInRefusedError(f"{who} gave an answer that is not of the documented form") from None
