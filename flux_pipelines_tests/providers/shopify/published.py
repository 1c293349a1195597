"""Shopify's published examples, and what our rows must say of each: the values that are printed in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from flux_pipelines_tests.providers.shopify.nodes import found_in

Row = Mapping[str, Any]
Printed = Mapping[str, Any]


def read(examples: Path, name: str, member: str) -> Any:
    """Return what an example holds under a name, wherever it stands."""
    found = found_in(json.loads((examples / f"{name}.json").read_text()), member)
    assert found is not None, (name, member)
    return found


def order(examples: Path, name: str) -> dict[str, Any]:
    return read(examples, name, "order")  # type: ignore[no-any-return]


def transactions(examples: Path) -> list[dict[str, Any]]:
    return read(examples, "rest_order_transactions_list", "transactions")  # type: ignore[no-any-return]


def products(examples: Path, name: str) -> list[dict[str, Any]]:
    return read(examples, name, "products")  # type: ignore[no-any-return]


def levels(examples: Path) -> list[dict[str, Any]]:
    return read(examples, "rest_inventory_levels", "inventory_levels")  # type: ignore[no-any-return]


def expect_lines(printed: Printed, rows: Sequence[Row]) -> None:
    """Expect the lines of an order of which some were given back."""
    sold = [row for row in rows if row["kind"] == "sale"]
    returned = [row for row in rows if row["kind"] == "return"]
    assert sum(r["total"] for r in sold) == Decimal(printed["total_price"])
    assert sum(r["total"] for r in rows) == Decimal(printed["current_total_price"])
    assert sum(r["tax"] for r in sold) == Decimal(printed["total_tax"])
    assert sum(r["tax"] for r in rows) == Decimal(printed["current_total_tax"])
    assert sum(r["gross"] for r in sold) == Decimal(printed["total_line_items_price"])
    assert sum(r["discount"] for r in sold) == Decimal(printed["total_discounts"])
    assert sum(r["net"] for r in rows) == Decimal(printed["current_subtotal_price"])
    assert sum(r["discount"] for r in rows) == Decimal(printed["current_total_discounts"])
    expect_returns(printed["refunds"][0], returned)
    assert {r["occurred_at"].isoformat() for r in returned} != {r["occurred_at"].isoformat() for r in sold}
    assert {r["order_id"] for r in rows} == {str(printed["id"])}
    assert [r["product_id"] for r in sold] == [str(item["variant_id"]) for item in printed["line_items"]]
    assert [r["sku"] for r in sold] == [item["sku"] for item in printed["line_items"]]
    given_back = [r["tendered_refund"] for r in rows if r["tendered_refund"]]
    assert given_back == [-Decimal(printed["refunds"][0]["transactions"][0]["amount"])]


def expect_returns(printed: Printed, returned: Iterable[Row]) -> None:
    """Expect the lines that a refund gives back."""
    assert [(r["source_line_id"], r["quantity"], r["net"], r["tax"]) for r in returned] == [
        (str(x["line_item_id"]), -x["quantity"], -Decimal(str(x["subtotal"])), -Decimal(str(x["total_tax"])))
        for x in printed["refund_line_items"]
    ]


def expect_sold(printed: Printed, rows: Sequence[Row]) -> None:
    """Expect a row for every line of an order of which nothing came back."""
    assert {row["kind"] for row in rows} == {"sale"}
    assert len(rows) == len(printed["line_items"])
    assert sum(row["total"] for row in rows) == Decimal(printed["current_total_price"])


def expect_cancelled(printed: Printed, rows: Sequence[Row]) -> None:
    """Expect every line of an order as it was sold, and as it came back when the order was cancelled."""
    sold = [row for row in rows if row["kind"] == "sale"]
    returned = [row for row in rows if row["kind"] == "return"]
    assert len(sold) == len(returned) == len(printed["line_items"])
    assert sum(row["total"] for row in sold) == Decimal(printed["total_price"])
    assert sum(row["total"] for row in rows) == 0
    expect_returns(printed["refunds"][0], returned)
    assert {row["occurred_at"] for row in sold} == {datetime.fromisoformat(printed["processed_at"])}
    assert {row["occurred_at"] for row in returned} == {datetime.fromisoformat(printed["cancelled_at"])}


def expect_payments(printed: Sequence[Printed], rows: Sequence[Row]) -> None:
    """Expect the payments that these transactions are."""
    shown = {str(t["id"]): t for t in printed}
    assert {r["payment_id"] for r in rows} <= shown.keys()
    for row in rows:
        example = shown[row["payment_id"]]
        assert abs(row["amount"]) == Decimal(example["amount"])
        assert row["kind"] == ("refund" if example["kind"] == "refund" else "payment")
        assert row["source_payment_id"] == (
            str(example["parent_id"]) if row["kind"] == "refund" and example["parent_id"] else None
        )
    counted = [t for t in shown.values() if t["kind"] in ("capture", "sale", "refund") and t["status"] == "success"]
    assert len([r for r in rows if r["status"] == "completed"]) == len(counted)


def expect_products(printed: Iterable[Printed], rows: Iterable[Row]) -> None:
    """Expect a row for every variant."""
    names = ("item_id", "product_name", "variation", "sku", "upc", "price", "category", "active")
    assert {row["product_id"]: tuple(row[name] for name in names) for row in rows} == {
        str(v["id"]): (
            str(p["id"]),
            p["title"],
            None if v["title"] == "Default Title" else v["title"],
            v["sku"] or None,
            v.get("barcode") or None,
            Decimal(v["price"]),
            p["product_type"] or None,
            p["status"] == "active",
        )
        for p in printed
        for v in p["variants"]
    }


def expect_levels(printed: Iterable[Printed], rows: Iterable[Row]) -> None:
    """Expect a row for every count."""
    found = {
        (r["location_id"], r["product_id"]): (r["quantity"], r["availability"], r["sku"], r["counted_at"]) for r in rows
    }
    assert found == {
        (str(x["location_id"]), str(x["inventory_item_id"])): (
            x["available"],
            "in_stock" if x["available"] > 0 else "out_of_stock",
            None,
            datetime.fromisoformat(x["updated_at"]),
        )
        for x in printed
    }
