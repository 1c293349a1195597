"""Toast's webhooks: whole orders, stock, menus and restaurants, signed over the body and the time that is in it.

Facts: devguide, "Message data schema", "HTTP headers", "Message signing", "Retry support": three attempts, the second after
five minutes and the third after ten more, and only after a timeout, 404, 429 or 5xx.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flux_sandbox.deliveries import Delivery, Failure, Headers
from flux_sandbox.subscriptions import Subscription, Subscriptions
from flux_sandbox.toast.ids import group_guid, item_multi_location_id, restaurant_guid
from flux_sandbox.toast.order_context import guid_in
from flux_sandbox.toast.orders import View
from flux_sandbox.toast.restaurants import created_ms, partner_restaurant
from flux_sandbox.toast.values import FIXED, quantity, stamp_z

if TYPE_CHECKING:
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Item, Location, Merchant, Sale
    from flux_sandbox.toast.auth import Authority
    from flux_sandbox.toast.orders import OrderWriter
    from flux_sandbox.world import World

Json = dict[str, Any]

#: The event types that the sandbox's world brings about, each with its category.
CATEGORIES = {
    "order_updated": "order_updated",
    "in_stock": "stock",
    "low_quantity": "stock",
    "out_of_stock": "stock",
    "menus_updated": "menus",
    "partner_added": "partner",
    "partner_removed": "partner",
    "partner_updated": "partner",
}
_LOW = 5
_RETRY_MINUTES = (5.0, 10.0)
#: Webhooks leave out phone numbers and addresses.
_VIEW = View(addresses=False, phones=False)


class Event(NamedTuple):
    """One event; `restaurant` is None for partner events, whose header does not name one."""

    type: str
    details: Json
    restaurant: str | None


_TIMESTAMP = re.compile(rb'"timestamp": ?"([^"]*)"')


def signature(key: str, body: bytes, timestamp: str) -> str:
    """Return the `Toast-Signature` of a message: its body, and right behind it the text of its own timestamp."""
    return base64.b64encode(hmac.digest(key.encode(), body + timestamp.encode(), "sha256")).decode()


def retries(attempt: int, failure: Failure, status: int) -> float | None:
    """Return the minutes to wait after a failed attempt, or None: Toast gives up."""
    again = failure == "timeout" or status in (404, 429) or status >= 500
    return _RETRY_MINUTES[attempt] if again and attempt < len(_RETRY_MINUTES) else None


class Webhooks(Subscriptions):
    """The subscriptions, and the events that go to them."""

    def __init__(self, world: World, authority: Authority, write: OrderWriter) -> None:
        super().__init__(world, CATEGORIES)
        self._authority = authority
        self._write = write
        world.listeners.append(self._hear)

    # Events

    def _hear(self, world_event: WorldEvent) -> None:
        if world_event.merchant.provider == "toast" and self.subscriptions:
            for event in self._events(world_event):
                self.send(world_event.merchant, event)

    def _events(self, world_event: WorldEvent) -> Iterator[Event]:
        kind, sale, merchant = world_event.kind, world_event.sale, world_event.merchant
        if kind == "refunded" and sale is not None and merchant.refunds_on_source:
            sale = sale.returns[0].source
        if sale is not None:
            yield self.order_event(sale)
        elif kind == "stock_changed" and world_event.item is not None and world_event.count is not None:
            name = stock_event(world_event.count_before, world_event.count.quantity)
            if name:
                yield self.stock(name, world_event.location, world_event.item, world_event.count.quantity)
        elif kind == "catalog_published":
            yield from self.menus(merchant)
        elif kind in ("location_opened", "location_changed"):
            yield self.partner(
                "partner_added" if kind == "location_opened" else "partner_updated", world_event.location
            )

    def order_event(self, sale: Sale) -> Event:
        """Return the event of an order: all of it."""
        restaurant = restaurant_guid(sale.location)
        details = {"restaurantGuid": restaurant, "order": msgspec.Raw(self._write(sale, _VIEW))}
        return Event("order_updated", details, restaurant)

    def stock(self, event_type: str, location: Location, item: Item, left: int) -> Event:
        """Return the event of an item that is short, or no longer."""
        known = self._write.maker.published.get(location.id, ())
        guid = guid_in("item", item.id, known[-1][1] if known else 0)
        restaurant = restaurant_guid(location)
        details: Json = {
            "itemGuid": guid,
            "restaurantGuid": restaurant,
            "status": "QUANTITY" if left > 0 else "OUT_OF_STOCK",
        }
        if left > 0:
            details["quantity"] = quantity(left, 0, whole=True)
        details |= {"multiLocationId": item_multi_location_id(item), "versionId": guid}
        return Event(event_type, details, restaurant)

    def menus(self, merchant: Merchant) -> list[Event]:
        """Return the events of menus published now: one for every restaurant."""
        at = stamp_z(self.world.now_ms())
        return [
            Event("menus_updated", {"restaurantGuid": restaurant_guid(one), "publishedDate": at}, restaurant_guid(one))
            for one in merchant.locations
        ]

    def partner(self, event_type: str, location: Location) -> Event:
        """Return the event of a restaurant that was connected, disconnected or changed."""
        merchant = self.world.merchants[location.merchant_id]
        shown = partner_restaurant(merchant, location)
        details = {
            **FIXED["partner event"],
            **shown,
            "managementGroupGuid": group_guid(merchant),
            "isoCreatedDate": stamp_z(created_ms(location)),
            "restaurantCity": location.city,
            "restaurantState": location.region,
            "restaurantZipCode": location.postal_code,
            "restaurantCountryCode": location.country,
            "restaurantTimezone": location.reported_timezone,
        }
        return Event(event_type, details, None)

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any type to whoever is subscribed to it: there need not be one of that name."""
        location = merchant.locations[0]
        restaurant = restaurant_guid(location)
        if event_type == "order_updated" and (entries := self.world.order_index[location.id].updated):
            event = self.order_event(self.world.sales[entries[-1][1]])
        elif event_type in ("in_stock", "low_quantity", "out_of_stock"):
            left = {"in_stock": 10, "low_quantity": _LOW, "out_of_stock": 0}[event_type]
            event = self.stock(event_type, location, merchant.items[0], left)
        elif event_type == "menus_updated":
            event = self.menus(merchant)[0]
        elif event_type.startswith("partner_"):
            event = self.partner(event_type, location)
        else:
            event = Event(event_type, {"restaurantGuid": restaurant}, restaurant)
        self.send(merchant, event)

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002
        """Return the header that a message is believed by; of a body without a time, that of now."""
        found = _TIMESTAMP.search(body)
        return {"toast-signature": signature(key, body, found[1].decode() if found else stamp_z(self.world.now_ms()))}

    def send(self, merchant: Merchant, event: Event) -> None:
        """Announce one event to every subscription for its type; a type that Toast does not have goes to all.

        Of restaurants that are not connected nothing is told but that they are not.
        """
        client = self._authority.client_of(merchant)
        connected = {restaurant_guid(location) for location in self._authority.restaurants(client)}
        if event.restaurant is not None and (client.revoked or event.restaurant not in connected):
            return
        timestamp = stamp_z(self.world.now_ms())
        category = CATEGORIES.get(event.type, event.type)
        event_id = str(uuid.uuid4())
        body = msgspec.json.encode(
            {
                "timestamp": timestamp,
                "eventCategory": category,
                "eventType": event.type,
                "guid": event_id,
                "details": event.details,
            }
        )

        def make(one: Subscription) -> Delivery:
            headers = _headers(one, event, category, body, timestamp)
            return Delivery(one.url, event_id, event.type, body, headers, retries)

        self.announce(event.type, make)


def stock_event(before: int, after: int) -> str:
    """Return the event of a quantity that changed; nothing when it stays plentiful or stays short in the same way.

    A quantity of one to five is low, also when an item comes back with it (devguide, "Stock webhook").
    """

    def state(left: int) -> str:
        return "out_of_stock" if left <= 0 else "low_quantity" if left <= _LOW else "in_stock"

    return state(after) if state(before) != state(after) else ""


def _headers(subscription: Subscription, event: Event, category: str, body: bytes, timestamp: str) -> Headers:
    def make(attempt: int, _: Failure, __: str) -> Mapping[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Toast-Signature": signature(subscription.key, body, timestamp),
            "Toast-Event-Type": event.type,
            "Toast-Event-Category": category,
            "Toast-Attempt-Number": str(attempt + 1),
        }
        if event.restaurant is not None:
            headers["Toast-Restaurant-External-ID"] = event.restaurant
        return headers

    return make
