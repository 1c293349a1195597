"""Shopify's webhooks: subscriptions of the app and of single shops, events signed and handed to the sandbox's post.

The signature is over the raw body with the app's secret; `X-Shopify-Webhook-Id` is the same on every retry of a delivery. An answer
other than 2xx within five seconds is retried eight times over four hours; then a subscription made through the API is deleted.
"""

from __future__ import annotations

import base64
import hmac
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.deliveries import Delivery, Failure, Headers
from flux_sandbox.options import CLIENT_SECRET
from flux_sandbox.shopify.ids import Json, gid
from flux_sandbox.shopify.schema import VERSION
from flux_sandbox.shopify.topics import TOPICS, Event, enum_of, events_of, sample, topic_of
from flux_sandbox.shopify.values import Call, Nodes

if TYPE_CHECKING:
    from flux_sandbox.events import Happening
    from flux_sandbox.model import Merchant
    from flux_sandbox.shopify.oauth import Authority
    from flux_sandbox.shopify.shop import Shop
    from flux_sandbox.world import World

#: Minutes between the attempts of a delivery: eight retries in four hours.
RETRY_MINUTES = (1.0, 3.0, 6.0, 12.0, 25.0, 45.0, 65.0, 83.0)


@dataclass(slots=True)
class Subscription:
    """Who is told what; without a merchant, of every shop: those of the app's own configuration."""

    id: str
    uri: str
    topics: frozenset[str]
    created: datetime
    merchant_id: str | None = None
    fields: tuple[str, ...] = ()
    key: str = CLIENT_SECRET
    filter: str | None = None

    def as_json(self) -> Json:
        """Return the WebhookSubscription."""
        at = self.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "__typename": "WebhookSubscription",
            "id": self.id,
            "legacyResourceId": self.id.rsplit("/", 1)[-1],
            "topic": enum_of(next(iter(self.topics))),
            "uri": self.uri,
            "callbackUrl": self.uri,
            "format": "JSON",
            "includeFields": list(self.fields),
            "metafieldNamespaces": [],
            "metafields": [],
            "filter": self.filter,
            "name": None,
            "apiVersion": {"handle": VERSION, "displayName": VERSION, "supported": True},
            "createdAt": at,
            "updatedAt": at,
        }


def signature(key: str, body: bytes) -> str:
    """Return the signature of a body."""
    return base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()


