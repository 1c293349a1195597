"""A provider that signs nothing: a secret comes with each delivery, which has events of several accounts, without ids or types.

It asks an address first whether it takes webhooks. For tests only; found as those beside it are.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence

from flux_pipelines.domain.errors import WebhookRefusedError
from flux_pipelines.providers.base import (
    Concurrency,
    Handshake,
    Invalidation,
    Provider,
    RateLimit,
    Source,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)

#: By token and by app, a second; and so many at a time.
LIMITS = (RateLimit(16, 1.0, "connection"), RateLimit(50, 1.0, "app"))
CONCURRENCY = (Concurrency(5, "connection"), Concurrency(10, "app"))


class BunchWebhooks:
    """`{"merchants": {"A": [{"object": "O:1", "ts": 1}]}}`, with the secret in a header (`WebhookSource`, `WebhookHandshake`)."""

    refused_status = 401

    def __init__(self, context: WebhookContext) -> None:
        self._secret = context.signature_key.encode()

    def handshake(self, request: WebhookRequest) -> Handshake | None:
        if request.method == "GET":
            return Handshake(dict(request.query)["challenge"].encode())
        code = json.loads(request.body).get("verificationCode")
        return None if code is None else Handshake(tell=f"Enter the code {code} in its dashboard.")

    def verify(self, request: WebhookRequest) -> None:
        given = request.headers.get("bunch-auth", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(self._secret, given):
            raise WebhookRefusedError("the secret is not Bunch's")

    def read(self, request: WebhookRequest) -> list[WebhookEvent]:
        merchants = json.loads(request.body)["merchants"]
        return [
            WebhookEvent("", "", account, None, json.dumps(one).encode())
            for account, changes in merchants.items()
            for one in changes
        ]

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        return [Invalidation(nothing="it touches nothing") for _ in events]


PROVIDER = Provider(
    name="bunch",
    title="Bunch",
    owner="team:tests",
    docs_url="https://example.com",
    base_url="https://example.com",
    api_version="1",
    rate_limits=LIMITS,
    settings=(),
    secrets=(("access_token",),),
    webhooks="flux_pipelines.providers.bunch:BunchWebhooks",
    webhook_types=("event",),
)
