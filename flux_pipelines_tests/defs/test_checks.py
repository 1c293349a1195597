"""Each check over a real table in DuckDB: silent when all is well, and naming the offender when it is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import dagster as dg
import duckdb
import pytest

from flux_pipelines.defs import checks
from flux_pipelines.defs.assets import core
from flux_pipelines.defs.checks import Findings, Scope
from flux_pipelines.domain.tables import DAILY_ITEM_DEMAND, DAILY_SALES, SQL_TYPES, TRANSACTIONS, Table

DAY = date(2026, 3, 9)
SCOPE = Scope([DAY])
ASSET = dg.AssetKey("transactions")
LINE: dict[str, Any] = {
    "connection": "square:a",
    "tenant": "a",
    "location_id": "L1",
    "order_id": "o1",
    "line_id": "l1",
    "kind": "sale",
    "line_type": "item",
    "product_id": "p1",
    "product_name": "Latte",
    "quantity": Decimal(2),
    "unit_price": Decimal("4.50"),
    "gross": Decimal("9.00"),
    "discount": Decimal("1.00"),
    "net": Decimal("8.00"),
    "tax": Decimal("0.80"),
    "marketplace_tax": Decimal(0),
    "total": Decimal("8.80"),
    "currency": "USD",
    **{f"tendered_{name}": Decimal(0) for name in ("cash", "card", "gift_card", "other", "refund")},
    "occurred_at": datetime(2026, 3, 9, 12, tzinfo=UTC),
    "business_date": DAY,
    "raw_date": DAY,
    "source_system": "square",
    "source_version": "v",
}
TIP = LINE | {
    "line_id": "tip", "line_type": "tip", "product_id": "tip", "product_name": "Tip", "quantity": Decimal(0),
    "gross": Decimal(0), "discount": Decimal(0), "net": Decimal(0), "tax": Decimal(0), "total": Decimal("1.20"),
}  # fmt: skip


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in (
            ("transactions", TRANSACTIONS),
            ("square_transactions", TRANSACTIONS),
            ("daily_sales", DAILY_SALES),
            ("daily_item_demand", DAILY_ITEM_DEMAND),
        ):
            columns = ", ".join(f"{column.name} {SQL_TYPES[column.type]}" for column in table)
            connection.execute(f"create table {name} ({columns})")
        yield connection


def insert(database: duckdb.DuckDBPyConnection, name: str, table: Table, *rows: dict[str, Any]) -> None:
    marks = ", ".join("?" for _ in table.column_names)
    for row in rows:
        database.execute(f"insert into {name} values ({marks})", [row.get(column) for column in table.column_names])


def offenders(
    database: duckdb.DuckDBPyConnection, check: checks.Check, view: str = "transactions", scope: Scope = SCOPE
) -> list[str]:
    """Return what the check's sample says, a line an offender; none when it passes."""
    findings = Findings([check], ASSET)
    findings.look(database, view, "business_date", scope)
    (result,) = findings.results()
    if result.passed:
        assert "sample" not in result.metadata
        return []
    sample = result.metadata["sample"]
    assert isinstance(sample, dg.MarkdownMetadataValue)
    assert isinstance(sample.md_str, str)
    lines = sample.md_str.splitlines()[2:]
    assert result.metadata["offenders"].value >= len(lines)
    return lines


def test_a_good_table_passes_everything(database: duckdb.DuckDBPyConnection) -> None:
    for name in ("transactions", "square_transactions"):
        insert(database, name, TRANSACTIONS, LINE, TIP)
    for mart, query in ((DAILY_SALES, "daily_sales.sql"), (DAILY_ITEM_DEMAND, "daily_item_demand.sql")):
        scoped = (core.SQL / query).read_text().replace("{scope}", SCOPE.where("business_date"))
        database.execute(f"insert into {mart.name} {core.conform(mart, scoped)}")
    row = database.execute("select orders, units, net, tips, tax, total from daily_sales").fetchall()
    assert row == [(1, Decimal(2), Decimal(8), Decimal("1.20"), Decimal("0.80"), Decimal(10))]
    for check, view in (
        (checks.no_duplicate_lines(TRANSACTIONS), "transactions"),
        (checks.contract(TRANSACTIONS, checks.TRANSACTION_RULES), "transactions"),
        (checks.equals_its_sources(["square_transactions"]), "transactions"),
        (checks.TIES_TO_TRANSACTIONS, "daily_sales"),
        (checks.DEMAND_TIES_TO_TRANSACTIONS, "daily_item_demand"),
        (checks.contract(DAILY_SALES, {}), "daily_sales"),
        (checks.contract(DAILY_ITEM_DEMAND, {}), "daily_item_demand"),
    ):
        assert offenders(database, check, view) == []


