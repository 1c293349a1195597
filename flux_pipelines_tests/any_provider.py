"""What tests of every provider share, whichever providers there are: none is named here."""

from __future__ import annotations

from typing import Any

from flux_pipelines.providers.base import Provider
from flux_sandbox.model import Merchant
from flux_sandbox.world import World

#: Nobody waits for a provider's limits in tests that are not about them: the limits have tests of their own.
_HURRIED = {"requests_per_minute": 1_000_000, "requests_per_hour": 100_000_000, "history_pause_seconds": 0}


def hurried(provider: Provider) -> dict[str, Any]:
    """Return settings of a connection with which a provider is called as fast as it answers: those that it has."""
    names = {setting.name for setting in provider.settings}
    return {name: value for name, value in _HURRIED.items() if name in names}


def least_busy(world: World, name: str) -> Merchant:
    """Return the merchant that costs least, of those that a provider has."""
    return min(world.merchants_of(name), key=lambda one: sum(place.busy for place in one.locations))
