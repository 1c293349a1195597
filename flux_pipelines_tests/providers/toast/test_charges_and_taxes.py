"""Whose a service charge and a tax are, and what a line's price is without tax."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines_tests.providers.toast.made import back, charge, check, one, order, payment, refund, selection
from flux_pipelines_tests.providers.toast.wire import header

D = Decimal


@pytest.mark.parametrize(
    ("said", "line_type"),
    [
        # AppliedServiceCharge.serviceChargeCategory (orders API 2.9.0) ...
        ({"serviceChargeCategory": "SERVICE_CHARGE", "destination": "RESTAURANT"}, "service_charge"),
        ({"serviceChargeCategory": "CREDIT_CARD_SURCHARGE"}, "service_charge"),
        ({"serviceChargeCategory": "FUNDRAISING_CAMPAIGN"}, "third_party"),
        ({"serviceChargeCategory": "CASH_ROUNDING"}, "rounding"),
        # ... and ServiceCharge.destination (configuration API 2.5.0): the final recipient of the funds.
        ({"serviceChargeCategory": "SERVICE_CHARGE", "destination": "TOAST"}, "third_party"),
        ({"serviceChargeCategory": "SERVICE_CHARGE", "destination": "THIRD_PARTY", "delivery": True}, "third_party"),
        ({"serviceChargeCategory": "SERVICE_CHARGE", "destination": "SERVER"}, "tip"),
        ({"serviceChargeCategory": "A_NEW_ONE", "destination": "SOMEBODY"}, "service_charge"),
        ({}, "service_charge"),
    ],
)
@pytest.mark.parametrize("amount", [0.02, -0.02])
def test_a_charge_is_whose_it_is(tmp_path: Path, said: dict[str, Any], line_type: str, amount: float) -> None:
    given = order(check(selection(), total=10 + amount, appliedServiceCharges=[charge("c", amount, **said)]))
    row = one(tmp_path, given)[1]
    exact = D(str(amount))
    revenue = exact if line_type == "service_charge" else 0
    assert (row["line_type"], row["net"], row["tax"], row["total"]) == (line_type, revenue, 0, exact)
    assert (row["line_id"], row["product_name"]) == ("service_charge:c", "c")


def test_tax_on_what_is_owed_to_others_is_the_restaurants_all_the_same(tmp_path: Path) -> None:
    fee = charge("fee", 4, 0.3, 0.02, destination="THIRD_PARTY", refundDetails=back(4, 0.32))
    given = order(
        check(selection(), total=14.32, appliedServiceCharges=[fee], payments=[payment(14.32, refund=refund(4.32))])
    )
    rows = {row["line_id"]: row for row in one(tmp_path, given)}
    for prefix, sign in (("", 1), ("return:", -1)):
        fee_row, tax_row = rows[f"{prefix}service_charge:fee"], rows[f"{prefix}service_charge:fee:tax"]
        assert (fee_row["line_type"], fee_row["net"], fee_row["tax"], fee_row["total"]) == (
            "third_party",
            0,
            0,
            sign * 4,
        )
        assert (tax_row["line_type"], tax_row["net"]) == ("service_charge", 0)
        assert tax_row["tax"] == tax_row["total"] == sign * D("0.32")


def taxes(*amounts: tuple[float, bool | None]) -> list[dict[str, Any]]:
    return [{"name": "Tax", "taxAmount": amount, "facilitatorCollectAndRemitTax": remits} for amount, remits in amounts]


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        ([(0.31, True), (0.15, True)], ("0", "0.46")),  # the example of apiMarketplaceFacilitatorTaxInformation
        ([(0.31, True), (0.15, False)], ("0.15", "0.31")),
        ([(0.31, True), (0.15, None)], ("0.15", "0.31")),
        ([(0.31, False), (0.15, None)], ("0.46", "0")),
        ([(0.31333333, True), (0.14666667, False)], ("0.15", "0.31")),
        ([(0, True)], ("0.46", "0")),
        ([], ("0.46", "0")),
    ],
)
def test_tax_that_a_marketplace_remits_is_not_tax_collected(
    tmp_path: Path, applied: list[tuple[float, bool | None]], expected: tuple[str, str]
) -> None:
    given = order(check(selection(price=5, tax=0.46, appliedTaxes=taxes(*applied)), total=5.46))
    (row,) = one(tmp_path, given)
    assert (row["tax"], row["marketplace_tax"]) == (D(expected[0]), D(expected[1]))
    assert row["total"] == D("5.46")  # the guest paid it: it is in what is owed, and in the payment


def test_tax_that_a_marketplace_remits_on_modifiers_and_charges_and_what_comes_back_of_it(tmp_path: Path) -> None:
    # "check all AppliedTaxRate objects in the order": of selections, which have their modifiers' tax in theirs, and charges.
    cheese = selection("m1", 2, tax=0.16, appliedTaxes=taxes((0.16, True)))
    burger = selection(price=12, tax=0.96, quantity=2, appliedTaxes=taxes((0.6, True), (0.2, False)), modifiers=[cheese],
        refundDetails=back(6, 0.48))  # fmt: skip
    fee = charge("fee", 5, refundDetails=back(5, 0.5), appliedTaxes=taxes((0.3, True), (0.2, False)))
    given = order(
        check(burger, total=18.46, appliedServiceCharges=[fee], payments=[payment(18.46, refund=refund(11.98))])
    )
    rows = {row["line_id"]: row for row in one(tmp_path, given)}
    assert {name: (row["net"], row["tax"], row["marketplace_tax"], row["total"]) for name, row in rows.items()} == {
        "s1": (12, D("0.2"), D("0.76"), D("12.96")),
        "service_charge:fee": (5, D("0.2"), D("0.3"), D("5.5")),
        "return:s1": (-6, D("-0.1"), D("-0.38"), D("-6.48")),
        "return:service_charge:fee": (-5, D("-0.2"), D("-0.3"), D("-5.5")),
    }
    assert header(given).total == 1846 - 1198


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"receiptLinePrice": 7.5, "price": 6.94, "tax": 0.56}, "6.94"),
        ({"receiptLinePrice": 7.5, "price": 20.83, "tax": 1.67, "quantity": 3}, "6.9433"),
        # half off, with a modifier of 2.00: the tax is in each of them
        ({"receiptLinePrice": 8.8, "preDiscountPrice": 10, "price": 5, "tax": 0.5}, "8"),
        ({"receiptLinePrice": 7.5, "preDiscountPrice": 6.94, "price": 0, "tax": 0}, "7.5"),
        ({"receiptLinePrice": 7.5, "price": 7.5, "tax": 0.6, "taxInclusion": "NOT_INCLUDED"}, "7.5"),
    ],
)
def test_a_units_price_is_without_the_tax_that_is_included(tmp_path: Path, said: dict[str, Any], expected: str) -> None:
    line = selection(**{"taxInclusion": "INCLUDED", "preDiscountPrice": said["price"], **said})
    (row,) = one(tmp_path, order(check(line, total=said["price"] + said["tax"])))
    assert row["unit_price"] == D(expected)


def test_a_tax_that_is_rounded_once_a_check_is_rounded_as_it_adds_up(tmp_path: Path) -> None:
    lines = [selection(f"s{n}", 1.99, 0.1766125) for n in range(3)]
    rows = one(tmp_path, order(check(*lines, total=6.5)))
    assert [row["tax"] for row in rows] == [D("0.18"), D("0.17"), D("0.18")]
    # Where each line's is rounded, it stays so.
    rows = one(tmp_path / "each", order(check(*lines, total=6.51)))
    assert [row["tax"] for row in rows] == [D("0.18")] * 3
