"""What a provider gets whose folder is merely there. Run by test_fourth_provider.py, in a process that finds Acorn."""

from __future__ import annotations

import html
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.domain.money import from_minor
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.providers.apps import app_kinds
from flux_pipelines.providers.registry import provider
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_now
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.transform import transform
from flux_pipelines_tests.contract.conftest import Connect, Played
from flux_pipelines_tests.gateway.people import Browser
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth

LINK = re.compile(r'class="button main" href="(http[^"]+)"')


def rows_of(played: Played, days: list[date]) -> dict[str, list[dict[str, Any]]]:
    """Return every table's rows of some days."""
    spec, runtime, connection = played.spec, played.runtime, played.connection
    manifests = [outcome.manifest for outcome in played.sync(days).values() if outcome.manifest is not None]
    work = Normalisation(spec, runtime.raw, connection, manifests)
    found = {"transactions": [row for batch in work.batches() for row in batch.to_pylist()]}
    source = runtime.source(connection)
    try:
        locations = source.locations()
        kept = read_now(SyncContext(source, connection, locations, runtime.raw.of("catalog"), spec))
    finally:
        source.close()
    assert kept.manifest is not None
    raw = {"orders": manifests, "catalog": [kept.manifest]}
    for table in spec.tables:
        if table.table == "transactions":
            continue
        made = transform(spec, table, connection, locations, runtime.raw.of(table.stream), raw[table.stream])
        assert made.bad == []
        found[table.table] = made.rows.to_pylist()
    assert work.bad == []
    return found


def test_acorns_tables_equal_the_truth_to_the_cent_in_two_currencies(connect: Connect) -> None:
    played = connect("acorn")
    rows = rows_of(played, played.days)
    world, merchant = played.sandbox.world, played.merchant
    told = {
        (day.location_id, day.business_date): day
        for day in truth(world, merchant=merchant.handle, first=played.days[0], last=played.days[-1])
    }
    assert {day.currency for day in told.values()} == {"USD", "JPY"}
    assert {(row["location_id"], row["business_date"]) for row in rows["transactions"]} == set(told)
    for where, day in told.items():
        here = [row for row in rows["transactions"] if (row["location_id"], row["business_date"]) == where]
        for name in ("net", "tax", "total"):
            assert sum((row[name] for row in here), Decimal(0)) == from_minor(getattr(day, name), day.currency), where
    ids = {row["order_id"] for row in rows["transactions"]}
    paid = [(sale, one) for sale in (world.sales[id_] for id_ in ids) for one in world.payments_of(sale)]
    expected = {}
    for sale, one in paid:
        sign = (one.status == "completed") * (-1 if one.kind == "refund" else 1)
        amounts = (sign * one.amount, sign * one.tip, -one.fee)
        expected[one.id, one.kind] = (sale.id, one.status, *(from_minor(x, sale.location.currency) for x in amounts))
    assert {kind for _, kind in expected} == {"payment", "refund"}
    assert {
        (row["payment_id"], row["kind"]): (row["order_id"], row["status"], row["amount"], row["tip"], row["fee"])
        for row in rows["payments"]
        if row["order_id"] in ids
    } == expected
    assert {(row["product_id"], row["product_name"], row["price"]) for row in rows["products"]} == {
        (item.id, item.name, from_minor(item.price, "USD")) for item in merchant.items
    }
    assert {(row["location_id"], row["timezone"], row["currency"]) for row in rows["locations"]} == {
        (place.id, place.timezone, place.currency) for place in merchant.locations
    }


def test_acorn_has_its_assets_jobs_schedules_and_sensors() -> None:
    from flux_pipelines.defs.code_location import build_definitions

    definitions = build_definitions()
    keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    made = {"raw_orders", "raw_catalog", "transactions", "payments", "products", "locations"}
    assert {key for key in keys if key.startswith("acorn/")} == {f"acorn/{name}" for name in made}
    graph = definitions.resolve_asset_graph()
    for core in ("transactions", "payments", "products", "locations"):
        node = next(graph.get(key) for key in graph.get_all_asset_keys() if key.to_user_string() == core)
        assert f"acorn/{core}" in {key.to_user_string() for key in node.parent_keys}
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    assert {"sync_acorn", "catalog_acorn", "derive_acorn"} <= jobs
    assert {"acorn_daily", "acorn_catalog"} <= {schedule.name for schedule in definitions.schedules or ()}
    sensors = {sensor.name for sensor in definitions.sensors or ()}
    assert {"acorn_changes", "acorn_connections", "acorn_watch", "acorn_webhooks"} <= sensors


def test_acorn_is_connected_in_the_browser(sandbox: RunningSandbox, tmp_path: Path) -> None:
    assert app_kinds()["acorn"].secrets == ("client_id", "client_secret")
    assert app_kinds()["acorn"].optional_secrets == ("webhook_signature_key",)
    settings = Settings(home=tmp_path / "home", allowed_people="ada@example.com")
    with Runtime(settings, patient=False) as runtime, RunningGateway(runtime) as gateway, Browser(gateway) as ada:
        register_at_sandbox(runtime, sandbox.url, gateway.url)
        ada.sign_in_as("google:ada", "ada@example.com", "Ada")
        offered = ada.get("/integrations").text
        assert 'href="/integrations/acorn/connect"' in offered
        assert "Acorn" in ada.get("/integrations/acorn/connect").text
        form = {"name": "stand", "tenant": "Acorn Stand", "cutoff_hour": "3"}
        leaving = LINK.search(ada.submit("/integrations/acorn/connect", form).text)
        assert leaving
        back = httpx.get(html.unescape(leaving[1])).headers["location"]
        assert ada.get(back).headers["location"] == "/connections/acorn:stand?said=connected"
        connection = runtime.state.connections.get("acorn:stand")
        assert (connection.status, connection.tenant, connection.cutoff_hour) == ("active", "Acorn Stand", 3)
        assert connection.account_id == sandbox.world.merchant("acorn-stand").id
        page = ada.get("/connections/acorn:stand").text
        assert all(store in page for store in ("Portland", "Kyoto"))
        httpx.post(f"{sandbox.url}/sandbox/webhooks/clear", json={"subscriptions": True}).raise_for_status()


def test_the_sandbox_serves_acorn_beside_the_others(sandbox: RunningSandbox) -> None:
    found = httpx.get(f"{sandbox.url}/sandbox/merchants").json()["merchants"]
    assert [one["handle"] for one in found if one["provider"] == "acorn"] == ["acorn-stand"]
    assert len({one["provider"] for one in found}) > 1
    token = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": "acorn-stand"}).json()["access_token"]
    headers = {"authorization": f"Bearer {token}", "acorn-version": provider("acorn").api_version}
    for prefix in ("", "/acorn"):
        stores = httpx.get(f"{sandbox.url}{prefix}/api/stores", headers=headers).json()["found"]
        assert [store["name"] for store in stores] == ["Portland", "Kyoto"]
    assert httpx.get(f"{sandbox.url}/sandbox/truth?merchant=acorn-stand&totals=1").json()["totals"]
