"""One connection poisoned in every stream, one with an unreadable manifest, one whose provider is down, beside a good one."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs import names
from flux_pipelines.defs.driver import dagster_home
from flux_pipelines.defs.runner import sync
from flux_pipelines.domain.money import from_minor
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.defs.conftest import END_DAY, Home
from flux_pipelines_tests.defs.test_assets import truth
from flux_pipelines_tests.defs.test_publishing import NOON, poison, yen
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

GOOD, POISONED, DAMAGED, DOWN = "square:harbor", "square:sakura", "square:fjord", "square:tarn"
BEFORE, DAY = END_DAY - timedelta(days=1), END_DAY
DAYS = [BEFORE, DAY]
MARTS = ("transactions", "daily_sales", "daily_item_demand", "payments", "time_entries", "tie_out")

pytestmark = pytest.mark.long


def take(home: Home, kind: str, document: dict[str, Any]) -> None:
    location = home.sandbox.world.merchant("sakura").locations[0].id
    body = {"location_id": location, "kind": kind, "document": {"location_id": location, **document}}
    httpx.post(f"{home.sandbox.url}/sandbox/documents", json=body).raise_for_status()


def poison_everything(home: Home) -> None:
    """Rows that blocking checks refuse (orders, payments), and records that no row can be made of (catalog, stock)."""
    poison(home)
    at = NOON.isoformat().replace("+00:00", "Z")
    paid = {"created_at": at, "updated_at": at, "amount_money": yen(-700), "total_money": yen(-700)}
    take(
        home, "payments", {"id": "NEGATIVE", "order_id": "POISON", "status": "COMPLETED", "source_type": "CASH", **paid}
    )
    variation = {"type": "ITEM_VARIATION", "id": "SPOILT-1", "item_variation_data": {"price_money": {"amount": "much"}}}
    item = {"name": "Spoilt", "variations": [variation]}
    take(home, "objects", {"type": "ITEM", "id": "SPOILT", "updated_at": at, "version": 1, "item_data": item})
    count = {"catalog_object_id": "SPOILT-1", "catalog_object_type": "ITEM_VARIATION", "state": "IN_STOCK"}
    take(home, "counts", {**count, "quantity": "several", "calculated_at": at})


def rows(home: Home, connection: str) -> dict[str, list[tuple[Any, ...]]]:
    return {table: home.ask(f"select * from {table} where connection = '{connection}' order by all") for table in MARTS}


def test_the_good_ones_marts_are_complete_and_each_of_the_others_is_named_with_what_to_do(
    environment: Path, changing_sandbox: RunningSandbox
) -> None:
    # The sensors' runtime: it waits for nobody, so that a provider that is down takes no minutes.
    with (
        RunningSandbox(SandboxOptions(seed=13, end_day=END_DAY, history_days=3, rate_limit=1_000_000)) as other,
        Runtime(patient=False) as runtime,
        dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance,
    ):
        home = Home(runtime, instance, changing_sandbox)
        every = [*home.connect("harbor", "sakura", "fjord"), DOWN]
        quick = {"requests_per_minute": 100_000}
        connect_to_sandbox(runtime, DOWN, tenant="tarn", url=other.url, merchant="sakura", settings=quick)
        instance.add_dynamic_partitions("square_connections", [DOWN])
        assert sync(runtime, every, DAYS).failures == []
        before = {key: rows(home, key) for key in every}

        poison_everything(home)
        location = changing_sandbox.world.merchant("harbor").locations[0].id
        sold = changing_sandbox.world.sell(location, created=NOON.replace(hour=16))
        damage(home)
        other.__exit__(None, None, None)

        what_comes_after_an_unreadable_manifest_is_red_and_names_it(home)
        report = sync(runtime, every, DAYS)

        told = "\n".join(report.failures)
        for connection in (POISONED, DOWN):
            assert connection in told
        assert GOOD not in told
        assert DAMAGED not in told, "it was fetched again"
        assert "Running it again" in told
        refused = [one for one in report.failures if "the check contract found" in one]
        assert any("POISON" in one for one in refused)
        assert any("NEGATIVE" in one and "payment is not negative" in one for one in refused)
        assert any(DOWN in one and "run the failed partitions again" in one.lower() for one in report.failures)

        now = {key: rows(home, key) for key in every}
        assert any(sold.id in row for row in now[GOOD]["transactions"])
        net = home.ask(f"select sum(net) from daily_sales where connection = '{GOOD}'")
        expected = from_minor(truth(home, "harbor", BEFORE, DAY)["USD"]["net"], "USD")
        assert net == [(Decimal(expected),)]
        ties = home.ask(
            f"select bool_and(payments_known) from tie_out where connection = '{GOOD}' and business_date = '{BEFORE}'"
        )
        assert ties == [(True,)]
        assert now[DAMAGED] == before[DAMAGED]
        assert now[DOWN] == before[DOWN]
        assert {t for t in MARTS if now[POISONED][t] != before[POISONED][t]} <= {"tie_out"}
        spoilt = {row["asset"] for row in runtime.quarantine.list(connection=POISONED)}
        assert {"square/products", "square/inventory_levels"} <= spoilt

        alerts = {(one.connection_key, one.kind): one.message for one in runtime.state.alerts.open()}
        message = alerts.pop((POISONED, "data_refused"))
        assert f"square/transactions of {DAY}" in message
        assert f"square/payments of {DAY}" in message
        assert alerts == {}, "the manifest is mended, and the good one has none"


def damage(home: Home) -> None:
    (home.runtime.settings.home / f"lake/raw/square/orders/fjord/{DAY}/manifest.json").write_text('{"conn')


def what_comes_after_an_unreadable_manifest_is_red_and_names_it(home: Home) -> None:
    result = home.sync(
        (GOOD, BEFORE),
        (DAMAGED, DAY),
        asset_selection=[names.provider_transactions("square")],
        tags={names.DRIVER_TAG: "x:y"},
    )
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data.user_failure_data
    assert failure is not None
    assert f"{DAMAGED}: {DAY}" in str(failure.description)
    assert "cannot be read" in str(failure.description)
    assert f"{DAMAGED}|{BEFORE}" in home.recorded(result.run_id)
    (alert,) = (one for one in home.runtime.state.alerts.open() if one.kind == "records_damaged")
    assert alert.connection_key == DAMAGED
    assert "flux sync square" in alert.message
