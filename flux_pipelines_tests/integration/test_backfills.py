"""Every way to start a backfill, through Dagster's own entrances: what was asked for is what landed, or the run fails.

The web server's API, the daemon's rounds and the runs' processes are Dagster's own; only the waiting between rounds is
left out.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.execution import job_backfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.daemon import SpanMarker
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster_webserver.webserver import DagsterWebserver
from starlette.testclient import TestClient

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs import names
from flux_pipelines.defs.driver import dagster_home
from flux_pipelines.defs.partitions import each_day
from flux_pipelines.lake.raw import OLDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT, settings
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

TODAY = datetime.now(UTC).date()
#: Two days ago: it has ended everywhere.
LAST = TODAY - timedelta(days=2)
FIRST = LAST - timedelta(days=2)
HARBOR, SAKURA = "square:harbor", "square:sakura"
WORKSPACE = PROJECT_ROOT / "workspace.yaml"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "flux_pipelines"}

LAUNCHED = "__typename ... on PythonError { message } ... on LaunchBackfillSuccess { backfillId }"
LAUNCH_BACKFILL = f"mutation ($params: LaunchBackfillParams!) {{ it: launchPartitionBackfill(backfillParams: $params) {{ {LAUNCHED} }} }}"
AGAIN_BACKFILL = (
    "mutation ($params: ReexecutionParams!) "
    f"{{ it: reexecutePartitionBackfill(reexecutionParams: $params) {{ {LAUNCHED} }} }}"
)
RUN = "__typename ... on PythonError { message } ... on LaunchRunSuccess { run { runId } }"
LAUNCH_RUN = f"mutation ($params: ExecutionParams!) {{ it: launchRun(executionParams: $params) {{ {RUN} }} }}"
AGAIN_RUN = (
    f"mutation ($params: ReexecutionParams!) {{ it: launchRunReexecution(reexecutionParams: $params) {{ {RUN} }} }}"
)
BACKFILL = """query ($id: String!) { it: partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } runs(limit: 100) { runId status } } ... on PythonError { message } } }"""
DRY_RUN = """mutation ($selector: ScheduleSelector!, $at: Float!) { it: scheduleDryRun(selectorData: $selector, timestamp: $at) {
  __typename ... on PythonError { message } ... on DryRunInstigationTick { evaluationResult { error { message }
  runRequests { runKey jobName runConfigYaml tags { key value } } } } } }"""


class Dagster:
    """A Flux home with a sandbox, and Dagster's web server, code server and daemon over it."""

    def __init__(self, context: WorkspaceProcessContext, runtime: Runtime, sandbox: RunningSandbox) -> None:
        self.context = context
        self.instance = context.instance
        self.runtime = runtime
        self.sandbox = sandbox
        self._web = TestClient(DagsterWebserver(context).create_asgi_app(), base_url="http://127.0.0.1")
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=1)

    def ask(self, query: str, **variables: Any) -> Any:
        answer = self._web.post("/graphql", json={"query": query, "variables": variables})
        answer.raise_for_status()
        body = answer.json()
        assert "errors" not in body, body["errors"]
        return body["data"]["it"]

    def connect(self, *merchants: str) -> list[str]:
        keys = [f"square:{merchant}" for merchant in merchants]
        known = {one.key for one in self.runtime.state.connections.list() if one.status == "active"}
        for key in set(keys) - known:
            connect_to_sandbox(
                self.runtime, key, tenant="t", url=self.sandbox.url, settings={"requests_per_minute": 100_000}
            )
        self.instance.add_dynamic_partitions("square_connections", keys)
        return keys

    def from_job_page(self, job: str, keys: Sequence[str]) -> str:
        """Start a backfill from a job's page; return its id."""
        selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": REPOSITORY}
        params = {"selector": selector, "partitionNames": list(keys), "fromFailure": False}
        return str(self.ask(LAUNCH_BACKFILL, params=params)["backfillId"])

    def from_asset_page(self, assets: Sequence[dg.AssetKey], keys: Sequence[str]) -> str:
        params = {"assetSelection": [{"path": list(one.path)} for one in assets], "partitionNames": list(keys)}
        return str(self.ask(LAUNCH_BACKFILL, params=params)["backfillId"])

    def launch(self, job: str, tags: dict[str, str]) -> str:
        """Launch a run with tags, as the launchpad does; return its id."""
        metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        params = {"selector": {**REPOSITORY, "pipelineName": job}, "executionMetadata": metadata}
        return str(self.ask(LAUNCH_RUN, params=params)["run"]["runId"])

    def daemon_round(self, *, launch: bool = True) -> None:
        """One round of the daemon: backfills submit runs; queued runs are launched."""
        log = logging.getLogger("daemon")
        assert [one for one in execute_backfill_iteration(self.context, log) if one] == []
        if launch:
            assert [
                one for one in self._queue.run_iteration(self.context) if one and not isinstance(one, SpanMarker)
            ] == []

    def finish_backfill(self, backfill: str) -> dict[str, Any]:
        """Keep the daemon going until a backfill has ended; return what became of it."""
        deadline = time.monotonic() + 200
        while True:
            self.daemon_round()
            found: dict[str, Any] = self.ask(BACKFILL, id=backfill)
            if found["status"] != "REQUESTED" and all(run["status"] in ENDED for run in found["runs"]):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.3)

    def finish_run(self, run: str) -> dg.DagsterRun:
        deadline = time.monotonic() + 200
        while True:
            self.daemon_round()
            found = self.instance.get_run_by_id(run)
            assert found is not None
            if found.is_finished:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.3)

    def recorded(self, run: str, key: dg.AssetKey) -> set[str | None]:
        """Return the partitions of an asset that a run says it has made."""
        found = self.instance.get_records_for_run(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        events = (record.event_log_entry.get_dagster_event() for record in found)
        return {event.partition for event in events if event.asset_key == key}

    def landed(self, connection: str, since: datetime) -> list[date]:
        """Return the business dates whose orders were fetched since an instant."""
        manifests = self.runtime.raw.manifests(connection, FIRST - timedelta(days=400), TODAY)
        return [day for day, manifest in manifests.items() if manifest.fetched_at >= since]

    def lines(self, connection: str) -> set[date]:
        """Return the dates whose orders have lines, but those of single orders of dates that were never fetched."""
        found = self.runtime.lake.rows_by_partition("square/transactions", {"connection": connection})
        of = {date.fromisoformat(raw_date) for (_, raw_date, _), rows in found.items() if rows}
        return of.difference(self.runtime.raw.of(OLDER).days(connection))


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    home = tmp_path_factory.mktemp("backfills") / "home"
    options = SandboxOptions(seed=5, end_day=TODAY - timedelta(days=1), history_days=6, rate_limit=1_000_000)
    with pytest.MonkeyPatch.context() as patch, RunningSandbox(options) as sandbox:
        patch.setenv("FLUX_HOME", str(home))
        patch.setenv("FLUX_START_DATE", str(FIRST - timedelta(days=320)))
        settings.cache_clear()
        with Runtime() as runtime, dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance:
            patch.setenv("DAGSTER_HOME", str(dagster_home(runtime.settings)))
            with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(WORKSPACE)])) as context:
                found = Dagster(context, runtime, sandbox)
                found.connect("harbor", "sakura")
                yield found
    settings.cache_clear()


