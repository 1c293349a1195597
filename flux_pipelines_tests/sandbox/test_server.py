from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines_tests.sandbox.conftest import END_DAY, Square
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox, options_from, serve

Start = Callable[..., RunningSandbox]
SMALL = SandboxOptions(history_days=1, end_day=END_DAY)


def test_a_child_process_serves_the_same_world_and_ends_with_the_context() -> None:
    with RunningSandbox(SMALL, process=True) as child, RunningSandbox(SMALL) as thread:
        there = httpx.get(f"{child.url}/sandbox/truth").json()
        assert there == httpx.get(f"{thread.url}/sandbox/truth").json()
        with pytest.raises(RuntimeError, match="another process"):
            _ = child.world
        url = child.url
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz")


STARTER = """
import sys, time
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
sandbox = RunningSandbox(SandboxOptions(history_days=1), process=True).__enter__()
print(sandbox.url, flush=True)
time.sleep(60)
"""


def test_a_child_process_does_not_outlive_whoever_started_it() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    url = starter.stdout.readline().strip()
    assert httpx.get(f"{url}/healthz").status_code == 200
    os.kill(starter.pid, signal.SIGKILL)
    starter.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            return
        time.sleep(0.1)
    pytest.fail("the sandbox is still there")


def test_what_cannot_be_served_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot listen"):
        serve(SMALL, port=taken.getsockname()[1])
    with pytest.raises(ConfigurationError, match="no fault is called 'fire'"):
        serve(replace(SMALL, faults="fire=1"), port=0)
    with pytest.raises(ConfigurationError, match=r"has no items\.csv"):
        serve(replace(SMALL, orders=tmp_path), port=0)
    with (
        pytest.raises(ConfigurationError, match=r"has no items.csv"),
        RunningSandbox(replace(SMALL, orders=tmp_path), process=True),
    ):
        pass


def test_listens_on_loopback_alone() -> None:
    with RunningSandbox(SMALL) as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")


def test_options_come_from_plain_values(tmp_path: Path) -> None:
    options = options_from({"orders": str(tmp_path), "end_day": "2026-11-02", "seed": 4})
    assert (options.orders, options.end_day, options.seed) == (tmp_path, END_DAY, 4)
    with pytest.raises(ConfigurationError, match="end_day is not a date"):
        options_from({"end_day": "yesterday"})


def test_a_test_makes_things_happen(start: Start) -> None:
    sandbox = start(history_days=6)
    square = Square(sandbox)
    post = lambda path, **body: square.http.post(f"/sandbox/{path}", json=body)  # noqa: E731
    where = square.locations[0]

    def fetch(order_id: str) -> dict[str, object]:
        return square.order(order_id)

    sold = fetch(post("orders/sell", location_id=where).json()["order_id"])
    assert sold["created_at"] == sold["updated_at"] == "2026-11-04T12:00:00.000Z"
    late = fetch(post("orders/late", location_id=where, hours=30).json()["order_id"])
    assert (late["created_at"], late["updated_at"]) == ("2026-11-03T06:00:00.000Z", "2026-11-04T12:00:00.000Z")
    edited = post("orders/edit", order_id=sold["id"], add_units=2).json()
    assert fetch(edited["order_id"])["total_money"] != sold["total_money"]
    assert fetch(edited["order_id"])["updated_at"] > sold["updated_at"]  # type: ignore[operator]
    online = next(o for o in square.everything(ids=square.locations[:1]) if "version" in o)
    post("orders/edit", order_id=online["id"])
    assert fetch(online["id"])["version"] == online["version"] + 1
    refund = fetch(post("orders/refund", order_id=sold["id"]).json()["order_id"])
    assert refund["returns"][0]["source_order_id"] == sold["id"]  # type: ignore[index]
    waiting = square.http.get("/sandbox/orders?merchant=harbor&state=OPEN&limit=1").json()["orders"][0]["order_id"]
    done = fetch(post("orders/complete", order_id=waiting).json()["order_id"]) if waiting else {}
    assert (done["state"], done["closed_at"]) == ("COMPLETED", "2026-11-04T12:00:00.000Z")
    bad = [fetch(post("orders/malformed", kind=k).json()["order_id"]) for k in ("types", "totals", "currency")]
    assert bad[0]["line_items"] == "not a list"
    assert bad[1]["total_money"]["amount"] == bad[1]["tenders"][0]["amount_money"]["amount"] + 1  # type: ignore[index]
    assert bad[2]["total_money"]["currency"] == "XQX"  # type: ignore[index]
    post("locations/timezone", location_id=where, timezone="Mars/Olympus")
    zones = {x["id"]: x["timezone"] for x in square.http.get("/v2/locations").json()["locations"]}
    assert zones[where] == "Mars/Olympus"
    found = square.everything("updated_at", [where])
    assert {sold["id"], late["id"], refund["id"], online["id"]} <= {order["id"] for order in found}


def test_mistakes_in_control_calls_are_explained(start: Start) -> None:
    http = httpx.Client(base_url=start().url)
    for path, body, words in (
        ("tokens", {"merchant": "nobody"}, "It has: harbor"),
        ("tokens", {}, "`merchant` is missing"),
        ("orders/edit", {"order_id": 5}, "`order_id` must be text"),
        ("orders/late", {"hours": "5"}, "`hours` must be a number"),
        ("orders/complete", {"order_id": "x"}, "no order 'x'"),
        ("faults", {"faults": "fire=1"}, "Known faults: error500"),
    ):
        answer = http.post(f"/sandbox/{path}", json=body)
        assert answer.status_code == 400
        assert words in answer.json()["error"]
    assert http.post("/sandbox/faults", content=b"[1]").status_code == 400
    assert http.get("/sandbox/truth?from=yesterday").status_code == 400


def test_truth_over_http_is_the_worlds(start: Start) -> None:
    sandbox = start()
    query = {"merchant": "harbor", "from": "2026-11-01", "to": "2026-11-01", "cutoff_hour": "4"}
    told = httpx.get(f"{sandbox.url}/sandbox/truth", params=query).json()
    assert {day["business_date"] for day in told["days"]} == {"2026-11-01"}
    assert told["totals"]["USD"]["net"] == sum(day["net"] for day in told["days"])
    assert len(told["days"]) == 11
