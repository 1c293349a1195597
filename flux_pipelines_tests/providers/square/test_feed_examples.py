"""Square's own examples of payments, refunds, goods, counts and timecards, through the SQL: to the values printed in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.providers.base import Location
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.sync.feedfiles import DAY, record, run_sql

SHARED = PROJECT_ROOT.parent / "shared"
EXAMPLES = SHARED / "examples" / "square"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared examples are not here")
STORES = [Location("L1", "One", "America/New_York", "USD")]


def examples(wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Every object of the example files that is what is wanted, each version of it once."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(EXAMPLES.glob("*.json")):
        for one in objects(json.loads(file.read_text())):
            if wanted(one):
                found[json.dumps(one, sort_keys=True)] = one
    return list(found.values())


def objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects(child)


def rows(folder: Path, table: str, kind: str, given: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    made = run_sql(folder, PROVIDER, table, [record(kind, one) for one in given], STORES, **more)
    assert made.bad == []
    return list(made.rows.to_pylist())


def dollars(money: dict[str, Any] | None) -> Decimal:
    return Decimal(money["amount"] if money else 0).scaleb(-2)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def fees(one: dict[str, Any]) -> Decimal:
    return sum((dollars(fee["amount_money"]) for fee in one.get("processing_fee", ())), Decimal(0))


def test_payments(tmp_path: Path) -> None:
    given = examples(lambda one: "source_type" in one and "total_money" in one)
    assert len(given) == 3
    for number, payment in enumerate(given):
        (row,) = rows(tmp_path / str(number), "payments", "payment", [payment])
        assert (row["payment_id"], row["order_id"], row["location_id"]) == (
            payment["id"], payment["order_id"], payment["location_id"],
        )  # fmt: skip
        assert (row["kind"], row["tender"]) == ("payment", "card")
        assert row["tender_detail"] == f"CARD {payment['card_details']['card']['card_brand']}"
        assert (row["amount"], row["tip"]) == (dollars(payment["amount_money"]), 0)
        assert row["amount"] + row["tip"] == dollars(payment["total_money"])
        assert row["fee"] == -fees(payment)
        assert (row["currency"], row["business_date"]) == ("USD", DAY)
        assert row["status"] == {"COMPLETED": "completed", "APPROVED": "pending"}[payment["status"]]
        assert (row["occurred_at"], row["updated_at"]) == (at(payment["created_at"]), at(payment["updated_at"]))


def test_refunds(tmp_path: Path) -> None:
    given = examples(lambda one: "payment_id" in one and "status" in one and "amount_money" in one)
    assert len(given) == 3
    for number, refund in enumerate(given):
        (row,) = rows(tmp_path / str(number), "payments", "refund", [refund])
        assert (row["kind"], row["payment_id"]) == ("refund", refund["id"])
        assert (row["order_id"], row["source_payment_id"]) == (refund["order_id"], refund["payment_id"])
        assert (row["amount"], row["tip"], row["fee"]) == (-dollars(refund["amount_money"]), 0, -fees(refund))
        assert row["status"] == {"COMPLETED": "completed", "PENDING": "pending"}[refund["status"]]
        assert row["occurred_at"] == at(refund["created_at"])


def test_the_catalogue(tmp_path: Path) -> None:
    given = examples(lambda one: one.get("type") in ("ITEM", "CATEGORY") and "version" in one)
    variations = examples(lambda one: one.get("type") == "ITEM_VARIATION" and "version" in one)
    items = {one["id"]: one for one in given if one["type"] == "ITEM"}
    made = rows(tmp_path, "products", "item", list(items.values()))
    assert len(made) == len({one["id"] for one in variations}) == 3
    by_id = {row["product_id"]: row for row in made}
    for one in variations:
        row, data = by_id[one["id"]], one["item_variation_data"]
        item = items[data["item_id"]]
        assert (row["item_id"], row["product_name"]) == (item["id"], item["item_data"]["name"])
        assert (row["variation"], row["price"], row["currency"]) == (data["name"], dollars(data["price_money"]), "USD")
        assert row["active"] is not one["is_deleted"]
        assert row["changed_at"] == max(at(one["updated_at"]), at(item["updated_at"]))


def test_counts(tmp_path: Path) -> None:
    given = examples(lambda one: "calculated_at" in one and "quantity" in one)
    assert len(given) == 2
    made = rows(tmp_path, "inventory_levels", "count", given, slot=f"{DAY}/12")
    for row, count in zip(
        sorted(made, key=lambda row: row["product_id"]), sorted(given, key=lambda one: one["catalog_object_id"]), strict=True
    ):  # fmt: skip
        assert (row["product_id"], row["location_id"]) == (count["catalog_object_id"], count["location_id"])
        assert (row["quantity"], row["availability"]) == (Decimal(count["quantity"]), "in_stock")
        assert row["counted_at"] == at(count["calculated_at"])
        assert row["snapshot_at"] == at(f"{DAY}T12:00:00+00:00")


def test_locations(tmp_path: Path) -> None:
    given = examples(lambda one: "merchant_id" in one and "timezone" in one and "currency" in one)
    made = {row["location_id"]: row for row in rows(tmp_path, "locations", "location", given)}
    assert len(made) == 2
    for one in given:
        row = made[one["id"]]
        assert (row["name"], row["timezone"], row["currency"], row["country"]) == (
            one["name"], one["timezone"], one["currency"], one["country"],
        )  # fmt: skip
        assert (row["city"], row["active"]) == (one["address"]["locality"], one["status"] == "ACTIVE")


def test_timecards(tmp_path: Path) -> None:
    spec = json.loads((SHARED / "specs" / "square" / "square-api.json").read_text())
    given = spec["components"]["schemas"]["SearchTimecardsResponse"]["example"]["timecards"]
    barista, cook = sorted(rows(tmp_path, "time_entries", "time_entry", given), key=lambda row: str(row["job_title"]))
    assert (barista["paid_hours"], barista["unpaid_break_minutes"]) == (10, 0), "its break was paid"
    assert (cook["paid_hours"], cook["unpaid_break_minutes"]) == (Decimal("0.76667"), 14)
    for row, card in ((barista, given[0]), (cook, given[1])):
        assert (row["time_entry_id"], row["employee_id"]) == (card["id"], card["team_member_id"])
        assert (row["clock_in"], row["clock_out"]) == (at(card["start_at"]), at(card["end_at"]))
        assert row["hourly_wage"] == dollars(card["wage"]["hourly_rate"])
        assert row["declared_cash_tips"] == dollars(card["declared_cash_tip_money"])
        assert (row["status"], row["currency"]) == ("closed", "USD")
