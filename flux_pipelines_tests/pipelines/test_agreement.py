"""Our figures beside the provider's own report: equal, or named, or without a witness; never a wrong green."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import httpx
import msgspec
import pytest

from flux_pipelines.connect import connect_to_sandbox
from flux_pipelines.domain.money import from_minor
from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.partitions import partition_key
from flux_pipelines.providers.square import reports as square_reports
from flux_pipelines.sandbox.truth import truth
from flux_pipelines_tests.pipelines.conftest import END_DAY, Home

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
    asked = partition_key(key, first), partition_key(key, last)
    assert home.run(names.sync_job(provider), *asked).success
    assert home.run(names.collect_job(provider, "day"), *asked).success
    assert home.run(names.REFRESH_CORE_JOB, first.isoformat(), last.isoformat()).success
    result = home.run(names.REFRESH_BOOKS_JOB, first.isoformat(), last.isoformat())
    assert result.success
    found = [one for one in result.get_asset_check_evaluations() if one.check_name == "agrees_with_report"]
    assert len(found) == 1
    assert not found[0].blocking
    return found[0]


def sample(check: dg.AssetCheckEvaluation) -> str:
    return str(check.metadata["sample"].value) if "sample" in check.metadata else ""


def altered(home: Home, key: str, day: date) -> str:
    """Put an order into the lake that the provider has not; return its id."""
    merchant = home.sandbox.world.merchant(key.partition(":")[2])
    return merchant.id + day.isoformat()


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


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"waits": -1}, "the report was computed still after 1 s"),
        ({"empty": True}, "the report was empty"),
        ({"denied": True}, "not permitted, it takes REPORTING_READ"),
        ({"absent": True}, "there is no report here"),
    ],
)
def test_where_there_is_no_report_there_is_no_witness_and_nothing_fails(
    changing_home: Home, how: dict[str, Any], reason: str
) -> None:
    home = changing_home
    key = connected(home)
    play(home, **how)
    check = brought_in(home, key, END_DAY)
    assert not check.passed
    assert f"no witness: {reason}" in sample(check)
    assert check.metadata["business dates without a witness"].value == 1
    assert check.metadata["business dates apart"].value == 0
    ((status, net),) = home.ask("select status, net from reported_sales")
    assert (status, net) == ("no_witness", None)
    assert home.metadata("daily_sales", partition=END_DAY.isoformat())["stores without a witness"] == 1
    # It is asked again, and then there is one.
    play(home)
    assert brought_in(home, key, END_DAY).passed


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
    assert brought_in(home, key, END_DAY).passed
    # What is here says otherwise than the report: an order was changed at the provider since, and nobody fetched it.
    world = home.sandbox.world
    place = world.merchant("sakura").locations[0]
    low = int(msgspec.json.decode(b"0"))
    orders = [
        sale
        for _, sale in world.between([place.id], "closed", low, 2**62)
        if sale.state == "COMPLETED" and sale.lines and not sale.returns
    ]
    ours = dict(home.ask("select order_id, sum(net) from transactions group by 1"))
    sale = next(one for one in orders if one.id in ours)
    world.edit(sale.id, add_units=1)
    assert home.run(names.collect_job("square", "day"), *[partition_key(key, END_DAY)] * 2).success
    result = home.run(names.REFRESH_BOOKS_JOB, END_DAY.isoformat(), END_DAY.isoformat())
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "agrees_with_report"]
    assert not check.passed
    assert check.metadata["business dates apart"].value == 1
    assert f"Orders: {sale.id} ({ours[sale.id]:f}"[:30] in sample(check).replace(".0000", "")
    (total,) = home.ask("select sum(net) from reported_sales")[0]
    assert total > Decimal(0)
    # Fetched again, both say the same.
    assert brought_in(home, key, END_DAY).passed
