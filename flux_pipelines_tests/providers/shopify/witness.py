"""A small Shopify with books of its own: it serves the orders of one shop, and says what its reports would say.

What happens is told twice: as orders with their agreements, and, apart from them, as entries of the books, in cents, on the day on
which Shopify's sales reports count it: an order on the day it was placed, whatever becomes of it, and edits, returns and cancellations on
theirs (help.shopify.com, sales reports). The books are never worked out from the orders. Every amount follows from the seed. The
shop is in New York, and its day ends at midnight.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from flux_pipelines_tests.providers.shopify.nodes import gid, nodes
from flux_pipelines_tests.providers.shopify.wire import graphql
from flux_pipelines_tests.transport.server import Reply, serve

Json = dict[str, Any]
#: The dates that the books are of.
FIRST, LAST = 9, 20
_NEW_YORK = ZoneInfo("America/New_York")
_SCOPES = ("read_orders", "read_all_orders", "read_products", "read_inventory", "read_locations", "read_reports")
_SHOP = {"id": gid("Shop", 7), "name": "Witness", "myshopifyDomain": "witness.myshopify.com"}
_PAGE = 4  # of agreements and of sales that are given at once


def _at(day: int, time: str = "12:00", month: int = 3) -> str:
    hour, minute = map(int, time.split(":"))
    return datetime(2026, month, day, hour, minute, tzinfo=_NEW_YORK).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bag(cents: int) -> Json:
    return {"shopMoney": {"amount": f"{cents / 100:.2f}", "currencyCode": "USD"}}


class Order:
    """One order while it is told: every event adds to its agreements, to what it comes to now, and to the books."""

    def __init__(self, witness: Witness, number: int, at: str, day: int) -> None:
        self._witness = witness
        self.number = number
        self.placed = self.updated = at
        self.agreements: list[Json] = []
        self.lines: dict[str, Json] = {}
        self.transactions: list[Json] = []
        self.more: Json = {}
        self.owed = self.paid = 0
        self._open("ORDER", at, day)

    def _open(self, reason: str, at: str, day: int) -> None:
        self._day, self.updated = day, max(self.updated, at)
        self.agreements.append(
            {
                "id": gid("Agreement", f"{self.number}{len(self.agreements)}"),
                "happenedAt": at,
                "reason": reason,
                "sales": [],
            }
        )

    def event(self, reason: str, day: int, time: str = "12:00") -> Order:
        """Begin something that happens to the order later."""
        self._open(reason, _at(day, time), day)
        return self

    def sale(
        self, kind: str, action: str, net: int, tax: int = 0, *, line: int = 0, units: int = 0, **of: Any
    ) -> Order:
        """Add a sale of some cents, and what the report makes of it: no revenue of tips and gift cards."""
        sales = self.agreements[-1]["sales"]
        if kind in ("PRODUCT", "GIFT_CARD", "TIP"):
            id_ = gid("LineItem", f"{self.number}{line}")
            known = {"variant": None, "product": {"legacyResourceId": "5"}, "sku": None, "variantTitle": None}
            self.lines.setdefault(
                id_, {"id": id_, "title": f"Thing {line}", "originalUnitPriceSet": _bag(abs(net)), **known}
            )
            of["lineItem"] = {"id": id_}
        sales.append(
            {
                "id": gid(f"{kind.title()}Sale", f"{self.number}{len(self.agreements)}{len(sales)}"),
                "actionType": action,
                "lineType": kind,
                "quantity": units,
                "totalAmount": _bag(net + tax),
                "totalTaxAmount": _bag(tax),
                "totalDiscountAmountBeforeTaxes": _bag(0),
                "totalDiscountAmountAfterTaxes": _bag(0),
                "taxes": [],
                **of,
            }
        )
        self.owed += net + tax
        book = self._witness.books.setdefault(self._day, Counter())
        if kind == "TIP":
            book["tips"] += net
        elif kind == "GIFT_CARD":
            book["gift_cards"] += net
        else:
            book["net"] += net
            book["tax"] += tax
            book["shipping"] += net if kind == "SHIPPING" else 0
        return self

    def money(self, cents: int, day: int, time: str = "12:00", month: int = 3) -> Order:
        """Take money, or give it back."""
        at, kind = _at(day, time, month), "SALE" if cents > 0 else "REFUND"
        self.paid += cents
        self.updated = max(self.updated, at)
        self.transactions.append(
            {
                "id": gid("OrderTransaction", f"{self.number}{len(self.transactions)}"),
                "kind": kind,
                "status": "SUCCESS",
                "gateway": "shopify_payments",
                "test": False,
                "createdAt": at,
                "processedAt": at,
                "amountSet": _bag(abs(cents)),
                "fees": [],
                "parentTransaction": {"id": self.transactions[0]["id"]} if cents < 0 else None,
                "paymentDetails": None,
            }
        )
        return self

    @property
    def head(self) -> Json:
        nothing = {"paymentSet": _bag(0), "refundSet": _bag(0)}
        return {
            "id": gid("Order", self.number),
            "legacyResourceId": str(self.number),
            "test": False,
            "processedAt": self.placed,
            "createdAt": self.placed,
            "updatedAt": self.updated,
            "cancelledAt": None,
            "currencyCode": "USD",
            "presentmentCurrencyCode": "USD",
            "taxesIncluded": False,
            "displayFinancialStatus": "PAID" if self.owed == self.paid else "PENDING",
            "retailLocation": None,
            "currentTotalPriceSet": _bag(self.owed),
            "netPaymentSet": _bag(self.paid),
            "totalOutstandingSet": _bag(self.owed - self.paid),
            "totalCashRoundingAdjustment": nothing,
            **self.more,
        }

    def node(self) -> Json:
        """Return the order as a page has it: with its first agreement, and the first sales of that."""
        page = self.agreements_from(0, 1)
        lines = {"pageInfo": {"hasNextPage": False}, **nodes(self.lines.values())}
        return {**self.head, "transactions": self.transactions, "lineItems": lines, "agreements": page}

    def agreements_from(self, start: int, count: int) -> Json:
        part = self.agreements[start : start + count]
        edges = [
            {"cursor": str(start + n + 1), "node": {**one, "sales": _page(one["sales"], 0, _PAGE)}}
            for n, one in enumerate(part)
        ]
        end = start + len(part)
        return {"pageInfo": {"hasNextPage": end < len(self.agreements), "endCursor": str(end)}, "edges": edges}


def _page(items: Sequence[Any], start: int, count: int) -> Json:
    end = start + count
    return {"pageInfo": {"hasNextPage": end < len(items), "endCursor": str(end)}, "nodes": list(items[start:end])}


class Witness:
    """What happened in the shop: its orders, and `books`: cents by day of March and figure."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.books: dict[int, Counter[str]] = {day: Counter() for day in range(FIRST, LAST + 1)}
        self.orders: list[Order] = []
        self._files: dict[str, bytes] = {}
        self._happen()

    def _cents(self, low: int, high: int) -> int:
        return self._random.randrange(low, high)

    def _order(self, day: int, time: str = "12:00", month: int = 3) -> Order:
        order = Order(self, 1001 + len(self.orders), _at(day, time, month), day if month == 3 else -day)
        self.orders.append(order)
        return order

    def _happen(self) -> None:
        for day in range(FIRST, LAST + 1):  # plain days, with more sales than a page holds
            order = self._order(day, "11:00")
            for line in range(self._random.randrange(1, 8)):
                order.sale("PRODUCT", "ORDER", self._cents(500, 5000), self._cents(20, 400), line=line, units=1)
            order.money(order.owed, day, "11:01")
        goods, tip, post = self._cents(2000, 9000), self._cents(100, 900), self._cents(300, 900)
        order = self._order(10, "23:50")  # late in the evening, which is the next day in UTC
        order.sale("PRODUCT", "ORDER", goods, 160, line=1, units=1).sale("TIP", "ORDER", tip, line=2, units=1)
        order.sale("SHIPPING", "ORDER", post, 24, shippingLine={"id": gid("ShippingLine", 1), "title": "Post"})
        order.money(order.owed, 10, "23:50")
        # Given back a week later, and the tip with it; shipping was kept, and so was a fee.
        fee, back = self._cents(100, 500), self.orders[-1].event("REFUND", 17, "10:00")
        back.sale("PRODUCT", "RETURN", -goods, -160, line=1, units=-1).sale("TIP", "RETURN", -tip, line=2, units=-1)
        back.sale("ADJUSTMENT", "RETURN", fee).money(-(goods + 160 + tip - fee), 17, "10:00")

        pending = self._order(11)  # placed on the 11th, paid on the 16th
        pending.sale("PRODUCT", "ORDER", self._cents(4000, 9000), 320, line=1, units=2)
        pending.money(pending.owed, 16)
        self._order(11, "15:00").sale("PRODUCT", "ORDER", self._cents(1000, 3000), 80, line=1, units=1)  # never paid

        lost = self._cents(1500, 6000)  # cancelled four days later, unpaid
        cancelled = self._order(12).sale("PRODUCT", "ORDER", lost, 96, line=1, units=1)
        cancelled.event("REFUND", 16, "09:00").sale("PRODUCT", "RETURN", -lost, -96, line=1, units=-1)
        cancelled.more = {"cancelledAt": _at(16, "09:00"), "displayFinancialStatus": "VOIDED"}

        first, added = self._cents(2000, 4000), self._cents(500, 900)  # edited upwards, paid on yet another day
        edited = self._order(13).sale("PRODUCT", "ORDER", first, 64, line=1, units=1).money(first + 64, 13)
        edited.event("ORDER_EDIT", 15).sale("PRODUCT", "ORDER", added, 16, line=2, units=1)
        edited.sale("PRODUCT", "UPDATE", -150, line=1)  # a discount that was given later
        edited.money(added + 16 - 150, 18)

        card = self._cents(2500, 7500)  # a gift card is no revenue
        self._order(14).sale("GIFT_CARD", "ORDER", card, line=1, units=1).money(card, 14)

        old = self._cents(1000, 3000)  # of before the range, come back in it
        older = self._order(20, month=2).sale("PRODUCT", "ORDER", old, 48, line=1, units=1).money(old + 48, 20, month=2)
        older.event("RETURN", 12, "16:00").sale("PRODUCT", "RETURN", -old, -48, line=1, units=-1).money(-(old + 48), 12)

    # The API

    def answer(self, name: str, variables: Mapping[str, Any]) -> Any:
        if name in self._files:
            return Reply(200, self._files[name])
        if name == "Access":
            return {"shop": _SHOP, "currentAppInstallation": {"accessScopes": [{"handle": one} for one in _SCOPES]}}
        if name == "Shop":
            return {"shop": {**_SHOP, "currencyCode": "USD", "ianaTimezone": "America/New_York"}}
        if name == "Locations":
            return {"locations": _page([], 0, 1)}
        if name in ("Products", "Deletions"):
            return {"products" if name == "Products" else "events": _page([], 0, 1)}
        if name == "Inventory":
            return {"location": None}  # the web shop is no place
        if name == "Report":
            return self._report(variables["query"])
        by_id = {gid("Order", one.number): one for one in self.orders}
        if name in ("Orders", "OrderHeads"):
            found = self._found(variables["query"])
            start = int(variables["after"] or 0)
            page = _page(found, start, variables["first"])
            return {
                "orders": {**page, "nodes": [one.node() if name == "Orders" else one.head for one in page["nodes"]]}
            }
        if name == "OrdersById":
            return {"nodes": [by_id[id_].node() if id_ in by_id else None for id_ in variables["ids"]]}
        if name == "MoreAgreements":
            order = by_id[variables["id"]]
            return {"node": {"connection": order.agreements_from(int(variables["after"]), variables["first"])}}
        if name == "MoreSales":
            one = by_id[variables["id"]].agreements[int(variables["agreement"] or 0)]
            page = _page(one["sales"], int(variables["after"]), _PAGE)
            return {"node": {"agreements": {"nodes": [{"id": one["id"], "connection": page}]}}}
        return self._bulk(name, variables)

    def _report(self, query: str) -> Json:
        """Answer ShopifyQL's `FROM sales SHOW ... SINCE day UNTIL day`, from the books; shipping is told apart."""
        day = date.fromisoformat(query.partition("SINCE ")[2].split()[0])
        book = self.books.get(day.day, Counter()) if day.month == 3 else Counter()
        goods = book["net"] - book["shipping"]
        row = {"net_sales": goods, "shipping_charges": book["shipping"], "taxes": book["tax"]}
        told = {name: f"{cents / 100:.2f}" for name, cents in row.items()}
        table = {"columns": [], "rows": [{**told, "pos_location_name": None}]}
        return {"shopifyqlQuery": {"tableData": table, "parseErrors": []}}

    def _found(self, query: str) -> list[Order]:
        name = "updated" if query.startswith("updated_at") else "placed"
        low, high = query.split("'")[1], query.split("'")[3]
        return sorted((o for o in self.orders if low <= getattr(o, name) < high), key=lambda o: str(getattr(o, name)))

    def _bulk(self, name: str, variables: Mapping[str, Any]) -> Any:
        if name == "BulkRun":
            lines: list[Json] = []
            search = variables["query"].partition('query: "')[2].partition('"')[0]
            found = self._found(search)
            for order in found:
                lines.append({**order.head, "transactions": order.transactions})
                lines += [{**one, "__parentId": gid("Order", order.number)} for one in order.lines.values()]
                for one in order.agreements:
                    told = {key: value for key, value in one.items() if key != "sales"}
                    lines.append({**told, "__parentId": gid("Order", order.number)})
                    lines += [{**sale, "__parentId": one["id"]} for sale in one["sales"]]
            path = f"/file{len(self._files)}"
            self._files[path] = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
            self._operation = {"id": path, "status": "COMPLETED", "url": f"{self.url}{path}"} | {
                "objectCount": str(len(lines)),
                "rootObjectCount": str(len(found)),
            }
            return {"bulkOperationRunQuery": {"bulkOperation": self._operation, "userErrors": []}}
        assert name == "BulkPoll", name
        return {"bulkOperation": self._operation}

    url = ""
    _operation: Json


@contextmanager
def serving(witness: Witness) -> Iterator[str]:
    """Serve the shop on loopback; returns where."""
    with serve(graphql(witness.answer)) as server:
        witness.url = server.url
        yield server.url
