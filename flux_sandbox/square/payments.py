"""The Payment and PaymentRefund objects that Square would show of what was paid in the world.

Facts: schemas Payment, PaymentRefund, ProcessingFee, CardPaymentDetails of Square's OpenAPI document 2025-08-20. A payment
that a till took offline is created when it arrives; the till's time is in `offline_payment_details`. What Square keeps may
be known days later only, and changes the payment, as a refund of it does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_sandbox.square.orders import stamp
from flux_sandbox.square.people import address, payment_card

if TYPE_CHECKING:
    from flux_sandbox.payments import PaidTender

Json = dict[str, Any]

_VOID_AFTER = timedelta(hours=168)
_SOURCE_TYPES = {"CASH": "CASH", "WALLET": "WALLET", "OTHER": "EXTERNAL"}
_STATUSES = {"completed": "COMPLETED", "canceled": "CANCELED", "failed": "FAILED"}
_CARD_STATUSES = {"completed": "CAPTURED", "canceled": "VOIDED", "failed": "FAILED"}
#: Milliseconds from what the till did to Square's last word on it.
SETTLING = 400
REFUNDING = 500


class Paid(NamedTuple):
    """A payment as Square has it: what was paid, and what came of it since.

    Args:
        tender: what was paid.
        arrived: when it arrived, if a till took it offline.
        refunds: what was given back of it, oldest first.

    """

    tender: PaidTender
    arrived: int | None = None
    refunds: tuple[PaidTender, ...] = ()

    @property
    def created(self) -> int:
        """When Square made it, UTC milliseconds."""
        return self.tender.at if self.arrived is None else self.arrived

    def updated(self, now_ms: int) -> int:
        """Return when it last changed, as seen at an instant."""
        last = max(self.created, self.tender.updated(now_ms)) + SETTLING
        return max([last, *(refund_updated(one) for one in self.refunds)])


def refund_updated(refund: PaidTender) -> int:
    """Return when a refund last changed."""
    return max(refund.at, refund.sale.updated) + REFUNDING


def payment(paid: Paid, now_ms: int, *, final: bool = True) -> Json:
    """Return the Payment object: as it is, or (not `final`) as it was when it had only been approved."""
    tender = paid.tender
    sale, currency = tender.sale, tender.sale.location.currency
    source = _SOURCE_TYPES.get(tender.type, "CARD")
    settled = final or source != "CARD"
    total = _money(tender.amount + tender.tip, currency)
    result: Json = {
        "id": tender.id,
        "created_at": stamp(paid.created),
        "updated_at": stamp(paid.updated(now_ms) if final else paid.created),
        "amount_money": _money(tender.amount, currency),
    }
    if tender.tip:
        result["tip_money"] = _money(tender.tip, currency)
    result |= {
        "status": _STATUSES[tender.status] if settled else "APPROVED",
        "source_type": source,
        "location_id": sale.location.id,
        "order_id": sale.id,
        "total_money": total,
        "approved_money": total,
    }
    result |= _details(paid, source, final=final)
    if final and tender.fee_known(now_ms):
        fee = {"effective_at": stamp(tender.fee_at), "type": "INITIAL", "amount_money": _money(tender.fee, currency)}
        result["processing_fee"] = [fee]
    if final and paid.refunds:
        result["refunded_money"] = _money(sum(one.amount + one.tip for one in paid.refunds), currency)
        result["refund_ids"] = [one.id for one in paid.refunds]
    if sale.customer:
        result |= {
            "customer_id": sale.customer.id,
            "buyer_email_address": sale.customer.email,
            "billing_address": address(sale.customer),
        }
    if sale.lines and sale.lines[0].name:
        result["note"] = sale.lines[0].name
    if tender.status != "canceled":
        result["receipt_number"] = tender.id[:4]
    if settled and tender.status == "completed":
        result["receipt_url"] = f"https://squareup.com/receipt/preview/{tender.id}"
    if paid.arrived is not None:
        result |= {"is_offline_payment": True, "offline_payment_details": {"client_created_at": stamp(tender.at)}}
    result["version_token"] = f"{sale.id[:20]}{sale.revision}{'o' if final else 'c'}"
    return result


def _details(paid: Paid, source: str, *, final: bool) -> Json:
    tender = paid.tender
    currency = tender.sale.location.currency
    if source == "CARD":
        created = datetime.fromtimestamp(paid.created / 1000, UTC)
        found: Json = {
            "delay_action": "CANCEL",
            "delay_duration": "PT168H",
            "delayed_until": stamp(int((created + _VOID_AFTER).timestamp() * 1000)),
            "card_details": _card(paid, final=final),
        }
        if not final:
            found["capabilities"] = ["EDIT_TIP_AMOUNT", "EDIT_TIP_AMOUNT_UP", "EDIT_TIP_AMOUNT_DOWN"]
        return found
    if source == "CASH":
        given, change = cash_given(tender.amount + tender.tip, currency)
        money = {"buyer_supplied_money": _money(given, currency), "change_back_money": _money(change, currency)}
        return {"cash_details": money}
    if source == "EXTERNAL":
        return {"external_details": {"type": "OTHER", "source": "Other"}}
    return {"wallet_details": {"status": "CAPTURED" if final else "AUTHORIZED", "brand": "CASH_APP"}}


def _card(paid: Paid, *, final: bool) -> Json:
    tender = paid.tender
    timeline = {"authorized_at": stamp(paid.created + 100)}
    if final and tender.status == "completed":
        timeline["captured_at"] = stamp(paid.created + 350)
    elif final and tender.status == "canceled":
        timeline["voided_at"] = stamp(paid.created + 350)
    return {
        "status": _CARD_STATUSES[tender.status] if final else "AUTHORIZED",
        "card": _gift_card() if _is_gift_card(tender) else payment_card(tender.sale, tender.id),
        "entry_method": "CONTACTLESS",
        "card_payment_timeline": timeline,
    }


def _is_gift_card(tender: PaidTender) -> bool:
    return tender.type == "GIFT_CARD"


def _gift_card() -> Json:
    return {
        "card_brand": "SQUARE_GIFT_CARD",
        "last_4": "0000",
        "card_type": "UNKNOWN_CARD_TYPE",
        "prepaid_type": "NOT_PREPAID",
    }


def cash_given(amount: int, currency: str) -> tuple[int, int]:
    """Return what a buyer hands over for an amount, and what comes back."""
    step = 500 if currency != "JPY" else 1000
    given = -(-amount // step) * step
    return given, given - amount


def refund(back: PaidTender, *, final: bool = True) -> Json:
    """Return the PaymentRefund object: as it is, or (not `final`) as it was when it had only been asked for.

    It does not tell how much of it is a tip.
    """
    currency = back.sale.location.currency
    result: Json = {
        "id": back.id,
        "status": "COMPLETED" if final else "PENDING",
        "amount_money": _money(back.amount + back.tip, currency),
        "order_id": back.sale.id,
        "created_at": stamp(back.at),
        "updated_at": stamp(refund_updated(back) if final else back.at + 10),
        "location_id": back.sale.location.id,
        "reason": back.sale.returns[0].reason,
    }
    if back.source_id:
        result["payment_id"] = back.source_id
    else:
        result["unlinked"] = True
    source = _SOURCE_TYPES.get(back.type, "CARD")
    result["destination_type"] = source
    if source == "CARD" and not back.source_id:
        # "Populated only if destination_id is defined in the RefundPayment request": not of what goes back to its payment.
        result["destination_details"] = {"card_details": {"card": _gift_card(), "entry_method": "CONTACTLESS"}}
    return result


def _money(amount: int, currency: str) -> Json:
    return {"amount": amount, "currency": currency}
