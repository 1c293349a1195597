"""Square's webhooks: the signature over address and body, and which orders and streams an event makes stale.

A delivery carries no timestamp that is signed, so a replayed one cannot be told by its age: the inbox knows its event id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.providers.base import (
    Invalidation,
    Order,
    Source,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)
from flux_pipelines.providers.square.records import Head, read_head

SIGNATURE_HEADER = "x-square-hmacsha256-signature"
_REVOKED = "oauth.authorization.revoked"
_CATALOG = ("catalog", "", None)
_COUNTED = ("inventory.count.updated",)
# Timecards were called shifts before 2025-05-21; those events still come to old subscriptions.
_WORKED = ("labor.timecard.", "labor.shift.")


class _Envelope(msgspec.Struct):
    event_id: str
    type: str
    merchant_id: str = ""
    created_at: str = ""


class _Subject(msgspec.Struct):
    """An order event's stub, a payment or a refund: all of them say which order, where and when."""

    order_id: str | None = ""
    location_id: str | None = ""
    created_at: datetime | None = None


class _About(NamedTuple):
    """What an event is about: an order, with what its stub says of it, and what else is stale whatever the order says."""

    order_id: str
    stub: tuple[str, datetime] | None = None
    streams: frozenset[tuple[str, str, datetime | None]] = frozenset()


class _Data(msgspec.Struct):
    object: dict[str, msgspec.Raw] = {}


class _Event(msgspec.Struct):
    data: _Data


class _Return(msgspec.Struct):
    source_order_id: str = ""


class _Returns(msgspec.Struct):
    returns: list[_Return] = []


_decode_envelope = decoder(_Envelope)
_decode_event = decoder(_Event)
_decode_subject = decoder(_Subject)
_decode_returns = decoder(_Returns)


