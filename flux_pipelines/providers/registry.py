"""Finds the providers: every sub-folder that defines `PROVIDER`. No list to keep."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from flux_pipelines import providers
from flux_pipelines.domain.errors import ConfigurationError, did_you_mean
from flux_pipelines.providers.base import Provider


@lru_cache(maxsize=1)
def all_providers() -> dict[str, Provider]:
    """Return every provider by name, in alphabetical order."""
    found: dict[str, Provider] = {}
    for module in sorted(pkgutil.iter_modules(providers.__path__), key=lambda m: m.name):
        if module.ispkg:
            spec: Provider | None = getattr(
                importlib.import_module(f"{providers.__name__}.{module.name}"), "PROVIDER", None
            )
            if spec is not None:
                found[spec.name] = spec
    return found


def provider(name: str) -> Provider:
    """Return the provider of that name.

    Raises:
        ConfigurationError: there is none.

    """
    known = all_providers()
    if name not in known:
        raise ConfigurationError(
            f"no provider is called {name!r}", next_step=f"{did_you_mean(name, known)}Known: {', '.join(known)}."
        )
    return known[name]
