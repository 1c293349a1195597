"""History stays what it was when its connection is removed: core tables made again equal what they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import time_machine

from flux_pipelines.defs import names
from flux_pipelines.defs.runner import sync
from flux_pipelines.domain import tables
from flux_pipelines_tests.defs.conftest import END_DAY, Home

A, B = "square:harbor", "square:sakura"
FIRST = END_DAY - timedelta(days=1)
CORE = sorted({table.name for table in tables.TABLES} - {tables.QUARANTINE.name})


def made_again(home: Home) -> None:
    """Make every core table of the synced dates again, as somebody who materialises them does."""
    today = datetime.now(UTC).date().isoformat()
    days = (FIRST.isoformat(), (END_DAY + timedelta(days=1)).isoformat())
    for job in (names.REFRESH_CORE_JOB, names.REFRESH_BOOKS_JOB):
        assert home.run(job, *days).success
    assert home.run(names.REFRESH_STOCK_JOB, today, today).success
    for job in (names.REFRESH_CATALOG_JOB, names.MAPPING_JOB):
        assert home.definitions.resolve_job_def(job).execute_in_process(instance=home.instance).success
    for job in (names.FORECAST_JOB, names.ACCURACY_JOB):
        assert home.run(job, END_DAY.isoformat(), END_DAY.isoformat()).success


def test_every_core_table_made_again_after_a_connection_is_removed_equals_what_it_was(home: Home) -> None:
    home.connect("sakura")
    assert not sync(home.runtime, [B], [FIRST, END_DAY]).failures
    made_again(home)
    before = home.contents(CORE)
    told = {name: home.metadata(name, partition=END_DAY.isoformat())["preview"] for name in ("tie_out", "daily_sales")}
    assert home.ask("select distinct payments_known from tie_out") == [(True,)]
    assert {name for name, rows in before.items() if rows} >= {
        *("transactions", "daily_sales", "daily_item_demand", "payments", "tie_out", "settled_orders"),
        *("products", "locations", "stores", "inventory_levels", "time_entries"),
    }

    home.runtime.state.connections.remove(B)
    made_again(home)
    assert home.contents(CORE) == before
    assert told == {name: home.metadata(name, partition=END_DAY.isoformat())["preview"] for name in told}


def test_a_day_that_was_open_when_it_was_fetched_is_no_history_of_a_removed_connection_either(home: Home) -> None:
    home.connect("harbor")
    with time_machine.travel(datetime(2026, 3, 10, 16, tzinfo=UTC)):  # in Los Angeles it is morning
        assert home.sync((A, END_DAY), (A, END_DAY)).success
    assert home.run(names.REFRESH_CORE_JOB, str(END_DAY), str(END_DAY)).success
    home.runtime.state.connections.remove(A)
    assert home.run(names.FORECAST_JOB, str(END_DAY), str(END_DAY)).success
    assert home.metadata("demand_forecasts", partition=str(END_DAY))["left out, day not over"] == A
