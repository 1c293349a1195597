"""Client, engine and SQL together over the sandbox's wire, compared with its truth to the cent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import PermissionLostError
from flux_pipelines.domain.money import from_minor
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.providers.square import PROVIDER, reports
from flux_pipelines.providers.square.client import SquareClient
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.plan import estimate
from flux_pipelines.sync.records import BadRecord, DayOutcome
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.squarewire import square
from flux_pipelines_tests.sync.rawfiles import raw_store
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth

PIZZA = PROJECT_ROOT.parent / "shared" / "data" / "pizza"
END_DAY = date(2026, 11, 2)  # New York's clocks went back on the 1st
DAYS = [END_DAY - timedelta(days=n) for n in (2, 1, 0)]
CUTOFF = 4
FAULTS = "error500=0.05,error429=0.05,truncate=0.02,html=0.02"


@contextmanager
def merchant(
    folder: Path, slug: str, *, requests_per_minute: int = 100_000, **options: Any
) -> Iterator[tuple[RunningSandbox, SquareClient, Connection]]:
    folder.mkdir(parents=True, exist_ok=True)
    with RunningSandbox(SandboxOptions(rate_limit=1_000_000, **options)) as sandbox:
        import httpx

        issued = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": slug}, timeout=30).json()
        settings = {"cutoff_hour": CUTOFF, "requests_per_minute": requests_per_minute}
        connection = Connection("square:test", "tenant", settings=settings)
        with square(sandbox.url, folder, issued["access_token"], **settings) as client:
            yield sandbox, client, connection


def run(
    client: SquareClient, connection: Connection, raw: RawStore, days: list[date]
) -> tuple[dict[date, DayOutcome], list[dict[str, Any]], Normalisation]:
    outcomes = {
        outcome.day: outcome
        for outcome in read_windowed(SyncContext(client, connection, client.locations(), raw, PROVIDER), days)
    }
    assert [o.error for o in outcomes.values() if o.error] == []
    manifests = [o.manifest for o in outcomes.values() if o.manifest is not None]
    work = Normalisation(PROVIDER, raw, connection, manifests)
    return outcomes, [row for batch in work.batches() for row in batch.to_pylist()], work


def by_location_and_day(rows: list[dict[str, Any]]) -> dict[tuple[str, date], dict[str, Decimal]]:
    sums: dict[tuple[str, date], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for row in rows:
        day = sums[row["location_id"], row["business_date"]]
        goods = row["line_type"] in ("item", "custom_amount")
        for name in ("gross", "discount", "net", "tax", "total"):
            day[name] += row[name]
        day["units"] += row["quantity"] if goods else 0
        day["lines"] += row["kind"] in ("sale", "return") and (goods or row["line_type"] == "gift_card")
        for name, kind in (("tips", "tip"), ("rounding", "rounding"), ("gift_cards", "gift_card")):
            day[name] += row["total"] if row["line_type"] == kind else 0
        day["service_charges"] += row["net"] if row["line_type"] == "service_charge" else 0
        day["returns"] += row["net"] if row["kind"] == "return" else 0
        day["REFUND"] += row["tendered_refund"]
        day["CASH"] += row["tendered_cash"]
    return sums


@pytest.mark.parametrize("slug", ["harbor", "sakura", "fjord"])
@pytest.mark.parametrize("faults", ["", FAULTS])
def test_what_is_computed_is_what_really_happened(slug: str, faults: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"history_days": 3, "end_day": END_DAY, "faults": faults}
    if faults:
        options["cursor_lifetime"] = 0.2
    with merchant(tmp_path, slug, **options) as (sandbox, client, connection):
        outcomes, rows, work = run(client, connection, raw_store(tmp_path), DAYS)
        real = truth(sandbox.world, merchant=slug, first=DAYS[0], last=DAYS[-1], cutoff_hour=CUTOFF)
    computed = by_location_and_day(rows)
    assert any(day.lines for day in real)
    for day in real:
        mine = computed[day.location_id, day.business_date]
        for name in (
            "gross",
            "discount",
            "net",
            "tax",
            "total",
            "tips",
            "rounding",
            "gift_cards",
            "service_charges",
            "returns",
        ):
            assert mine[name] == from_minor(getattr(day, name), day.currency), (
                day.location_id,
                day.business_date,
                name,
            )
        for tender in ("CASH", "REFUND"):
            assert mine[tender] == from_minor(day.tenders[tender], day.currency)
        assert mine["units"] == day.units
        assert mine["lines"] == day.lines
    quarantined: list[BadRecord] = [*work.bad, *(bad for o in outcomes.values() for bad in o.bad)]
    assert len(quarantined) == sum(day.malformed for day in real)
    unproven = [o.manifest.verification for o in outcomes.values() if o.manifest and not o.bad]
    assert {v.status for v in unproven} <= {"verified"}, unproven


def test_a_lost_permission_fails_the_days(tmp_path: Path) -> None:
    import httpx

    with merchant(tmp_path, "harbor", history_days=3, end_day=END_DAY) as (sandbox, client, connection):
        locations = client.locations()
        body = {"merchant": "harbor", "remove": ["ORDERS_READ"]}
        httpx.post(f"{sandbox.url}/sandbox/tokens/scopes", json=body, timeout=30)
        context = SyncContext(client, connection, locations, raw_store(tmp_path), PROVIDER)
        outcomes = list(read_windowed(context, DAYS))
    assert {o.status for o in outcomes} == {"failed"}
    assert all(isinstance(o.error, PermissionLostError) for o in outcomes)


def test_the_plan_is_near_what_it_really_costs(tmp_path: Path) -> None:
    with merchant(tmp_path, "harbor", history_days=3, end_day=END_DAY) as (_, client, connection):
        locations = client.locations()
        told = estimate(client, PROVIDER, connection, locations, DAYS)
        before = client.stats.requests
        outcomes, _, _ = run(client, connection, raw_store(tmp_path), DAYS)
        spent = client.stats.requests - before
    orders = sum(o.manifest.orders for o in outcomes.values() if o.manifest)
    assert told.locations == len(locations)
    assert 0.6 * orders <= told.orders <= 1.5 * orders
    assert 0.5 * spent <= told.calls <= 2 * spent
    assert 0 < told.quota_share < 1
    assert told.minutes_at_limit == pytest.approx(told.calls / 100_000, rel=0.9)
    assert told.bookkeeping_seconds > 0


def test_the_plan_counts_what_feeds_cost_beside_orders(tmp_path: Path) -> None:
    with merchant(tmp_path, "harbor", history_days=3, end_day=END_DAY) as (_, client, connection):
        locations = client.locations()
        alone = estimate(client, PROVIDER, connection, locations, DAYS)
        reports._kept.clear()
        told = estimate(client, PROVIDER, connection, locations, DAYS, beside_orders=True)
        reports._kept.clear()  # a sync is another process, which discovers the report's members itself
        before = client.stats.snapshot()
        for name in (stream.name for stream in PROVIDER.streams if stream.strategy == "daily"):
            raw = raw_store(tmp_path).of(name)
            outcomes = list(read_days(SyncContext(client, connection, locations, raw, PROVIDER), DAYS))
            assert {outcome.status for outcome in outcomes} == {"committed"}
        after = client.stats.snapshot()
    spent = after.requests - before.requests
    assert alone.stream_calls == 0
    assert told.calls - told.stream_calls == alone.calls
    assert 0.7 * spent <= told.stream_calls <= 2 * spent
    busiest = max((after.by_key - before.by_key).values())
    assert busiest < spent / 3, "each store's payments count against its own limit"
    more = (told.minutes_at_limit - alone.minutes_at_limit) * 100_000
    assert 0.7 * busiest <= more <= 2 * busiest
    assert told.uncounted == ()


def test_a_feed_that_may_not_be_read_is_named_in_the_plan(tmp_path: Path) -> None:
    import httpx

    with merchant(tmp_path, "harbor", history_days=3, end_day=END_DAY) as (sandbox, client, connection):
        locations = client.locations()
        body = {"merchant": "harbor", "remove": ["PAYMENTS_READ"]}
        httpx.post(f"{sandbox.url}/sandbox/tokens/scopes", json=body, timeout=30)
        told = estimate(client, PROVIDER, connection, locations, DAYS, beside_orders=True)
    (uncounted,) = told.uncounted
    assert "PAYMENTS_READ" in uncounted
    assert 0 < told.stream_calls < told.calls


@pytest.mark.skipif(not PIZZA.is_dir(), reason="the pizza data are not here")
def test_a_year_of_real_orders(tmp_path: Path) -> None:
    days = [date(2015, 1, 1) + timedelta(days=n) for n in range(365)]
    with RunningSandbox(SandboxOptions(orders=PIZZA, rate_limit=1_000_000)) as sandbox:
        import httpx

        slug = next(iter(sandbox.world.merchants.values())).handle
        issued = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": slug}, timeout=30).json()
        connection = Connection("square:test", "tenant")
        with square(sandbox.url, tmp_path, issued["access_token"], requests_per_minute=100_000) as client:
            outcomes, rows, work = run(client, connection, raw_store(tmp_path), days)
    assert work.bad == []
    assert len({row["order_id"] for row in rows}) == 21_350
    assert len(rows) == sum(figures.lines for figures in work.days.values()) == 48_620
    assert sum(figures.units for figures in work.days.values()) == 49_574
    assert sum(row["net"] for row in rows) == Decimal("817860.05")
    assert sum(bool(o.manifest and o.manifest.orders) for o in outcomes.values()) == 358
    assert {o.manifest.verification.status for o in outcomes.values() if o.manifest} == {"verified"}
    assert sum(o.manifest.requests for o in outcomes.values() if o.manifest) < 120
