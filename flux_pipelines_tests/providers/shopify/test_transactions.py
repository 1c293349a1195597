"""Shopify's orders as rows: its published examples to the values printed in them, and what they do not show."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines_tests.providers.shopify import published
from flux_pipelines_tests.providers.shopify.handwritten import back, line, made, refund, tax
from flux_pipelines_tests.providers.shopify.nodes import agreed, bag, gid, nodes, normalise, order


def rows_of(folder: Path, node: dict[str, Any]) -> list[dict[str, Any]]:
    rows, work = normalise(folder, [node])
    assert [bad.reason for bad in work.bad] == []
    total = Decimal(node["currentTotalPriceSet"]["shopMoney"]["amount"])
    cash = node["totalCashRoundingAdjustment"]
    total += Decimal(cash["paymentSet"]["shopMoney"]["amount"]) - Decimal(cash["refundSet"]["shopMoney"]["amount"])
    if node.get("leaves_out"):
        total += Decimal(node["leaves_out"])
    assert sum(row["total"] for row in rows) == total
    return rows


def test_the_published_order_is_read_to_the_values_printed_in_it(examples: Path, tmp_path: Path) -> None:
    printed = published.order(examples, "rest_order_get_with_refunds")
    rows, work = normalise(tmp_path, [order(printed, published.transactions(examples))])
    assert work.bad == []
    published.expect_lines(printed, rows)


def test_the_other_published_orders(examples: Path, tmp_path: Path) -> None:
    for name, expect in (
        ("rest_order_cancelled_with_refund", published.expect_cancelled),
        ("rest_order_created_with_tax_lines", published.expect_sold),
    ):
        printed = published.order(examples, name)
        rows, work = normalise(tmp_path / name, [order(printed)])
        assert work.bad == []
        expect(printed, rows)


def test_taxes_included_discounts_shipping_duties_fees_and_tips(tmp_path: Path) -> None:
    tip = line(
        3,
        "2.0",
        title="Tip",
        variantTitle=None,
        sku=None,
        taxable=False,
        requiresShipping=False,
        variant=None,
        product=None,
    )
    node = made(
        line(1, "11.0", 2, discountAllocations=[{"allocatedAmountSet": bag("2.2")}], taxLines=tax("1.8")),
        line(2, "5.5", variant=None, product=None, sku=None, variantTitle=None, taxLines=tax("0.5")),
        tip,
        line(4, "25.0", isGiftCard=True, taxable=False),
        total="70.40",
        taxesIncluded=True,
        totalTipReceivedSet=bag("2.0"),
        originalTotalDutiesSet=bag("7.0"),
        currentTotalDutiesSet=bag("5.0"),
        additionalFees=[{"id": gid("AdditionalFee", 8), "name": "Import", "price": bag("3.0"), "taxLines": tax("0.3")}],
        shippingLines=nodes(
            [
                {
                    "id": gid("ShippingLine", 7),
                    "title": "Express",
                    "originalPriceSet": bag("11.0"),
                    "discountedPriceSet": bag("9.8"),
                    "taxLines": tax("0.9"),
                }
            ]
        ),
        transactions=[
            {"kind": "SALE", "status": "SUCCESS", "gateway": "gift_card", "amountSet": bag("10.4")},
            {"kind": "SALE", "status": "FAILURE", "gateway": "shopify_payments", "amountSet": bag("60.0")},
            {
                "kind": "SALE",
                "status": "SUCCESS",
                "gateway": "shopify_payments",
                "amountSet": bag("60.0"),
                "paymentDetails": {"__typename": "CardPaymentDetails"},
            },
        ],
    )
    found = rows_of(tmp_path, node)
    rows = {
        row["line_id"]
        if row["line_id"].isdigit()
        else row["line_id"].split(":")[0] + "_back" * (row["kind"] == "return"): row
        for row in found
    }
    assert len(rows) == len(found) == 8

    def figures(line_id: str) -> list[Decimal]:
        return [rows[line_id][name] for name in ("gross", "discount", "net", "tax", "total")]

    assert figures("1") == [Decimal(x) for x in ("20.20", "2.20", "18.00", "1.80", "19.80")]
    # What two units come to without the tax in their price: 20.20.
    assert (rows["1"]["line_type"], rows["1"]["unit_price"], rows["1"]["quantity"]) == ("item", Decimal("10.10"), 2)
    assert figures("2") == [Decimal(x) for x in ("5.00", "0", "5.00", "0.50", "5.50")]
    assert (rows["2"]["line_type"], rows["2"]["product_id"]) == ("custom_amount", "name:Thing 2|")
    assert figures("tip") == [0, 0, 0, 0, 2]
    assert rows["tip"]["line_type"] == "tip"
    assert figures("4") == [0, 0, 0, 0, 25]
    assert rows["4"]["line_type"] == "gift_card"
    assert figures("shipping") == [Decimal(x) for x in ("10.10", "1.20", "8.90", "0.90", "9.80")]
    assert figures("duty") == [0, 0, 0, 7, 7]
    assert figures("duty_back") == [0, 0, 0, -2, -2]
    assert rows["duty_back"]["business_date"] == rows["1"]["business_date"]
    assert figures("additional_fee") == [Decimal(x) for x in ("3.00", "0", "3.00", "0.30", "3.30")]
    assert (rows["1"]["tendered_gift_card"], rows["1"]["tendered_card"], rows["1"]["tendered_other"]) == (
        Decimal("10.4"),
        60,
        0,
    )


def test_what_an_edit_takes_out_comes_back_on_its_day(tmp_path: Path) -> None:
    node = made(
        line(
            1,
            "10.0",
            5,
            currentQuantity=3,
            discountAllocations=[{"allocatedAmountSet": bag("5.0")}],
            taxLines=tax("4.5"),
        ),
        line(2, "8.0", 1, currentQuantity=0),
        line(3, "9.99", 1),
        total="29.69",
        refunds=[refund(refundLineItems=nodes([back(1, 1, "9.0", "0.9")]))],
        displayFinancialStatus="PARTIALLY_REFUNDED",
        edited=True,
        updatedAt="2026-03-06T12:00:00Z",
    )
    node["currentTotalPriceSet"] = node["netPaymentSet"] = bag("39.69")
    rows = rows_of(tmp_path, node)
    # Of five, one was refunded and one was taken out again; the second line was taken out whole.
    assert [
        (r["kind"], r["line_id"].split(":")[0], r["quantity"], r["total"], r["source_line_id"], r["occurred_at"].day)
        for r in rows
    ] == [
        ("sale", "1", 5, Decimal("49.5"), None, 2),
        ("sale", "2", 1, 8, None, 2),
        ("sale", "3", 1, Decimal("9.99"), None, 2),
        ("return", "product", -1, Decimal("-9.9"), "1", 5),
        ("return", "product", -1, Decimal("-9.9"), "1", 6),
        ("return", "product", -1, -8, "2", 6),
    ]
    assert [(r["discount"], r["tax"]) for r in rows[3:5]] == [(-1, Decimal("-0.9")), (-1, Decimal("-0.9"))]


@pytest.mark.parametrize("inside", [True, False])
def test_whether_a_refunds_subtotal_holds_its_tax_follows_from_the_total(inside: bool, tmp_path: Path) -> None:
    node = made(
        line(1, "11.0", 2, currentQuantity=1, taxLines=tax("2.0")),
        total="11.0",
        taxesIncluded=True,
        refunds=[refund(refundLineItems=nodes([back(1, 1, "11.0" if inside else "10.0", "1.0")]))],
    )
    returned = rows_of(tmp_path, node)[-1]
    assert (returned["gross"], returned["discount"], returned["tax"], returned["total"]) == (-10, 0, -1, -11)


@pytest.mark.parametrize("left_out", [True, False])
def test_more_given_back_than_calculated_is_a_row_of_its_own(left_out: bool, tmp_path: Path) -> None:
    adjustment = {"id": gid("OrderAdjustment", 6), "amountSet": bag("-4.5"), "taxAmountSet": bag("-0.5")}
    node = made(
        line(1, "30.0"), total="30.0" if left_out else "25.0", refunds=[refund(orderAdjustments=nodes([adjustment]))]
    )
    node["netPaymentSet"] = bag("25.0")
    node["leaves_out"] = "-5" if left_out else ""
    rows = rows_of(tmp_path, node)
    assert [(r["kind"], r["line_type"], r["net"], r["tax"], r["total"]) for r in rows[1:]] == [
        ("return", "custom_amount", Decimal("-4.5"), Decimal("-0.5"), Decimal("-5.0"))
    ]


def test_shipping_comes_back_and_cash_is_rounded(tmp_path: Path) -> None:
    shipping = {"id": gid("ShippingLine", 7), "title": "Post"}
    node = made(
        line(1, "10.03"),
        total="10.03",
        shippingLines=nodes(
            [{**shipping, "originalPriceSet": bag("5.0"), "discountedPriceSet": bag("5.0"), "taxLines": []}]
        ),
        refunds=[
            refund(
                refundShippingLines=nodes(
                    [
                        {
                            "id": gid("RefundShippingLine", 3),
                            "shippingLine": shipping,
                            "subtotalAmountSet": bag("5.0"),
                            "taxAmountSet": bag("0.0"),
                        }
                    ]
                )
            )
        ],
        totalCashRoundingAdjustment={"paymentSet": bag("0.02"), "refundSet": bag("0.01")},
    )
    rows = rows_of(tmp_path, node)
    assert [(r["kind"], r["line_type"], r["product_name"], r["total"]) for r in rows] == [
        ("sale", "item", "Thing 1", Decimal("10.03")),
        ("sale", "service_charge", "Post", 5),
        ("return", "service_charge", "Post", -5),
        ("sale", "rounding", "Rounding", Decimal("0.02")),
        ("return", "rounding", "Rounding", Decimal("-0.01")),
    ]


def test_what_conversion_leaves_over_is_said(tmp_path: Path) -> None:
    node = made(line(1, "9.37"), line(2, "4.11"), total="13.49", currencyCode="EUR", presentmentCurrencyCode="SEK")
    rows = rows_of(tmp_path, node)
    assert (rows[-1]["line_id"], rows[-1]["line_type"], rows[-1]["total"]) == (
        "conversion",
        "rounding",
        Decimal("0.01"),
    )
    rows, work = normalise(tmp_path / "same", [{**node, "presentmentCurrencyCode": "EUR"}])
    assert rows == []
    assert "add up to 13.4800 EUR, but its own total is 13.4900 EUR" in work.bad[0].reason


def test_every_order_is_a_sale_but_a_test(tmp_path: Path) -> None:
    rows, work = normalise(tmp_path / "none", [made(line(), total="10.0", test=True)])
    assert (rows, work.bad) == ([], [])
    for status in ("PENDING", "AUTHORIZED", "PARTIALLY_PAID", "EXPIRED", "VOIDED", None):
        (row,) = rows_of(tmp_path / f"{status}", made(line(), total="10.0", displayFinancialStatus=status))
        assert (row["kind"], row["total"]) == ("sale", 10)


def test_what_was_fetched_before_agreements_were_asked_for_says_so(tmp_path: Path) -> None:
    rows, work = normalise(tmp_path, [{**made(line(), total="10.0"), "agreements": None}])
    assert rows == []
    assert [bad.reason for bad in work.bad] == [
        "order 450789469: fetched before sales were read from agreements; fetch the date again"
    ]


def thrice(node: dict[str, Any]) -> dict[str, Any]:
    """Return an order whose agreement is there three times."""
    return {**node, "agreements": nodes(agreed(node)["agreements"]["nodes"] * 3)}


def test_what_is_wrong_goes_to_quarantine(tmp_path: Path) -> None:
    wrong = {
        "at most 4 decimal places": made(line(price="10.00001"), total="10.0"),
        "a sale is of a line": made(line(), total="0.0", refunds=[refund(refundLineItems=nodes([back(9, 1, "10.0")]))]),
        "has no processedAt": {**agreed(made(line(), total="10.0")), "processedAt": None},
        "not one that ISO 4217": made(line(), total="10.0", currencyCode="XXQ"),
        "same id": thrice(made(line(), total="30.0")),
        "documented form": {**agreed(made(line(), total="10.0")), "agreements": {"nodes": "many"}},
    }
    good = made(line(price="0.1"), line(2, "0.2"), total="0.3", legacyResourceId="7")
    bad = [{**node, "legacyResourceId": str(number)} for number, node in enumerate(wrong.values(), start=100)]
    rows, work = normalise(tmp_path / "wrong", [*bad, good])
    assert [row["order_id"] for row in rows] == ["7", "7"]
    assert sum(row["total"] for row in rows) == Decimal("0.3")
    reasons = [one.reason for one in work.bad]
    assert [text for text in wrong if not any(text in reason for reason in reasons)] == []
    assert len(reasons) == len(wrong)


def test_money_is_exact_and_what_cannot_be_divided_stays_with_the_first_units(tmp_path: Path) -> None:
    node = made(
        line(1, "99999999999.99", 2, currentQuantity=1, discountAllocations=[{"allocatedAmountSet": bag("0.03")}]),
        total="99999999999.97",
    )
    rows = rows_of(tmp_path / "usd", node)
    assert [(row["gross"], row["discount"]) for row in rows] == [
        (Decimal("199999999999.98"), Decimal("0.03")),
        (Decimal("-99999999999.99"), Decimal("-0.01")),
    ]
    yen = made(
        line(1, "1000", 3, currentQuantity=2, discountAllocations=[{"allocatedAmountSet": bag("100")}]),
        total="1933.0",
        currencyCode="JPY",
        presentmentCurrencyCode="JPY",
    )
    assert [row["discount"] for row in rows_of(tmp_path / "jpy", yen)] == [100, -33]


def sale(kind: str, total: str, taxed: str = "0.0", action: str = "ORDER", **more: Any) -> dict[str, Any]:
    """Return a sale of an agreement, written by hand."""
    return {
        "id": gid("Sale", f"{kind}{action}{total}"),
        "actionType": action,
        "lineType": kind,
        "quantity": None,
        "totalAmount": bag(total),
        "totalTaxAmount": bag(taxed),
        "totalDiscountAmountBeforeTaxes": bag("0.0"),
        "totalDiscountAmountAfterTaxes": bag("0.0"),
        "taxes": [],
        **more,
    }


def test_every_type_of_sale_has_its_row(tmp_path: Path) -> None:
    """Of the schema's `SaleLineType`, those that no made-up order shows; and `SaleActionType` UPDATE and UNKNOWN."""
    of = {"lineItem": {"id": gid("LineItem", 1)}}
    liable = [
        {"amount": bag("1.5"), "taxLine": {"channelLiable": True}},
        {"amount": bag("0.5"), "taxLine": {"channelLiable": None}},
    ]
    placed = [
        sale("PRODUCT", "22.0", "2.0", quantity=2, taxes=liable, **of),
        sale("SHIPPING", "0.0", shippingLine={"id": gid("ShippingLine", 1), "title": "Collect"}),
    ]
    later = [
        sale("PRODUCT", "-3.3", "-0.3", "UPDATE", quantity=2, totalDiscountAmountBeforeTaxes=bag("3.0"), **of),
        sale("PRODUCT", "-11.0", "-1.0", "RETURN", quantity=-1, **of),
        sale("FEE", "2.0", fee={"__typename": "RestockingFee", "id": gid("RestockingFee", 1)}),
        sale("UNKNOWN", "-1.0", action="UNKNOWN"),
    ]
    agreements = nodes(
        {"happenedAt": at, "reason": reason, "sales": nodes(sales)}
        for at, reason, sales in (
            ("2026-03-02T12:00:00Z", "ORDER", placed),
            ("2026-03-04T12:00:00Z", "ORDER_EDIT", later),
        )
    )
    rows = rows_of(tmp_path, made(line(1, "10.0", 2), total="8.7", agreements=agreements))
    names = ("kind", "line_type", "product_name", "quantity", "gross", "discount", "tax", "marketplace_tax", "total")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("sale", "item", "Thing 1", 2, 20, 0, Decimal("0.5"), Decimal("1.5"), 22),
        ("sale", "item", "Thing 1", 0, 0, 3, Decimal("-0.3"), 0, Decimal("-3.3")),
        ("return", "item", "Thing 1", -1, -10, 0, -1, 0, -11),
        ("sale", "service_charge", "Restocking fee", 0, 2, 0, 0, 0, 2),
        ("return", "custom_amount", "Unknown sale", 0, -1, 0, 0, 0, -1),
    ]
    assert [row["occurred_at"].day for row in rows] == [2, 4, 4, 4, 4]
    assert rows[2]["source_line_id"] == rows[0]["line_id"] == "1"
