"""SQL over raw records: what fits the contract becomes rows, what does not goes to quarantine, and nothing else is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ContractBrokenError
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Location, Provider, Record, StreamTable
from flux_pipelines.sync.transform import transform
from flux_pipelines_tests.sync.streamfiles import land, record, run_table

TOY = Provider(
    name="toy", title="Toy", owner="team:toys", docs_url="", base_url="", api_version="7", rate_limits=(), settings=(), secrets=()
)  # fmt: skip
STORES = [Location("L1", "One", "America/New_York", "USD"), Location("L2", "Two", "Asia/Tokyo", "JPY")]

PAYMENTS = """
CREATE MACRO id_of(object) AS object ->> 'id';
SELECT
    r.location_id, id_of(object) AS payment_id, 'payment' AS kind,
    object ->> 'order' AS order_id, object ->> 'tender' AS tender,
    (object ->> 'amount')::BIGINT AS amount, coalesce((object ->> 'tip')::VARCHAR, '0') AS tip,
    s.currency, 'completed' AS status, object ->> 'at' AS occurred_at,
    (object ->> 'updated')::TIMESTAMPTZ AS updated_at, raw_date,
    CASE WHEN object ->> 'id' IS NULL THEN 'it has no id' END AS problem, object::VARCHAR AS record
