"""Products as they were at any time, from snapshots of what there is now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from flux_pipelines.domain.tables import PRODUCTS
from flux_pipelines.sync.scd2 import merge
from flux_pipelines.sync.transform import derived_schema

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def product(product_id: str, price: str = "3.50", changed_at: datetime | None = None, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("item_id", "variation", "category", "sku", "upc"))
    return {
        "connection": "toy:a", "tenant": "t", "product_id": product_id, "product_name": "Tea", **empty,
        "price": Decimal(price), "currency": "USD", "active": True, "source_system": "toy", "source_version": "1",
        "changed_at": changed_at, **more,
    }  # fmt: skip


def after(known: pa.Table | None, products: list[dict[str, Any]], at: datetime) -> pa.Table:
    snapshot = pa.Table.from_pylist(products, schema=derived_schema(PRODUCTS))
    return merge(PRODUCTS, known, snapshot, at)


def periods(table: pa.Table) -> list[tuple[Any, ...]]:
    return [
        (row["product_id"], row["price"], row["active"], row["valid_from"], row["valid_to"])
        for row in table.to_pylist()
    ]


def test_a_change_closes_a_row_and_opens_the_next_and_a_rerun_changes_nothing() -> None:
    first = after(None, [product("a", changed_at=T0 - HOUR), product("b")], T0)
    price, other = Decimal("3.5000"), Decimal("4.0000")
    assert periods(first) == [("a", price, True, T0 - HOUR, None), ("b", price, True, T0, None)]
    assert after(first, [product("b"), product("a", changed_at=T0 - HOUR)], T0 + HOUR).equals(first)

    edited = [product("a", "4", T0 + HOUR), product("b", "4", T0 - 9 * HOUR)]  # b's own time of change tells nothing
    second = after(first, edited, T0 + 2 * HOUR)
    assert periods(second) == [
        ("a", price, True, T0 - HOUR, T0 + HOUR),
        ("a", other, True, T0 + HOUR, None),
        ("b", price, True, T0, T0 + 2 * HOUR),
        ("b", other, True, T0 + 2 * HOUR, None),
    ]
    assert after(second, edited, T0 + 2 * HOUR).equals(second)
    assert after(second, edited, T0 + 3 * HOUR).equals(second)


def test_what_disappears_becomes_inactive_once_and_may_come_back() -> None:
    first = after(None, [product("a"), product("b")], T0)
    gone = after(first, [product("a")], T0 + HOUR)
    assert [row[2:] for row in periods(gone) if row[0] == "b"] == [(True, T0, T0 + HOUR), (False, T0 + HOUR, None)]
    assert after(gone, [product("a")], T0 + 2 * HOUR).equals(gone)
    back = after(gone, [product("a"), product("b")], T0 + 3 * HOUR)
    assert [row[2] for row in periods(back) if row[0] == "b"] == [True, False, True]
    assert len({(row[0], row[3]) for row in periods(back)}) == back.num_rows


def test_a_new_api_version_is_no_change_and_two_looks_at_one_instant_leave_one_row() -> None:
    first = after(None, [product("a")], T0)
    assert after(first, [product("a", source_version="2")], T0 + HOUR).equals(first)
    assert periods(after(first, [product("a", "9")], T0)) == [("a", Decimal("9.0000"), True, T0, None)]
