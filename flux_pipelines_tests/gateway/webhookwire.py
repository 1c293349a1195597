"""A provider's side of webhooks: events of Square, signed, sent over real sockets, fast and in any broken way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

from flux_pipelines.domain.connection import Connection
from flux_pipelines.providers.square.webhooks import SIGNATURE_HEADER
from flux_pipelines.runtime import Runtime

KEY = "a-signature-key-of-the-tests"
ACCOUNT = "MERCHANT1"
CONNECTION = "square:acme"


def register(runtime: Runtime, gateway_url: str, key: str = KEY) -> str:
    """Register Square's app with a signature key; return the notification URL."""
    url = f"{gateway_url}/webhooks/square"
    settings = {"base_url": "http://127.0.0.1:9", "notification_url": url}
    secrets = {"client_id": "id", "client_secret": "secret", "webhook_signature_key": key}
    runtime.state.apps.put("square", settings, secrets)
    return url


def connect(runtime: Runtime, key: str = CONNECTION, account_id: str = ACCOUNT) -> None:
    runtime.state.connections.add(Connection(key, "acme", account_id=account_id))


def event(event_id: str, event_type: str = "payment.updated", account: str = ACCOUNT, **more: Any) -> bytes:
    return json.dumps(
        {
            "merchant_id": account,
            "type": event_type,
            "event_id": event_id,
            "created_at": "2026-03-02T10:00:00.123456789Z",
            "data": {"type": "payment", "id": "p", "object": {"payment": {"order_id": f"order-{event_id}"}}},
            **more,
        }
    ).encode()


def sign(body: bytes, url: str, key: str = KEY) -> str:
    return base64.b64encode(hmac.new(key.encode(), url.encode() + body, hashlib.sha256).digest()).decode()


def send(client: httpx.Client, url: str, body: bytes, key: str = KEY) -> httpx.Response:
    return client.post(url, content=body, headers={SIGNATURE_HEADER: sign(body, url, key)})


def request(url: str, body: bytes, signature: str, *, length: int | None = None) -> bytes:
    """A request as bytes; `length` is what Content-Length says, if not the truth."""
    parts = urlsplit(url)
    return (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"{SIGNATURE_HEADER}: {signature}\r\ncontent-length: {len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


def dial(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset ends it too."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


class Sender:
    """Delivers signed events over a few connections at once, until each is acknowledged or the gateway is gone.

    Args:
        url: the notification URL.
        lanes: connections at once.
        key: signs them.

    """

    def __init__(self, url: str, lanes: int = 16, key: str = KEY) -> None:
        self._url, self._lanes, self._key = url, lanes, key
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.acknowledged: list[str] = []
        self.statuses: dict[int, int] = {}

    def deliver(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Send each (id, body) until its answer; `acknowledged` gets the ids that were answered 200.

        A connection that breaks leaves its delivery unacknowledged: it is not sent again by this call.
        """
        waiting = iter(bodies)
        asyncio.run(self._all(waiting))

    async def _all(self, waiting: Any) -> None:
        await asyncio.gather(*(self._lane(waiting) for _ in range(self._lanes)))

    async def _lane(self, waiting: Any) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        for event_id, body in waiting:
            try:
                if writer is None or reader is None:
                    reader, writer = await asyncio.open_connection(self._host, self._port)
                writer.write(request(self._url, body, sign(body, self._url, self._key)))
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                if writer is not None:
                    writer.close()
                reader = writer = None
                await asyncio.sleep(0.002)
                continue
            status = status_of(head)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                self.acknowledged.append(event_id)
            if b"connection: close" in head.lower():
                writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()
