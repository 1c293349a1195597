"""A home is started again: after the demo, beside a running `flux up`, after `kill -9`; by the command itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_pipelines.cli.demo import ACCOUNTS
from flux_pipelines.cli.processes import Processes, answers
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.integration.conftest import Flux, FluxProcess
from flux_pipelines_tests.integration.test_daemon import wait_for

#: A server that ignores being asked to end, as does what it has started; it says who they are.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, __file__])
    with open(sys.argv[1], "w") as told:
        told.write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
#: Starts it as `flux up` starts its servers.
PARENT = """
import sys
from pathlib import Path
from flux_pipelines.cli.processes import Processes
home, told = Path(sys.argv[1]), Path(sys.argv[2])
with Processes(home, "`flux up`") as processes:
    processes.start("stubborn", ["stubborn", str(told)], ready=lambda: told.exists() and told.read_text().count(" ") == 1)
    print("ready", flush=True)
    processes.wait()
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def processes() -> dict[int, tuple[int, int]]:
    """Return every process that has not ended, with its parent and its group."""
    listed = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split() for line in listed]
    return {int(pid): (int(parent), int(group)) for pid, parent, group, state in rows if not state.startswith("Z")}


def descendants(pid: int) -> set[int]:
    """Return what a process has started, and what that has started."""
    parents = {child: parent for child, (parent, _) in processes().items()}
    found, last = {pid}, 0
    while len(found) != last:
        last = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def test_nothing_outlives_a_killed_parent_and_its_home_is_free_again_then(tmp_path: Path) -> None:
    home, told = tmp_path / "home", tmp_path / "told"
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", PARENT, str(home), str(told)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        family = descendants(parent.pid)
        server, grandchild = (int(pid) for pid in told.read_text().split())
        assert {server, grandchild} < family
        with pytest.raises(ConfigurationError, match=f"in use by `flux up` .process {parent.pid} on"):
            Processes(home, "`flux demo`").__enter__()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        with Processes(home, "`flux up`"):  # at once: it waits until the home's servers have ended
            assert family & processes().keys() == set()


@contextmanager
def flux_up(flux: Flux, ports: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """Run `flux up --sandbox`, ready when its UI and gateway answer."""
    log = flux.home.parent / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            flux.command("up", "--sandbox", *ports), env=flux.environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: answers(int(ports[1])) and answers(int(ports[5])), process, log)
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_after_the_demo_flux_up_starts_once_and_again_after_kill_9(tmp_path: Path) -> None:
    start = datetime.now(UTC).date() - timedelta(days=5)
    flux = FluxProcess(tmp_path / "home", FLUX_START_DATE=str(start))
    flux("demo", "--no-ui", "--days", "3")

    def every_account_works() -> bool:
        told = flux("connections", "test")
        return all(f"{key}: works" in told for key, _ in ACCOUNTS)

    ui, sandbox, gateway = map(str, free_ports(3))
    ports = ("--port", ui, "--sandbox-port", sandbox, "--gateway-port", gateway)
    with flux_up(Flux(flux.home, FLUX_START_DATE=str(start), FLUX_FORECAST_URL="embedded"), ports) as first:
        assert every_account_works()

        for command in (("up", "--port", "1"), ("demo", "--no-ui")):
            assert f"in use by `flux up` (process {first.pid} on" in flux.fails(*command)
        day = str(datetime.now(UTC).date() - timedelta(days=3))
        flux("sync", "square", "--connection", "square:sakura", "--sales-only", "--from", day, "--to", day)
        wait_for((flux.home / "dagster" / "daemon.lock").exists)
        daemon = subprocess.run(
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(PROJECT_ROOT / "workspace.yaml")],
            env={**flux.environment, "DAGSTER_HOME": str(flux.home / "dagster")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert daemon.returncode == 1
        assert "has a daemon already" in daemon.stderr

        family = descendants(first.pid)
        groups = {group for pid, (_, group) in processes().items() if pid in family}
        assert len(family) > 8
        first.kill()
        first.wait()
        killed = time.monotonic()

        def gone() -> bool:
            return not any(pid in family or group in groups for pid, (_, group) in processes().items())

        wait_for(gone)
        assert time.monotonic() - killed < 30, "seconds, on a machine that has time"
    with flux_up(flux, ports) as second:
        assert every_account_works()
        family = descendants(second.pid)
    assert family & processes().keys() == set()
