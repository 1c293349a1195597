"""A provider that signs a timestamp, asks by GET, and wants 401 for forgeries: what Square's webhooks do not have. For tests only.

It is a folder of its own beside the real ones, found as those are: nothing else in Flux knows of it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Sequence

from flux_pipelines.domain.errors import WebhookRefusedError
from flux_pipelines.providers.base import (
    Handshake,
    Invalidation,
    Provider,
    Source,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)

TOLERANCE = 300


class ToyWebhooks:
    """Signature `t=SECONDS,v1=HEX` over time and body, no older than five minutes."""

    refused_status = 401

    def __init__(self, context: WebhookContext) -> None:
        self._key = context.signature_key.encode()

    def handshake(self, request: WebhookRequest) -> Handshake | None:
        challenge = dict(request.query).get("challenge")
        return None if challenge is None else Handshake(challenge.encode())

    def verify(self, request: WebhookRequest) -> None:
        try:
            parts = dict(part.split("=", 1) for part in request.headers.get("toy-signature", "").split(","))
            at = int(parts["t"])
        except (ValueError, KeyError):
            raise WebhookRefusedError("no signature") from None
        wanted = hmac.new(self._key, f"{at}.".encode() + request.body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted.encode(), parts.get("v1", "").encode("utf-8", "surrogatepass")):
            raise WebhookRefusedError("the signature is wrong")
        if abs(time.time() - at) > TOLERANCE:
            raise WebhookRefusedError("the delivery is too old")

    def read(self, request: WebhookRequest) -> list[WebhookEvent]:
        told = json.loads(request.body)
        return [WebhookEvent(told["id"], told["kind"], told["shop"], None)]

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        return [Invalidation(nothing="toys touch nothing") for _ in events]


PROVIDER = Provider(
    name="toy",
    title="Toy",
    owner="team:tests",
    docs_url="https://example.com",
    base_url="https://example.com",
    api_version="1",
    rate_limits=(),
    settings=(),
    secrets=(("access_token",),),
    webhooks="flux_pipelines.providers.toy:ToyWebhooks",
    webhook_types=("*",),
)
