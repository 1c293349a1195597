"""Daemons as they are started: `dagster dev` without `DAGSTER_HOME` in the project's folder, and `flux up --sandbox`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flux_pipelines.cli.processes import answers
from flux_pipelines.definitions import defs
from flux_pipelines.defs import names
from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.lake import DeltaLake, object_store, session
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT, Settings, of_children
from flux_pipelines_tests.integration.conftest import END_DAY, Flux, truth
from flux_sandbox.server import RunningSandbox

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

LOADED = """{
  instance { runQueuingSupported info daemonHealth { allDaemonStatuses { daemonType required } } }
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message } ... on RepositoryLocation { repositories { assetNodes { id } } }
  } } } ... on PythonError { message } }
}"""
LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
RUNS = """query ($tags: [ExecutionTag!]!) { runsOrError(filter: {tags: $tags}) { ... on Runs { results { runId status jobName tags { key value } } } } }"""


@contextmanager
def dagster_dev(flux: Flux, folder: Path) -> Iterator[httpx.Client]:
    """Run `dagster dev` in a folder like the project's; yield a client of its API."""
    folder.mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copyfile(PROJECT_ROOT / name, folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "dagster-dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=flux.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: answers(port), process, log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)


def wait_for(done: Any, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    deadline = time.monotonic() + 180
    while not done():
        said = log.read_text(errors="replace")[-3000:] if log else ""
        assert process is None or process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def ask(client: httpx.Client, query: str, **variables: Any) -> Any:
    answer = client.post("/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_dagster_dev_without_a_home_uses_the_projects_instance_and_its_daemon_runs_a_backfill(
    flux: Flux, world: RunningSandbox, tmp_path: Path
) -> None:
    flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
    assert "DAGSTER_HOME" not in flux.environment
    with dagster_dev(flux, tmp_path / "project") as client:
        found = ask(client, LOADED)
        (location,) = found["workspaceOrError"]["locationEntries"]
        assert location["name"] == "flux_pipelines"
        assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
        (repository,) = location["locationOrLoadError"]["repositories"]
        assert len(repository["assetNodes"]) == len(list(defs.resolve_all_asset_specs()))
        assert found["instance"]["runQueuingSupported"]
        assert "event_log_storage: FluxEventLog" in found["instance"]["info"]
        needed = {d["daemonType"] for d in found["instance"]["daemonHealth"]["allDaemonStatuses"] if d["required"]}
        assert needed >= {"SCHEDULER", "SENSOR", "BACKFILL", "QUEUED_RUN_COORDINATOR", "MONITORING", "ASSET"}

        target = {
            "assetSelection": [{"path": ["square", "raw_orders"]}, {"path": ["square", "transactions"]}],
            "partitionNames": [f"square:sakura|{END_DAY}"],
        }
        launched: dict[str, str] = {}

        def launch() -> bool:
            launched.update(ask(client, LAUNCH, params=target)["launchPartitionBackfill"])
            # The connection's partition is there as soon as the sensor has looked for the first time.
            assert launched["__typename"] in ("LaunchBackfillSuccess", "PartitionKeysNotFoundError"), launched
            return launched["__typename"] == "LaunchBackfillSuccess"

        wait_for(launch)
        tags = [{"key": "dagster/backfill", "value": launched["backfillId"]}]

        def finished() -> bool:
            runs = ask(client, RUNS, tags=tags)["runsOrError"]["results"]
            assert not any(run["status"] in ("FAILURE", "CANCELED") for run in runs), runs
            return bool(runs) and all(run["status"] == "SUCCESS" for run in runs)

        wait_for(finished)
    assert (flux.home / "dagster" / "history").is_dir(), "the instance is not in the Flux home"
    printed = list((flux.home / "dagster" / "logs").glob("*/compute_logs/*.err"))
    assert any(file.stat().st_size for file in printed), "what a launched run prints is kept"
    (row,) = flux.ask(
        "select count(distinct order_id) filter (kind = 'sale') as sales from square.transactions "
        f"where business_date = date '{END_DAY}'"
    )
    assert row["sales"] == sum(day["orders"] for day in truth(world, "sakura", END_DAY, END_DAY)["days"]) > 0


@dataclass
class Up:
    """A running `flux up --sandbox`."""

    flux: Flux
    pid: int
    folder: Path
    sandbox: httpx.Client
    gateway: httpx.Client
    dagster: httpx.Client

    def happens(self, what: str, **details: Any) -> dict[str, Any]:
        """Let something happen in the sandbox, which tells the gateway by webhook."""
        answer = self.sandbox.post(f"/sandbox/orders/{what}", json=details)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        assert told["webhooks"] > 0
        return told

    def seconds_until(self, order_id: str, quantity: int) -> float:
        """Wait until core `transactions` has so many units of an order; return how long that took."""
        lake = DeltaLake(object_store(str(self.flux.home / "lake")))
        query = f"select sum(quantity) from transactions where order_id = '{order_id}'"
        began = time.monotonic()
        seen = None
        while True:
            if seen != (version := lake.version("transactions")):
                seen = version
                with session(lake, ["transactions"]) as database:
                    (row,) = database.execute(query).fetchall()
                if row[0] == quantity:
                    return time.monotonic() - began
            assert time.monotonic() - began < 120, (self.flux.home / "logs" / "dagster.log").read_text()[-6000:]
            time.sleep(0.5)


def trapped(folder: Path) -> Path:
    """Return a folder with a stray module of each name that a server or run could import; it tells that it was."""
    folder.mkdir()
    libraries = {name for name in packages_distributions() if name.isidentifier() and not name.startswith("flux_")}
    absent = {
        "h2",
        "brotli",
        "uvloop",
        "httptools",
        "wsproto",
        "simplejson",
        "sitecustomize",
        "usercustomize",
        "benchmarks",
    }
    standard = {"asyncio", "csv", "json", "logging", "multiprocessing", "socket", "sqlite3", "subprocess", "uuid"}
    for name in libraries | absent | standard:
        # Of an absent one, importing must fail as without it.
        (folder / f"{name}.py").write_text(
            f"open({str(folder)!r} + '/{name}.ran', 'w').close()\nraise ImportError('a trap')\n"
        )
    return folder


@contextmanager
def flux_up(flux: Flux) -> Iterator[Up]:
    """Run `flux up --sandbox` on free ports, in a folder that is full of traps."""
    probes = [socket.socket() for _ in range(3)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ui, sandbox, gateway = (probe.getsockname()[1] for probe in probes)
    for probe in probes:
        probe.close()
    log = flux.home.parent / "up.log"
    folder = trapped(flux.home.parent / "downloads")
    ports = ("--port", str(ui), "--sandbox-port", str(sandbox), "--gateway-port", str(gateway))
    with log.open("wb") as output:
        process = subprocess.Popen(
            flux.command("up", "--sandbox", *ports),
            cwd=folder,
            env=flux.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: answers(ui) and answers(gateway), process, log)
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{sandbox}", timeout=60) as world,
            httpx.Client(base_url=f"http://127.0.0.1:{gateway}", timeout=60) as pages,
            httpx.Client(base_url=f"http://127.0.0.1:{ui}", timeout=60) as dagster,
        ):
            yield Up(flux, process.pid, folder, world, pages, dagster)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def running_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `flux up` for the tests that only look at it, beside the one that sells: starting it is dear."""
    flux = Flux(
        tmp_path_factory.mktemp("up") / "home",
        FLUX_START_DATE=str(datetime.now(UTC).date() - timedelta(days=3)),
        FLUX_FORECAST_URL="embedded",
    )
    with flux_up(flux) as up:
        flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", str(up.sandbox.base_url))
        yield up


def a_store(up: Up) -> dict[str, Any]:
    merchants = up.sandbox.get("/sandbox/merchants").json()["merchants"]
    store: dict[str, Any] = next(one for one in merchants if one["handle"] == "sakura")["locations"][0]
    return store


def test_a_sale_an_edit_and_a_refund_are_in_core_transactions_within_a_minute_of_their_webhooks(running_up: Up) -> None:
    up, flux = running_up, running_up.flux
    assert up.gateway.get("/readyz").status_code == 200
    store = a_store(up)
    # The automation has looked once, so that its first look is not a part of what is measured.
    wait_for(lambda: "keep_core_tables" in (flux.home / "logs" / "dagster.log").read_text())

    seconds = {}
    sale = up.happens("sell", location_id=store["id"])
    seconds["a sale"] = up.seconds_until(sale["order_id"], 3)
    edited = up.happens("edit", order_id=sale["order_id"], add_units=2)
    seconds["an edit"] = up.seconds_until(edited["order_id"], 5)
    refund = up.happens("refund", order_id=sale["order_id"])
    seconds["a refund"] = up.seconds_until(refund["order_id"], -5)
    print(", ".join(f"{what}: {took:.1f} s" for what, took in seconds.items()), f"(load {os.getloadavg()[0]:.1f})")
    # Two processes must start for each; on a machine that others keep busy that takes longer, and is not ours.
    busy = max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))
    assert max(seconds.values()) < 60 * busy, seconds

    told = up.sandbox.get("/sandbox/webhooks/acknowledged").json()["acknowledged"]
    with Runtime(Settings(home=flux.home)) as runtime:
        wait_for(lambda: runtime.state.inbox.counts()["done"] == len(told))
    # What is beside sales (payments, stock, the tie-out) has runs of its own, which come when they come.
    wait_for(lambda: {run["status"] for run in sales_runs(up.dagster)} <= ENDED)
    runs = sales_runs(up.dagster)
    # The hourly schedule may come meanwhile: a run, and one of the core tables after it.
    hourly = sum(any(tag["key"] == "dagster/schedule_name" for tag in run["tags"]) for run in runs)
    assert len(runs) <= 8 + 2 * hourly, "few runs for a handful of events"
    assert {run["status"] for run in runs} == {"SUCCESS"}, runs
    assert "FAILURE" not in {run["status"] for run in every_run(up.dagster)}
    day = BusinessCalendar(store["timezone"]).date_of(datetime.fromtimestamp(sale["created_ms"] / 1000, UTC))
    (row,) = flux.ask(f"select sum(orders) as orders from daily_sales where business_date = date '{day}'")
    assert row["orders"] >= 1
    # The hourly schedule may have brought yesterday in meanwhile, of which forecasts are made.
    (row,) = flux.ask(f"select count(*) as rows from demand_forecasts where as_of >= date '{day}'")
    assert row["rows"] == 0, "today is not over: nothing must be forecast from it"
    (row,) = flux.ask(f"select count(*) as rows from forecast_accuracy where target_date >= date '{day}'")
    assert row["rows"] == 0, "nor measured by it"


def test_what_flux_up_starts_listens_on_the_loopback_address_alone(running_up: Up) -> None:
    listening = set()
    for process in psutil.Process(running_up.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found = process.net_connections(kind="inet")
            listening |= {one.laddr[:2] for one in found if one.status == psutil.CONN_LISTEN}
    assert len(listening) >= 4, "sandbox, gateway, Dagster UI and forecaster"
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1"}, listening


def test_nothing_is_imported_from_the_folder_that_flux_up_was_started_in(running_up: Up) -> None:
    def a_run_has_ended() -> bool:
        return any(run["status"] in ENDED for run in every_run(running_up.dagster))

    if not a_run_has_ended():  # those of the sale's test have, if it has come before
        running_up.happens("sell", location_id=a_store(running_up)["id"])
        wait_for(a_run_has_ended)
    assert len(list(running_up.folder.glob("*.py"))) > 100
    assert sorted(trap.stem for trap in running_up.folder.glob("*.ran")) == []
    assert "a trap" not in "".join(log.read_text() for log in (running_up.flux.home / "logs").iterdir())


def test_an_empty_entry_of_pythonpath_is_not_the_current_folder_for_those_that_we_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trapped(tmp_path / "downloads")
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}{tmp_path}{os.pathsep}")
    command = [sys.executable, "-c", "import json, sys; print(sys.path.count(sys.argv[1]))", str(tmp_path)]
    environment = {**os.environ, **of_children()}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"
    assert list(folder.glob("*.ran")) == []


def every_run(dagster: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(dagster, RUNS, tags=[])["runsOrError"]["results"]
    return found


def sales_runs(dagster: httpx.Client) -> list[dict[str, Any]]:
    """Return the runs that fetch orders, and those that keep the core tables up to date."""
    core = {"key": names.AUTOMATION_TAG, "value": "core"}
    return [run for run in every_run(dagster) if run["jobName"] == "sync_square" or core in run["tags"]]
