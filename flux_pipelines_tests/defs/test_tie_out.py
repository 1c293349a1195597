"""The day's books: what orders say beside what payments say, and what changes after a date was settled."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from typer.testing import CliRunner

from flux_pipelines.cli import app
from flux_pipelines.connections import reconnect_to_sandbox
from flux_pipelines.defs import names, tags
from flux_pipelines.defs.runner import sync
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import TIE_OUT
from flux_pipelines.lake import session
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines_tests.defs.conftest import END_DAY, Home, changing, made_once, open_copy
from flux_sandbox.pricing import price
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth
from flux_sandbox.truth_feeds import payments_truth

KEY = "square:sakura"
FIRST = END_DAY - timedelta(days=2)
NOON = datetime(END_DAY.year, END_DAY.month, END_DAY.day, 3, tzinfo=UTC)  # in Tokyo


def bring_in(
    home: Home, first: date = FIRST, last: date = END_DAY, *, payments: bool = True
) -> dg.ExecuteInProcessResult:
    assert home.sync((KEY, first), (KEY, last)).success
    if payments:
        both = str(Partition(KEY, first)), str(Partition(KEY, last))
        assert home.run(names.stream_job("square", "daily"), *both).success
    assert home.run(names.REFRESH_CORE_JOB, first.isoformat(), last.isoformat()).success
    result = home.run(names.REFRESH_BOOKS_JOB, first.isoformat(), last.isoformat())
    assert result.success
    return result


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {(c.asset_key.to_user_string(), c.check_name): c.passed for c in result.get_asset_check_evaluations()}


@pytest.fixture(scope="module")
def tied_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of the sandbox that tests may change, before anything has changed, with three days that tie out."""

    def happen(home: Home) -> None:
        home.connect("sakura")
        assert checks(bring_in(home))["tie_out", "ties_out"]

    with contextmanager(changing)() as sandbox:
        return made_once(tmp_path_factory.mktemp("tied") / "home", sandbox, happen)


@pytest.fixture
def tied(environment: Path, tied_once: Path, changing_sandbox: RunningSandbox) -> Iterator[Home]:
    for home in open_copy(tied_once, changing_sandbox):
        assert reconnect_to_sandbox(home.runtime, changing_sandbox.url) == []
        yield home


def test_days_tie_out_to_the_cent_and_an_order_that_does_not_is_named(tied: Home) -> None:
    home = tied
    days = truth(home.sandbox.world, merchant="sakura", first=FIRST, last=END_DAY)
    found = home.ask("select business_date, owed, paid + refunded, gap, payments_known from tie_out order by 1")
    assert len(found) == 3
    for day, (at, owed, received, gap, known) in zip(sorted(days, key=lambda d: d.business_date), found, strict=True):
        assert (at, owed) == (day.business_date, from_minor(day.total, "JPY"))
        # What was paid of a sale that counts on another date (an invoice in instalments) is an open balance, and no gap.
        on_it = payments_truth(home.sandbox.world, merchant="sakura", first=at, last=at)
        assert received == from_minor(sum(one.amount + one.tip for one in on_it), "JPY")
        assert (gap, known) == (0, True)
    (fees,) = home.ask("select sum(fees) from tie_out")[0]
    assert fees < 0
    shown = home.metadata("tie_out", partition=END_DAY.isoformat())
    assert shown["stores that tie out"] == 1
    assert "data:image/svg+xml" in shown["plot JPY"]

    # An order that comes after payments were fetched is a gap, until they are fetched too.
    late = home.sandbox.world.sell(home.sandbox.world.merchant("sakura").locations[0].id, created=NOON)
    result = bring_in(home, END_DAY, END_DAY, payments=False)
    assert not checks(result)["tie_out", "ties_out"]
    ((gap, orders),) = home.ask(f"select gap, gap_orders from tie_out where business_date = '{END_DAY}'")
    assert gap == from_minor(price(late).total, "JPY")
    assert orders == f"{late.id} {gap}"
    (reason,) = home.ask(f"select gap_reason from tie_out where business_date = '{END_DAY}'")[0]
    assert reason == f"changed since its payments were fetched {gap.normalize():f} (1 order)"
    assert checks(bring_in(home, END_DAY, END_DAY))["tie_out", "ties_out"]


