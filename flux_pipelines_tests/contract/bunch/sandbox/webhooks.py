"""Bunch's webhooks as the sandbox sends them: one delivery of whatever happened at whichever merchants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.deliveries import Delivery
from flux_sandbox.ids import token
from flux_sandbox.subscriptions import Subscription, Subscriptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Merchant
    from flux_sandbox.world import World

_ORDERS = {
    "sold": "CREATE",
    **dict.fromkeys(("edited", "paid", "cancelled", "refunded"), "UPDATE"),
    "deleted": "DELETE",
}
_ITEMS = {"item_created": "CREATE", "item_changed": "UPDATE", "item_deleted": "DELETE"}
#: The event types that the world brings about, as the product names them: the kind of object, and what happened.
TYPES = (
    *(f"O:{one}" for one in dict.fromkeys(_ORDERS.values())),
    *(f"I:{one}" for one in _ITEMS.values()),
    "M:UPDATE",
    "A:DELETE",
)


class BunchHooks(Subscriptions):
    """Who is told, and of what (`WebhookSender`)."""

    def __init__(self, world: World, authorised: Callable[[], set[str]]) -> None:
        super().__init__(world, TYPES)
        self._authorised = authorised
        self._sent = 0
        world.listeners.append(self._hear)

    def subscribe(self, url: str, key: str | None, event_types: Sequence[str] | None) -> Mapping[str, Any]:
        """Subscribe an address, which is asked first whether it takes webhooks."""
        made = super().subscribe(url, key, event_types)
        self.world.outbox.send(
            [self._delivery(self.subscriptions[url], "verification", {"verificationCode": "sandbox"})]
        )
        return made

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any type."""
        kind, _, happened = event_type.partition(":")
        self.tell(event_type, {merchant.id: [self.change(kind, merchant.id, happened)]})

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:
        """Return the header that a body is believed by, whatever is in it."""
        return {"x-bunch-auth": key}

    def change(self, kind: str, id_: str, happened: str) -> dict[str, Any]:
        """Return what a delivery says of one object."""
        return {"objectId": f"{kind}:{id_}", "type": happened, "ts": self.world.now_ms()}

    def tell(self, event_type: str, merchants: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Send one delivery about several merchants."""
        self.announce(
            event_type, lambda one: self._delivery(one, event_type, {"appId": "sandbox", "merchants": merchants})
        )

    def _hear(self, event: WorldEvent) -> None:
        """Announce what happened to a merchant who has authorised the app."""
        if event.merchant.id not in self._authorised():
            return
        if event.kind in _ORDERS and event.sale:
            found = "O", event.sale.id, _ORDERS[event.kind]
        elif event.kind in _ITEMS and event.item:
            found = "I", event.item.id, _ITEMS[event.kind]
        elif event.kind == "location_changed":
            found = "M", event.merchant.id, "UPDATE"
        elif event.kind == "uninstalled":
            found = "A", "sandbox", "DELETE"
        else:
            return
        self.tell(f"{found[0]}:{found[2]}", {event.merchant.id: [self.change(*found)]})

    def _delivery(self, to: Subscription, event_type: str, content: Mapping[str, Any]) -> Delivery:
        self._sent += 1
        body = msgspec.json.encode(content)
        headers = {"content-type": "application/json", **self.signed(to.url, to.key, body)}
        id_ = token(self.world.options.seed, "bunch", self._sent)
        return Delivery(to.url, id_, event_type, body, lambda *_: headers)
