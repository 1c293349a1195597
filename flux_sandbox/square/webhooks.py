"""Square's webhooks: events signed and handed to the sandbox's outbox.

The signature is over the notification URL and the raw body. Headers: developer.squareup.com/docs/webhooks/step2subscribe
and step3validate; the merchant must have granted the scope that an event type needs.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flux_sandbox.deliveries import Delivery, Failure, Headers
from flux_sandbox.square.events import EVENT_SCOPES, Event, envelope, events_of, revocation, sample
from flux_sandbox.subscriptions import Subscription, Subscriptions

if TYPE_CHECKING:
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Merchant
    from flux_sandbox.square.oauth import Authority
    from flux_sandbox.square.payments_api import PaymentsApi
    from flux_sandbox.world import World

_REASONS: dict[Failure, str] = {
    "timeout": "http_timeout",
    "status": "http_error",
    "tls": "ssl_error",
    "connection": "other_error",
}


def signature(key: str, url: str, body: bytes, digest: str = "sha256") -> str:
    """Return the signature of a notification."""
    return base64.b64encode(hmac.digest(key.encode(), url.encode() + body, digest)).decode()


def _headers(subscription: Subscription, body: bytes) -> Headers:
    def make(attempt: int, failure: Failure, first_at: str) -> Mapping[str, str]:
        # Signed when it is sent: a key that was changed while an event waited signs what comes after.
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Square Connect v2",
            "square-environment": "Sandbox",
            "square-initial-delivery-timestamp": first_at,
            "x-square-signature": signature(subscription.key, subscription.url, body, "sha1"),
            "x-square-hmacsha256-signature": signature(subscription.key, subscription.url, body),
        }
        if attempt:
            headers["square-retry-number"] = str(attempt)
            headers["square-retry-reason"] = _REASONS[failure]
        return headers

    return make


class Webhooks(Subscriptions):
    """The app's subscriptions, and the events that go to them."""

    def __init__(self, world: World, authority: Authority, payments_api: PaymentsApi) -> None:
        super().__init__(world, EVENT_SCOPES)
        self._authority = authority
        self._payments_api = payments_api
        world.listeners.append(self._hear)
        authority.on_revoked = lambda merchant_id, revoker: self._send(merchant_id, revocation(world.clock(), revoker))

    def _hear(self, world_event: WorldEvent) -> None:
        if self.subscriptions:
            granted = self._authority.granted(world_event.merchant.id)
            for event in events_of(world_event, self.world.now_ms(), self._payments_api):
                if EVENT_SCOPES[event.type] in granted:
                    self._send(world_event.merchant.id, event)

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any type to whoever is subscribed to it: there need not be one of that name."""
        self._send(merchant.id, sample(event_type, merchant, self.world.now_ms()))

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:
        """Return the header that a notification is believed by."""
        return {"x-square-hmacsha256-signature": signature(key, url, body)}

    def _send(self, merchant_id: str, event: Event) -> None:
        event_id, body = envelope(merchant_id, event, self.world.clock())
        self.announce(event.type, lambda one: Delivery(one.url, event_id, event.type, body, _headers(one, body)))
