"""Shapes that real restaurants' orders have, and what Toast's documentation makes of each.

The documents are in ../shared/cases/toast; here is what must come of them, worked out by hand. A line of `sales`:

    line kind type quantity unit_price gross discount tax marketplace_tax total [business date]

and one of `payments`: payment kind tender amount tip fee status [business date]. Ids are cut to the first four signs of their
GUIDs. Without a date of its own a line counts on the case's `day`, which is the order's `businessDate`. Every document is of a
restaurant in New York whose day ends at 4 a.m.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from flux_pipelines.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT.parent / "shared" / "cases" / "toast"


@dataclass(frozen=True)
class Case:
    """What must come of the documents of one file.

    Args:
        day: the business date of its order, and of its rows where a row does not say another.
        why: what Toast's documentation says of the shape: schemas of the orders API 2.9.0 and the configuration API 2.5.0,
            pages of the developer guide and of the platform guide ("Issuing a refund", "Viewing refunds").
        sales: the rows of `transactions`.
        payments: the rows of `payments`.
        quarantined: why its order cannot be used.

    """

    day: str
    why: str
    sales: str
    payments: str = ""
    quarantined: str = ""


CASES: dict[str, Case] = {
    "T01_cash_rounding": Case(
        "2026-08-01",
        "serviceChargeCategory CASH_ROUNDING: an adjustment of the check's total for cash, no revenue.",
        """
        33b2 sale item 1 10 10 0 0.83 0 10.83
        service_charge:575e sale rounding 0 0 0 0 0 0 0.02
        """,
        "06d9 payment cash 10.85 0 0 completed",
    ),
    "T02_fundraising": Case(
        "2026-08-02",
        "FUNDRAISING_CAMPAIGN: ServiceCharge.destination THIRD_PARTY, 'e.g. fundraising funds go to charity'.",
        """
        682c sale item 1 10 10 0 0.8 0 10.8
        service_charge:e93f sale third_party 0 0 0 0 0 0 1
        """,
        "adea payment card 11.8 0 0 completed",
    ),
    "T03_facilitator_tax": Case(
        "2026-08-03",
        "facilitatorCollectAndRemitTax: the marketplace remits the 1.60; the guest paid it, and so did the marketplace's payment.",
        "e36b sale item 1 20 20 0 0 1.6 21.6",
        "358f payment other 21.6 0 0 completed",
    ),
    "T04_surcharge_taxed": Case(
        "2026-08-04",
        "CREDIT_CARD_SURCHARGE is a charge of the restaurant's; the tax on it is in its appliedTaxes.",
        """
        df85 sale item 1 20 20 0 1.6 0 21.6
        service_charge:9ae3 sale service_charge 0 0 0.6 0 0.05 0 0.65
        """,
        "98e7 payment card 22.25 0 0 completed",
    ),
    "T05_gratuity": Case(
        "2026-08-05",
        "A gratuity is not in totalAmount (apiOrdersNetSalesCalculation) but in the payment's amount; tipAmount is beside it.",
        """
        9d24 sale item 1 100 100 0 8 0 108
        service_charge:ea46 sale tip 0 0 0 0 0 0 18
        tip sale tip 0 0 0 0 0 0 5
        """,
        "b7b8 payment card 126 5 0 completed",
    ),
    "T06_java_floats": Case(
        "2026-08-06",
        "Numbers are doubles that were added up: rounded to cents.",
        """
        89ce sale item 1 12.34 12.34 0 1.02 0 13.36
        4885 sale item 1 0 0 0 0 0 0
        """,
        "d402 payment card 13.36 0 0 completed",
    ),
    "T07_merged_check_payment": Case(
        "2026-08-07",
        "Check.deleted: merged into the other check, whose the payment is; both name it.",
        """
        526e sale item 1 10 10 0 0.8 0 10.8
        1971 sale item 1 5 5 0 0.4 0 5.4
        """,
        "539d payment card 16.2 0 0 completed",
    ),
    "T08_tax_per_check": Case(
        "2026-08-08",
        "The check's taxAmount is 0.53: 3 x 0.1766125 is rounded once (platform guide, percent tax rates).",
        """
        4eda sale item 1 1.99 1.99 0 0.18 0 2.17
        63d9 sale item 1 1.99 1.99 0 0.17 0 2.16
        50b5 sale item 1 1.99 1.99 0 0.18 0 2.17
        """,
        "ffea payment cash 6.5 0 0 completed",
    ),
    "T09_refund_service_charge": Case(
        "2026-08-09",
        "RefundDetails of a charge; refundBusinessDate is the day after: 'Refunds only affect financial data on the day of the refund'.",
        """
        afff sale item 1 10 10 0 0.8 0 10.8
        service_charge:9440 sale service_charge 0 0 2 0 0.16 0 2.16
        return:service_charge:9440 return service_charge 0 0 -2 0 -0.16 0 -2.16 2026-08-10
        """,
        """
        799c payment card 12.96 0 0 completed
        799c refund card -2.16 0 0 completed 2026-08-10
        """,
    ),
    "T10_tax_included": Case(
        "2026-08-10",
        "taxInclusion INCLUDED: 7.50 on the receipt is 6.94 and 0.56 of tax.",
        "d781 sale item 1 6.94 6.94 0 0.56 0 7.5",
        "0a59 payment card 7.5 0 0 completed",
    ),
    "T11_comp": Case(
        "2026-08-11",
        "Discounted to nothing: sold, with nothing to pay.",
        "a645 sale item 1 8 8 8 0 0 0",
    ),
    "T12_nulls": Case(
        "2026-08-11",
        "Absent values: a selection of no item, no quantity, no price before discounts.",
        "95b1 sale custom_amount 1 3 3 0 0 0 3",
        "6afe payment cash 3 0 0 completed",
    ),
    "T13_voids": Case(
        "2026-08-12",
        "A voided selection is in no sum; a voided payment moved no money, nor its tip.",
        """
        c52a sale item 1 12 12 0 0.96 0 12.96
        tip sale tip 0 0 0 0 0 0 3
        """,
        """
        632b payment card 12.96 3 0 completed
        e434 payment card 0 0 0 canceled
        """,
    ),
    "T14_gift_cards": Case(
        "2026-08-13",
        "deferred, TOAST_CARD_SELL: no revenue ('purchases of gift cards' are not in net sales); GIFTCARD is how the tea was paid.",
        """
        4c6e sale gift_card 1 50 0 0 0 0 50
        f5ca sale item 1 4 4 0 0.32 0 4.32
        tip sale tip 0 0 0 0 0 0 1
        """,
        """
        8abf payment card 50 0 0 completed
        dbba payment gift_card 4.32 1 0 completed
        """,
    ),
    "T15_house_account": Case(
        "2026-08-14",
        "HOUSE_ACCOUNT_PAY_BALANCE pays a debt, and is not in net sales; a dinner on the house account is sold.",
        """
        1560 sale gift_card 1 75 0 0 0 0 75
        d965 sale item 1 30 30 0 2.4 0 32.4
        """,
        """
        5bbb payment card 75 0 0 completed
        a04a payment other 32.4 0 0 completed
        """,
    ),
    "T17_negative_price": Case(
        "2026-08-15",
        "The burger's price has its modifier's -2.00 in it; a coupon is a line of its own with less tax.",
        """
        c417 sale item 1 12 12 0 0.96 0 12.96
        b54a sale item 1 -3 -3 0 -0.24 0 -3.24
        """,
        "ae02 payment card 9.72 0 0 completed",
    ),
    "T19_processing_void": Case(
        "2026-08-17",
        "PROCESSING_VOID: 'A void request for the payment is being processed': no money, no tip.",
        "7453 sale item 1 4 4 0 0.32 0 4.32",
        """
        5dd9 payment card 0 0 0 canceled
        844a payment cash 4.32 0 0 completed
        """,
    ),
    "T21_voided_order": Case(
        "2026-08-19",
        "Order.voided: not in net sales.",
        "453f void item 0 0 0 0 0 0 0",
        "514f payment card 0 0 0 canceled",
    ),
    "T22_gratuity_refunded": Case(
        "2026-08-20",
        "'Refunded gratuity service charges decrease the Gratuity figures.'",
        """
        0153 sale item 1 100 100 0 8 0 108
        service_charge:a1e1 sale tip 0 0 0 0 0 0 18
        return:service_charge:a1e1 return tip 0 0 0 0 0 0 -18
        """,
        """
        ab1c payment card 126 0 0 completed
        ab1c refund card -18 0 0 completed
        """,
    ),
    "T23_moved_payment": Case(
        "2026-08-21",
        "Order.deleted: 'if you combine a check into another order, the original order for the check is deleted'.",
        """
        a7f2 sale item 1 4 4 0 0.32 0 4.32
        41bb void item 0 0 0 0 0 0 0
        """,
        "d42e payment card 4.32 0 0 completed",
    ),
    "T24_cash_change": Case(
        "2026-08-22",
        "amountTendered is what was handed over, amount what was paid.",
        "2ef0 sale item 1 4 4 0 0.32 0 4.32",
        "bd71 payment cash 4.32 0 0 completed",
    ),
    "T25_one_check_open": Case(
        "2026-08-23",
        "'include open and unpaid orders in the net sales calculation': 6.48 is still owed.",
        """
        5419 sale item 1 4 4 0 0.32 0 4.32
        b39c sale item 1 6 6 0 0.48 0 6.48
        """,
        "1491 payment card 4.32 0 0 completed",
    ),
    "T30_modifier_refunded": Case(
        "2026-07-01",
        "RefundDetails of a 'modifier option': its own product and tax; the burger was kept, so no unit came back.",
        """
        a67d sale item 1 12 12 0 0.96 0 12.96
        return:f03e return item 0 2 -2 0 -0.16 0 -2.16
        """,
        """
        631c payment card 12.96 0 0 completed
        631c refund card -2.16 0 0 completed
        """,
    ),
    "T32_gratuity_as_tip_refund": Case(
        "2026-07-03",
        "tipRefundAmount: 'Refunded credit card tips decrease the Tips field'; the gratuity stays.",
        """
        a8f0 sale item 1 100 100 0 8 0 108
        service_charge:47c5 sale tip 0 0 0 0 0 0 18
        tip sale tip 0 0 0 0 0 0 5
        return:tip return tip 0 0 0 0 0 0 -5
        """,
        """
        1a6e payment card 126 5 0 completed
        1a6e refund card 0 -5 0 completed
        """,
    ),
    "T34_gift_card_refunded": Case(
        "2026-07-05",
        "A gift card given back is no less revenue: it was none.",
        """
        b106 sale gift_card 1 50 0 0 0 0 50
        return:b106 return gift_card -1 50 0 0 0 0 -50
        """,
        """
        132c payment card 50 0 0 completed
        132c refund card -50 0 0 completed
        """,
    ),
    "T35_full_refund_no_details": Case(
        "2026-07-06",
        "refundStatus FULL, and no line says for what: the entire check came back.",
        """
        651d sale item 1 100 100 0 8 0 108
        return:651d return item -1 100 -100 0 -8 0 -108
        """,
        """
        4820 payment card 108 0 0 completed
        4820 refund card -108 0 0 completed
        """,
    ),
    "T36_tax_exempt": Case(
        "2026-07-07",
        "Check.taxExempt: no tax.",
        "98c0 sale item 1 10 10 0 0 0 10",
        "b90d payment card 10 0 0 completed",
    ),
    "T37_same_guid": Case(
        "2026-07-08",
        "Two selections cannot be told apart: kept aside with the reason. Its payment was made all the same.",
        "",
        "ae71 payment card 8.64 0 0 completed",
        quarantined="two of its selections have the same guid",
    ),
    "T38_test_mode": Case(
        "2026-07-09",
        "createdInTestMode: no sale, and no payment.",
        "",
    ),
    "T39_weight": Case(
        "2026-07-10",
        "quantity is a double: 1.234 lb at 15.00.",
        "6290 sale item 1.234 15 18.51 0 1.48 0 19.99",
        "c144 payment card 19.99 0 0 completed",
    ),
    "T40_only_charge": Case(
        "2026-07-11",
        "A charge needs no line beside it.",
        "service_charge:70ec sale service_charge 0 0 250 0 0 0 250",
        "eb64 payment card 250 0 0 completed",
    ),
    "T41_deposit_before": Case(
        "2026-07-12",
        "A scheduled order: businessDate is 'on which the order was fulfilled', paidBusinessDate when each payment was first applied.",
        "91cf sale item 1 500 500 0 40 0 540",
        """
        29f2 payment card 340 0 0 completed
        dfaa payment card 200 0 0 completed 2026-06-20
        """,
    ),
    "T50_moved_date_after": Case(
        "2026-08-05",
        "businessDate moved with the fulfilment; each payment keeps its paidBusinessDate.",
        "fad7 sale item 1 20 20 0 1.6 0 21.6",
        """
        1cd7 payment card 10 0 0 completed 2026-08-04
        8ce5 payment card 11.6 0 0 completed
        """,
    ),
    "T50_moved_date_before": Case(
        "2026-08-04",
        "The same order as it was the day before; its GUIDs end otherwise here, so that both can be.",
        "fad7 sale item 1 20 20 0 1.6 0 21.6",
        """
        1cd7 payment card 10 0 0 completed
        8ce5 payment card 11.6 0 0 completed 2026-08-05
        """,
    ),
}


def orders(name: str, later: int = 0) -> list[dict[str, Any]]:
    """The orders of a case, with every instant and business date so many days later."""

    def moved(text: re.Match[str]) -> str:
        day = date.fromisoformat(text[0]) + timedelta(days=later)
        return f"{day:%Y%m%d}" if len(text[0]) == 8 else f"{day}"

    text = _DATE.sub(moved, (FOLDER / f"{name}.json").read_text())
    if name == "T50_moved_date_before":
        text = re.sub(r"-[0-9a-f]{12}\b", lambda end: f"-{end[0][:0:-1]}", text)
    found = json.loads(text)
    return found if isinstance(found, list) else [one["document"] for one in found["documents"]]


_DATE = re.compile(r'\d{4}-\d\d-\d\d(?=T)|(?<=Date": )\d{8}\b')