def test_a_line_that_is_there_twice_is_named(database: duckdb.DuckDBPyConnection) -> None:
    insert(database, "transactions", TRANSACTIONS, LINE, LINE, TIP)
    (line,) = offenders(database, checks.no_duplicate_lines(TRANSACTIONS))
    assert "square:a / o1 / l1" in line
    assert "2 rows" in line


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"net": Decimal("8.01")}, "net = gross - discount"),
        ({"total": Decimal("8.81")}, "total = net + tax + marketplace_tax"),
        ({"marketplace_tax": Decimal("0.01")}, "total = net + tax + marketplace_tax"),
        ({"tenant": None}, "tenant is missing"),
        ({"kind": "gift"}, "kind is none of"),
        ({"line_type": "tip"}, "what is not revenue is in total alone"),
        ({"line_type": "third_party"}, "what is not revenue is in total alone"),
        ({"kind": "void"}, "a void and an open order have zero amounts"),
        ({"kind": "return"}, "a return has no positive amounts"),
        ({"kind": "return", "quantity": Decimal(0)}, "a return has no positive amounts"),
        ({"kind": "return", "line_type": "custom_amount"}, "a return has no positive amounts"),
    ],
)
def test_a_value_that_breaks_the_contract_is_named(
    database: duckdb.DuckDBPyConnection, change: dict[str, Any], problem: str
) -> None:
    insert(database, "transactions", TRANSACTIONS, LINE | change, TIP)
    (line,) = offenders(database, checks.contract(TRANSACTIONS, checks.TRANSACTION_RULES))
    assert problem in line
    assert "square:a\\|2026-03-09" in line


def test_what_was_kept_of_a_refund_is_a_positive_return(database: duckdb.DuckDBPyConnection) -> None:
    kept = {"kind": "return", "line_type": "custom_amount", "quantity": Decimal(0)}
    fee = {**kept, "line_type": "service_charge", "line_id": "l2"}
    insert(database, "transactions", TRANSACTIONS, LINE | kept, LINE | fee)
    assert offenders(database, checks.contract(TRANSACTIONS, checks.TRANSACTION_RULES)) == []


def test_a_coupon_that_comes_back_takes_nothing_away(database: duckdb.DuckDBPyConnection) -> None:
    coupon = {"kind": "return", "quantity": Decimal(-1), "unit_price": Decimal("-4.50")}
    insert(database, "transactions", TRANSACTIONS, LINE | coupon)
    assert offenders(database, checks.contract(TRANSACTIONS, checks.TRANSACTION_RULES)) == []


def test_only_the_rows_of_the_step_are_judged(database: duckdb.DuckDBPyConnection) -> None:
    insert(database, "transactions", TRANSACTIONS, LINE, LINE)
    check = checks.no_duplicate_lines(TRANSACTIONS)
    assert offenders(database, check, scope=Scope([date(2026, 3, 1), date(2026, 3, 8)])) == []
    assert offenders(database, check, scope=Scope([DAY], ("square:o'brien",))) == []
    assert len(offenders(database, check, scope=Scope([DAY], ("square:o'brien", "square:a")))) == 1


def test_a_row_that_is_lost_or_too_many_on_the_way_is_named(database: duckdb.DuckDBPyConnection) -> None:
    insert(database, "square_transactions", TRANSACTIONS, LINE, TIP)
    insert(database, "transactions", TRANSACTIONS, LINE)
    (line,) = offenders(database, checks.equals_its_sources(["square_transactions"]))
    assert "1 rows and 8.8000 in all here, 2 rows and 10.0000 there" in line


def test_a_mart_that_is_a_cent_off_is_named(database: duckdb.DuckDBPyConnection) -> None:
    insert(database, "transactions", TRANSACTIONS, LINE, TIP)
    scoped = (core.SQL / "daily_sales.sql").read_text().replace("{scope}", SCOPE.where("business_date"))
    database.execute(f"insert into daily_sales {core.conform(DAILY_SALES, scoped)}")
    database.execute("update daily_sales set net = net + 0.01")
    (line,) = offenders(database, checks.TIES_TO_TRANSACTIONS, "daily_sales")
    assert "net 8.0100 here, 8.0000 in transactions" in line
    database.execute("delete from daily_sales")
    assert len(offenders(database, checks.TIES_TO_TRANSACTIONS, "daily_sales")) == 1


def test_the_number_of_offenders_is_told_in_full_and_the_sample_is_capped(database: duckdb.DuckDBPyConnection) -> None:
    rows = [LINE | {"line_id": f"l{n}", "tenant": None} for n in range(checks.SAMPLE + 5)]
    insert(database, "transactions", TRANSACTIONS, *rows)
    check = checks.contract(TRANSACTIONS, {})
    findings = Findings([check], ASSET)
    findings.look(database, "transactions", "business_date", SCOPE)
    (result,) = findings.results()
    assert result.metadata["offenders"].value == checks.SAMPLE + 5
    assert len(offenders(database, check)) == checks.SAMPLE
