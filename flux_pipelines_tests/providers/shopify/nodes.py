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

from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Location
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines_tests.providers.shopify.asked import ORDERS
from flux_sandbox.shopify import documents as sandbox_documents
from flux_sandbox.shopify.values import Nodes

CONNECTION = Connection("shopify:test", "tenant")
DAY = date(2026, 3, 2)
SHOP_ID = "548380009"


def bag(amount: Any) -> dict[str, Any]:
    """Return a MoneyBag as it is asked for."""
    return {"shopMoney": {"amount": str(amount)}}


def shop_money(money: Mapping[str, Any] | None, otherwise: str = "0.0") -> dict[str, Any]:
    return bag(money["shop_money"]["amount"] if money else otherwise)


def both(money: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MoneyBag as a REST `..._set` prints it: in the shop's currency, and in the one that the buyer saw."""
    return {
        name: {"amount": one["amount"], "currencyCode": one["currency_code"]}
        for name, one in (("shopMoney", money["shop_money"]), ("presentmentMoney", money["presentment_money"]))
    }


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
        "originalUnitPriceSet": both(rest["price_set"]),
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
        "processedAt": rest.get("processed_at"),
        "refundLineItems": nodes(
            {
                "id": gid("RefundLineItem", x["id"]),
                "quantity": x["quantity"],
                "restockType": x.get("restock_type", "no_restock").upper(),
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
        "paymentDetails": {
            "__typename": "CardPaymentDetails",
            "company": details["credit_card_company"],
            "wallet": details["credit_card_wallet"],
        }
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
        "name": rest["name"],
        "sourceName": rest["source_name"],
        "sourceIdentifier": rest["source_identifier"],
        "confirmed": rest["confirmed"],
        "closed": rest["closed_at"] is not None,
        "test": rest["test"],
        "createdAt": rest["created_at"],
        "processedAt": rest["processed_at"],
        "updatedAt": rest["updated_at"],
        "closedAt": rest["closed_at"],
        "cancelledAt": rest["cancelled_at"],
        "cancelReason": (rest["cancel_reason"] or "").upper() or None,
        # A buyer's: no query asks for it.
        "email": rest["email"],
        "phone": rest["phone"],
        "note": rest["note"],
        "clientIp": rest["browser_ip"],
        "currencyCode": rest["currency"],
        "presentmentCurrencyCode": rest["presentment_currency"],
        "taxesIncluded": rest["taxes_included"],
        "dutiesIncluded": False,
        "displayFinancialStatus": rest["financial_status"].upper(),
        "displayFulfillmentStatus": (rest["fulfillment_status"] or "unfulfilled").upper(),
        "retailLocation": {"id": gid("Location", place), "legacyResourceId": place} if place else None,
        "totalPriceSet": both(rest["total_price_set"]),
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
        "fulfillments": [
            {
                "id": gid("Fulfillment", f["id"]),
                "status": f["status"].upper(),
                "createdAt": f["created_at"],
                "location": {"id": gid("Location", f["location_id"]), "legacyResourceId": str(f["location_id"])},
            }
            for f in rest["fulfillments"]
        ],
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


def product(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a REST product as the GraphQL node that the client lands; an excerpt of one lacks what it leaves out."""
    return {
        "id": gid("Product", rest["id"]),
        "legacyResourceId": str(rest["id"]),
        "title": rest["title"],
        "status": rest["status"].upper(),
        "vendor": rest["vendor"],
        "productType": rest["product_type"],
        "createdAt": rest.get("created_at"),
        "updatedAt": rest["updated_at"],
        "publishedAt": rest.get("published_at"),
        "category": None,
        "variants": nodes(
            {
                "id": gid("ProductVariant", v["id"]),
                "legacyResourceId": str(v["id"]),
                "title": v["title"],
                "sku": v["sku"],
                "barcode": v.get("barcode"),
                "price": v["price"],
                "createdAt": v.get("created_at"),
                "updatedAt": v["updated_at"],
                "inventoryItem": {
                    "id": gid("InventoryItem", v["inventory_item_id"]),
                    "tracked": v["inventory_management"] == "shopify",
                }
                if "inventory_item_id" in v
                else None,
            }
            for v in rest["variants"]
        ),
    }


def level(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a REST inventory level as the GraphQL node that the client lands.

    It names no variant: in the examples, an inventory item and its variant have the same number.
    """
    number = str(rest["inventory_item_id"])
    return {
        "id": rest["admin_graphql_api_id"],
        "updatedAt": rest["updated_at"],
        "quantities": [{"name": "available", "quantity": rest["available"], "updatedAt": None}],
        "item": {
            "id": gid("InventoryItem", number),
            "tracked": True,
            "sku": "",
            "variant": {"legacyResourceId": number},
        },
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


def served(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an order as the sandbox has it, with its agreements, connections as nodes."""
    made: dict[str, Any] = _plain(sandbox_documents.order(document))
    return made


def agreed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an order with the agreements that the sandbox works out of it, if it has none."""
    found = dict(document)
    if "agreements" not in found:
        found["agreements"] = ORDERS.of(served(found))["agreements"]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Nodes):
        return nodes(_plain(one) for one in value.items)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def normalise(
    folder: Path, orders: Iterable[Mapping[str, Any] | bytes], locations: Iterable[Location] = ()
) -> tuple[list[dict[str, Any]], Normalisation]:
    """Run transactions.sql over orders, the way the engine does; rows count on the dates of these locations."""
    raw = RawStore(object_store(str(folder / "lake")))
    writer = raw.writer(CONNECTION.key, DAY)
    segment = writer.segment()
    segment.write_many([o if isinstance(o, bytes) else json.dumps(agreed(o)).encode() for o in orders])
    manifest = writer.commit([segment], fetched_at=datetime.now(UTC), api_version=PROVIDER.api_version)
    work = Normalisation(PROVIDER, raw, CONNECTION, [manifest], known_calendars(locations, 0))
    return [row for batch in work.batches() for row in batch.to_pylist()], work
