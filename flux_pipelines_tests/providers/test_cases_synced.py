"""The shared cases in every table, as one range and day by day: the same rows, and balances worked out by hand.

What each case comes to is in its provider's `cases.py`; here all of a provider's are synced into one home.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from flux_pipelines.domain import tables
from flux_pipelines.lake import session
from flux_pipelines_tests.defs.bare import TABLES, bring_in, connected, contents
from flux_pipelines_tests.providers.shopify import cases as shopify
from flux_pipelines_tests.providers.square import cases as square
from flux_pipelines_tests.providers.toast import cases as toast
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

if not square.FOLDER.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)

#: Line types that are in `total` and in no figure of sales.
NO_SALES = {"tip", "gift_card", "third_party", "rounding"}
Amounts = dict[date, Decimal]


class Line(NamedTuple):
    """A row of a case's `sales`."""

    case: str
    kind: str
    type: str
    net: Decimal
    total: Decimal
    day: date


class Paid(NamedTuple):
    """A row of a case's `payments`."""

    case: str
    kind: str
    amount: Decimal
    status: str
    day: date


@dataclass(frozen=True)
class Book:
    """The cases of a provider.

    Args:
        key: the connection.
        names: what the cases are called.
        posted: returns what the sandbox is sent of a case, at its first location.
        lines, payments: what the cases come to.
        settings: those of the connection.
        deposits, receivables: how they change, on the dates on which they do.

    """

    key: str
    names: Sequence[str]
    posted: Callable[[str], list[dict[str, Any]]]
    lines: Sequence[Line]
    payments: Sequence[Paid]
    unexplained: Collection[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def days(self) -> list[date]:
        """The dates on which anything happened."""
        return sorted({one.day for one in (*self.lines, *self.payments)})

    def balances(self) -> dict[str, Amounts]:
        """Roll each case forward: what was paid and is not owed yet, what is owed and not paid yet, what nothing explains."""
        changes: dict[str, list[tuple[date, Decimal]]] = {"deposits": [], "receivables": [], "gap": []}
        for name in self.names:
            sold = [(one.day, one.total) for one in self.lines if one.case == name and one.kind in ("sale", "return")]
            paid = [(one.day, -one.amount) for one in self.payments if one.case == name and one.status == "completed"]
            still, moved = Decimal(0), total([*sold, *paid])
            for day in sorted(moved):
                before, still = still, still + moved[day]
                if day == max(moved) and name in self.unexplained:
                    changes["gap"].append((day, still))
                    still = Decimal(0)
                changes["receivables"].append((day, max(still, Decimal(0)) - max(before, Decimal(0))))
                changes["deposits"].append((day, max(-still, Decimal(0)) - max(-before, Decimal(0))))
        return {figure: total(found) for figure, found in changes.items()}


def read(text: str, day: str, words: int, later: timedelta) -> Iterator[tuple[list[str], date]]:
    """The words of each line of a case, and its date, which it may leave out."""
    for line in text.strip().splitlines():
        said = line.split()
        said = said if len(said) == words else [*said, day]
        yield said, date.fromisoformat(said[-1]) + later


def lines(cases: dict[str, Any], first: int, words: int, moves: dict[str, int]) -> list[Line]:
    """Read the sales of cases: `first` is the place of a row's kind."""
    return [
        Line(
            name,
            said[first],
            said[first + 1],
            Decimal(said[first + 4]) - Decimal(said[first + 5]),
            Decimal(said[words - 2]),
            day,
        )
        for name, case in cases.items()
        for said, day in read(case.sales, case.day, words, timedelta(days=moves.get(name, 0)))
    ]


def payments(cases: dict[str, Any], moves: dict[str, int], on: str | None = None) -> list[Paid]:
    return [
        Paid(name, said[1], Decimal(said[3]) + Decimal(said[4]), said[6], day)
        for name, case in cases.items()
        for said, day in read(case.payments, on or case.day, 8, timedelta(days=moves.get(name, 0)))
    ]


# --- Each case is moved to within a few dates ---

#: The clocks change on the second of these dates in New York: one of Square's cases needs that.
DAYS = [date(2026, 3, 7) + timedelta(days=n) for n in range(5)]
AT_HOME = "S50_dst_and_midnight"


def moves(cases: dict[str, Any]) -> dict[str, int]:
    """By how many days each case is moved."""
    found: dict[str, int] = {}
    for number, (name, case) in enumerate(cases.items()):
        dates = [date.fromisoformat(word) for word in (case.sales + case.payments).split() if word.count("-") == 2]
        dates.append(date.fromisoformat(case.day))
        room = max(len(DAYS) - (max(dates) - min(dates)).days, 1)
        found[name] = 0 if name == AT_HOME else (DAYS[number % room] - min(dates)).days
    return found


SQUARE, TOAST = moves(square.CASES), moves(toast.CASES)


def orders(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"location_id": "", "kind": "orders", "document": one} for one in documents]


BOOKS = [
    Book(
        "square:harbor",
        list(square.CASES),
        lambda name: square.documents(name, SQUARE[name]),
        lines(square.CASES, 2, 11, SQUARE),
        payments(square.CASES, SQUARE),
        unexplained=[name for name, case in square.CASES.items() if case.gaps],
        settings={"requests_per_minute": 1_000_000},
    ),
    Book(
        "toast:harbor-kitchen",
        list(toast.CASES),
        lambda name: orders(toast.orders(name, TOAST[name])),
        lines(toast.CASES, 1, 11, TOAST),
        payments(toast.CASES, TOAST),
        unexplained=["T37_same_guid"],  # its order is in quarantine, its payment was made
        settings={"history_pause_seconds": 0},
    ),
    Book(
        "shopify:harbor-shop",
        list(shopify.CASES),
        lambda name: orders([shopify.document(name)]),
        lines(shopify.CASES, 1, 10, {}),
        payments(shopify.CASES, {}, "2026-11-10"),
        # Imported as paid, without the payment; cancelled, and its payment not given back.
        unexplained=["imported_no_transactions", "cancel_no_refund"],
    ),
]


