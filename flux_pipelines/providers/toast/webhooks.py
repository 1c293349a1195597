"""Toast's webhooks: the signature over body and its own timestamp, and what an event makes stale.

A signed timestamp makes an old delivery known as such: Toast sends an event again for a quarter of an hour at most.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, cast

import msgspec

from flux_pipelines.domain.decoding import UnboundedError, decoder
from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.providers.base import (
    Invalidation,
    Source,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)
from flux_pipelines.providers.toast.orders import business_date

SIGNATURE_HEADER = "toast-signature"
#: Attempts come at once, after 5 and after 10 further minutes (developer guide, "Retry support"), with time to spare.
TOLERANCE = timedelta(minutes=30)
_ORDER_TYPES = frozenset({"order_updated", "channel_order_updated"})


class _Order(msgspec.Struct, rename="camel", frozen=True):
    guid: str = ""
    business_date: int | None = None


class _Details(msgspec.Struct, rename="camel", frozen=True):
    restaurant_guid: str = ""
    order: _Order | None = None


class _Event(msgspec.Struct, rename="camel"):
    timestamp: str
    guid: str
    event_category: str = ""
    event_type: str = ""
    details: _Details = _Details()


class _Signed(msgspec.Struct):
    timestamp: str


class _Listing(Protocol):
    """What a Toast connection's source can be asked besides."""

    def accessible(self) -> tuple[str, ...]:
        """Return the connection's restaurants that Toast still lists."""


_decode_event = decoder(_Event)
_decode_signed = decoder(_Signed)


class ToastWebhooks:
    """Webhook subscriptions (`WebhookSource`). Each subscription has a secret of its own: several go in one key, with commas.

    Raises:
        ConfigurationError: there is no secret: anybody could sign then.

    """

    refused_status = 401  # never retried

    def __init__(self, context: WebhookContext) -> None:
        self._keys = [key.encode() for key in re.findall(r"[^,\s]+", context.signature_key)]
        if not self._keys:
            raise ConfigurationError(
                "Toast's webhooks need the secret of each subscription",
                next_step="Set them with `flux apps set toast`, separated by commas.",
            )

    def verify(self, request: WebhookRequest) -> None:
        """Prove that Toast signed this very body, and not too long ago.

        Raises:
            WebhookRefusedError: there is no signature, it does not fit, or the signed time is too far from now.
            UnboundedError: the body is nested too deeply to look for the signed time.

        """
        given = request.headers.get(SIGNATURE_HEADER, "").encode("utf-8", "surrogatepass")
        if not request.body or not given:
            raise WebhookRefusedError("a delivery without a signature or without a body")
        try:
            timestamp = _decode_signed(request.body).timestamp
        except UnboundedError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise WebhookRefusedError("the body has no timestamp, which is part of what Toast signs") from problem
        message = request.body + timestamp.encode()
        # Every key is tried, so that the time taken tells nothing about which one fits.
        fits = [
            hmac.compare_digest(base64.b64encode(hmac.digest(key, message, hashlib.sha256)), given)
            for key in self._keys
        ]
        if not any(fits):
            raise WebhookRefusedError("the signature is not Toast's for this body")
        at = _instant(timestamp)
        if at is None or abs(datetime.now(UTC) - at) > TOLERANCE:
            raise WebhookRefusedError(f"the signed time is more than {TOLERANCE.seconds // 60} minutes from now")

    def read(self, request: WebhookRequest) -> list[WebhookEvent]:
        """Read the event's own fields. Its account is the restaurant.

        Raises:
            WebhookRefusedError: it is not JSON, or has no guid or no type.

        """
        try:
            event = _decode_event(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise WebhookRefusedError(f"the body is not an event of Toast ({problem})") from problem
        event_type = event.event_type or event.event_category
        if not event.guid or not event_type:
            raise WebhookRefusedError("the body is not an event of Toast (an empty guid or type)")
        restaurant = event.details.restaurant_guid or request.headers.get("toast-restaurant-external-id", "")
        return [WebhookEvent(event.guid, event_type, restaurant, _instant(event.timestamp))]

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        """Say what each event makes stale. The body tells: nothing is fetched, but to see whether a restaurant is left."""
        found = [_affected(event_type, body) for event_type, body in events]
        if not any(event_type == "partner_removed" for event_type, _ in events):
            return found
        left = bool(cast(_Listing, source).accessible())
        return [
            one._replace(locations=left, revoked=not left) if event_type == "partner_removed" else one
            for (event_type, _), one in zip(events, found, strict=True)
        ]


def _affected(event_type: str, body: bytes) -> Invalidation:
    try:
        event = _decode_event(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return Invalidation(nothing=f"the event cannot be read ({problem})")
    restaurant, category = event.details.restaurant_guid, event.event_category
    if category == "partner":
        return Invalidation(locations=True)
    if not restaurant:
        return Invalidation(nothing="the event names no restaurant")
    if event_type in _ORDER_TYPES:
        order = event.details.order
        if order is None or order.business_date is None:
            return Invalidation(nothing="the event's order has no business date")
        try:
            day = business_date(order.business_date)
        except ValueError:
            return Invalidation(nothing=f"the order's business date is none ({order.business_date})")
        return Invalidation(days=frozenset({(restaurant, day)}))
    if category == "stock":
        return Invalidation(streams=frozenset({("inventory", restaurant, None)}))
    if category == "menus":
        return Invalidation(streams=frozenset({("catalog", restaurant, None)}))
    return Invalidation(nothing=f"events of type {event_type} say nothing about sales, stock or menus")


def _instant(text: str) -> datetime | None:
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None
