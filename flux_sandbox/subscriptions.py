"""Who is told of what happens at a provider: the app's webhook subscriptions, as somebody makes them in its developer console."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.oauth import is_address
from flux_sandbox.options import WEBHOOK_SIGNATURE_KEY

if TYPE_CHECKING:
    from flux_sandbox.deliveries import Delivery
    from flux_sandbox.world import World


@dataclass(slots=True)
class Subscription:
    """An address, and the event types that it is told of."""

    id: str
    url: str
    key: str
    event_types: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it without its key."""
        return {"id": self.id, "notification_url": self.url, "event_types": list(self.event_types)}


class Subscriptions:
    """The subscriptions of one provider's app.

    Args:
        world: whose outbox delivers.
        known: the event types that the world brings about.
        key: what signs, unless a subscription is given another key.

    """

    def __init__(self, world: World, known: Collection[str], key: str = WEBHOOK_SIGNATURE_KEY) -> None:
        self.world = world
        self.key = key
        self.subscriptions: dict[str, Subscription] = {}
        self._known = known

    def subscribe(self, url: str, key: str | None, event_types: Sequence[str] | None) -> Mapping[str, Any]:
        """Subscribe an address, or change the subscription that it has.

        Raises:
            ConfigurationError: not an address, or no such event type.

        """
        wanted = tuple(event_types or self._known)
        if unknown := [one for one in wanted if one not in self._known]:
            known = f"Known: {', '.join(self._known)}."
            raise ConfigurationError(f"unknown event types: {', '.join(unknown)}", next_step=known)
        if not is_address(url):
            raise ConfigurationError(f"{url!r} is no address that webhooks can be sent to")
        made = Subscription(f"hook-{len(self.subscriptions) + 1}", url, key or self.key, wanted)
        self.subscriptions[url] = made
        return made.as_json()

    def described(self) -> list[Mapping[str, Any]]:
        """Return the subscriptions, without their keys."""
        return [one.as_json() for one in self.subscriptions.values()]

    def clear(self) -> None:
        """End every subscription."""
        self.subscriptions.clear()

    def signing(self) -> tuple[dict[str, str], str]:
        """Return where events go, as a setting of the app, and the key that signs them."""
        first = next(iter(self.subscriptions.values()), None)
        return ({"notification_url": first.url}, first.key) if first else ({}, self.key)

    def announce(self, event_type: str, make: Callable[[Subscription], Delivery]) -> None:
        """Tell of one event whoever is subscribed to its type; a type that the provider does not have goes to all."""
        told = [
            one for one in self.subscriptions.values() if event_type in one.event_types or event_type not in self._known
        ]
        self.world.outbox.send([make(one) for one in told])
