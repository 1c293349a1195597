"""`POST /v2/catalog/search` and `POST /v2/inventory/counts/batch-retrieve` over the goods of the world.

Facts: SearchCatalogObjects, BatchRetrieveInventoryCounts, CatalogObject and InventoryCount of Square's OpenAPI document
2025-08-20. A limit of the catalog beyond 1,000 is ignored, one of the counts refused. A deleted variation is no longer inside its
item.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flux_sandbox.documents import documents
from flux_sandbox.ids import code
from flux_sandbox.square.cursors import Cursors, fingerprint
from flux_sandbox.square.documents import COUNTS, OBJECTS, newest, when, within
from flux_sandbox.square.orders import stamp
from flux_sandbox.square.params import a_body, expect, forbidden, limit, strings

if TYPE_CHECKING:
    from flux_sandbox.model import Count, Item, Merchant
    from flux_sandbox.world import World

Json = dict[str, Any]

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1000
_TYPES = frozenset({"ITEM", "ITEM_VARIATION", "CATEGORY", "TAX", "DISCOUNT", "MODIFIER_LIST", "MODIFIER", "IMAGE"})
_STATES = frozenset({"IN_STOCK", "SOLD", "WASTE", "SOLD_ONLINE"})


class CatalogApi:
    """The goods of Square's merchants, and how many of them there are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cursors = Cursors(world)

    def search(self, merchant: Merchant, body: Any) -> Json:
        """Answer `POST /v2/catalog/search`."""
        flags = ("include_deleted_objects", "include_related_objects")
        body = a_body(body, "cursor", "object_types", "limit", *flags)
        types = strings(body.get("object_types"), "object_types", 20, _TYPES) or ("ITEM", "CATEGORY")
        deleted, related = (expect(body.get(name, False), bool, "EXPECTED_BOOLEAN", name) for name in flags)
        asked = expect(body.get("limit", _DEFAULT_PAGE), int, "EXPECTED_INTEGER", "limit")
        objects = catalog(merchant)
        found = [
            (_at(one, "updated_at"), id_, one)
            for id_, one in objects.items()
            if one["type"] in types and (deleted or not one.get("is_deleted"))
        ]
        size = asked if 0 < asked <= _LARGEST_PAGE else _DEFAULT_PAGE
        page, more = self._cursors.page(found, _query(body), body.get("cursor"), size)
        answer: Json = {"objects": page} if page else {}
        if related and page:
            answer["related_objects"] = _related(objects, page)
        latest = max(_at(one, "updated_at") for one in objects.values())
        return {**answer, "latest_time": stamp(latest), **more}

    def counts(self, merchant: Merchant, body: Any) -> Json:
        """Answer `POST /v2/inventory/counts/batch-retrieve`: newest first."""
        body = a_body(body, "location_ids", "cursor", "states", "limit")
        own = {location.id for location in merchant.locations}
        places = strings(body.get("location_ids"), "location_ids", 1000)
        if not own.issuperset(places):
            raise forbidden()
        states = strings(body.get("states"), "states", 20, _STATES)
        size = limit(body.get("limit"), _DEFAULT_PAGE, _LARGEST_PAGE)
        found: dict[str, tuple[int, str, Json]] = {}
        for place, shown in _counted(merchant, places or own):
            if not states or shown.get("state") in states:
                id_ = f"{place}|{shown.get('catalog_object_id')}|{shown.get('state')}"
                # Newest first: the sign turns the order of the instants round.
                found[id_] = (-_at(shown, "calculated_at"), id_, shown)
        page, more = self._cursors.page(list(found.values()), _query(body), body.get("cursor"), size)
        return {**({"counts": page} if page else {}), **more}


def _query(body: Json) -> bytes:
    return fingerprint({name: value for name, value in body.items() if name not in ("cursor", "limit")})


def catalog(merchant: Merchant) -> dict[str, Json]:
    """Return every object of a merchant's catalog by its id, deleted ones too."""
    items: dict[str, list[Item]] = {}
    for item in merchant.items:
        items.setdefault(item.product_id or f"{item.id}I", []).append(item)
    began = min(item.updated for item in merchant.items)
    objects: dict[str, Json] = {}
    for category in dict.fromkeys(item.category for item in merchant.items):
        data = {"category_data": {"name": category, "is_top_level": True}}
        objects[category_id(merchant, category)] = _object("CATEGORY", category_id(merchant, category), began, data)
    for id_, variations in items.items():
        shown = [_variation(merchant, id_, place, one) for place, one in enumerate(variations)]
        objects[id_] = _item(merchant, id_, variations, shown)
        objects |= {one["id"]: one for one in shown}
    taken_in = {id_: dict(one) for id_, one in newest(documents(merchant, OBJECTS))}
    inside = [one for item in taken_in.values() for one in within(item, "item_data", "variations") or ()]
    return objects | {one["id"]: one for one in inside} | taken_in


