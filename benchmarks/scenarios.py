"""What is compared with what, and what is promised. Each function prints a table and tells whether its targets are met."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Contender, Run, Target, interleave, median, peer_python, report, run, server

_QUIET = {"PYTHONWARNINGS": "ignore"}
_WINDOW = 60.0


@dataclass(frozen=True)
class Size:
    """How much of it: the defaults are what the targets are for."""

    orders: int = 100_000
    rounds: int = 3
    days: int = 365
    seconds: float = 200.0
    peers: bool = True


def _ours(module: str, served: Mapping[str, Any], *more: str, name: str) -> Contender:
    where = ("--url", served["url"], "--work", "{work}", "--first-day", served["first_day"])
    return Contender(name, (sys.executable, "-m", f"benchmarks.{module}", *where, *more), _QUIET)


def _bare(served: Mapping[str, Any], *more: str, name: str = "bare loop") -> Contender:
    return _ours("bare_loop", served, "--locations", str(served["locations"]), *more, name=name)


def _dlt(served: Mapping[str, Any], kind: str) -> Contender:
    script = str(ROOT / "benchmarks" / "peers" / f"dlt_{kind}.py")
    return Contender(f"dlt {kind}", (peer_python("dlt"), script, "--url", served["url"], "--work", "{work}"))


def _check_same(runs: Mapping[str, Sequence[Run]], served: Mapping[str, Any]) -> None:
    """Whoever lost an order, or made other rows of them, has not run the same race."""
    for name, done in runs.items():
        for one in done:
            if one.facts["orders"] != served["orders"]:
                raise RuntimeError(f"{name} loaded {one.facts['orders']} of {served['orders']} orders")
    rows = {one.facts["rows"] for done in runs.values() for one in done if "rows" in one.facts}
    if len(rows) > 1:
        raise RuntimeError(f"the contenders made different numbers of rows: {sorted(rows)}")


def load(size: Size) -> bool:
    """100,000 orders into raw (lossless) and transactions: Flux, a bare loop of the same shape, dlt."""
    with server(size.orders) as served:
        contenders = [
            _ours("flux_load", served, "--no-verify", name="flux"),
            _bare(served),
            _bare(served, "--redact", name="bare loop, redacting"),
            _ours("flux_load", served, name="flux with proof"),
        ]
        runs = interleave(contenders, size.rounds)
        if size.peers:
            # dlt takes minutes a run and its figures hardly vary: one round of each is enough.
            runs |= interleave([_dlt(served, "default"), _dlt(served, "tuned")], 1)
    _check_same(runs, served)
    ours, bare = runs["flux"], runs["bare loop"]
    targets = [
        Target("time of the bare loop", median(ours, "seconds") / median(bare, "seconds"), 1.4),
        Target("peak memory", median(ours, "peak_mib"), 300, unit=" MiB"),
    ]
    if size.peers:
        for kind, bound in (("default", 20.0), ("tuned", 0.0)):
            ratio = median(runs[f"dlt {kind}"], "seconds") / median(ours, "seconds")
            if bound:
                targets.insert(0, Target("times as fast as dlt's default", ratio, bound, at_most=False))
            else:
                print(f"\nFlux is {ratio:.1f} times as fast as dlt tuned.")
    same_work = median(ours, "seconds") / median(runs["bare loop, redacting"], "seconds")
    print(f"\nFlux takes {same_work:.2f} times as long as a bare loop that takes out what is personal as well.")
    proof = median(runs["flux with proof"], "seconds") / median(ours, "seconds")
    print(f"The completeness proof makes the load take {proof:.2f} times as long.")
    return report("load", runs, targets, served)


def latency(size: Size) -> bool:
    """The same load with 150 ms added to each answer."""
    runs: dict[str, list[Run]] = {}
    with server(size.orders) as near, server(size.orders, delay_ms=150) as far:
        pair = [
            _ours("flux_load", near, "--no-verify", name="flux"),
            _ours("flux_load", far, "--no-verify", name="flux, 150 ms added"),
        ]
        runs |= interleave(pair, size.rounds)
        runs |= interleave([Contender("bare loop, 150 ms added", _bare(far).command)], 1)
    _check_same(runs, near)
    ratio = median(runs["flux, 150 ms added"], "seconds") / median(runs["flux"], "seconds")
    return report("latency", runs, [Target("time without the delay", ratio, 3.0)], near)


def memory(size: Size) -> bool:
    """Ten times the orders in a single partition, with the completeness proof."""
    with server(size.orders * 10) as served:
        runs = {"flux with proof": [run(_ours("flux_load", served, name="flux with proof"))]}
    _check_same(runs, served)
    peak = Target("peak memory", median(runs["flux with proof"], "peak_mib"), 1024, unit=" MiB")
    return report("memory", runs, [peak], served)


def imports(size: Size) -> bool:
    """Loading the code location beside importing Dagster, CPU seconds."""
    ours, floor = "import flux_pipelines.definitions", "import dagster"
    taken: dict[str, list[float]] = {ours: [], floor: []}
    subprocess.run(
        [sys.executable, "-c", ours], cwd=ROOT, check=True, env={**os.environ, **_QUIET}
    )  # writes .pyc files
    for _ in range(max(5, size.rounds)):
        for code in (ours, floor):
            child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **_QUIET})
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise RuntimeError(f"{code} failed")
            taken[code].append(usage.ru_utime + usage.ru_stime)
    for code, seconds in taken.items():
        print(f"  {code:<36} {statistics.median(seconds):6.2f} CPU s")
    ratio = statistics.median(taken[ours]) / statistics.median(taken[floor])
    return report("import", {}, [Target("CPU of importing dagster", ratio, 1.5)], taken)


def year(size: Size) -> bool:
    """A year of one connection through the whole chain, beside the empty chain in Dagster alone."""
    with server(size.days * 60, days=size.days, locations=1, first_day="2025-02-01") as served:
        days = ("--first-day", served["first_day"], "--days", str(size.days))
        empty = (sys.executable, "-m", "benchmarks.empty_chain", "--work", "{work}", *days, "--storage")
        contenders = [
            _ours("flux_year", served, "--days", str(size.days), name="flux, whole chain"),
            Contender("empty chain, Dagster", (*empty, "stock"), _QUIET),
            Contender("empty chain, our storage", (*empty, "flux"), _QUIET),
        ]
        runs = interleave(contenders, size.rounds)
    _check_same({"flux": runs["flux, whole chain"]}, served)
    whole, stock, own = (median(runs[contender.name], "seconds") for contender in contenders)
    print(
        f"\nThe project's storage lowers the floor to {own / stock:.2f} of it; Flux takes {whole / own:.2f} times that."
    )
    return report("year", runs, [Target("time of the empty chain in Dagster alone", whole / stock, 1.3)], served)


def limiter(size: Size) -> bool:
    """Two processes that share a home ask for one location as fast as they are let; measured at the sandbox."""
    home = Path(tempfile.mkdtemp(prefix="flux-bench-"))
    environment = {**os.environ, **_QUIET, "FLUX_HOME": str(home)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, flux = f"http://127.0.0.1:{port}", [sys.executable, "-m", "flux_pipelines.cli"]
    log = (home / "log").open("wb")
    sandbox = subprocess.Popen(
        [*flux, "sandbox", "--port", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    try:
        _wait_for(f"{url}/healthz")
        add = [*flux, "connections", "add", "square:bench", "--tenant", "bench", "--sandbox", url]
        subprocess.run(add, cwd=ROOT, env=environment, check=True, stdout=log, stderr=log)
        until = time.time() + size.seconds
        command = [sys.executable, "-m", "benchmarks.limiter_worker", "--home", str(home)]
        command += ["--connection", "square:bench", "--until", str(until)]
        workers = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            for _ in range(2)
        ]
        told = [json.loads(worker.communicate(timeout=size.seconds + 180)[0].splitlines()[-1]) for worker in workers]
        with urllib.request.urlopen(f"{url}/sandbox/stats?arrivals=1") as answer:
            seen = json.load(answer)
    finally:
        sandbox.terminate()
        sandbox.wait()
        log.close()
        shutil.rmtree(home, ignore_errors=True)
    arrivals = sorted(seen["keys"][told[0]["location"]]["arrivals"])
    limit, most = 500, _most_in_window(arrivals)
    whole = int((min(until, arrivals[-1]) - arrivals[0]) // _WINDOW)  # whole windows of saturation
    used = sum(at < arrivals[0] + whole * _WINDOW for at in arrivals) / (limit * whole) if whole else 0.0
    calls = [worker["calls"] for worker in told]
    print(f"\n  {len(arrivals)} requests in {arrivals[-1] - arrivals[0]:.0f} s, by process {calls}; "
          f"answers by status {seen['statuses']}")  # fmt: skip
    targets = [
        Target("most requests in any 60 s", most, limit, unit=""),
        Target("requests refused with 429", seen["statuses"].get("429", 0), 0, unit=""),
        Target("of the limit used", used * 100, 95, at_most=False, unit=" %"),
    ]
    return report("limiter", {}, targets, {"calls": calls, "arrivals": arrivals, "windows": whole})


def webhooks(size: Size) -> bool:
    """Signed events verified and stored by a gateway, beside the same gateway that only answers 200."""
    from benchmarks.webhooks import measure

    return measure(size.rounds)


def attack(_: Size) -> bool:
    """Deep, long, wide, slow and endless input to a gateway: its memory, and its health beside a quiet one."""
    from benchmarks.attack import measure

    return measure()


def bulk(size: Size) -> bool:
    """A year of one Shopify shop by bulk operations, beside page by page: same client, same engine, same bytes."""
    from benchmarks.bulk import measure

    return measure(size.days, size.rounds)


def _most_in_window(arrivals: Sequence[float]) -> int:
    most, recent = 0, deque[float]()
    for at in arrivals:
        recent.append(at)
        while recent[0] <= at - _WINDOW:
            recent.popleft()
        most = max(most, len(recent))
    return most


def _wait_for(url: str) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"{url} does not answer")


SCENARIOS: dict[str, Callable[[Size], bool]] = {
    "load": load,
    "latency": latency,
    "memory": memory,
    "import": imports,
    "year": year,
    "limiter": limiter,
    "webhooks": webhooks,
    "attack": attack,
    "bulk": bulk,
}