def keys(*connections: str, first: date = FIRST, last: date = LAST) -> list[str]:
    return [f"{connection}|{day}" for connection in connections for day in each_day(first, last)]


class Dying:
    """Time, for a process that is ended while it sleeps."""

    @staticmethod
    def sleep(_seconds: float) -> None:
        raise SystemExit


def days_of(tags: Mapping[str, str]) -> list[date]:
    """Return the business dates of a run's range."""
    first, last = (date.fromisoformat(tags[name].rpartition("|")[2]) for name in (names.RANGE_START, names.RANGE_END))
    return each_day(first, last)


RAW, LINES = names.raw_orders("square"), names.provider_transactions("square")
DAYS = each_day(FIRST, LAST)


def test_from_a_jobs_page_and_executed_again(dagster: Dagster) -> None:
    since = datetime.now(UTC)
    ended = dagster.finish_backfill(dagster.from_job_page("sync_square", keys(HARBOR)))
    assert ended["status"] == "COMPLETED_SUCCESS"
    (run,) = ended["runs"]
    assert dagster.recorded(run["runId"], RAW) == dagster.recorded(run["runId"], LINES) == set(keys(HARBOR))
    assert dagster.landed(HARBOR, since) == DAYS
    assert dagster.lines(HARBOR) == set(DAYS)

    params = {"parentRunId": run["runId"], "strategy": "ALL_STEPS", "useParentRunTags": True}
    again = dagster.finish_run(dagster.ask(AGAIN_RUN, params=params)["run"]["runId"])
    assert again.is_success
    assert dagster.recorded(again.run_id, LINES) == set(keys(HARBOR))


