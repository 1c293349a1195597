from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from flux_pipelines_tests.sandbox.conftest import Square, error_of, search_body
from flux_sandbox.options import SandboxOptions
from flux_sandbox.request_log import RequestLog, max_in_window
from flux_sandbox.server import RunningSandbox

Start = Callable[..., RunningSandbox]


@given(st.lists(st.floats(0, 300, allow_nan=False), max_size=60).map(sorted))
def test_the_busiest_window_is_found_exactly(arrivals: list[float]) -> None:
    slow = max((sum(1 for x in arrivals if at - 60.0 < x <= at) for at in arrivals), default=0)
    assert max_in_window(arrivals) == slow


def test_the_limit_slides_and_counts_each_location() -> None:
    traffic = RequestLog()
    assert all(traffic.arrive(["A"], at, 3) for at in (0.0, 1.0, 2.0))
    assert not traffic.arrive(["A", "B"], 59.9, 3)
    assert traffic.arrive(["B"], 59.95, 3)
    # At 61.5 the arrivals at 0 and 1 have left the window; the refused one has not.
    assert traffic.arrive(["A"], 61.5, 3)
    assert traffic.snapshot()["keys"]["A"]["max_in_window"] == 4


def test_one_request_too_many_is_429_for_its_location_alone(start: Start) -> None:
    square = Square(start(rate_limit=5))
    here, there = square.locations[:2]
    assert [square.search(search_body([here], limit=1)).status_code for _ in range(5)] == [200] * 5
    answer = square.search(search_body([here], limit=1))
    assert error_of(answer) == (429, "RATE_LIMIT_ERROR", "RATE_LIMITED")
    assert "retry-after" not in answer.headers
    assert square.search(search_body([there], limit=1)).status_code == 200
    assert square.search(search_body([here, there], limit=1)).status_code == 429
    stats = square.http.get("/sandbox/stats").json()
    assert stats["rate_limited"] == 2
    assert stats["keys"][here]["max_in_window"] == 7
    square.http.post("/sandbox/stats/reset")
    assert square.search(search_body([here], limit=1)).status_code == 200


def test_what_was_asked_is_on_record(start: Start) -> None:
    square = Square(start())
    body = search_body(square.locations[:1], "updated_at", limit=40)
    body["query"]["filter"]["date_time_filter"]["updated_at"]["start_at"] = "2026-11-01T04:00:00Z"
    page = square.search(body).json()
    square.search({**body, "cursor": page["cursor"]})
    square.search({"location_ids": square.locations[:1], "query": {"filter": "odd"}})
    stats = square.http.get("/sandbox/stats?arrivals=1").json()
    first, second, odd = stats["searches"]
    assert first["location_ids"] == square.locations[:1]
    assert (first["field"], first["start_at"]) == ("updated_at", "2026-11-01T04:00:00Z")
    assert (first["cursor"], second["cursor"]) == (False, True)
    assert first["returned"] == len(page["orders"])
    assert odd["status"] == 400
    assert stats["endpoints"] == {"orders_search": 3}
    log = stats["keys"][square.locations[0]]
    assert len(log["arrivals"]) == log["requests"] == sum(log["per_second"].values()) == 3


HAMMER = """
import json, sys, time, urllib.request
url, token, location, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
body = json.dumps({"location_ids": [location], "limit": 5}).encode()
sent = []
for _ in range(count):
    sent.append(time.time())
    try:
        urllib.request.urlopen(urllib.request.Request(url + "/v2/orders/search", body, headers)).read()
    except urllib.error.HTTPError as error:
        assert error.code == 429, error.code
    time.sleep(0.002)
print(json.dumps(sent))
"""


def test_arrivals_of_two_hammering_processes_are_measured_precisely() -> None:
    with RunningSandbox(SandboxOptions(history_days=1, rate_limit=100), process=True) as sandbox:
        import httpx

        http = httpx.Client(base_url=sandbox.url)
        token = http.post("/sandbox/tokens", json={"merchant": "fjord"}).json()["access_token"]
        where = http.get("/sandbox/merchants").json()["merchants"][2]["locations"][0]["id"]
        command = [sys.executable, "-c", HAMMER, sandbox.url, token, where, "150"]
        clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        sent = sorted(at for client in clients for at in json.loads(client.communicate()[0]))
        stats = http.get("/sandbox/stats?arrivals=1").json()
    seen = stats["keys"][where]
    assert seen["requests"] == seen["max_in_window"] == 300
    assert stats["rate_limited"] == 200
    # Each is logged after it was sent, and on average within a tenth of a second of it on a busy machine.
    delays = [arrived - left for arrived, left in zip(sorted(seen["arrivals"]), sent, strict=True)]
    assert min(delays) > -0.05
    assert sum(delays) / len(delays) < 0.1
