"""Toast's own examples of payments, menus, stock and restaurants, and what is hard in them, through the SQL files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.providers.base import Location, Record
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines_tests.providers.toast.examples import (
    STOCK,
    assert_menu_is_as_printed,
    order_of,
    payment_figures,
    payments_of,
    stock_figures,
)
from flux_pipelines_tests.providers.toast.wire import EXAMPLES, RESTAURANT, read
from flux_pipelines_tests.sync.streamfiles import record, run_sql

D = Decimal
PLACES = [Location(RESTAURANT, "Fenway", "America/New_York", "USD")]


@pytest.fixture
def examples() -> Path:
    if not EXAMPLES.is_dir():
        pytest.skip("the shared examples are not here")
    return EXAMPLES


def rows(folder: Path, table: str, records: Sequence[Record | bytes], **more: Any) -> list[dict[str, Any]]:
    made = run_sql(folder, PROVIDER, table, records, PLACES, **more)
    assert [bad.reason for bad in made.bad] == []
    return list(made.rows.to_pylist())


def order_with(*payments: dict[str, Any], **more: Any) -> bytes:
    return bytes(read(order_of(*payments, **more)).raw)


def test_the_payment_examples_read_to_their_printed_amounts(examples: Path, tmp_path: Path) -> None:
    given = [json.loads((examples / f"payment_get_{name}.json").read_text()) for name in ("a", "b", "refunded")]
    of_order = json.loads((examples / "order_get.json").read_text())["checks"][0]["payments"][0]
    made = rows(tmp_path, "payments", [order_with(*given, of_order)])
    assert payment_figures(made) == payments_of(*(one["guid"] for one in (*given, of_order)))
    (back,) = [row for row in made if row["kind"] == "refund"]
    assert back["source_payment_id"] == back["payment_id"]
    assert back["occurred_at"] == datetime(2020, 2, 19, 19, 48, 31, 828000, UTC)
    assert (back["order_id"], back["location_id"], back["raw_date"]) == ("O1", RESTAURANT, date(2026, 3, 2))
    # Each on its own date (`paidBusinessDate`, `refundBusinessDate`), whatever the order's is.
    assert {(row["payment_id"][:4], row["kind"]): row["business_date"] for row in made} == {
        ("361d", "payment"): date(2020, 2, 11), ("2f20", "payment"): date(2020, 2, 18),
        ("3e95", "payment"): date(2020, 2, 19), ("3e95", "refund"): date(2020, 2, 19),
        ("e8ce", "payment"): date(2019, 2, 24),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("CREDIT", "AUTHORIZED", ("card", "pending", D(5))),
        ("CREDIT", "DENIED", ("card", "failed", D(0))),
        ("CREDIT", "VOIDED", ("card", "canceled", D(0))),
        ("CREDIT", "PROCESSING_VOID", ("card", "canceled", D(0))),
        ("CREDIT", "SHINING", ("card", "pending", D(5))),
        ("MOONBEAM", "SHINING", ("other", "completed", D(5))),
        ("GIFTCARD", None, ("gift_card", "completed", D(5))),
    ],
)
def test_what_a_payment_has_become(tmp_path: Path, kind: str, status: str | None, expected: tuple[Any, ...]) -> None:
    paid = {"guid": "p", "type": kind, "paymentStatus": status, "amount": 5.000000000000001, "tipAmount": None}
    row = rows(tmp_path, "payments", [order_with(paid)])[0]
    assert (row["tender"], row["status"], row["amount"]) == expected


def test_payments_of_practice_of_waste_and_of_no_check_are_none(tmp_path: Path) -> None:
    paid = {"guid": "p", "type": "CASH", "amount": 5}
    of_none = [order_with(paid, createdInTestMode=True), order_with(paid, excessFood=True), order_with(checks=[])]
    assert rows(tmp_path, "payments", of_none) == []


def test_a_payment_is_of_the_check_that_it_was_moved_to(tmp_path: Path) -> None:
    # "if you combine a check into another order, the original order for the check is deleted": both name the payment.
    paid = {"guid": "p", "type": "CREDIT", "paymentStatus": "CAPTURED", "amount": 5}
    moved = {"guid": "c1", "deleted": True, "payments": [paid]}
    here = {"guid": "c2", "deleted": False, "payments": [paid]}
    orders = [
        order_with(checks=[moved]),
        order_with(paid, guid="O2", deleted=True),
        order_with(checks=[here], guid="O3"),
    ]
    assert [(row["payment_id"], row["order_id"]) for row in rows(tmp_path, "payments", orders)] == [("p", "O3")]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"paidBusinessDate": 20260224, "paidDate": "2026-02-26T18:00:00.000+0000"}, date(2026, 2, 24)),
        # The evening before, in New York.
        ({"paidBusinessDate": None, "paidDate": "2026-02-26T02:30:00.000+0000"}, date(2026, 2, 25)),
        ({}, date(2026, 3, 2)),
    ],
)
def test_a_payment_counts_on_the_day_on_which_it_was_made(tmp_path: Path, said: dict[str, Any], expected: date) -> None:
    (row,) = rows(tmp_path, "payments", [order_with({"guid": "p", "type": "CASH", "amount": 5, **said})])
    assert (row["business_date"], row["raw_date"]) == (expected, date(2026, 3, 2))


def test_a_date_of_many_long_orders_fits_into_memory(tmp_path: Path) -> None:
    long = [{"a": n, "b": None, "c": [n, {"d": True}]} for n in range(300)]
    given = [
        order_with({"guid": f"p{n}", "type": "CASH", "amount": 5}, guid=f"O{n}", selections=long) for n in range(3000)
    ]
    assert len(rows(tmp_path, "payments", given)) == len(given)


def test_a_payment_that_cannot_be_read_is_kept_with_the_reason(tmp_path: Path) -> None:
    good = {"guid": "p", "type": "CASH", "amount": 5}
    made = run_sql(
        tmp_path, PROVIDER, "payments", [order_with({"type": "CASH", "amount": "$5"}), order_with(good)], PLACES
    )
    assert [row["payment_id"] for row in made.rows.to_pylist()] == ["p"]
    assert [bad.reason for bad in made.bad] == ["payment: one of its payments has no guid"]


def test_the_menu_example_has_its_item_its_sizes_and_its_options(examples: Path, tmp_path: Path) -> None:
    menu = record("menu", (examples / "menus_v2_size_pricing_excerpt.json").read_bytes(), RESTAURANT)
    assert_menu_is_as_printed(rows(tmp_path, "products", [menu], slot="current"))


def test_groups_within_groups_circles_of_modifiers_and_shared_items(tmp_path: Path) -> None:
    def item(number: int, **more: Any) -> dict[str, Any]:
        return {
            "guid": f"g{number}",
            "multiLocationId": f"10{number}",
            "name": f"Item {number}",
            "price": number,
            **more,
        }

    deep = {"name": "Deep", "menuItems": [item(3, modifierGroupReferences=[1])], "menuGroups": []}
    inner = {"name": "Inner", "menuItems": [item(2)], "menuGroups": [deep]}
    outer = {"name": "Outer", "menuItems": [item(1, sku="A-1", plu="4011")], "menuGroups": [inner]}
    menus = {
        "restaurantGuid": RESTAURANT,
        "lastUpdated": "2026-03-01T10:00:00.000+0000",
        "menus": [
            {"name": "Lunch", "menuGroups": [outer]},
            {"name": "Again", "menuGroups": [{"name": "Other", "menuItems": [item(1, name="Elsewhere")]}]},
            {"name": "Empty", "menuGroups": None},
        ],
        "modifierGroupReferences": {
            "1": {"referenceId": 1, "guid": "mg1", "name": "Extras", "modifierOptionReferences": [10]},
            "2": {"referenceId": 2, "guid": "mg2", "name": "More", "modifierOptionReferences": [11]},
        },
        "modifierOptionReferences": {
            "10": {"referenceId": 10, **item(10), "modifierGroupReferences": [2]},
            "11": {"referenceId": 11, **item(11), "price": 0.35, "modifierGroupReferences": [1]},
        },
    }
    found = {
        r["product_id"]: r for r in rows(tmp_path, "products", [record("menu", menus, RESTAURANT)], slot="current")
    }
    assert {key: (r["product_name"], r["category"], r["price"]) for key, r in found.items()} == {
        "101": ("Item 1", "Outer", 1),
        "102": ("Item 2", "Inner", 2),
        "103": ("Item 3", "Deep", 3),
        "1010": ("Item 10", "Extras", 10),
        "1011": ("Item 11", "More", D("0.35")),
    }
    assert (found["101"]["sku"], found["101"]["upc"]) == ("A-1", "4011")
    assert found["101"]["changed_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_the_stock_examples(examples: Path, tmp_path: Path) -> None:
    listed = json.loads((examples / "stock_inventory.json").read_text())
    searched = json.loads((examples / "stock_inventory_search.json").read_text())
    strange = {"guid": "s", "multiLocationId": "1", "status": "ON_THE_MOON", "quantity": None}
    records: list[Record | bytes] = [record("stock", one, RESTAURANT) for one in (*listed, *searched[1:], strange)]
    found = stock_figures(rows(tmp_path, "inventory_levels", records, slot="2026-03-02/12"))
    again = "100000000171239701"  # asked for last
    assert found == STOCK["stock_inventory"] | {again: STOCK["stock_inventory_search"][again], "1": ("in_stock", None)}
    first = rows(
        tmp_path / "first", "inventory_levels", [record("stock", searched[0], RESTAURANT)], slot="2026-03-02/12"
    )
    product = searched[0]["multiLocationId"]
    assert stock_figures(first) == {product: STOCK["stock_inventory_search"][product]}


def test_the_restaurant_example(examples: Path, tmp_path: Path) -> None:
    restaurant = json.loads((examples / "restaurant_info.json").read_text())
    made = run_sql(
        tmp_path,
        PROVIDER,
        "locations",
        [record("location", restaurant, restaurant["guid"])],
        [Location(restaurant["guid"], "Trattoria Roma - Fenway", "America/New_York", "USD")],
        slot="current",
    )
    row = made.rows.to_pylist()[0]
    assert (row["name"], row["timezone"], row["currency"]) == ("Trattoria Roma - Fenway", "America/New_York", "USD")
    assert (row["country"], row["city"], row["cutoff_hour"], row["active"]) == ("US", "Boston", 6, True)


def test_time_entries_open_closed_and_deleted(tmp_path: Path) -> None:
    def entry(guid: str, out: str | None, **more: Any) -> Record:
        return record(
            "time_entry",
            {
                "guid": guid,
                "entityType": "TimeEntry",
                "jobReference": {"guid": "j1"},
                "employeeReference": {"guid": "e1"},
                "inDate": "2026-03-02T15:00:00.000+0000",
                "outDate": out,
                "businessDate": "20260302",
                "regularHours": 7.25,
                "overtimeHours": 0.5,
                "hourlyWage": 18.5,
                "declaredCashTips": 12.1,
                "deleted": False,
                "breaks": [
                    {
                        "paid": False,
                        "inDate": "2026-03-02T18:00:00.000+0000",
                        "outDate": "2026-03-02T18:30:30.000+0000",
                    },
                    {"paid": True, "inDate": "2026-03-02T20:00:00.000+0000", "outDate": "2026-03-02T20:10:00.000+0000"},
                    {"paid": False, "missed": True, "inDate": "2026-03-02T20:00:00.000+0000", "outDate": None},
                ],
                **more,
            },
            RESTAURANT,
        )

    out = "2026-03-02T23:00:00.000+0000"
    records: list[Record | bytes] = [
        entry("t1", out),
        entry("t2", None, regularHours=0),
        entry("t3", out, deleted=True, hourlyWage=None),
        entry("t4", out, regularHours=None, overtimeHours=None, breaks=[]),
        record("job", {"guid": "j1", "title": "Cook"}, RESTAURANT),
    ]
    found = {r["time_entry_id"]: r for r in rows(tmp_path, "time_entries", records)}
    assert {key: (r["status"], r["paid_hours"], r["hourly_wage"]) for key, r in found.items()} == {
        "t1": ("closed", D("7.75"), D("18.5")),
        "t2": ("open", None, D("18.5")),
        "t3": ("deleted", D("7.75"), None),
        "t4": ("closed", D(8), D("18.5")),
    }
    one = found["t1"]
    assert (one["employee_id"], one["job_title"], one["unpaid_break_minutes"]) == ("e1", "Cook", D("30.5"))
    assert (one["declared_cash_tips"], one["currency"]) == (D("12.1"), "USD")
