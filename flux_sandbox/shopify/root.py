"""The root of Shopify's Admin API: what can be asked for and done, over one shop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox.shopify.errors import HttpError, QueryError
from flux_sandbox.shopify.ids import Json, gid, legacy, read_gid
from flux_sandbox.shopify.people import customer
from flux_sandbox.shopify.reports import answer as report
from flux_sandbox.shopify.search import (
    EVENT_FIELDS,
    ITEM_FIELDS,
    LOCATION_FIELDS,
    PRODUCT_FIELDS,
    VARIANT_FIELDS,
    Reader,
    Search,
)
from flux_sandbox.shopify.values import MOST, Call, Nodes, Page

if TYPE_CHECKING:
    from flux_sandbox.model import Sale
    from flux_sandbox.shopify.shop import Shop

_SORTED: dict[str, str] = {
    "CREATED_AT": "createdAt",
    "NAME": "name",
    "PRODUCT_TYPE": "productType",
    "SKU": "sku",
    "TITLE": "title",
    "UPDATED_AT": "updatedAt",
    "VENDOR": "vendor",
}
_LIFE = timedelta(days=365)


def versions(now: datetime) -> list[str]:
    """Return the versions that are supported at an instant, oldest first: each quarter's, for a year from its release."""
    found = []
    for year in range(now.year - 1, now.year + 1):
        for month in (1, 4, 7, 10):
            released = date(year, month, 1)
            if released <= now.date() < released + _LIFE:
                found.append(f"{year}-{month:02d}")
    return found


def version_for(asked: str, now: datetime) -> str:
    """Return the version that answers: what has expired falls forward to the oldest one supported.

    Raises:
        HttpError: 404: there is no such version.

    """
    known = versions(now)
    if asked in known or asked == "unstable":
        return asked
    year, _, month = asked.partition("-")
    if year.isdigit() and len(year) == 4 and month in ("01", "04", "07", "10") and "2019-04" <= asked < known[0]:
        return known[0]
    raise HttpError(404)


