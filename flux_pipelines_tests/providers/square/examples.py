"""Square's own example payloads: the records in them, and what our tables must say of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from flux_pipelines.settings import PROJECT_ROOT

SHARED = PROJECT_ROOT.parent / "shared"
EXAMPLES = SHARED / "examples" / "square"

Json = dict[str, Any]

_OBJECT_TYPES = ("ITEM", "ITEM_VARIATION", "CATEGORY", "TAX")
#: By the kinds of Square's answers: what makes an object a record of it.
KINDS: dict[str, Callable[[Json], bool]] = {
    "orders": lambda one: "line_items" in one and "location_id" in one,
    "payments": lambda one: "source_type" in one and "total_money" in one,
    "refunds": lambda one: "payment_id" in one and "status" in one and "amount_money" in one,
    "objects": lambda one: one.get("type") in _OBJECT_TYPES and "version" in one,
    "counts": lambda one: "calculated_at" in one and "quantity" in one,
}


def objects(node: Any) -> Iterator[Json]:
    """Every object of a JSON value, whatever it is inside of."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects(child)


def examples(wanted: Callable[[Json], bool]) -> list[Json]:
    """Every object of the example files that is what is wanted, each version of it once."""
    found: dict[str, Json] = {}
    for file in sorted(EXAMPLES.glob("*.json")):
        for one in objects(json.loads(file.read_text())):
            if wanted(one):
                found[json.dumps(one, sort_keys=True)] = one
    return list(found.values())


def records(node: Any) -> Iterator[tuple[str, Json]]:
    """The records of a JSON value with their kinds, those of a text that is JSON itself too; not what is inside of them."""
    if isinstance(node, str) and node.startswith("{"):
        node = json.loads(node)
    if isinstance(node, dict):
        for kind, is_one in KINDS.items():
            if is_one(node):
                yield kind, node
                return
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from records(child)


def as_sold(order: Json) -> Json:
    """An example order as a sale: they are OPEN, and some have neither id nor date; none would be a sale as it is."""
    return {"id": "calculated", "created_at": "2026-03-02T12:00:00Z", **order, "state": "COMPLETED"}


def dollars(money: Json | None) -> Decimal:
    return Decimal(money["amount"] if money else 0).scaleb(-2)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _fees(one: Json) -> Decimal:
    return sum((dollars(fee["amount_money"]) for fee in one.get("processing_fee", ())), Decimal(0))


def check_order(rows: Sequence[Json], order: Json) -> None:
    """The rows of a sale come to the totals printed in it."""
    assert len(rows) == len(order["line_items"])
    assert sum(row["total"] for row in rows) == dollars(order["total_money"])
    for row, line in zip(rows, order["line_items"], strict=True):
        assert row["line_id"] == line["uid"]
        assert row["total"] == dollars(line["total_money"])
        assert row["net"] + row["tax"] == row["total"]
        assert row["gross"] - row["discount"] == row["net"]
        for column, field in (("tax", "total_tax_money"), ("discount", "total_discount_money")):
            if field in line:
                assert row[column] == dollars(line[field])
        if "gross_sales_money" in line:
            assert row["gross"] == dollars(line["gross_sales_money"])
        assert row["unit_price"] == dollars(line["base_price_money"])
        assert row["quantity"] == Decimal(line["quantity"])
    if "total_tax_money" in order:
        assert sum(row["tax"] for row in rows) == dollars(order["total_tax_money"])
        assert sum(row["discount"] for row in rows) == dollars(order["total_discount_money"])


def check_payment(row: Json, payment: Json, day: date) -> None:
    """A row of `payments` says what the payment does."""
    assert (row["payment_id"], row["order_id"], row["location_id"]) == (
        payment["id"], payment["order_id"], payment["location_id"],
    )  # fmt: skip
    assert (row["kind"], row["tender"]) == ("payment", "card")
    assert row["tender_detail"] == f"CARD {payment['card_details']['card']['card_brand']}"
    assert (row["amount"], row["tip"]) == (dollars(payment["amount_money"]), 0)
    assert row["amount"] + row["tip"] == dollars(payment["total_money"])
    assert row["fee"] == -_fees(payment)
    assert (row["currency"], row["business_date"]) == ("USD", day)
    assert row["status"] == {"COMPLETED": "completed", "APPROVED": "pending"}[payment["status"]]
    assert (row["occurred_at"], row["updated_at"]) == (at(payment["created_at"]), at(payment["updated_at"]))


def check_refund(row: Json, refund: Json) -> None:
    """A row of `payments` says what the refund does."""
    assert (row["kind"], row["payment_id"]) == ("refund", refund["id"])
    assert (row["order_id"], row["source_payment_id"]) == (refund["order_id"], refund["payment_id"])
    assert (row["amount"], row["tip"], row["fee"]) == (-dollars(refund["amount_money"]), 0, -_fees(refund))
    assert row["status"] == {"COMPLETED": "completed", "PENDING": "pending"}[refund["status"]]
    assert row["occurred_at"] == at(refund["created_at"])


def check_product(row: Json, variation: Json, item: Json) -> None:
    """A row of `products` says what the variation and its item do."""
    data = variation["item_variation_data"]
    assert (row["product_id"], row["item_id"]) == (variation["id"], item["id"])
    assert row["product_name"] == item["item_data"]["name"]
    assert (row["variation"], row["price"], row["currency"]) == (data["name"], dollars(data["price_money"]), "USD")
    assert row["active"] is not variation["is_deleted"]
    assert row["changed_at"] == max(at(variation["updated_at"]), at(item["updated_at"]))


def check_count(row: Json, count: Json, snapshot_at: datetime) -> None:
    """A row of `inventory_levels` says what the count does."""
    assert (row["product_id"], row["location_id"]) == (count["catalog_object_id"], count["location_id"])
    assert (row["quantity"], row["availability"]) == (Decimal(count["quantity"]), "in_stock")
    assert row["counted_at"] == at(count["calculated_at"])
    assert row["snapshot_at"] == snapshot_at
