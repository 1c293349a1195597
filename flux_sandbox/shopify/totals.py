"""What an order comes to as Shopify's Admin API tells it: as it was sold, what came back, and what is left.

An order's total holds its goods, taxes, shipping and tips, and no cash rounding, which is told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_sandbox.pricing import price
from flux_sandbox.shopify.ids import Json, Money

if TYPE_CHECKING:
    from flux_sandbox.model import Priced, Sale


def totals_of(sale: Sale, figures: Priced, back: Sequence[Sale], money: Money) -> Json:
    """Return an order's sums, as sold and as they are now, and what state its payment is in."""
    lines, charges = figures.lines, figures.charges
    returned = [price(one).returns[0] for one in back]
    total = figures.total - figures.rounding
    cancelled, done = sale.state == "CANCELED", sale.state == "COMPLETED"
    gone_lines = [line for one in returned for index, line in one.lines if index >= 0]
    gone_charges = [charge for one in returned for _, charge in one.charges]
    refunded = sum(one.total for one in returned)
    refund_rounding = sum(one.rounding for one in returned)
    subtotal = sum(line.value - line.discount for line in lines)
    discount = sum(line.discount for line in lines)
    shipping = sum(charge.applied for charge in charges)
    shipped_back = sum(charge.applied for charge in gone_charges)
    tax = sum(line.tax for line in lines) + sum(charge.tax for charge in charges)
    received = sum(one.amount for one in figures.tenders) if done else 0
    kept = 0 if cancelled else 1

    def now(amount: int, gone: int) -> Json:
        return money.bag(kept * (amount - gone))

    tax_back = sum(line.tax for line in gone_lines) + sum(charge.tax for charge in gone_charges)
    taxes: dict[int, int] = {}
    for which, amount in [*(p for line in lines for p in line.taxes), *(p for c in charges for p in c.taxes)]:
        taxes[which] = taxes.get(which, 0) + amount
    left = dict(taxes)
    for which, amount in [
        *(p for line in gone_lines for p in line.taxes),
        *(p for c in gone_charges for p in c.taxes),
    ]:
        left[which] -= amount
    quantity = sum(line.quantity for line in lines)
    gone = sum(line.quantity for line in gone_lines)
    if cancelled:
        status = "VOIDED"
    elif not done:
        status = "PENDING"
    elif refunded and refunded >= figures.total:
        status = "REFUNDED"
    else:
        status = "PARTIALLY_REFUNDED" if refunded else "PAID"
    nothing = money.bag(0)
    return {
        "displayFinancialStatus": status,
        "returnStatus": "RETURNED" if gone else "NO_RETURN",
        "fullyPaid": done,
        "unpaid": sale.state == "OPEN",
        "refundable": done and refunded < figures.total,
        "restockable": done,
        "canMarkAsPaid": sale.state == "OPEN",
        "capturable": False,
        "subtotalLineItemsQuantity": quantity,
        "currentSubtotalLineItemsQuantity": kept * (quantity - gone),
        "subtotalPriceSet": money.bag(subtotal),
        "currentSubtotalPriceSet": now(subtotal, sum(line.value - line.discount for line in gone_lines)),
        "totalDiscountsSet": money.bag(discount),
        "currentTotalDiscountsSet": now(discount, sum(line.discount for line in gone_lines)),
        "cartDiscountAmountSet": money.bag(
            sum(a for line in lines for which, a in line.discounts if sale.discounts[which].line is None)
        ),
        "totalTaxSet": money.bag(tax),
        "currentTotalTaxSet": now(tax, tax_back),
        "taxLines": tax_lines(sale, tuple(taxes.items()), money),
        "currentTaxLines": [] if cancelled else tax_lines(sale, tuple(left.items()), money),
        "totalShippingPriceSet": money.bag(shipping),
        "currentShippingPriceSet": now(shipping, shipped_back),
        "totalRefundedShippingSet": money.bag(shipped_back),
        "totalTipReceivedSet": money.bag(figures.tip),
        "totalPriceSet": money.bag(total),
        "currentTotalPriceSet": now(total, refunded - refund_rounding),
        "totalRefundedSet": money.bag(refunded),
        "totalReceivedSet": money.bag(received),
        "netPaymentSet": money.bag(received - refunded),
        "totalOutstandingSet": money.bag(total if sale.state == "OPEN" else 0),
        "totalCapturableSet": nothing,
        "refundDiscrepancySet": money.bag(sum(line.total for one in returned for i, line in one.lines if i < 0)),
        "totalCashRoundingAdjustment": {
            "paymentSet": money.bag(figures.rounding if done else 0),
            "refundSet": money.bag(refund_rounding),
        },
        "currentTotalDutiesSet": None,
        "originalTotalDutiesSet": None,
        "currentTotalAdditionalFeesSet": None,
        "originalTotalAdditionalFeesSet": None,
        "totalWeight": "0",
        "currentTotalWeight": "0",
    }


def tax_lines(sale: Sale, taxes: Sequence[tuple[int, int]], money: Money) -> list[Json]:
    """Return the TaxLines of (index of the location's tax, amount)."""
    found = []
    for which, amount in taxes:
        tax = sale.location.taxes[which]
        rate = tax.rate / 1_000_000
        found.append(
            {
                "title": tax.name,
                "rate": rate,
                "ratePercentage": float(tax.percent),
                "priceSet": money.bag(amount),
                "source": "Shopify",
                "channelLiable": False,
            }
        )
    return found