class Root:
    """Makes the root object of one request.

    Args:
        shop: whose data is asked for.
        scopes: of the token.
        warnings: gets what searches did not understand.

    """

    def __init__(self, shop: Shop, scopes: frozenset[str], warnings: list[Json]) -> None:
        self._shop = shop
        self._everything = "read_all_orders" in scopes
        self._scopes = scopes
        self._warnings = warnings

    def query(self) -> Json:
        """Return the QueryRoot's own fields; those of bulk operations and webhooks are added by whoever has them."""
        shop, catalog = self._shop, self._shop.catalog
        return {
            "shop": Call(lambda _: shop.about()),
            "order": self._one("Order"),
            "orders": Call(self._orders),
            "ordersCount": Call(self._orders_count),
            "node": Call(lambda args: self._node(args["id"])),
            "nodes": Call(self._nodes),
            "refund": self._one("Refund"),
            "product": self._one("Product"),
            "products": self._many(catalog.products, PRODUCT_FIELDS),
            "productsCount": Call(lambda _: {"count": len(catalog.products()), "precision": "EXACT"}),
            "productVariant": self._one("ProductVariant"),
            "productVariants": self._many(catalog.variants, VARIANT_FIELDS),
            "inventoryItem": self._one("InventoryItem"),
            "inventoryItems": self._many(catalog.inventory_items, ITEM_FIELDS),
            "inventoryLevel": self._one("InventoryLevel"),
            "location": Call(self._location),
            "locations": Call(self._locations),
            "event": Call(lambda args: next((one for one in shop.events if one["id"] == args["id"]), None)),
            "events": self._many(lambda: shop.events, EVENT_FIELDS),
            "customer": self._one("Customer"),
            "currentAppInstallation": Call(lambda _: self.installation()),
            "publicApiVersions": Call(lambda _: self._versions()),
            "shopifyqlQuery": Call(lambda args: report(shop, args["query"])),
        }

    def installation(self) -> Json:
        """Return the AppInstallation."""
        app = {
            "id": gid("App", 1),
            "title": "Flux",
            "handle": "flux",
            "apiKey": "sandbox",
            "developerName": "Flux",
            "embedded": False,
        }
        return {
            "id": gid("AppInstallation", legacy("AppInstallation", self._shop.merchant.id)),
            "accessScopes": [{"handle": one, "description": one.replace("_", " ")} for one in sorted(self._scopes)],
            "app": app,
            "launchUrl": f"https://{self._shop.domain}/admin/apps/flux",
            "uninstallUrl": None,
            "activeSubscriptions": [],
            "metafield": None,
        }

    def _versions(self) -> list[Json]:
        known = versions(self._shop.world.clock())
        listed = [{"handle": one, "displayName": f"{one} (Supported)", "supported": True} for one in known]
        year, month = (int(part) for part in known[-1].split("-"))
        coming = f"{year + (month == 10)}-{(month + 3) % 12 or 12:02d}" if month != 10 else f"{year + 1}-01"
        listed.append({"handle": coming, "displayName": f"{coming} (Release candidate)", "supported": False})
        return [*listed, {"handle": "unstable", "displayName": "unstable", "supported": False}]

    # By id

    def _one(self, kind: str) -> Call:
        def find(args: Mapping[str, Any]) -> Json | None:
            found = read_gid(args["id"])
            if found is None or found[0] != kind:
                raise QueryError("Invalid global id '{}'".format(args["id"]), "argumentLiteralsIncompatible")
            return self._node(args["id"])

        return Call(find)

    def _node(self, id_: str) -> Json | None:
        found = read_gid(id_)
        if found is None:
            raise QueryError(f"Invalid global id '{id_}'", "argumentLiteralsIncompatible")
        kind, number = found
        finders: dict[str, Callable[[int], Json | None]] = {
            "Order": lambda n: self._shop.order(n, everything=self._everything),
            "Product": lambda n: _numbered(self._shop.catalog.products(), n),
            "ProductVariant": lambda n: _numbered(self._shop.catalog.variants(), n),
            "InventoryItem": lambda n: _numbered(self._shop.catalog.inventory_items(), n),
            "InventoryLevel": lambda n: self._level(n, id_),
            "Location": lambda n: _numbered(self._shop.catalog.locations(), n),
            "Refund": self._refund,
            "Customer": self._customer,
        }
        return finders[kind](number) if kind in finders else None

    def _nodes(self, args: Mapping[str, Any]) -> list[Json | None]:
        if len(args["ids"]) > MOST:
            raise QueryError(
                f"The input array size of {len(args['ids'])} is greater than the maximum allowed of {MOST}.",
                "MAX_INPUT_SIZE_EXCEEDED",
            )
        return [self._node(id_) for id_ in args["ids"]]

    def _level(self, location: int, id_: str) -> Json | None:
        item = id_.partition("inventory_item_id=")[2]
        return self._shop.catalog.level(location, int(item)) if item.isdigit() else None

    def _refund(self, number: int) -> Json | None:
        for sale in self._shop.world.sales.values():
            source = _refunded(sale, number)
            if source is not None:
                order = self._shop.order(legacy("Order", source.id), everything=self._everything)
                return _numbered(order["refunds"], number) if order else None
        return None

    def _customer(self, number: int) -> Json | None:
        merchant = self._shop.merchant
        found = next((one for one in merchant.customers if legacy("Customer", one.id) == number), None)
        return customer(found, merchant) if found else None

    def _location(self, args: Mapping[str, Any]) -> Json | None:
        every = self._shop.catalog.locations()
        if args.get("id") is None:
            return next(one for one in every if one["isPrimary"])
        return next((one for one in every if one["id"] == args["id"]), None)

    # Connections

    def _orders(self, args: Mapping[str, Any]) -> Page:
        return self._shop.orders(args, everything=self._everything, warnings=self._warnings)

    def _orders_count(self, args: Mapping[str, Any]) -> Json:
        found, limit = self._shop.count(args.get("query") or "", everything=self._everything), args.get("limit")
        if limit is not None and found > limit:
            return {"count": limit, "precision": "AT_LEAST"}
        return {"count": found, "precision": "EXACT"}

    def _many(self, nodes: Callable[[], Sequence[Json]], fields: Mapping[str, Reader]) -> Call:
        def page(args: Mapping[str, Any]) -> Page:
            search = Search(args.get("query") or "", fields)
            self._warnings.extend(search.warnings)
            found = [node for node in nodes() if search.matches(node)]
            key = args.get("sortKey") or "ID"
            name = _SORTED.get(key)
            if name is None and key not in ("ID", "POSITION"):
                raise QueryError(f"The sandbox does not sort by {key}.", "SANDBOX_DOES_NOT_PLAY")
            if name is not None:
                found.sort(key=lambda node: (str(node[name] or ""), node["id"]))
            else:
                found.sort(key=lambda node: node["id"])
            return Nodes(found).page(args)

        return Call(page)

    def _locations(self, args: Mapping[str, Any]) -> Page:
        search = Search(args.get("query") or "", LOCATION_FIELDS)
        self._warnings.extend(search.warnings)
        found = [
            one
            for one in self._shop.catalog.locations()
            if (one["isActive"] or args.get("includeInactive")) and search.matches(one)
        ]
        return Nodes(found).page(args)


def _refunded(sale: Sale, number: int) -> Sale | None:
    """Return the order that keeps a refund, if this is the refund or that order."""
    if sale.document is not None:
        ids = [one.get("id") for one in sale.document.get("refunds") or ()]
        return sale if gid("Refund", number) in ids else None
    return sale.returns[0].source if sale.returns and legacy("Refund", sale.id) == number else None


def _numbered(nodes: Sequence[Json], number: int) -> Json | None:
    wanted = str(number)
    return next((one for one in nodes if one["legacyResourceId"] == wanted), None)
