"""What each of Toast's paths answers, once the request is known to be allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.toast import labor
from flux_sandbox.toast.calls import Answer, Call, Endpoint
from flux_sandbox.toast.config import Configuration
from flux_sandbox.toast.errors import invalid, missing
from flux_sandbox.toast.ids import order_guid, restaurant_guid
from flux_sandbox.toast.menus import Menus
from flux_sandbox.toast.reports import Reports
from flux_sandbox.toast.restaurants import partner_restaurant, restaurant
from flux_sandbox.toast.search import find, links, page_of, parse

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Sale
    from flux_sandbox.toast.auth import Authority
    from flux_sandbox.toast.orders import OrderWriter
    from flux_sandbox.world import World

_ANALYTICS = "enterprise-metrics:read"


class Paths:
    """The endpoints over a world."""

    def __init__(self, world: World, authority: Authority, write: OrderWriter) -> None:
        self._world = world
        self._authority = authority
        self._write = write
        self.menus = Menus(world, write.maker)
        self.configuration = Configuration(world)
        self.reports = Reports(world)
        self._orders: dict[str, str] = {}  # GUID of an order -> world id, where they differ
        self._encode = msgspec.json.Encoder().encode

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return every path."""
        menus, reports, stock = self.menus, self.reports, "/stock/v1/inventory"

        def partners(call: Call) -> Any:
            return [partner_restaurant(call.merchant, one) for one in self._authority.restaurants(call.client)]

        def report(call: Call) -> Any:
            found = reports.report(call.request.path_params["guid"])
            return Answer(b"", status=202) if found is None else found

        return (
            Endpoint("orders_bulk", "GET", "/orders/v2/ordersBulk", self._bulk, "orders:read"),
            Endpoint("order", "GET", "/orders/v2/orders/{guid}", self._order, "orders:read"),
            Endpoint("menus", "GET", "/menus/v2/menus", lambda c: menus.menus(c.merchant, c.here), "menus:read"),
            Endpoint("config", "GET", "/config/v2/alternatePaymentTypes", self._config, "config:read"),
            Endpoint("stock", "GET", stock, lambda c: menus.inventory(c.merchant, c.here), "stock:read"),
            Endpoint(
                "stock_search",
                "POST",
                f"{stock}/search",
                lambda c: menus.search(c.merchant, c.here, c.body),
                "stock:read",
            ),
            Endpoint("restaurant", "GET", "/restaurants/v1/restaurants/{guid}", _restaurant, "restaurants:read"),
            Endpoint("partners", "GET", "/partners/v1/restaurants", partners, "partners:read", False),
            Endpoint(
                "time_entries",
                "GET",
                "/labor/v1/timeEntries",
                lambda c: labor.time_entries(c.merchant, c.here, c.query),
                "labor:read",
            ),
            Endpoint("jobs", "GET", "/labor/v1/jobs", lambda c: labor.jobs(c.merchant), "labor:read"),
            Endpoint(
                "metrics",
                "POST",
                "/era/v1/metrics/{span}",
                lambda c: reports.metrics(c.merchant, c.request.path_params["span"], c.body),
                _ANALYTICS,
                False,
            ),
            Endpoint(
                "checks", "POST", "/era/v1/check/day", lambda c: reports.checks(c.merchant, c.body), _ANALYTICS, False
            ),
            Endpoint("metrics_report", "GET", "/era/v1/metrics/{guid}", report, _ANALYTICS, False),
            Endpoint("checks_report", "GET", "/era/v1/check/{guid}", report, _ANALYTICS, False),
        )

    # Orders

    def log_search(self, restaurant: str, query: Mapping[str, str], status: int, returned: int) -> None:
        """Note that orders were asked for."""
        by_day = "businessDate" in query
        self._world.request_log.searches.append(
            {
                "at": self._world.clock().timestamp(),
                "merchant_id": None,
                "location_ids": [restaurant],
                "cursor": query.get("page", "1") != "1",
                "limit": query.get("pageSize"),
                "status": status,
                "returned": returned,
                "field": "business_date" if by_day else "modified",
                "start_at": query.get("businessDate") if by_day else query.get("startDate"),
                "end_at": query.get("endDate"),
                "states": None,
            }
        )

    def _bulk(self, call: Call) -> Answer:
        asked = parse(call.query)
        asked = asked._replace(size=self._world.options.page(asked.size))
        found = find(self._world, call.merchant, call.here, asked)
        shown = page_of(found, asked)
        body = b"[" + b",".join([self._write(sale, call.view) for sale in shown]) + b"]"
        self.log_search(restaurant_guid(call.here), call.query, 200, len(shown))
        return Answer(body, {"Link": links(call.request.url, asked, len(found))})

    def _sale(self, here: Location, guid: str) -> Sale:
        if guid not in self._world.sales and guid not in self._orders:
            self._orders |= {order_guid(sale): sale.id for sale in self._world.sales.values()}
        sale = self._world.sales.get(self._orders.get(guid, guid))
        if sale is None or sale.location is not here or not self._world.is_order(sale):
            raise missing(f"Order {guid}")
        return sale

    def _order(self, call: Call) -> Answer:
        return Answer(self._write(self._sale(call.here, call.request.path_params["guid"]), call.view))

    def _config(self, call: Call) -> Answer:
        shown, headers = self.configuration.payment_types(call.merchant, call.query)
        return Answer(self._encode(shown), headers)


def _restaurant(call: Call) -> Any:
    if call.request.path_params["guid"] != restaurant_guid(call.here):
        raise invalid("Toast-Restaurant-External-ID must be the GUID of the restaurant that is asked for")
    return restaurant(call.merchant, call.here)
