"""The root of Shopify's Admin API: what can be asked for and done, over one shop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox.shopify.errors import HttpError, QueryError, unplayed
from flux_sandbox.shopify.ids import Json, gid, legacy, read_gid
from flux_sandbox.shopify.reports import answer as report
from flux_sandbox.shopify.search import EVENT_FIELDS, Search
from flux_sandbox.shopify.values import MOST, Call, Nodes, Page

if TYPE_CHECKING:
    from flux_sandbox.shopify.shop import Shop

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
        """Return the QueryRoot's own fields; those of bulk operations are added by whoever has them."""
        shop, catalog = self._shop, self._shop.catalog
        return {
            "shop": Call(lambda _: shop.about()),
            "orders": Call(lambda args: shop.orders(args, everything=self._everything, warnings=self._warnings)),
            "node": Call(lambda args: self._node(args["id"])),
            "nodes": Call(self._nodes),
            "products": Call(self._products),
            "location": Call(lambda args: _by_id(catalog.locations(), args["id"])),
            "locations": Call(self._locations),
            "events": Call(self._events),
            "currentAppInstallation": Call(lambda _: self.installation()),
            "publicApiVersions": Call(lambda _: self._versions()),
            "shopifyqlQuery": Call(lambda args: report(shop, args["query"])),
        }

    def installation(self) -> Json:
        """Return the AppInstallation."""
        return {
            "id": gid("AppInstallation", legacy("AppInstallation", self._shop.merchant.id)),
            "accessScopes": [{"handle": one, "description": one.replace("_", " ")} for one in sorted(self._scopes)],
            "app": {"id": gid("App", 1), "title": "Flux"},
        }

    def _versions(self) -> list[Json]:
        known = versions(self._shop.world.clock())
        listed = [{"handle": one, "displayName": f"{one} (Supported)", "supported": True} for one in known]
        year, month = (int(part) for part in known[-1].split("-"))
        coming = f"{year + (month == 10)}-{(month + 3) % 12 or 12:02d}" if month != 10 else f"{year + 1}-01"
        listed.append({"handle": coming, "displayName": f"{coming} (Release candidate)", "supported": False})
        return [*listed, {"handle": "unstable", "displayName": "unstable", "supported": False}]

    def _node(self, id_: str) -> Json | None:
        found = read_gid(id_)
        if found is None:
            raise QueryError(f"Invalid global id '{id_}'", "argumentLiteralsIncompatible")
        kind, number = found
        if kind == "Order":
            return self._shop.order(number, everything=self._everything)
        return _by_id(self._shop.catalog.products(), id_) if kind == "Product" else None

    def _nodes(self, args: Mapping[str, Any]) -> list[Json | None]:
        if len(args["ids"]) > MOST:
            raise QueryError(
                f"The input array size of {len(args['ids'])} is greater than the maximum allowed of {MOST}.",
                "MAX_INPUT_SIZE_EXCEEDED",
            )
        return [self._node(id_) for id_ in args["ids"]]

    def _products(self, args: Mapping[str, Any]) -> Page:
        if args.get("query") or (args.get("sortKey") or "ID") != "ID":
            raise unplayed("a search of products, or another order than that of their ids")
        return Nodes(sorted(self._shop.catalog.products(), key=lambda node: str(node["id"]))).page(args)

    def _events(self, args: Mapping[str, Any]) -> Page:
        search = Search(args.get("query") or "", EVENT_FIELDS)
        self._warnings.extend(search.warnings)
        found = sorted(filter(search.matches, self._shop.events), key=lambda node: (node["createdAt"], node["id"]))
        return Nodes(found).page(args)

    def _locations(self, args: Mapping[str, Any]) -> Page:
        every = self._shop.catalog.locations()
        return Nodes([one for one in every if one["isActive"] or args.get("includeInactive")]).page(args)


def _by_id(nodes: Sequence[Json], id_: str) -> Json | None:
    return next((one for one in nodes if one["id"] == id_), None)
