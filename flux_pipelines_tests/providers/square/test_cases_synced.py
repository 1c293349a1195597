"""The shared cases as `flux sync` brings them in: the same rows, whether as one range, day by day, or in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.drive import sync
from flux_pipelines.pipelines.partitions import partition_key
from flux_pipelines.sandbox.options import SandboxOptions
from flux_pipelines.sandbox.server import RunningSandbox
from flux_pipelines.settings import settings
from flux_pipelines_tests.pipelines.conftest import Home, open_home
from flux_pipelines_tests.providers.square.cases import CASES, FOLDER, STORE, documents
from flux_pipelines_tests.providers.square.conftest import LAST

if not FOLDER.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)

#: The clocks change on the second of these dates in New York: one case needs that, the others are moved among them.
DAYS = [date(2026, 3, 7) + timedelta(days=n) for n in range(9)]
AT_HOME = "S50_dst_and_midnight"


def moves() -> dict[str, int]:
    """By how many days each case is moved, so that all lie within a few dates."""
    found: dict[str, int] = {}
    for number, name in enumerate(CASES):
        dates = [date.fromisoformat(CASES[name].day)]
        for text in (CASES[name].sales, CASES[name].payments):
            dates += [date.fromisoformat(word) for word in text.split() if word.count("-") == 2 and len(word) == 10]
        room = len(DAYS) - (max(dates) - min(dates)).days
        found[name] = 0 if name == AT_HOME else (DAYS[number % room] - min(dates)).days
    return found


MOVES = moves()
TABLES = {
    "square_transactions": "order_id, line_id, kind, line_type, quantity, unit_price, gross, discount, tax, total, business_date, "
    "raw_date, tendered_cash, tendered_card, tendered_gift_card, tendered_other, tendered_refund",
    "transactions": "order_id, line_id, kind, line_type, quantity, unit_price, gross, discount, tax, total, business_date",
    "payments": "payment_id, kind, tender, amount, tip, fee, status, business_date",
    "tie_out": "location_id, business_date, owed, paid, refunded, pending, receivables, deposits, gap, gap_orders, gap_reason",
    "daily_sales": "location_id, business_date, orders, returns, voids, units, gross, discounts, net, tax, tips, "
    "gift_cards, rounding, total, tendered_cash, tendered_card, tendered_gift_card, tendered_other, tendered_refund",
}
CUTS = {
    "one range": [DAYS],
    # Every date by itself, later ones first and earlier ones after them, one twice.
    "day by day": [[DAYS[at]] for at in (4, 8, 0, 6, 2, 7, 1, 8, 5, 3)],
}
Tables = dict[str, list[tuple[Any, ...]]]
found: dict[str, Tables] = {}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(end_day=LAST, history_days=2, rate_limit=1_000_000)) as running:
        for name in CASES:
            for one in documents(name, MOVES[name]):
                assert httpx.post(f"{running.url}/sandbox/documents", json=one, timeout=30).status_code == 200
        yield running


@contextmanager
def opened(folder: Path, sandbox: RunningSandbox) -> Iterator[tuple[Home, str]]:
    """A home of its own, with the store's account connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_HOME", str(folder))
        patch.setenv("FLUX_START_DATE", "2026-03-01")
        settings.cache_clear()
        for home in open_home(sandbox):
            (key,) = home.connect("harbor")
            yield home, key
    settings.cache_clear()


@pytest.fixture(scope="module", params=CUTS)
def brought(
    request: pytest.FixtureRequest, sandbox: RunningSandbox, tmp_path_factory: pytest.TempPathFactory
) -> Tables:
    """What is in the tables after the cases were synced in this way."""
    with opened(tmp_path_factory.mktemp("home"), sandbox) as (home, key):
        for days in CUTS[request.param]:
            report = sync(home.runtime, [key], days, feeds=False)
            assert report.failures == [], days
            span = partition_key(key, days[0]), partition_key(key, days[-1])
            assert home.run(names.collect_job("square", "day"), *span).success
        assert home.run(names.REFRESH_CORE_JOB, str(DAYS[0]), str(DAYS[-1])).success
        assert home.run(names.REFRESH_BOOKS_JOB, str(DAYS[0]), str(DAYS[-1])).success
        found[request.param] = {
            table: home.ask(f"select {columns} from {table} order by all") for table, columns in TABLES.items()
        }
    return found[request.param]


