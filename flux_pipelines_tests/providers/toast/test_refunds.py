"""What comes back, and on which day: as in Toast's reports, on the day of the refund and only there.

"Refunds do not affect financial data on the day of the original order. Refunds only affect financial data on the day of the
refund" (platform guide, adminViewingRefundsInToastReports). Line refunds: schema RefundDetails of the orders API 2.9.0.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines_tests.providers.toast.made import back, charge, check, one, order, payment, refund, selection
from flux_pipelines_tests.providers.toast.wire import DAY, header

D = Decimal
MAR = {day: date(2026, 3, day) for day in range(1, 32)}


def returned(folder: Path, given: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return what came back by line: day, units, net, tax, total. Every day gives back what its payments did."""
    rows = [row for row in one(folder, given) if row["kind"] == "return"]
    paid: dict[date, D] = {}
    for payment_ in (p for c in given["checks"] for p in c["payments"] if p["refund"]):
        of = payment_["refund"]
        day = MAR[of["refundBusinessDate"] % 100]
        paid[day] = paid.get(day, D(0)) + D(str(of["refundAmount"])) + D(str(of["tipRefundAmount"]))
    days = {row["business_date"] for row in rows}
    assert {day: sum(-r["total"] for r in rows if r["business_date"] == day) for day in days} == paid
    assert {day: sum(-r["tendered_refund"] for r in rows if r["business_date"] == day) for day in days} == paid
    return {r["line_id"]: (r["business_date"].day, *(r[n] for n in ("quantity", "net", "tax", "total"))) for r in rows}


def test_a_refund_gives_back_the_lines_it_names(tmp_path: Path) -> None:
    pies = selection(
        price=27.0,
        tax=2.43,
        quantity=3,
        receiptLinePrice=10.0,
        preDiscountPrice=30.0,
        refundDetails={"refundAmount": 9.0, "taxRefundAmount": 0.81, "refundTransaction": {"guid": "r1"}},
    )
    delivery = {
        "guid": "d1",
        "name": "Delivery",
        "chargeAmount": 4.0,
        "gratuity": False,
        "refundDetails": {"refundAmount": 4.0, "taxRefundAmount": 0},
    }
    paid = payment(33.43, 3.0, refundStatus="PARTIAL", refund=refund(13.81, 1.5))
    given = order(check(pies, total=33.43, appliedServiceCharges=[delivery], payments=[paid]))
    rows = {row["line_id"]: row for row in one(tmp_path, given)}
    back = rows["return:s1"]
    assert (back["kind"], back["quantity"], back["gross"], back["discount"], back["net"]) == ("return", -1, -10, -1, -9)
    assert (back["tax"], back["total"]) == (D("-0.81"), D("-9.81"))
    assert (back["source_order_id"], back["source_line_id"]) == ("O1", "s1")
    assert {(r["kind"], r["business_date"], r["raw_date"]) for r in rows.values()} == {
        ("sale", DAY, DAY), ("return", date(2026, 3, 5), DAY)
    }  # fmt: skip
    assert back["occurred_at"].isoformat() == "2026-03-05T18:00:00+00:00"
    assert rows["return:service_charge:d1"]["net"] == -4
    assert rows["return:tip"]["total"] == D("-1.5")
    assert header(given).total == 3343 + 300 - 1381 - 150
    assert {name: row["tendered_refund"] for name, row in rows.items() if row["tendered_refund"]} == {
        "return:s1": D("-15.31")
    }


def test_what_was_on_the_house_comes_back_for_nothing(tmp_path: Path) -> None:
    back_for_nothing = {"refundAmount": 0, "taxRefundAmount": 0, "refundTransaction": {"guid": "r1"}}
    free = selection("s1", price=0, tax=0, quantity=2, receiptLinePrice=4.0, preDiscountPrice=8.0)
    kept = selection(
        "s3", price=0, tax=0, preDiscountPrice=5.0, refundDetails={"refundAmount": 0, "taxRefundAmount": 0}
    )
    paid = payment(10, 0, refundStatus="FULL", refund=refund(10))
    bought = selection("s2", 10, refundDetails={**back_for_nothing, "refundAmount": 10})
    given = order(check({**free, "refundDetails": back_for_nothing}, bought, kept, total=10, payments=[paid]))
    back = {row["line_id"]: row for row in one(tmp_path, given) if row["kind"] == "return"}
    assert back.keys() == {"return:s1", "return:s2"}
    row = back["return:s1"]
    assert (row["quantity"], row["gross"], row["discount"], row["net"], row["total"]) == (-2, -8, -8, 0, 0)


