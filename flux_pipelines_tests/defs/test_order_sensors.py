"""What runs by itself, ticked for real: conditions on a Dagster instance, schedules and sensors over the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest
import time_machine
from dagster._core.events import AssetMaterializationPlannedData

from flux_pipelines.defs import freshness, names
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.partitions import business_days
from flux_pipelines.defs.schedules import DAILY_ATTEMPTS, schedules
from flux_pipelines.defs.sensors.changes import LAG, change_sensors
from flux_pipelines.defs.sensors.connections import connection_partitions_sensor
from flux_pipelines.domain.business_day import last_closed
from flux_pipelines.domain.partition import Partition
from flux_pipelines.providers.registry import provider
from flux_pipelines_tests.defs.conftest import END_DAY, Home

SQUARE = provider("square")
A, B = "square:harbor", "square:sakura"
RAW, PROVIDER = dg.AssetKey(["square", "raw_orders"]), dg.AssetKey(["square", "transactions"])
CORE = (names.TRANSACTIONS, names.DAILY_SALES, names.DAILY_ITEM_DEMAND)


class Ticker:
    """Ticks the automation of the real definitions on an ephemeral instance; runs are recorded by hand."""

    def __init__(self) -> None:
        self.definitions = build_definitions()
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("square_connections", [A, B])
        self.cursor: Any = None

    def tick(self) -> dict[str, list[str]]:
        """Return what is requested: asset to partitions."""
        done = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self.cursor)
        self.cursor = done.cursor
        requested = {
            key.to_user_string(): sorted(done.get_requested_partitions(key))
            for key in (PROVIDER, *CORE, names.DEMAND_FORECASTS, names.FORECAST_ACCURACY)
        }
        return {key: partitions for key, partitions in requested.items() if partitions}

    def ran(self, assets: Iterable[dg.AssetKey], partitions: Iterable[str]) -> None:
        """Record a run that has materialised these partitions of these assets."""
        assets = list(assets)
        run = self.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None))
        for key in assets:
            for partition in partitions:
                self.instance.report_dagster_event(
                    dg.DagsterEvent(
                        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                        job_name="by_hand",
                        event_specific_data=_materialised(key, partition),
                    ),
                    run.run_id,
                )
        self.instance.report_run_canceled(run)

    def under_way(self, key: dg.AssetKey, partitions: Iterable[str]) -> None:
        """Record a run that is materialising these partitions."""
        run = self.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None))
        for partition in partitions:
            self.instance.report_dagster_event(
                dg.DagsterEvent.build_asset_materialization_planned_event(
                    "by_hand", "step", AssetMaterializationPlannedData(key, partition=partition)
                ),
                run.run_id,
            )
        self.instance.report_dagster_event(
            dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name="by_hand"), run.run_id
        )


def _materialised(key: dg.AssetKey, partition: str) -> Any:
    from dagster._core.events import StepMaterializationData

    return StepMaterializationData(dg.AssetMaterialization(key, partition=partition))


@pytest.fixture
def ticker(environment: Any) -> Ticker:
    return Ticker()


def keys(connection: str, *days: date) -> list[str]:
    return [str(Partition(connection, day)) for day in days]


def test_exactly_the_days_whose_upstream_changed_are_asked_for_once(ticker: Ticker) -> None:
    old, other = date(2026, 3, 2), date(2026, 3, 9)
    assert ticker.tick() == {}
    ticker.ran([RAW, PROVIDER], [*keys(A, old, other), *keys(B, other)])
    everything = {key.to_user_string(): [str(old), str(other)] for key in CORE}
    asked = ticker.tick()
    assert asked == everything, "one connection without data must not hold back a day, nor an old day be ignored"
    assert ticker.tick() == {}, "nothing is asked for twice"
    ticker.ran(CORE, [str(old), str(other)])
    assert ticker.tick() == {}, "what was asked for and has run needs no second run"
    # A late edit of an old day.
    ticker.ran([RAW, PROVIDER], keys(B, old))
    assert ticker.tick() == {key.to_user_string(): [str(old)] for key in CORE}


def test_good_partitions_of_a_run_that_failed_in_part_are_picked_up(ticker: Ticker) -> None:
    day = date(2026, 3, 9)
    ticker.tick()
    ticker.ran([RAW], keys(A, day))
    assert ticker.tick()["square/transactions"] == keys(A, day)


def test_a_change_that_comes_while_a_run_is_under_way_is_not_forgotten(ticker: Ticker) -> None:
    day = date(2026, 3, 9)
    ticker.tick()
    ticker.ran([PROVIDER], keys(A, day))
    assert names.TRANSACTIONS.to_user_string() in ticker.tick()
    # While the run that was asked for is under way, another connection's rows arrive; then it ends.
    ticker.ran([PROVIDER], keys(B, day))
    ticker.ran(CORE, [str(day)])
    assert ticker.tick() == {key.to_user_string(): [str(day)] for key in CORE}
    assert ticker.tick() == {}


def test_recent_days_do_not_wait_for_stores_that_keep_selling_and_old_ones_wait_for_their_backfill(
    ticker: Ticker,
) -> None:
    today = date.fromisoformat(str(business_days().get_last_partition_key()))
    old = today - timedelta(days=30)
    ticker.tick()
    ticker.ran([PROVIDER], keys(A, today, old))
    for day in (today, old):  # another connection is being synced all the while
        ticker.under_way(PROVIDER, keys(B, day))
    assert ticker.tick() == {key.to_user_string(): [str(today)] for key in CORE}


def test_forecasts_are_not_asked_for_by_conditions(ticker: Ticker) -> None:
    """A condition cannot tell a day that has closed from one that webhooks keep filling; `closed_days` can."""
    yesterday = date.fromisoformat(str(business_days().get_last_partition_key())) - timedelta(days=1)
    ticker.tick()
    ticker.ran(CORE, [str(yesterday)])
    assert ticker.tick() == {}


def test_partitions_follow_connections_and_wait_for_runs_under_way(home: Home) -> None:
    sensor = connection_partitions_sensor(SQUARE)
    home.connect("harbor", "sakura")
    home.instance.add_dynamic_partitions("square_connections", ["square:gone", "square:busy"])
    home.instance.delete_dynamic_partition("square_connections", A)
    home.runtime.state.connections.set_status(B, "paused", "for a test")
    home.instance.create_run_for_job(
        dg.job(name="by_hand")(lambda: None), tags={"dagster/asset_partition_range_start": "square:busy|2026-03-02"}
    )
    result = home.tick(sensor)
    changes = {(type(r).__name__[:3], tuple(r.partition_keys)) for r in result.dynamic_partitions_requests or ()}
    assert changes == {("Add", (A,)), ("Del", ("square:gone",))}


def schedule_of(name: str) -> dg.ScheduleDefinition:
    (found,) = [schedule for schedule in schedules(SQUARE) if schedule.name == name]
    return found


def hour(home: Home, at: datetime) -> list[dg.RunRequest]:
    return home.due(schedule_of("square_daily"), at)


def start(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


@pytest.mark.parametrize("sensor", change_sensors(SQUARE), ids=lambda sensor: sensor.name)
def test_changes_are_looked_for_after_the_clock_was_set_back(home: Home, sensor: dg.SensorDefinition) -> None:
    home.connect("sakura")
    right = datetime(2026, 3, 10, 12, tzinfo=UTC)
    with time_machine.travel(right + timedelta(hours=2), tick=False):
        cursor = home.tick(sensor).cursor
    assert "13:59" in str(cursor)
    with time_machine.travel(right, tick=False):
        context = home.tick(sensor, cursor)
    cursors = json.loads(context.cursor or "{}")
    assert {datetime.fromisoformat(until) for until in cursors.values()} == {right - LAG}


def test_each_connection_is_asked_for_yesterday_after_its_last_store_has_closed(home: Home) -> None:
    home.connect("harbor", "sakura")
    # Tokyo closes at 15:00 UTC. Harbor's westernmost stores are in Los Angeles: the 9th ends at 07:00 UTC of the 10th.
    with time_machine.travel(datetime(2026, 3, 9, 15, 10, tzinfo=UTC), tick=False):
        assert {start(r)[1] for r in hour(home, datetime(2026, 3, 9, 15, 10, tzinfo=UTC))} == {
            f"{A}|2026-03-08",
            f"{B}|2026-03-08",
        }
        later = {start(r)[1] for r in hour(home, datetime(2026, 3, 9, 16, 10, tzinfo=UTC))}
    assert later == {f"{A}|2026-03-08", f"{B}|2026-03-09"}
    assert {start(r)[1] for r in hour(home, datetime(2026, 3, 10, 8, 10, tzinfo=UTC))} == {
        f"{A}|2026-03-09",
        f"{B}|2026-03-09",
    }


def test_a_day_is_asked_for_once_and_again_only_if_its_run_failed(home: Home) -> None:
    home.connect("sakura")
    at = datetime(2026, 3, 10, 16, 10, tzinfo=UTC)
    for failed in range(DAILY_ATTEMPTS):
        (request,) = hour(home, at)
        run = home.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None), tags=request.tags)
        assert hour(home, at) == [], "it is under way"
        home.instance.report_run_failed(run)
        assert len(home.instance.get_runs()) == failed + 1
    assert hour(home, at) == [], "three attempts have failed: now somebody has to look"


def test_days_that_were_missed_are_made_up_for_in_one_run(home: Home) -> None:
    home.connect("sakura")
    landed = date(2026, 3, 6)
    assert home.sync((B, landed), (B, landed)).success
    (request,) = hour(home, datetime(2026, 3, 10, 16, 10, tzinfo=UTC))
    assert start(request) == (f"{B}|2026-03-07", f"{B}|2026-03-10")
    done = home.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
        instance=home.instance, tags=request.tags
    )
    assert done.success
    assert hour(home, datetime(2026, 3, 10, 17, 10, tzinfo=UTC)) == []


def test_a_day_before_a_complete_one_is_made_up_for_too(home: Home) -> None:
    """Webhooks land days out of order: yesterday may be complete while the days before it are missing."""
    home.connect("sakura")
    for landed in (date(2026, 3, 6), date(2026, 3, 9)):
        assert home.sync((B, landed), (B, landed)).success
    requests = hour(home, datetime(2026, 3, 10, 16, 10, tzinfo=UTC))
    assert [start(request) for request in requests] == [
        (f"{B}|2026-03-07", f"{B}|2026-03-08"),
        (f"{B}|2026-03-10", f"{B}|2026-03-10"),
    ]


def test_a_day_that_was_landed_while_it_was_open_is_landed_again_after_it_has_closed(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    _, sensor = freshness.watch(SQUARE)
    noon = datetime(2026, 3, 10, 3, tzinfo=UTC)  # in Tokyo
    before = END_DAY - timedelta(days=1)
    assert home.sync((B, before), (B, before)).success
    with time_machine.travel(noon):
        assert home.sync((B, END_DAY), (B, END_DAY)).success
        assert home.metadata("square", "transactions", partition=f"{B}|{END_DAY}")["day"] == "open"
        assert hour(home, noon) == [], "it is not due while it is open"
    closed = datetime(2026, 3, 10, 15, 40, tzinfo=UTC)
    with time_machine.travel(closed + timedelta(hours=3)):
        late, *_ = home.tick(sensor).asset_events
        assert isinstance(late, dg.AssetCheckEvaluation)
        assert "landed before it had ended" in late.metadata["late"].value
    with time_machine.travel(closed):
        (request,) = hour(home, closed)
        assert start(request) == (f"{B}|{END_DAY}", f"{B}|{END_DAY}")
        job = home.definitions.resolve_job_def(str(request.job_name))
        assert job.execute_in_process(instance=home.instance, tags=request.tags).success
        assert hour(home, closed) == []
    with time_machine.travel(closed + timedelta(hours=3)):
        good, *_ = home.tick(sensor).asset_events
        assert isinstance(good, dg.AssetCheckEvaluation)
        assert good.passed
    assert home.metadata("square", "transactions", partition=f"{B}|{END_DAY}")["day"] == "over"


def test_a_connection_that_is_not_active_is_left_out(home: Home) -> None:
    home.connect("sakura")
    home.runtime.state.connections.set_status(B, "needs_reauth", "revoked")
    assert hour(home, datetime(2026, 3, 10, 16, 10, tzinfo=UTC)) == []


def test_late_edits_make_their_own_days_run_again_and_nothing_else(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    first = END_DAY - timedelta(days=3)
    assert home.sync((B, first), (B, END_DAY)).success
    sensor = change_sensors(SQUARE)[0]
    quiet = home.tick(sensor)
    assert not quiet.run_requests
    assert quiet.cursor

    orders = httpx.get(
        f"{home.sandbox.url}/sandbox/orders", params={"merchant": "sakura", "state": "COMPLETED", "limit": "400"}
    ).json()["orders"]
    edited = min(orders, key=lambda order: order["created_ms"])
    httpx.post(f"{home.sandbox.url}/sandbox/orders/edit", json={"order_id": edited["order_id"], "add_units": 1})
    location = home.sandbox.world.merchant("sakura").locations[0].id
    # An offline sale of the last day arrives now; sales of today are for the daily schedule.
    home.sandbox.world.sell(location, created=datetime(2026, 3, 10, 2, tzinfo=UTC))
    home.sandbox.world.sell(location)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=5)):
        changed = home.tick(sensor, quiet.cursor)
    ranges = {start(request) for request in changed.run_requests or ()}
    assert ranges == {(f"{B}|{first}", f"{B}|{first}"), (f"{B}|{END_DAY}", f"{B}|{END_DAY}")}
    before = home.ask("select count(*) from square_transactions")
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        for request in changed.run_requests or ():
            done = home.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
                instance=home.instance, tags=request.tags
            )
            assert done.success
    assert home.ask("select count(*) from square_transactions") > before
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=9)):
        assert not home.tick(sensor, quiet.cursor).run_requests, "what has been landed since is not asked for again"


def test_a_connection_that_cannot_be_asked_keeps_its_place_and_does_not_stop_the_others(changing_home: Home) -> None:
    home = changing_home
    home.connect("harbor", "sakura")
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"})
    cursor = json.dumps({A: "2026-11-01T00:00:00+00:00"})
    result = home.tick(change_sensors(SQUARE)[0], cursor)
    cursors = json.loads(str(result.cursor))
    assert cursors[A] == "2026-11-01T00:00:00+00:00"
    assert cursors[B] > cursors[A]


def test_the_watch_tells_which_connection_is_late_and_what_to_do(home: Home) -> None:
    home.connect("harbor", "sakura")
    _, sensor = freshness.watch(SQUARE)
    at = datetime(2026, 3, 10, 20, tzinfo=UTC)
    day = last_closed([calendar("Asia/Tokyo")], at)
    assert home.sync((B, day), (B, day)).success
    with time_machine.travel(at, tick=False):
        evaluation, alerts, *_ = home.tick(sensor).asset_events
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert not evaluation.passed
    told = evaluation.metadata["late"].value
    assert A in told
    assert B not in told
    assert "flux sync square" in evaluation.metadata["what to do"].value
    assert isinstance(alerts, dg.AssetCheckEvaluation)
    assert alerts.passed
    home.runtime.state.alerts.raise_("webhooks_failing", B, "no webhook has come since yesterday. Look at Square.")
    home.runtime.state.alerts.raise_("webhooks_failing", "other:one", "not of this provider")
    _, alerts, *_ = home.tick(sensor).asset_events
    assert isinstance(alerts, dg.AssetCheckEvaluation)
    assert not alerts.passed
    assert alerts.metadata["open alerts"].value == 1
    assert "no webhook has come" in alerts.metadata["alerts"].value


def calendar(zone: str) -> Any:
    from flux_pipelines.domain.business_day import BusinessCalendar

    return BusinessCalendar(zone)
