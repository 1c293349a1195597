"""What Square would announce of a world_event: event types and bodies, in the documented envelope.

A sale at the counter is announced by its payments only: `order.created` comes for orders made through the API, and
`order.updated` for ones changed through it or in the dashboard. `order.*` are stubs, to be fetched; `payment.*` and
`refund.*` carry the whole object. Facts: the x-webhook schemas of Square's OpenAPI document 2025-08-20.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flux_sandbox.square.catalog_api import count_object
from flux_sandbox.square.orders import order, stamp
from flux_sandbox.square.payments import REFUNDING, payment, refund
from flux_sandbox.square.staff import timecard

if TYPE_CHECKING:
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Location, Merchant, Sale
    from flux_sandbox.square.payments_api import PaymentsApi

Json = dict[str, Any]

#: The event types that the sandbox's world brings about, each with the scope that it needs.
EVENT_SCOPES: dict[str, str | None] = {
    "catalog.version.updated": "ITEMS_READ",
    "inventory.count.updated": "INVENTORY_READ",
    "labor.timecard.created": "TIMECARDS_READ",
    "labor.timecard.deleted": "TIMECARDS_READ",
    "labor.timecard.updated": "TIMECARDS_READ",
    "location.created": "MERCHANT_PROFILE_READ",
    "location.updated": "MERCHANT_PROFILE_READ",
    "oauth.authorization.revoked": None,
    "order.created": "ORDERS_READ",
    "order.fulfillment.updated": "ORDERS_READ",
    "order.updated": "ORDERS_READ",
    "payment.created": "PAYMENTS_READ",
    "payment.updated": "PAYMENTS_READ",
    "refund.created": "PAYMENTS_READ",
    "refund.updated": "PAYMENTS_READ",
}


class Event(NamedTuple):
    """One event: `data` is what the envelope's key of that name holds."""

    type: str
    data: Json
    location_id: str = ""  # only the location events have it in the envelope


def envelope(merchant_id: str, event: Event, now: datetime) -> tuple[str, bytes]:
    """Return an event's id and its body."""
    event_id = str(uuid.uuid4())
    body: Json = {"merchant_id": merchant_id}
    if event.location_id:
        body["location_id"] = event.location_id
    # As precise as the documented examples are, which is more than most parsers expect.
    created = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}{uuid.UUID(event_id).int % 1000:03d}Z"
    body |= {"type": event.type, "event_id": event_id, "created_at": created, "data": event.data}
    return event_id, msgspec.json.encode(body)


def events_of(world_event: WorldEvent, now_ms: int, payments_api: PaymentsApi) -> list[Event]:
    """Return what is announced of a world_event, oldest first."""
    if world_event.sale is not None:
        return list(_sale_events(world_event, world_event.sale, now_ms, payments_api))
    if world_event.kind.startswith("location_"):
        return [_location(world_event.kind == "location_opened", world_event.location)]
    if world_event.kind == "stock_changed":
        return [_counted(world_event)]
    if world_event.kind == "shift_changed":
        return [_worked(world_event)]
    if world_event.kind in ("item_created", "item_changed", "item_deleted"):
        return [sample("catalog.version.updated", world_event.merchant, now_ms)]
    return []


def _sale_events(world_event: WorldEvent, sale: Sale, now_ms: int, payments_api: PaymentsApi) -> Iterator[Event]:
    online = bool(sale.version)
    if world_event.kind == "sold":
        if online:
            yield _order("created", sale, state="OPEN", version=1)
        yield from _payments(sale, now_ms, payments_api)
        if online:
            yield _order("updated", sale)
    elif world_event.kind == "paid":
        yield from _payments(sale, now_ms, payments_api)
        if online:
            yield _fulfillment(sale)
            yield _order("updated", sale)
    elif world_event.kind == "refunded":
        yield from _refunds(sale, now_ms, payments_api)
    else:
        yield _order("updated", sale)
        if world_event.amounts:
            yield from (event for event in _payments(sale, now_ms, payments_api) if event.type == "payment.updated")


def _counted(world_event: WorldEvent) -> Event:
    counts = []
    if world_event.item is not None and world_event.count is not None:
        counts = [count_object(world_event.location.id, world_event.item.id, world_event.count)]
    detail = {"type": "inventory_counts", "id": str(uuid.uuid4()), "object": {"inventory_counts": counts}}
    return Event("inventory.count.updated", detail)


