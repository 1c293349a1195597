"""Orders as Shopify's Admin API has them, made from the world's sales: the fields that Flux asks for.

Every amount comes from `pricing.price`. An order's total holds its goods, taxes, shipping (the world's charges) and tips, and no
cash rounding, which Shopify tells apart. What was given back stays on the order that was sold: goods and tips as sales of its
agreements, money that belongs to no line (a goodwill gesture) as an order adjustment of the refund, negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_sandbox.model import Line, PricedLine, Returned, Sale
from flux_sandbox.pricing import price
from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.agreements import AgreementWriter
from flux_sandbox.shopify.ids import Json, Money, gid, legacy, stamp
from flux_sandbox.shopify.values import Nodes, Parts

if TYPE_CHECKING:
    from flux_sandbox.model import Customer, Merchant, Priced
    from flux_sandbox.payments import PaidTender
    from flux_sandbox.shopify.catalog import Catalog
    from flux_sandbox.world import World

_GATEWAYS = {"CASH": "cash", "GIFT_CARD": "gift_card", "OTHER": "manual"}
_STATUSES = {"completed": "SUCCESS", "failed": "FAILURE", "canceled": "SUCCESS"}
_KINDS = {"completed": "SALE", "failed": "SALE", "canceled": "AUTHORIZATION"}


class OrderWriter:
    """Writes the orders of one shop."""

    def __init__(self, world: World, merchant: Merchant, catalog: Catalog) -> None:
        self._world = world
        self._merchant = merchant
        self._catalog = catalog

    def write(self, sale: Sale, number: int) -> Json:
        """Return an order; `number` counts the shop's orders from 1."""
        if sale.document is not None:
            return given.order(sale.document)
        money = Money(sale.location.currency, sale.presentment)

        def totals(_: Json) -> Json:
            return _totals(sale, price(sale), self._world.refunds_of(sale), money)

        def rest(order: Json) -> Json:
            return self._rest(sale, order, money)

        order: Json = Parts(self._head(sale, number, money), (totals, rest))
        if sale.corrupt:
            _corrupt(order, sale.corrupt)
        return order

    def _head(self, sale: Sale, number: int, money: Money) -> Json:
        id_ = legacy("Order", sale.id)
        # What is ordered online belongs to the shop's first location, and is sent from there.
        counter = sale.source != self._merchant.online or sale.location is not self._merchant.locations[0]
        arrived = sale.created if sale.arrived is None else sale.arrived
        closed = stamp(max(arrived, sale.closed)) if sale.closed is not None else None
        cancelled = sale.state == "CANCELED"
        return {
            "__typename": "Order",
            "id": gid("Order", id_),
            "legacyResourceId": str(id_),
            "name": f"#{1000 + number}",
            "confirmed": True,
            "closed": closed is not None,
            "closedAt": closed,
            "cancelReason": "CUSTOMER" if cancelled else None,
            "cancelledAt": closed if cancelled else None,
            "createdAt": stamp(arrived),
            "processedAt": stamp(sale.created),
            "updatedAt": stamp(max(arrived, sale.updated)),
            "currencyCode": money.currency,
            "presentmentCurrencyCode": money.shown,
            "taxesIncluded": any(tax.inclusive for tax in sale.location.taxes),
            "dutiesIncluded": False,
            "displayFulfillmentStatus": "FULFILLED" if sale.state == "COMPLETED" else "UNFULFILLED",
            "edited": bool(sale.earlier),
            "test": sale.test,
            "sourceName": "pos" if counter else "web",
            "sourceIdentifier": f"{legacy('Location', sale.location.id)}-1-{number}" if counter else None,
            "retailLocation": self._catalog.location(sale.location) if counter else None,
        }

    def _rest(self, sale: Sale, order: Json, money: Money) -> Json:
        """Return an order's lines and what was paid, sent and given back."""
        figures = price(sale)
        lines = [self._line(sale, index, line, money) for index, line in enumerate(figures.lines)]
        if figures.tip:
            # A tip is a line too: no goods, no taxes, no part of the subtotal.
            tip = Line("CUSTOM_AMOUNT", None, "Tip", 1, figures.tip)
            priced = PricedLine(tip, 1, figures.tip, (), figures.tip, (), (), 0, 0, 0)
            lines.append(self._line(sale, len(lines), priced, money))
        shipping = [
            {"id": gid("ShippingLine", legacy("ShippingLine", f"{sale.id}|{index}")), "title": charge.charge.name}
            for index, charge in enumerate(figures.charges)
        ]
        backs = self._world.refunds_of(sale)
        transactions = paid = self._paid(sale, money)
        for one in backs:
            gone = price(one).returns[0]
            transactions = [*transactions, *self._given_back(one, gone.rounding, paid, money)]
            for index, line in gone.lines:
                if index >= 0:
                    lines[index]["currentQuantity"] -= line.quantity
            if gone.tip:
                lines[-1]["currentQuantity"] = 0
        if sale.state == "CANCELED":
            backs = [*backs, _cancellation(sale)]
        return {
            "agreements": Nodes(AgreementWriter(sale, lines, shipping, money).write(backs)),
            "lineItems": Nodes(lines),
            "refunds": [_refund(one, money) for one in backs],
            "transactions": transactions,
            "fulfillments": self._fulfillments(sale, order, len(lines)),
        }

    def _line(self, sale: Sale, index: int, line: PricedLine, money: Money) -> Json:
        sold, item = line.line, line.line.item
        variant = self._catalog.variant(item) if item else None
        return {
            "id": gid("LineItem", legacy("LineItem", f"{sale.id}|{index}")),
            "title": sold.name or "Custom sale",
            "variantTitle": item.variation if item and item.variation not in ("", "Regular") else None,
            "sku": (item.sku or None) if item else None,
            "quantity": line.quantity,
            "currentQuantity": 0 if sale.state == "CANCELED" else line.quantity,
            "isGiftCard": sold.kind == "GIFT_CARD",
            "requiresShipping": item is not None,
            "taxable": bool(line.taxes),
            "product": variant["product"] if variant else None,
            "variant": variant,
            "originalUnitPriceSet": money.bag(
                sold.unit_price + sum(chosen.modifier.price * chosen.quantity for chosen in sold.modifiers)
            ),
        }

    def _fulfillments(self, sale: Sale, order: Json, lines: int) -> list[Json]:
        if sale.state == "OPEN" or not lines:
            return []
        done = sale.state == "COMPLETED"
        places = [sale.location]
        others = [one for one in self._merchant.locations if one.id != sale.location.id and one.active]
        if order["sourceName"] == "web" and done and others and lines > 1 and legacy("Order", sale.id) % 4 == 0:
            places.append(others[0])  # what the first location did not have is sent from another one
        return [
            {
                "id": gid("Fulfillment", legacy("Fulfillment", f"{sale.id}|{index}")),
                "createdAt": order["closedAt"],
                "status": "SUCCESS" if done else "CANCELLED",
                "location": self._catalog.location(place),
            }
            for index, place in enumerate(places)
        ]

    # What was paid

    def _paid(self, sale: Sale, money: Money) -> list[Json]:
        """Return what was paid on a sale; cash rounding is told with the cash it was part of."""
        payments = self._world.payments_of(sale)
        rounding = price(sale).rounding
        cash = next((one for one in reversed(payments) if one.status == "completed" and one.type == "CASH"), None)
        found = [self._transaction(one, rounding if one is cash else 0, sale.customer, money) for one in payments]
        for one in [one for one in found if one["kind"] == "AUTHORIZATION"]:
            number = legacy("OrderTransaction", f"{one['id']}void")
            void = {**one, "id": gid("OrderTransaction", number), "kind": "VOID", "parentTransaction": one}
            found.append(void)
        return found

    def _given_back(self, back: Sale, rounding: int, paid: Sequence[Json], money: Money) -> list[Json]:
        """Return the money of one refund."""
        payments = self._world.payments_of(back)
        found = []
        for index, one in enumerate(payments):
            made = self._transaction(one, rounding if index == len(payments) - 1 else 0, one.sale.customer, money)
            parent = gid("OrderTransaction", legacy("OrderTransaction", one.source_id))
            made["kind"] = "REFUND"
            made["parentTransaction"] = next((other for other in paid if other["id"] == parent), None)
            found.append(made)
        return found

    def _transaction(self, one: PaidTender, rounding: int, customer: Customer | None, money: Money) -> Json:
        at = stamp(one.at)
        fee = one.fee_known(self._world.now_ms())
        card = {"__typename": "CardPaymentDetails", "company": "Visa", "wallet": None}
        return {
            "id": gid("OrderTransaction", legacy("OrderTransaction", one.id)),
            "amountSet": money.bag(one.amount + one.tip),
            "amountRoundingSet": money.bag(rounding) if rounding else None,
            "createdAt": at,
            "fees": [{"amount": money.of(fee), "taxAmount": money.of(0)}] if fee else [],
            "gateway": _GATEWAYS.get(one.type, "shopify_payments"),
            "kind": _KINDS[one.status],
            "parentTransaction": None,
            "paymentDetails": card if one.type == "CARD" and customer else None,
            "processedAt": at,
            "status": _STATUSES[one.status],
            "test": False,
        }


