"""Our figures beside the provider's own report: equal, or named, or without a witness; never a wrong green."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs import names
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.partition import Partition
from flux_pipelines.providers.square import reports as square_reports
from flux_pipelines_tests.defs.conftest import END_DAY, Home
from flux_sandbox.shopify.ids import legacy
from flux_sandbox.truth import truth

FIRST = END_DAY - timedelta(days=1)


@pytest.fixture(autouse=True)
def anew(changing_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports behave, and nothing of them is remembered."""
    monkeypatch.setattr(square_reports, "_kept", {})
    monkeypatch.setattr(square_reports, "_FIRST_WAIT", 0.01)
    play(changing_home)


def play(home: Home, **how: Any) -> None:
    httpx.post(f"{home.sandbox.url}/sandbox/reports", json=how).raise_for_status()


def connected(home: Home, merchant: str = "sakura") -> str:
    owner = home.sandbox.world.merchant(merchant)
    key = f"{owner.provider}:{merchant}"
    known = {"square": {"requests_per_minute": 100_000, "report_wait_seconds": 1}}
    connect_to_sandbox(home.runtime, key, tenant=merchant, url=home.sandbox.url, settings=known.get(owner.provider, {}))
    home.instance.add_dynamic_partitions(f"{owner.provider}_connections", [key])
    return key


def brought_in(home: Home, key: str, first: date = FIRST, last: date = END_DAY) -> dg.AssetCheckEvaluation:
    """Fetch orders and what is beside them, and return what the last comparison found."""
    provider = key.partition(":")[0]
    asked = str(Partition(key, first)), str(Partition(key, last))
    assert home.run(names.sync_job(provider), *asked).success
    assert home.run(names.stream_job(provider, "daily"), *asked).success
    assert home.run(names.REFRESH_CORE_JOB, first.isoformat(), last.isoformat()).success
    result = home.run(names.REFRESH_BOOKS_JOB, first.isoformat(), last.isoformat())
    assert result.success
    found = [one for one in result.get_asset_check_evaluations() if one.check_name == "agrees_with_report"]
    assert len(found) == 1
    assert not found[0].blocking
    return found[0]


def sample(check: dg.AssetCheckEvaluation) -> str:
    return str(check.metadata["sample"].value) if "sample" in check.metadata else ""


def changed_since(home: Home, key: str) -> str:
    """Change an order at the provider that nobody fetches again; return its id."""
    world, ours = home.sandbox.world, {order for (order,) in home.ask("select distinct order_id from transactions")}
    for sale in world.sales.values():
        good = sale.state == "COMPLETED" and sale.lines and not (sale.returns or sale.discounts or sale.charges)
        if sale.id in ours and good and not world.refunds_of(sale) and sale.lines[0].kind == "ITEM":
            world.edit(sale.id, add_units=1)
            return sale.id
    raise AssertionError(f"{key} has no order to change")


def compared_again(home: Home, key: str, first: date = FIRST) -> dg.AssetCheckEvaluation:
    """Ask for the report again, and not for the orders."""
    asked = str(Partition(key, first)), str(Partition(key, END_DAY))
    assert home.run(names.stream_job(key.partition(":")[0], "daily"), *asked).success
    result = home.run(names.REFRESH_BOOKS_JOB, first.isoformat(), END_DAY.isoformat())
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "agrees_with_report"]
    return check


def test_the_report_is_a_witness_of_every_store_and_date(changing_home: Home) -> None:
    home = changing_home
    key = connected(home)
    check = brought_in(home, key)
    assert check.passed, sample(check)
    assert check.metadata["business dates compared"].value == 2
    rows = home.ask("select business_date, status, net, tax, tips from reported_sales order by 1")
    told = truth(home.sandbox.world, merchant="sakura", first=FIRST, last=END_DAY)
    assert rows == [
        (day.business_date, "reported", *(from_minor(value, "JPY") for value in (day.net, day.tax, day.tips)))
        for day in told
    ]
    shown = home.metadata("daily_sales", partition=END_DAY.isoformat())
    assert shown["net JPY"] == shown["net in the report JPY"]
    assert (shown["stores that agree with the report"], shown["stores without a witness"]) == (1, 0)
    assert "equal" in str(shown["compared"])
    assert "data:image/svg+xml" in shown["plot JPY"]


def test_what_is_computed_still_is_waited_for_and_is_never_zero(changing_home: Home) -> None:
    home = changing_home
    key = connected(home)
    play(home, waits=3)
    assert brought_in(home, key).passed
    assert max(home.sandbox.world.reporting.asked.values()) == 4


