"""What each of Toast's paths answers, once the request is known to be allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.toast import labor
from flux_sandbox.toast.calls import Answer, Call, Endpoint
from flux_sandbox.toast.config import Configuration
from flux_sandbox.toast.documents import payments_in, payments_on
from flux_sandbox.toast.errors import invalid, missing
from flux_sandbox.toast.ids import group_guid, order_guid, restaurant_guid
from flux_sandbox.toast.menus import Menus
from flux_sandbox.toast.reports import Reports
from flux_sandbox.toast.restaurants import (
    connected_page,
    created_ms,
    partner_restaurant,
    restaurant,
)
from flux_sandbox.toast.search import HOUR, business_date, find, instant, links, page_of, parse
from flux_sandbox.toast.values import day_number, window_ms

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Sale
    from flux_sandbox.toast.auth import Authority
    from flux_sandbox.toast.orders import OrderWriter
    from flux_sandbox.world import World

_ANALYTICS = "enterprise-metrics:read"
_PAYMENT_DATES = ("paidBusinessDate", "refundBusinessDate", "voidBusinessDate")


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
        self._paid: dict[str, str] = {}  # GUID of a payment -> world id of its order
        self._encode = msgspec.json.Encoder().encode

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return every path."""
        return (
            Endpoint("orders_bulk", "GET", "/orders/v2/ordersBulk", self._bulk, "orders:read"),
            Endpoint("orders_list", "GET", "/orders/v2/orders", self._list, "orders:read"),
            Endpoint("order", "GET", "/orders/v2/orders/{guid}", self._order, "orders:read"),
            Endpoint("payments_list", "GET", "/orders/v2/payments", self._payments, "orders:read"),
            Endpoint("payment", "GET", "/orders/v2/payments/{guid}", self._payment, "orders:read"),
            Endpoint("menus", "GET", "/menus/v2/menus", self._menus, "menus:read"),
            Endpoint("menus_metadata", "GET", "/menus/v2/metadata", self._metadata, "menus:read"),
            Endpoint("config", "GET", "/config/v2/{kind}", self._config, "config:read"),
            Endpoint("config_one", "GET", "/config/v2/{kind}/{guid}", self._config_one, "config:read"),
            Endpoint("stock", "GET", "/stock/v1/inventory", self._inventory, "stock:read"),
            Endpoint("stock_search", "POST", "/stock/v1/inventory/search", self._stock_search, "stock:read"),
            Endpoint("restaurant", "GET", "/restaurants/v1/restaurants/{guid}", self._restaurant, "restaurants:read"),
            Endpoint("group", "GET", "/restaurants/v1/groups/{guid}/restaurants", self._group, "restaurants:read"),
            Endpoint("partners", "GET", "/partners/v1/restaurants", self._partners, "partners:read", False),
            Endpoint("connected", "GET", "/partners/v1/connectedRestaurants", self._page, "partners:read", False),
            Endpoint("time_entries", "GET", "/labor/v1/timeEntries", self._time_entries, "labor:read"),
            Endpoint("jobs", "GET", "/labor/v1/jobs", self._jobs, "labor:read"),
            Endpoint("employees", "GET", "/labor/v1/employees", self._employees, "labor.employees:read"),
            Endpoint("metrics", "POST", "/era/v1/metrics/{span}", self._metrics, _ANALYTICS, False),
            Endpoint("checks", "POST", "/era/v1/check/day", self._checks, _ANALYTICS, False),
            Endpoint("metrics_report", "GET", "/era/v1/metrics/{guid}", self._report, _ANALYTICS, False),
            Endpoint("checks_report", "GET", "/era/v1/check/{guid}", self._report, _ANALYTICS, False),
        )

    def _answer(self, content: Any, headers: Mapping[str, str] | None = None) -> Answer:
        return Answer(self._encode(content), headers or {})

    # Orders

    def log_search(self, restaurant: str, query: Mapping[str, str], status: int, returned: int) -> None:
        """Note that orders were asked for."""
        by_day = "businessDate" in query
        self._world.traffic.searches.append(
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
        found = find(self._world, call.client.merchant, call.here, asked)
        shown = page_of(found, asked)
        body = b"[" + b",".join([self._write(sale, call.view) for sale in shown]) + b"]"
        self.log_search(restaurant_guid(call.here), call.query, 200, len(shown))
        return Answer(body, {"Link": links(call.request.url, asked, len(found))})

    def _list(self, call: Call) -> Answer:
        found = find(self._world, call.client.merchant, call.here, parse(call.query, HOUR))
        return self._answer([order_guid(sale) for sale in found])

    def _sale(self, here: Location, guid: str) -> Sale:
        if guid not in self._world.sales and guid not in self._orders:
            self._orders |= {order_guid(sale): sale.id for sale in self._world.sales.values()}
        sale = self._world.sales.get(self._orders.get(guid, guid))
        if sale is None or sale.location is not here or not self._world.is_order(sale):
            raise missing(f"Order {guid}")
        return sale

    def _order(self, call: Call) -> Answer:
        return Answer(self._write(self._sale(call.here, call.request.path_params["guid"]), call.view))

    # Reports

    def _metrics(self, call: Call) -> Answer:
        return self._answer(self.reports.metrics(call.client.merchant, call.request.path_params["span"], call.body))

    def _checks(self, call: Call) -> Answer:
        return self._answer(self.reports.checks(call.client.merchant, call.body))

    def _report(self, call: Call) -> Answer:
        found = self.reports.report(call.request.path_params["guid"])
        return Answer(b"", status=202) if found is None else self._answer(found)

    # Payments

    def _payments(self, call: Call) -> Answer:
        asked = [name for name in _PAYMENT_DATES if name in call.query]
        if len(asked) != 1:
            raise invalid(f"One of {', '.join(_PAYMENT_DATES)} is required")
        merchant, here = call.client.merchant, call.here
        day = business_date(call.query, asked[0])
        start, end = window_ms(day, here.timezone, merchant.cutoff_hour)
        taken = payments_on(merchant, here, asked[0], day_number(day))
        if asked[0] == "refundBusinessDate":
            backs = (s for s in self._world.sales.values() if s.location is here and not self._world.is_order(s))
            refunds = [one for back in backs for one in self._world.payments_of(back) if start <= one.at < end]
            return self._answer(sorted({one.source_id for one in refunds if one.source_id}) + taken)
        wanted = "canceled" if asked[0] == "voidBusinessDate" else ""
        found = []
        for _, sale in self._world.between([here.id], "closed", start, end - 1):
            for paid in self._write.maker.payments(sale):
                if start <= paid.at < end and wanted in ("", paid.status):
                    found.append(paid.id)
        return self._answer(found + taken)

    def _payment(self, call: Call) -> Answer:
        guid = call.request.path_params["guid"]
        if guid not in self._paid:
            every = [sale for sale in self._world.sales.values() if sale.location is call.here]
            self._paid |= {paid.id: sale.id for sale in every for paid in self._write.maker.payments(sale)}
            self._paid |= {
                paid["guid"]: sale.id
                for sale in every
                for _, paid in payments_in(sale.document or {})
                if "guid" in paid
            }
        if guid not in self._paid:
            raise missing(f"Payment {guid}")
        order = self._write.maker.order(self._sale(call.here, self._paid[guid]), call.view)
        check, payment = next(pair for pair in payments_in(order) if pair[1].get("guid") == guid)
        return self._answer({**payment, "orderGuid": order["guid"], "checkGuid": check.get("guid")})

    # Menus, configuration, stock

    def _menus(self, call: Call) -> Answer:
        return self._answer(self.menus.menus(call.client.merchant, call.here))

    def _metadata(self, call: Call) -> Answer:
        return self._answer(self.menus.metadata(call.client.merchant, call.here))

    def _config(self, call: Call) -> Answer:
        kind = call.request.path_params["kind"]
        return self._answer(*self.configuration.listed(call.client.merchant, call.here, kind, call.query))

    def _config_one(self, call: Call) -> Answer:
        path = call.request.path_params
        return self._answer(self.configuration.one(call.client.merchant, call.here, path["kind"], path["guid"]))

    def _inventory(self, call: Call) -> Answer:
        return self._answer(self.menus.inventory(call.client.merchant, call.here, call.query))

    def _stock_search(self, call: Call) -> Answer:
        return self._answer(self.menus.search(call.client.merchant, call.here, call.body))

    # Restaurants

    def _restaurant(self, call: Call) -> Answer:
        guid = call.request.path_params["guid"]
        if guid != restaurant_guid(call.here):
            raise invalid("Toast-Restaurant-External-ID must be the GUID of the restaurant that is asked for")
        return self._answer(restaurant(call.client.merchant, call.here))

    def _group(self, call: Call) -> Answer:
        if call.request.path_params["guid"] != group_guid(call.client.merchant):
            raise missing("Management group")
        return self._answer([{"guid": restaurant_guid(one)} for one in self._authority.restaurants(call.client)])

    def _partners(self, call: Call) -> Answer:
        merchant, shown = call.client.merchant, self._authority.restaurants(call.client)
        if "lastModified" in call.query:
            since = instant(call.query, "lastModified")
            shown = [one for one in shown if created_ms(one) >= since]
        return self._answer([partner_restaurant(merchant, location) for location in shown])

    def _page(self, call: Call) -> Answer:
        return self._answer(connected_page(call.client.merchant, self._authority.restaurants(call.client), call.query))

    # Labor

    def _time_entries(self, call: Call) -> Answer:
        ids = call.request.query_params.getlist("timeEntryIds")
        return self._answer(labor.time_entries(call.client.merchant, call.here, call.query, ids))

    def _jobs(self, call: Call) -> Answer:
        return self._answer(labor.jobs(call.client.merchant))

    def _employees(self, call: Call) -> Answer:
        return self._answer(labor.employees(call.client.merchant))