def test_days_whose_payments_nobody_has_fetched_say_so_and_are_no_gap(home: Home) -> None:
    home.connect("sakura")
    result = bring_in(home, END_DAY, END_DAY, payments=False)
    assert not checks(result)["tie_out", "ties_out"]
    assert sample(result) == [(str(END_DAY), KEY, "payments not fetched (1 business date)")]
    ((owed, *rest),) = home.ask("select owed, gap, gap_orders, gap_reason, payments_known from tie_out")
    assert owed > 0
    assert rest == [None, None, "payments not fetched", False]
    told = home.metadata("tie_out", partition=END_DAY.isoformat())
    assert told["stores whose payments are not known"] == 1
    assert "owed JPY" in told
    assert "gap JPY" not in told, "not known is not 0"
    # Nobody can fetch what was disconnected any more.
    home.runtime.state.connections.disconnect(KEY, "by a test")
    again = home.run(names.REFRESH_BOOKS_JOB, END_DAY.isoformat(), END_DAY.isoformat())
    assert checks(again)["tie_out", "ties_out"]


def test_dates_on_which_nothing_was_sold_tie_out(home: Home) -> None:
    result = home.run(names.REFRESH_BOOKS_JOB, END_DAY.isoformat(), END_DAY.isoformat())
    assert result.success
    assert checks(result)["tie_out", "ties_out"]
    assert home.rows("tie_out") == []


