"""Every shape of the shared cases, landed by the real client from the sandbox, to the figures worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb
import httpx
import pyarrow as pa
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs.checks import TABLE_RULES, TRANSACTION_RULES
from flux_pipelines.domain.business_day import BusinessCalendar, known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Location
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.transform import transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.shopify.cases import APART, CASES, FOLDER, document
from flux_pipelines_tests.providers.shopify.nodes import gid
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

if not FOLDER.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)

SHOP = "harbor-shop"
SALE = ("quantity", "unit_price", "gross", "discount", "tax", "total")
MONEY = ("amount", "tip", "fee")
#: A place that the shop does not have; its order is kept aside when it lands.
NOWHERE = "unknown_retail_location"


class Shop(NamedTuple):
    """A shop of a running sandbox which has taken every case in."""

    sandbox: RunningSandbox
    runtime: Runtime
    connection: Connection
    locations: list[Location]

    @property
    def days(self) -> list[date]:
        calendar = BusinessCalendar(self.locations[0].timezone)
        placed = (document(name)["processedAt"] for name in CASES)
        return sorted({calendar.date_of(datetime.fromisoformat(at)) for at in placed})

    def land(self, raw: RawStore, days: Sequence[date]) -> list[RawManifest]:
        """Bring business dates into a lake of their own, all at once: by a bulk operation, if they are many."""
        source = self.runtime.source(self.connection)
        try:
            found = list(read_windowed(SyncContext(source, self.connection, self.locations, raw, PROVIDER), days))
        finally:
            source.close()
        assert [one.error for one in found if one.error is not None] == []
        bad = [reason for one in found for reason in one.bad]
        assert all("999" in str(one.reason) for one in bad), bad
        return [one.manifest for one in found if one.manifest is not None]


class Made(NamedTuple):
    """What was made of the cases."""

    sales: list[dict[str, Any]]
    payments: list[dict[str, Any]]
    bad: dict[str | None, str]
    totals: dict[date, int]
    verified: dict[date, str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    options = SandboxOptions(seed=4, history_days=1, rate_limit=500_000)
    home = tmp_path_factory.mktemp("home")
    with RunningSandbox(options) as sandbox, Runtime(Settings(home=home)) as runtime:
        here = sandbox.world.merchant(SHOP).locations[0].id
        for name in CASES:
            body = {"location_id": here, "kind": "orders", "document": document(name)}
            answer = httpx.post(f"{sandbox.url}/sandbox/documents", json=body)
            assert answer.status_code == 200, answer.text
        connection, locations = connect_to_sandbox(
            runtime, f"shopify:{SHOP}", tenant="tenant", url=sandbox.url, merchant=SHOP
        )
        assert locations[0].timezone == "America/New_York"
        yield Shop(sandbox, runtime, connection, locations)


def made_of(here: Shop, raw: RawStore, manifests: list[RawManifest]) -> Made:
    calendars = known_calendars(here.locations, here.connection.cutoff_hour)
    work = Normalisation(PROVIDER, raw, here.connection, manifests, calendars)
    sales = [row for batch in work.batches() for row in batch.to_pylist()]
    spec = next(one for one in PROVIDER.tables if one.table == "payments")
    payments = transform(PROVIDER, spec, here.connection, here.locations, raw, manifests)
    assert payments.bad == []
    return Made(
        sales,
        payments.rows.to_pylist(),
        {bad.order_id: bad.reason for bad in work.bad},
        {one.business_date: one.totals.get("USD", 0) for one in manifests},
        {one.business_date: one.verification.status for one in manifests},
    )


@pytest.fixture(scope="module")
def made(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All dates as one range."""
    raw = RawStore(object_store(str(tmp_path_factory.mktemp("range") / "lake")))
    return made_of(shop, raw, shop.land(raw, shop.days))


def of_case(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if gid("Order", row["order_id"]) == document(name)["id"]]


def told(text: str, day: str, words: int, amounts: slice) -> list[tuple[Any, ...]]:
    """Read expected rows: their words, the amounts among them as numbers, and the business date."""
    found = []
    for line in text.strip().splitlines():
        said = line.split()
        said = said if len(said) == words else [*said, day]
        found.append((*said[: amounts.start], *map(Decimal, said[amounts]), *said[amounts.stop : -1], said[-1]))
    return sorted(found)