def test_money_given_back_for_nothing_named_is_a_row_of_its_own(tmp_path: Path) -> None:
    paid = payment(10.9, 0, refundStatus="PARTIAL", refund=refund(2.5))
    rows = one(tmp_path, order(check(selection(tax=0.9), total=10.9, payments=[paid])))
    assert [(r["line_id"], r["kind"], r["line_type"], r["net"], r["quantity"]) for r in rows[1:]] == [
        ("return:amount", "return", "custom_amount", D("-2.5"), 0)
    ]


def test_toasts_own_example_of_a_refund_the_day_after(tmp_path: Path) -> None:
    # Platform guide, "Net sales, tax, gratuity, and tip values": a cheeseburger (5.00 and 1.50 tax), a service fee of 5.00, a
    # gratuity of 2.00 and a tip of 3.00 of December 14 were all refunded on December 15.
    burger = selection(price=5, tax=1.5, refundDetails=back(5, 1.5, "r"), displayName="Cheeseburger")
    fee = charge("fee", 5, refundDetails=back(5, 0, "r"))
    gratuity = charge("gratuity", 2, gratuity=True, refundDetails=back(2, 0, "r"))
    paid = payment(13.5, 3, refundStatus="FULL", refund=refund(13.5, 3, day=15))
    given = order(
        check(burger, total=11.5, appliedServiceCharges=[fee, gratuity], payments=[paid]), businessDate=20260314
    )
    assert returned(tmp_path, given) == {
        "return:s1": (15, -1, -5, D("-1.5"), D("-6.5")),
        "return:service_charge:fee": (15, 0, -5, 0, -5),
        "return:service_charge:gratuity": (15, 0, 0, 0, -2),
        "return:tip": (15, 0, 0, 0, -3),
    }
    sums = [sum(row[name] for row in one(tmp_path / "again", given)) for name in ("net", "tax", "total")]
    assert sums == [0, 0, 0]


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ({"refundBusinessDate": 20260305}, MAR[5]),
        # 03:30 in New York, before the close-out hour of 4: it is still the day before.
        ({"refundBusinessDate": None, "refundDate": "2026-03-07T08:30:00.000+0000"}, MAR[6]),
        ({"refundBusinessDate": None, "refundDate": None}, DAY),
    ],
)
def test_the_day_of_a_refund_is_toasts_or_that_of_its_instant_or_the_orders(
    tmp_path: Path, said: dict[str, Any], day: date
) -> None:
    paid = payment(10, refund={**refund(10), **said})
    rows = one(tmp_path, order(check(selection(refundDetails=back(10)), total=10, payments=[paid])))
    assert [(row["kind"], row["business_date"], row["raw_date"]) for row in rows] == [
        ("sale", DAY, DAY),
        ("return", day, DAY),
    ]


def split(*lines: dict[str, Any], refunds: list[dict[str, Any]], total: float, **more: Any) -> dict[str, Any]:
    """Return an order of one check that was paid in as many payments as have been refunded."""
    paid = [payment(total, guid=f"p{n}", refund=one) for n, one in enumerate(refunds)]
    return order(check(*lines, total=total, payments=paid, **more))


def test_refunds_of_several_days_are_told_apart_by_the_transaction_that_payments_name(tmp_path: Path) -> None:
    lines = [selection(f"s{n}", 10, 1, refundDetails=back(10, 1, tx)) for n, tx in enumerate(("late", "early", "late"))]
    of = [{"refundTransaction": {"guid": name}} for name in ("early", "late", "late")]
    refunds = [refund(11, day=5, **of[0]), refund(11, day=9, **of[1]), refund(11, 2, day=9, **of[2])]
    given = split(*lines, selection("kept", 50), refunds=refunds, total=83)
    assert returned(tmp_path, given) == {
        "return:s0": (9, -1, -10, -1, -11),
        "return:s1": (5, -1, -10, -1, -11),
        "return:s2": (9, -1, -10, -1, -11),
        "return:tip:2026-03-09": (9, 0, 0, 0, -2),
    }


def test_refunds_of_several_days_are_told_apart_by_their_amounts(tmp_path: Path) -> None:
    lines = [selection("a", 30, refundDetails=back(30, 0, "t1")), selection("b", 12, refundDetails=back(12, 0, "t2"))]
    twins = [selection(name, 7, refundDetails=back(7, 0, name)) for name in ("c", "d")]
    refunds = [refund(12, day=9), refund(7, day=11), refund(7, day=12), refund(5, day=4), refund(30, day=20)]
    given = split(*lines, *twins, selection("kept", 40), refunds=refunds, total=96)
    assert returned(tmp_path, given) == {
        "return:a": (20, -1, -30, 0, -30),
        "return:b": (9, -1, -12, 0, -12),
        "return:c": (11, -1, -7, 0, -7),
        "return:d": (12, -1, -7, 0, -7),
        "return:amount": (4, 0, -5, 0, -5),
    }


