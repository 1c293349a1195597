"""Shopify's published REST examples as the GraphQL nodes that the client lands, and our SQL run over them.

Shopify publishes no GraphQL examples; the same objects with other names are in its REST examples. Only names and containers
are changed here: every figure is the example's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.sync.normalise import Normalisation

CONNECTION = Connection("shopify:test", "tenant")
DAY = date(2026, 3, 2)
SHOP_ID = "548380009"


def bag(amount: Any) -> dict[str, Any]:
    """Return a MoneyBag as it is asked for."""
    return {"shopMoney": {"amount": str(amount)}}


def shop_money(money: Mapping[str, Any] | None, otherwise: str = "0.0") -> dict[str, Any]:
    return bag(money["shop_money"]["amount"] if money else otherwise)


def gid(kind: str, number: Any) -> str:
    return f"gid://shopify/{kind}/{number}"


def nodes(items: Iterable[Any]) -> dict[str, Any]:
    return {"nodes": list(items)}


def taxes(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"title": t["title"], "rate": t["rate"], "priceSet": bag(t["price"])} for t in lines]


def line(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": gid("LineItem", rest["id"]),
        "title": rest["title"],
        "variantTitle": rest["variant_title"],
        "sku": rest["sku"],
        "quantity": rest["quantity"],
        "currentQuantity": rest["current_quantity"],
        "isGiftCard": rest["gift_card"],
        "requiresShipping": rest["requires_shipping"],
        "taxable": rest["taxable"],
        "originalUnitPriceSet": bag(rest["price"]),
        "discountAllocations": [{"allocatedAmountSet": bag(a["amount"])} for a in rest["discount_allocations"]],
        "taxLines": taxes(rest["tax_lines"]),
        "variant": {"legacyResourceId": str(rest["variant_id"])} if rest["variant_id"] else None,
        "product": {"legacyResourceId": str(rest["product_id"])} if rest["product_id"] else None,
    }


def refund(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": gid("Refund", rest["id"]),
        "legacyResourceId": str(rest["id"]),
        "createdAt": rest["created_at"],
        "processedAt": rest["processed_at"],
        "refundLineItems": nodes(
            {
                "id": gid("RefundLineItem", x["id"]),
                "quantity": x["quantity"],
                "lineItem": {"id": gid("LineItem", x["line_item_id"])},
                "subtotalSet": bag(x["subtotal"]),
                "totalTaxSet": bag(x["total_tax"]),
            }
            for x in rest["refund_line_items"]
        ),
        "refundShippingLines": nodes([]),
        "orderAdjustments": nodes([]),
    }


def transaction(rest: Mapping[str, Any]) -> dict[str, Any]:
    details = rest.get("payment_details")
    return {
        "id": gid("OrderTransaction", rest["id"]),
        "kind": rest["kind"].upper(),
        "status": rest["status"].upper(),
        "gateway": rest["gateway"],
        # The examples' payments are of Shopify's test gateway, and some say so: what is tested here is arithmetic.
        "test": False,
        "createdAt": rest["created_at"],
        "processedAt": rest["processed_at"],
        "amountSet": bag(rest["amount"]),
        "fees": [],
        "parentTransaction": {"id": gid("OrderTransaction", rest["parent_id"])} if rest["parent_id"] else None,
        "paymentDetails": {"__typename": "CardPaymentDetails", "company": details["credit_card_company"]}
        if details
        else None,
    }


def order(rest: Mapping[str, Any], transactions: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return a REST order as the GraphQL node that the client lands."""
    place = str(rest["location_id"]) if rest["location_id"] else None
    refunded = [t for r in rest["refunds"] for t in r["transactions"]]
    known = {t["id"] for t in refunded}
    return {
        "flux_location_id": place or SHOP_ID,
        "id": gid("Order", rest["id"]),
        "legacyResourceId": str(rest["id"]),
        "test": rest["test"],
        "processedAt": rest["processed_at"],
        "updatedAt": rest["updated_at"],
        "closedAt": rest["closed_at"],
        "cancelledAt": rest["cancelled_at"],
        "currencyCode": rest["currency"],
        "presentmentCurrencyCode": rest["presentment_currency"],
        "taxesIncluded": rest["taxes_included"],
        "dutiesIncluded": False,
        "displayFinancialStatus": rest["financial_status"].upper(),
        "retailLocation": {"legacyResourceId": place} if place else None,
        "currentTotalPriceSet": bag(rest["current_total_price"]),
        "netPaymentSet": bag(rest["current_total_price"]),
        "totalOutstandingSet": bag("0.0"),
        "refundDiscrepancySet": bag("0.0"),
        "totalTipReceivedSet": bag(rest["total_tip_received"]),
        "originalTotalDutiesSet": None,
        "currentTotalDutiesSet": None,
        "totalCashRoundingAdjustment": {
            "paymentSet": shop_money(rest.get("total_cash_rounding_payment_adjustment_set")),
            "refundSet": shop_money(rest.get("total_cash_rounding_refund_adjustment_set")),
        },
        "additionalFees": [],
        "transactions": [transaction(t) for t in [*(t for t in transactions if t["id"] not in known), *refunded]],
        "refunds": [refund(r) for r in rest["refunds"]],
        "lineItems": nodes(line(item) for item in rest["line_items"]),
        "shippingLines": nodes(
            {
                "id": gid("ShippingLine", s["id"]),
                "title": s["title"],
                "originalPriceSet": bag(s["price"]),
                "discountedPriceSet": bag(s["discounted_price"]),
                "taxLines": taxes(s["tax_lines"]),
            }
            for s in rest["shipping_lines"]
        ),
    }


def found_in(document: Any, name: str) -> Any:
    """Return the first member of that name anywhere in a document."""
    if isinstance(document, dict):
        if name in document:
            return document[name]
        values: Iterable[Any] = document.values()
    else:
        values = document if isinstance(document, list) else ()
    return next((hit for value in values if (hit := found_in(value, name)) is not None), None)


def normalise(folder: Path, orders: Iterable[Mapping[str, Any] | bytes]) -> tuple[list[dict[str, Any]], Normalisation]:
    """Run transactions.sql over orders, the way the engine does."""
    raw = RawStore(object_store(str(folder / "lake")))
    writer = raw.writer(CONNECTION.key, DAY)
    segment = writer.segment()
    segment.write_many([o if isinstance(o, bytes) else json.dumps(o).encode() for o in orders])
    manifest = writer.commit([segment], fetched_at=datetime.now(UTC), api_version=PROVIDER.api_version)
    work = Normalisation(PROVIDER, raw, CONNECTION, [manifest])
    return [row for batch in work.batches() for row in batch.to_pylist()], work
