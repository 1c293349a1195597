"""Runs contenders, each in a fresh process, in turns, and tells what they took. Imports nothing heavy.

A child's peak memory starts from its parent's at the time of the fork, so this process has to stay small.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ROOT / "benchmarks" / ".peers"
_SAMPLE_SECONDS = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Contender:
    """Something to run: a command that ends with one line of JSON (`measure.load`). `{work}` is a folder of its own."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What one run took.

    Args:
        seconds: the load alone, by the child's own clock: after imports, until the last commit.
        cpu_seconds: CPU of the same span, ended children included.
        wall: the whole process, interpreter start and imports included.
        process_cpu: its CPU, all its descendants included.
        peak_mib: the largest resident set that any one process of it had (`ru_maxrss`).
        tree_peak_mib: the largest sum of resident sets over its processes, sampled; shared pages count in each.
        facts: what the child told beside.

    """

    contender: str
    seconds: float
    cpu_seconds: float
    wall: float
    process_cpu: float
    peak_mib: float
    tree_peak_mib: float
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure that the project promises."""

    what: str
    figure: float
    bound: float
    at_most: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Tell whether the promise is kept."""
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    def __str__(self) -> str:
        verdict = "PASS" if self.met else "FAIL"
        side = "at most" if self.at_most else "at least"
        return f"{verdict}  {self.what}: {self.figure:,.2f}{self.unit} ({side} {self.bound:,g}{self.unit})"


def run(contender: Contender, *, timeout: float = 3600) -> Run:
    """Run a contender once and wait for it.

    Raises:
        RuntimeError: it failed, took too long, or told nothing.

    """
    work = Path(tempfile.mkdtemp(prefix="flux-bench-"))
    try:
        command = [part.replace("{work}", str(work)) for part in contender.command]
        environment = {**os.environ, **{k: v.replace("{work}", str(work)) for k, v in contender.environment.items()}}
        with (work / "out").open("w+b") as out, (work / "err").open("w+b") as err:
            started = time.perf_counter()
            child = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, env=environment)
            peak = 0.0
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                peak = max(peak, _tree_mib(child.pid))
                if time.perf_counter() - started > timeout:
                    child.kill()
                    os.wait4(child.pid, 0)
                    raise RuntimeError(f"{contender.name} took more than {timeout:.0f} s")
                time.sleep(_SAMPLE_SECONDS)
            wall = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            lines = (work / "out").read_text(errors="replace").splitlines()
            told = _last_json(lines)
            if child.returncode or told is None:
                shown = "\n".join((work / "err").read_text(errors="replace").splitlines()[-25:])
                raise RuntimeError(f"{contender.name} ended with {child.returncode}:\n{shown}")
        seconds, cpu = told.pop("seconds"), told.pop("cpu_seconds")
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
        mib = usage.ru_maxrss * unit / 1048576
        return Run(contender.name, seconds, cpu, wall, usage.ru_utime + usage.ru_stime, mib, max(peak, mib), told)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def interleave(contenders: Sequence[Contender], rounds: int) -> dict[str, list[Run]]:
    """Run A B C A B C..., so that a machine that slows down slows all of them; say each result as it comes."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            done = run(contender)
            runs[contender.name].append(done)
            print(
                f"  round {number + 1}/{rounds}  {contender.name:<24} {done.seconds:8.2f} s  {done.cpu_seconds:8.2f} CPU s"
                f"  {done.peak_mib:6.0f} MiB",
                flush=True,
            )
    return runs


def median(runs: Sequence[Run], figure: str) -> float:
    """Return the median of one figure of some runs."""
    return statistics.median(getattr(one, figure) for one in runs)


def report(name: str, runs: Mapping[str, Sequence[Run]], targets: Sequence[Target], facts: Mapping[str, Any]) -> bool:
    """Print the medians and the targets, write them to `results/`, and tell whether every target is met."""
    print()
    if runs:
        print(f"{name}: medians of {max(len(r) for r in runs.values())} runs each")
        print(
            f"  {'':<24} {'seconds':>8} {'CPU s':>8} {'peak MiB':>9} {'tree MiB':>9} {'process s':>10} {'orders/s':>9}"
        )
        for contender, done in runs.items():
            seconds = median(done, "seconds")
            orders = done[0].facts.get("orders")
            rate = f"{orders / seconds:9,.0f}" if orders else ""
            print(
                f"  {contender:<24} {seconds:8.2f} {median(done, 'cpu_seconds'):8.2f} {median(done, 'peak_mib'):9.0f} "
                f"{median(done, 'tree_peak_mib'):9.0f} {median(done, 'wall'):10.2f} {rate}"
            )
    for target in targets:
        print(f"  {target}")
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC)
    (RESULTS / f"{name}-{at:%Y%m%dT%H%M%SZ}.json").write_text(
        json.dumps(
            {
                "benchmark": name,
                "at": at.isoformat(),
                "machine": {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()},
                "facts": dict(facts),
                "runs": {contender: [asdict(one) for one in done] for contender, done in runs.items()},
                "targets": [{**asdict(target), "met": target.met} for target in targets],
            },
            indent=2,
            default=str,
        )
    )
    return all(target.met for target in targets)


@contextmanager
def server(
    orders: int, *, days: int = 1, locations: int = 10, first_day: str = "2026-02-02", delay_ms: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Run the pre-serialised server for the length of a `with` block; gives what it told, and its `url`."""
    command = [sys.executable, "-m", "benchmarks.server", "--orders", str(orders), "--days", str(days)]
    command += ["--locations", str(locations), "--first-day", first_day, "--delay-ms", str(delay_ms)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")
        facts = json.loads(line)
        facts["url"] = f"http://127.0.0.1:{facts['port']}"
        yield facts
    finally:
        process.terminate()
        process.wait()


def peer_python(peer: str) -> str:
    """Return the interpreter of a peer's own environment, made now if it is not there or its requirements changed."""
    wanted = (ROOT / "benchmarks" / "peers" / f"requirements-{peer}.txt").read_text()
    folder = PEERS / peer
    python, marker = folder / "bin" / "python", folder / "installed.txt"
    if not marker.exists() or marker.read_text() != wanted:
        print(f"  installing {peer} into an environment of its own ...", flush=True)
        PEERS.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*pip, "-r", str(ROOT / "benchmarks" / "peers" / f"requirements-{peer}.txt")], check=True, cwd=ROOT
        )
        marker.write_text(wanted)
    return str(python)


def _last_json(lines: Sequence[str]) -> dict[str, Any] | None:
    for line in reversed(lines):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return None


def _tree_mib(pid: int) -> float:
    """Return the sum of resident sets of a process and its descendants; 0 where there is no /proc."""
    pages, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, IndexError, ValueError):
            continue  # it has just ended, or this is not Linux
    return pages * _PAGE_BYTES / 1048576
