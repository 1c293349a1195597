"""Shapes that real shops' orders have, and what Shopify's documentation makes of each.

The documents are in ../shared/cases/shopify; here is what must come of them, worked out by hand. They were written without
agreements, which the sandbox works out of them. A line of `sales`:

    line kind type quantity unit_price gross discount tax total [business date]

and one of `payments`: payment kind tender amount tip fee status [business date]. Sales are called by their types, lines by their
numbers. Without a date of its own a sale counts on the case's `day`, a payment on 2026-11-10: whatever the day of the order, most
documents say that it was paid then. Refunds are dated before their orders, which no refund can be: the sandbox takes them to
be of the order's day, or of that of its cancellation. Every document is of a shop in New York whose day ends at midnight.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from flux_pipelines.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT.parent / "shared" / "cases" / "shopify"
#: Those that are no order: what they are about is tested where that is.
APART = (
    "blocking_check_does_not_block",
    "catalogue_50_products_of_100_variants",
    "level_inactive",
    "level_negative",
    "level_untracked",
    "order_deleted_after_more_than_7_days",
    "product_2048",
    "product_250",
    "product_active",
    "product_archived",
    "product_draft",
    "removed_connection_payments_known",
    "timezone_changed_then_old_day_relanded",
)


@dataclass(frozen=True)
class Case:
    """What must come of the document of one file.

    Args:
        day: the business date of its order, and of its rows where a row does not say another.
        why: what Shopify says of the shape: types and fields of the schema 2026-10, pages of shopify.dev (order sales data)
            and of help.shopify.com (sales reports).
        sales: the rows of `transactions`.
        payments: the rows of `payments`.

    """

    day: str
    why: str
    sales: str
    payments: str = ""


@cache
def document(name: str) -> dict[str, Any]:
    """Return the order of a case."""
    return json.loads((FOLDER / f"{name}.json").read_text())["document"]  # type: ignore[no-any-return]


CASES: dict[str, Case] = {
    "additional_fee_refunded": Case(
        "2026-11-10",
        "SaleLineType ADDITIONAL_FEE: the fee given back is a sale of its own (currentTotalAdditionalFeesSet 0 of 2).",
        """
        1 sale item 1 50 50 0 0 50
        additional_fee sale service_charge 0 0 2 0 0 2
        product return item -1 50 -50 0 0 -50
        additional_fee return service_charge 0 0 -2 0 0 -2
        """,
        """
        201 payment card 52 0 0 completed
        202 refund card -52 0 0 completed
        """,
    ),
    "cancel_keeps_fee": Case(
        "2026-11-10",
        "SaleLineType, adjustments: the goods come back whole, and 10 of the 100 was kept. Cancelling counts on its day (sales reports).",
        """
        1 sale item 1 100 100 0 0 100
        product return item -1 100 -100 0 0 -100 2026-11-11
        adjustment return custom_amount 0 0 10 0 0 10 2026-11-11
        """,
        """
        301 payment card 100 0 0 completed
        302 refund card -90 0 0 completed
        """,
    ),
    "cancel_keeps_fee2": Case(
        "2026-11-14",
        "As cancel_keeps_fee.",
        """
        1 sale item 1 100 100 0 0 100
        product return item -1 100 -100 0 0 -100 2026-11-15
        adjustment return custom_amount 0 0 10 0 0 10 2026-11-15
        """,
        """
        2401 payment card 100 0 0 completed
        2402 refund card -90 0 0 completed
        """,
    ),
    "cancel_no_refund": Case(
        "2026-11-14",
        "A cancellation is a return on its day, refunded or not (sales reports).",
        """
        1 sale item 1 45 45 0 0 45
        product return item -1 45 -45 0 0 -45 2026-11-15
        """,
        "2601 payment card 45 0 0 completed",
    ),
    "cancelled_gift_and_store_credit": Case(
        "2026-11-14",
        "The refund's own gateway says where the money went: into store credit, not back to the card.",
        """
        1 sale item 1 30 30 0 0 30
        product return item -1 30 -30 0 0 -30 2026-11-15
        """,
        """
        2701 payment card 30 0 0 completed
        2702 refund other -30 0 0 completed
        """,
    ),
    "cash_change": Case(
        "2026-11-12",
        "OrderTransactionKind CHANGE: 'the money returned to the customer when they've paid too much during a cash transaction'.",
        "1 sale item 1 20 20 0 0 20",
        "2201 payment cash 20 0 0 completed",
    ),
    "custom_item_called_tip": Case(
        "2026-11-18",
        "TipSale is what is a tip; a custom item may be called so. totalTipReceivedSet is 4, the item 5, the order 29.",
        """
        1 sale item 1 20 20 0 0 20
        2 sale custom_amount 1 5 5 0 0 5
        tip sale tip 0 0 0 0 0 4
        """,
        "5201 payment card 25 4 0 completed",
    ),
    "custom_item_tip_only": Case(
        "2026-11-18",
        "As before, and no tip at all.",
        """
        1 sale item 1 20 20 0 0 20
        2 sale custom_amount 1 5 5 0 0 5
        """,
        "5301 payment card 25 0 0 completed",
    ),
    "discrepancy_with_tax_header_without": Case(
        "2026-11-22",
        "OrderAdjustment: amountSet -4.5 and taxAmountSet -0.5; an AdjustmentSale holds both.",
        """
        1 sale item 1 30 30 0 0 30
        adjustment return custom_amount 0 0 -4.5 0 -0.5 -5
        """,
        """
        8101 payment card 30 0 0 completed
        8102 refund card -5 0 0 completed
        """,
    ),
    "duties_back": Case(
        "2026-11-18",
        "DutySale: duties are owed to the country of destination; currentTotalDutiesSet is 0 of 7.",
        """
        1 sale item 1 30 30 0 0 30
        duty sale service_charge 0 0 0 0 7 7
        product return item -1 30 -30 0 0 -30
        duty return service_charge 0 0 0 0 -7 -7
        """,
        """
        5701 payment card 37 0 0 completed
        5702 refund card -37 0 0 completed
        """,
    ),
    "edit_thirds": Case(
        "2026-11-18",
        "Sale: what cannot be divided evenly is allocated one at a time from the first: 1.67, 1.67, 1.66 off; the last unit was taken out.",
        """
        1 sale item 3 9.99 29.97 5 0 24.97
        product return item -1 9.99 -9.99 -1.66 0 -8.33
        """,
        """
        5401 payment card 24.97 0 0 completed
        5402 refund card -8.33 0 0 completed
        """,
    ),
    "edit_with_refund_record": Case(
        "2026-11-10",
        "A refund of one of three: subtotal 8.32 of 9.99 less 1.67, tax 0.83.",
        """
        1 sale item 3 9.99 29.97 5 2.5 27.47
        product return item -1 9.99 -9.99 -1.67 -0.83 -9.15
        """,
        """
        1001 payment card 27.47 0 0 completed
        1002 refund card -9.15 0 0 completed
        """,
    ),
    "edited_balance_due": Case(
        "2026-11-10",
        "An edit adds to an order that was paid; it counts, paid or not (sales reports).",
        """
        1 sale item 1 100 100 0 0 100
        2 sale item 1 20 20 0 0 20
        """,
        "401 payment card 100 0 0 completed",
    ),
    "edited_balance_due2": Case(
        "2026-11-14",
        "As edited_balance_due.",
        """
        1 sale item 1 100 100 0 0 100
        2 sale item 1 20 20 0 0 20
        """,
        "2501 payment card 100 0 0 completed",
    ),
    "failed_then_paid": Case(
        "2026-11-18",
        "OrderTransactionStatus FAILURE and ERROR moved no money.",
        "1 sale item 1 12 12 0 0 12",
        """
        5601 payment card 0 0 0 failed
        5602 payment card 0 0 0 failed
        5603 payment card 12 0 0 completed
        """,
    ),
    "free_order": Case(
        "2026-11-10",
        "A discount of everything is a sale of nothing, with its units.",
        "1 sale item 1 12 12 12 0 0",
    ),
    "gift_and_store_credit": Case(
        "2026-11-10",
        "GiftCardSale: a liability, at what was paid for it: 50 less 5. Store credit is another tender.",
        """
        1 sale gift_card 1 50 0 0 0 45
        2 sale item 1 30 30 0 0 30
        """,
        """
        801 payment gift_card 25 0 0 completed
        802 payment other 20 0 0 completed
        803 payment card 30 0 0 completed
        """,
    ),
    "gift_card_returned": Case(
        "2026-11-10",
        "GiftCardSale, returned.",
        """
        1 sale gift_card 1 50 0 0 0 50
        gift_card return gift_card -1 50 0 0 0 -50
        """,
        """
        901 payment card 50 0 0 completed
        902 refund card -50 0 0 completed
        """,
    ),
    "imported_backdated": Case(
        "2026-11-18",
        "processedAt is the day of the sale, createdAt when it was imported.",
        "1 sale item 1 17 17 0 0 17",
        "6001 payment card 17 0 0 completed",
    ),
    "imported_no_transactions": Case(
        "2026-11-10",
        "Marked as paid, without a payment: a sale all the same (sales reports).",
        "1 sale item 1 12 12 0 0 12",
    ),
    "partial_capture": Case(
        "2026-11-18",
        "An authorization of 100, of which 60 was captured and the rest voided.",
        "1 sale item 1 60 60 0 0 60",
        "5502 payment card 60 0 0 completed",
    ),
    "pending_discrepancy_header": Case(
        "2026-11-13",
        "OrderAdjustmentDiscrepancyReason PENDING_REFUND_DISCREPANCY and REFUND_DISCREPANCY cancel each other out: 8 is left.",
        """
        1 sale item 1 71.39 71.39 0 0 71.39
        2 sale item 1 8 8 0 0 8
        product return item -1 71.39 -71.39 0 0 -71.39
        adjustment return custom_amount 0 0 -71.39 0 0 -71.39
        adjustment return custom_amount 0 0 71.39 0 0 71.39
        """,
        """
        2301 payment card 79.39 0 0 completed
        2302 refund card -71.39 0 0 pending
        """,
    ),
    "pending_refund_pair": Case(
        "2026-11-10",
        "As before: nothing is left, and the refund is still to be paid.",
        """
        1 sale item 1 71.39 71.39 0 0 71.39
        product return item -1 71.39 -71.39 0 0 -71.39
        adjustment return custom_amount 0 0 71.39 0 0 71.39
        adjustment return custom_amount 0 0 -71.39 0 0 -71.39
        """,
        """
        601 payment card 71.39 0 0 completed
        602 refund card -71.39 0 0 pending
        """,
    ),
    "pos_cash_change": Case(
        "2026-11-10",
        "totalCashRoundingAdjustment: 19.98 is paid with 20.00, of 25.00 handed over.",
        """
        1 sale item 1 19.98 19.98 0 0 19.98
        rounding sale rounding 0 0 0 0 0 0.02
        """,
        "1201 payment cash 20 0 0 completed",
    ),
    "presentment_refund": Case(
        "2026-11-18",
        "Paid in CAD: amounts are the shop's, and a cent that their conversion leaves over is no revenue.",
        """
        1 sale item 1 33.33 33.33 0 6.67 40
        2 sale item 1 11.11 11.11 0 0 11.11
        product return item -1 33.33 -33.33 0 -6.67 -40
        conversion sale rounding 0 0 0 0 0 0.01
        """,
        """
        6201 payment card 51.12 0 0 completed
        6202 refund card -40 0 0 completed
        """,
    ),
    "refund_amount_only": Case(
        "2026-11-10",
        "An AdjustmentSale without goods: money given back for nothing that came back.",
        """
        1 sale item 1 100 100 0 10 110
        adjustment return custom_amount 0 0 -20 0 0 -20
        """,
        """
        501 payment card 110 0 0 completed
        502 refund card -20 0 0 completed
        """,
    ),
    "refund_discrepancy_kept": Case(
        "2026-11-23",
        "AdjustmentSale: 265 came back, 261 was refunded; 4 was kept.",
        """
        1 sale item 1 265 265 0 0 265
        product return item -1 265 -265 0 0 -265
        adjustment return custom_amount 0 0 4 0 0 4
        """,
        """
        8201 payment card 265 0 0 completed
        8202 refund card -261 0 0 completed
        """,
    ),
    "shipping_two_refunds": Case(
        "2026-11-10",
        "ShippingLineSale: 8 of 10 and 0.8 tax, given back in halves.",
        """
        1 sale item 1 40 40 0 0 40
        shipping sale service_charge 0 0 10 2 0.8 8.8
        shipping return service_charge 0 0 -4 0 -0.4 -4.4
        shipping return service_charge 0 0 -4 0 -0.4 -4.4
        """,
        """
        1101 payment card 48.8 0 0 completed
        1102 refund card -4.4 0 0 completed
        1103 refund card -4.4 0 0 completed
        """,
    ),
    "sixty_lines": Case(
        "2026-11-18",
        "More lines and sales than a page holds.",
        "\n".join(f"{n} sale item 1 1 1 0 0 1" for n in range(1, 61)),
        "6101 payment card 60 0 0 completed",
    ),
    "test_order": Case(
        "2026-11-18",
        "Test orders are no sales (sales reports).",
        "",
    ),
    "tip_localised": Case(
        "2026-11-10",
        "TipSale, whatever the line is called: 'Trinkgeld'.",
        """
        1 sale item 1 50 50 0 5 55
        tip sale tip 0 0 0 0 0 4
        """,
        "101 payment card 55 4 0 completed",
    ),
    "tip_pos_no_line": Case(
        "2026-11-14",
        "TipSale of a tip that is not among the lines.",
        """
        1 sale item 1 20 20 0 2 22
        tip sale tip 0 0 0 0 0 4
        """,
        "2801 payment card 22 4 0 completed",
    ),
    "tz_early_12": Case(
        "2026-11-12",
        "06:30 UTC is 01:30 in New York.",
        "1 sale item 1 101 101 0 0 101",
        "7101 payment card 101 0 0 completed 2026-11-12",
    ),
    "tz_early_13": Case(
        "2026-11-13",
        "As before.",
        "1 sale item 1 202 202 0 0 202",
        "7201 payment card 202 0 0 completed 2026-11-13",
    ),
    "tz_evening": Case(
        "2026-11-16",
        "03:30 UTC on the 17th is 22:30 on the 16th in New York.",
        "1 sale item 1 61 61 0 0 61",
        "3101 payment card 61 0 0 completed 2026-11-16",
    ),
    "unknown_retail_location": Case(
        "2026-11-18",
        "A place that locations() does not have: the order is kept aside when it lands.",
        "",
    ),
    "vat_mixed_refund": Case(
        "2026-11-14",
        "Sale: totalAmount is after taxes, so a refund's subtotals do not matter: goods hold their tax, shipping does not.",
        """
        1 sale item 1 10 10 0 2 12
        2 sale item 1 20 20 0 4 24
        shipping sale service_charge 0 0 5 0 1 6
        product return item -1 10 -10 0 -2 -12
        shipping return service_charge 0 0 -5 0 -1 -6
        """,
        """
        2911 payment card 42 0 0 completed
        2912 refund card -18 0 0 completed
        """,
    ),
    "vat_refund_part": Case(
        "2026-11-10",
        "Prices hold tax: unit_price is without it, 20 of two for 24.",
        """
        1 sale item 2 10 20 0 4 24
        2 sale item 1 5 5 0 0 5
        product return item -1 10 -10 0 -2 -12
        """,
        """
        1601 payment card 29 0 0 completed
        1602 refund card -12 0 0 completed
        """,
    ),
    "vat_shipping_refund": Case(
        "2026-11-14",
        "As vat_mixed_refund: 5 and 1 of tax.",
        """
        1 sale item 1 10 10 0 2 12
        shipping sale service_charge 0 0 5 0 1 6
        shipping return service_charge 0 0 -5 0 -1 -6
        """,
        """
        2901 payment card 18 0 0 completed
        2902 refund card -6 0 0 completed
        """,
    ),
    "voided": Case(
        "2026-11-10",
        "A voided authorization: unpaid, not cancelled, a sale (sales reports).",
        "1 sale item 1 33 33 0 0 33",
        "1301 payment card 0 0 0 canceled",
    ),
}
