"""The in-process driver behind `flux sync`: visible in the UI's history, resumable, and exact about what failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
import pytest
import time_machine

from flux_pipelines.cli.sync import print_report
from flux_pipelines.defs import names
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.driver import dagster_home, driving
from flux_pipelines.defs.runner import replay_quarantined, sync
from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.partition import Partition
from flux_pipelines.settings import settings
from flux_pipelines_tests.defs.conftest import END_DAY, Home
from flux_pipelines_tests.defs.test_assets import truth

FIRST = END_DAY - timedelta(days=3)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
HARBOR, SAKURA = "square:harbor", "square:sakura"


def test_a_sync_brings_every_table_up_to_date_and_tells_what_it_did(home: Home) -> None:
    keys = home.connect("harbor", "sakura")
    report = sync(home.runtime, keys, DAYS, beside_orders=False)
    assert report.failures == []
    for merchant, currency in (("harbor", "USD"), ("sakura", "JPY")):
        assert report.net[currency] == from_minor(truth(home, merchant, FIRST, END_DAY)[currency]["net"], currency)
    # What is paid in part is no sale yet: its row says what it has been paid.
    assert report.orders == home.ask(f"select count(distinct order_id) from transactions where {_COUNTS}")[0][0]
    assert report.requests > 0
    assert report.resumed_days == 0
    assert (report.forecast_items, report.unforecast_items) == (0, home.ask(_SKIPPED)[0][0])
    assert home.partitions("daily_sales") == [str(day) for day in DAYS]
    runs = home.instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert [run.job_name for run in runs].count("sync_square") == len(keys), "one run a connection"

    again = sync(home.runtime, keys, DAYS, beside_orders=False)
    assert again.resumed_days == 0, "a sync that finished is not resumed"
    assert (again.orders, again.lines, again.net) == (report.orders, report.lines, report.net)


_COUNTS = "kind not in ('void', 'open')"
_SKIPPED = f"select count(*) from demand_forecasts where status <> 'forecast' and as_of = '{END_DAY}'"


def test_of_a_date_whose_orders_were_not_fetched_there_are_payments_and_no_sales(home: Home) -> None:
    """Payments are collected for a date more than orders, so that those of the last one are known."""
    (key,) = home.connect("harbor")
    day = END_DAY - timedelta(days=1)
    assert sync(home.runtime, [key], [day]).failures == []
    assert home.partitions("daily_sales") == [str(day)], "a date with 0 orders would look as if nothing had been sold"
    assert home.partitions("tie_out") == [str(day), str(END_DAY)]
    reasons = home.ask(f"select gap_reason from tie_out where business_date = '{END_DAY}'")
    assert reasons
    for (reason,) in reasons:
        assert "of a date that was not fetched" in reason
        assert "not there" not in reason

    assert sync(home.runtime, [key], [END_DAY]).failures == []
    assert home.partitions("daily_sales") == [str(day), str(END_DAY)]
    assert home.ask(f"select gap_reason from tie_out where business_date = '{END_DAY}' and gap <> 0") == []


def test_one_connection_that_is_revoked_leaves_the_others_complete_and_says_what_to_do(changing_home: Home) -> None:
    home = changing_home
    keys = home.connect("fjord", "harbor", "sakura")
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"})
    report = sync(home.runtime, keys, DAYS[-1:], beside_orders=False)
    (failure,) = report.failures
    assert HARBOR in failure
    assert "Reconnect the account" in failure
    complete = {row[0] for row in home.ask("select distinct connection from daily_sales")}
    assert complete == {"square:fjord", SAKURA}
    assert home.partitions("square", "transactions") == [f"square:fjord|{END_DAY}", f"{SAKURA}|{END_DAY}"]
    (ledger,) = home.runtime.state.syncs.recent()
    assert ledger.state == "failed"


def test_figures_of_a_sync_are_never_those_of_an_earlier_one(
    changing_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home = changing_home
    keys = home.connect("harbor", "sakura")
    first = sync(home.runtime, keys, DAYS[-2:], beside_orders=False)
    assert (first.complete, first.partitions, set(first.net)) == (4, 4, {"USD", "JPY"})

    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"})
    half = sync(home.runtime, keys, DAYS[-2:], beside_orders=False)
    assert (half.complete, half.partitions, half.net) == (2, 4, {"JPY": first.net["JPY"]})
    assert 0 < half.orders < first.orders
    assert 0 < half.requests < first.requests
    capsys.readouterr()
    print_report(half)
    assert re.search(r"partitions complete\W+2 of 4", capsys.readouterr().out)

    nothing = sync(home.runtime, [HARBOR], DAYS[-2:], beside_orders=False)
    assert (nothing.complete, nothing.orders, nothing.lines, nothing.requests, nothing.net) == (0, 0, 0, 0, {})
    assert (nothing.forecast_items, nothing.unforecast_items, nothing.accuracy) == (0, 0, [])
    print_report(nothing)
    assert capsys.readouterr().out == "Nothing was synced: none of 2 partitions is complete.\n"


def test_what_a_failed_sync_has_fetched_is_fetched_anew_when_asked(changing_home: Home) -> None:
    home = changing_home
    keys = home.connect("harbor", "sakura")
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"})

    def fetched() -> datetime:
        return min(one.fetched_at for one in home.runtime.raw.manifests(SAKURA, DAYS[-2], DAYS[-1]).values())

    assert sync(home.runtime, keys, DAYS[-2:], beside_orders=False).failures
    at = fetched()
    assert sync(home.runtime, keys, DAYS[-2:], beside_orders=False).resumed_days == 2
    assert fetched() == at, "what is there already is not fetched again"
    again = sync(home.runtime, keys, DAYS[-2:], beside_orders=False, again=True)
    assert (again.resumed_days, again.complete) == (0, 2)
    assert fetched() > at


def test_days_that_fail_in_the_middle_leave_the_others_normalised(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    noon = datetime.now(UTC).replace(hour=12)  # the next day has begun somewhere, but not in Tokyo
    tomorrow = [*DAYS[-2:], noon.date() + timedelta(days=1)]
    with time_machine.travel(noon), driving(home.runtime, build_definitions) as driver:
        done = driver.materialise_connection("square", SAKURA, tomorrow, sync_token="t1")
    assert done == set(DAYS[-2:])
    assert len(driver.failures) == 1
    assert home.partitions("square", "transactions") == [f"{SAKURA}|{day}" for day in DAYS[-2:]]


def test_a_sync_that_was_killed_is_resumed_and_its_run_is_not_left_running(home: Home, environment: Path) -> None:
    home.connect("harbor", "sakura")
    code = (
        "import sys, time\n"
        "from datetime import date, timedelta\n"
        "from flux_pipelines.defs import runner\n"
        "from flux_pipelines.runtime import Runtime\n"
        "first = date.fromisoformat(sys.argv[1])\n"
        "def stop(partition):\n"
        "    print('landed', partition, flush=True)\n"
        "    if partition.connection == 'square:sakura': time.sleep(600)\n"
        "runner._bar = lambda *_: stop\n"
        "with Runtime() as runtime:\n"
        "    runner.sync(runtime, ['square:harbor', 'square:sakura'], [first + timedelta(n) for n in range(4)], beside_orders=False)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(FIRST)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "square:sakura" in line:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    started = home.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert [run.tags[names.CONNECTION_TAG] for run in started] == [SAKURA]

    report = sync(home.runtime, [HARBOR, SAKURA], DAYS, beside_orders=False)
    assert report.failures == []
    assert report.resumed_days >= len(DAYS), "what was complete is not fetched again"
    dead = home.instance.get_run_by_id(started[0].run_id)
    assert dead is not None
    assert dead.status is dg.DagsterRunStatus.FAILURE
    assert report.net["USD"] == from_minor(truth(home, "harbor", FIRST, END_DAY)["USD"]["net"], "USD")
    assert report.net["JPY"] == from_minor(truth(home, "sakura", FIRST, END_DAY)["JPY"]["net"], "JPY")


def test_the_runs_of_a_driver_that_lives_are_left_alone(home: Home) -> None:
    with driving(home.runtime, build_definitions) as driver:
        run = home.instance.create_run_for_job(
            dg.job(name="by_hand")(lambda: None), tags={names.DRIVER_TAG: driver._name}
        )
        with driving(home.runtime, build_definitions):
            found = home.instance.get_run_by_id(run.run_id)
            assert found is not None
            assert found.status is dg.DagsterRunStatus.NOT_STARTED


def test_replaying_what_is_still_bad_keeps_it_and_changes_nothing(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    location = home.sandbox.world.merchant("sakura").locations[0].id
    bad = home.sandbox.world.malform("totals", location)
    day = BusinessCalendar("Asia/Tokyo").date_of(datetime.fromtimestamp(bad.created / 1000, UTC))
    report = sync(home.runtime, [SAKURA], [day], beside_orders=False)
    assert report.failures == []
    assert report.quarantined == 1
    # Still bad: it stays, and nothing else changes.
    before = home.rows("daily_sales")
    assert replay_quarantined(home.runtime, [Partition(SAKURA, day)]).failures == []
    assert len(home.runtime.quarantine.list(connection=SAKURA)) == 1
    assert home.rows("daily_sales") == before


def test_the_home_keeps_a_dagster_yaml_that_somebody_has_put_there(environment: Path) -> None:
    home = dagster_home(settings())
    assert (home / "dagster.yaml").read_text().startswith("# The Dagster instance: SQLite")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert dagster_home(settings()) == home
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"