def test_where_there_is_no_report_there_is_no_witness_and_nothing_fails(
    changing_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = changing_home
    key = connected(home)
    ways: list[tuple[dict[str, Any], str]] = [
        ({"waits": -1}, "the report was computed still after 1 s"),
        ({"empty": True}, "the report was empty"),
        ({"denied": True}, "not permitted, it takes REPORTING_READ"),
        ({"absent": True}, "there is no report here"),
    ]
    compared = brought_in
    for how, reason in ways:
        monkeypatch.setattr(square_reports, "_kept", {})
        play(home, **how)
        check = compared(home, key, END_DAY)
        compared = compared_again  # the orders are there now
        assert not check.passed
        assert f"no witness: {reason}" in sample(check)
        assert check.metadata["business dates without a witness"].value == 1
        assert check.metadata["business dates apart"].value == 0
        ((status, net),) = home.ask("select status, net from reported_sales")
        assert (status, net) == ("no_witness", None)
        assert home.metadata("daily_sales", partition=END_DAY.isoformat())["stores without a witness"] == 1
    # It is asked again, and then there is one.
    play(home)
    assert compared_again(home, key, END_DAY).passed


def test_a_scope_that_was_not_granted_leaves_the_other_feeds_alone(changing_home: Home) -> None:
    home = changing_home
    key = connected(home)
    body = {"merchant": "sakura", "remove": ["REPORTING_READ"]}
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/scopes", json=body).raise_for_status()
    check = brought_in(home, key, END_DAY)
    assert not check.passed
    assert "no witness: not permitted, it takes REPORTING_READ" in sample(check)
    assert home.ask("select count(*) > 0 from payments") == [(True,)]


def test_an_order_that_differs_is_named(changing_home: Home) -> None:
    home = changing_home
    key = connected(home)
    assert brought_in(home, key).passed
    # An order was changed at the provider since, and nobody fetched it: the report knows, and says which.
    order = changed_since(home, key)
    check = compared_again(home, key)
    assert not check.passed
    assert check.metadata["business dates apart"].value == 1
    (net,) = home.ask(f"select sum(net) from transactions where order_id = '{order}'")[0]
    assert f"Orders: {order} ({net.normalize():f} here, " in sample(check)
    # Fetched again, both say the same.
    assert brought_in(home, key).passed


@pytest.mark.parametrize("merchant", ["harbor-kitchen"])
def test_toasts_report_is_a_witness_too(changing_home: Home, merchant: str) -> None:
    home = changing_home
    key = connected(home, merchant)
    play(home, waits=1, conflicts=1)
    check = brought_in(home, key)
    assert check.passed, sample(check)
    stores = len(home.sandbox.world.merchant(merchant).locations)
    assert check.metadata["business dates compared"].value == 2
    assert home.ask("select count(*) from reported_sales where status = 'reported'") == [(2 * stores,)]
    # March is over: it was asked for as a whole, once, for every restaurant.
    assert home.sandbox.world.request_log.endpoints["metrics"] == 2  # the first is asked anew
    sale = changed_since(home, key)
    found = compared_again(home, key)
    assert not found.passed
    assert sale in sample(found)
    play(home, denied=True)
    found = compared_again(home, key)
    assert "no witness: not permitted, it takes the scope enterprise-metrics:read" in sample(found)


def test_shopifys_report_is_a_witness_too(changing_home: Home) -> None:
    home = changing_home
    key = connected(home, "fjord-shop")
    check = brought_in(home, key)
    assert check.passed, sample(check)
    assert check.metadata["business dates compared"].value == 2
    order = legacy("Order", changed_here(home, key))
    found = compared_again(home, key)
    assert not found.passed
    assert str(order) in sample(found)


def changed_here(home: Home, key: str) -> str:
    """Let an order be another one at the provider than the one that was fetched; return its id in the world."""
    world, ours = home.sandbox.world, {order for (order,) in home.ask("select distinct order_id from transactions")}
    for sale in world.sales.values():
        good = sale.lines and not (sale.returns or sale.discounts or sale.test or world.refunds_of(sale))
        if (
            good
            and str(legacy("Order", sale.id)) in ours
            and sale.lines[0].kind == "ITEM"
            and sale.state == "COMPLETED"
        ):
            first = sale.lines[0]
            sale.lines = (first._replace(quantity=first.quantity + 1), *sale.lines[1:])
            world.change(sale)
            return sale.id
    raise AssertionError(f"{key} has no order to change")