def _at(shown: Json, member: str) -> int:
    """Return when an object changed; what does not say it is as old as can be."""
    return when(shown, member) or 0


def category_id(merchant: Merchant, category: str) -> str:
    """Return the id of one of a merchant's categories."""
    return code(merchant.id, "category", category)


def _object(type_: str, id_: str, updated: int, data: Json, *, deleted: bool = False) -> Json:
    return {
        "type": type_,
        "id": id_,
        "updated_at": stamp(updated),
        "version": updated,
        "is_deleted": deleted,
        "present_at_all_locations": True,
        **data,
    }


def _item(merchant: Merchant, id_: str, variations: list[Item], shown: list[Json]) -> Json:
    category = {"id": category_id(merchant, variations[0].category), "ordinal": 0}
    data = {
        "name": max(variations, key=lambda one: one.updated).name,
        "is_taxable": True,
        # What was deleted of an item that is sold still is no part of it.
        "variations": [one for one in shown if not one["is_deleted"]] or shown,
        "product_type": "REGULAR",
        "categories": [category],
        "reporting_category": category,
        "is_archived": False,
    }
    updated = max(one.updated for one in variations)
    deleted = all(one.deleted for one in variations)
    return _object("ITEM", id_, updated, {"item_data": data}, deleted=deleted)


def _variation(merchant: Merchant, item_id: str, place: int, item: Item) -> Json:
    data: Json = {
        "item_id": item_id,
        "name": item.variation,
        "ordinal": place,
        "pricing_type": "FIXED_PRICING",
        "price_money": {"amount": item.price, "currency": merchant.currency},
        "track_inventory": item.tracked,
        "sellable": True,
        "stockable": True,
    }
    if item.sku:
        data["sku"] = item.sku
    if item.upc:
        data["upc"] = item.upc
    return _object("ITEM_VARIATION", item.id, item.updated, {"item_variation_data": data}, deleted=item.deleted)


def _related(objects: dict[str, Json], page: Iterable[Json]) -> list[Json]:
    """Return what the objects of a page refer to, one level deep."""
    wanted: dict[str, None] = {}
    for one in page:
        if one["type"] == "ITEM":
            categories = within(one, "item_data", "categories") or ()
            wanted |= dict.fromkeys(category["id"] for category in categories)
            wanted[within(one, "item_data", "reporting_category", "id")] = None
        elif one["type"] == "ITEM_VARIATION":
            wanted[within(one, "item_variation_data", "item_id")] = None
    return [objects[id_] for id_ in wanted if id_ in objects]


def count_object(place: str, item_id: str, count: Count, state: str = "IN_STOCK", quantity: int | None = None) -> Json:
    """Return an InventoryCount object."""
    return {
        "catalog_object_id": item_id,
        "catalog_object_type": "ITEM_VARIATION",
        "state": state,
        "location_id": place,
        "quantity": str(count.quantity if quantity is None else quantity),
        "calculated_at": stamp(count.updated),
    }


def _counted(merchant: Merchant, places: Container[str]) -> Iterator[tuple[str, Json]]:
    """Yield the counts of some stores; those that were taken in come last, and take the place of others."""
    gone = {item.id for item in merchant.items if item.deleted}
    for (place, item_id), count in merchant.counts.items():
        if place in places and item_id not in gone:
            yield from ((place, shown) for shown in _states(place, item_id, count).values())
    for location in merchant.locations:
        if location.id in places:
            yield from ((location.id, dict(shown)) for shown in documents(merchant, COUNTS, location.id))


def _states(place: str, item_id: str, count: Count) -> dict[str, Json]:
    """Return the counts of an item by state: what can be sold, and for some what was thrown away."""
    found = {"IN_STOCK": count_object(place, item_id, count)}
    spoilt = zlib.crc32(f"{place}|{item_id}".encode()) % 7
    if spoilt > 4:
        found["WASTE"] = count_object(place, item_id, count, "WASTE", spoilt)
    return found
