"""What changes the price of a sale at Toast: discounts, taxes, service charges, and what was given back of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import guid
from flux_sandbox.pricing import price
from flux_sandbox.toast.order_context import OrderContext, configured, reference
from flux_sandbox.toast.values import FIXED, dollars, rate

if TYPE_CHECKING:
    from flux_sandbox.model import Discount, PricedCharge, Returned, Sale

Json = dict[str, Any]


def applied_discount(context: OrderContext, index: int, amount: int, *place: object) -> Json:
    """Return an AppliedDiscount: one of the sale's discounts with what it took off here."""
    discount: Discount = context.sale.discounts[index]
    percent = bool(discount.rate)
    return {
        **FIXED["discount"],
        "guid": context.made("discount", index, *place),
        "name": discount.name,
        "discountAmount": dollars(amount),
        # The world takes tax out of what the discount left, so the whole of it is off the price.
        "nonTaxDiscountAmount": dollars(amount),
        "discount": {
            "guid": configured(context.merchant, "discount", discount.name),
            "entityType": "Discount",
        },
        "processingState": "VOID" if context.voided else None,
        "discountType": "PERCENT" if percent else "FIXED",
        "discountPercent": rate(discount.rate * 100) if percent else None,
    }


def applied_taxes(context: OrderContext, taxes: Sequence[tuple[int, int]], *place: object) -> list[Json]:
    """Return AppliedTaxRates."""
    found = []
    for index, amount in taxes:
        tax = context.location.taxes[index]
        found.append(
            {
                "guid": context.made("tax", index, *place),
                "entityType": "AppliedTaxRate",
                "taxRate": {"guid": configured(context.merchant, "tax", tax.name), "entityType": "TaxRate"},
                "name": tax.name,
                "displayName": tax.name,
                "rate": rate(tax.rate),
                "taxAmount": dollars(amount),
                "type": "PERCENT",
                "jurisdiction": context.location.region,
                "jurisdictionType": "STATE",
            }
        )
    return found


def _details(refunded: int, tax: int, back: Sale) -> Json:
    return {
        "refundAmount": dollars(refunded),
        "taxRefundAmount": dollars(tax),
        "refundTransaction": {"guid": guid("toast", "refund", back.id), "entityType": "RefundTransaction"},
    }


def refunded_line(context: OrderContext, index: int, refunds: Sequence[Sale]) -> Json | None:
    """Return what was given back of a line by itemised refunds, all of them together."""
    net = tax = 0
    last: Sale | None = None
    for back in refunds:
        for returned in price(back).returns:
            for link, line in returned.lines if _itemised(context, returned.returned) else ():
                if link == index:
                    net, tax, last = net + line.gross - line.discount, tax + line.tax, back
    return None if last is None else _details(net, tax, last)


def refunded_charge(context: OrderContext, index: int, refunds: Sequence[Sale]) -> Json | None:
    """Return what was given back of a service charge."""
    net = tax = 0
    last: Sale | None = None
    for back in refunds:
        for returned in price(back).returns:
            for link, charge in returned.charges if _itemised(context, returned.returned) else ():
                if link == index:
                    net, tax, last = net + charge.total - charge.tax, tax + charge.tax, back
    return None if last is None else _details(net, tax, last)


def _itemised(context: OrderContext, returned: Returned) -> bool:
    return returned.itemised and returned.source is context.sale


def charge(context: OrderContext, index: int, figures: PricedCharge, refunds: Sequence[Sale]) -> Json:
    """Return an AppliedServiceCharge."""
    one = figures.charge
    surcharge = one.after_tax and bool(one.rate)
    return {
        **FIXED["service charge"],
        "guid": context.made("charge", index),
        "chargeAmount": dollars(figures.total - figures.tax, whole=True),
        "serviceCharge": reference("ServiceCharge", configured(context.merchant, "charge", one.name)),
        "chargeType": "PERCENT" if one.rate else "FIXED",
        "name": one.name,
        "delivery": "eliver" in one.name,
        "gratuity": one.auto_gratuity,
        "taxable": one.taxable,
        "appliedTaxes": applied_taxes(context, figures.taxes, "charge", index),
        "refundDetails": refunded_charge(context, index, refunds),
        "serviceChargeCategory": "CREDIT_CARD_SURCHARGE" if surcharge else "SERVICE_CHARGE",
        "percent": rate(one.rate * 100) if one.rate else None,
        "destination": "SERVER" if one.auto_gratuity else "RESTAURANT",
    }
