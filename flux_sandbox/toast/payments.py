"""The payments of a sale as Toast shows them: on the check, with what was given back on the payment itself."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import guid
from flux_sandbox.toast.order_context import OrderContext, configured, device, reference
from flux_sandbox.toast.values import FIXED, dollars, stamp

if TYPE_CHECKING:
    from flux_sandbox.payments import PaidTender

Json = dict[str, Any]

_TYPES = {"CARD": "CREDIT", "WALLET": "CREDIT", "CASH": "CASH", "OTHER": "OTHER"}
_BRANDS = ("VISA", "MASTERCARD", "AMEX", "DISCOVER")
_STATUSES = {"completed": "CAPTURED", "failed": "DENIED", "canceled": "VOIDED"}
_NOTE = 500  # cash is handed over in five-dollar notes


def payment_type(world_type: str) -> str:
    """Return Toast's name for a type of tender."""
    return _TYPES.get(world_type, "GIFTCARD" if "GIFT" in world_type else "OTHER")


def payment(context: OrderContext, paid: PaidTender, refunds: Sequence[PaidTender], now_ms: int) -> Json:
    """Return a payment of an order's check."""
    kind = payment_type(paid.type)
    credit = kind == "CREDIT"
    number = zlib.crc32(paid.id.encode())
    customer = context.sale.customer if credit else None
    first6 = customer.card_first6 if customer else f"4{number % 100_000:05d}"
    last4 = customer.card_last4 if customer else f"{number // 7 % 10_000:04d}"
    fee = paid.fee_known(now_ms)
    tablet = {"id": device(context.location.id, number % 3)}
    drawer = configured(context.merchant, "cash drawer", context.location.id)
    return {
        **FIXED["payment"],
        "guid": paid.id,
        "originalProcessingFee": dollars(fee) if fee else None,
        "cashDrawer": reference("CashDrawer", drawer) if kind == "CASH" else None,
        "lastModifiedDevice": tablet,
        "createdDevice": tablet,
        "refundStatus": _refund_status(paid, refunds),
        "type": kind,
        "voidInfo": _void(context, paid),
        "otherPayment": reference("AlternatePaymentType", configured(context.merchant, "alternate payment", "Voucher"))
        if kind == "OTHER"
        else None,
        "paidDate": stamp(paid.at),
        "paidBusinessDate": context.day(paid.at),
        "cardEntryMode": _entry_mode(paid, number) if credit else None,
        "cardPaymentId": guid("toast", "card", paid.id) if credit else None,
        "paymentStatus": _STATUSES[paid.status] if credit else None,
        "amount": dollars(paid.amount, whole=number % 2 == 0),
        "tipAmount": dollars(paid.tip, whole=number % 3 == 0),
        "amountTendered": dollars(-(-paid.amount // _NOTE) * _NOTE if kind == "CASH" else paid.amount),
        "cardType": _BRANDS[number % len(_BRANDS)] if credit else None,
        "first6Digits": first6 if credit else None,
        "last4Digits": last4 if credit else None,
        "refund": _refund(context, refunds),
    }


def _entry_mode(paid: PaidTender, number: int) -> str:
    if number % 50 == 0:
        return "PALM_SCANNED"  # a way to pay that no list of Toast's had until it was there
    return "TOKENIZED" if paid.type == "WALLET" else ("SWIPED", "EMV_CHIP_SIGN", "NFC_TAP")[number % 3]


def _void(context: OrderContext, paid: PaidTender) -> Json | None:
    if paid.status != "canceled":
        return None
    return {
        **FIXED["void"],
        "voidDate": stamp(paid.at),
        "voidBusinessDate": context.day(paid.at),
    }


def _refund_status(paid: PaidTender, refunds: Sequence[PaidTender]) -> str:
    if not refunds:
        return "NONE"
    amount, tip = sum(one.amount for one in refunds), sum(one.tip for one in refunds)
    return "FULL" if amount >= paid.amount and tip >= paid.tip else "PARTIAL"


def _refund(context: OrderContext, refunds: Sequence[PaidTender]) -> Json | None:
    """Return what was given back of a payment: one object, in which later refunds are added to earlier ones."""
    if not refunds:
        return None
    last = max(refunds, key=lambda one: one.at)
    return {
        "refundAmount": dollars(sum(one.amount for one in refunds)),
        "tipRefundAmount": dollars(sum(one.tip for one in refunds), whole=True),
        "refundDate": stamp(last.at),
        "refundBusinessDate": context.day(last.at),
        "refundTransaction": {
            "guid": guid("toast", "refund", last.sale.id),
            "entityType": "RefundTransaction",
        },
    }