def test_a_line_that_came_back_on_two_days_is_parted_as_its_payments_were_refunded(tmp_path: Path) -> None:
    # Three of four pies: Toast keeps one sum of a line, and names the last transaction alone.
    pies = selection("s1", 36, 3.6, quantity=4, preDiscountPrice=40, refundDetails=back(27, 2.7, "last"))
    refunds = [refund(9.9, day=5), refund(19.8, 1, day=9)]
    given = split(pies, selection("kept", 5), refunds=refunds, total=44.6)
    assert returned(tmp_path, given) == {
        "return:s1": (5, -1, -9, D("-0.9"), D("-9.9")),
        "return:s1:2026-03-09": (9, -2, -18, D("-1.8"), D("-19.8")),
        "return:tip:2026-03-09": (9, 0, 0, 0, -1),
    }


def test_each_check_gives_back_what_is_its_own(tmp_path: Path) -> None:
    first = check(
        selection("a", 10, refundDetails=back(10, 0, "x")),
        total=10,
        guid="c1",
        payments=[payment(10, refund=refund(10, day=9))],
    )
    other = payment(20, guid="p2", refund=refund(10, day=4))
    second = check(selection("b", 20, refundDetails=back(10, 0, "y")), total=20, guid="c2", payments=[other])
    assert returned(tmp_path, order(first, second)) == {
        "return:a": (9, -1, -10, 0, -10),
        "return:b": (4, D("-0.5"), -10, 0, -10),
    }


def test_many_cents_over_many_days_are_given_back_to_the_cent(tmp_path: Path) -> None:
    lines = [selection(f"s{n}", 3.33, 0.29, quantity=3, refundDetails=back(3.33, 0.29, "t")) for n in range(7)]
    refunds = [refund(amount, day=day) for day, amount in enumerate((4.01, 0.03, 9.99, 5.5, 5.81), 5)]
    found = returned(tmp_path, split(*lines, refunds=refunds, total=25.34)).values()
    assert len(found) > len(lines)
    assert [sum(row[n] for row in found) for n in (1, 2, 3, 4)] == [-21, D("-23.31"), D("-2.03"), D("-25.34")]


@pytest.mark.parametrize("amount", [0.0, 3.0])
def test_tax_alone_may_be_given_back(tmp_path: Path, amount: float) -> None:
    # "The Tax only option allows you to refund only the tax for an order" (adminIssuingARefund).
    line = selection(price=10, tax=0.9, quantity=2, preDiscountPrice=12, refundDetails=back(0, 0.9, "t"))
    given = order(check(line, total=10.9, payments=[payment(10.9, refund=refund(0.9 + amount))]))
    expected: dict[str, tuple[Any, ...]] = {"return:s1": (5, 0, 0, D("-0.9"), D("-0.9"))}
    if amount:
        expected["return:amount"] = (5, 0, -3, 0, -3)
    assert returned(tmp_path, given) == expected


def modifier(guid: str, price: float, *inner: dict[str, Any], **more: Any) -> dict[str, Any]:
    item = {"guid": f"i-{guid}", "multiLocationId": f"m-{guid}"}
    return selection(guid, price, item=item, displayName=guid.title(), modifiers=list(inner), **more)


def test_a_modifier_given_back_alone_keeps_its_product_and_its_tax(tmp_path: Path) -> None:
    deep = modifier("sauce", 1, tax=0.08, refundDetails=back(1, 0.08, "t"))
    bacon = modifier("bacon", 2, tax=0.16, preDiscountPrice=2.5, refundDetails=back(2, 0.16, "t"))
    burger = selection(price=15, tax=1.2, modifiers=[modifier("size", 0, modifier("bun", 0, deep)), bacon])
    given = order(check(burger, total=16.2, payments=[payment(16.2, refund=refund(3.24))]))
    rows = {row["line_id"]: row for row in one(tmp_path, given) if row["kind"] == "return"}
    assert {
        name: (row["product_id"], row["product_name"], row["quantity"], row["gross"], row["net"], row["tax"], row["source_line_id"])
        for name, row in rows.items()
    } == {
        "return:bacon": ("m-bacon", "Bacon", 0, D("-2.5"), -2, D("-0.16"), "s1"),
        "return:sauce": ("m-sauce", "Sauce", 0, -1, -1, D("-0.08"), "s1"),
    }  # fmt: skip


def test_what_a_line_gave_back_has_its_modifiers_in_it(tmp_path: Path) -> None:
    # "Includes the value of any nested modifier options" (RefundDetails.refundAmount): they are not given back twice.
    extra = modifier("extra", 1, tax=0.08, refundDetails=back(1, 0.08, "t"))
    bacon = modifier("bacon", 3, extra, tax=0.24, refundDetails=back(3, 0.24, "t"))
    burger = selection(price=13, tax=1.04, modifiers=[bacon], refundDetails=back(13, 1.04, "t"))
    fries = selection("s2", price=6, tax=0.48, modifiers=[modifier("dip", 2, modifier("more", 1, refundDetails=back(1, 0.08)),
        tax=0.16, refundDetails=back(2, 0.16))])  # fmt: skip
    given = order(check(burger, fries, total=20.52, payments=[payment(20.52, refund=refund(16.2))]))
    assert returned(tmp_path, given) == {
        "return:s1": (5, -1, -13, D("-1.04"), D("-14.04")),
        "return:dip": (5, 0, -2, D("-0.16"), D("-2.16")),
    }


