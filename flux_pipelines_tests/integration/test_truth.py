"""Sandbox truth equals the lake for every table: three providers, three currencies, clocks that change, failures on the way.

`TRUTH_DAYS=365` adds a long run, with failures off and on: see CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import resource
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine

from flux_pipelines.lake import session
from flux_pipelines_tests.integration.conftest import Flux
from flux_pipelines_tests.integration.truth_changes import Changes
from flux_pipelines_tests.integration.truth_home import SyncedHome, synced_home
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

# Clocks go back in Helsinki on 25 October, in America on 1 November.
FIRST, LAST = date(2026, 10, 24), date(2026, 11, 3)
NOW = datetime(2026, 11, 4, 14, 2, tzinfo=UTC)  # the fourth has begun at every store
#: With what they are connected; one of the shops is read page by page, however many days are asked for.
MERCHANTS: dict[str, dict[str, Any]] = {
    "sakura": {},
    "fjord": {},
    "harbor-kitchen": {},
    "harbor-shop": {},
    "fjord-shop": {"bulk_days": 0},
}
FAULTS = "error500=0.03,error429=0.03,html=0.02,truncate=0.02,cursor=0.2"
TABLES = {
    *("transactions", "transactions, orders", "transactions, voids", "daily_sales", "daily_item_demand", "tie_out"),
    *("payments", "products", "locations", "inventory_levels", "time_entries"),
    *("reported_sales", "reported_sales, asked for"),
}
FIGURES = ("net", "tax", "tips", "gift_cards", "rounding", "total")


def assert_truth(home: SyncedHome) -> None:
    """Nothing that is compared differs, and of everything there was something to compare."""
    findings = home.compare()
    assert findings.wrong == [], "\n".join(findings.wrong)
    assert {table for table, rows in findings.compared.items() if rows} >= TABLES


def ask(home: SyncedHome, query: str) -> list[tuple[Any, ...]]:
    with session(home.runtime.lake) as database:
        return database.execute(query).fetchall()


def figures(home: SyncedHome) -> dict[tuple[str, str, date, str], Any]:
    """What every store's business date comes to."""
    return {
        (key, place, day, figure): amount
        for key, place, day, *amounts in ask(
            home, f"select connection, location_id, business_date, {', '.join(FIGURES)} from daily_sales"
        )
        for figure, amount in zip(FIGURES, amounts, strict=True)
    }


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_table_is_the_truth_whatever_fails_and_whatever_changes(tmp_path: Path) -> None:
    days = (LAST - FIRST).days + 1
    # The sandbox's clock stands still: card fees that become known meanwhile would not be in what was fetched before.
    options = SandboxOptions(
        seed=5, history_days=days, end_day=LAST, rate_limit=1_000_000, faults=FAULTS, clock=lambda: NOW
    )
    with (
        time_machine.travel(NOW),
        RunningSandbox(options) as sandbox,
        synced_home(tmp_path, sandbox.url, FIRST, Flux.forecast_url) as home,
    ):
        for handle in MERCHANTS:
            home.connect(handle, FIRST, LAST, **MERCHANTS[handle])
        (report,) = home.sync()
        assert report.failures == []
        assert report.retries > 5
        assert_truth(home)
        assert ask(home, "select count(*) from restatements") == [(0,)]
        before = figures(home)

        for handle in MERCHANTS:
            Changes(sandbox.world, handle, [FIRST + timedelta(days=n) for n in range(days)]).make()
        home.lengthen(LAST + timedelta(days=1))  # where a return is an order of its own, it is today's
        (report,) = home.sync()
        assert report.failures == []
        assert_truth(home)
        after = figures(home)
        changed = {
            key: (before.get(key, 0), after.get(key, 0))
            for key in before.keys() | after.keys()
            if key[2] <= LAST and before.get(key, 0) != after.get(key, 0)
        }
        assert len(changed) > 150
        restated = ask(
            home,
            "select connection, location_id, business_date, figure, amount_before, amount_after from restatements",
        )
        assert len(restated) == len(changed)
        assert {tuple(row[:4]): tuple(row[4:]) for row in restated} == changed

        prints = home.fingerprints()
        assert len(prints) > 20
        (report,) = home.sync()
        assert report.failures == []
        assert home.fingerprints() == prints

        injected = sandbox.world.faults.injected
        assert {"error500", "error429", "html", "truncate"} <= set(
            injected
        )  # few requests have a cursor to declare dead
        assert sum(injected.values()) > 50
        searched, found = home.personal()
        assert found == []
        assert len(home.people()) > 150
        assert searched > 10_000_000


# --- A year ---

LONG = int(os.environ.get("TRUTH_DAYS", "0"))
#: Stores of twelve: a quarter of what the others are asked for is as much again.
SHARE = {"harbor": 4}


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
@pytest.mark.skipif(not LONG, reason="TRUTH_DAYS says how many days the long run has")
@pytest.mark.parametrize("faults", ["", FAULTS], ids=["calm", "failing"])
def test_a_year_is_the_truth(tmp_path: Path, faults: str) -> None:
    last = datetime.now(UTC).date() - timedelta(days=6)  # since then, every card fee has become known
    options = SandboxOptions(seed=7, history_days=LONG, rate_limit=1_000_000, end_day=last)
    with (
        RunningSandbox(options, process=True) as sandbox,
        synced_home(tmp_path, sandbox.url, date(2021, 3, 1), Flux.forecast_url) as home,
    ):
        for handle in (*MERCHANTS, "harbor"):
            days = LONG // SHARE.get(handle, 1)
            home.connect(handle, last - timedelta(days=days - 1), last, **MERCHANTS.get(handle, {}))
        httpx.post(f"{sandbox.url}/sandbox/faults", json={"faults": faults}).raise_for_status()
        began = time.monotonic()
        reports = home.sync()
        synced = time.monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        assert [report.failures for report in reports] == [[]] * len(reports)
        findings = home.compare()
        compared = time.monotonic()
        searched, found = home.personal()
        print(
            f"\n{last - timedelta(days=LONG - 1)} to {last}, faults {faults or 'none'}:"
            f"\n  {sum(r.orders for r in reports)} orders, {sum(r.lines for r in reports)} lines, "
            f"{sum(r.requests for r in reports)} requests for orders, {sum(r.retries for r in reports)} repeated"
            f"\n  synced in {synced - began:.0f} s at {peak} MiB, compared in {compared - synced:.0f} s, "
            f"{searched >> 20} MiB searched in {time.monotonic() - compared:.0f} s"
            f"\n  rows compared: {dict(findings.compared)}"
            f"\n  rows: { ({name: ask(home, f'select count(*) from {name}')[0][0] for name in sorted(map(_view, home.runtime.lake.tables()))}) }"
            f"\n  differences: {findings.wrong or 'none'}; personal data: {found or 'none'}"
        )
        assert findings.wrong == [], "\n".join(findings.wrong)
        assert found == []


def _view(name: str) -> str:
    return name.replace("/", ".")
