"""A small Toast with books of its own: it serves the orders of one restaurant, and says what its reports would say.

What happens is told twice: as orders in Toast's form, and, apart from them, as entries of the books, in cents, on the day on
which Toast's reports count it: a sale on the order's business date, open and unpaid ones too, what was given back on the day of
the refund (platform guide, adminViewingRefundsInToastReports). The books are never worked out from the orders. Every amount
follows from the seed. The restaurant is in New York, and its day ends at 4 a.m.

It may be started by hand: `python -m flux_pipelines_tests.providers.toast.witness PORT SEED`; `/_books` tells the books.
"""

from __future__ import annotations

import json
import random
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

Json = dict[str, Any]
RESTAURANT = "7a1b8f5e-7d43-4e55-9c1c-0f3a7c1d2e55"
#: The dates that the books are of.
FIRST, LAST = 9, 20
_NEW_YORK = ZoneInfo("America/New_York")


def _at(day: int, time: str, month: int = 3) -> str:
    """Write a local time as Toast does."""
    hour, minute = map(int, time.split(":"))
    local = datetime(2026, month, day, hour, minute, tzinfo=_NEW_YORK)
    return local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _dollars(cents: int) -> float:
    return cents / 100


class Witness:
    """What happened in the restaurant: `orders` as Toast gives them, and `books`: cents by day of March and figure."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self.orders: list[Json] = []
        self.books: dict[int, Counter[str]] = {}
        self._waiting: set[str] = set()
        self._plain_days()
        self._checks_that_are_hard()
        self._charges_and_taxes()
        self._refunds()

    # Telling what happened

    def _cents(self, low: int, high: int) -> int:
        return self._random.randrange(low, high)

    def _guid(self, *name: object) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._seed}/{'/'.join(map(str, name))}"))

    def _book(self, day: int, **cents: int) -> None:
        self.books.setdefault(day, Counter()).update(cents)

    def _line(self, name: str, net: int, tax: int = 0, **more: Any) -> Json:
        return {
            "guid": self._guid("line", name),
            "entityType": "MenuItemSelection",
            "item": {"guid": self._guid("item", name), "entityType": "MenuItem", "multiLocationId": f"ml-{name}"},
            "displayName": name,
            "selectionType": "NONE",
            "deferred": False,
            "voided": False,
            "quantity": 1,
            "receiptLinePrice": _dollars(net),
            "preDiscountPrice": _dollars(net),
            "price": _dollars(net),
            "tax": _dollars(tax),
            "modifiers": [],
            "appliedTaxes": [],
            "refundDetails": None,
            **more,
        }

    def _charge(self, name: str, amount: int, tax: int = 0, **more: Any) -> Json:
        return {
            "guid": self._guid("charge", name),
            "entityType": "AppliedServiceCharge",
            "name": name,
            "chargeAmount": _dollars(amount),
            "gratuity": False,
            "serviceCharge": {"guid": self._guid("configured", name), "entityType": "ServiceCharge"},
            "serviceChargeCategory": "SERVICE_CHARGE",
            "destination": "RESTAURANT",
            "appliedTaxes": [{"entityType": "AppliedTaxRate", "taxAmount": _dollars(tax)}] if tax else [],
            "refundDetails": None,
            **more,
        }

    def _payment(self, name: str, amount: int, day: int, time: str = "20:00", tip: int = 0, **more: Any) -> Json:
        # Until 4 a.m. it is still the business date before.
        return {
            "guid": self._guid("payment", name),
            "entityType": "OrderPayment",
            "type": "CREDIT",
            "amount": _dollars(amount),
            "tipAmount": _dollars(tip),
            "paidDate": _at(day, time),
            "paidBusinessDate": 20260300 + day - (time < "04:00"),
            "paymentStatus": "CAPTURED",
            "refundStatus": "NONE",
            "refund": None,
            "voidInfo": None,
            **more,
        }

    def _refund(self, day: int, amount: int, tip: int = 0, transaction: str = "") -> Json:
        named = {"guid": self._guid("refund", transaction), "entityType": "RefundTransaction"} if transaction else None
        return {
            "refundAmount": _dollars(amount),
            "tipRefundAmount": _dollars(tip),
            "refundDate": _at(day, "15:00"),
            "refundBusinessDate": 20260300 + day,
            "refundTransaction": named,
        }

    def _back(self, net: int, tax: int = 0, transaction: str = "r") -> Json:
        return {
            "refundAmount": _dollars(net),
            "taxRefundAmount": _dollars(tax),
            "refundTransaction": {"guid": self._guid("refund", transaction), "entityType": "RefundTransaction"},
        }

    def _check(self, name: str, owed: int, lines: list[Json], payments: list[Json], **more: Any) -> Json:
        return {
            "guid": self._guid("check", name),
            "entityType": "Check",
            "selections": lines,
            "appliedServiceCharges": [],
            "payments": payments,
            "totalAmount": _dollars(owed),
            "paymentStatus": "CLOSED" if payments else "OPEN",
            "voided": False,
            "deleted": False,
            **more,
        }

    def _order(
        self,
        name: str,
        day: int,
        *checks: Json,
        opened: str = "18:00",
        changed: tuple[int, str] | None = None,
        month: int = 3,
        **more: Any,
    ) -> None:
        paid = all(check["payments"] for check in checks)
        self.orders.append(
            {
                "guid": self._guid("order", name),
                "entityType": "Order",
                "businessDate": 20260000 + 100 * month + day,
                "openedDate": _at(day, opened, month),
                "createdDate": _at(day, opened, month),
                "modifiedDate": _at(*(changed or (day, "23:59")), *([month] if changed is None else [])),
                "closedDate": _at(day, "23:59", month) if paid else None,
                "voided": False,
                "deleted": False,
                "checks": list(checks),
                **more,
            }
        )

    # What happened

    def _plain_days(self) -> None:
        """Something ordinary on every day."""
        for day in range(FIRST, LAST + 1):
            net, tax, tip = self._cents(900, 4000), self._cents(50, 300), self._cents(0, 800)
            name = f"day {day}"
            paid = self._payment(name, net + tax, day, tip=tip)
            self._order(name, day, self._check(name, net + tax, [self._line(name, net, tax)], [paid]))
            self._book(day, net=net, tax=tax, tips=tip)

    def _checks_that_are_hard(self) -> None:
        # Opened before midnight, paid after it and before the day's end.
        net, tax, tip = self._cents(3000, 6000), self._cents(200, 500), self._cents(300, 900)
        late = self._payment("midnight", net + tax, 11, "00:40", tip)
        self._order(
            *("midnight", 10, self._check("midnight", net + tax, [self._line("tab", net, tax)], [late])),
            opened="23:50",
            changed=(11, "00:41"),
        )
        self._book(10, net=net, tax=tax, tips=tip)
        # Opened on one business date, paid on the next: the sale is of the first.
        net, tax = self._cents(2000, 5000), self._cents(100, 400)
        next_day = self._payment("next day", net + tax, 12, "11:00")
        self._order(
            *("next day", 11, self._check("next day", net + tax, [self._line("supper", net, tax)], [next_day])),
            changed=(12, "11:01"),
        )
        self._book(11, net=net, tax=tax)
        # Never paid: open and unpaid orders count.
        net, tax = self._cents(9000, 9900), self._cents(500, 900)
        self._order("unpaid", 11, self._check("unpaid", net + tax, [self._line("unpaid", net, tax)], []))
        self._book(11, net=net, tax=tax)
        # A deposit a week before what was ordered: the sale is of the day of the dinner.
        net, tax = 4 * self._cents(9000, 12000), self._cents(2000, 3000)
        deposit = self._payment("deposit", net // 4, 11, "12:00")
        rest = self._payment("rest", net + tax - net // 4, 18)
        self._order("dinner", 18, self._check("dinner", net + tax, [self._line("dinner", net, tax)], [deposit, rest]))
        self._book(18, net=net, tax=tax)
        # A voided order; a voided line and payment in one that is not; a merged one; practice; waste.
        net, tax, tip = self._cents(1000, 2000), self._cents(80, 160), self._cents(100, 200)
        dead = self._payment("dead", 9999, 12, tip=500, paymentStatus="VOIDED", voidInfo={"voidBusinessDate": 20260312})
        going = self._payment("going", 8888, 12, tip=400, paymentStatus="PROCESSING_VOID")
        paid = self._payment("kept", net + tax, 12, tip=tip)
        voided, kept = self._line("voided", 7777, 777, voided=True), self._line("kept", net, tax)
        self._order("kept", 12, self._check("kept", net + tax, [voided, kept], [dead, going, paid]))
        self._book(12, net=net, tax=tax, tips=tip)
        gone = self._check("gone", 5000, [self._line("gone", 5000)], [dict(paid)], deleted=True)
        self._order("merged away", 12, gone, deleted=True)
        self._order("void", 12, self._check("void", 0, [self._line("never", 4444, 300)], [], voided=True), voided=True)
        self._order("practice", 15, self._check("practice", 1000, [self._line("practice", 1000)],
            [self._payment("practice", 1000, 15)]), createdInTestMode=True)  # fmt: skip
        waste = self._line("waste", 0, preDiscountPrice=50.0)
        self._order("waste", 15, self._check("waste", 0, [waste], [], paymentStatus="CLOSED"), excessFood=True)
        # A gift card sold, and one used.
        card, lunch, tax = self._cents(2500, 7500), self._cents(1000, 2000), self._cents(80, 160)
        sold = self._line("gift card", card, item=None, selectionType="TOAST_CARD_SELL", deferred=True)
        self._order(
            "gift",
            12,
            self._check("gift", card, [sold], [self._payment("gift", card, 12, type="CASH", paymentStatus=None)]),
        )
        self._book(12, gift_cards=card)
        used = self._payment("used", lunch + tax, 13, type="GIFTCARD", paymentStatus=None)
        self._order("used", 13, self._check("used", lunch + tax, [self._line("lunch", lunch, tax)], [used]))
        self._book(13, net=lunch, tax=tax)
        # A discount; tax that is in the price.
        net, off = self._cents(2000, 3000), self._cents(100, 900)
        cheap = self._line("cheap", net - off, 128, preDiscountPrice=_dollars(net), receiptLinePrice=_dollars(net))
        self._order(
            "cheap", 13, self._check("cheap", net - off + 128, [cheap], [self._payment("cheap", net - off + 128, 13)])
        )
        self._book(13, net=net - off, tax=128)
        inside = self._cents(20, 70)
        beer = self._line("beer", 750 - inside, inside, receiptLinePrice=7.5, taxInclusion="INCLUDED")
        self._order("beer", 15, self._check("beer", 750, [beer], [self._payment("beer", 750, 15)]))
        self._book(15, net=750 - inside, tax=inside)

    def _charges_and_taxes(self) -> None:
        net, tax, fee, fee_tax = (
            self._cents(8000, 9000),
            self._cents(600, 700),
            self._cents(200, 400),
            self._cents(10, 30),
        )
        staff, charity, driver, toast = (self._cents(low, 2 * low) for low in (900, 100, 300, 50))
        charges = [
            self._charge("service", fee, fee_tax),
            self._charge("gratuity", staff, gratuity=True, destination="SERVER"),
            self._charge("charity", charity, serviceChargeCategory="FUNDRAISING_CAMPAIGN", destination="THIRD_PARTY"),
            self._charge("driver", driver, destination="THIRD_PARTY", delivery=True),
            self._charge("toast", toast, destination="TOAST"),
        ]
        owed = net + tax + fee + fee_tax + charity + driver + toast  # a gratuity is not in a check's total
        paid = [self._payment("party", owed + staff, 14)]
        self._order(
            "party",
            14,
            self._check("party", owed, [self._line("party", net, tax)], paid, appliedServiceCharges=charges),
        )
        self._book(14, net=net + fee, tax=tax + fee_tax, tips=staff, third_party=charity + driver + toast)
        for sign, day in ((1, 14), (-1, 16)):
            net, step = 5 * self._cents(200, 400) - 2 * sign, 2 * sign
            cash = [self._payment(f"cash {day}", net + step, day, type="CASH", paymentStatus=None)]
            round_it = self._charge(f"rounding {day}", step, serviceChargeCategory="CASH_ROUNDING")
            self._order(f"cash {day}", day, self._check(
                f"cash {day}", net + step, [self._line(f"bun {day}", net)], cash, appliedServiceCharges=[round_it]
            ))  # fmt: skip
            self._book(day, net=net, rounding=step)
        net, theirs, ours = self._cents(2000, 3000), self._cents(100, 200), self._cents(10, 50)
        rates = [
            {"name": "State", "taxAmount": _dollars(theirs), "facilitatorCollectAndRemitTax": True},
            {"name": "Town", "taxAmount": _dollars(ours), "facilitatorCollectAndRemitTax": False},
        ]
        bowl = self._line("bowl", net, theirs + ours, appliedTaxes=rates)
        market = self._payment("market", net + theirs + ours, 14, type="OTHER", paymentStatus=None)
        self._order("market", 14, self._check("market", net + theirs + ours, [bowl], [market]))
        self._book(14, net=net, tax=ours, marketplace_tax=theirs)

    def _refunds(self) -> None:
        # One line, five days later.
        soup, bread = self._cents(800, 2000), self._cents(300, 900)
        lines = [self._line("soup", soup, 80), self._line("bread", bread, 40, refundDetails=self._back(bread, 40))]
        paid = self._payment(
            "soup", soup + bread + 120, 10, tip=200, refundStatus="PARTIAL", refund=self._refund(15, bread + 40)
        )
        self._order("soup", 10, self._check("soup", soup + bread + 120, lines, [paid]), changed=(15, "15:01"))
        self._book(10, net=soup + bread, tax=120, tips=200)
        self._book(15, net=-bread, tax=-40)
        # Of an order that is older than the books, weeks later, with its tip; it was touched once more after that.
        for name, day, changed in (("older", 12, 12), ("older still", 14, 19)):
            net, tax, tip = self._cents(3000, 5000), self._cents(200, 400), self._cents(100, 500)
            line = self._line(name, net, tax, refundDetails=self._back(net, tax, name))
            money = {"paidDate": _at(20, "20:00", 2), "paidBusinessDate": 20260220}
            back = self._refund(day, net + tax, tip, name)
            paid = self._payment(name, net + tax, 1, tip=tip, refundStatus="FULL", refund=back, **money)
            self._order(name, 20, self._check(name, net + tax, [line], [paid]), changed=(changed, "16:00"), month=2)
            self._book(day, net=-net, tax=-tax, tips=-tip)
        # Two payments of one check, refunded on two days, each for a line of its own.
        one, two = self._cents(1000, 3000), self._cents(1000, 3000)
        lines = [
            self._line("one", one, 90, refundDetails=self._back(one, 90, "one")),
            self._line("two", two, 70, refundDetails=self._back(two, 70, "two")),
            self._line("three", 5000),
        ]
        shares = [
            self._payment(
                "share 1", 5000, 13, refundStatus="PARTIAL", refund=self._refund(17, two + 70, transaction="two")
            ),
            self._payment(
                "share 2", one + two + 160, 13, refundStatus="PARTIAL", refund=self._refund(16, one + 90, 0, "one")
            ),
        ]
        self._order("shared", 13, self._check("shared", one + two + 5160, lines, shares), changed=(17, "15:01"))
        self._book(13, net=one + two + 5000, tax=160)
        self._book(16, net=-one, tax=-90)
        self._book(17, net=-two, tax=-70)
        # A modifier alone.
        burger, bacon = self._cents(1200, 1900), self._cents(100, 300)
        extra = self._line("bacon", bacon, 16, refundDetails=self._back(bacon, 16))
        line = self._line("burger", burger, 96, modifiers=[extra])
        paid = self._payment("burger", burger + 96, 16, refundStatus="PARTIAL", refund=self._refund(17, bacon + 16))
        self._order("burger", 16, self._check("burger", burger + 96, [line], [paid]), changed=(17, "15:01"))
        self._book(16, net=burger, tax=96)
        self._book(17, net=-bacon, tax=-16)
        # The whole check, and its lines do not say so; the gratuity as well.
        net, tax, staff = self._cents(4000, 6000), self._cents(300, 500), self._cents(500, 900)
        paid = self._payment(
            "all", net + tax + staff, 16, refundStatus="FULL", refund=self._refund(19, net + tax + staff)
        )
        given = self._charge("for the staff", staff, gratuity=True, destination="SERVER")
        self._order("all", 16, self._check("all", net + tax, [self._line("all", net, tax)], [paid],
            appliedServiceCharges=[given]), changed=(19, "15:01"))  # fmt: skip
        self._book(16, net=net, tax=tax, tips=staff)
        self._book(19, net=-net, tax=-tax, tips=-staff)
        # A custom amount: off net sales alone.
        net, some = self._cents(4000, 6000), self._cents(300, 900)
        paid = self._payment("custom", net + 333, 15, refundStatus="PARTIAL", refund=self._refund(20, some))
        self._order(
            "custom",
            15,
            self._check("custom", net + 333, [self._line("custom", net, 333)], [paid]),
            changed=(20, "15:01"),
        )
        self._book(15, net=net, tax=333)
        self._book(20, net=-some)
        # Tax alone; and a refund that is made after the books end.
        net, tax = self._cents(4000, 6000), self._cents(300, 500)
        line = self._line("exempt", net, tax, refundDetails=self._back(0, tax))
        paid = self._payment("exempt", net + tax, 17, refundStatus="PARTIAL", refund=self._refund(18, tax))
        self._order("exempt", 17, self._check("exempt", net + tax, [line], [paid]), changed=(18, "15:01"))
        self._book(17, net=net, tax=tax)
        self._book(18, tax=-tax)
        net = self._cents(2000, 4000)
        line = self._line("later", net, refundDetails=self._back(net))
        paid = self._payment("later", net, 17, refundStatus="FULL", refund=self._refund(25, net))
        self._order("later", 17, self._check("later", net, [line], [paid]), changed=(25, "15:01"))
        self._book(17, net=net)
        self._book(25, net=-net)

    # What is asked

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, Any, dict[str, str]]:
        """Return the answer to a GET: status, body, headers."""
        if path == "/_books":
            return 200, self.books, {}
        if path == "/orders/v2/ordersBulk":
            return self._bulk(query)
        if path == f"/restaurants/v1/restaurants/{RESTAURANT}":
            general = {"name": "Witness", "timeZone": "America/New_York", "closeoutHour": 4, "currencyCode": "USD"}
            return 200, {"guid": RESTAURANT, "general": general, "location": {"country": "US"}}, {}
        if path == "/menus/v2/menus":
            menus = {"menus": [], "modifierGroupReferences": {}, "modifierOptionReferences": {}}
            return 200, {"restaurantGuid": RESTAURANT, "lastUpdated": _at(1, "09:00"), **menus}, {}
        if path.startswith("/orders/v2/orders/"):
            found = [order for order in self.orders if order["guid"] == path.rpartition("/")[2]]
            return (200, found[0], {}) if found else (404, {"status": 404, "message": "not found"}, {})
        if path.startswith("/era/v1/metrics/"):
            return self._report(path.rpartition("/")[2])
        if path.startswith(("/config/", "/stock/", "/labor/")):
            return 200, [], {}
        return 404, {"status": 404, "message": f"there is no {path}"}, {}

    def ask_for_report(self, body: Mapping[str, Any]) -> str:
        """Begin to make a sales report (Analytics API, `/era/v1/metrics/...`): returns its name."""
        name = f"{body['startBusinessDate']}-{body['endBusinessDate']}"
        self._waiting.add(name)
        return name

    def _report(self, name: str) -> tuple[int, Any, dict[str, str]]:
        if name in self._waiting:  # it takes a moment
            self._waiting.discard(name)
            return 202, {}, {}
        first, last = (int(day) for day in name.split("-"))
        rows = [
            {"restaurantGuid": RESTAURANT, "businessDate": 20260300 + day, "netSalesAmount": _dollars(sums["net"])}
            for day, sums in sorted(self.books.items())
            if first <= 20260300 + day <= last
        ]
        return 200, rows, {}

    def _bulk(self, query: Mapping[str, str]) -> tuple[int, Any, dict[str, str]]:
        if "businessDate" in query:
            found = [order for order in self.orders if str(order["businessDate"]) == query["businessDate"]]
        else:
            since, until = (datetime.fromisoformat(query[name]) for name in ("startDate", "endDate"))
            found = [o for o in self.orders if since <= datetime.fromisoformat(o["modifiedDate"]) < until]
        size, page = int(query.get("pageSize", 100)), int(query.get("page", 1))
        size = min(size, 7)  # a page may be shorter than what was asked for
        more = page * size < len(found)
        address = "&".join(f"{name}={value}" for name, value in {**query, "page": str(page + 1)}.items())
        link = {"Link": f'<http://localhost/orders/v2/ordersBulk?{address}>; rel="next"'} if more else {}
        return 200, found[(page - 1) * size : page * size], link


@contextmanager
def serving(witness: Witness, port: int = 0) -> Iterator[str]:
    """Serve a witness over HTTP; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._reply(*witness.answer(parts.path, query))

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.startswith("/era/v1/metrics/"):
                self._reply(200, witness.ask_for_report(json.loads(asked)), {})
                return
            token = {"tokenType": "Bearer", "expiresIn": 86_400, "accessToken": "witness"}
            body = {"token": token, "status": "SUCCESS"} if self.path.endswith("/login") else []
            self._reply(200, body, {})

        def _reply(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serving(Witness(int(sys.argv[2]) if len(sys.argv) > 2 else 1), int(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.read()
