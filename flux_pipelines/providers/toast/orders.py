"""Toast's orders: split from a page without decoding them, with the few fields that landing needs.

An order names neither its restaurant nor its currency: the request did. Both are put in front of its members, as
`flux_location_id` and `flux_currency`; every other byte stays as received.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal, DecimalException
from typing import Any

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import UnknownCurrencyError
from flux_pipelines.domain.money import known_currencies
from flux_pipelines.providers.base import Order, OrderHeader

#: What has become of a card payment that moves no money, as in transactions.sql. Any other status, an unknown one too, may.
FRUITLESS = frozenset({"VOIDED", "VOIDED_AT_RISK", "PROCESSING_VOID", "CANCELLED", "DENIED", "ERROR", "ERROR_NETWORK"})
_PAID = frozenset({"PAID", "CLOSED"})
_ZERO = Decimal(0)


class _Refund(msgspec.Struct, rename="camel", gc=False):
    refund_amount: Decimal | None = None
    tip_refund_amount: Decimal | None = None


class _Payment(msgspec.Struct, rename="camel"):
    tip_amount: Decimal | None = None
    payment_status: str | None = None
    void_info: Any = None
    refund: _Refund | None = None


class _Charge(msgspec.Struct, rename="camel", gc=False):
    charge_amount: Decimal | None = None
    gratuity: bool | None = None


class _Check(msgspec.Struct, rename="camel"):
    total_amount: Decimal | None = None
    payment_status: str | None = None
    voided: bool | None = None
    deleted: bool | None = None
    payments: list[_Payment] | None = None
    applied_service_charges: list[_Charge] | None = None

    def counts(self) -> bool:
        return not (self.voided or self.deleted)


class _Header(msgspec.Struct, rename="camel"):
    guid: str
    business_date: int
    opened_date: datetime | None = None
    created_date: datetime | None = None
    modified_date: datetime | None = None
    closed_date: datetime | None = None
    voided: bool | None = None
    deleted: bool | None = None
    created_in_test_mode: bool | None = None
    excess_food: bool | None = None
    checks: list[_Check] | None = None


_decode_header = decoder(_Header)
_decode_page = decoder(list[msgspec.Raw])


def business_date(number: int) -> date:
    """Return the date of Toast's integer `yyyyMMdd`.

    Raises:
        ValueError: it is not a date.

    """
    year, rest = divmod(number, 10_000)
    return date(year, *divmod(rest, 100))


def page_decoder(location_id: str, currency: str) -> Callable[[bytes], list[Order]]:
    """Return what makes orders of a page's body, for a restaurant and its currency."""

    def decode(body: bytes) -> list[Order]:
        return [read_order(raw, location_id, currency) for raw in _decode_page(body)]

    return decode


def read_order(raw: bytes | msgspec.Raw, location_id: str, currency: str) -> Order:
    """Make an order of its JSON. One whose header cannot be read is kept with the reason; it does not lose the page."""
    body = bytes(raw)
    if body[:1] != b"{" or body[1:].lstrip()[:1] == b"}":
        return Order(msgspec.Raw(body), None, "it is not an order")
    front = b'{"flux_location_id":%s,"flux_currency":%s,' % (
        msgspec.json.encode(location_id),
        msgspec.json.encode(currency),
    )
    kept = msgspec.Raw(front + body[1:])
    try:
        return Order(kept, _header(_decode_header(body), location_id, currency))
    except (msgspec.DecodeError, ValueError, OverflowError, DecimalException, UnknownCurrencyError) as problem:
        return Order(kept, None, f"the order's header cannot be read: {problem}")


def _header(found: _Header, location_id: str, currency: str) -> OrderHeader:
    opened = found.opened_date or found.created_date
    if opened is None:
        raise ValueError("it has neither openedDate nor createdDate")
    created = _utc(opened)
    state = _state(found)
    return OrderHeader(
        found.guid,
        location_id,
        created,
        _utc(found.modified_date) if found.modified_date else created,
        _utc(found.closed_date) if found.closed_date else None,
        state,
        _owed(found, currency),
        currency,
        business_date(found.business_date),
        sold=state != "CANCELED",
    )


def _state(found: _Header) -> str:
    """Voided, emptied by a merge, rung up for practice or for waste: no sale. Closed or paid in full; else it is open.

    An open order is a sale as well: "include open and unpaid orders" (developer guide, "Calculating net sales").
    """
    if found.voided or found.deleted or found.created_in_test_mode or found.excess_food:
        return "CANCELED"
    checks = [check for check in found.checks or () if check.counts()]
    if found.checks and not checks:
        return "CANCELED"
    paid = bool(checks) and all(check.payment_status in _PAID for check in checks)
    return "COMPLETED" if found.closed_date is not None or paid else "OPEN"


def _owed(found: _Header, currency: str) -> int:
    """Return what the customer pays in the end, in minor units: checks, gratuity and tips, less what was given back.

    `totalAmount` neither holds gratuity charges nor is lessened by refunds (developer guide, "Order object summary").
    """
    places = known_currencies().get(currency)
    if places is None:
        raise UnknownCurrencyError(f"{currency} is not a currency that ISO 4217 gives a minor unit")

    def minor(amount: Decimal | None) -> int:
        # Floats leave crumbs (12.990000000000002); half of a minor unit goes up, as in transactions.sql.
        return int((amount or _ZERO).scaleb(places).quantize(Decimal(1), ROUND_HALF_UP))

    owed = 0
    for check in found.checks or ():
        if not check.counts():
            continue
        owed += minor(check.total_amount)
        owed += sum(minor(one.charge_amount) for one in check.applied_service_charges or () if one.gratuity)
        for payment in check.payments or ():
            if payment.payment_status in FRUITLESS or payment.void_info is not None:
                continue
            owed += minor(payment.tip_amount)
            if payment.refund is not None:
                owed -= minor(payment.refund.refund_amount) + minor(payment.refund.tip_refund_amount)
    return owed


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("a timestamp has no offset from UTC")
    return instant.astimezone(UTC)