@pytest.fixture(scope="module", params=BOOKS, ids=[book.key.partition(":")[0] for book in BOOKS])
def book(request: pytest.FixtureRequest) -> Book:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def brought(book: Book, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
    """What is in the tables after the cases were synced as one range, and day by day: later dates first, one of them twice."""
    merchant = book.key.partition(":")[2]
    days = book.days
    one_by_one = random.Random(13).sample(days, len(days))
    found = {}
    options = SandboxOptions(end_day=date(2026, 11, 20), history_days=1, rate_limit=1_000_000)
    with RunningSandbox(options) as sandbox:
        here = sandbox.world.merchant(merchant).locations[0].id
        for name in book.names:
            for one in book.posted(name):
                body = {**one, "location_id": one["location_id"] or here}
                answer = httpx.post(f"{sandbox.url}/sandbox/documents", json=body, timeout=30)
                assert answer.status_code == 200, answer.text
        for cut, batches in {
            "one range": [days],
            "day by day": [[day] for day in (*one_by_one, one_by_one[2])],
        }.items():
            with connected(tmp_path_factory.mktemp("home"), sandbox, book.key, days[0], **book.settings) as runtime:
                for batch in batches:
                    bring_in(runtime, book.key, batch)
                found[cut] = contents(runtime)
    return found


def by_day(table: tables.Table, rows: Sequence[tuple[Any, ...]], *names: str) -> Amounts:
    """Sum a table's figures by business date, where there is anything."""
    at = [column.name for column in table]
    day, places = at.index("business_date"), [at.index(name) for name in names]
    sums: Amounts = {}
    for row in rows:
        sums[row[day]] = sums.get(row[day], Decimal(0)) + sum(
            (row[place] or Decimal(0) for place in places), Decimal(0)
        )
    return {day: amount for day, amount in sums.items() if amount}


def total(found: Sequence[tuple[date, Decimal]]) -> Amounts:
    sums: Amounts = {}
    for day, amount in found:
        sums[day] = sums.get(day, Decimal(0)) + amount
    return {day: amount for day, amount in sums.items() if amount}


def test_both_cuts_give_the_same_tables(brought: dict[str, dict[str, list[tuple[Any, ...]]]]) -> None:
    for table in TABLES:
        assert brought["one range"][table] == brought["day by day"][table], table


def test_the_days_are_the_sums_of_the_rows_worked_out_by_hand(book: Book, brought: Any) -> None:
    made = brought["one range"]
    sold = [one for one in book.lines if one.kind in ("sale", "return")]
    net = by_day(tables.DAILY_SALES, made["daily_sales"], "net")
    assert net == total([(one.day, one.net) for one in sold if one.type not in NO_SALES])
    owed = by_day(tables.TIE_OUT, made["tie_out"], "owed")
    assert owed == total([(one.day, one.total) for one in sold])
    for kind, column in (("payment", "paid"), ("refund", "refunded")):
        done = [(one.day, one.amount) for one in book.payments if (one.kind, one.status) == (kind, "completed")]
        assert by_day(tables.TIE_OUT, made["tie_out"], column) == total(done)


@pytest.mark.parametrize("figure", ["deposits", "receivables", "gap"])
def test_what_is_not_paid_is_a_balance_or_a_gap(figure: str, book: Book, brought: Any) -> None:
    assert by_day(tables.TIE_OUT, brought["one range"]["tie_out"], figure) == book.balances()[figure]


def test_a_pre_order_counts_when_it_is_paid_though_it_is_older_and_not_handed_over(tmp_path: Path) -> None:
    made, paid = "2026-04-01T15:00:00Z", "2026-04-08T16:00:00Z"
    money = {"amount": 2500, "currency": "USD"}
    order = {
        "id": "PREORDER",
        "location_id": square.STORE,
        "state": "OPEN",
        "created_at": made,
        "updated_at": paid,
        "line_items": [{"uid": "l", "name": "Cake", "quantity": "1", "base_price_money": money, "total_money": money}],
        "total_money": money,
        "net_amount_due_money": {"amount": 0, "currency": "USD"},
        "tenders": [{"id": "PREORDERp", "type": "CARD", "created_at": paid, "amount_money": money}],
        "fulfillments": [{"uid": "f", "type": "PICKUP", "state": "PROPOSED"}],
    }
    posted = {"location_id": square.STORE, "kind": "orders", "document": order}
    with RunningSandbox(SandboxOptions(end_day=date(2026, 4, 9), history_days=1)) as sandbox:
        httpx.post(f"{sandbox.url}/sandbox/documents", json=posted, timeout=30).raise_for_status()
        with connected(tmp_path, sandbox, "square:harbor", date(2026, 4, 8), requests_per_minute=1_000_000) as runtime:
            bring_in(runtime, "square:harbor", [date(2026, 4, 8)])
            with session(runtime.lake) as database:
                rows = database.execute(
                    "select order_id, business_date, raw_date, total from square_transactions"
                ).fetchall()
                days = database.execute("select business_date, net from daily_sales").fetchall()
    assert rows == [("PREORDER", date(2026, 4, 8), date(2026, 4, 1), 25)]
    assert days == [(date(2026, 4, 8), 25)]
