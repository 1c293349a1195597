"""One shop: its orders in any order they can be asked for, its goods, and what was deleted."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.catalog import Catalog
from flux_sandbox.shopify.errors import unplayed
from flux_sandbox.shopify.ids import Json, gid, legacy, stamp
from flux_sandbox.shopify.orders import OrderWriter
from flux_sandbox.shopify.search import ORDER_FIELDS, Search
from flux_sandbox.shopify.values import Page, cut

if TYPE_CHECKING:
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Item, Merchant, Sale
    from flux_sandbox.world import World

#: How far back orders reach without `read_all_orders`.
_HISTORY = timedelta(days=60)
_FOUND_KEPT = 16
_SORTED_BY = {
    "CREATED_AT": "createdAt",
    "PROCESSED_AT": "processedAt",
    "UPDATED_AT": "updatedAt",
}


class _Found(NamedTuple):
    """What a search found, ascending."""

    keys: list[tuple[Any, int]]
    sales: list[Sale]
    warnings: list[Json]


class Shop:
    """A merchant's shop."""

    def __init__(self, world: World, merchant: Merchant) -> None:
        self.world = world
        self.merchant = merchant
        self.catalog = Catalog(world, merchant)
        self.writer = OrderWriter(world, merchant, self.catalog)
        self.events: list[Json] = [self._deletion(item) for item in merchant.items if item.deleted]
        self.changes = 0
        self._numbers: dict[str, int] = {}
        self._by_id: dict[int, Sale] = {}
        self._heads: dict[str, tuple[Any, Json]] = {}
        self._seen = 0
        self._found: OrderedDict[tuple[Any, ...], _Found] = OrderedDict()

    @property
    def domain(self) -> str:
        """The shop's address."""
        return f"{self.merchant.handle}.myshopify.com"

    @property
    def zone(self) -> str:
        """The shop's time zone, as the API says it."""
        return self.merchant.locations[0].reported_timezone

    def hear(self, world_event: WorldEvent) -> None:
        """Take in what has happened in the world."""
        self.changes += 1
        if world_event.kind.startswith(("item_", "location_", "catalog_")):
            self.catalog.refresh()
        item = world_event.item
        if world_event.kind == "item_deleted" and item is not None and self._last_of_its_product(item):
            self.events.append(self._deletion(item))

    def _last_of_its_product(self, item: Item) -> bool:
        return not any(
            not one.deleted and one.product_id == item.product_id and one.id != item.id for one in self.merchant.items
        )

    def _deletion(self, item: Item) -> Json:
        number = legacy("Product", item.product_id or item.id)
        return {
            "__typename": "BasicEvent",
            "id": gid("BasicEvent", legacy("BasicEvent", f"{number}|{item.updated}")),
            "action": "destroy",
            "createdAt": stamp(item.updated or self.world.now_ms()),
            "subjectId": gid("Product", number),
            "subjectType": "PRODUCT",
        }

    # Orders

    def _learn(self) -> None:
        """Number the orders that are new: the first ones by their time, later ones as they come."""
        if self._seen == len(self.world.sales):
            return
        own = {location.id for location in self.merchant.locations}
        fresh = [
            sale
            for sale in islice(self.world.sales.values(), self._seen, None)
            if sale.location.id in own and self.world.is_order(sale)
        ]
        if not self._seen:
            fresh.sort(key=lambda sale: (sale.created, sale.id))
        self._seen = len(self.world.sales)
        for sale in fresh:
            self._numbers[sale.id] = len(self._numbers) + 1
            self._by_id[legacy("Order", sale.id)] = sale

    def order(self, number: int, *, everything: bool) -> Json | None:
        """Return an order by its id, unless it is beyond the reach of the token."""
        self._learn()
        sale = self._by_id.get(number)
        if sale is None or sale.deleted or (not everything and stamp(sale.created) < self._reach()):
            return None
        return self.write(sale)

    def write(self, sale: Sale) -> Json:
        """Return the order of a sale."""
        self._learn()
        return self.writer.write(sale, self._numbers[sale.id])

    def _reach(self) -> str:
        return stamp(int((self.world.clock() - _HISTORY).timestamp() * 1000))

    def _head(self, sale: Sale) -> Json:
        """Return what searching and sorting need of an order, kept until the order changes."""
        signature = (sale.revision, sale.updated, sale.state)
        kept = self._heads.get(sale.id)
        if kept is not None and kept[0] == signature:
            return kept[1]
        arrived = sale.created if sale.arrived is None else sale.arrived
        updated = max(arrived, sale.updated)
        if sale.document is not None:
            arrived, updated = given.created(sale.document) or sale.created, sale.updated
        head = {"createdAt": stamp(arrived), "processedAt": stamp(sale.created), "updatedAt": stamp(updated)}
        self._heads[sale.id] = (signature, head)
        return head

    def _search(self, query: str, sort_key: str, everything: bool) -> _Found:
        self._learn()
        if self.merchant.id in self.world.withheld:
            return _Found([], [], [])
        reach = "" if everything else self._reach()[:13]
        key = (query, sort_key, reach, self.changes, self._seen)
        found = self._found.get(key)
        if found is None:
            if sort_key not in _SORTED_BY:
                raise unplayed(f"orders sorted by {sort_key}")
            search = Search(query, ORDER_FIELDS)
            name = _SORTED_BY[sort_key]
            oldest = "" if everything else self._reach()
            entries = []
            for number, sale in self._by_id.items():
                head = self._head(sale)
                if not sale.deleted and head["processedAt"] >= oldest and search.matches(head):
                    entries.append((head[name], number, sale))
            entries.sort(key=lambda entry: entry[:2])
            found = _Found([entry[:2] for entry in entries], [entry[2] for entry in entries], search.warnings)
            self._found[key] = found
            if len(self._found) > _FOUND_KEPT:
                self._found.popitem(last=False)
        return found

    def orders(self, args: Mapping[str, Any], *, everything: bool, warnings: list[Json]) -> Page:
        """Return a page of orders; what the search did not understand goes to `warnings`.

        Raises:
            QueryError: the arguments are not ones of a page.

        """
        sort_key = args.get("sortKey") or "PROCESSED_AT"
        found = self._search(args.get("query") or "", sort_key, everything)
        warnings += found.warnings

        def find(cursor: list[Any]) -> int:
            name, value, number = cursor
            if name != sort_key:
                raise ValueError(name)
            # By value, not by place: an order that has since moved on leaves the others where they are.
            return bisect_right(found.keys, (value, number)) - 1

        return cut(found.sales, args, lambda index: [sort_key, *found.keys[index]], find, self.write)

    # The shop itself

    def about(self) -> Json:
        """Return the Shop object."""
        merchant, first = self.merchant, self.merchant.locations[0]
        return {
            "__typename": "Shop",
            # What is ordered online belongs to the shop's first location: readers that name the shop as its place find it.
            "id": gid("Shop", legacy("Location", first.id)),
            "name": merchant.name,
            "myshopifyDomain": self.domain,
            "currencyCode": merchant.currency,
            "ianaTimezone": self.zone,
            "taxesIncluded": any(tax.inclusive for tax in first.taxes),
        }