def _totals(sale: Sale, figures: Priced, back: Sequence[Sale], money: Money) -> Json:
    """Return an order's sums, as sold and as they are now, and what state its payment is in."""
    returned = [price(one).returns[0] for one in back]
    total = figures.total - figures.rounding
    cancelled, done = sale.state == "CANCELED", sale.state == "COMPLETED"
    refunded = sum(one.total for one in returned)
    refund_rounding = sum(one.rounding for one in returned)
    received = sum(one.amount for one in figures.tenders) if done else 0
    if cancelled:
        status = "VOIDED"
    elif not done:
        status = "PENDING"
    elif refunded and refunded >= figures.total:
        status = "REFUNDED"
    else:
        status = "PARTIALLY_REFUNDED" if refunded else "PAID"
    return {
        "displayFinancialStatus": status,
        "returnStatus": "RETURNED" if any(index >= 0 for one in returned for index, _ in one.lines) else "NO_RETURN",
        "totalPriceSet": money.bag(total),
        "currentTotalPriceSet": money.bag(0 if cancelled else total - refunded + refund_rounding),
        "netPaymentSet": money.bag(received - refunded),
        "totalOutstandingSet": money.bag(total if sale.state == "OPEN" else 0),
        "totalCashRoundingAdjustment": {
            "paymentSet": money.bag(figures.rounding if done else 0),
            "refundSet": money.bag(refund_rounding),
        },
    }


