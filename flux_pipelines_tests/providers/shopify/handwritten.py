"""Orders as the client lands them, written by hand: of what the published examples do not show."""

from __future__ import annotations

from typing import Any

from flux_pipelines_tests.providers.shopify.nodes import SHOP_ID, bag, gid, nodes


def made(*lines: dict[str, Any], total: str, **more: Any) -> dict[str, Any]:
    """Return a paid order of these lines."""
    node = {
        "flux_location_id": SHOP_ID,
        "id": gid("Order", 450789469),
        "legacyResourceId": "450789469",
        "test": False,
        "processedAt": "2026-03-02T12:00:00Z",
        "updatedAt": "2026-03-02T12:00:00Z",
        "currencyCode": "USD",
        "presentmentCurrencyCode": "USD",
        "taxesIncluded": False,
        "dutiesIncluded": False,
        "displayFinancialStatus": "PAID",
        "currentTotalPriceSet": bag(total),
        "netPaymentSet": bag(total),
        "totalOutstandingSet": bag("0.0"),
        "totalTipReceivedSet": bag("0.0"),
        "totalCashRoundingAdjustment": {"paymentSet": bag("0.0"), "refundSet": bag("0.0")},
        "additionalFees": [],
        "transactions": [],
        "refunds": [],
        "lineItems": nodes(lines),
        "shippingLines": nodes([]),
    }
    return {**node, **more}


def line(number: int = 1, price: str = "10.0", quantity: int = 1, **more: Any) -> dict[str, Any]:
    node = {
        "id": gid("LineItem", number),
        "title": f"Thing {number}",
        "variantTitle": "Blue",
        "sku": f"SKU{number}",
        "quantity": quantity,
        "currentQuantity": quantity,
        "isGiftCard": False,
        "requiresShipping": True,
        "taxable": True,
        "originalUnitPriceSet": bag(price),
        "discountAllocations": [],
        "taxLines": [],
        "variant": {"legacyResourceId": str(100 + number)},
        "product": {"legacyResourceId": str(10 + number)},
    }
    return {**node, **more}


def tax(amount: str) -> list[dict[str, Any]]:
    return [{"title": "Tax", "rate": 0.1, "priceSet": bag(amount)}]


def refund(number: int = 5, **more: Any) -> dict[str, Any]:
    node = {
        "id": gid("Refund", number),
        "legacyResourceId": str(number),
        "createdAt": "2026-03-05T09:00:00Z",
        "processedAt": "2026-03-05T10:00:00Z",
        "refundLineItems": nodes([]),
        "refundShippingLines": nodes([]),
        "orderAdjustments": nodes([]),
    }
    return {**node, **more}


def back(number: int, quantity: int, subtotal: str, taxes: str = "0.0") -> dict[str, Any]:
    return {
        "id": gid("RefundLineItem", 900 + number),
        "quantity": quantity,
        "lineItem": {"id": gid("LineItem", number)},
        "subtotalSet": bag(subtotal),
        "totalTaxSet": bag(taxes),
    }
