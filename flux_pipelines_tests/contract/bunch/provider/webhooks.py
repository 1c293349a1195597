"""Bunch's webhooks: without a signature, without ids, of several merchants in one delivery, and asked for first."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.providers.base import (
    Handshake,
    Invalidation,
    OrderHeader,
    Source,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)


class _Change(msgspec.Struct, rename="camel"):
    object_id: str  # `O:ABC`: what it is, and its id
    type: str
    ts: int


class _Delivery(msgspec.Struct):
    merchants: dict[str, list[_Change]]


class _Question(msgspec.Struct, rename="camel"):
    verification_code: str


_decode_delivery = decoder(_Delivery)
_decode_question = decoder(_Question)
_decode_change = decoder(_Change)


class BunchWebhooks:
    """One app's webhooks (`WebhookSource`, `WebhookHandshake`).

    Raises:
        ConfigurationError: there is no code: anybody could send events then.

    """

    refused_status = 401

    def __init__(self, context: WebhookContext) -> None:
        if not context.signature_key:
            raise ConfigurationError(
                "Bunch's webhooks need the app's auth code", next_step="Set it with `flux apps set`."
            )
        self._code = context.signature_key.encode()

    def handshake(self, request: WebhookRequest) -> Handshake | None:
        """Take the code by which Bunch sees that the address is ours: a person enters it in the app's settings."""
        try:
            code = _decode_question(request.body).verification_code
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return Handshake(tell=f"Enter the code {code} in the app's settings at Bunch.")

    def verify(self, request: WebhookRequest) -> None:
        """Prove that Bunch sent this, by the code that comes with it.

        Raises:
            WebhookRefusedError: it is missing or another one.

        """
        if not hmac.compare_digest(
            self._code, request.headers.get("x-bunch-auth", "").encode("utf-8", "surrogatepass")
        ):
            raise WebhookRefusedError("the auth code is not the app's")

    def read(self, request: WebhookRequest) -> list[WebhookEvent]:
        """Read the changes of every merchant; of each only what is about it is kept.

        Raises:
            WebhookRefusedError: it is no delivery.

        """
        try:
            found = _decode_delivery(request.body).merchants
            return [
                WebhookEvent("", _type(one), merchant, _at(one), msgspec.json.encode(one))
                for merchant, changes in found.items()
                for one in changes
            ]
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError, OSError) as problem:
            raise WebhookRefusedError(f"the body is not a delivery of Bunch ({problem})") from problem

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        """Say what each event makes stale. They only name the orders, which are fetched together."""
        named = [_object(body) if event_type.startswith("O:") else "" for event_type, body in events]
        wanted = [id_ for id_, (event_type, _) in zip(named, events, strict=True) if id_ and event_type != "O:DELETE"]
        headers = {one.header.order_id: one.header for one in source.orders(wanted) if one.header} if wanted else {}
        return [_affected(event_type, id_, headers) for (event_type, _), id_ in zip(events, named, strict=True)]


def _affected(event_type: str, order_id: str, headers: dict[str, OrderHeader]) -> Invalidation:
    if event_type == "A:DELETE":
        return Invalidation(revoked=True)
    if event_type.startswith(("I:", "M:")):
        return Invalidation(streams=frozenset({("catalog", "", None)}), locations=event_type.startswith("M:"))
    if not event_type.startswith("O:"):
        return Invalidation(nothing=f"events of type {event_type} say nothing about sales")
    if not order_id:
        return Invalidation(nothing="the event does not say which order it is about")
    if event_type == "O:DELETE":
        return Invalidation(deleted=frozenset({order_id}))
    header = headers.get(order_id)
    if header is None:
        return Invalidation(nothing="the order is gone, or cannot be read")
    return Invalidation(sold=frozenset({(header.location_id, header.created_at)}))


def _object(body: bytes) -> str:
    """Return the id of what an event is about; empty when it cannot be read."""
    try:
        return _decode_change(body).object_id.partition(":")[2]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _type(change: _Change) -> str:
    return f"{change.object_id.partition(':')[0]}:{change.type}"


def _at(change: _Change) -> datetime:
    return datetime.fromtimestamp(change.ts / 1000, UTC)
