"""Shopify's webhooks: events signed and handed to the sandbox's outbox, for every shop, as the app's configuration subscribes to them.

The signature is over the raw body with the app's secret; `X-Shopify-Webhook-Id` is the same on every retry of a delivery. An answer
other than 2xx within five seconds is retried eight times over four hours.
"""

from __future__ import annotations

import base64
import hmac
import uuid
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING

import msgspec

from flux_sandbox.deliveries import Delivery, Failure, Headers
from flux_sandbox.options import CLIENT_SECRET
from flux_sandbox.shopify.schema import VERSION
from flux_sandbox.shopify.topics import TOPICS, Event, events_of, sample
from flux_sandbox.subscriptions import Subscription, Subscriptions

if TYPE_CHECKING:
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Merchant
    from flux_sandbox.shopify.oauth import Authority
    from flux_sandbox.shopify.shop import Shop
    from flux_sandbox.world import World

#: Minutes between the attempts of a delivery: eight retries in four hours.
RETRY_MINUTES = (1.0, 3.0, 6.0, 12.0, 25.0, 45.0, 65.0, 83.0)


def signature(key: str, body: bytes) -> str:
    """Return the signature of a body."""
    return base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()


def retries(attempt: int, _: Failure, __: int) -> float | None:
    """Return the minutes to wait after a failed attempt, or None: Shopify gives up."""
    return RETRY_MINUTES[attempt] if attempt < len(RETRY_MINUTES) else None


class Webhooks(Subscriptions):
    """The subscriptions, and the events that go to them."""

    def __init__(self, world: World, authority: Authority, shops: Mapping[str, Shop]) -> None:
        super().__init__(world, TOPICS, CLIENT_SECRET)
        self._authority = authority
        self._shops = shops
        authority.on_revoked = lambda merchant_id, _: self._send(
            shops[merchant_id], sample("app/uninstalled", shops[merchant_id])
        )

    def hear(self, world_event: WorldEvent) -> None:
        """Tell of what has happened in a shop."""
        if not self.subscriptions:
            return
        shop = self._shops[world_event.merchant.id]
        granted = self._authority.granted(world_event.merchant.id)
        event_id = str(uuid.uuid4())
        for event in events_of(world_event, shop):
            needed = TOPICS.get(event.topic)
            if needed is None or needed in granted:
                self._send(shop, event, event_id)

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any topic to whoever is subscribed to it: there need not be one of that name."""
        shop = self._shops.get(merchant.id)
        if shop is not None:
            self._send(shop, sample(event_type, shop))

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers that a body is believed by, as if an order of some shop had changed."""
        return {
            "x-shopify-hmac-sha256": signature(key, body),
            "x-shopify-webhook-id": "e-1",
            "x-shopify-topic": "orders/updated",
            "x-shopify-shop-domain": "acme.myshopify.com",
        }

    def _send(self, shop: Shop, event: Event, event_id: str = "") -> None:
        body = msgspec.json.encode(event.body)
        event_id = event_id or str(uuid.uuid4())

        def make(one: Subscription) -> Delivery:
            webhook_id = str(uuid.uuid4())
            headers = self._headers(one, shop, event.topic, webhook_id, event_id, body)
            return Delivery(one.url, webhook_id, event.topic, body, headers, retries)

        self.announce(event.topic, make)

    def _headers(
        self, one: Subscription, shop: Shop, topic: str, webhook_id: str, event_id: str, body: bytes
    ) -> Headers:
        triggered = self.world.clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Shopify-Captain-Hook",
            "X-Shopify-Topic": topic,
            "X-Shopify-Hmac-Sha256": signature(one.key, body),
            "X-Shopify-Shop-Domain": shop.domain,
            "X-Shopify-API-Version": VERSION,
            "X-Shopify-Webhook-Id": webhook_id,
            "X-Shopify-Event-Id": event_id,
            "X-Shopify-Triggered-At": triggered,
        }
        return lambda *_: headers
