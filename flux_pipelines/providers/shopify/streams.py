"""What there is beside orders: the shop, its locations, products with their variants, deletions, stock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.providers.base import Location, Record, Window
from flux_pipelines.providers.shopify.graphql import GraphQL
from flux_pipelines.providers.shopify.orders import (
    Connection,
    Members,
    Restarts,
    Sizer,
    gid,
    nodes_only,
    rest_of,
    sized,
    with_first,
)
from flux_pipelines.transport import RefusedError

_DELETIONS_OF = timedelta(days=60)
_VARIANTS_A_PAGE = 100


class Shop(msgspec.Struct, rename="camel"):
    """What the client needs of the shop."""

    id: str
    name: str
    myshopify_domain: str
    currency_code: str
    iana_timezone: str


class _ShopAnswer(msgspec.Struct):
    shop: msgspec.Raw


class _Locations(msgspec.Struct):
    locations: Connection


class _Products(msgspec.Struct):
    products: Connection


class _Events(msgspec.Struct):
    events: Connection


class _Levels(msgspec.Struct, rename="camel"):
    inventory_levels: Connection


class _Inventory(msgspec.Struct):
    """The stock of a location: None for the web shop, which is no place, or for one that was deleted with its stock."""

    location: _Levels | None = None

    @property
    def levels(self) -> Connection | None:
        return self.location.inventory_levels if self.location is not None else None


class _LocationHead(msgspec.Struct, rename="camel"):
    legacy_resource_id: str
    name: str = ""
    is_active: bool = True


_decode_shop = decoder(Shop)
_decode_location = decoder(_LocationHead)
_decode_connection = decoder(Connection)
_decode_members = decoder(Members)


class Streams:
    """The streams of one connection. Safe to use from threads."""

    def __init__(self, graphql: GraphQL) -> None:
        self._graphql = graphql
        self._locations = Sizer(50)
        self._products = Sizer(20)
        self._events = Sizer(100)
        self._levels = Sizer(100)

    def shop(self) -> tuple[Shop, msgspec.Raw]:
        """Return the shop, and as it was received."""
        found, _ = self._graphql.run("shop", {}, _ShopAnswer)
        return _decode_shop(found.shop), found.shop

    def locations(self, shop: Shop) -> list[Location]:
        """Return the web shop itself and every place that has stock, inactive ones too. Zone and currency are the shop's."""
        online = Location(_number(shop.id), f"{shop.name} (online)", shop.iana_timezone, shop.currency_code)
        found = {online.location_id: online}
        for nodes in self._location_pages():
            for head in map(_decode_location, nodes):
                found[head.legacy_resource_id] = Location(
                    head.legacy_resource_id, head.name, shop.iana_timezone, shop.currency_code, head.is_active
                )
        return list(found.values())

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        """Yield a stream's records, a page at a time."""
        yield from self._catalog(window.end) if stream == "catalog" else self._inventory(window.location_ids)

    def _catalog(self, now: datetime) -> Iterator[Sequence[Record]]:
        shop, raw = self.shop()
        yield [Record("shop", _number(shop.id), raw)]
        for nodes in self._location_pages():
            yield [Record("location", _decode_location(node).legacy_resource_id, node) for node in nodes]
        for nodes in self._connection("products", self._products, {}, _Products, "products"):
            yield [Record("product", "", self._whole_product(node)) for node in nodes]
        since = (now - _DELETIONS_OF).strftime("%Y-%m-%dT%H:%M:%SZ")
        search = f"action:destroy AND subject_type:Product AND created_at:>='{since}'"
        for nodes in self._connection("deletions", self._events, {"query": search}, _Events, "events"):
            yield [Record("deletion", "", node) for node in nodes]

    def _inventory(self, location_ids: Sequence[str]) -> Iterator[Sequence[Record]]:
        for location_id in location_ids:
            wanted = {"location": gid("Location", location_id)}
            for nodes in self._connection("inventory", self._levels, wanted, _Inventory, "levels"):
                yield [Record("level", location_id, node) for node in nodes]

    def _location_pages(self) -> Iterator[list[msgspec.Raw]]:
        yield from self._connection("locations", self._locations, {}, _Locations, "locations")

    def _connection(
        self, name: str, sizer: Sizer, variables: dict[str, Any], kind: type[Any], field: str
    ) -> Iterator[list[msgspec.Raw]]:
        """Yield the nodes of a connection, a page at a time, to its end."""
        after: str | None = None
        restarts = Restarts(self._graphql.connection, name)
        while True:
            try:
                answer = sized(self._graphql, name, sizer, with_first({**variables, "after": after}), kind)
            except RefusedError as refused:
                restarts.allow(refused, after)
                after = None
                continue
            page: Connection | None = getattr(answer, field)
            if page is None:
                return
            yield [node for node in page.nodes if bytes(node) not in (b"null", b"{}")]
            if not restarts.goes_on(page.page_info, page.nodes):
                return
            after = page.page_info.end_cursor

    def _whole_product(self, node: msgspec.Raw) -> msgspec.Raw:
        """Return a product with all of its variants; it may have 2,048."""
        members = _decode_members(node)
        page = _decode_connection(members["variants"])
        nodes = page.nodes
        if page.page_info.has_next_page:
            owner = decode(members["id"], str)
            nodes = rest_of(self._graphql, "more_variants", owner, page, _VARIANTS_A_PAGE)
        members["variants"] = nodes_only(nodes)
        return msgspec.Raw(msgspec.json.encode(members))


def _number(global_id: str) -> str:
    return global_id.rpartition("/")[2]