def test_payments_are_known_only_once_the_table_has_what_was_fetched(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    assert home.sync((KEY, FIRST), (KEY, END_DAY)).success
    assert home.run(names.REFRESH_CORE_JOB, FIRST.isoformat(), END_DAY.isoformat()).success
    both = str(Partition(KEY, FIRST)), str(Partition(KEY, END_DAY + timedelta(days=1)))
    collect, days = names.stream_job("square", "daily"), (FIRST.isoformat(), END_DAY.isoformat())
    raw, own = names.raw_stream("square", "payments"), names.provider_table("square", "payments")
    tie_out = dg.AssetKey("tie_out")

    def found() -> set[tuple[object, ...]]:
        return set(home.ask("select gap, gap_reason, payments_known from tie_out"))

    not_yet = {(None, "payments not in the table yet", False)}
    assert home.run(collect, *both, asset_selection=[raw]).success
    assert home.run(names.REFRESH_BOOKS_JOB, *days).success
    assert found() == not_yet, "what was fetched has not been made into rows"
    assert home.run(collect, *both, asset_selection=[own]).success
    assert home.run(names.REFRESH_BOOKS_JOB, *days, asset_selection=[dg.AssetKey("open_items"), tie_out]).success
    assert found() == not_yet, "the provider's rows have not reached the core table"
    assert home.run(names.REFRESH_BOOKS_JOB, *days, asset_selection=[names.PAYMENTS]).success
    assert home.run(names.REFRESH_BOOKS_JOB, *days, asset_selection=[dg.AssetKey("open_items"), tie_out]).success
    assert found() == {(0, None, True)}, "the date after has no payments, and that is known"

    # Fetched again: until the rows are those of the last fetch, a new payment may be missing.
    home.sandbox.world.sell(home.sandbox.world.merchant("sakura").locations[0].id, created=NOON)
    assert home.run(collect, *both, asset_selection=[raw]).success
    assert home.run(names.REFRESH_BOOKS_JOB, *days, asset_selection=[dg.AssetKey("open_items"), tie_out]).success
    assert found() == not_yet
    bring_in(home)
    assert found() == {(0, None, True)}


def test_a_sync_of_more_days_than_a_run_takes_knows_the_payments_of_each(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "MAX_DAYS_PER_LOCAL_RUN", 2)
    home.connect("sakura")
    assert not sync(home.runtime, [KEY], [FIRST + timedelta(days=n) for n in range(3)]).failures
    assert home.ask("select business_date, payments_known from tie_out order by 1") == [
        (FIRST + timedelta(days=n), True) for n in range(3)
    ]


def test_the_check_looks_at_every_date_and_names_date_store_amount_and_reason(tied: Home) -> None:
    home = tied
    store = home.sandbox.world.merchant("sakura").locations[0]
    bought, paid = like_a_simple_one(home)
    day = str(FIRST)

    def add(name: str, *, order: dict[str, Any] | None = None, payment: dict[str, Any] | None = None) -> None:
        """Make the sandbox give out an order, a payment or both, as the provider might send them."""
        for kind, found, mine in (
            ("orders", bought, {"id": f"order-{name}", **(order or {})}),
            ("payments", paid, {"id": f"payment-{name}", "order_id": f"order-{name}", **(payment or {})}),
        ):
            if (order if kind == "orders" else payment) is not None:
                document = {key: value for key, value in {**found, **mine}.items() if value is not None}
                body = {"location_id": store.id, "kind": kind, "document": document}
                httpx.post(f"{home.sandbox.url}/sandbox/documents", json=body).raise_for_status()

    total = bought["total_money"]["amount"]
    half = {"amount": total // 2, "currency": "JPY"}
    lesser = [{**bought["tenders"][0], "id": "payment-edited", "amount_money": half}]
    add("waiting", order={"tenders": None}, payment={"status": "APPROVED"})
    add("edited", order={"tenders": lesser}, payment={"amount_money": half, "total_money": half})
    add("elsewhere", payment={})
    add("nothing", payment={"order_id": None})
    add("void", order={"state": "CANCELED", "tenders": None}, payment={})
    for number in range(12):
        add(f"open-{number}", order={"tenders": None})
    # The dates before the first one are not in the lake; then another date is made, and the check still tells of this one.
    bring_in(home, FIRST, FIRST)
    result = bring_in(home, END_DAY, END_DAY)

    assert not checks(result)["tie_out", "ties_out"]
    ((gap, reason, orders),) = home.ask(
        f"select gap, gap_reason, gap_orders from tie_out where business_date = '{day}'"
    )
    assert gap == 13 * total + (total - half["amount"]) - 3 * total
    assert dict(re.fullmatch(r"(.*?) (-?\d+ \(\d+ orders?\))", part).groups() for part in reason.split("; ")) == {
        "not paid": f"{12 * total} (12 orders)",
        "payment pending": f"{total} (1 order)",
        "changed after its payment": f"{total - half['amount']} (1 order)",
        "paid for an order of a date that was not fetched": f"{-total} (1 order)",
        "payment without an order": f"{-total} (1 order)",
        "paid, but the order was cancelled": f"{-total} (1 order)",
    }
    assert len(orders.split(", ")) == 10
    assert orders.endswith(" and 7 more")
    ((where, what, problem),) = sample(result)
    assert (where, what) == (day, f"{store.name} ({KEY})")
    assert problem == f"{gap:,.0f} JPY apart: {reason}. Orders: {orders}"
    told = {name: value.value for name, value in evaluation(result).metadata.items()}
    assert (told["business dates looked at"], told["business dates apart"]) == (3, 1)

    # With the dates before it in the lake, the order is none of theirs either.
    assert home.sync((KEY, FIRST - timedelta(days=3)), (KEY, FIRST - timedelta(days=1))).success
    assert home.run(names.REFRESH_BOOKS_JOB, day, day, asset_selection=[dg.AssetKey("tie_out")]).success
    ((reason,),) = home.ask(f"select gap_reason from tie_out where business_date = '{day}'")
    assert f"paid for an order that is not there {-total} (1 order)" in reason

    # The order is there and was not cancelled: it was sold in another currency.
    dollars = {"amount": 300, "currency": "USD"}
    add("foreign", payment={"order_id": bought["id"], "amount_money": dollars, "processing_fee": None})
    bring_in(home, FIRST, FIRST)
    assert home.ask("select gap, gap_reason from tie_out where currency = 'USD'") == [
        (-3, "amounts differ -3 (1 order)")
    ]


def test_dates_that_an_earlier_version_compared_stay_and_are_compared_anew_when_asked_for(tied: Home) -> None:
    home = tied
    made = home.rows("tie_out")
    as_an_earlier_version_made_it(home)
    query = "select business_date, gap, gap_reason, payments_known from tie_out order by 1"
    second = FIRST + timedelta(days=1)
    was = [(FIRST, 1, None, True), (second, 1, None, False), (END_DAY, 1, None, True)]
    assert home.ask(query) == was

    # A date is made again: so are those whose payments were known, which say nothing of balances; the check says of the
    # other what it can, and what to do.
    result = home.run(names.REFRESH_BOOKS_JOB, END_DAY.isoformat(), END_DAY.isoformat())
    assert result.success
    assert checks(result)["tie_out", "contract"]
    assert not checks(result)["tie_out", "ties_out"]
    assert home.ask(query) == [(FIRST, 0, None, True), was[1], (END_DAY, 0, None, True)]
    no_reason = "reason not known, an earlier version of Flux made it: run `refresh_books` over the date"
    assert sample(result) == [(str(second), KEY, f"{no_reason} (1 business date)")]
    assert "gap_reason" in home.metadata("tie_out", partition=END_DAY.isoformat())["preview"]

    assert not sync(home.runtime, [KEY], [second, END_DAY]).failures
    for command in (["doctor"], ["sql", "from tie_out"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert home.rows("tie_out") == made


def as_an_earlier_version_made_it(home: Home) -> None:
    """Put a table in place of `tie_out` that has no `gap_reason`, nor `gap` empty, and 1 apart on each date."""
    earlier = replace(
        TIE_OUT,
        columns=tuple(
            replace(c, required=c.name != "gap_orders")
            for c in TIE_OUT
            if c.name not in ("gap_reason", "receivables", "deposits")
        ),
    )
    lake = home.runtime.lake
    with session(lake, ["tie_out"]) as database:
        rows = database.sql(
            "select * exclude (gap_reason, receivables, deposits) replace (1::decimal(18,4) as gap, 'some 1' as gap_orders, "
            f"business_date <> '{FIRST + timedelta(days=1)}' as payments_known) from tie_out order by business_date"
        ).to_arrow_table()
    shutil.rmtree(lake.uri("tie_out"))
    lake.replace(earlier, rows, [{"business_date": FIRST + timedelta(days=n)} for n in range(3)])


def evaluation(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = (one for one in result.get_asset_check_evaluations() if one.check_name == "ties_out")
    return found


def sample(result: dg.ExecuteInProcessResult) -> list[tuple[str, ...]]:
    """Return the rows of what the check shows: partition, what, problem."""
    lines = str(evaluation(result).metadata["sample"].value).replace("\\`", "`").splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def like_a_simple_one(home: Home) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an order of the first date as the provider sent it, with one tender and no tip, and its payment."""

    def records(stream: str) -> list[dict[str, Any]]:
        raw = home.runtime.raw.of(stream)
        manifest = raw.read_manifest(KEY, FIRST)
        assert manifest is not None
        with raw.local_file(manifest) as path:
            assert path is not None
            return [json.loads(line) for block in raw_blocks(path) for line in block]

    payments = {one["object"]["order_id"]: one["object"] for one in records("payments") if one["kind"] == "payment"}
    return next(
        (order, payments[order["id"]])
        for order in records("orders")
        if order["state"] == "COMPLETED" and len(order.get("tenders", ())) == 1 and order["id"] in payments
        and order["total_money"] == payments[order["id"]]["amount_money"] and not order.get("returns")
        and payments[order["id"]]["source_type"] == "CARD"
    )  # fmt: skip


def test_what_changes_after_a_date_was_settled_is_written_down_with_the_orders(changing_home: Home) -> None:
    home, world = changing_home, changing_home.sandbox.world
    home.connect("sakura")
    assert checks(bring_in(home, payments=False))["restatements", "nothing_restated"]
    assert home.ask("select count(*) from restatements") == [(0,)]
    assert home.metadata("settled_orders", partition=END_DAY.isoformat())["stores settled"] == 1
    sums = "select sum(net), sum(tax), sum(total) from daily_sales where business_date = "
    before = home.ask(f"{sums} '{END_DAY}'")[0]

    # Again with nothing changed: nothing is written.
    settled = home.rows("settled_orders")
    assert checks(bring_in(home, payments=False))["restatements", "nothing_restated"]
    assert home.rows("settled_orders") == settled

    store = world.merchant("sakura").locations[0].id
    late = world.sell(store, created=NOON)
    edited = next(
        sale for _, sale in world.between([store], "created", 0, 2**62)
        if sale.state == "COMPLETED" and sale.lines and not sale.returns and not sale.discounts and sale is not late
        and sale.lines[0].kind == "ITEM" and sale.lines[0].precision == 0
        and str(END_DAY) in str(datetime.fromtimestamp(sale.created / 1000, UTC) + timedelta(hours=9))
    )  # fmt: skip
    was = price(edited).total
    world.edit(edited.id, add_units=1)
    result = bring_in(home, payments=False)
    assert not checks(result)["restatements", "nothing_restated"]
    after = home.ask(f"{sums} '{END_DAY}'")[0]
    rows = {
        figure: (low, high, reason)
        for figure, low, high, reason in home.ask(
            f"select figure, amount_before, amount_after, reason from restatements where business_date = '{END_DAY}'"
        )
    }
    assert {name: rows[name][:2] for name in ("net", "tax", "total")} == {
        "net": (before[0], after[0]), "tax": (before[1], after[1]), "total": (before[2], after[2]),
    }  # fmt: skip
    grown = from_minor(price(edited).total - was, "JPY")
    for reason in (f"came late: {late.id} {from_minor(price(late).total, 'JPY')}", f"edited: {edited.id} {grown}"):
        head, _, amount = reason.rpartition(" ")
        assert head in rows["total"][2]
        assert f"{head} {Decimal(amount):.4f}" in rows["total"][2]
    assert home.ask(f"select count(*) from restatements where business_date <> '{END_DAY}'") == [(0,)]

    # The same again leaves the table as it is: what was restated is settled now.
    written = home.rows("restatements")
    assert checks(bring_in(home, payments=False))["restatements", "nothing_restated"]
    assert home.rows("restatements") == written