def test_every_case_is_told_of() -> None:
    assert sorted({*CASES, *APART}) == sorted(file.stem for file in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", CASES)
def test_its_rows_are_these_on_these_dates(name: str, made: Made) -> None:
    case = CASES[name]
    mine = of_case(name, made.sales)
    found = [
        (
            *(r["line_id"].split(":")[0], r["kind"], r["line_type"]),
            *(r[amount] for amount in SALE),
            str(r["business_date"]),
        )
        for r in mine
    ]
    assert sorted(found) == told(case.sales, case.day, 10, slice(3, 9))
    assert all(row["net"] == row["gross"] - row["discount"] for row in mine)
    assert document(name)["legacyResourceId"] not in made.bad


@pytest.mark.parametrize("name", CASES)
def test_its_payments_are_these_on_these_dates(name: str, made: Made) -> None:
    case = CASES[name]
    found = [
        (
            *(r["payment_id"], r["kind"], r["tender"]),
            *(r[amount] for amount in MONEY),
            *(r["status"], str(r["business_date"])),
        )
        for r in of_case(name, made.payments)
    ]
    # Whatever the order's date, most documents say that they were paid on the 10th.
    assert sorted(found) == told(case.payments, "2026-11-10", 8, slice(3, 6))


def test_what_is_owed_and_what_was_paid_differ_by_what_is_still_open_alone(made: Made) -> None:
    """Over all dates of an order: what was owed after returns, less what was paid after refunds, is what is due of it."""
    gaps: dict[str, Decimal] = {}
    for name in CASES:
        rows = of_case(name, made.sales)
        owed = sum((row["total"] for row in rows), Decimal(0))
        completed = [r for r in of_case(name, made.payments) if r["status"] == "completed"]
        due = {row["due"] for row in rows}
        assert len(due) <= 1
        gap = owed - sum((r["amount"] + r["tip"] for r in completed), Decimal(0)) - (due.pop() if due else 0)
        if gap:
            gaps[name] = gap
    # Imported as paid, without the payment; cancelled, and its payment not given back: both are for a person to look at.
    assert gaps == {"imported_no_transactions": 12, "cancel_no_refund": -45}
    dues = {name: {row["due"] for row in of_case(name, made.sales)} - {0} for name in CASES}
    assert {name: due for name, due in dues.items() if due} == {
        "edited_balance_due": {20},
        "edited_balance_due2": {20},
        "pending_discrepancy_header": {Decimal("-71.39")},
        "pending_refund_pair": {Decimal("-71.39")},
        "voided": {33},
    }


def test_day_by_day_in_any_order_the_same_rows_come_of_them(
    made: Made, shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = RawStore(object_store(str(tmp_path_factory.mktemp("days") / "lake")))
    days = shop.days
    random.Random(13).shuffle(days)
    one_by_one = [manifest for day in days for manifest in shop.land(raw, [day])]
    found = made_of(shop, raw, one_by_one)

    def rows(of: list[dict[str, Any]]) -> list[str]:
        return sorted(str(sorted(row.items(), key=lambda item: item[0])) for row in of)

    assert rows(found.sales) == rows(made.sales)
    assert rows(found.payments) == rows(made.payments)
    assert (found.bad, found.totals, found.verified) == (made.bad, made.totals, made.verified)


def test_landing_counts_the_orders_that_become_sales(made: Made) -> None:
    """A date's total, of the headers, is that of its rows; and the second query, of headers alone, found the same."""
    here = dict.fromkeys(made.totals, Decimal(0))
    for row in made.sales:
        here[row["raw_date"]] += row["total"]
    there = {day: Decimal(total) / 100 for day, total in made.totals.items()}
    assert here == there
    aside = date.fromisoformat(CASES[NOWHERE].day)
    assert {day for day, status in made.verified.items() if status != "verified"} == {aside}


def test_no_row_breaks_the_contract(made: Made) -> None:
    """Money back that is less than the goods, and change in cash, are rows like any other: item by item in CASES."""
    for name, rows, rules in (
        ("sales", made.sales, TRANSACTION_RULES),
        ("payments", made.payments, TABLE_RULES["payments"]),
    ):
        session = duckdb.connect()
        session.register(name, pa.Table.from_pylist(rows))
        broken = {
            rule: session.execute(f"select count(*) from {name} where not ({condition})").fetchall()[0][0]
            for rule, condition in rules.items()
        }
        assert set(broken.values()) == {0}, broken


def test_an_order_stays_on_its_date_when_the_shop_moves_to_another_time_zone(shop: Shop) -> None:
    """The case `timezone_changed_then_old_day_relanded`: 06:30 UTC is 01:30 in New York and 22:30 of the day before in Los Angeles."""
    days = [date(2026, 11, day) for day in (11, 12, 13)]
    raw, world = shop.runtime.raw, shop.sandbox.world

    def landed(*again: date) -> list[tuple[str, date]]:
        with closing(shop.runtime.source(shop.connection)) as source:
            places = shop.runtime.refresh_locations(shop.connection, source)
        here = shop._replace(locations=places)
        here.land(raw, again)
        stored = raw.manifests(shop.connection.key, days[0], days[-1])
        rows = made_of(here, raw, list(stored.values())).sales
        return sorted((row["order_id"], row["business_date"]) for row in rows if row["order_id"] in ("9501", "9502"))

    each = [("9501", days[1]), ("9502", days[2])]
    assert landed(*days) == each
    try:
        for location in world.merchant(SHOP).locations:
            world.report_timezone(location.id, "America/Los_Angeles")
        assert landed(days[1]) == each
        assert landed(days[2]) == each
        (calendar,) = set(
            known_calendars(
                shop.runtime.state.locations.list(shop.connection.key), shop.connection.cutoff_hour
            ).values()
        )
        assert (calendar.zone_name, len(calendar.earlier)) == ("America/Los_Angeles", 1)
    finally:
        for location in world.merchant(SHOP).locations:
            world.report_timezone(location.id, "America/New_York")
