"""ShopifyQL as the sandbox plays it: the dataset `sales` of one day, by location or by order.

Facts: shopify.dev/docs/api/shopifyql (syntax; the schema `sales`). What is sold online has no `pos_location_name`.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.money import from_minor
from flux_sandbox.reported import order_id, reported
from flux_sandbox.shopify.errors import QueryError
from flux_sandbox.shopify.ids import Json, legacy

if TYPE_CHECKING:
    from flux_sandbox.shopify.shop import Shop
    from flux_sandbox.truth import DayTruth

_QUERY = re.compile(
    r"FROM sales SHOW (?P<shown>[\w, ]+) GROUP BY (?P<by>[\w, ]+) SINCE (?P<first>\S+) UNTIL (?P<last>\S+)( LIMIT \d+)?"
)
_PLACE, _ORDER = "pos_location_name", "order_id"


def answer(shop: Shop, query: str) -> Json:
    """Answer `shopifyqlQuery`."""
    play = shop.world.reporting
    if play.denied or play.absent:
        raise QueryError("Access denied for shopifyqlQuery field.", "ACCESS_DENIED")
    if play.waiting(f"{shop.merchant.id}|{query}"):
        raise QueryError("Internal error. Looks like something went wrong on our end.", "INTERNAL_SERVER_ERROR")
    found = _QUERY.fullmatch(query)
    if found is None or found["first"] != found["last"]:
        return _refused(f"the sandbox does not play: {query}")
    shown = [name.strip() for name in found["shown"].split(",")]
    by = [name.strip() for name in found["by"].split(",")]
    if unknown := (set(shown) - set(_figures(None))) | (set(by) - {_PLACE, _ORDER}):
        return _refused(f"Column not found: {', '.join(sorted(unknown))}")
    window = BusinessCalendar(shop.zone).window(date.fromisoformat(found["first"]))
    low, high = (int(instant.timestamp() * 1000) for instant in window)
    own = [location.id for location in shop.merchant.locations]
    sums = reported(shop.world, shop.merchant, own, low, high - 1, apart=order_id if _ORDER in by else None)
    rows = []
    for (place, order), figures in sums.items():
        values = {name: value for name, value in _figures(figures).items() if name in shown}
        if _ORDER in by:
            values[_ORDER] = str(legacy("Order", order))
        rows.append({**values, _PLACE: _name(shop, place)})
    columns = [{"name": name, "dataType": "MONEY", "displayName": name} for name in shown]
    columns += [{"name": name, "dataType": "STRING", "displayName": name} for name in by]
    return {
        "analyticsTargets": [],
        "parseErrors": [],
        "parseWarnings": [],
        "tableData": {"columns": columns, "rows": rows, "rowMetadata": []},
    }


def _refused(why: str) -> Json:
    return {"analyticsTargets": [], "parseErrors": [why], "parseWarnings": [], "tableData": None}


def _name(shop: Shop, place: str) -> str | None:
    first, *others = shop.merchant.locations
    return None if place == first.id else next(one.name for one in others if one.id == place)


def _figures(day: DayTruth | None) -> dict[str, Any]:
    """Return the measures of a day: shipping is no part of net sales, discounts and returns are negative."""
    if day is None:
        return dict.fromkeys(("net_sales", "shipping_charges", "discounts", "returns", "taxes", "total_sales"))
    amounts = {
        "net_sales": day.net - day.service_charges,
        "shipping_charges": day.service_charges,
        "discounts": -day.discount,
        "returns": day.returns,
        "taxes": day.tax,
        "total_sales": day.net + day.tax,
    }
    return {name: str(from_minor(amount, day.currency)) for name, amount in amounts.items()}
