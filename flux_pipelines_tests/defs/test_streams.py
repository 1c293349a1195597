"""Streams as Dagster assets, over Square's sandbox: what is stored, what becomes of it, and what a person sees."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from flux_pipelines.defs import names
from flux_pipelines.domain.partition import Partition
from flux_pipelines_tests.defs.conftest import END_DAY, Home

FIRST = END_DAY - timedelta(days=2)


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {f"{c.asset_key.to_user_string()} {c.check_name}": c.passed for c in result.get_asset_check_evaluations()}


def between(home: Home, job: str, connection: str, first: date, last: date) -> dg.ExecuteInProcessResult:
    return home.run(job, str(Partition(connection, first)), str(Partition(connection, last)))


def test_a_days_payments_and_hours_are_collected_and_become_tables(home: Home) -> None:
    harbor, sakura = home.connect()
    for connection in (harbor, sakura):
        done = between(home, names.stream_job("square", "daily"), connection, FIRST, END_DAY)
        assert done.success
        assert all(passed(done).values())
        assert {name.partition(" ")[2] for name in passed(done) if name.startswith("square/payments ")} == {
            "no_duplicate_lines", "contract", "nothing_quarantined"
        }  # fmt: skip
    assert home.run(names.REFRESH_BOOKS_JOB, str(FIRST), str(END_DAY)).success
    partition = str(Partition(harbor, END_DAY))
    told = home.metadata("square", "raw_payments", partition=partition)
    assert told["requests"] > 0
    assert told["Square API version"] == "2026-09-16"
    told = home.metadata("square", "payments", partition=partition)
    assert told["rows"] == told["payments"] + told["refunds"] > 100
    assert told["amount USD"]
    assert "| location |" in told["preview"]
    ((lake, days),) = home.ask("select count(*), count(distinct business_date) from payments")
    assert (lake, days) == (home.ask("select count(*) from square.payments")[0][0], 3)
    assert home.ask("select count(*) from time_entries")[0][0] > 0
    version = home.runtime.lake.version("square/payments")
    assert between(home, names.stream_job("square", "daily"), harbor, FIRST, END_DAY).success
    assert home.runtime.lake.version("square/payments") == version  # the same rows: nothing was written


def test_the_catalog_is_what_there_is_now_and_keeps_its_history(home: Home) -> None:
    (harbor,) = home.connect("harbor")
    for _ in range(2):
        done = home.run(names.stream_job("square", "current"), harbor, harbor)
        assert done.success
        assert all(passed(done).values())
        refreshed = home.definitions.resolve_job_def(names.REFRESH_CATALOG_JOB).execute_in_process(
            instance=home.instance
        )
        assert all(passed(refreshed).values())
    told = home.metadata("square", "products", partition=harbor)
    assert told["rows"] >= told["products"] > 10
    assert told["Delta table version"] == home.runtime.lake.version("square/products")
    assert home.runtime.lake.version("products") == 1  # made, and filled once
    ((products, opened),) = home.ask("select count(*), count(*) filter (valid_to is null) from products")
    assert products == opened
    assert home.ask("select count(*) from locations where active")[0][0] > 5


def test_stock_is_of_the_hour_and_the_past_cannot_be_had(home: Home) -> None:
    (harbor,) = home.connect("harbor")
    job, today = names.stream_job("square", "hourly"), datetime.now(UTC).date()
    done = between(home, job, harbor, today, today)
    assert done.success
    told = home.metadata("square", "inventory_levels", partition=str(Partition(harbor, today)))
    assert told["rows"] > 10
    assert told["snapshots"] == 1
    lost = between(home, job, harbor, END_DAY, END_DAY)
    assert not lost.success
    (failure,) = [e for e in lost.all_events if e.is_step_failure and e.step_key == "square__raw_inventory"]
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    why = str(told.description)
    assert f"there is no snapshot of {END_DAY}" in why
    assert "will not help" in why
    assert home.runtime.raw.of("inventory").hours(harbor, END_DAY).days == set()
    assert str(Partition(harbor, END_DAY)) not in home.partitions("square", "raw_inventory")


@pytest.fixture
def paused(home: Home) -> str:
    (harbor,) = home.connect("harbor")
    home.runtime.state.connections.set_status(harbor, "paused", "for a test")
    return harbor


def test_a_connection_that_cannot_be_asked_fails_with_what_to_do(home: Home, paused: str) -> None:
    done = between(home, names.stream_job("square", "daily"), paused, END_DAY, END_DAY)
    assert not done.success
    words = [str(e.step_failure_data.user_failure_data.description) for e in done.all_events if e.is_step_failure
             and e.step_failure_data.user_failure_data]  # fmt: skip
    assert any(f"flux connections resume {paused}" in word for word in words)
    assert home.partitions("square", "raw_payments") == []