class Webhooks:
    """The subscriptions, and the events that go to them."""

    def __init__(self, world: World, authority: Authority, shops: Mapping[str, Shop]) -> None:
        self._world = world
        self._authority = authority
        self._shops = shops
        self.subscriptions: dict[str, Subscription] = {}
        self._made = 0
        authority.on_revoked = self._uninstalled

    # Events

    def hear(self, happening: Happening) -> None:
        """Tell of what has happened in a shop."""
        if not self.subscriptions:
            return
        shop = self._shops[happening.merchant.id]
        granted = self._authority.granted(happening.merchant.id)
        event_id = str(uuid.uuid4())
        for event in events_of(happening, shop):
            needed = TOPICS.get(event.topic)
            if needed is None or needed in granted:
                self.send(shop, event, event_id)

    def _uninstalled(self, merchant_id: str) -> None:
        shop = self._shops[merchant_id]
        self.send(shop, sample("app/uninstalled", shop))
        # A shop's own subscriptions go with the app.
        self.subscriptions = {id_: one for id_, one in self.subscriptions.items() if one.merchant_id != merchant_id}

    def bulk_finished(self, shop: Shop, operation: Any) -> bool:
        """Tell that a bulk operation is over; returns whether anybody is told."""
        topic = "bulk_operations/finish"
        told = any(topic in one.topics for one in self._of(shop.merchant.id))
        if told:
            at = operation.completed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = {
                "admin_graphql_api_id": operation.id,
                "completed_at": at,
                "created_at": operation.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "error_code": operation.error,
                "status": "failed" if operation.error else "completed",
                "type": "query",
            }
            self.send(shop, Event(topic, body))
        return told

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any topic to whoever is subscribed to it: there need not be one of that name."""
        shop = self._shops.get(merchant.id)
        if shop is not None:
            self.send(shop, sample(event_type, shop))

    def _of(self, merchant_id: str) -> list[Subscription]:
        return [one for one in self.subscriptions.values() if one.merchant_id in (None, merchant_id)]

    def send(self, shop: Shop, event: Event, event_id: str = "") -> None:
        """Announce one event to every subscription for its topic; a topic that Shopify does not have goes to all."""
        deliveries = []
        event_id = event_id or str(uuid.uuid4())
        for one in self._of(shop.merchant.id):
            if event.topic not in one.topics and event.topic in TOPICS:
                continue
            body = event.body
            if one.fields:
                body = {name: value for name, value in body.items() if name in one.fields}
            content = msgspec.json.encode(body)
            webhook_id = str(uuid.uuid4())
            headers = self._headers(one, shop, event.topic, webhook_id, event_id, content)
            deliveries.append(Delivery(one.uri, webhook_id, event.topic, content, headers, self._again(one)))
        self._world.outbox.send(deliveries)

    def _headers(
        self, one: Subscription, shop: Shop, topic: str, webhook_id: str, event_id: str, body: bytes
    ) -> Headers:
        triggered = self._world.clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")

        def make(_: int, __: Failure, ___: str) -> Mapping[str, str]:
            return {
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

        return make

    def _again(self, one: Subscription) -> Callable[[int, Failure, int], float | None]:
        def minutes(attempt: int, _: Failure, __: int) -> float | None:
            if attempt < len(RETRY_MINUTES):
                return RETRY_MINUTES[attempt]
            if one.merchant_id is not None:
                self.subscriptions.pop(one.id, None)
            return None

        return minutes

    # What a test can set up

    def subscribe(self, url: str, key: str | None, event_types: Sequence[str] | None) -> Json:
        """Subscribe an address for every shop, as the app's configuration does, or change what it has.

        Raises:
            ConfigurationError: not an address, or no such topic.

        """
        topics = frozenset(event_types or TOPICS)
        unknown = sorted(topics - TOPICS.keys())
        if unknown or not _is_address(url):
            raise ConfigurationError(f"unknown topics: {', '.join(unknown)}" if unknown else f"{url!r} is no address")
        for id_, one in list(self.subscriptions.items()):
            if one.uri == url and one.merchant_id is None:
                del self.subscriptions[id_]
        made = self._store(url, topics, None)
        made.key = key or CLIENT_SECRET
        return {"id": made.id, "notification_url": url, "event_types": sorted(topics)}

    def described(self) -> list[Mapping[str, Any]]:
        """Return the subscriptions, without their keys."""
        return [
            {
                "id": one.id,
                "notification_url": one.uri,
                "event_types": sorted(one.topics),
                "merchant_id": one.merchant_id,
            }
            for one in self.subscriptions.values()
        ]

    def clear(self) -> None:
        """End every subscription."""
        self.subscriptions.clear()

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers that a body is believed by, as if an order of some shop had changed."""
        return {
            "x-shopify-hmac-sha256": signature(key, body),
            "x-shopify-webhook-id": "e-1",
            "x-shopify-topic": "orders/updated",
            "x-shopify-shop-domain": "acme.myshopify.com",
        }

    def _store(self, url: str, topics: frozenset[str], merchant_id: str | None) -> Subscription:
        self._made += 1
        id_ = gid("WebhookSubscription", 1_000_000_000_000 + self._made)
        made = self.subscriptions[id_] = Subscription(id_, url, topics, self._world.clock(), merchant_id)
        return made

    # A shop's own, through its API

    def fields(self, shop: Shop) -> tuple[Json, Json]:
        """Return the root fields of queries and of mutations."""
        merchant_id = shop.merchant.id

        def mine() -> dict[str, Subscription]:
            return {id_: one for id_, one in self.subscriptions.items() if one.merchant_id == merchant_id}

        def every(args: Mapping[str, Any]) -> Any:
            wanted, uri = args.get("topics"), args.get("uri") or args.get("callbackUrl")
            found = [one.as_json() for one in mine().values() if uri in (None, one.uri)]
            return Nodes([one for one in found if not wanted or one["topic"] in wanted]).page(args)

        def one(args: Mapping[str, Any]) -> Json | None:
            found = mine().get(args["id"])
            return found.as_json() if found else None

        def create(args: Mapping[str, Any]) -> Json:
            wanted = args["webhookSubscription"]
            return self._save(None, args["topic"], wanted, merchant_id)

        def update(args: Mapping[str, Any]) -> Json:
            found = mine().get(args["id"])
            if found is None:
                return {
                    "webhookSubscription": None,
                    "userErrors": [_user_error("id", "Webhook subscription not found")],
                }
            return self._save(found, enum_of(next(iter(found.topics))), args["webhookSubscription"], merchant_id)

        def delete(args: Mapping[str, Any]) -> Json:
            if args["id"] not in mine():
                errors = [_user_error("id", "Webhook subscription does not exist")]
                return {"deletedWebhookSubscriptionId": None, "userErrors": errors}
            del self.subscriptions[args["id"]]
            return {"deletedWebhookSubscriptionId": args["id"], "userErrors": []}

        mutations = {
            "webhookSubscriptionCreate": Call(create),
            "webhookSubscriptionUpdate": Call(update),
            "webhookSubscriptionDelete": Call(delete),
        }
        return {"webhookSubscriptions": Call(every), "webhookSubscription": Call(one)}, mutations

    def _save(self, found: Subscription | None, topic: str, wanted: Mapping[str, Any], merchant_id: str) -> Json:
        uri = wanted.get("uri") or wanted.get("callbackUrl") or (found.uri if found else "")
        name = topic_of(topic)
        needed = TOPICS.get(name)
        problem = None
        if not _is_address(uri):
            problem = _user_error("webhookSubscription", "Address is invalid", "callbackUrl")
        elif needed and needed not in self._authority.granted(merchant_id):
            problem = _user_error("topic", f"You cannot create a webhook subscription with the topic {name}.")
        elif wanted.get("format") == "XML":
            problem = _user_error("webhookSubscription", "The sandbox sends JSON only", "format")
        elif any(
            one is not found and one.merchant_id == merchant_id and one.uri == uri and name in one.topics
            for one in self.subscriptions.values()
        ):
            problem = _user_error("webhookSubscription", "Address for this topic has already been taken", "callbackUrl")
        if problem:
            return {"webhookSubscription": None, "userErrors": [problem]}
        made = found or self._store(uri, frozenset({name}), merchant_id)
        made.uri, made.filter = uri, wanted.get("filter")
        made.fields = tuple(wanted.get("includeFields") or ())
        return {"webhookSubscription": made.as_json(), "userErrors": []}


def _user_error(field: str, message: str, *below: str) -> Json:
    return {"field": [field, *below], "message": message}


def _is_address(url: Any) -> bool:
    if not isinstance(url, str) or not url.isascii() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