def test_a_check_given_back_whole_without_details_is_all_of_its_lines(tmp_path: Path) -> None:
    lines = [
        selection("a", 40, 3.2, quantity=4, preDiscountPrice=48),
        selection("b", 10, item=None, selectionType="TOAST_CARD_SELL"),
        selection("c", 0, preDiscountPrice=6),
    ]
    charges = [
        charge("fee", 5, 0.4),
        charge("staff", 9, gratuity=True),
        charge("cash", -0.01, serviceChargeCategory="CASH_ROUNDING"),
    ]
    paid = payment(67.59, 4, refundStatus="FULL", refund=refund(67.59, 4))
    given = order(check(*lines, total=58.59, appliedServiceCharges=charges, payments=[paid]), check(total=0, guid="c2"))
    assert returned(tmp_path, given) == {
        "return:a": (5, -4, -40, D("-3.2"), D("-43.2")),
        "return:b": (5, -1, 0, 0, -10),
        "return:c": (5, -1, 0, 0, 0),
        "return:service_charge:fee": (5, 0, -5, D("-0.4"), D("-5.4")),
        "return:service_charge:staff": (5, 0, 0, 0, -9),
        "return:service_charge:cash": (5, 0, 0, 0, D("0.01")),
        "return:tip": (5, 0, 0, 0, -4),
    }
    assert header(given).total == 0
    totals = {
        name: sum(row[name] for row in one(tmp_path / "sums", given)) for name in ("gross", "net", "tax", "total")
    }
    assert totals == {"gross": 0, "net": 0, "tax": 0, "total": 0}


def test_a_coupon_that_comes_back_with_its_check_takes_nothing_away(tmp_path: Path) -> None:
    lines = [selection("a", 12, 0.96), selection("coupon", -3, -0.24)]
    given = order(check(*lines, total=9.72, payments=[payment(9.72, refundStatus="FULL", refund=refund(9.72))]))
    assert returned(tmp_path, given) == {
        "return:a": (5, -1, -12, D("-0.96"), D("-12.96")),
        "return:coupon": (5, -1, 3, D("0.24"), D("3.24")),
    }


def test_a_check_given_back_whole_in_two_payments_on_two_days(tmp_path: Path) -> None:
    lines = [selection("a", 60, 6), selection("b", 30, 3)]
    refunds = [refund(49.5, day=9), refund(49.5, day=6)]
    assert returned(tmp_path, split(*lines, refunds=refunds, total=99)) == {
        "return:a": (6, D("-0.75"), -45, D("-4.5"), D("-49.5")),
        "return:a:2026-03-09": (9, D("-0.25"), -15, D("-1.5"), D("-16.5")),
        "return:b": (9, -1, -30, -3, -33),
    }


def test_only_the_check_that_was_given_back_comes_back(tmp_path: Path) -> None:
    first = check(
        selection("a", 10, 1), total=11, guid="c1", payments=[payment(11, refundStatus="FULL", refund=refund(11))]
    )
    second = check(selection("b", 20, 2), total=22, guid="c2", payments=[payment(22, guid="p2")])
    assert returned(tmp_path, order(first, second)) == {"return:a": (5, -1, -10, -1, -11)}


def test_a_refund_of_another_checks_line_is_not_the_check_that_comes_to_the_same(tmp_path: Path) -> None:
    """The payment that was refunded stands in a check whose total is the amount by chance: the transaction tells."""
    first = check(
        selection("a", 3.25, 0.33, refundDetails=back(3.25, 0.33, "x")), total=3.58, payments=[payment(3.58, guid="p1")]
    )
    given_back = payment(3.58, guid="p2", refundStatus="PARTIAL", refund=refund(3.58, refundTransaction={"guid": "x"}))
    second = check(selection("b", 3.25, 0.33), total=3.58, guid="c2", payments=[given_back])
    assert list(returned(tmp_path, order(first, second))) == ["return:a"]


def test_a_refund_of_a_payment_that_moved_no_money_gives_nothing_back(tmp_path: Path) -> None:
    dead = payment(10, guid="p2", paymentStatus="PROCESSING_VOID", refund=refund(10))
    rows = one(tmp_path, order(check(selection(), total=10, payments=[payment(10), dead])))
    assert [(row["kind"], row["total"], row["tendered_card"]) for row in rows] == [("sale", 10, 10)]
