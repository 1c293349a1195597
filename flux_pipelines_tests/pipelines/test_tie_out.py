"""The day's books: what orders say beside what payments say, and what changes after a date was settled."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import dagster as dg

from flux_pipelines.domain.money import from_minor
from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.partitions import partition_key
from flux_pipelines.sandbox.pricing import price
from flux_pipelines.sandbox.truth import truth
from flux_pipelines_tests.pipelines.conftest import END_DAY, Home

KEY = "square:sakura"
FIRST = END_DAY - timedelta(days=2)
NOON = datetime(END_DAY.year, END_DAY.month, END_DAY.day, 3, tzinfo=UTC)  # in Tokyo


def bring_in(
    home: Home, first: date = FIRST, last: date = END_DAY, *, payments: bool = True
) -> dg.ExecuteInProcessResult:
    assert home.sync((KEY, first), (KEY, last)).success
    if payments:
        # Tabs of the last date are paid on the next one.
        both = partition_key(KEY, first), partition_key(KEY, last + timedelta(days=1))
        assert home.run(names.collect_job("square", "day"), *both).success
    assert home.run(names.REFRESH_CORE_JOB, first.isoformat(), last.isoformat()).success
    result = home.run(names.REFRESH_BOOKS_JOB, first.isoformat(), last.isoformat())
    assert result.success
    return result


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {(c.asset_key.to_user_string(), c.check_name): c.passed for c in result.get_asset_check_evaluations()}


def test_days_tie_out_to_the_cent_and_an_order_that_does_not_is_named(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    assert checks(bring_in(home))["tie_out", "ties_out"]
    days = truth(home.sandbox.world, merchant="sakura", first=FIRST, last=END_DAY)
    found = home.ask("select business_date, owed, paid + refunded, gap, payments_known from tie_out order by 1")
    assert len(found) == 3
    for day, (at, owed, received, gap, known) in zip(sorted(days, key=lambda d: d.business_date), found, strict=True):
        assert (at, owed) == (day.business_date, from_minor(day.total, "JPY"))
        assert (received, gap, known) == (owed, 0, True)
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
    assert checks(bring_in(home, END_DAY, END_DAY))["tie_out", "ties_out"]


def test_days_whose_payments_nobody_has_fetched_say_so_and_are_no_gap(home: Home) -> None:
    home.connect("sakura")
    assert checks(bring_in(home, END_DAY, END_DAY, payments=False))["tie_out", "ties_out"]
    ((gap, owed, known),) = home.ask("select gap, owed, payments_known from tie_out")
    assert owed > 0
    assert (gap, known) == (owed, False)


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
