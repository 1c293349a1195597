"""Shapes that real merchants' orders and payments have, and what Square's documentation makes of each.

The documents are in ../shared/cases/square; here is what must come of them, worked out by hand. A line of `sales`:

    order line kind type quantity unit_price gross discount tax total [business date]

and one of `payments`: payment kind tender amount tip fee status [business date]. Without a date of its own a line counts
on the case's `day`. Every document is of a store in New York.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from flux_pipelines.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT.parent / "shared" / "cases" / "square"
STORE = "LUYP4U3ITSDCW"


@dataclass(frozen=True)
class Case:
    """What must come of the documents of one file.

    Args:
        day: the business date of its rows, where a row does not say another.
        why: what Square's documentation says of the shape: schemas are of its OpenAPI description (2025-08-20).
        sales: the rows of `transactions`.
        payments: the rows of `payments`.
        quarantined: orders that cannot be used, with the words of the reason.
        levels: the rows of `inventory_levels`: product, quantity, availability.
        gaps: what `tie_out` does not explain, by business date; none where nothing is said.

    """

    day: str
    why: str
    sales: str = ""
    payments: str = ""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    levels: str = ""
    gaps: Mapping[str, str] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "S01_gift_card_sale": Case(
        "2026-08-01",
        "OrderLineItemItemType GIFT_CARD: money held for the buyer, not revenue (sellercommunity: net sales leave it out).",
        """
        S01 a sale item 1 10 10 0 0 10
        S01 g sale gift_card 1 50 0 0 0 50
        """,
        "S01p payment card 60 0 0 completed",
    ),
    "S02_split_tender_tips": Case(
        "2026-08-02",
        "Payment.amount_money leaves the tip out, Tender.amount_money has it in; Order.total_tip_money is of all tenders.",
        """
        S02 a sale item 1 50 50 0 0 50
        S02 tip sale tip 0 0 0 0 0 7
        """,
        """
        S02p payment card 30 3 0 completed
        S02q payment card 20 4 0 completed
        """,
    ),
    "S03_unlinked_refund": Case(
        "2026-08-03",
        "OrderReturn.source_order_id is unset for unlinked returns; PaymentRefund.destination_type is all that is told.",
        "S03 x1 return custom_amount -1 10 -10 0 0 -10",
        "S03r refund card -10 0 0 completed",
    ),
    "S04_apportioned_surcharge_inclusive": Case(
        "2026-08-04",
        "OrderServiceChargeTreatmentType APPORTIONED: inside the lines' totals; inclusive tax is inside the price.",
        """
        S04 a sale item 1 13.61 13.61 0 1.39 15
        S04 service_charge:sc sale service_charge 0 0 0.24 0 0 0.24
        """,
        "S04p payment card 15.24 0 0 completed",
    ),
    "S05_paid_but_open_fulfilment": Case(
        "2026-08-05",
        "net_amount_due_money 0: fully paid, so in the report's `closed_checks`, though the state is OPEN until it is handed over.",
        "S05 a sale item 1 25 25 0 0 25",
        "S05p payment card 25 0 -1.03 completed",
    ),
    "S07_exchange": Case(
        "2026-08-07",
        "Order.returns with line_items: an exchange; net_amounts = sale less return.",
        """
        S07a a sale item 1 10 10 0 0.80 10.80 2026-08-06
        S07b b sale item 1 15 15 0 1.20 16.20
        S07b rb return item -1 10 -10 0 -0.80 -10.80
        """,
        """
        S07p payment card 10.80 0 0 completed 2026-08-06
        S07q payment card 5.40 0 0 completed
        """,
    ),
    "S08_refund_tip_and_charge": Case(
        "2026-08-08",
        "OrderReturn.return_tips and return_service_charges. The refund says no destination: it went back to the card.",
        """
        S08a a sale item 1 10 10 0 0 10
        S08a service_charge:sc sale service_charge 0 0 2 0 0 2
        S08a tip sale tip 0 0 0 0 0 2
        S08b return_service_charge:rs return service_charge 0 0 -2 0 0 -2
        S08b return_tip:rt return tip 0 0 0 0 0 -2
        """,
        """
        S08p payment card 12 2 0 completed
        S08r refund card -4 0 0 completed
        """,
    ),
    "S09_cash_rounding": Case(
        "2026-08-09",
        "Order.rounding_adjustment: cash rounding, in the total and not revenue.",
        """
        S09 a sale item 1 10.03 10.03 0 0 10.03
        S09 rounding sale rounding 0 0 0 0 0 0.02
        """,
        "S09p payment cash 10.05 0 0 completed",
    ),
    "S10_measured_quantity": Case(
        "2026-08-10",
        "OrderLineItem.quantity is text, with up to five decimals; variation_total_price_money = price x quantity.",
        "S10 a sale item 1.234 5 6.17 0 0 6.17",
        "S10p payment cash 6.17 0 0 completed",
    ),
    "S11_zero_order": Case(
        "2026-08-11",
        "A comp is a discount of 100 %: sold for nothing, with nothing to pay.",
        "S11 a sale item 1 9 9 9 0 0",
    ),
    "S12_only_service_charge": Case(
        "2026-08-11",
        "OrderServiceCharge stands beside the lines, and needs none.",
        "S12 service_charge:sc sale service_charge 0 0 7.50 0 0 7.50",
        "S12p payment card 7.50 0 0 completed",
    ),
    "S13_invoice_instalments": Case(
        "2026-08-20",
        "sale_timestamp is when the final payments were received: the whole sale counts when the last instalment comes.",
        "S13 a sale item 1 200 200 0 0 200",
        """
        S13p payment card 50 0 0 completed 2026-08-12
        S13q payment card 150 0 0 completed
        """,
    ),
    "S14_canceled_failed": Case(
        "2026-08-13",
        "Payment.status CANCELED and FAILED moved no money.",
        "S14 a sale item 1 9 9 0 0 9",
        """
        S14a payment card 0 0 0 failed
        S14b payment card 0 0 0 canceled
        S14c payment card 9 0 -0.56 completed
        """,
    ),
    "S15_failed_refund": Case(
        "2026-08-14",
        "PaymentRefund.status FAILED: the goods came back (the return is COMPLETED), the money did not go: it is still owed.",
        """
        S15a a sale item 1 9 9 0 0 9
        S15b rx return custom_amount -1 9 -9 0 0 -9
        """,
        """
        S15p payment card 9 0 -0.56 completed
        S15r refund card 0 0 0 failed
        """,
        gaps={"2026-08-14": "-9"},
    ),
    "S17_app_fee": Case(
        "2026-08-15",
        "Payment.app_fee_money: what the developer takes of the payment; the seller gets 20.00 - 0.88 - 2.00.",
        "S17 a sale item 1 20 20 0 0 20",
        "S17p payment card 20 0 -2.88 completed",
    ),
    "S20_tender_types": Case(
        "2026-08-19",
        "Payment.source_type and, of cards, card_brand SQUARE_GIFT_CARD; external_details.source_fee_money is a fee too.",
        "S20 a sale item 1 50 50 0 0 50",
        """
        S20a payment other 10 0 -0.30 completed
        S20b payment other 10 0 0 completed
        S20c payment other 10 0 0 completed
        S20d payment gift_card 10 0 0 completed
        S20e payment card 10 0 0 completed
        """,
    ),
    "S22_no_sale": Case("2026-08-21", "TenderType NO_SALE: the drawer was opened; there is nothing to count."),
    "S25_discounted_gift_card": Case(
        "2026-08-17",
        "The buyer owes 90.00 for a card of 100.00: `total` is the money, quantity x unit_price the card's face value.",
        "S25 g sale gift_card 1 100 0 0 0 90",
        "S25p payment card 90 0 0 completed",
    ),
    "S26_auto_gratuity": Case(
        "2026-08-18",
        "OrderServiceChargeType AUTO_GRATUITY is a service charge, in total_service_charge_money and not in total_tip_money.",
        """
        S26 a sale item 1 100 100 0 0 100
        S26 service_charge:ag sale service_charge 0 0 18 0 0 18
        """,
        "S26p payment card 118 0 0 completed",
    ),
    "S28_refund_includes_tip": Case(
        "2026-08-22",
        "OrderReturn.return_amounts.tip_money without return_tips: the tip was given back all the same.",
        """
        S28a a sale item 1 10 10 0 0 10
        S28a tip sale tip 0 0 0 0 0 2
        S28b rx return custom_amount -1 10 -10 0 0 -10
        S28b return_tip:1 return tip 0 0 0 0 0 -2
        """,
        """
        S28p payment card 10 2 0 completed
        S28r refund card -12 0 0 completed
        """,
    ),
    "S29_inclusive_tax_discount": Case(
        "2026-08-23",
        "TaxInclusionType INCLUSIVE: the tax is in the price: 19.99 - 1.64 and 13.33 - 1.09, as gross_sales_money in the US.",
        """
        S29 a sale item 1 18.35 18.35 2 1.64 17.99
        S29 b sale item 1 12.24 12.24 1.34 1.09 11.99
        """,
        "S29p payment card 29.98 0 0 completed",
    ),
    "S30_tender_without_total": Case(
        "2026-07-01",
        "Money was taken, and nothing says what for.",
        "",
        "S30p payment card 282.50 0 0 completed",
        quarantined={"S30": "it has payments or refunds, but nothing was sold or returned"},
        gaps={"2026-07-01": "-282.50"},
    ),
    "S30b_tender_with_total": Case(
        "2026-07-03",
        "A total, and no line that makes it up.",
        "",
        "S30bp payment card 282.50 0 0 completed",
        quarantined={"S30b": "its rows add up to 0.0000 USD, but its own total is 282.5000 USD"},
        gaps={"2026-07-03": "-282.50"},
    ),
    "S41_return_amounts_alone": Case(
        "2026-07-04",
        "A return has no total_money: return_amounts tell (developer.squareup.com/forums/t/24765). Its payment is unknown.",
        "S41 x1 return custom_amount -1 10 -10 0 0 -10",
        "S41r refund other -10 0 0 completed",
    ),
    "S44_fee_adjustment": Case(
        "2026-07-07",
        "ProcessingFee: positive values are assessed, negative ones returned.",
        "S44 a sale item 1 100 100 0 0 100",
        "S44p payment card 100 0 -3 completed",
    ),
    "S45_catalogue_sold_out": Case(
        "2026-08-01",
        "ItemVariationLocationOverrides.sold_out, by hand, tracked or not; only IN_STOCK can be sold.",
        levels="""
        V45A 7 out_of_stock
        V45B -3.5 out_of_stock
        V45D - out_of_stock
        """,
    ),
    "S46_reward_discount": Case(
        "2026-07-08",
        "A reward is a discount like any other.",
        """
        S46 a sale item 1 5 5 5 0 0
        S46 b sale item 1 15 15 0 0.90 15.90
        """,
        "S46p payment card 15.90 0 0 completed",
    ),
    "S48_approved_payment": Case(
        "2026-07-09",
        "Completed orders are fully paid (OrderState); the payment is APPROVED and not captured yet.",
        "S48 a sale item 1 10 10 0 0 10",
        "S48p payment card 10 0 0 pending",
        gaps={"2026-07-09": "10"},
    ),
    "S50_dst_and_midnight": Case(
        "2026-03-08",
        "The location's local date: 05:00 UTC is midnight before the clocks change in New York, 04:00 UTC after it.",
        """
        S50a x sale item 1 1 1 0 0 1 2026-03-07
        S50b x sale item 1 1 1 0 0 1
        S50c x sale item 1 1 1 0 0 1
        S50d x sale item 1 1 1 0 0 1 2026-03-09
        S50e x sale item 1 1 1 0 0 1 2026-03-11
        """,
        """
        S50pa payment cash 1 0 0 completed 2026-03-07
        S50pb payment cash 1 0 0 completed
        S50pc payment cash 1 0 0 completed
        S50pd payment cash 1 0 0 completed 2026-03-09
        S50pe payment card 1 0 0 completed 2026-03-10
        """,
    ),
    "S51_return_apportioned": Case(
        "2026-03-12",
        "OrderReturnServiceCharge, apportioned: inside the returned lines' totals.",
        """
        S51 x1 return item -1 13.61 -13.61 0 -1.39 -15
        S51 return_service_charge:rsc return service_charge 0 0 -0.24 0 0 -0.24
        """,
        "S51r refund card -15.24 0 0 completed",
    ),
    "S52_canceled_with_refund": Case(
        "2026-03-13",
        "Canceled orders are not paid (OrderState).",
        "S52 x void item 0 0 0 0 0 0",
        "S52p payment card 0 0 0 canceled",
    ),
    "S53_double_surcharge": Case(
        "2026-03-14",
        "A charge that is not apportioned stands beside the lines, whatever they say of it: 15.24 + 0.24 is its total.",
        """
        S53 a sale item 1 13.85 13.85 0 1.39 15.24
        S53 service_charge:sc sale service_charge 0 0 0.24 0 0 0.24
        """,
        "S53p payment card 15.48 0 0 completed",
    ),
    "S55_gift_card_payment_refunded": Case(
        "2026-07-20",
        "destination_type has no word for gift cards; without destination_details the money went back to the payment.",
        """
        S55a a sale item 1 10 10 0 0 10
        S55b x return item -1 10 -10 0 0 -10
        """,
        """
        S55p payment gift_card 10 0 0 completed
        S55r refund gift_card -10 0 0 completed
        """,
    ),
}


def documents(name: str, later: int = 0) -> list[dict[str, Any]]:
    """The records of a case, as they are posted to the sandbox, with every instant so many days later."""

    def moved(text: re.Match[str]) -> str:
        return str(date.fromisoformat(text[0]) + timedelta(days=later))

    text = _DATE.sub(moved, (FOLDER / f"{name}.json").read_text())
    found: list[dict[str, Any]] = json.loads(text)["documents"]
    return found


_DATE = re.compile(r"\d{4}-\d\d-\d\d(?=T)")