FROM records AS r LEFT JOIN stores AS s USING (location_id)
"""


def payment(payment_id: str, amount: Any = 1234, **more: Any) -> dict[str, Any]:
    return {"id": payment_id, "amount": amount, "tender": "card", "at": "2026-03-02T15:00:00Z", **more}


def spec(folder: Path, sql: str, table: str = "payments", stream: str = "payments") -> StreamTable:
    path = folder / f"{table}.sql"
    path.write_text(sql)
    return StreamTable(table, stream, path)


def test_records_become_rows_of_the_contract(tmp_path: Path) -> None:
    records = [
        record("payment", payment("a", updated="2026-03-02T15:00:00Z"), "L1"),
        record("payment", payment("a", 1300, updated="2026-03-02T15:01:00Z"), "L1"),  # edited while pages were read
        record("payment", payment("a", updated="2026-03-02T15:00:00Z"), "L1"),  # and the first again
        record("payment", payment("b", 500, tip="12.3456", updated="2026-03-02T15:00:00+09:00"), "L2"),
    ]
    made = run_table(tmp_path, TOY, spec(tmp_path, PAYMENTS), records, STORES)
    rows = made.rows.to_pylist()
    assert made.bad == []
    assert [(row["payment_id"], row["amount"], row["tip"], row["currency"]) for row in rows] == [
        ("a", Decimal("13.0000"), Decimal(0), "USD"),
        ("b", Decimal("500.0000"), Decimal("12.3456"), "JPY"),
    ]
    assert rows[0]["occurred_at"] == datetime(2026, 3, 2, 15, tzinfo=UTC)
    assert rows[1]["updated_at"] == datetime(2026, 3, 2, 6, tzinfo=UTC)
    assert (rows[0]["business_date"], rows[0]["source_version"]) == (date(2026, 3, 2), "7")
    assert (rows[0]["connection"], rows[0]["tenant"], rows[0]["source_system"]) == ("toy:test", "tenant", "toy")
    assert (rows[0]["fee"], rows[0]["settlement_id"]) == (Decimal(0), None), "what it says nothing of"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (payment("x", "12.5.1"), "the record does not have the documented form"),  # makes the SQL raise
        (payment("x", tip="1.23456"), "tip has more than four decimal places"),
        (payment("x", tender="shells"), "tender is none of cash, card, gift_card, other"),
        (payment("x", at="yesterday"), "occurred_at cannot be read"),
        (payment("x", amount=None), "amount is missing"),
        ({"amount": 1, "tender": "card", "at": "2026-03-02T15:00:00Z"}, "it has no id"),
        (b'{"id": "x", "amount": 01}', "the record does not have the documented form"),
        (b'{"id": "\xff"}', "the record does not have the documented form"),
    ],
)
def test_a_bad_record_goes_to_quarantine_alone(tmp_path: Path, bad: Any, reason: str) -> None:
    good = [record("payment", payment(f"p{n}"), "L1") for n in range(40)]
    records = [*good[:23], record("payment", bad, "L1"), *good[23:]]
    made = run_table(tmp_path, TOY, spec(tmp_path, PAYMENTS), records, STORES)
    assert sorted(made.rows.column("payment_id").to_pylist()) == sorted(f"p{n}" for n in range(40))
    assert len(made.bad) == 1
    assert reason in made.bad[0].reason
    assert made.bad[0].partition.business_date == date(2026, 3, 2)
    whole = bad if isinstance(bad, bytes) else b'"amount"'
    assert whole in made.bad[0].payload


def test_an_amount_that_cannot_be_read_is_not_zero(tmp_path: Path) -> None:
    sql = PAYMENTS.replace("coalesce((object ->> 'tip')::VARCHAR, '0')", "TRY_CAST(object ->> 'tip' AS BIGINT)")
    records = [record("payment", payment(name, tip=tip), "L1") for name, tip in (("good", 50), ("bad", "50 cents"))]
    made = run_table(tmp_path, TOY, spec(tmp_path, sql), records, STORES)
    assert [(row["payment_id"], row["tip"]) for row in made.rows.to_pylist()] == [("good", Decimal("0.50"))]
    assert ["tip is missing" in one.reason for one in made.bad] == [True]


def test_whole_amounts_are_minor_units_whatever_their_size_and_sign(tmp_path: Path) -> None:
    for kind in ("SMALLINT", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT"):
        folder = tmp_path / kind
        folder.mkdir()
        sql = PAYMENTS.replace("'amount')::BIGINT", f"'amount')::{kind}")
        made = run_table(folder, TOY, spec(folder, sql), [record("payment", payment("a"), "L1")], STORES)
        assert made.rows.to_pylist()[0]["amount"] == Decimal("12.34")


def test_orders_are_records_too_and_days_keep_their_own(tmp_path: Path) -> None:
    sql = PAYMENTS.replace("r.location_id", "object ->> 'where' AS location_id").replace(
        "LEFT JOIN stores AS s USING (location_id)", "LEFT JOIN stores AS s ON s.location_id = object ->> 'where'"
    )
    orders = spec(tmp_path, sql, stream="orders")
    connection, raw = Connection("toy:test", "tenant"), RawStore(object_store(str(tmp_path / "lake")))
    days = [date(2026, 3, 2), date(2026, 3, 3)]
    manifests = [
        land(raw, connection.key, [record("", payment(f"p{day.day}", where="L1"))] * 2, day=day) for day in days
    ]
    made = transform(TOY, orders, connection, STORES, raw, manifests)
    assert [(row["payment_id"], row["business_date"]) for row in made.rows.to_pylist()] == [
        ("p2", days[0]), ("p3", days[1])
    ]  # fmt: skip


def test_dates_that_were_collected_with_another_version_say_so(tmp_path: Path) -> None:
    connection, raw = Connection("toy:test", "tenant"), RawStore(object_store(str(tmp_path / "lake")), "payments")
    days = {date(2026, 3, 2): "6", date(2026, 3, 3): "7"}
    manifests = [
        msgspec.structs.replace(
            land(raw, connection.key, [record("payment", payment(f"p{day.day}"), "L1")], day=day), api_version=one
        )
        for day, one in days.items()
    ]
    made = transform(TOY, spec(tmp_path, PAYMENTS), connection, STORES, raw, manifests)
    assert {row["raw_date"]: row["source_version"] for row in made.rows.to_pylist()} == days


def test_a_row_of_another_raw_partition_is_a_problem_not_a_lost_row(tmp_path: Path) -> None:
    sql = PAYMENTS.replace(" raw_date,", " DATE '2026-03-09' AS raw_date,")
    made = run_table(tmp_path, TOY, spec(tmp_path, sql), [record("payment", payment("a"), "L1")], STORES)
    assert made.rows.num_rows == 0
    assert "which was not asked for" in made.bad[0].reason


def test_hourly_records_know_their_hour_and_an_empty_day_has_no_rows(tmp_path: Path) -> None:
    sql = """
        SELECT location_id, object ->> 'p' AS product_id, object ->> 'n' AS quantity,
            'in_stock' AS availability, collected_at AS counted_at, snapshot_at, raw_date AS business_date,
            NULL AS problem, NULL AS record
        FROM records
    """
    stock = spec(tmp_path, sql, "inventory_levels", "inventory")
    made = run_table(
        tmp_path, TOY, stock, [record("count", {"p": "tea", "n": "2.5"}, "L1")], STORES, slot="2026-03-02/14"
    )
    (row,) = made.rows.to_pylist()
    assert (row["snapshot_at"], row["quantity"]) == (datetime(2026, 3, 2, 14, tzinfo=UTC), Decimal("2.50000"))
    assert run_table(tmp_path, TOY, stock, [], STORES, slot="2026-03-02/15").rows.num_rows == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("'completed' AS status,", ""), "it lacks status"),
        (("'completed' AS status,", "'completed' AS status, 1 AS colour,"), "nobody knows colour"),
        (
            ("r.location_id,", "r.location_id, 0.1::DOUBLE AS fee,"),
            "toy's payments.sql .* money must be exact, and is not in fee",
        ),
        (("FROM records", "FROM nowhere"), "nowhere does not exist"),
        (("r.location_id,", "r.location_id, (SELECT error('whatever it is')) AS settlement_id,"), "whatever it is"),
    ],
)
def test_sql_that_does_not_fit_the_contract_is_refused(tmp_path: Path, change: tuple[str, str], what: str) -> None:
    assert change[0] in PAYMENTS
    with pytest.raises(ContractBrokenError, match=what):
        run_table(
            tmp_path, TOY, spec(tmp_path, PAYMENTS.replace(*change)), [record("payment", payment("a"), "L1")], STORES
        )


PARTS = """
    SELECT p.object ->> 'sku' AS product_id, h.object ->> 'id' AS item_id,
        h.object ->> 'name' AS product_name,
        (p.object ->> 'price')::DECIMAL(18,4) AS price, 'USD' AS currency, true AS active, h.collected_at AS changed_at,
        CASE WHEN (p.object ->> 'sku') IS NULL THEN 'it has no sku' END AS problem, p.object::VARCHAR AS record
    FROM records AS h JOIN records AS p ON p.part_of = h.part_number WHERE h.kind = 'thing'
