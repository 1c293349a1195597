"""Square's own examples of payments, refunds, goods, counts and timecards, through the SQL: to the values printed in them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.providers.base import Location
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines_tests.providers.square.examples import (
    EXAMPLES,
    KINDS,
    SHARED,
    at,
    check_count,
    check_payment,
    check_product,
    check_refund,
    dollars,
    examples,
)
from flux_pipelines_tests.sync.streamfiles import DAY, record, run_sql

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared examples are not here")
STORES = [Location("L1", "One", "America/New_York", "USD")]


def rows(folder: Path, table: str, kind: str, given: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    made = run_sql(folder, PROVIDER, table, [record(kind, one) for one in given], STORES, **more)
    assert made.bad == []
    return list(made.rows.to_pylist())


def test_payments(tmp_path: Path) -> None:
    given = examples(KINDS["payments"])
    assert len(given) == 3
    for number, payment in enumerate(given):
        (row,) = rows(tmp_path / str(number), "payments", "payment", [payment])
        check_payment(row, payment, DAY)


def test_refunds(tmp_path: Path) -> None:
    given = examples(KINDS["refunds"])
    assert len(given) == 3
    for number, refund in enumerate(given):
        (row,) = rows(tmp_path / str(number), "payments", "refund", [refund])
        check_refund(row, refund)


def test_the_catalog(tmp_path: Path) -> None:
    given = examples(lambda one: one.get("type") in ("ITEM", "CATEGORY") and "version" in one)
    variations = examples(lambda one: one.get("type") == "ITEM_VARIATION" and "version" in one)
    items = {one["id"]: one for one in given if one["type"] == "ITEM"}
    made = rows(tmp_path, "products", "item", list(items.values()))
    assert len(made) == len({one["id"] for one in variations}) == 3
    by_id = {row["product_id"]: row for row in made}
    for one in variations:
        check_product(by_id[one["id"]], one, items[one["item_variation_data"]["item_id"]])


def test_counts(tmp_path: Path) -> None:
    given = examples(KINDS["counts"])
    assert len(given) == 2
    made = rows(tmp_path, "inventory_levels", "count", given, slot=f"{DAY}/12")
    for row, count in zip(
        sorted(made, key=lambda row: row["product_id"]), sorted(given, key=lambda one: one["catalog_object_id"]), strict=True
    ):  # fmt: skip
        check_count(row, count, at(f"{DAY}T12:00:00+00:00"))


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
