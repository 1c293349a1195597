"""Every shape of the shared cases, landed by the real client from the sandbox, to the figures worked out by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Location
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.transform import transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.toast.cases import CASES, FOLDER, orders
from flux_pipelines_tests.providers.toast.roundtrip import day_of
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE, UNLIMITED
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

if not FOLDER.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)

SALE = ("quantity", "unit_price", "gross", "discount", "tax", "marketplace_tax", "total")
MONEY = ("amount", "tip", "fee")


class Restaurant(NamedTuple):
    """A restaurant of a running sandbox which has taken every case in."""

    runtime: Runtime
    connection: Connection
    locations: list[Location]

    @property
    def days(self) -> list[date]:
        return sorted({day_of(order) for name in CASES for order in orders(name)})

    def land(self, raw: RawStore, days: Sequence[date]) -> list[RawManifest]:
        """Bring business dates into a lake of their own, all at once."""
        source = self.runtime.source(self.connection)
        try:
            found = list(read_windowed(SyncContext(source, self.connection, self.locations, raw, PROVIDER), days))
        finally:
            source.close()
        assert [one.error for one in found if one.error is not None] == []
        manifests = [one.manifest for one in found if one.manifest is not None]
        assert {one.verification.status for one in manifests} == {"verified"}
        return manifests


class Made(NamedTuple):
    """What was made of the cases."""

    sales: list[dict[str, Any]]
    payments: list[dict[str, Any]]
    bad: dict[str | None, str]
    totals: dict[date, int]


@pytest.fixture(scope="module")
def restaurant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restaurant]:
    options = SandboxOptions(seed=4, history_days=1, rate_limit=UNLIMITED)
    home = tmp_path_factory.mktemp("home")
    with RunningSandbox(options) as sandbox, Runtime(Settings(home=home)) as runtime:
        here = sandbox.world.merchant(HANDLE).locations[0].id
        for name in CASES:
            for order in orders(name):
                body = {"location_id": here, "kind": "orders", "document": order}
                answer = httpx.post(f"{sandbox.url}/sandbox/documents", json=body)
                assert answer.status_code == 200, answer.text
        connection, locations = connect_to_sandbox(
            runtime,
            f"toast:{HANDLE}",
            tenant="tenant",
            url=sandbox.url,
            merchant=HANDLE,
            settings={"restaurants": here, "history_pause_seconds": 0},
        )
        assert locations[0].timezone == "America/New_York"
        yield Restaurant(runtime, connection, locations)


def made_of(here: Restaurant, raw: RawStore, manifests: list[RawManifest]) -> Made:
    work = Normalisation(
        PROVIDER, raw, here.connection, manifests, known_calendars(here.locations, here.connection.cutoff_hour)
    )
    sales = [row for batch in work.batches() for row in batch.to_pylist()]
    spec = next(one for one in PROVIDER.tables if one.table == "payments")
    payments = transform(PROVIDER, spec, here.connection, here.locations, raw, manifests)
    assert payments.bad == []
    return Made(
        sales,
        payments.rows.to_pylist(),
        {bad.order_id: bad.reason for bad in work.bad},
        {one.business_date: one.totals.get("USD", 0) for one in manifests},
    )


@pytest.fixture(scope="module")
def made(restaurant: Restaurant, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All dates as one range."""
    raw = RawStore(object_store(str(tmp_path_factory.mktemp("range") / "lake")))
    return made_of(restaurant, raw, restaurant.land(raw, restaurant.days))


def brief(text: str) -> str:
    """Cut GUIDs to their first four signs."""
    return re.sub(r"([0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"\1", text)


def of_case(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    guids = {order["guid"] for order in orders(name)}
    return [row for row in rows if row["order_id"] in guids]


def told(text: str, day: str, words: int, amounts: slice) -> list[tuple[Any, ...]]:
    """Read expected rows: their words, the amounts among them as numbers, and the business date."""
    found = []
    for line in text.strip().splitlines():
        said = line.split()
        said = said if len(said) == words else [*said, day]
        found.append((*said[: amounts.start], *map(Decimal, said[amounts]), *said[amounts.stop : -1], said[-1]))
    return sorted(found)


def test_every_case_is_told_of() -> None:
    assert sorted(CASES) == sorted(file.stem for file in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", CASES)
def test_its_rows_are_these_on_these_dates(name: str, made: Made) -> None:
    case = CASES[name]
    mine = of_case(name, made.sales)
    found = [
        (brief(r["line_id"]), r["kind"], r["line_type"], *(r[amount] for amount in SALE), str(r["business_date"]))
        for r in mine
    ]
    assert sorted(found) == told(case.sales, case.day, 11, slice(3, 10))
    assert all(row["net"] == row["gross"] - row["discount"] for row in mine)
    reasons = [reason for order_id, reason in made.bad.items() if order_id in {order["guid"] for order in orders(name)}]
    assert [reason.split(": ")[-1] for reason in reasons] == [case.quarantined] * bool(case.quarantined)


@pytest.mark.parametrize("name", CASES)
def test_its_payments_are_these_on_these_dates(name: str, made: Made) -> None:
    case = CASES[name]
    found = [
        (
            *(brief(r["payment_id"]), r["kind"], r["tender"]),
            *(r[amount] for amount in MONEY),
            *(r["status"], str(r["business_date"])),
        )
        for r in of_case(name, made.payments)
    ]
    assert sorted(found) == told(case.payments, case.day, 8, slice(3, 6))


def test_what_is_owed_and_what_was_paid_differ_by_what_is_still_open_alone(made: Made) -> None:
    """Over all dates of an order: what was owed after returns is what was paid after refunds."""
    gaps = {}
    for name in CASES:
        owed = sum((row["total"] for row in of_case(name, made.sales)), Decimal(0))
        paid = sum((r["amount"] + r["tip"] for r in of_case(name, made.payments)), Decimal(0))
        if owed != paid:
            gaps[name] = owed - paid
    # One check is not paid yet; an order is kept aside.
    assert gaps == {"T25_one_check_open": Decimal("6.48"), "T37_same_guid": Decimal("-8.64")}


def test_day_by_day_in_any_order_the_same_rows_come_of_them(
    made: Made, restaurant: Restaurant, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = RawStore(object_store(str(tmp_path_factory.mktemp("days") / "lake")))
    days = restaurant.days
    random.Random(13).shuffle(days)
    one_by_one = [manifest for day in days for manifest in restaurant.land(raw, [day])]
    found = made_of(restaurant, raw, one_by_one)

    def rows(of: list[dict[str, Any]]) -> list[str]:
        return sorted(str(sorted(row.items(), key=lambda item: item[0])) for row in of)

    assert rows(found.sales) == rows(made.sales)
    assert rows(found.payments) == rows(made.payments)
    assert found.bad == made.bad


def test_landing_counts_the_orders_that_become_sales(made: Made) -> None:
    """A date's total, of the headers, is that of its rows; the date with an order in quarantine apart."""
    here = dict.fromkeys(made.totals, Decimal(0))
    for row in made.sales:
        here[row["raw_date"]] += row["total"]
    there = {day: Decimal(total) / 100 for day, total in made.totals.items()}
    quarantined = date.fromisoformat(CASES["T37_same_guid"].day)
    assert there.pop(quarantined) - here.pop(quarantined) == Decimal("8.64")
    assert here == there