"""


def test_a_long_record_is_read_in_parts_and_goes_to_quarantine_whole(tmp_path: Path) -> None:
    apart = replace(spec(tmp_path, PARTS, "products", "catalog"), apart={"thing": {"inside.all": "part"}})

    def thing(number: int, *prices: str) -> Record:
        inside = [{"sku": f"{number}-{n}", "price": price} for n, price in enumerate(prices)]
        return record("thing", {"id": str(number), "name": "Tea", "inside": {"all": inside}})

    broken = thing(2, "2", "much", "3")
    again = thing(1, "1", "1.5")
    nameless = record(
        "thing", {"id": "4", "name": "Tea", "inside": {"all": [{"price": "9"}, {"sku": "4-1", "price": "4"}]}}
    )
    made = run_table(tmp_path, TOY, apart, [again, broken, again, thing(3, "3"), nameless], STORES, slot="current")
    assert [(row["item_id"], row["product_id"], row["price"]) for row in made.rows.to_pylist()] == [
        ("1", "1-0", 1), ("1", "1-1", Decimal("1.5")), ("3", "3-0", 3), ("4", "4-1", 4)
    ]  # fmt: skip
    assert [bad.payload for bad in made.bad] == [bytes(broken.raw), b'{"price": "9"}']
    assert "much" in made.bad[0].reason
    assert made.records == 5


def test_too_little_memory_is_no_records_fault(tmp_path: Path) -> None:
    greedy = "(SELECT len(list(n)) FROM range(40000000) AS numbers(n))"
    sql = PAYMENTS.replace("object ->> 'order' AS order_id", f"{greedy} AS order_id")
    assert sql != PAYMENTS
    table, connection = spec(tmp_path, sql), Connection("toy:test", "tenant")
    raw = RawStore(object_store(str(tmp_path / "lake")), table.stream)
    manifest = land(raw, connection.key, [record("payment", payment("a"), "L1")])
    with pytest.raises(duckdb.OutOfMemoryException):
        transform(TOY, table, connection, STORES, raw, [manifest], memory_limit="64MB")
