"""Shopify's own sales report: the dataset `sales` of ShopifyQL, through the Admin API.

Facts: help.shopify.com, the sales reports (every order on the day it was placed, whatever its status; returns and edits on
theirs); shopify.dev/docs/api/shopifyql, the schema `sales` and its dimensions `pos_location_name` and `order_id`. It takes the
scope `read_reports` and level 2 access to protected customer data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.decoding import decode
from flux_pipelines.providers.base import Location, Window
from flux_pipelines.providers.shopify.graphql import GraphQL
from flux_pipelines.providers.shopify.streams import Shop
from flux_pipelines.providers.witness import NoWitnessError, ReportedOrder

PERMISSION = "the scope read_reports and level 2 access to protected customer data"
_MEASURES = "net_sales, shipping_charges, discounts, returns, taxes, total_sales"
_MOST_ROWS = 10_000
_PLACE = "pos_location_name"


class _Table(msgspec.Struct):
    rows: list[msgspec.Raw]


class _Answer(msgspec.Struct, rename="camel"):
    parse_errors: list[str]
    table_data: _Table | None = None


class _Data(msgspec.Struct, rename={"answer": "shopifyqlQuery"}):
    answer: _Answer


class ShopifyReports:
    """The sales report of one shop.

    Args:
        graphql: the connection's client.
        shop: returns the shop.
        locations: returns its locations.

    """

    def __init__(self, graphql: GraphQL, shop: Callable[[], Shop], locations: Callable[[], Sequence[Location]]) -> None:
        self._graphql = graphql
        self._shop = shop
        self._locations = locations

    def stores(self, window: Window) -> dict[str, list[msgspec.Raw]]:
        """Return what the report says of each location of a business date."""
        found: dict[str, list[msgspec.Raw]] = {}
        for raw, row in self._rows(window, f"{_MEASURES} GROUP BY {_PLACE}"):
            found[self._place(row)] = [raw]
        return found

    def orders(self, window: Window) -> list[ReportedOrder]:
        """Return what the report says of each order of a business date."""
        query = f"net_sales, shipping_charges GROUP BY order_id, {_PLACE}"
        rows = self._rows(window, query, f" LIMIT {_MOST_ROWS}")
        if len(rows) >= _MOST_ROWS:
            raise NoWitnessError(f"the report has more than {_MOST_ROWS:,} orders")
        found = []
        for _, row in rows:
            try:
                net = sum((Decimal(str(row.get(name) or 0)) for name in ("net_sales", "shipping_charges")), Decimal(0))
            except InvalidOperation:
                raise NoWitnessError("an amount of the report cannot be read") from None
            found.append(ReportedOrder(self._place(row), str(row.get("order_id")), net))
        return found

    def _rows(self, window: Window, shown: str, more: str = "") -> list[tuple[msgspec.Raw, dict[str, Any]]]:
        shop, day = self._shop(), window.first_date
        if window.start != BusinessCalendar(shop.iana_timezone).start(day):
            raise NoWitnessError("the report is by calendar date, and this connection's dates end at another hour")
        what, grouped = shown.split(" GROUP BY ")
        query = f"FROM sales SHOW {what} GROUP BY {grouped} SINCE {day} UNTIL {day}{more}"
        found = self._graphql.run("report", {"query": query}, _Data)[0].answer
        if found.parse_errors:
            raise NoWitnessError(f"Shopify does not understand the question: {'; '.join(found.parse_errors)}")
        rows = found.table_data.rows if found.table_data is not None else []
        return [(raw, decode(raw, dict[str, Any])) for raw in rows]

    def _place(self, row: dict[str, Any]) -> str:
        name = row.get(_PLACE)
        if not name:
            return self._shop().id.rpartition("/")[2]
        known = [one.location_id for one in self._locations() if one.name == name]
        if len(known) != 1:
            raise NoWitnessError(f"the report names a location {name!r}, of which the shop has {len(known)}")
        return known[0]
