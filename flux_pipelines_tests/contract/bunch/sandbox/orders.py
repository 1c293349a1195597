"""What the world knows, as Bunch would show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux_sandbox.flat import Entry, entries
from flux_sandbox.pricing import price

if TYPE_CHECKING:
    from flux_sandbox.model import Item, Merchant, Sale
    from flux_sandbox.payments import PaidTender
    from flux_sandbox.world import World

Json = dict[str, Any]

_TENDERS = {"CASH": "cash", "CARD": "card", "WALLET": "wallet", "OTHER": "other"}
_RESULTS = {"completed": "SUCCESS", "failed": "FAIL", "canceled": "VOIDED"}
#: What makes an order one that nobody can use: see `MALFORMED` in the sandbox's world.
_SPOILT = {"types": {"lineItems": "none"}, "currency": {"currency": "ZZZ"}, "timestamp": {"createdTime": "yesterday"}}


def merchant_json(merchant: Merchant) -> Json:
    """Return a merchant, which is a store."""
    (place,) = merchant.locations
    return {
        "id": merchant.id,
        "name": place.name,
        "address": {"country": place.country, "city": place.city},
        "properties": {"timezone": place.reported_timezone, "defaultCurrency": place.currency},
    }


def item_json(item: Item) -> Json:
    """Return something that is sold, or was."""
    return {
        "id": item.id,
        "itemGroup": {"id": item.product_id},
        "name": item.name,
        "alternateName": item.variation,
        "categories": {"elements": [{"name": item.category}]},
        "sku": item.sku,
        "code": item.upc,
        "price": item.price,
        "deleted": item.deleted,
        "modifiedTime": item.updated,
    }


def order_json(world: World, sale: Sale) -> Json:
    """Return an order with what was paid on it; some cannot be used, because a test wants them so."""
    priced, paid, found = price(sale), world.payments_of(sale), entries(sale)
    lines = [_line(one) for one in found if one.type not in ("SERVICE_CHARGE", "TIP")]
    charges = [_line(one) for one in found if one.type == "SERVICE_CHARGE"]
    who = sale.customer
    shown = (
        {"id": who.id, "firstName": who.given_name, "lastName": who.family_name, "emailAddress": who.email}
        if who
        else {}
    )
    tips = priced.tip - sum(back.tip for back in priced.returns)
    return {
        "id": sale.id,
        "merchantId": sale.location.merchant_id,
        "currency": sale.location.currency,
        "total": priced.total - sum(back.total for back in priced.returns) - tips + (sale.corrupt == "totals"),
        "state": {"CANCELED": "voided", "OPEN": "open"}.get(sale.state, "locked"),
        "paymentState": "PAID" if sale.is_paid else "OPEN",
        "createdTime": sale.created,
        "modifiedTime": sale.updated,
        "customers": {"elements": [shown] if shown else []},
        "lineItems": {"elements": lines},
        "serviceCharges": {"elements": charges},
        "payments": {"elements": [_payment(one) for one in paid if one.kind == "payment"]},
        "refunds": {"elements": [_payment(one) for one in paid if one.kind == "refund"]},
        **_SPOILT.get(sale.corrupt, {}),
    }


def _payment(one: PaidTender) -> Json:
    who = one.sale.customer
    return {
        "id": one.id,
        "payment": {"id": one.source_id or None},
        "tender": {"labelKey": _TENDERS.get(one.type, "gift_card")},
        "result": _RESULTS[one.status],
        "amount": one.amount,
        "tipAmount": one.tip,
        "processingFee": one.fee,
        "createdTime": one.at,
        "cardTransaction": {"last4": who.card_last4} if who and one.type == "CARD" else None,
    }


def _line(one: Entry) -> Json:
    return {
        "id": one.id,
        "item": {"id": one.item.id} if one.item else None,
        "name": one.name,
        "alternateName": one.item.variation if one.item else None,
        "unitQty": one.quantity,
        "price": one.price,
        "amount": one.gross,
        "discountAmount": one.discount,
        "taxAmount": one.tax,
        "isRevenue": one.type != "GIFT_CARD",
        "refunded": one.back,
        "exchangedFrom": one.source,
    }
