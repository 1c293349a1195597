"""The provider's own sales report: the figures of the sandbox's truth, or no witness and why; never a failure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.money import from_minor
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Window
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days
from flux_pipelines.sync.transform import transform
from flux_pipelines_tests.contract.conftest import Connect, Played, all_providers, providers
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth

REPORTING = [
    name for name in providers() if any(stream.name == witness.STREAM for stream in all_providers()[name].streams)
]


@pytest.fixture(autouse=True)
def well_behaved(sandbox: RunningSandbox) -> Iterator[None]:
    yield
    sandbox.world.reporting.change({})


def collected(played: Played, days: list[date]) -> list[dict[str, Any]]:
    """Collect the reports of some dates and return the rows that are made of them."""
    runtime, connection, spec = played.runtime, played.connection, played.spec
    raw = runtime.raw.of(witness.STREAM)
    source = runtime.source(connection)
    try:
        locations = runtime.refresh_locations(connection, source)
        redact = runtime.redactor(connection)
        outcomes = list(read_days(SyncContext(source, connection, locations, raw, spec, redact=redact), days))
    finally:
        source.close()
    assert [outcome.error for outcome in outcomes] == [None] * len(days)
    (table,) = [one for one in spec.tables if one.table == "reported_sales"]
    made = transform(spec, table, connection, locations, raw, [one.manifest for one in outcomes if one.manifest])
    assert made.bad == []
    return made.rows.to_pylist()


@pytest.mark.parametrize("name", REPORTING)
def test_what_is_reported_is_what_happened(connect: Connect, name: str) -> None:
    played = connect(name)
    rows = collected(played, played.days)
    found: dict[date, list[tuple[Decimal, Decimal | None]]] = defaultdict(list)
    for row in rows:
        assert (row["status"], row["reason"]) == ("reported", None)
        if row["net"] or row["tax"]:
            found[row["business_date"]].append((row["net"], row["tax"]))
    expected: dict[date, list[tuple[Decimal, Decimal | None]]] = defaultdict(list)
    with_tax = any(row["tax"] is not None for row in rows)
    for one in truth(played.sandbox.world, merchant=played.merchant.handle, first=played.days[0], last=played.days[-1]):
        if one.net or one.tax:
            net, tax = (from_minor(amount, one.currency) for amount in (one.net, one.tax))
            expected[one.business_date].append((net, tax if with_tax else None))
    assert {day: sorted(figures, key=str) for day, figures in found.items()} == {
        day: sorted(figures, key=str) for day, figures in expected.items()
    }
    assert len(found) == len(played.days)


@pytest.mark.parametrize("name", REPORTING)
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"denied": True}, "not permitted, it takes "),
        ({"empty": True}, witness.EMPTY),
        ({"lag_minutes": 100_000}, witness.EMPTY),
    ],
)
def test_without_a_report_there_is_no_witness(connect: Connect, name: str, how: dict[str, Any], reason: str) -> None:
    played = connect(name)
    played.pull("reports", **how)
    rows = collected(played, played.days[-1:])
    assert rows
    for row in rows:
        assert row["status"] == "no_witness"
        assert row["reason"].startswith(reason)
        assert (row["net"], row["tax"], row["tips"]) == (None, None, None)
    played.pull("reports")
    assert {row["status"] for row in collected(played, played.days[-1:])} == {"reported"}


@pytest.mark.parametrize("name", REPORTING)
def test_a_date_that_is_not_over_has_no_witness_and_nobody_is_asked(connect: Connect, name: str) -> None:
    played = connect(name)
    today = max(
        BusinessCalendar(place.timezone, played.connection.cutoff_hour).date_of(played.sandbox.world.clock())
        for place in played.merchant.locations
    )
    before = dict(played.sandbox.world.reporting.asked)
    rows = collected(played, [today])
    assert {(row["status"], row["reason"]) for row in rows} == {("no_witness", witness.NOT_OVER)}
    assert dict(played.sandbox.world.reporting.asked) == before


@pytest.mark.parametrize("name", REPORTING)
def test_the_report_tells_orders_apart(connect: Connect, name: str) -> None:
    played = connect(name)
    source = played.runtime.source(played.connection)
    assert isinstance(source, witness.ReportSource)
    try:
        locations = played.runtime.refresh_locations(played.connection, source)
        place = max(played.merchant.locations, key=lambda one: one.busy)
        calendar = BusinessCalendar(place.timezone, played.connection.cutoff_hour)
        ids = tuple(one.location_id for one in locations)
        found = source.reported_orders(Window(ids, *calendar.window(played.last), played.last))
    finally:
        source.close()
    assert len({one.order_id for one in found}) > 5
    assert {one.location_id for one in found} <= set(ids)
