"""What Shopify would announce of a world_event: topics and REST-shaped payloads.

Of the payloads' many members those are here that Flux reads, and those that must never be kept of them: people, whatever they are
called. Amounts have every decimal of their currency; instants are in the shop's time zone; ids are numbers. Facts: the example
responses that Shopify publishes with its SDKs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from flux_sandbox.pricing import price
from flux_sandbox.shopify.ids import Json, exponent, gid, legacy, plain, stamp

if TYPE_CHECKING:
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Customer, Item, Location, Sale
    from flux_sandbox.shopify.shop import Shop

#: The topics that the sandbox's world brings about, each with the scope that it needs.
TOPICS: dict[str, str | None] = {
    "app/uninstalled": None,
    "customers/data_request": None,
    "customers/redact": None,
    "inventory_levels/update": "read_inventory",
    "locations/create": "read_locations",
    "orders/cancelled": "read_orders",
    "orders/create": "read_orders",
    "orders/delete": "read_orders",
    "orders/edited": "read_orders",
    "orders/paid": "read_orders",
    "orders/updated": "read_orders",
    "products/create": "read_products",
    "products/delete": "read_products",
    "products/update": "read_products",
    "refunds/create": "read_orders",
    "shop/redact": None,
    "shop/update": None,
}


class Event(NamedTuple):
    """One event."""

    topic: str
    body: Json


def events_of(world_event: WorldEvent, shop: Shop) -> Iterator[Event]:
    """Yield what is announced of a world_event, in order."""
    sale, item = world_event.sale, world_event.item
    if sale is not None:
        yield from _sale_events(world_event, sale, shop)
    elif world_event.kind == "location_opened":
        yield Event("locations/create", _place(world_event.location))
    elif world_event.kind == "location_changed":
        yield Event("shop/update", _about(shop))
    elif world_event.kind == "stock_changed" and item is not None:
        yield Event("inventory_levels/update", _level(world_event.location, item, shop))
    elif world_event.kind in ("item_created", "item_changed", "item_deleted") and item is not None:
        yield _product(world_event.kind, item, shop)
    elif world_event.kind == "erasure_requested" and world_event.customer is not None:
        yield Event("customers/redact", _privacy(world_event.customer, shop, "orders_to_redact"))


def _sale_events(world_event: WorldEvent, sale: Sale, shop: Shop) -> Iterator[Event]:
    if world_event.kind == "deleted":
        yield Event("orders/delete", {"id": legacy("Order", sale.id)})
        return
    order = sale.returns[0].source or sale if sale.returns else sale
    payload = _order(order, shop)
    if world_event.kind == "sold":
        yield Event("orders/create", payload)
        if sale.state == "COMPLETED":
            yield Event("orders/paid", payload)
        return
    if world_event.kind == "refunded":
        yield Event("refunds/create", _refund(sale, order, shop))
    elif world_event.kind == "cancelled":
        yield Event("orders/cancelled", payload)
    elif world_event.kind == "paid":
        yield Event("orders/paid", payload)
    elif world_event.kind == "edited" and world_event.amounts and order.lines:
        # An edit's body is the edit, never the order.
        edit = {"id": payload["id"] % 10**9, "order_id": payload["id"], "committed_at": payload["updated_at"]}
        yield Event("orders/edited", {"order_edit": edit})
    yield Event("orders/updated", payload)


def _order(sale: Sale, shop: Shop) -> Json:
    order = shop.write(sale)
    merchant, person = shop.merchant, sale.customer
    where = _address(person) if person else None
    web = order["retailLocation"] is None

    def at(name: str) -> str | None:
        return _local(order[name], shop)

    def amount(name: str) -> str:
        return str(order[name]["shopMoney"]["amount"])

    return {
        "id": int(order["legacyResourceId"]),
        "admin_graphql_api_id": order["id"],
        "name": order["name"],
        "created_at": at("createdAt"),
        "processed_at": at("processedAt"),
        "updated_at": at("updatedAt"),
        "closed_at": at("closedAt"),
        "cancelled_at": at("cancelledAt"),
        "test": order["test"],
        "currency": order["currencyCode"],
        "financial_status": order["displayFinancialStatus"].lower(),
        "source_name": order["sourceName"],
        "location_id": None if web else int(order["retailLocation"]["legacyResourceId"]),
        "total_price": _every_decimal(amount("totalPriceSet"), merchant.currency),
        "current_total_price": _every_decimal(amount("currentTotalPriceSet"), merchant.currency),
        "line_items": [{"id": _number(one["id"]), "title": one["title"]} for one in order["lineItems"].items],
        "email": person.email if person else None,
        "contact_email": person.email if person else None,
        "phone": person.phone if person else None,
        "browser_ip": f"203.0.113.{int(order['legacyResourceId']) % 250 + 1}" if web else None,
        "note": sale.ticket or None,
        "billing_address": where,
        "shipping_address": where if web else None,
        "customer": {**_who(person), "default_address": where} if person else None,
    }


def _refund(back: Sale, sale: Sale, shop: Shop) -> Json:
    number = legacy("Refund", back.id)
    at = _local(stamp(back.created if back.closed is None else back.closed), shop)
    return {
        "id": number,
        "admin_graphql_api_id": gid("Refund", number),
        "order_id": legacy("Order", sale.id),
        "created_at": at,
        "processed_at": at,
        "note": back.returns[0].reason,
        "transactions": [{"kind": "refund", "amount": plain(price(back).refund, shop.merchant.currency)}],
    }


def _product(kind: str, item: Item, shop: Shop) -> Event:
    siblings = [one for one in shop.merchant.items if one.product_id == item.product_id and not one.deleted]
    if not siblings:
        return Event("products/delete", {"id": legacy("Product", item.product_id or item.id)})
    first = kind == "item_created" and len(siblings) == 1
    return Event("products/create" if first else "products/update", _goods(siblings[0], siblings, shop))


def _goods(first: Item, siblings: list[Item], shop: Shop) -> Json:
    variants = [
        {"id": legacy("ProductVariant", one.id), "sku": one.sku, "price": plain(one.price, shop.merchant.currency)}
        for one in siblings
    ]
    return {"id": legacy("Product", first.product_id or first.id), "title": first.name, "variants": variants}


def _level(location: Location, item: Item, shop: Shop) -> Json:
    count = shop.merchant.counts[(location.id, item.id)]
    number, place = legacy("InventoryItem", item.id), legacy("Location", location.id)
    return {
        "inventory_item_id": number,
        "location_id": place,
        "available": count.quantity,
        "updated_at": _local(stamp(count.updated), shop),
        "admin_graphql_api_id": f"{gid('InventoryLevel', place)}?inventory_item_id={number}",
    }


def _place(location: Location) -> Json:
    number = legacy("Location", location.id)
    return {"id": number, "admin_graphql_api_id": gid("Location", number), "name": location.name}


def _about(shop: Shop) -> Json:
    """Return what is told of a shop that changed, or that uninstalled the app."""
    about = shop.about()
    return {
        "id": _number(about["id"]),
        "name": about["name"],
        "email": f"owner@{shop.merchant.handle}.example",
        "domain": shop.domain,
        "myshopify_domain": shop.domain,
        "currency": about["currencyCode"],
        "iana_timezone": about["ianaTimezone"],
        "shop_owner": "Sandbox Owner",
    }


def _privacy(person: Customer, shop: Shop, orders: str) -> Json:
    """Return what the privacy topics tell of a customer; `orders` is what the topic calls theirs."""
    world, own = shop.world, {location.id for location in shop.merchant.locations}
    who = _who(person)
    return {
        "shop_id": _number(shop.about()["id"]),
        "shop_domain": shop.domain,
        "customer": {name: who[name] for name in ("id", "email", "phone")},
        orders: [
            legacy("Order", sale.id)
            for sale in world.sales.values()
            if sale.customer is person and sale.location.id in own and world.is_order(sale)
        ],
    }


def _who(person: Customer) -> Json:
    return {
        "id": legacy("Customer", person.id),
        "email": person.email,
        "first_name": person.given_name,
        "last_name": person.family_name,
        "phone": person.phone,
    }


def _address(person: Customer) -> Json:
    return {
        "first_name": person.given_name,
        "last_name": person.family_name,
        "name": f"{person.given_name} {person.family_name}",
        "address1": person.street,
        "city": person.city,
        "province_code": person.region or None,
        "country_code": person.country,
        "zip": person.postal_code,
        "phone": person.phone,
    }


def sample(topic: str, shop: Shop) -> Event:
    """Return an event of any topic, known or not, with the documented payload if it is one that the world can be asked for."""
    merchant = shop.merchant
    if topic == "customers/redact":
        return Event(topic, _privacy(merchant.customers[0], shop, "orders_to_redact"))
    if topic == "customers/data_request":
        asked = _privacy(merchant.customers[0], shop, "orders_requested")
        return Event(topic, {**asked, "data_request": {"id": 9999}})
    if topic == "shop/redact":
        return Event(topic, {"shop_id": _number(shop.about()["id"]), "shop_domain": shop.domain})
    if topic in ("app/uninstalled", "shop/update"):
        return Event(topic, _about(shop))
    if topic == "inventory_levels/update":
        location_id, item_id = next(iter(merchant.counts))
        item = next(one for one in merchant.items if one.id == item_id)
        return Event(topic, _level(shop.world.locations[location_id], item, shop))
    if topic in ("products/create", "products/update"):
        return Event(topic, _goods(merchant.items[0], merchant.items[:1], shop))
    return Event(topic, {"id": 1})


def _number(id_: str) -> int:
    return int(id_.rsplit("/", 1)[-1])


def _local(text: str | None, shop: Shop) -> str | None:
    """Return an instant of an order; what no reader can use is passed on as it is."""
    try:
        return (
            datetime.fromisoformat(text).astimezone(ZoneInfo(shop.zone)).isoformat(timespec="seconds") if text else None
        )
    except ValueError:
        return text


def _every_decimal(text: str, currency: str) -> str:
    try:
        return plain(int(Decimal(text).scaleb(exponent(currency))), currency)
    except ArithmeticError:
        return text
