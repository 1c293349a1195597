"""Finds whose wire protocols there are: every sub-folder with an `api.py`. No list to keep."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import flux_sandbox
from flux_pipelines.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from flux_sandbox.provider import ProviderSandbox
    from flux_sandbox.world import World


def simulated() -> list[str]:
    """Return the names of the providers that the sandbox speaks for, in alphabetical order."""
    return sorted(api.parent.name for folder in flux_sandbox.__path__ for api in Path(folder).glob("*/api.py"))


def build(name: str, world: World) -> ProviderSandbox:
    """Return a provider's side of the wire over a world.

    Raises:
        ConfigurationError: a library that it needs is not installed.

    """
    try:
        made: ProviderSandbox = importlib.import_module(f"flux_sandbox.{name}.api").build(world, world.options)
    except ModuleNotFoundError as lacking:
        if (lacking.name or "").startswith("flux_"):
            raise
        raise ConfigurationError(
            f"the sandbox needs the library {lacking.name}, which is not installed",
            next_step="Install what the sandbox needs: pip install 'flux-pipelines[sandbox]'.",
        ) from lacking
    return made