def moved(text: str, name: str, width: int) -> list[list[str]]:
    """The words of each line, dates moved as the documents are; what leaves its date out is of the case's day."""
    lines = [line.split() for line in text.strip().splitlines()]
    whole = [words if len(words) == width else [*words, CASES[name].day] for words in lines]
    return [[*words[:-1], str(date.fromisoformat(words[-1]) + timedelta(days=MOVES[name]))] for words in whole]


def numbers(words: list[str], first: int, last: int) -> tuple[Any, ...]:
    return (*words[:first], *map(Decimal, words[first:last]), *words[last:-1], date.fromisoformat(words[-1]))


def test_the_rows_are_those_worked_out_by_hand(brought: Tables) -> None:
    sales = [numbers(words, 4, 10) for name in CASES for words in moved(CASES[name].sales, name, 11)]
    assert brought["transactions"] == sorted(sales)
    assert [row[:11] for row in brought["square_transactions"]] == sorted(sales)
    paid = [numbers(words, 3, 6) for name in CASES for words in moved(CASES[name].payments, name, 8)]
    assert brought["payments"] == sorted(paid)


def test_the_days_are_the_sums_of_their_rows(brought: Tables) -> None:
    net: dict[date, Decimal] = {}
    for row in brought["transactions"]:
        if row[3] not in ("tip", "gift_card", "rounding"):
            net[row[10]] = net.get(row[10], Decimal(0)) + row[6] - row[7]
    assert {row[1]: row[8] for row in brought["daily_sales"]} == net


def test_every_cut_gives_the_same_tables(brought: Tables) -> None:
    first, *_ = found
    for table in TABLES:
        assert brought[table] == found[first][table], table


def test_what_is_not_paid_is_a_balance_or_a_gap(brought: Tables) -> None:
    gaps: dict[date, Decimal] = dict.fromkeys(DAYS, Decimal(0))
    for name, case in CASES.items():
        for day, gap in case.gaps.items():
            gaps[date.fromisoformat(day) + timedelta(days=MOVES[name])] += Decimal(gap)
    assert {row[1]: row[8] for row in brought["tie_out"]} == gaps
    deposits = {row[1]: row[7] for row in brought["tie_out"] if row[7]}
    # An instalment of 50.00 that waits for the sale; a dollar paid just before midnight for an order closed just after it.
    expected = {DAYS[0]: 50, date(2026, 3, 10): 1, date(2026, 3, 11): -1, DAYS[8]: -50}
    assert deposits == {day: Decimal(amount) for day, amount in expected.items()}
    assert {row[6] for row in brought["tie_out"]} == {0}, "no customer owes anything"


def test_a_pre_order_counts_when_it_is_paid_though_it_is_older_and_not_handed_over(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    made, paid = "2026-04-01T15:00:00Z", "2026-04-08T16:00:00Z"
    money = {"amount": 2500, "currency": "USD"}
    order = {
        "id": "PREORDER",
        "location_id": STORE,
        "state": "OPEN",
        "created_at": made,
        "updated_at": paid,
        "line_items": [{"uid": "l", "name": "Cake", "quantity": "1", "base_price_money": money, "total_money": money}],
        "total_money": money,
        "net_amount_due_money": {"amount": 0, "currency": "USD"},
        "tenders": [{"id": "PREORDERp", "type": "CARD", "created_at": paid, "amount_money": money}],
        "fulfillments": [{"uid": "f", "type": "PICKUP", "state": "PROPOSED"}],
    }
    posted = {"location_id": STORE, "kind": "orders", "document": order}
    assert httpx.post(f"{sandbox.url}/sandbox/documents", json=posted, timeout=30).status_code == 200
    with opened(tmp_path, sandbox) as (home, key):
        assert sync(home.runtime, [key], [date(2026, 4, 8)], feeds=False).failures == []
        rows = home.ask("select order_id, business_date, raw_date, total from square_transactions")
        assert rows == [("PREORDER", date(2026, 4, 8), date(2026, 4, 1), 25)]
        assert home.ask("select business_date, net from daily_sales") == [(date(2026, 4, 8), 25)]
