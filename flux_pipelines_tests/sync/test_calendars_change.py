"""A store's time zone or a connection's cut-off hour changes: no order is on no date, and none on two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.connections.accounts import reconfigure
from flux_pipelines.domain.business_day import BusinessCalendar, known_calendars
from flux_pipelines.lake import RawManifest
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.reading import database, order_lines
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.test_business_day import changing
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.ids import legacy

LAST = date(2026, 3, 12)  # the clocks went forward on the 8th
FIRST = LAST - timedelta(days=7)
MERCHANTS = {"square": "harbor", "shopify": "harbor-shop"}


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(seed=6, end_day=LAST, history_days=9, rate_limit=1_000_000)) as running:
        yield running


class Landed:
    """A connection to a merchant, and what was landed of it."""

    def __init__(self, runtime: Runtime, sandbox: RunningSandbox, provider: str) -> None:
        self.runtime = runtime
        self.world = sandbox.world
        self.key = f"{provider}:changing"
        self.merchant = sandbox.world.merchant(MERCHANTS[provider])
        connect_to_sandbox(runtime, self.key, tenant="t", url=sandbox.url, merchant=MERCHANTS[provider])

    def land(self, *days: date) -> None:
        """Sync dates as the raw asset does."""
        connection = self.runtime.state.connections.get(self.key)
        spec = provider_named(connection.provider)
        with closing(self.runtime.source(connection)) as source:
            locations = self.runtime.refresh_locations(connection, source)
            outcomes = list(read_windowed(SyncContext(source, connection, locations, self.runtime.raw, spec), days))
        assert [one.error for one in outcomes] == [None] * len(days)

    def manifest(self, day: date) -> RawManifest:
        found = self.runtime.raw.read_manifest(self.key, day)
        assert found is not None
        return found

    def on(self, days: Sequence[date]) -> Counter[str]:
        """Return how often each order is among some dates."""
        spec = provider_named(self.key.partition(":")[0])
        return Counter(
            order_id
            for day in days
            for order_id in order_lines(self.runtime.raw, self.manifest(day), spec.order_id_field)
        )

    def windows(self, day: date) -> dict[str, tuple[datetime, datetime]]:
        """Return between which instants a date was asked for, by location."""
        return {id_: (one.start, one.end) for one in self.manifest(day).windows for id_ in one.locations}

    def calendars(self) -> dict[str, BusinessCalendar]:
        """Return the calendar of each location."""
        cutoff_hour = self.runtime.state.connections.get(self.key).cutoff_hour
        return known_calendars(self.runtime.state.locations.list(self.key), cutoff_hour)

    def made_on(self, first: date, last: date) -> int:
        """Return how many orders the merchant made on some dates, by the calendar of each location."""
        found = 0
        for location in self.merchant.locations:
            id_ = location.id if self.key.startswith("square:") else str(legacy("Location", location.id))
            calendar = self.calendars()[id_]
            start, end = (int(calendar.start(day).timestamp() * 1000) for day in (first, last + timedelta(days=1)))
            sales = (
                sale for sale in self.world.sales.values() if sale.location is location and self.world.is_order(sale)
            )
            found += sum(start <= sale.created < end for sale in sales)
        return found


@pytest.mark.parametrize("provider", MERCHANTS)
@pytest.mark.parametrize("change", ["west", "east", "later", "all"])
def test_what_has_landed_keeps_its_boundaries(
    tmp_path: Path, sandbox: RunningSandbox, provider: str, change: str
) -> None:
    with Runtime(Settings(home=tmp_path)) as runtime:
        landed = Landed(runtime, sandbox, provider)
        days = [FIRST + timedelta(days=n) for n in range(7)]
        landed.land(*days[:4])
        before = {day: (landed.windows(day), landed.on([day])) for day in days[:4]}
        zone = {"west": "Pacific/Honolulu", "east": "Asia/Tokyo", "all": "Europe/London"}.get(change)
        for location in landed.merchant.locations if zone else ():
            sandbox.world.report_timezone(location.id, zone or "")
        if change in ("later", "all"):
            reconfigure(runtime, landed.key, settings={"cutoff_hour": 6}, secrets=None)

        landed.land(days[1])
        landed.land(days[0], days[3])
        assert {day: (landed.windows(day), landed.on([day])) for day in days[:4]} == before
        landed.land(days[5])
        landed.land(days[4])
        landed.land(*days)
        found = landed.on(days)
        assert set(found.values()) == {1}, "none on two dates"

        assert found.total() == landed.made_on(days[0], days[-1])
        for calendar in landed.calendars().values():
            assert len(calendar.earlier) == 1
            first, then = ((end - start) / timedelta(hours=1) for start, end in map(calendar.window, days[4:6]))
            assert (first != 24, then) == (True, 24)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    changing(),
    st.lists(
        st.datetimes(datetime(2025, 2, 20), datetime(2025, 3, 27), timezones=st.just(UTC)), min_size=1, max_size=40
    ),
)
def test_sql_gives_the_same_dates(calendar: BusinessCalendar, instants: list[datetime]) -> None:
    edges = [calendar.start(rule.until) + timedelta(microseconds=n) for rule in calendar.earlier for n in (-1, 0)]
    asked: list[Any] = [*instants, *edges]
    with database({"L": calendar}, "64MB") as opened:
        found = opened.execute(
            "SELECT business_date_of('L', instant) FROM (SELECT unnest(?::TIMESTAMPTZ[]) AS instant)", [asked]
        ).fetchall()
        nothing = opened.execute("SELECT business_date_of('L', NULL::TIMESTAMPTZ), business_date_of('M', now())")
        assert nothing.fetchall() == [(None, None)]
    assert [day for (day,) in found] == [calendar.date_of(instant) for instant in asked]
