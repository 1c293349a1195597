"""`dagster dev` as somebody who knows Dagster starts it: in the project's folder, without `DAGSTER_HOME`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.cli.processes import answers
from flux_pipelines.sandbox.server import RunningSandbox
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.integration.conftest import END_DAY, Flux, truth

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LOADED = """{
  instance { runQueuingSupported info daemonHealth { allDaemonStatuses { daemonType required } } }
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message } ... on RepositoryLocation { repositories { assetNodes { id } } }
  } } } ... on PythonError { message } }
}"""
LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }"""
RUNS = """query ($tags: [ExecutionTag!]!) { runsOrError(filter: {tags: $tags}) { ... on Runs { results { runId status } } } }"""


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
        assert len(repository["assetNodes"]) == 7
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
    (row,) = flux.ask(
        "select count(distinct order_id) filter (kind = 'sale') as sales from square.transactions "
        f"where business_date = date '{END_DAY}'"
    )
    assert row["sales"] == sum(day["orders"] for day in truth(world, "sakura", END_DAY, END_DAY)["days"]) > 0