def _refund(back: Sale, money: Money) -> Json:
    """Return a refund: what it gives back beyond the order's lines, or less than them."""
    (figures,) = price(back).returns
    amounts = [line.total for index, line in figures.lines if index < 0]
    adjustments = [
        {
            "id": gid("OrderAdjustment", legacy("OrderAdjustment", f"{back.id}|{n}")),
            "amountSet": money.bag(-amount),
            "taxAmountSet": money.bag(0),
        }
        for n, amount in enumerate(amounts)
    ]
    return {"id": gid("Refund", legacy("Refund", back.id)), "orderAdjustments": Nodes(adjustments)}


def _cancellation(sale: Sale) -> Sale:
    """Return what cancelling an order takes back: everything; nobody paid for it."""
    at = sale.closed if sale.closed is not None else sale.updated
    parts = tuple((index, line.quantity) for index, line in enumerate(sale.lines))
    returned = Returned(sale, parts, tip_back=True, charges_back=True, reason="Cancelled")
    return Sale(f"{sale.id}|cancelled", sale.location, at, sale.updated, at, returns=(returned,))


def _corrupt(order: Json, kind: str) -> None:
    """Make an order one that no reader can use: see `world.MALFORMED`."""
    if kind == "timestamp":
        order["processedAt"] = order["createdAt"] = "yesterday"
        return
    for name in ("totalPriceSet", "currentTotalPriceSet"):
        bag = {which: dict(money) for which, money in order[name].items()}
        for money in bag.values():
            if kind == "types":
                money["amount"] = "twelve"
            elif kind == "currency":
                money["currencyCode"] = "XXQ"
            else:
                money["amount"] = "99999999.99"
        order[name] = bag
    if kind == "currency":
        order["currencyCode"] = "XXQ"
