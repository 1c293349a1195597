"""What was paid on an order and what was given back, as objects of Shopify's Admin API.

Goods and tips given back are refund line items, their shipping a refund shipping line; money that belongs to no line (a goodwill
gesture) is an order adjustment, negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.pricing import price
from flux_sandbox.shopify.ids import Json, Money, gid, legacy, stamp
from flux_sandbox.shopify.values import Nodes

if TYPE_CHECKING:
    from flux_sandbox.model import Customer, PricedReturn, Sale
    from flux_sandbox.payments import PaidTender

_GATEWAYS = {
    "CASH": ("cash", "Cash"),
    "GIFT_CARD": ("gift_card", "Gift card"),
    "OTHER": ("manual", "Manual"),
}
_STATUSES = {"completed": "SUCCESS", "failed": "FAILURE", "canceled": "SUCCESS"}
_KINDS = {"completed": "SALE", "failed": "SALE", "canceled": "AUTHORIZATION"}


def gateway(tender: str) -> tuple[str, str]:
    """Return a tender's gateway, and how it is shown."""
    return _GATEWAYS.get(tender, ("shopify_payments", "Shopify Payments"))


class PaymentWriter:
    """Writes an order's transactions."""

    def __init__(self, money: Money, now_ms: int) -> None:
        self._money = money
        self._now_ms = now_ms

    def paid(self, order: Json, sale: Sale, payments: Sequence[PaidTender]) -> list[Json]:
        """Return what was paid on a sale; cash rounding is told with the cash it was part of."""
        rounding = price(sale).rounding
        cash = next((one for one in reversed(payments) if one.status == "completed" and one.type == "CASH"), None)
        found = [self._transaction(order, one, rounding if one is cash else 0, sale.customer) for one in payments]
        for one in [one for one in found if one["kind"] == "AUTHORIZATION"]:
            number = legacy("OrderTransaction", f"{one['id']}void")
            void = {**one, "id": gid("OrderTransaction", number), "kind": "VOID", "parentTransaction": one}
            found.append(void)
        return found

    def given_back(
        self, order: Json, payments: Sequence[PaidTender], rounding: int, paid: Sequence[Json]
    ) -> list[Json]:
        """Return the money of one refund."""
        found = []
        for index, one in enumerate(payments):
            made = self._transaction(order, one, rounding if index == len(payments) - 1 else 0, one.sale.customer)
            parent = gid("OrderTransaction", legacy("OrderTransaction", one.source_id))
            made["kind"] = "REFUND"
            made["parentTransaction"] = next((other for other in paid if other["id"] == parent), None)
            found.append(made)
        return found

    def _transaction(self, order: Json, one: PaidTender, rounding: int, customer: Customer | None) -> Json:
        name, title = gateway(one.type)
        at = stamp(one.at)
        number = legacy("OrderTransaction", one.id)
        fee = one.fee_known(self._now_ms)
        return {
            "id": gid("OrderTransaction", number),
            "accountNumber": f"•••• •••• •••• {customer.card_last4}" if customer and one.type == "CARD" else None,
            "amountSet": self._money.bag(one.amount + one.tip),
            "amountRoundingSet": self._money.bag(rounding) if rounding else None,
            "authorizationExpiresAt": None,
            "createdAt": at,
            "errorCode": "CARD_DECLINED" if one.status == "failed" else None,
            "fees": [self._fee(number, fee)] if fee else [],
            "formattedGateway": title,
            "gateway": name,
            "kind": _KINDS[one.status],
            "location": None,
            "manualPaymentGateway": name in ("cash", "manual"),
            "manuallyCapturable": False,
            "multiCapturable": False,
            "order": order,
            "parentTransaction": None,
            "paymentDetails": self._card(customer) if one.type == "CARD" and customer else None,
            "paymentId": f"{order['name']}.{one.index + 1}",
            "processedAt": at,
            "receiptJson": "{}",
            "settlementCurrency": None,
            "settlementCurrencyRate": None,
            "status": _STATUSES[one.status],
            "test": False,
            "totalUnsettledSet": self._money.bag(0),
            "user": None,
        }

    def _fee(self, number: int, fee: int) -> Json:
        return {
            "id": gid("TransactionFee", number),
            "amount": self._money.of(fee),
            "flatFee": self._money.of(10),
            "flatFeeName": "transaction fee",
            "rate": "0.026",
            "rateName": "Online",
            "taxAmount": self._money.of(0),
            "type": "processing_fee",
        }

    def _card(self, customer: Customer) -> Json:
        return {
            "__typename": "CardPaymentDetails",
            "avsResultCode": "Y",
            "bin": customer.card_first6,
            "company": "Visa",
            "cvvResultCode": "M",
            "expirationMonth": 12,
            "expirationYear": 2030,
            "name": f"{customer.given_name} {customer.family_name}",
            "number": f"•••• •••• •••• {customer.card_last4}",
            "paymentMethodName": "card",
            "wallet": None,
        }