def test_from_the_page_of_a_job_that_collects_feeds(dagster: Dagster) -> None:
    ended = dagster.finish_backfill(dagster.from_job_page("collect_square", keys(SAKURA)))
    assert ended["status"] == "COMPLETED_SUCCESS"
    (run,) = ended["runs"]
    assert dagster.recorded(run["runId"], names.provider_table("square", "payments")) == set(keys(SAKURA))
    assert dagster.runtime.raw.of("payments").days(SAKURA) == DAYS


def test_from_the_assets_page(dagster: Dagster) -> None:
    since = datetime.now(UTC)
    ended = dagster.finish_backfill(dagster.from_asset_page([RAW, LINES], keys(SAKURA)))
    assert ended["status"] == "COMPLETED_SUCCESS"
    assert dagster.landed(SAKURA, since) == DAYS
    assert dagster.lines(SAKURA) == set(DAYS)


def test_a_run_that_is_launched_with_a_range(dagster: Dagster) -> None:
    since = datetime.now(UTC)
    asked = keys(HARBOR)
    run = dagster.finish_run(dagster.launch("sync_square", {names.RANGE_START: asked[0], names.RANGE_END: asked[-1]}))
    assert run.is_success
    assert dagster.recorded(run.run_id, LINES) == set(asked)
    assert dagster.landed(HARBOR, since) == DAYS


def test_a_run_whose_tags_name_one_partition_of_its_range_fails_and_lands_nothing(dagster: Dagster) -> None:
    """As every run of a job's backfill was tagged; such a run can still be executed again."""
    since = datetime.now(UTC)
    asked = keys(HARBOR)
    run = dagster.finish_run(
        dagster.launch(
            "sync_square",
            {
                names.RANGE_START: asked[0],
                names.RANGE_END: asked[-1],
                "dagster/partition/connection": HARBOR,
                "dagster/partition/day": str(FIRST),
            },
        )
    )
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert dagster.landed(HARBOR, since) == []
    failures = dagster.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    data = failures[0].event_log_entry.get_dagster_event().step_failure_data
    assert data.user_failure_data is not None
    assert "Launch a new run or backfill" in str(data.user_failure_data.description)