class SquareWebhooks:
    """One app's webhook subscription (`WebhookSource`).

    Raises:
        ConfigurationError: the signature key or the notification URL is empty: anybody could sign then.

    """

    refused_status = 403

    def __init__(self, context: WebhookContext) -> None:
        if not context.signature_key or not context.notification_url:
            raise ConfigurationError(
                "Square's webhooks need the subscription's signature key and notification URL",
                next_step="Set both with `flux apps set`, exactly as Square's developer console shows them.",
            )
        # Keyed and fed with the address once; a copy is then fed with each body.
        self._mac = hmac.new(context.signature_key.encode(), context.notification_url.encode(), hashlib.sha256)

    def verify(self, request: WebhookRequest) -> None:
        """Prove that Square signed this very body for this very address.

        Raises:
            WebhookRefusedError: there is no signature or no body, or they do not belong together.

        """
        given = request.headers.get(SIGNATURE_HEADER, "")
        if not request.body or not given:
            raise WebhookRefusedError("a delivery without a signature or without a body")
        mac = self._mac.copy()
        mac.update(request.body)
        # Bytes: a comparison of texts in constant time is only possible in ASCII.
        if not hmac.compare_digest(base64.b64encode(mac.digest()), given.encode("utf-8", "surrogatepass")):
            raise WebhookRefusedError("the signature is not Square's for this body and this address")

    def read(self, request: WebhookRequest) -> list[WebhookEvent]:
        """Read the envelope.

        Raises:
            WebhookRefusedError: it is not JSON, or has no event id or no type.

        """
        try:
            envelope = _decode_envelope(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise WebhookRefusedError(f"the body is not an event of Square ({problem})") from problem
        if not envelope.event_id or not envelope.type:
            raise WebhookRefusedError("the body is not an event of Square (an empty event id or type)")
        return [WebhookEvent(envelope.event_id, envelope.type, envelope.merchant_id, _instant(envelope.created_at))]

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        """Say what each event touches: its order and, for a return, those whose lines came back; and streams."""
        subjects = [_subject(event_type, body) for event_type, body in events]
        named = {subject.order_id for subject in subjects if isinstance(subject, _About)}
        orders = _fetch(source, named)
        sources = {order_id: _source_ids(order) for order_id, order in orders.items()}
        orders |= _fetch(source, {wanted for ids in sources.values() for wanted in ids} - orders.keys())
        return [
            subject
            if isinstance(subject, Invalidation)
            else _touched(subject, orders, sources.get(subject.order_id, ()))
            for subject in subjects
        ]


def _subject(event_type: str, body: bytes) -> _About | Invalidation:
    """Return what an event is about if that is an order, else what follows from the event alone."""
    family = event_type.partition(".")[0]
    if event_type == _REVOKED:
        return Invalidation(revoked=True)
    if family == "location":
        return Invalidation(locations=True)
    if event_type == "catalog.version.updated":
        return Invalidation(streams=frozenset({_CATALOG}))
    known = family in ("order", "payment", "refund") or event_type in _COUNTED or event_type.startswith(_WORKED)
    if not known:
        return Invalidation(nothing=f"events of type {event_type} say nothing about sales")
    try:
        inside = _decode_event(body).data.object
        if event_type in _COUNTED:
            return _counted(inside)
        about = next(iter(inside.values()), msgspec.Raw(b"{}"))
        return _worked(about) if family == "labor" else _sold(family, about)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return Invalidation(nothing=f"the event cannot be read ({problem})")


def _sold(family: str, about: msgspec.Raw) -> _About | Invalidation:
    subject = _decode_subject(about)
    if family == "order":
        if not subject.order_id:
            return Invalidation(nothing="this order has no id")
        created = subject.created_at
        if not subject.location_id or created is None or created.tzinfo is None:
            return _About(subject.order_id)
        return _About(subject.order_id, (subject.location_id, created.astimezone(UTC)))
    # A payment's own time may lie on another day than its order's, so it stands in for nothing.
    streams = _stale("payments", read_head(about))
    if subject.order_id:
        return _About(subject.order_id, streams=streams)
    return Invalidation(streams=streams) if streams else Invalidation(nothing=f"this {family} belongs to no order")


def _counted(inside: dict[str, msgspec.Raw]) -> Invalidation:
    counts = inside.get("inventory_counts")
    heads = [read_head(one) for one in decode(counts, list[msgspec.Raw])] if counts else []
    places = {head.location_id for head in heads if head.location_id}
    if not places:
        return Invalidation(nothing="the event names no location whose stock changed")
    return Invalidation(streams=frozenset(("inventory", place, None) for place in places))


def _worked(about: msgspec.Raw) -> Invalidation:
    streams = _stale("labor", read_head(about))
    # Of a deleted timecard the event tells no more than the id: the next reading of its day finds it gone.
    return (
        Invalidation(streams=streams)
        if streams
        else Invalidation(nothing="the event does not say where and when work began")
    )


def _stale(stream: str, head: Head) -> frozenset[tuple[str, str, datetime | None]]:
    if not head.location_id or head.happened is None:
        return frozenset()
    return frozenset({(stream, head.location_id, head.happened)})


def _fetch(source: Source, order_ids: set[str]) -> dict[str, Order]:
    if not order_ids:
        return {}
    found = source.orders(sorted(order_ids))
    return {order.header.order_id: order for order in found if order.header is not None}


def _source_ids(order: Order) -> tuple[str, ...]:
    try:
        return tuple(one.source_order_id for one in _decode_returns(order.raw).returns if one.source_order_id)
    except msgspec.DecodeError:
        return ()  # landing will say what is wrong with the order; its own day is known


def _touched(about: _About, orders: dict[str, Order], source_ids: Sequence[str]) -> Invalidation:
    headers = [order.header for order_id in (about.order_id, *source_ids) if (order := orders.get(order_id))]
    sold = {(header.location_id, header.created_at) for header in headers if header is not None}
    if about.order_id not in orders and about.stub is not None:
        # What an order event's stub says is all there is of an order that Square does not give (yet).
        sold.add(about.stub)
    if not sold and not about.streams:
        return Invalidation(nothing=f"Square does not give the order {about.order_id}")
    return Invalidation(frozenset(sold), streams=about.streams)


def _instant(text: str) -> datetime | None:
    """Return Square's timestamp, nanoseconds rounded off; None for one that is not: an event is worth having without."""
    try:
        found: Any = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None