class RefundWriter:
    """Writes the refunds of one order.

    Args:
        money: writes amounts.
        order: the order's object, with its `lineItems` and `shippingLines` made.
        lines: its line items by index.
        shipping: its shipping lines by index.
        location: where goods come back to.

    """

    def __init__(
        self, money: Money, order: Json, lines: Sequence[Json], shipping: Sequence[Json], location: Json
    ) -> None:
        self._money = money
        self._order = order
        self._lines = lines
        self._shipping = shipping
        self._location = location

    def write(self, back: Sale, transactions: Sequence[Json]) -> tuple[Json, Json | None]:
        """Return a refund and, where goods came back, the return it belongs to."""
        (figures,) = price(back).returns
        number = legacy("Refund", back.id)
        at = stamp(back.closed if back.closed is not None else back.created)
        lines = self._line_items(back, figures)
        refund: Json = {
            "id": gid("Refund", number),
            "legacyResourceId": str(number),
            "createdAt": at,
            "processedAt": at,
            "updatedAt": stamp(back.updated),
            "note": figures.returned.reason,
            "duties": [],
            "order": self._order,
            "orderAdjustments": Nodes(self._adjustments(back, figures)),
            "refundLineItems": Nodes(lines),
            "refundShippingLines": Nodes(self._shipped(back, figures)),
            "return": None,
            "staffMember": None,
            "totalRefundedSet": self._money.bag(figures.total),
            "transactions": Nodes(transactions),
        }
        if not lines:
            return refund, None
        refund["return"] = self._return(back, refund, lines, at)
        return refund, refund["return"]

    def cancelled(self, back: Sale) -> Json:
        """Return the refund that cancelling an unpaid order makes: of its lines, without any money."""
        refund, _ = self.write(back, ())
        for one in refund["refundLineItems"].items:
            one |= {"restockType": "CANCEL"}
        return refund | {"return": None, "totalRefundedSet": self._money.bag(0)}

    def _line_items(self, back: Sale, figures: PricedReturn) -> list[Json]:
        found = []
        for n, (index, line) in enumerate(figures.lines):
            if index < 0:
                continue
            number = legacy("RefundLineItem", f"{back.id}|{n}")
            found.append(
                {
                    "id": gid("RefundLineItem", number),
                    "lineItem": self._lines[index],
                    "location": self._location,
                    "priceSet": self._money.bag((line.value - line.discount) // max(1, line.quantity)),
                    "quantity": line.quantity,
                    "restockType": "RETURN",
                    "restocked": True,
                    "subtotalSet": self._money.bag(line.value - line.discount),
                    "totalTaxSet": self._money.bag(line.tax),
                }
            )
        if figures.tip:
            number = legacy("RefundLineItem", f"{back.id}|tip")
            tip = {"id": gid("RefundLineItem", number), "lineItem": self._lines[-1], "location": None, "quantity": 1}
            amount, nothing = self._money.bag(figures.tip), self._money.bag(0)
            tip |= {"priceSet": amount, "subtotalSet": amount, "totalTaxSet": nothing}
            found.append({**tip, "restockType": "NO_RESTOCK", "restocked": False})
        return found

    def _shipped(self, back: Sale, figures: PricedReturn) -> list[Json]:
        return [
            {
                "id": gid("RefundShippingLine", legacy("RefundShippingLine", f"{back.id}|{index}")),
                "shippingLine": self._shipping[index],
                "subtotalAmountSet": self._money.bag(charge.applied),
                "taxAmountSet": self._money.bag(charge.tax),
            }
            for index, charge in figures.charges
        ]

    def _adjustments(self, back: Sale, figures: PricedReturn) -> list[Json]:
        amounts = [line.total for index, line in figures.lines if index < 0]
        return [
            {
                "id": gid("OrderAdjustment", legacy("OrderAdjustment", f"{back.id}|{n}")),
                "amountSet": self._money.bag(-amount),
                "reason": "REFUND_DISCREPANCY",
                "taxAmountSet": self._money.bag(0),
            }
            for n, amount in enumerate(amounts)
        ]

    def _return(self, back: Sale, refund: Json, lines: Sequence[Json], at: str) -> Json:
        number = legacy("Return", back.id)
        made: list[dict[str, Any]] = [
            {
                "__typename": "ReturnLineItem",
                "id": gid("ReturnLineItem", legacy("ReturnLineItem", line["id"])),
                "customerNote": None,
                "processableQuantity": 0,
                "processedQuantity": line["quantity"],
                "quantity": line["quantity"],
                "refundableQuantity": 0,
                "refundedQuantity": line["quantity"],
                "restockingFee": None,
                "returnReason": "OTHER",
                "returnReasonNote": refund["note"],
                "unprocessedQuantity": 0,
                "withCodeDiscountedTotalPriceSet": line["subtotalSet"],
            }
            for line in lines
        ]
        return {
            "id": gid("Return", number),
            "name": f"{self._order['name']}-R{legacy('Return', back.id) % 10}",
            "closedAt": at,
            "createdAt": at,
            "order": self._order,
            "refunds": Nodes([refund]),
            "requestApprovedAt": at,
            "returnLineItems": Nodes(made),
            "status": "CLOSED",
            "totalQuantity": sum(line["quantity"] for line in lines),
        }
