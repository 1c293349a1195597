"""One shop: its orders in any order they can be asked for, its goods, and what was deleted."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from flux_sandbox.pricing import price
from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.catalog import Catalog
from flux_sandbox.shopify.errors import QueryError
from flux_sandbox.shopify.ids import Json, gid, legacy, stamp
from flux_sandbox.shopify.orders import OrderWriter
from flux_sandbox.shopify.search import ORDER_FIELDS, Search
from flux_sandbox.shopify.values import Page, cut

if TYPE_CHECKING:
    from flux_sandbox.events import Happening
    from flux_sandbox.model import Item, Merchant, Sale
    from flux_sandbox.world import World

#: How far back orders reach without `read_all_orders`.
_HISTORY = timedelta(days=60)
_FOUND_KEPT = 16
_SORTED_BY = {
    "CREATED_AT": "createdAt",
    "ID": "legacyResourceId",
    "ORDER_NUMBER": "number",
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

    def hear(self, happening: Happening) -> None:
        """Take in what has happened in the world."""
        self.changes += 1
        sale = happening.sale
        if sale is not None and happening.kind == "edited" and happening.amounts:
            self.writer.edited.add(sale.id)
        if happening.kind.startswith(("item_", "location_", "catalogue_")):
            self.catalog.refresh()
        item = happening.item
        if happening.kind == "item_deleted" and item is not None and self._last_of_its_product(item):
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
            "additionalContent": None,
            "additionalData": None,
            "appTitle": None,
            "arguments": "[]",
            "attributeToApp": False,
            "attributeToUser": True,
            "author": "Staff",
            "createdAt": stamp(item.updated or self.world.now_ms()),
            "criticalAlert": False,
            "hasAdditionalContent": False,
            "message": f"Product was deleted: {item.name}.",
            "secondaryMessage": None,
            "subject": None,
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
        head = (
            self._made_head(sale) if sale.document is None else given.order_head(sale.document, self._numbers[sale.id])
        )
        self._heads[sale.id] = (signature, head)
        return head

    def _made_head(self, sale: Sale) -> Json:
        arrived = sale.created if sale.arrived is None else sale.arrived
        counter = sale.source != self.merchant.online or sale.location is not self.merchant.locations[0]
        refunded = sum(price(back).returns[0].total for back in self.world.refunds_of(sale))
        paid = (
            "REFUNDED" if refunded and refunded >= price(sale).total else "PARTIALLY_REFUNDED" if refunded else "PAID"
        )
        number = legacy("Order", sale.id)
        return {
            "createdAt": stamp(arrived),
            "processedAt": stamp(sale.created),
            "updatedAt": stamp(max(arrived, sale.updated)),
            "legacyResourceId": number,
            "number": self._numbers[sale.id],
            "name": f"#{1000 + self._numbers[sale.id]}",
            "cancelledAt": sale.closed if sale.state == "CANCELED" else None,
            "closed": sale.closed is not None,
            "test": sale.test,
            "sourceName": "pos" if counter else "web",
            "displayFinancialStatus": {"OPEN": "PENDING", "CANCELED": "VOIDED"}.get(sale.state, paid),
            "displayFulfillmentStatus": "FULFILLED" if sale.state == "COMPLETED" else "UNFULFILLED",
            "retailLocation": {"legacyResourceId": legacy("Location", sale.location.id)} if counter else None,
            "customer": {"legacyResourceId": legacy("Customer", sale.customer.id)} if sale.customer else None,
            "email": sale.customer.email if sale.customer else None,
        }

    def _search(self, query: str, sort_key: str, everything: bool) -> _Found:
        self._learn()
        if self.merchant.id in self.world.withheld:
            return _Found([], [], [])
        reach = "" if everything else self._reach()[:13]
        key = (query, sort_key, reach, self.changes, self._seen)
        found = self._found.get(key)
        if found is None:
            if sort_key not in _SORTED_BY:
                raise QueryError(f"The sandbox does not sort orders by {sort_key}.", "SANDBOX_DOES_NOT_PLAY")
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
        keys, count = found.keys, len(found.keys)
        down = bool(args.get("reverse"))

        def find(cursor: list[Any]) -> int:
            name, value, number = cursor
            if name != sort_key:
                raise ValueError(name)
            # By value, not by place: an order that has since moved on leaves the others where they are.
            key = (value, number)
            return count - bisect_left(keys, key) - 1 if down else bisect_right(keys, key) - 1

        def position(index: int) -> list[Any]:
            return [sort_key, *keys[count - 1 - index if down else index]]

        return cut(found.sales[::-1] if down else found.sales, args, position, find, self.write)

    def count(self, query: str, *, everything: bool) -> int:
        """Return how many orders a search finds."""
        return len(self._search(query, "ID", everything).sales)

    # The shop itself

    def about(self) -> Json:
        """Return the Shop object."""
        merchant, first = self.merchant, self.merchant.locations[0]
        now = self.world.clock().astimezone(ZoneInfo(self.zone))
        offset = now.strftime("%z")
        email = f"owner@{merchant.handle}.example"
        return {
            "__typename": "Shop",
            # What is ordered online belongs to the shop's first location: readers that name the shop as its place find it.
            "id": gid("Shop", legacy("Location", first.id)),
            "name": merchant.name,
            "myshopifyDomain": self.domain,
            "url": f"https://{self.domain}",
            "primaryDomain": {"id": gid("Domain", 1), "host": self.domain, "url": f"https://{self.domain}"},
            "currencyCode": merchant.currency,
            "enabledPresentmentCurrencies": sorted({merchant.currency, "USD", "SEK"}),
            "ianaTimezone": self.zone,
            "timezoneAbbreviation": now.strftime("%Z"),
            "timezoneOffset": f"{offset[:3]}:{offset[3:]}",
            "timezoneOffsetMinutes": int((now.utcoffset() or timedelta()).total_seconds() // 60),
            "taxesIncluded": any(tax.inclusive for tax in first.taxes),
            "taxShipping": False,
            "weightUnit": "KILOGRAMS",
            "unitSystem": "METRIC_SYSTEM",
            "orderNumberFormatPrefix": "#",
            "orderNumberFormatSuffix": "",
            "setupRequired": False,
            "description": None,
            "email": email,
            "contactEmail": email,
            "shopOwnerName": "Sandbox Owner",
            "createdAt": stamp(int(datetime.fromisoformat(first.created).timestamp() * 1000)),
            "updatedAt": stamp(int(datetime.fromisoformat(first.created).timestamp() * 1000)),
            "plan": {
                "displayName": "Basic",
                "publicDisplayName": "Basic",
                "partnerDevelopment": False,
                "shopifyPlus": False,
            },
        }