def _worked(world_event: WorldEvent) -> Event:
    shift = world_event.shift
    assert shift is not None  # noqa: S101 (a shift is what changed)
    if shift.deleted:
        return Event("labor.timecard.deleted", {"type": "labor", "id": shift.id, "deleted": True})
    what = "created" if shift.end is None and shift.updated == shift.start else "updated"
    return Event(
        f"labor.timecard.{what}", {"type": "timecard", "id": shift.id, "object": {"timecard": timecard(shift)}}
    )


def _order(what: str, sale: Sale, *, state: str = "", version: int = 0) -> Event:
    stub: Json = {"order_id": sale.id}
    # Orders that were not made through the API have no version, here as everywhere.
    if sale.version:
        stub["version"] = version or sale.version
    stub |= {"location_id": sale.location.id, "state": state or sale.state, "created_at": stamp(sale.created)}
    if what == "updated":
        stub["updated_at"] = stamp(sale.updated)
    return Event(f"order.{what}", {"type": f"order_{what}", "id": sale.id, "object": {f"order_{what}": stub}})


def _fulfillment(sale: Sale) -> Event:
    (fulfillment,) = order(sale)["fulfillments"]
    stub = {
        "order_id": sale.id,
        "version": sale.version,
        "location_id": sale.location.id,
        "state": sale.state,
        "created_at": stamp(sale.created),
        "updated_at": stamp(sale.updated),
        "fulfillment_update": [
            {"fulfillment_uid": fulfillment["uid"], "old_state": "PROPOSED", "new_state": fulfillment["state"]}
        ],
    }
    kind = "order_fulfillment_updated"
    return Event("order.fulfillment.updated", {"type": kind, "id": sale.id, "object": {kind: stub}})


def _payments(sale: Sale, now_ms: int, payments_api: PaymentsApi) -> Iterator[Event]:
    paid = [one for one in payments_api.paid(sale) if one.tender.status == "completed"]
    for final in (False, True):
        for one in paid:
            yield _payment_event(payment(one, now_ms, final=final), final=final)


def _payment_event(found: Json, *, final: bool) -> Event:
    return Event(
        f"payment.{'updated' if final else 'created'}",
        {"type": "payment", "id": found["id"], "object": {"payment": found}},
    )


def _refunds(sale: Sale, now_ms: int, payments_api: PaymentsApi) -> Iterator[Event]:
    # Where nothing had been paid no money moves, and nothing is announced.
    backs = payments_api.given_back(sale)
    for final, event in ((False, "created"), (True, "updated")):
        for back in backs:
            found = refund(back, final=final)
            yield Event(f"refund.{event}", {"type": "refund", "id": back.id, "object": {"refund": found}})
    for returned in sale.returns if backs else ():
        # The payment changes with it: its own order is the sale's, which did not.
        for paid in payments_api.paid(returned.source) if returned.source is not None else ():
            if any(one.sale is sale for one in paid.refunds):
                changed = payment(paid, now_ms)
                changed["updated_at"] = stamp(max(sale.updated, now_ms) + REFUNDING)
                yield _payment_event(changed, final=True)


def _location(opened: bool, location: Location) -> Event:
    data = {"type": "Location", "id": location.id}
    return Event(f"location.{'created' if opened else 'updated'}", data, location.id)


def revocation(now: datetime, revoker: str) -> Event:
    """Return the event of an authorisation that ended; `revoker` is MERCHANT, APPLICATION or SQUARE."""
    at = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
    detail = {"revocation": {"revoked_at": at, "revoker_type": revoker}}
    return Event("oauth.authorization.revoked", {"type": "revocation", "id": str(uuid.uuid4()), "object": detail})


def sample(event_type: str, merchant: Merchant, now_ms: int) -> Event:
    """Return an event of any type, known or not, with the documented shape if it is one that has nothing to do with sales."""
    at, id_ = stamp(now_ms), str(uuid.uuid4())
    if event_type == "catalog.version.updated":
        return Event(
            event_type, {"type": "catalog_version", "id": id_, "object": {"catalog_version": {"updated_at": at}}}
        )
    if event_type == "inventory.count.updated":
        count = {
            "catalog_object_id": merchant.items[0].id,
            "catalog_object_type": "ITEM_VARIATION",
            "state": "IN_STOCK",
            "location_id": merchant.locations[0].id,
            "quantity": "10",
            "calculated_at": at,
        }
        return Event(event_type, {"type": "inventory_counts", "id": id_, "object": {"inventory_counts": [count]}})
    if event_type == "webhooks.test_notification":
        return Event(event_type, {"type": "webhooks", "id": id_})
    name = event_type.partition(".")[0]
    return Event(event_type, {"type": name, "id": id_, "object": {name: {"id": id_, "created_at": at}}})
