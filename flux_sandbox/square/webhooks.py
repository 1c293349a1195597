"""Square's webhooks: subscriptions with their signature keys, and events signed and handed to the sandbox's post.

The signature is over the notification URL and the raw body. Headers: developer.squareup.com/docs/webhooks/step2subscribe
and step3validate; the merchant must have granted the scope that an event type needs.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.deliveries import Delivery, Failure, Headers
from flux_sandbox.options import PERSONAL_ACCESS_TOKEN, WEBHOOK_SIGNATURE_KEY
from flux_sandbox.square.errors import ApiError, invalid
from flux_sandbox.square.events import (
    EVENT_SCOPES,
    Event,
    envelope,
    events_of,
    revocation,
    sample,
)

if TYPE_CHECKING:
    from flux_sandbox.events import Happening
    from flux_sandbox.model import Merchant
    from flux_sandbox.square.oauth import Authority
    from flux_sandbox.square.payments_api import Till
    from flux_sandbox.world import World

Json = dict[str, Any]

_MOST_SUBSCRIPTIONS = 100
_REASONS: dict[Failure, str] = {
    "timeout": "http_timeout",
    "status": "http_error",
    "tls": "ssl_error",
    "connection": "other_error",
}


@dataclass(slots=True)
class Subscription:
    """Who is told what."""

    id: str
    name: str
    url: str
    key: str
    event_types: tuple[str, ...]
    created_at: str
    updated_at: str
    api_version: str = "2026-09-16"
    enabled: bool = True

    def as_json(self, *, key: bool = False) -> Json:
        """Return Square's WebhookSubscription object; its signature key is shown by all but the list."""
        shown: Json = {
            "id": self.id,
            "name": self.name,
            "enabled": self.enabled,
            "event_types": list(self.event_types),
            "notification_url": self.url,
            "api_version": self.api_version,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
        return {**shown, "signature_key": self.key} if key else shown


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


class Webhooks:
    """The app's subscriptions, and the events that go to them."""

    def __init__(self, world: World, authority: Authority, till: Till) -> None:
        self._world = world
        self._authority = authority
        self._till = till
        self._made: dict[str, str] = {}  # idempotency key -> subscription id
        self.subscriptions: dict[str, Subscription] = {}
        world.listeners.append(self._hear)
        authority.on_revoked = self._revoked

    # Events

    def _hear(self, happening: Happening) -> None:
        if any(s.enabled for s in self.subscriptions.values()):
            granted = self._authority.granted(happening.merchant.id)
            for event in events_of(happening, self._world.now_ms(), self._till):
                if EVENT_SCOPES[event.type] in granted:
                    self.send(happening.merchant.id, event)

    def _revoked(self, merchant_id: str, revoker: str) -> None:
        self.send(merchant_id, revocation(self._world.clock(), revoker))

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any type to whoever is subscribed to it: there need not be one of that name."""
        self.send(merchant.id, sample(event_type, merchant, self._world.now_ms()))

    def send(self, merchant_id: str, event: Event) -> None:
        """Announce one event to every subscription for its type; a type that Square does not have goes to all."""
        event_id, body = envelope(merchant_id, event, self._world.clock())
        self._world.outbox.send(
            [
                Delivery(one.url, event_id, event.type, body, _headers(one, body))
                for one in self.subscriptions.values()
                if one.enabled and (event.type in one.event_types or event.type not in EVENT_SCOPES)
            ]
        )

    # What a test can set up

    def subscribe(self, url: str, key: str | None, event_types: Sequence[str] | None) -> Json:
        """Subscribe an address, or change the subscription that it has.

        Raises:
            ConfigurationError: not an address, or no such event type.

        """
        try:
            found = self._store(
                next((s for s in self.subscriptions.values() if s.url == url), None),
                {"notification_url": url, "name": "Flux", "event_types": list(event_types or EVENT_SCOPES)},
            )
        except ApiError as error:
            raise ConfigurationError(str(error)) from error
        found.key = key or WEBHOOK_SIGNATURE_KEY
        return found.as_json(key=True)

    def described(self) -> list[Mapping[str, Any]]:
        """Return the subscriptions, without their keys."""
        return [one.as_json() for one in self.subscriptions.values()]

    def clear(self) -> None:
        """End every subscription."""
        self.subscriptions.clear()

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:
        """Return the header that a notification is believed by."""
        return {"x-square-hmacsha256-signature": signature(key, url, body)}

    # Square's own endpoints, for the app's personal access token

    def check(self, authorization: str) -> None:
        """Refuse whoever is not the app.

        Raises:
            ApiError: 401; a merchant's token is not the app's.

        """
        if not hmac.compare_digest(authorization.encode(), f"Bearer {PERSONAL_ACCESS_TOKEN}".encode()):
            raise ApiError(401, "UNAUTHORIZED", "This request could not be authorized.")

    def event_types(self, _: Mapping[str, str], __: Any) -> Json:
        """Answer `GET /v2/webhooks/event-types`."""
        kinds = sorted(EVENT_SCOPES)
        described = [
            {"event_type": kind, "api_version_introduced": "2020-02-26", "release_status": "PUBLIC"} for kind in kinds
        ]
        return {"event_types": kinds, "metadata": described}

    def listed(self, _: Mapping[str, str], __: Any) -> Json:
        """Answer `GET /v2/webhooks/subscriptions`."""
        return {"subscriptions": [one.as_json() for one in self.subscriptions.values()]} if self.subscriptions else {}

    def create(self, _: Mapping[str, str], body: Any) -> Json:
        """Answer `POST /v2/webhooks/subscriptions`."""
        again = body.get("idempotency_key") if isinstance(body, dict) else None
        known = self.subscriptions.get(self._made.get(str(again), ""))
        found = known if again and known else self._store(None, _wanted(body, "notification_url", "event_types"))
        if again:
            self._made[str(again)] = found.id
        return {"subscription": found.as_json(key=True)}

    def retrieve(self, path: Mapping[str, str], _: Any) -> Json:
        """Answer `GET /v2/webhooks/subscriptions/{id}`."""
        return {"subscription": self._find(path).as_json(key=True)}

    def update(self, path: Mapping[str, str], body: Any) -> Json:
        """Answer `PUT /v2/webhooks/subscriptions/{id}`."""
        return {"subscription": self._store(self._find(path), _wanted(body)).as_json()}

    def delete(self, path: Mapping[str, str], _: Any) -> Json:
        """Answer `DELETE /v2/webhooks/subscriptions/{id}`."""
        del self.subscriptions[self._find(path).id]
        return {}

    def change_key(self, path: Mapping[str, str], _: Any) -> Json:
        """Answer `POST /v2/webhooks/subscriptions/{id}/signature-key`."""
        found = self._find(path)
        found.key, found.updated_at = _new_key(), _go_time(self._world.clock())
        return {"signature_key": found.key}

    def test(self, path: Mapping[str, str], body: Any) -> Json:
        """Answer `POST /v2/webhooks/subscriptions/{id}/test`: an event is sent, its fate is not waited for."""
        found = self._find(path)
        kind = (body.get("event_type") if isinstance(body, dict) else None) or found.event_types[0]
        if kind not in found.event_types:
            raise invalid("INVALID_VALUE", f"The subscription has no event type `{kind}`.", "event_type")
        merchant = self._world.merchants_of("square")[0]
        now = self._world.clock()
        event_id, sent = envelope(merchant.id, sample(kind, merchant, self._world.now_ms()), now)
        self._world.outbox.send([Delivery(found.url, event_id, kind, sent, _headers(found, sent))])
        result = {"id": event_id, "payload": sent.decode(), "created_at": _go_time(now), "updated_at": _go_time(now)}
        return {"subscription_test_result": result}

    def _find(self, path: Mapping[str, str]) -> Subscription:
        id_ = path["subscription_id"]
        if id_ not in self.subscriptions:
            raise ApiError(404, "NOT_FOUND", f"Subscription with ID `{id_}` not found.")
        return self.subscriptions[id_]

    def _store(self, found: Subscription | None, wanted: Mapping[str, Any]) -> Subscription:
        now = _go_time(self._world.clock())
        url = wanted.get("notification_url", found.url if found else "")
        kinds = wanted.get("event_types", found.event_types if found else ())
        _check_url(url)
        _check_types(kinds)
        if found is None:
            if len(self.subscriptions) >= _MOST_SUBSCRIPTIONS:
                raise invalid("BAD_REQUEST", "No more subscriptions are possible.")
            id_ = f"wbhk_{secrets.token_hex(16)}"
            found = self.subscriptions[id_] = Subscription(id_, "", url, _new_key(), tuple(kinds), now, now)
        found.url, found.event_types, found.updated_at = url, tuple(kinds), now
        found.name = str(wanted.get("name", found.name))
        found.enabled = wanted.get("enabled", found.enabled) is not False
        return found


def _wanted(body: Any, *required: str) -> dict[str, Any]:
    wanted = body.get("subscription") if isinstance(body, dict) else None
    if not isinstance(wanted, dict):
        raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", "subscription")
    for name in required:
        if not wanted.get(name):
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", f"subscription.{name}")
    return {key: value for key, value in wanted.items() if value is not None}


def _check_url(url: Any) -> None:
    good = isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url
    if good:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
    if not good:
        raise invalid("INVALID_VALUE", "The notification URL must start with https:// or http://.", "notification_url")


def _check_types(kinds: Any) -> None:
    if not isinstance(kinds, Iterable) or isinstance(kinds, str) or not kinds:
        raise invalid("EXPECTED_ARRAY", "Expected an array of event types.", "event_types")
    unknown = [str(kind) for kind in kinds if not isinstance(kind, str) or kind not in EVENT_SCOPES]
    if unknown:
        raise invalid("INVALID_VALUE", f"Unknown event types: {', '.join(unknown)}.", "event_types")


def _new_key() -> str:
    return secrets.token_urlsafe(16)


def _go_time(at: datetime) -> str:
    """Return an instant as the subscription objects have it, which is not RFC 3339."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} +0000 UTC"
