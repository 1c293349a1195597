"""Every shape of the shared cases, landed by the real client from the sandbox, to the figures worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from flux_pipelines.domain.business_day import BusinessCalendar, known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days, read_now
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.records import BadRecord, DayOutcome
from flux_pipelines.sync.transform import Transformed, transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.square.cases import CASES, FOLDER, STORE, Case, documents
from flux_pipelines_tests.providers.square.conftest import LAST, House
from flux_pipelines_tests.sandbox.conftest import Clock
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

if not FOLDER.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)

CONNECTION = Connection("square:test", "tenant")
CALENDAR = BusinessCalendar("America/New_York")
SALE = ("order_id", "line_id", "kind", "line_type")
AMOUNTS = ("quantity", "unit_price", "gross", "discount", "tax", "total")


class Landed(NamedTuple):
    """What was made of all cases at once."""

    sales: list[dict[str, Any]]
    bad: list[BadRecord]
    totals: dict[date, dict[str, int]]
    payments: Transformed
    levels: Transformed


def happened(kind: str) -> list[date]:
    """The dates of the cases' records of a kind."""
    found = [one["document"] for name in CASES for one in documents(name) if one["kind"] in kind.split()]
    return sorted({CALENDAR.date_of(datetime.fromisoformat(one["created_at"])) for one in found})


def whole(outcomes: Sequence[DayOutcome]) -> list[RawManifest]:
    assert [one.error for one in outcomes if one.error is not None] == []
    return [one.manifest for one in outcomes if one.manifest is not None]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Landed:
    folder, clock = tmp_path_factory.mktemp("cases"), Clock()
    raw = RawStore(object_store(str(folder / "lake")))
    with RunningSandbox(SandboxOptions(history_days=2, end_day=LAST, clock=clock)) as sandbox:
        house = House(sandbox, "harbor", folder, clock)
        for name in CASES:
            for one in documents(name):
                house.post("documents", **one)
        (place,) = [one for one in house.locations if one.location_id == STORE]
        assert place.timezone == "America/New_York"
        with house.client() as client:
            context = SyncContext(client, CONNECTION, [place], raw, PROVIDER)
            orders = whole(list(read_windowed(context, happened("orders"))))
            money = whole(list(read_days(replace(context, raw=raw.of("payments")), happened("payments refunds"))))
            stock = whole([read_now(replace(context, raw=raw.of("inventory")), clock.now)])
    assert {one.verification.status for one in orders} == {"verified"}
    work = Normalisation(PROVIDER, raw, CONNECTION, orders, known_calendars([place], 0))
    sales = [row for batch in work.batches() for row in batch.to_pylist()]
    tables = {one.table: one for one in PROVIDER.tables}
    return Landed(
        sales,
        work.bad,
        {one.business_date: one.totals for one in orders},
        transform(PROVIDER, tables["payments"], CONNECTION, [place], raw.of("payments"), money),
        transform(PROVIDER, tables["inventory_levels"], CONNECTION, [place], raw.of("inventory"), stock),
    )


def told(row: dict[str, Any], names: Sequence[str], amounts: Sequence[str], *rest: str) -> tuple[Any, ...]:
    return (*(row[name] for name in names), *(row[name] for name in amounts), *(row[name] for name in rest))


def lines(text: str, width: int, day: str) -> list[list[str]]:
    """The words of each line, with the date that it may leave out."""
    found = [line.split() for line in text.strip().splitlines()]
    return [words if len(words) == width else [*words, day] for words in found]


def expected_sales(case: Case) -> list[tuple[Any, ...]]:
    return [
        (*words[:4], *map(Decimal, words[4:10]), date.fromisoformat(words[10]))
        for words in lines(case.sales, 11, case.day)
    ]


def expected_payments(case: Case) -> list[tuple[Any, ...]]:
    return [
        (*words[:3], *map(Decimal, words[3:6]), words[6], date.fromisoformat(words[7]))
        for words in lines(case.payments, 8, case.day)
    ]


def ids(name: str, *kinds: str) -> set[str]:
    return {one["document"].get("id", "") for one in documents(name) if one["kind"] in kinds}


def test_every_case_is_told_of() -> None:
    assert sorted(CASES) == sorted(file.stem for file in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", CASES)
def test_its_orders_are_sales_of_these_dates(name: str, landed: Landed) -> None:
    mine = [row for row in landed.sales if row["order_id"] in ids(name, "orders")]
    found = [told(row, SALE, AMOUNTS, "business_date") for row in mine]
    assert found == expected_sales(CASES[name])
    assert all(row["net"] == row["gross"] - row["discount"] for row in mine)
    reasons = {bad.order_id: bad.reason for bad in landed.bad if bad.order_id in ids(name, "orders")}
    assert reasons.keys() == CASES[name].quarantined.keys()
    for order_id, reason in CASES[name].quarantined.items():
        assert reasons[order_id].endswith(reason)


@pytest.mark.parametrize("name", CASES)
def test_its_payments_are_of_these_tenders(name: str, landed: Landed) -> None:
    assert landed.payments.bad == []
    mine = [row for row in landed.payments.rows.to_pylist() if row["payment_id"] in ids(name, "payments", "refunds")]
    found = [
        told(row, ("payment_id", "kind", "tender"), ("amount", "tip", "fee"), "status", "business_date") for row in mine
    ]
    assert sorted(found) == sorted(expected_payments(CASES[name]))


def test_stock_that_was_marked_as_sold_out(landed: Landed) -> None:
    assert landed.levels.bad == []
    case = CASES["S45_catalogue_sold_out"]
    products = {
        words[0]: (None if words[1] == "-" else Decimal(words[1]), words[2]) for words in lines(case.levels, 3, "")
    }
    rows = {row["product_id"]: (row["quantity"], row["availability"]) for row in landed.levels.rows.to_pylist()}
    assert {product: row for product, row in rows.items() if product.startswith("V45")} == products


def test_landing_counts_the_orders_that_become_sales(landed: Landed) -> None:
    """A partition's totals, of the headers, are those of its rows; dates with quarantined orders apart."""
    spoilt = {bad.partition.business_date for bad in landed.bad}
    here: dict[date, Decimal] = dict.fromkeys(landed.totals, Decimal(0))
    for row in landed.sales:
        here[row["raw_date"]] += row["total"]
    there = {day: Decimal(totals.get("USD", 0)) / 100 for day, totals in landed.totals.items()}
    assert {day: total for day, total in here.items() if day not in spoilt} == {
        day: total for day, total in there.items() if day not in spoilt
    }
    assert sum(there.values()) > 0
