"""The assets as Dagster runs them, over the sandbox: days, ranges, locations, reruns, and failures in part."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import dagster as dg
import httpx

from flux_pipelines.defs.partitions import business_days
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines_tests.defs.conftest import END_DAY, Home

DAY = date(2026, 3, 8)  # New York's clocks go forward: a day of 23 hours
HARBOR, SAKURA = "square:harbor", "square:sakura"


def truth(home: Home, merchant: str, first: date, last: date) -> dict[str, dict[str, int]]:
    answer = httpx.get(
        f"{home.sandbox.url}/sandbox/truth",
        params={"merchant": merchant, "from": str(first), "to": str(last), "totals": "1"},
    )
    totals: dict[str, dict[str, int]] = answer.json()["totals"]
    return totals


def test_one_day_of_one_connection_runs_from_raw_to_marts_and_tells_its_figures(home: Home) -> None:
    home.connect("harbor", "sakura")
    result = home.definitions.resolve_job_def("sync_square").execute_in_process(
        instance=home.instance, partition_key=str(Partition(HARBOR, DAY))
    )
    assert result.success
    key = f"{HARBOR}|{DAY}"
    assert home.partitions("square", "raw_orders") == home.partitions("square", "transactions") == [key]

    raw = home.metadata("square", "raw_orders", partition=key)
    assert raw["orders"] == raw["rows"] > 100
    assert raw["requests"] > 0
    assert raw["retries"] == 0
    assert raw["rate-limit wait (s)"] == 0.0
    assert raw["Square API version"] == "2026-09-16"
    assert raw["verification"] == "verified"
    assert "COMPLETED" in raw["preview"]

    lines = home.metadata("square", "transactions", partition=key)
    assert lines["orders"] > 0
    assert lines["Delta table version"] == home.runtime.lake.version("square/transactions")
    assert lines["preview"].count("\n") == 6
    assert any(place.name in lines["preview"] for place in home.runtime.state.locations.list("square:harbor"))
    assert lines["total USD"] == raw["total USD"]

    assert home.run("refresh_core", str(DAY), str(DAY)).success
    sales = home.metadata("daily_sales", partition=str(DAY))
    expected = truth(home, "harbor", DAY, DAY)["USD"]
    assert sales["net USD"] == f"{from_minor(expected['net'], 'USD'):,}"
    assert "data:image/svg+xml;base64," in sales["plot USD"]
    assert home.metadata("daily_item_demand", partition=str(DAY))["products"] > 10


def test_a_range_gives_each_partition_its_own_figures_and_a_rerun_changes_nothing(home: Home) -> None:
    home.connect("harbor", "sakura")
    first, last = date(2026, 3, 6), date(2026, 3, 9)
    days = [first + timedelta(days=n) for n in range(4)]

    def everything() -> dict[str, list[tuple[object, ...]]]:
        assert home.sync((HARBOR, first), (SAKURA, last)).success
        assert home.run("refresh_core", str(first), str(last)).success
        names = ("square_transactions", "transactions", "daily_sales", "daily_item_demand")
        return {name: home.rows(name) for name in names}

    before = everything()
    versions = home.versions()
    assert home.partitions("square", "transactions") == [f"{c}|{d}" for c in (HARBOR, SAKURA) for d in days]
    assert home.partitions("daily_sales") == [str(day) for day in days]
    for merchant, currency in (("harbor", "USD"), ("sakura", "JPY")):
        sums = Decimal(0)
        for day in days:
            figures = home.metadata("daily_sales", partition=str(day))
            sums += Decimal(figures[f"net {currency}"].replace(",", ""))
        assert sums == from_minor(truth(home, merchant, first, last)[currency]["net"], currency)
    on = TRANSACTIONS.column_names.index("business_date")
    assert before["transactions"] == [row for row in before["square_transactions"] if first <= row[on] <= last]

    assert everything() == before
    assert home.versions() == versions, "the same content must not be written again"


def test_a_connection_that_is_revoked_does_not_hold_back_the_others(changing_home: Home) -> None:
    home = changing_home
    keys = home.connect("fjord", "harbor", "sakura")
    lost = keys[-1]
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": lost.partition(":")[2]})

    result = home.sync((keys[0], END_DAY), (lost, END_DAY))
    assert not result.success
    good = [f"{key}|{END_DAY}" for key in keys[:-1]]
    assert home.partitions("square", "raw_orders") == good
    assert home.metadata("square", "raw_orders", partition=good[0])["orders"] > 0

    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    described = failure.user_failure_data
    assert described is not None
    assert described.description is not None
    assert "1 of 3 partitions failed" in described.description
    assert lost in described.description
    assert "Reconnect the account" in described.description
    assert not any(event.is_step_restarted for event in result.all_events), "nobody retries what cannot be mended"
    assert home.runtime.state.connections.get(lost).status == "needs_reauth"
    # The run stopped there; the good partitions are normalised by the next one.
    assert home.partitions("square", "transactions") == []
    assert home.sync(
        (keys[0], END_DAY), (keys[-2], END_DAY), asset_selection=[dg.AssetKey(["square", "transactions"])]
    ).success
    assert home.partitions("square", "transactions") == good


def test_a_day_that_has_not_begun_fails_by_itself_and_says_when_it_begins(home: Home) -> None:
    home.connect("sakura")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    # From 10:00 UTC on that date has begun in Kiribati, so its partition is there; it has not in Tokyo before 15:00.
    last = date.fromisoformat(str(business_days().get_last_partition_key()))
    result = home.sync((SAKURA, last), (SAKURA, last))
    if last == tomorrow and datetime.now(UTC).hour < 15:
        assert not result.success
        failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
        assert "has not begun anywhere yet" in str(failure.user_failure_data)
    else:
        assert result.success


def test_transactions_of_a_day_that_was_never_landed_say_what_to_do(home: Home) -> None:
    home.connect("sakura")
    assert home.sync((SAKURA, DAY), (SAKURA, DAY)).success
    result = home.sync(
        (SAKURA, DAY), (SAKURA, DAY + timedelta(days=1)), asset_selection=[dg.AssetKey(["square", "transactions"])]
    )
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert "never been landed" in str(failure.user_failure_data)
    assert "Materialise `square/raw_orders`" in str(failure.user_failure_data)
    assert home.partitions("square", "transactions") == [f"{SAKURA}|{DAY}"]


def test_a_damaged_raw_file_fails_its_own_day_alone(home: Home) -> None:
    home.connect("sakura")
    days = [DAY, DAY + timedelta(days=1)]
    assert home.sync((SAKURA, days[0]), (SAKURA, days[1])).success
    manifest = home.runtime.raw.read_manifest(SAKURA, days[0])
    assert manifest is not None
    folder = home.runtime.settings.home / "lake" / "raw" / "square" / "orders" / "sakura" / str(days[0])
    (folder / manifest.file).write_bytes(b"not what was written")
    result = home.sync((SAKURA, days[0]), (SAKURA, days[1]), asset_selection=[dg.AssetKey(["square", "transactions"])])
    assert not result.success
    assert home.recorded(result.run_id) == {f"{SAKURA}|{days[1]}"}
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert str(days[0]) in str(failure.user_failure_data)
    # A rerun of the raw asset repairs it.
    assert home.sync((SAKURA, days[0]), (SAKURA, days[0])).success


def test_checks_are_recorded_and_what_cannot_be_used_is_named_without_blocking(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    location = home.sandbox.world.merchant("sakura").locations[0]
    bad = home.sandbox.world.sell(location.id, created=datetime(2026, 3, 10, 3, tzinfo=UTC), corrupt="totals")
    result = home.sync((SAKURA, END_DAY), (SAKURA, END_DAY))
    assert result.success
    checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert {"completeness", "order_totals", "no_duplicate_lines", "contract", "nothing_quarantined"} == set(checks)
    failed = {name for name, evaluation in checks.items() if not evaluation.passed}
    assert failed == {"nothing_quarantined"}
    assert bad.id in checks["nothing_quarantined"].metadata["sample"].value
    assert home.metadata("square", "transactions", partition=f"{SAKURA}|{END_DAY}")["quarantined"] == 1


def test_a_check_that_fails_stops_what_comes_after(home: Home) -> None:
    home.connect("sakura")
    assert home.sync((SAKURA, DAY), (SAKURA, DAY)).success
    # Somebody wrote into the provider's table by other means: net amounts are where gross ones belong.
    table = TRANSACTIONS.named("square/transactions")
    rows = home.runtime.lake.read(table, where={"raw_date": DAY}).read_all()
    number = rows.schema.get_field_index("net")
    rows = rows.set_column(number, rows.schema.field("net"), rows["total"])
    home.runtime.lake.replace(table, rows, [{"connection": SAKURA, "raw_date": DAY}])
    result = home.run("refresh_core", str(DAY), str(DAY))
    assert not result.success
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["contract"] is False
    assert home.partitions("transactions") == [str(DAY)]
    assert home.partitions("daily_sales") == []
