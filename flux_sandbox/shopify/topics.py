"""What Shopify would announce of a happening: topics and REST-shaped payloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flux_sandbox.shopify.ids import Json, legacy, read_gid
from flux_sandbox.shopify.people import customer
from flux_sandbox.shopify.rest import RestWriter

if TYPE_CHECKING:
    from flux_sandbox.events import Happening
    from flux_sandbox.model import Customer, Item, Location, Sale
    from flux_sandbox.shopify.shop import Shop

#: The topics that the sandbox's world brings about, each with the scope that it needs.
TOPICS: dict[str, str | None] = {
    "app/uninstalled": None,
    "bulk_operations/finish": None,
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


def enum_of(topic: str) -> str:
    """Return a topic as the GraphQL API names it."""
    return topic.replace("/", "_").upper()


def topic_of(enum: str) -> str:
    """Return a topic of the GraphQL API as the headers name it."""
    for topic in TOPICS:
        if enum_of(topic) == enum:
            return topic
    resource, _, what = enum.lower().rpartition("_")
    return f"{resource}/{what}"


def events_of(happening: Happening, shop: Shop) -> Iterator[Event]:
    """Yield what is announced of a happening, in order."""
    writer = RestWriter(shop)
    sale = happening.sale
    if sale is not None:
        yield from _sale_events(happening, sale, shop, writer)
    elif happening.kind == "location_opened":
        yield Event("locations/create", writer.place(shop.catalog.location(happening.location)))
    elif happening.kind == "location_changed":
        yield Event("shop/update", writer.shop())
    elif happening.kind == "stock_changed" and happening.item is not None:
        yield from _stock(happening.location, happening.item, shop, writer)
    elif happening.kind in ("item_created", "item_changed", "item_deleted") and happening.item is not None:
        yield from _product(happening.kind, happening.item, shop, writer)
    elif happening.kind == "erasure_requested" and happening.customer is not None:
        yield from _erasure(happening.customer, shop, writer)


def _sale_events(happening: Happening, sale: Sale, shop: Shop, writer: RestWriter) -> Iterator[Event]:
    if happening.kind == "deleted":
        yield Event("orders/delete", {"id": legacy("Order", sale.id)})
        return
    source = sale.returns[0].source if sale.returns else None
    order = shop.write(source or sale)
    payload = writer.order(order)
    if happening.kind == "sold":
        yield Event("orders/create", payload)
        if sale.state == "COMPLETED":
            yield Event("orders/paid", payload)
        return
    if happening.kind == "refunded":
        number = str(legacy("Refund", sale.id))
        refund = next((one for one in order["refunds"] if one["legacyResourceId"] == number), None)
        if refund is not None:
            yield Event("refunds/create", writer.refund(refund))
    elif happening.kind == "cancelled":
        yield Event("orders/cancelled", payload)
    elif happening.kind == "paid":
        yield Event("orders/paid", payload)
    elif happening.kind == "edited" and happening.amounts and order["lineItems"].items:
        yield Event("orders/edited", writer.order_edit(order))
    yield Event("orders/updated", payload)


def _stock(location: Location, item: Item, shop: Shop, writer: RestWriter) -> Iterator[Event]:
    level = shop.catalog.level(legacy("Location", location.id), legacy("InventoryItem", item.id))
    if level is not None:
        count = shop.merchant.counts[(location.id, item.id)]
        yield Event("inventory_levels/update", writer.level(level, count.quantity))


def _product(kind: str, item: Item, shop: Shop, writer: RestWriter) -> Iterator[Event]:
    number = legacy("Product", item.product_id or item.id)
    wanted = str(number)
    product = next((one for one in shop.catalog.products() if one["legacyResourceId"] == wanted), None)
    if product is None:
        yield Event("products/delete", {"id": number})
        return
    first = kind == "item_created" and len(product["variants"].items) == 1
    yield Event("products/create" if first else "products/update", writer.product(product))


def _orders_of(person: Customer, shop: Shop) -> list[int]:
    own = {location.id for location in shop.merchant.locations}
    return [
        legacy("Order", sale.id)
        for sale in shop.world.sales.values()
        if sale.customer is not None
        and sale.customer.id == person.id
        and sale.location.id in own
        and shop.world.is_order(sale)
    ]


def _erasure(person: Customer, shop: Shop, writer: RestWriter) -> Iterator[Event]:
    made = writer.person(customer(person, shop.merchant), _orders_of(person, shop))
    made["orders_to_redact"] = made.pop("orders")
    yield Event("customers/redact", made)


def sample(topic: str, shop: Shop) -> Event:
    """Return an event of any topic, known or not, with the documented payload if it is one that the world can be asked for."""
    writer = RestWriter(shop)
    if topic in ("customers/redact", "customers/data_request") and shop.merchant.customers:
        person = shop.merchant.customers[0]
        made = writer.person(customer(person, shop.merchant), _orders_of(person, shop))
        orders = made.pop("orders")
        if topic == "customers/redact":
            return Event(topic, {**made, "orders_to_redact": orders})
        return Event(topic, {**made, "orders_requested": orders, "data_request": {"id": 9999}})
    if topic == "shop/redact":
        return Event(topic, {"shop_id": writer.shop()["id"], "shop_domain": shop.domain})
    if topic in ("app/uninstalled", "shop/update"):
        return Event(topic, writer.shop())
    if topic.startswith("products/") and (products := shop.catalog.products()):
        if topic == "products/delete":
            found = read_gid(products[0]["id"])
            return Event(topic, {"id": found[1] if found else 0})
        return Event(topic, writer.product(products[0]))
    if topic == "inventory_levels/update" and shop.merchant.counts:
        location_id, item_id = next(iter(shop.merchant.counts))
        level = shop.catalog.level(legacy("Location", location_id), legacy("InventoryItem", item_id))
        if level is not None:
            return Event(topic, writer.level(level, shop.merchant.counts[(location_id, item_id)].quantity))
    return Event(topic, {"id": 1})