def test_what_a_schedule_asks_for(dagster: Dagster) -> None:
    """As the schedule's own page does: it is evaluated in the code server, and its runs are launched."""
    (late,) = dagster.connect("fjord")
    closed = f"{late}|{FIRST - timedelta(days=1)}"
    one = dagster.launch("sync_square", {names.RANGE_START: closed, names.RANGE_END: closed})
    assert dagster.finish_run(one).is_success
    selector = {
        "repositoryName": "__repository__", "repositoryLocationName": "flux_pipelines", "scheduleName": "square_daily",
    }  # fmt: skip
    since = datetime.now(UTC)
    at = datetime(TODAY.year, TODAY.month, TODAY.day, 16, 10, tzinfo=UTC) - timedelta(days=1)
    told = dagster.ask(DRY_RUN, selector=selector, at=at.timestamp())["evaluationResult"]
    assert told["error"] is None
    requests = [{tag["key"]: tag["value"] for tag in one["tags"]} for one in told["runRequests"]]
    (wanted,) = (tags for tags in requests if tags[names.CONNECTION_TAG] == late)
    days = days_of(wanted)
    assert len(days) > 1
    shown = (names.CONNECTION_TAG, names.RANGE_START, names.RANGE_END)
    run = dagster.finish_run(dagster.launch("sync_square", {key: wanted[key] for key in shown}))
    assert run.is_success
    assert dagster.landed(late, since) == days


def test_dagsters_own_command_line(dagster: Dagster) -> None:
    """`dagster job backfill`, which makes a run of every partition."""
    since = datetime.now(UTC)
    asked = keys(HARBOR, last=FIRST + timedelta(days=1))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dagster", "job", "backfill", "-w", str(WORKSPACE), "-j", "sync_square"),
            *("--partitions", ",".join(asked), "--noprompt"),
        ],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = [run for run in dagster.instance.get_runs(limit=2) if not run.is_finished]
    assert len(runs) == 2, done.stdout
    assert all(dagster.finish_run(run.run_id).is_success for run in runs)
    assert dagster.landed(HARBOR, since) == each_day(FIRST, FIRST + timedelta(days=1))
    assert {key for run in runs for key in dagster.recorded(run.run_id, LINES)} == set(asked)


def test_a_jobs_backfill_that_failed_in_part_is_executed_again_from_failure(dagster: Dagster) -> None:
    (lost,) = dagster.connect("fjord")
    httpx.post(f"{dagster.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "fjord"}).raise_for_status()
    ended = dagster.finish_backfill(dagster.from_job_page("sync_square", keys(HARBOR, lost)))
    assert ended["status"] == "COMPLETED_FAILED"
    assert sorted(run["status"] for run in ended["runs"]) == ["FAILURE", "SUCCESS"]

    dagster.connect("fjord")
    since = datetime.now(UTC)
    parent = next(iter(dagster.instance.get_backfills(limit=1))).backfill_id
    again = dagster.ask(AGAIN_BACKFILL, params={"parentRunId": parent, "strategy": "FROM_FAILURE"})["backfillId"]
    ended = dagster.finish_backfill(again)
    assert ended["status"] == "COMPLETED_SUCCESS", ended
    assert [run["status"] for run in ended["runs"]] == ["SUCCESS"], "what had succeeded is not done again"
    assert dagster.landed(lost, since) == DAYS
    assert dagster.landed(HARBOR, since) == []
    assert set(DAYS) <= dagster.lines(lost)


def test_a_backfill_of_many_runs_asks_for_every_partition_though_the_daemon_dies_on_the_way(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partitions are named day by day, and cut into ranges connection by connection; 25 are submitted at once."""
    more = ["square:more", "square:most"]
    dagster.instance.add_dynamic_partitions("square_connections", more)
    first = LAST - timedelta(days=310)
    asked = [f"{key}|{day}" for day in each_day(first, LAST) for key in (HARBOR, SAKURA, *more)]
    backfill = dagster.from_job_page("sync_square", asked)
    with monkeypatch.context() as patch:
        patch.setattr(job_backfill, "time", Dying)  # it sleeps between chunks
        with pytest.raises(SystemExit):
            dagster.daemon_round(launch=False)
    dagster.daemon_round(launch=False)
    runs = dagster.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
    assert len(runs) > 40
    connections = {run.run_id: run.tags[names.RANGE_START].rpartition("|")[0] for run in runs}
    submitted = [f"{connections[run.run_id]}|{day}" for run in runs for day in days_of(run.tags)]
    assert sorted(submitted) == sorted(asked)
    for run in runs:
        dagster.instance.report_run_canceled(run)
