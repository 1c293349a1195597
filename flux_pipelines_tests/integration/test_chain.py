"""The whole chain against the sandbox's own account of what happened, with faults, kills and lost permissions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from flux_pipelines.domain.money import from_minor
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.integration.conftest import END_DAY, FIRST, PIZZA, RANGE, Flux, FluxProcess, truth
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

MONEY = {
    "gross": "gross",
    "discounts": "discount",
    "net": "net",
    "tax": "tax",
    "tips": "tips",
    "service_charges": "service_charges",
    "gift_cards": "gift_cards",
    "refunds": "returns",
    "rounding": "rounding",
    "total": "total",
}


def assert_equals_truth(flux: Flux, sandbox: RunningSandbox, merchant: str, cutoff_hour: int = 0) -> None:
    """Every store and business date of `daily_sales` is what the sandbox says, to the cent; and none is missing."""
    rows = {
        (row["location_id"], row["business_date"][:10]): row
        for row in flux.ask(f"select * from daily_sales where connection = 'square:{merchant}'")
    }
    days = truth(sandbox, merchant, FIRST, END_DAY, cutoff_hour)["days"]
    expected = [day for day in days if day["orders"] or day["return_orders"] or day["voids"]]
    assert len(rows) == len(expected) > 0
    for day in expected:
        row = rows[day["location_id"], day["business_date"]]
        assert (row["orders"], row["returns"], row["voids"]) == (day["orders"], day["return_orders"], day["voids"]), day
        assert Decimal(row["units"]) == Decimal(day["units"])
        for column, name in MONEY.items():
            assert Decimal(row[column]) == from_minor(day[name], day["currency"]), (column, day)


def test_two_merchants_with_other_zones_and_currencies_equal_the_truth_and_a_second_sync_changes_nothing(
    flux: Flux, world: RunningSandbox
) -> None:
    as_a_user = FluxProcess(flux.home)
    late = json.dumps({"cutoff_hour": 4})
    as_a_user("connections", "add", "square:harbor", "--tenant", "harbor", "--sandbox", world.url, "--settings", late)
    flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
    said = as_a_user("sync", "square", "--sales-only", *RANGE)
    assert "net sales JPY" in said
    assert "net sales USD" in said
    assert as_a_user("sql", "select count(*) > 0 as there from daily_sales", "--format", "csv") == "there\nTrue\n"
    assert_equals_truth(flux, world, "harbor", cutoff_hour=4)
    assert_equals_truth(flux, world, "sakura")
    before = flux.contents()
    flux("sync", "square", "--sales-only", *RANGE)
    assert flux.contents() == before
    assert_no_secret_in_clear(flux, world)


def assert_no_secret_in_clear(flux: Flux, sandbox: RunningSandbox) -> None:
    """Search everything that was written for every secret there is: event log, run config, logs, state, lake."""
    with Runtime(Settings(home=flux.home)) as runtime:
        secrets = [
            secret.encode()
            for connection in runtime.state.connections.list()
            for name, secret in runtime.state.secrets.get(connection.key, purpose="test").items()
            if name.endswith(("token", "secret"))
        ]
    assert len(secrets) >= 4
    for path in flux.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    searched = json.dumps(httpx.get(f"{sandbox.url}/sandbox/stats").json()).encode()
    assert not any(secret in searched for secret in secrets)


@pytest.mark.long
def test_faults_dying_cursors_and_a_token_that_expires_leave_the_same_tables(tmp_path: Path) -> None:
    quiet = SandboxOptions(history_days=15, end_day=END_DAY)
    noisy = SandboxOptions(
        history_days=15,
        end_day=END_DAY,
        faults="error500=0.05,error429=0.05,truncate=0.02,html=0.02,cursor=0.1,disconnect=0.02,empty=0.02",
        token_lifetime=4,
    )
    contents = []
    for name, options in (("quiet", quiet), ("noisy", noisy)):
        with RunningSandbox(options) as sandbox:
            flux = FluxProcess(tmp_path / name)  # whose start is a part of the token's life
            flux("connections", "add", "square:harbor", "--tenant", "harbor", "--sandbox", sandbox.url)
            flux("sync", "square", "--sales-only", *RANGE)
            assert_equals_truth(flux, sandbox, "harbor")
            contents.append(flux.contents())
            stats = httpx.get(f"{sandbox.url}/sandbox/stats").json()
    assert contents[0] == contents[1]
    assert sum(stats["faults"].values()) > 0
    assert stats["token_refreshes"] > 0


@pytest.mark.long
def test_a_killed_backfill_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with RunningSandbox(SandboxOptions(history_days=30, end_day=END_DAY, faults="latency=0.15")) as sandbox:
        whole, killed = Flux(tmp_path / "whole"), Flux(tmp_path / "killed")
        for flux in (whole, killed):
            flux("connections", "add", "square:harbor", "--tenant", "harbor", "--sandbox", sandbox.url)
        first = END_DAY - timedelta(days=9)
        command = ("sync", "square", "--sales-only", "--from", str(first), "--to", str(END_DAY))
        whole(*command)
        process = subprocess.Popen(
            killed.command(*command), env=killed.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        landed = killed.home / "lake" / "raw" / "square" / "orders" / "harbor"
        deadline = time.monotonic() + 120
        while len(complete := sorted(landed.glob("*/manifest.json"))) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        complete = sorted(path.parent.name for path in landed.glob("*/manifest.json"))
        assert 3 <= len(complete) < 10
        httpx.post(f"{sandbox.url}/sandbox/stats/reset").raise_for_status()
        said = killed(*command)
        assert f"Resumed: of {len(complete)} partitions the orders were there already" in said
        oldest = min(
            date.fromisoformat(str(s["start_at"])[:10])
            for s in httpx.get(f"{sandbox.url}/sandbox/stats").json()["searches"]
            if s["field"] == "created_at"
        )
        assert oldest > date.fromisoformat(complete[-1]), "a complete day was fetched again"
        assert killed.contents() == whole.contents()


def test_one_of_three_revoked_does_not_hold_back_the_others(flux: Flux) -> None:
    with RunningSandbox(SandboxOptions(history_days=15, end_day=END_DAY)) as sandbox:
        for merchant in ("harbor", "sakura", "fjord"):
            flux("connections", "add", f"square:{merchant}", "--tenant", merchant, "--sandbox", sandbox.url)
        httpx.post(f"{sandbox.url}/sandbox/tokens/revoke", json={"merchant": "sakura"}).raise_for_status()
        said = flux.fails("sync", "square", "--sales-only", *RANGE)
        assert "square:sakura" in said
        assert "square:harbor" not in said
        assert "Reconnect" in said
        assert_equals_truth(flux, sandbox, "harbor")
        assert_equals_truth(flux, sandbox, "fjord")
        statuses = {c["connection"]: c["status"] for c in json.loads(flux("connections", "list", "--json"))}
        assert statuses == {"square:fjord": "active", "square:harbor": "active", "square:sakura": "needs_reauth"}
        again = ("connections", "add", "square:sakura", "--tenant", "sakura", "--sandbox", sandbox.url)
        assert "another account" in flux.fails(*again, "--merchant", "fjord")
        flux(*again)
        flux("sync", "square", "--sales-only", "--connection", "square:sakura", *RANGE)
        assert_equals_truth(flux, sandbox, "sakura")


@pytest.mark.long
@pytest.mark.skipif(not PIZZA.exists(), reason="../shared is not there")
def test_real_orders_of_two_months_to_the_cent_with_forecasts(tmp_path: Path) -> None:
    flux = Flux(tmp_path / "home", FLUX_START_DATE="2015-01-01")
    with RunningSandbox(SandboxOptions(orders=PIZZA)) as sandbox:
        flux("connections", "add", "square:pizza", "--tenant", "pizza", "--sandbox", sandbox.url)
        said = flux("sync", "square", "--sales-only", "--from", "2015-03-01", "--to", "2015-04-30")
    (row,) = flux.ask(
        "select count(distinct order_id) as orders, count(*) as lines, sum(net)::decimal(18,2)::varchar as net from transactions"
    )
    assert row == {"orders": 3639, "lines": 8253, "net": "139133.90"}
    assert "seasonal naive" in said
    products = flux.ask(
        "select product_id, min(status) as status, count(*) as rows, count(predicted_quantity) as predicted, "
        "max(reason) as reason from demand_forecasts where as_of = '2015-04-30' group by 1"
    )
    forecast = [p for p in products if p["status"] == "forecast"]
    assert len(forecast) > 80
    assert all((p["rows"], p["predicted"]) == (14, 14) for p in forecast)
    assert all((p["rows"], p["predicted"]) == (1, 0) and p["reason"] for p in products if p not in forecast)
    (accuracy,) = flux.ask(
        "select count(distinct horizon) as horizons, (sum(absolute_error) < sum(naive_absolute_error)) as better "
        "from forecast_accuracy where as_of = '2015-04-16'"
    )
    assert accuracy == {"horizons": 14, "better": True}
