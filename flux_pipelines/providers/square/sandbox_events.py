"""What Square would announce of a happening: event types and bodies, in the documented envelope.

A sale at the counter is announced by its payments only: `order.created` comes for orders made through the API, and
`order.updated` for ones changed through it or in the dashboard. `order.*` are stubs, to be fetched; `payment.*` and
`refund.*` carry the whole object. Facts: the x-webhook schemas of Square's OpenAPI document 2025-08-20.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flux_pipelines.providers.square.sandbox_orders import order, stamp
from flux_pipelines.sandbox.pricing import price

if TYPE_CHECKING:
    from flux_pipelines.sandbox.happenings import Happening
    from flux_pipelines.sandbox.model import Location, Merchant, Sale

Json = dict[str, Any]

#: The event types that the sandbox's world brings about, each with the scope that it needs.
EVENT_SCOPES: dict[str, str | None] = {
    "catalog.version.updated": "ITEMS_READ",
    "inventory.count.updated": "INVENTORY_READ",
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
_VOID_AFTER = timedelta(hours=168)
_SOURCE_TYPES = {"CASH": "CASH", "WALLET": "WALLET", "OTHER": "EXTERNAL"}


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


def events_of(happening: Happening, now_ms: int) -> list[Event]:
    """Return what is announced of a happening, oldest first."""
    if happening.sale is None:
        if not happening.kind.startswith("location_"):
            return []
        return [_location(happening.kind == "location_opened", happening.location)]
    return list(_sale_events(happening, happening.sale, now_ms))


def _sale_events(happening: Happening, sale: Sale, now_ms: int) -> Iterator[Event]:
    online = bool(sale.version)
    if happening.kind == "sold":
        if online:
            yield _order("created", sale, state="OPEN", version=1)
        yield from _payments(sale, happening)
        if online:
            yield _order("updated", sale)
    elif happening.kind == "paid":
        yield from _payments(sale, happening)
        if online:
            yield _fulfillment(sale)
            yield _order("updated", sale)
    elif happening.kind == "refunded":
        yield from _refunds(sale, now_ms)
    else:
        yield _order("updated", sale)
        if happening.amounts:
            yield from (event for event in _payments(sale, happening) if event.type == "payment.updated")


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


def _payments(sale: Sale, happening: Happening) -> Iterator[Event]:
    for final in (False, True):
        for index in range(len(price(sale).tenders)):
            yield _payment_event(payment(sale, index, final=final, late=happening.late), final=final)


def _payment_event(found: Json, *, final: bool) -> Event:
    return Event(
        f"payment.{'updated' if final else 'created'}",
        {"type": "payment", "id": found["id"], "object": {"payment": found}},
    )


def payment(sale: Sale, index: int, *, final: bool, late: bool = False) -> Json:
    """Return the Payment object of one of an order's tenders: as approved, or as completed (`final`)."""
    figures = price(sale).tenders[index]
    tender = order(sale)["tenders"][index]
    currency = sale.location.currency
    source = _SOURCE_TYPES.get(figures.type, "CARD")
    # Taken offline, it was created when it arrived: the instant of the sale is in the details, and in the order.
    at = sale.updated if late else (sale.closed or sale.created)
    done = final or source != "CARD"
    result: Json = {
        "id": tender["id"],
        "created_at": stamp(at),
        "updated_at": stamp(max(sale.updated, at) + (400 if final else 0)),
        "amount_money": _money(figures.amount - figures.tip, currency),
    }
    if figures.tip:
        result["tip_money"] = _money(figures.tip, currency)
    result |= {
        "status": "COMPLETED" if done else "APPROVED",
        "source_type": source,
        "location_id": sale.location.id,
        "order_id": sale.id,
        "total_money": _money(figures.amount, currency),
        "approved_money": _money(figures.amount, currency),
        "receipt_number": tender["id"][:4],
    }
    if source == "CARD":
        created = datetime.fromtimestamp(at / 1000, UTC)
        result |= {
            "delay_action": "CANCEL",
            "delay_duration": "PT168H",
            "delayed_until": stamp(int((created + _VOID_AFTER).timestamp() * 1000)),
            "card_details": _card(tender, at, final=final, gift=figures.type == "SQUARE_GIFT_CARD"),
        }
        if not final:
            result["capabilities"] = ["EDIT_TIP_AMOUNT", "EDIT_TIP_AMOUNT_UP", "EDIT_TIP_AMOUNT_DOWN"]
    elif source == "CASH":
        cash = tender["cash_details"]
        result["cash_details"] = {
            "buyer_supplied_money": cash["buyer_tendered_money"],
            "change_back_money": cash["change_back_money"],
        }
    elif source == "EXTERNAL":
        result["external_details"] = {"type": "OTHER", "source": "Other"}
    else:
        result["wallet_details"] = {"status": "CAPTURED" if final else "AUTHORIZED", "brand": "CASH_APP"}
    if sale.lines and sale.lines[0].name:
        result["note"] = sale.lines[0].name
    if done:
        result["receipt_url"] = f"https://squareup.com/receipt/preview/{tender['id']}"
    if late:
        result |= {
            "is_offline_payment": True,
            "offline_payment_details": {"client_created_at": stamp(sale.created)},
        }
    result["version_token"] = f"{sale.id[:20]}{sale.revision}{'o' if final else 'c'}"
    return result


def _card(tender: Json, at: int, *, final: bool, gift: bool) -> Json:
    timeline = {"authorized_at": stamp(at + 100)}
    if final:
        timeline["captured_at"] = stamp(at + 350)
    known = tender.get("card_details", {}).get("card", {})
    card = {"card_brand": "SQUARE_GIFT_CARD", "last_4": "0000"} if gift else dict(known)
    return {
        "status": "CAPTURED" if final else "AUTHORIZED",
        "card": {**card, "card_type": "UNKNOWN_CARD_TYPE" if gift else "CREDIT", "prepaid_type": "NOT_PREPAID"},
        "entry_method": "CONTACTLESS",
        "card_payment_timeline": timeline,
    }


def _refunds(sale: Sale, now_ms: int) -> Iterator[Event]:
    returned = sale.returns[0]
    found = order(sale)
    if not found.get("refunds"):
        return  # nothing had been paid: no money moves, nothing is announced
    (money,) = found["refunds"]
    for status, event in (("PENDING", "created"), ("COMPLETED", "updated")):
        refund = {
            "id": money["id"],
            "status": status,
            "amount_money": money["amount_money"],
            "payment_id": money["tender_id"],
            "order_id": sale.id,
            "created_at": stamp(sale.created),
            "updated_at": stamp(max(sale.updated, now_ms) + (500 if event == "updated" else 10)),
            "location_id": sale.location.id,
            "reason": returned.reason,
        }
        yield Event(f"refund.{event}", {"type": "refund", "id": refund["id"], "object": {"refund": refund}})
    if returned.source is not None and price(returned.source).tenders:
        paid = payment(returned.source, 0, final=True)
        # The payment changes with it: its own order is the sale's, which did not.
        paid |= {
            "refunded_money": money["amount_money"],
            "refund_ids": [money["id"]],
            "updated_at": stamp(max(sale.updated, now_ms) + 500),
        }
        yield _payment_event(paid, final=True)


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


def _money(amount: int, currency: str) -> Json:
    return {"amount": amount, "currency": currency}
