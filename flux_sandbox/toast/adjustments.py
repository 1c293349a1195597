"""What changes the price of a sale at Toast: discounts, taxes, service charges, and what was given back of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import guid
from flux_sandbox.pricing import price
from flux_sandbox.toast.order_context import Scene, configured, reference
from flux_sandbox.toast.values import dollars, rate

if TYPE_CHECKING:
    from flux_sandbox.model import Discount, PricedCharge, Returned, Sale

Json = dict[str, Any]


def applied_discount(scene: Scene, index: int, amount: int, *place: object) -> Json:
    """Return an AppliedDiscount: one of the sale's discounts with what it took off here."""
    discount: Discount = scene.sale.discounts[index]
    percent = bool(discount.rate)
    return {
        "guid": scene.made("discount", index, *place),
        "entityType": "AppliedCustomDiscount",
        "externalId": None,
        "name": discount.name,
        "discountAmount": dollars(amount),
        # The world takes tax out of what the discount left, so the whole of it is off the price.
        "nonTaxDiscountAmount": dollars(amount),
        "discount": {
            "guid": configured(scene.merchant, "discount", discount.name),
            "entityType": "Discount",
        },
        "triggers": [],
        "approver": None,
        "processingState": "VOID" if scene.voided else None,
        "appliedDiscountReason": None,
        "loyaltyDetails": None,
        "comboItems": [],
        "appliedPromoCode": None,
        "discountType": "PERCENT" if percent else "FIXED",
        "discountPercent": rate(discount.rate * 100) if percent else None,
    }


def applied_taxes(scene: Scene, taxes: Sequence[tuple[int, int]], *place: object) -> list[Json]:
    """Return AppliedTaxRates."""
    found = []
    for index, amount in taxes:
        tax = scene.location.taxes[index]
        found.append(
            {
                "guid": scene.made("tax", index, *place),
                "entityType": "AppliedTaxRate",
                "taxRate": {"guid": configured(scene.merchant, "tax", tax.name), "entityType": "TaxRate"},
                "name": tax.name,
                "displayName": tax.name,
                "rate": rate(tax.rate),
                "taxAmount": dollars(amount),
                "type": "PERCENT",
                "jurisdiction": scene.location.region,
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


def refunded_line(scene: Scene, index: int, refunds: Sequence[Sale]) -> Json | None:
    """Return what was given back of a line by itemised refunds, all of them together."""
    net = tax = 0
    last: Sale | None = None
    for back in refunds:
        for returned in price(back).returns:
            for link, line in returned.lines if _itemised(scene, returned.returned) else ():
                if link == index:
                    net, tax, last = net + line.gross - line.discount, tax + line.tax, back
    return None if last is None else _details(net, tax, last)


def refunded_charge(scene: Scene, index: int, refunds: Sequence[Sale]) -> Json | None:
    """Return what was given back of a service charge."""
    net = tax = 0
    last: Sale | None = None
    for back in refunds:
        for returned in price(back).returns:
            for link, charge in returned.charges if _itemised(scene, returned.returned) else ():
                if link == index:
                    net, tax, last = net + charge.total - charge.tax, tax + charge.tax, back
    return None if last is None else _details(net, tax, last)


def _itemised(scene: Scene, returned: Returned) -> bool:
    return returned.itemised and returned.source is scene.sale


def charge(scene: Scene, index: int, figures: PricedCharge, refunds: Sequence[Sale]) -> Json:
    """Return an AppliedServiceCharge."""
    one = figures.charge
    surcharge = one.after_tax and bool(one.rate)
    return {
        "guid": scene.made("charge", index),
        "entityType": "AppliedServiceCharge",
        "externalId": None,
        "chargeAmount": dollars(figures.total - figures.tax, whole=True),
        "serviceCharge": reference("ServiceCharge", configured(scene.merchant, "charge", one.name)),
        "chargeType": "PERCENT" if one.rate else "FIXED",
        "name": one.name,
        "delivery": "eliver" in one.name,
        "takeout": False,
        "dineIn": True,
        "gratuity": one.auto_gratuity,
        "taxable": one.taxable,
        "appliedTaxes": applied_taxes(scene, figures.taxes, "charge", index),
        "serviceChargeCalculation": "POST_DISCOUNT",
        "refundDetails": refunded_charge(scene, index, refunds),
        "serviceChargeCategory": "CREDIT_CARD_SURCHARGE" if surcharge else "SERVICE_CHARGE",
        "paymentGuid": None,
        "percent": rate(one.rate * 100) if one.rate else None,
        "destination": "SERVER" if one.auto_gratuity else "RESTAURANT",
    }
