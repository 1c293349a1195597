"""Lists of Square's objects exactly as received, with the few fields of each that following and placing them needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from flux_pipelines.domain.decoding import decoder


class _Offline(msgspec.Struct, gc=False):
    client_created_at: datetime | None = None


class Head(msgspec.Struct, gc=False):
    """What is read of a payment, a refund, a timecard, a count or an object of the catalog."""

    id: str = ""
    type: str = ""
    location_id: str | None = None
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    start_at: datetime | None = None
    offline_payment_details: _Offline | None = None
    payment_id: str | None = None
    order_id: str | None = None

    @property
    def happened(self) -> datetime | None:
        """When it really happened, which decides its business date; None when that cannot be read.

        The clock-in of a timecard; for what a till took offline the till's own time, which is up to three days before
        Square made a payment of it; else its creation.
        """
        offline = self.offline_payment_details
        if offline is not None and offline.client_created_at is not None:
            return _aware(offline.client_created_at)
        return _aware(self.start_at or self.created_at)

    @property
    def created(self) -> datetime | None:
        """When Square made it; None when that cannot be read."""
        return _aware(self.created_at)

    @property
    def changed(self) -> datetime | None:
        """When it last changed; None when that cannot be read."""
        return _aware(self.updated_at)


_UNREADABLE = Head()


def _aware(instant: datetime | None) -> datetime | None:
    return None if instant is None or instant.tzinfo is None else instant.astimezone(UTC)


class Found(msgspec.Struct, frozen=True, gc=False):
    """One object: as received, and its head (empty when that cannot be read: SQL will say what is wrong with it)."""

    raw: msgspec.Raw
    head: Head


@dataclass(frozen=True, slots=True)
class Listed:
    """One page. `related` are further objects that the answer brought along."""

    found: list[Found]
    cursor: str
    related: list[Found]


_decode_head = decoder(Head)


def read_head(raw: msgspec.Raw) -> Head:
    """Return what can be read of an object; an empty head when it cannot be."""
    try:
        return _decode_head(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return _UNREADABLE


class _Override(msgspec.Struct):
    sold_out: bool | None = None


class _VariationData(msgspec.Struct):
    location_overrides: list[_Override] | None = None


class _Variation(msgspec.Struct):
    item_variation_data: _VariationData | None = None


_decode_variation = decoder(_Variation)


def is_sold_out(raw: msgspec.Raw) -> bool:
    """Tell whether a variation is marked as sold out somewhere; one that cannot be read may be: SQL will say so."""
    try:
        data = _decode_variation(raw).item_variation_data
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    return data is not None and any(one.sold_out for one in data.location_overrides or ())


class Paid(NamedTuple):
    """What is read of an order to find out how it was paid."""

    tenders: list[tuple[str, msgspec.Raw]]  #: by the id of its payment
    sources: list[str]  #: the orders whose goods it takes back


class _Return(msgspec.Struct, gc=False):
    source_order_id: str | None = None


class _Order(msgspec.Struct, gc=False):
    tenders: list[msgspec.Raw] | None = None
    returns: list[_Return] | None = None


_decode_order = decoder(_Order)


def read_paid(raw: msgspec.Raw) -> Paid:
    """Return the tenders and sources of an order; none when they cannot be read."""
    try:
        order = _decode_order(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Paid([], [])
    # "The tender's unique ID. It is the associated payment ID." (Tender)
    return Paid(
        [(read_head(tender).id, tender) for tender in order.tenders or ()],
        [one.source_order_id for one in order.returns or () if one.source_order_id],
    )


class _Single(msgspec.Struct):
    """An answer with one payment."""

    payment: msgspec.Raw


_decode_single = decoder(_Single)


def decode_payment(body: bytes) -> msgspec.Raw:
    """Return the payment of an answer as received."""
    return _decode_single(body).payment


def lists(member: str, *, related: str = "") -> Callable[[bytes], Listed]:
    """Return a decoder of answers whose objects are in `member`.

    It raises `msgspec.DecodeError` for a body that is cut off or no such answer, and ValueError for one with errors
    instead of objects although its status was 200: neither is ever an empty list.
    """
    fields: list[Any] = [
        ("cursor", str | None, None),
        ("errors", list[msgspec.Raw] | None, None),
        ("found", list[msgspec.Raw] | None, msgspec.field(default=None, name=member)),
    ]
    if related:
        fields.append(("related", list[msgspec.Raw] | None, msgspec.field(default=None, name=related)))
    decode = decoder(msgspec.defstruct("_Answer", fields))

    def read(body: bytes) -> Listed:
        answer: Any = decode(body)
        if answer.errors:
            raise ValueError(f"`{member}` were asked for, but the answer holds errors")
        beside = answer.related or [] if related else []
        return Listed(
            [Found(raw, read_head(raw)) for raw in answer.found or []],
            answer.cursor or "",
            [Found(raw, read_head(raw)) for raw in beside],
        )

    return read
