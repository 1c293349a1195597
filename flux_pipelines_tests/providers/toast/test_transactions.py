"""Toast's own examples, and orders of every kind, through the client's reading and transactions.sql."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines_tests.providers.toast.examples import CLOSED, as_sold, assert_rows_are_as_printed, priced_orders
from flux_pipelines_tests.providers.toast.made import charge, check, one, order, payment, selection
from flux_pipelines_tests.providers.toast.wire import DAY, EXAMPLES, RESTAURANT, header, read, rows_of

D = Decimal


def test_there_are_examples() -> None:
    if EXAMPLES.is_dir():
        assert len(priced_orders()) >= 7


@pytest.mark.parametrize("example", priced_orders())
def test_the_examples_read_to_their_printed_amounts(example: dict[str, Any], tmp_path: Path) -> None:
    order = as_sold(example)

    rows, work = rows_of(tmp_path, order)

    assert work.bad == []
    assert_rows_are_as_printed(rows, order)


def test_an_example_has_toasts_business_date_and_state() -> None:
    if not EXAMPLES.is_dir():
        pytest.skip("the shared examples are not here")
    found = header(json.loads((EXAMPLES / "order_get.json").read_text()))
    assert (found.order_id, found.business_date) == ("017fdd94-4a30-4657-9475-b1a684758531", date(2019, 2, 24))
    assert (found.state, found.total, found.currency, found.location_id) == ("COMPLETED", 106, "USD", RESTAURANT)
    assert found.created_at.isoformat() == "2019-02-24T13:48:44.206000+00:00"
    assert found.updated_at.isoformat() == found.closed_at.isoformat() == "2019-02-25T11:05:00.024000+00:00"  # type: ignore[union-attr]
    voided = json.loads((EXAMPLES / "order_void_response_excerpt.json").read_text())
    assert header({**voided, "businessDate": 20250910, "openedDate": CLOSED}).state == "CANCELED"
    first = json.loads((EXAMPLES / "orders_bulk_first_order.json").read_text())[0]
    assert header(first).state == "OPEN"


def test_rows_have_the_contracts_schema_and_what_the_request_knew(tmp_path: Path) -> None:
    row = one(tmp_path, order(check(selection(), total=10)))[0]
    assert set(row) == {column.name for column in TRANSACTIONS}
    assert (row["location_id"], row["currency"], row["business_date"]) == (RESTAURANT, "USD", DAY)
    assert (row["order_id"], row["product_id"], row["source_version"]) == ("O1", "100000000171238879", "2.9.4")
    assert row["occurred_at"].isoformat() == "2026-03-02T12:00:00.123000+00:00"


def test_an_order_is_kept_byte_for_byte_behind_what_the_request_knew() -> None:
    text = '{ "guid":"O1", "businessDate":20260302,"openedDate":"2026-03-02T12:00:00.000+0000","x":1.10, "checks":[]}'
    raw = bytes(read(text).raw)
    front = b'{"flux_location_id":"' + RESTAURANT.encode() + b'","flux_currency":"USD",'
    assert raw == front + text[1:].encode()


def test_floats_are_exact_to_the_cent(tmp_path: Path) -> None:
    prices = [0.07, 0.29, 1.1, 12.990000000000002, 4.35, 1033.33, 90071992547.99]
    lines = [selection(f"s{n}", price) for n, price in enumerate(prices)]
    exact = [D("0.07"), D("0.29"), D("1.1"), D("12.99"), D("4.35"), D("1033.33"), D("90071992547.99")]
    given = order(check(*lines, total=0.0))
    text = json.dumps(given).replace('"totalAmount": 0.0', f'"totalAmount": {sum(exact)}')
    rows = one(tmp_path, text)
    assert [row["net"] for row in rows] == exact
    assert sum(row["total"] for row in rows) == sum(exact)


@pytest.mark.parametrize(
    ("currency", "price", "minor"), [("JPY", 1200, 1200), ("USD", 12.5, 1250), ("BHD", 1.234, 1234)]
)
def test_amounts_are_of_the_restaurants_currency(tmp_path: Path, currency: str, price: float, minor: int) -> None:
    given = order(check(selection(price=price), total=price))
    assert header(given, currency).total == minor
    rows = one(tmp_path, given, currency=currency)
    assert [(row["total"], row["currency"]) for row in rows] == [(D(str(price)), currency)]


def test_modifiers_are_inside_their_parent_and_are_not_multiplied(tmp_path: Path) -> None:
    cream = selection(
        "m1", 5.0, quantity=5, modifiers=[selection("m2", 2.5, quantity=5, modifiers=[selection("m3", 0)])]
    )
    pies = selection(
        price=52.5,
        tax=4.2,
        quantity=5.0,
        receiptLinePrice=9,
        preDiscountPrice=52.5,
        modifiers=[cream],
        displayName="Key Lime Pie",
    )
    rows = one(tmp_path, order(check(pies, total=56.7)))
    assert [(r["line_id"], r["quantity"], r["unit_price"], r["gross"], r["total"]) for r in rows] == [
        ("s1", D(5), D(9), D("52.5"), D("56.7"))
    ]


def test_discounts_of_selection_and_check_charges_gratuity_and_tips(tmp_path: Path) -> None:
    # The developer guide's worked example (two sandwiches, 1.00 off, 9 % tax, 3.00 delivery), with more beside it.
    sandwich = selection(
        price=15.0,
        tax=1.35,
        quantity=2,
        receiptLinePrice=8.0,
        preDiscountPrice=16.0,
        appliedDiscounts=[{"discountAmount": 1.0, "nonTaxDiscountAmount": 1.0}],
    )
    charges = [
        {"guid": "d1", "name": "Delivery", "chargeAmount": 3.0, "gratuity": False, "appliedTaxes": []},
        {
            "guid": "g1",
            "name": "Party of 8",
            "chargeAmount": 3.6,
            "gratuity": True,
            "appliedTaxes": [{"taxAmount": 0.2}],
        },
    ]
    given = order(check(sandwich, total=19.55, appliedServiceCharges=charges, payments=[payment(23.15, 2.0)]))
    rows = {row["line_id"]: row for row in one(tmp_path, given)}
    assert (rows["s1"]["gross"], rows["s1"]["discount"], rows["s1"]["net"], rows["s1"]["tax"]) == (16, 1, 15, D("1.35"))
    assert (rows["service_charge:d1"]["line_type"], rows["service_charge:d1"]["net"]) == ("service_charge", 3)
    assert (rows["service_charge:g1"]["line_type"], rows["service_charge:g1"]["net"]) == ("tip", 0)
    assert rows["service_charge:g1"]["total"] == D("3.6")
    assert (rows["service_charge:g1:tax"]["tax"], rows["service_charge:g1:tax"]["net"]) == (D("0.2"), 0)
    assert rows["tip"]["total"] == 2
    assert sum(row["total"] for row in rows.values()) == D("25.15") == rows["s1"]["tendered_card"]
    assert header(given).total == 2515


def test_what_is_voided_or_deleted_is_in_no_sum(tmp_path: Path) -> None:
    given = order(
        check(
            selection(),
            selection("s2", 99, voided=True),
            total=10,
            payments=[
                payment(10, 1, "CASH"),
                payment(50, 9, guid="p2", paymentStatus="DENIED"),
                payment(50, 9, guid="p3", paymentStatus="VOIDED"),
                payment(50, 9, "CASH", guid="p4", voidInfo={"voidBusinessDate": 20260302}),
            ],
        ),
        check(selection("s3", 7), total=7, guid="c2", voided=True),
        check(total=0, guid="c3", deleted=True),
    )
    rows = one(tmp_path, given)
    assert [row["line_id"] for row in rows] == ["s1", "tip"]
    assert (rows[0]["tendered_cash"], rows[0]["tendered_card"]) == (11, 0)


@pytest.mark.parametrize(
    "more", [{"voided": True}, {"deleted": True}, {"checks": [check(selection(), total=10, voided=True)]}]
)
def test_a_cancelled_order_has_void_rows_without_amounts(tmp_path: Path, more: dict[str, Any]) -> None:
    given = order(check(selection(), selection("s2", voided=True), total=10, payments=[payment(10, 1)]), **more)
    assert header(given).state == "CANCELED"
    rows = one(tmp_path, given)
    assert {row["kind"] for row in rows} == {"void"}
    assert rows[0]["line_id"] == "s1"
    assert all(row[name] == 0 for row in rows for name in ("quantity", "gross", "net", "total", "tendered_card"))


def test_an_emptied_order_and_ones_for_practice_and_waste_have_no_rows(tmp_path: Path) -> None:
    emptied = order(check(total=0, deleted=True), deleted=True)
    practice = order(check(selection(), total=10), guid="O3", createdInTestMode=True)
    waste = order(check(selection(price=0, preDiscountPrice=10), total=0), guid="O4", excessFood=True)
    assert [header(o).state for o in (emptied, practice, waste)] == ["CANCELED"] * 3
    assert not any(header(o).counts for o in (emptied, practice, waste))
    rows, work = rows_of(tmp_path, emptied, practice, waste)
    assert rows == [] == work.bad


def test_an_open_order_is_a_sale_of_its_business_date(tmp_path: Path) -> None:
    # "include open and unpaid orders in the net sales calculation" (developer guide, "Calculating net sales")
    still_open = order(check(selection(), total=10, paymentStatus="OPEN"), closedDate=None)
    assert (header(still_open).state, header(still_open).counts) == ("OPEN", True)
    (row,) = one(tmp_path, still_open)
    assert (row["kind"], row["net"], row["business_date"], row["tendered_card"]) == ("sale", 10, DAY, 0)
    assert row["due"] == 10


def test_what_is_still_due_is_that_of_the_checks_that_are_open(tmp_path: Path) -> None:
    gratuity = charge("g", 3, gratuity=True)
    begun = check(
        *[selection("s1", 20)],
        total=20,
        paymentStatus="OPEN",
        appliedServiceCharges=[gratuity],
        payments=[payment(5, 9)],
    )
    closed = check(selection("s2", 7), total=7, guid="c2", payments=[payment(7, guid="p2")])
    rows = one(tmp_path, order(begun, closed, closedDate=None))
    assert {row["due"] for row in rows} == {18}
    assert {row["due"] for row in one(tmp_path / "closed", order(closed))} == {0}


def test_gift_cards_and_house_account_payments_are_no_revenue(tmp_path: Path) -> None:
    card = selection("g1", 25, item=None, selectionType="TOAST_CARD_SELL", deferred=True, displayName="Gift Card")
    house = selection("h1", 40, item=None, selectionType="HOUSE_ACCOUNT_PAY_BALANCE", displayName="")
    by_hand = selection("o1", 3, item=None, selectionType="OPEN_ITEM", displayName="Candle")
    rows = one(tmp_path, order(check(card, house, by_hand, total=68, payments=[payment(68, kind="GIFTCARD")])))
    assert [(r["line_type"], r["net"], r["total"], r["product_id"]) for r in rows] == [
        ("gift_card", 0, 25, "name:Gift Card|"),
        ("gift_card", 0, 40, "name:House account payment|"),
        ("custom_amount", 3, 3, "name:Candle|"),
    ]
    assert rows[0]["tendered_gift_card"] == 68


def test_values_that_nobody_knows_yet_break_nothing(tmp_path: Path) -> None:
    strange = selection(
        selectionType="HOLOGRAM", fulfillmentStatus="TELEPORTED", unitOfMeasure="STONE", newField=[{"a": 1}]
    )
    paid = payment(10, kind="MOONBEAM", paymentStatus="SHINING", cardEntryMode="GAZE")
    rows = one(tmp_path, order(check(strange, total=10, payments=[paid]), source="Mars", approvalStatus="MAYBE"))
    assert (rows[0]["line_type"], rows[0]["tendered_other"]) == ("item", 10)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            order(check(selection(), total=11)),
            "its rows add up to 10.0000 USD, but its checks, tips and refunds to 11.0000 USD",
        ),
        (order(check(selection(), selection(), total=20)), "two of its selections have the same guid"),
        (order(check(total=0, payments=[payment(10)])), "it has payments, but nothing was sold or given back"),
        (
            order(check(selection(refundDetails={"refundAmount": 5, "taxRefundAmount": 0}), total=10)),
            "were refunded 5.0000 USD",
        ),
        (order(check(selection(price="much"), total=10)), ""),  # type: ignore[arg-type]
    ],
)
def test_an_order_that_does_not_add_up_goes_to_quarantine_with_the_difference(
    tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    good = order(check(selection(), total=10), guid="O2")
    rows, work = rows_of(tmp_path, given, good)
    assert [row["order_id"] for row in rows] == ["O2"]
    assert len(work.bad) == 1
    assert reason in work.bad[0].reason


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"guid":"O1"}', '{"guid":"O1","businessDate":20261350,"openedDate":"x"}', "1"]
)
def test_an_order_that_cannot_be_read_is_kept_with_the_reason(text: str) -> None:
    found = read(text)
    assert found.header is None
    assert found.problem
