"""The payloads of webhooks: Shopify's REST shapes, made from the objects of its GraphQL API.

Amounts have every decimal of their currency, except in refund line items, where two of them are JSON numbers; instants are in the
shop's time zone; ids are numbers. Facts: the example responses that Shopify publishes with its SDKs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux_sandbox.shopify.ids import Json, local_stamp
from flux_sandbox.shopify.rest_parts import (
    amount_of,
    bare_of,
    number_of,
    rest_address,
    rest_tax_lines,
    set_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flux_sandbox.shopify.shop import Shop


class RestWriter:
    """Writes the payloads of one shop."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def _at(self, text: str | None) -> str | None:
        if not text:
            return None
        try:
            return local_stamp(text, self._shop.zone)
        except ValueError:
            return text

    def order(self, order: Json) -> Json:
        """Return an order."""
        customer = order["customer"]
        status = order["displayFinancialStatus"].lower()
        sets = {
            name: order[field]
            for name, field in (
                ("subtotal_price", "subtotalPriceSet"),
                ("current_subtotal_price", "currentSubtotalPriceSet"),
                ("total_discounts", "totalDiscountsSet"),
                ("current_total_discounts", "currentTotalDiscountsSet"),
                ("total_tax", "totalTaxSet"),
                ("current_total_tax", "currentTotalTaxSet"),
                ("total_price", "totalPriceSet"),
                ("current_total_price", "currentTotalPriceSet"),
            )
        }
        rounding = order["totalCashRoundingAdjustment"]
        return {
            "id": int(order["legacyResourceId"]),
            "admin_graphql_api_id": order["id"],
            "name": order["name"],
            "number": order["number"],
            "order_number": 1000 + order["number"],
            "created_at": self._at(order["createdAt"]),
            "processed_at": self._at(order["processedAt"]),
            "updated_at": self._at(order["updatedAt"]),
            "closed_at": self._at(order["closedAt"]),
            "cancelled_at": self._at(order["cancelledAt"]),
            "cancel_reason": (order["cancelReason"] or "").lower() or None,
            "confirmed": True,
            "test": order["test"],
            "currency": order["currencyCode"],
            "presentment_currency": order["presentmentCurrencyCode"],
            "taxes_included": order["taxesIncluded"],
            "financial_status": status,
            "fulfillment_status": "fulfilled" if order["displayFulfillmentStatus"] == "FULFILLED" else None,
            "source_name": order["sourceName"],
            "source_identifier": order["sourceIdentifier"],
            "location_id": number_of(order["retailLocation"]),
            "email": order["email"],
            "contact_email": order["email"],
            "phone": order["phone"],
            "browser_ip": order["clientIp"],
            "note": order["note"],
            "note_attributes": [{"name": one["key"], "value": one["value"]} for one in order["customAttributes"]],
            "tags": "",
            "payment_gateway_names": order["paymentGatewayNames"],
            **{name: amount_of(bag) for name, bag in sets.items()},
            **{f"{name}_set": set_of(bag) for name, bag in sets.items()},
            "total_shipping_price_set": set_of(order["totalShippingPriceSet"]),
            "total_tip_received": amount_of(order["totalTipReceivedSet"]),
            "total_outstanding": amount_of(order["totalOutstandingSet"]),
            "total_cash_rounding_payment_adjustment_set": set_of(rounding["paymentSet"]),
            "total_cash_rounding_refund_adjustment_set": set_of(rounding["refundSet"]),
            "tax_lines": rest_tax_lines(order["taxLines"]),
            "line_items": [self._line(line) for line in order["lineItems"].items],
            "shipping_lines": [self._shipping(line) for line in order["shippingLines"].items],
            "refunds": [self.refund(refund) for refund in order["refunds"]],
            "billing_address": rest_address(order["billingAddress"]),
            "shipping_address": rest_address(order["shippingAddress"]),
            "customer": self._customer(customer) if customer else None,
        }

    def _line(self, line: Json) -> Json:
        return {
            "id": number_of(line),
            "admin_graphql_api_id": line["id"],
            "name": line["name"],
            "title": line["title"],
            "variant_title": line["variantTitle"],
            "vendor": line["vendor"],
            "sku": line["sku"],
            "product_id": number_of(line["product"]),
            "variant_id": number_of(line["variant"]),
            "quantity": line["quantity"],
            "current_quantity": line["currentQuantity"],
            "gift_card": line["isGiftCard"],
            "taxable": line["taxable"],
            "requires_shipping": line["requiresShipping"],
            "price": amount_of(line["originalUnitPriceSet"]),
            "price_set": set_of(line["originalUnitPriceSet"]),
            "total_discount": amount_of(line["totalDiscountSet"]),
            "total_discount_set": set_of(line["totalDiscountSet"]),
            "discount_allocations": [
                {
                    "amount": amount_of(one["allocatedAmountSet"]),
                    "amount_set": set_of(one["allocatedAmountSet"]),
                    "discount_application_index": one["discountApplication"]["index"],
                }
                for one in line["discountAllocations"]
            ],
            "tax_lines": rest_tax_lines(line["taxLines"]),
            "properties": [{"name": one["key"], "value": one["value"]} for one in line["customAttributes"]],
        }

    def _shipping(self, line: Json) -> Json:
        return {
            "id": number_of(line),
            "title": line["title"],
            "code": line["code"],
            "source": line["source"],
            "price": amount_of(line["originalPriceSet"]),
            "price_set": set_of(line["originalPriceSet"]),
            "discounted_price": amount_of(line["discountedPriceSet"]),
            "discounted_price_set": set_of(line["discountedPriceSet"]),
            "tax_lines": rest_tax_lines(line["taxLines"]),
        }

    def _customer(self, customer: Json) -> Json:
        return {
            "id": int(customer["legacyResourceId"]),
            "admin_graphql_api_id": customer["id"],
            "email": customer["email"],
            "first_name": customer["firstName"],
            "last_name": customer["lastName"],
            "phone": customer["phone"],
            "default_address": rest_address(customer["defaultAddress"]),
        }

    def refund(self, refund: Json) -> Json:
        """Return a refund."""
        order = refund["order"]
        shipping = refund["refundShippingLines"].items
        discrepancies = refund["orderAdjustments"].items
        return {
            "id": int(refund["legacyResourceId"]),
            "admin_graphql_api_id": refund["id"],
            "order_id": int(order["legacyResourceId"]),
            "created_at": self._at(refund["createdAt"]),
            "processed_at": self._at(refund["processedAt"]),
            "note": refund["note"],
            "restock": True,
            "duties": [],
            "refund_line_items": [
                {
                    "id": number_of(one),
                    "line_item_id": number_of(one["lineItem"]),
                    "quantity": one["quantity"],
                    "restock_type": one["restockType"].lower(),
                    "location_id": number_of(one["location"]),
                    "subtotal": bare_of(one["subtotalSet"]),
                    "subtotal_set": set_of(one["subtotalSet"]),
                    "total_tax": bare_of(one["totalTaxSet"]),
                    "total_tax_set": set_of(one["totalTaxSet"]),
                }
                for one in refund["refundLineItems"].items
            ],
            "order_adjustments": [
                {
                    "id": number_of(one),
                    "order_id": int(order["legacyResourceId"]),
                    "refund_id": int(refund["legacyResourceId"]),
                    "amount": amount_of(one["amountSet"]),
                    "tax_amount": "0.00",
                    "kind": "refund_discrepancy",
                    "reason": "Refund discrepancy",
                }
                for one in discrepancies
            ],
            "refund_shipping_lines": [
                {
                    "id": number_of(one),
                    "subtotal_amount_set": set_of(one["subtotalAmountSet"]),
                    "tax_amount_set": set_of(one["taxAmountSet"]),
                }
                for one in shipping
            ],
            "transactions": [
                {
                    "id": number_of(one),
                    "order_id": int(order["legacyResourceId"]),
                    "kind": one["kind"].lower(),
                    "gateway": one["gateway"],
                    "status": one["status"].lower(),
                    "amount": amount_of(one["amountSet"]),
                    "currency": order["currencyCode"],
                    "parent_id": number_of(one["parentTransaction"]),
                    "processed_at": self._at(one["processedAt"]),
                }
                for one in refund["transactions"].items
            ],
        }

    def product(self, product: Json) -> Json:
        """Return a product with its variants."""
        variants = product["variants"].items
        return {
            "id": int(product["legacyResourceId"]),
            "admin_graphql_api_id": product["id"],
            "title": product["title"],
            "handle": product["handle"],
            "status": product["status"].lower(),
            "vendor": product["vendor"],
            "product_type": product["productType"],
            "tags": "",
            "created_at": self._at(product["createdAt"]),
            "updated_at": self._at(product["updatedAt"]),
            "published_at": self._at(product["publishedAt"]),
            "variants": [
                {
                    "id": int(one["legacyResourceId"]),
                    "admin_graphql_api_id": one["id"],
                    "product_id": int(product["legacyResourceId"]),
                    "title": one["title"],
                    "price": one["price"],
                    "position": one["position"],
                    "sku": one["sku"],
                    "barcode": one["barcode"],
                    "taxable": one["taxable"],
                    "inventory_item_id": int(one["inventoryItem"]["legacyResourceId"]),
                    "created_at": self._at(one["createdAt"]),
                    "updated_at": self._at(one["updatedAt"]),
                }
                for one in variants
            ],
        }

    def level(self, level: Json, available: int | None) -> Json:
        """Return a stock level."""
        return {
            "inventory_item_id": int(level["item"]["legacyResourceId"]),
            "location_id": int(level["location"]["legacyResourceId"]),
            "available": available,
            "updated_at": self._at(level["updatedAt"]),
            "admin_graphql_api_id": level["id"],
        }

    def order_edit(self, order: Json) -> Json:
        """Return an order edit, which is what `orders/edited` tells: never the order."""
        first = order["lineItems"].items[0]
        number = int(order["legacyResourceId"])
        return {
            "order_edit": {
                "id": number % 10**9,
                "app_id": None,
                "created_at": self._at(order["updatedAt"]),
                "notify_customer": False,
                "order_id": number,
                "staff_note": "",
                "user_id": None,
                "shop_id": number_of(self._shop.about()),
                "committed_at": self._at(order["updatedAt"]),
                "line_items": {"additions": [{"id": number_of(first), "delta": 1}], "removals": []},
                "discounts": {"line_item": {"additions": [], "removals": []}},
                "shipping_lines": {"additions": [], "removals": []},
            }
        }

    def person(self, customer: Any, order_ids: Sequence[int]) -> Json:
        """Return what the privacy topics tell of a customer, for either of them."""
        who = {
            "id": int(customer["legacyResourceId"]),
            "email": customer["email"],
            "phone": customer["phone"],
        }
        return {
            "shop_id": number_of(self._shop.about()),
            "shop_domain": self._shop.domain,
            "customer": who,
            "orders": order_ids,
        }

    def shop(self) -> Json:
        """Return what is told of a shop that uninstalled the app."""
        about = self._shop.about()
        return {
            "id": number_of(about),
            "name": about["name"],
            "email": about["email"],
            "domain": about["myshopifyDomain"],
            "myshopify_domain": about["myshopifyDomain"],
            "currency": about["currencyCode"],
            "iana_timezone": about["ianaTimezone"],
            "shop_owner": about["shopOwnerName"],
            "plan_name": "basic",
        }

    def place(self, location: Json) -> Json:
        """Return a location."""
        address = location["address"]
        return {
            "id": int(location["legacyResourceId"]),
            "admin_graphql_api_id": location["id"],
            "name": location["name"],
            "active": location["isActive"],
            "address1": address["address1"],
            "city": address["city"],
            "province_code": address["provinceCode"],
            "country_code": address["countryCode"],
            "zip": address["zip"],
            "created_at": self._at(location["createdAt"]),
            "updated_at": self._at(location["updatedAt"]),
        }
