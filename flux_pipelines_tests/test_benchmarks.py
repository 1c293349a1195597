"""The benchmarks measure what they say: the server gives every order exactly once, and contenders make the same rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bulk, harness
from benchmarks.dataset import CLOSED_AFTER_MS, Orders
from benchmarks.harness import ROOT, Contender, Target
from benchmarks.scenarios import SCENARIOS, _most_in_window
from benchmarks.server import Refusal, Square

HEADERS = {b"authorization": b"Bearer t", b"square-version": b"2026-09-16"}
DAY = date(2026, 2, 2)


@pytest.fixture(scope="module")
def square() -> Square:
    return Square(Orders.make(1300, days=2, first_day=DAY, locations=3))


def ask(square: Square, method: str, target: str, body: Any = None) -> Any:
    return json.loads(b"".join(square.answer(method, target, HEADERS, json.dumps(body).encode())))


def search(square: Square, start: datetime, end: datetime, places: list[str], basis: str = "created_at") -> list[Any]:
    """Follow the cursor of one window, both ends of which are included."""
    span = {"start_at": start.isoformat(), "end_at": end.isoformat()}
    query: dict[str, Any] = {
        "filter": {"date_time_filter": {basis: span}, "state_filter": {"states": ["COMPLETED"]}},
        "sort": {"sort_field": basis.upper(), "sort_order": "ASC"},
    }
    asked = {"location_ids": places, "limit": 1000, "query": query}
    found: list[Any] = []
    while True:
        page = ask(square, "POST", "/v2/orders/search", asked)
        assert len(page.get("orders", [])) <= 500
        found += page.get("orders", [])
        if "cursor" not in page:
            return found
        asked["cursor"] = page["cursor"]


def test_slices_of_any_cut_give_every_order_once(square: Square) -> None:
    places = list(square.orders.locations)
    bounds = [datetime(2026, 2, 2, 5, tzinfo=UTC) + timedelta(hours=h) for h in (0, 9.5, 9.75, 20, 31.123, 48)]
    ids = []
    for start, end in pairwise(bounds):
        for chosen in ([places[1]], [places[0], places[2]]):
            ids += [o["id"] for o in search(square, start, end - timedelta(milliseconds=1), chosen)]
    whole = search(square, bounds[0], bounds[-1], places)
    assert sorted(ids) == [order["id"] for order in whole]
    assert len(set(ids)) == square.orders.count


def test_pages_hold_the_same_orders_as_the_search(square: Square) -> None:
    pages, number = [], 0
    while number is not None:
        answer = ask(square, "GET", f"/pages?page={number}")
        pages += answer["orders"]
        number = answer["next"]
    far = datetime(2027, 1, 1, tzinfo=UTC)
    assert pages == search(square, datetime(2026, 1, 1, tzinfo=UTC), far, list(square.orders.locations))


def test_closing_times_are_found_by_closing_time(square: Square) -> None:
    made = datetime.fromtimestamp(square.orders.times[700] / 1000, UTC)
    closed = made + timedelta(milliseconds=CLOSED_AFTER_MS)
    (found,) = search(square, closed, closed, list(square.orders.locations), "closed_at")
    assert datetime.fromisoformat(found["closed_at"]) == closed
    assert datetime.fromisoformat(found["created_at"]) == made
    assert ask(square, "POST", "/v2/orders/batch-retrieve", {"order_ids": [found["id"], "unknown"]}) == {
        "orders": [found]
    }


def test_orders_add_up_and_are_about_as_big_as_real_ones() -> None:
    orders = Orders.make(2000)
    read = json.loads(b"[" + bytes(orders.slice(0, 2000)) + b"]")
    for order in read:
        lines = sum(line["total_money"]["amount"] for line in order["line_items"])
        assert lines + order["total_tip_money"]["amount"] == order["total_money"]["amount"]
        assert order["total_money"]["amount"] == sum(t["amount_money"]["amount"] for t in order["tenders"])
    assert sum(order["total_money"]["amount"] for order in read) == orders.total
    assert sum(len(order["line_items"]) for order in read) == orders.lines
    assert 2.9 < orders.lines / orders.count < 3.1
    assert 2800 < orders.bytes / orders.count < 3600


def test_orders_that_are_not_held_are_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Orders.make(600)
    monkeypatch.setattr("benchmarks.dataset.HELD", 0)
    built = Orders.make(600)
    assert not built.buffer
    assert bytes(built.slice(100, 600)) == bytes(held.slice(100, 600))


@pytest.mark.parametrize(
    "change",
    [{"location_ids": []}, {"location_ids": ["LOTHER"]}, {"limit": 1001}, {"query": {"sort": {}, "filter": {}}}],
)
def test_the_server_refuses_what_square_refuses(square: Square, change: dict[str, Any]) -> None:
    span = {"start_at": "2026-02-02T00:00:00Z", "end_at": "2026-02-03T00:00:00Z"}
    good = {
        "location_ids": list(square.orders.locations),
        "query": {
            "filter": {"date_time_filter": {"created_at": span}},
            "sort": {"sort_field": "CREATED_AT", "sort_order": "ASC"},
        },
    }
    assert ask(square, "POST", "/v2/orders/search", good)["orders"]
    with pytest.raises(Refusal):
        ask(square, "POST", "/v2/orders/search", good | change)
    with pytest.raises(Refusal):
        square.answer("GET", "/v2/locations", {}, b"")


def test_contenders_make_the_same_rows_of_the_same_orders() -> None:
    with harness.server(1200, locations=2) as served:
        where = ("--url", served["url"], "--work", "{work}", "--first-day", served["first_day"])
        bare = Contender("bare", (sys.executable, "-m", "benchmarks.bare_loop", *where, "--locations", "2"))
        ours = Contender("flux", (sys.executable, "-m", "benchmarks.flux_load", *where))
        runs = harness.interleave([bare, ours], 1)
    (bare_run,), (our_run,) = runs["bare"], runs["flux"]
    assert bare_run.facts["orders"] == our_run.facts["orders"] == 1200
    assert bare_run.facts["rows"] == our_run.facts["rows"] > served["lines"]
    assert our_run.facts["proof"] == ["verified"]
    assert 0 < our_run.seconds < our_run.wall
    assert our_run.tree_peak_mib >= our_run.peak_mib > 50


def test_a_shop_backfilled_in_two_ways_is_stored_as_the_same_bytes() -> None:
    with bulk.sandbox(6) as url:
        # A plan that restores more than is spent: nothing waits.
        both = [bulk.contender(name, url, 6, days, restored=100_000) for name, days in (("bulk", 4), ("paged", 0))]
        runs = harness.interleave(both, 1)
    bulk.check_same(runs)
    (by_bulk,), (paged,) = runs["bulk"], runs["paged"]
    assert by_bulk.facts["orders"] > 100
    assert (by_bulk.facts["files"], paged.facts["files"]) == (1, 0)
    assert 0 < by_bulk.facts["points"] < paged.facts["points"]
    assert by_bulk.facts["requests"] > 0
    other = replace(paged, facts={**paged.facts, "raw_digest": "another"})
    with pytest.raises(RuntimeError, match="raw_digest"):
        bulk.check_same({**runs, "paged": [other]})
    short = replace(paged, facts={**paged.facts, "proof": ["short"]})
    with pytest.raises(RuntimeError, match="not whole"):
        bulk.check_same({**runs, "paged": [short]})


def test_a_contender_that_fails_is_no_result() -> None:
    broken = Contender("broken", (sys.executable, "-c", "raise SystemExit('it broke')"))
    with pytest.raises(RuntimeError, match="it broke"):
        harness.run(broken)


def test_targets_say_whether_they_are_met() -> None:
    assert str(Target("time", 1.2, 1.4)).startswith("PASS")
    assert str(Target("time", 1.5, 1.4)).startswith("FAIL")
    assert str(Target("speed", 19.0, 20.0, at_most=False)).startswith("FAIL")
    assert _most_in_window([0.0, 30.0, 59.9, 60.0, 90.1]) == 3


def test_the_readme_names_every_benchmark() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(SCENARIOS)
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(name in told for name in SCENARIOS)
    assert Path(ROOT / "benchmarks" / "peers" / "requirements-dlt.txt").exists()
