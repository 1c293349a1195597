"""`POST /webhooks/{provider}`: read once, verified, in the inbox before the answer. Nothing of what is refused is kept.

What a provider declares personal is taken out of a body after it was verified, and before it is stored. Of events of types that
nothing is done for only the hash of the body is stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from flux_pipelines.domain.decoding import UnboundedError
from flux_pipelines.domain.errors import FluxError, WebhookRefusedError
from flux_pipelines.gateway.inbox_writer import InboxWriter
from flux_pipelines.gateway.webhook_registry import WebhookRegistry
from flux_pipelines.providers.base import WebhookHandshake, WebhookRequest
from flux_pipelines.state import NewEvent

if TYPE_CHECKING:
    from starlette.datastructures import State
    from starlette.types import Receive, Scope, Send

    from flux_pipelines.providers.base import WebhookEvent
    from flux_pipelines.runtime import Runtime

MAX_BODY_BYTES = 1024 * 1024
_MOST_BYTES_BEING_READ = 64 * MAX_BODY_BYTES
_LOG_EVERY_SECONDS = 10.0
_MOST_TOLD = 200
#: The most events of one delivery: a megabyte holds some hundreds.
MAX_EVENTS = 2000

_TEXTS = {
    400: b"This is not an event.\n",
    401: b"The signature is not the provider's.\n",
    403: b"The signature is not the provider's.\n",
    404: b"No webhooks are expected here.\n",
    405: b"Webhooks are posted.\n",
    413: b"The body is larger than an event.\n",
    503: b"The event could not be stored. Send it again later.\n",
}
_log = logging.getLogger("flux_pipelines.gateway")


class _AnswerError(Exception):
    """What the delivery is answered instead of 200; the rest of its body may be unread."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Deliveries:
    """Takes deliveries. One per gateway process.

    Args:
        runtime: the opened rooms.

    """

    def __init__(self, runtime: Runtime) -> None:
        self._registry = WebhookRegistry(runtime)
        self._writer = InboxWriter(runtime.state.inbox, self._registry.redacted)
        self._bytes_being_read = 0
        self._refused: dict[str, int] = {}
        self._logged_at = self._told_at = float("-inf")

    async def answer(self, provider: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        """Take one delivery and return the status and the text that answer it.

        Raises:
            ClientDisconnect: the sender left before its body was complete.

        """
        try:
            return 200, await self._take(provider, scope, receive)
        # No exception outlives its block: with its frames it would hold the body until the next collection of garbage.
        except _AnswerError as answer:
            self._note(provider, answer)
            status = answer.status
        except UnboundedError as problem:  # of a body that is looked into before it is verified
            self._note(provider, _AnswerError(400, str(problem)))
            status = 400
        except FluxError as problem:
            self._note(provider, _AnswerError(503, str(problem)))
            status = 503
        return status, _TEXTS.get(status, _TEXTS[403])

    async def _take(self, provider: str, scope: Scope, receive: Receive) -> bytes:
        source = await self._registry.source(provider)
        if source is None:
            raise _AnswerError(404, "there is no such provider, or its app has no signature key")
        headers, method = _headers(scope["headers"]), scope["method"]
        asks = source.handshake if isinstance(source, WebhookHandshake) else None
        if method != "POST" and (method != "GET" or asks is None):
            raise _AnswerError(405, "webhooks are posted")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        request = WebhookRequest(headers, await self._body(scope["headers"], receive), method, query)
        asked = asks(request) if asks is not None else None
        if asked is not None:
            self._tell(provider, asked.tell)
            return asked.answer
        if method == "GET":
            raise _AnswerError(405, "webhooks are posted")
        try:
            source.verify(request)
        except WebhookRefusedError as refused:
            changed = await self._registry.changed(provider, source)
            if changed is None:
                raise _AnswerError(source.refused_status, refused.what) from refused
            try:
                changed.verify(request)
            except WebhookRefusedError as again:
                raise _AnswerError(changed.refused_status, again.what) from again
            source = changed
        try:
            events = source.read(request)
        except WebhookRefusedError as refused:
            raise _AnswerError(400, refused.what) from refused
        if len(events) > MAX_EVENTS:
            raise _AnswerError(413, f"{len(events)} events at once")
        made = [await self._event(provider, event, request.body) for event in events]
        # All of them before the answer: of what is answered well nothing is sent again.
        await asyncio.gather(*(self._writer.add(event) for event in made))
        return b""

    async def _event(self, provider: str, event: WebhookEvent, body: bytes) -> NewEvent:
        kept = body if event.body is None else event.body
        kind = event.event_type or "event"
        return NewEvent(
            provider=provider,
            event_id=event.event_id or _made_of(kind, event.account_id, str(event.occurred_at), kept),
            event_type=kind,
            account_id=event.account_id,
            connection_key=await self._registry.connection(provider, event.account_id),
            occurred_at=event.occurred_at,
            body=kept,
        )

    async def _body(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes:
        told = next((value for name, value in headers if name == b"content-length"), b"0")
        if not told.isdigit() or len(told) > len(str(MAX_BODY_BYTES)) or int(told) > MAX_BODY_BYTES:
            raise _AnswerError(413, "a body larger than an event")
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                # The server gives up bodies that take too long (`protocol.py`); then this is a client that left.
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                chunks.append(chunk)
                size += len(chunk)
                self._bytes_being_read += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _AnswerError(413, "a body larger than an event")
                if not message.get("more_body", False):
                    return chunk if len(chunks) == 1 else b"".join(chunks)
                if self._bytes_being_read > _MOST_BYTES_BEING_READ:
                    raise _AnswerError(503, "too many large bodies arrive at once")
        finally:
            self._bytes_being_read -= size

    def _note(self, provider: str, answer: _AnswerError) -> None:
        """Say what was refused, but not every time: a stranger must not be able to fill the log."""
        shown = provider if answer.status != 404 else "unknown providers"
        self._refused[shown] = self._refused.get(shown, 0) + 1
        if time.monotonic() - self._logged_at < _LOG_EVERY_SECONDS:
            return
        self._logged_at = time.monotonic()
        counts = ", ".join(f"{count} of {name}" for name, count in self._refused.items())
        _log.warning("webhooks refused: %s; the last with %d: %s", counts, answer.status, answer.reason)
        self._refused.clear()

    def _tell(self, provider: str, what: str) -> None:
        """Tell what a person must do, but not every time: anybody may have asked."""
        if what and time.monotonic() - self._told_at >= _LOG_EVERY_SECONDS:
            self._told_at = time.monotonic()
            _log.warning("webhooks of %s: %r", provider, what[:_MOST_TOLD])

    def close(self) -> None:
        """Finish what is being stored."""
        self._writer.close()


class _Endpoint:
    """The route as plain ASGI: an event passes through in a fraction of a millisecond."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, text = await deliveries(scope["app"].state).answer(scope["path_params"]["provider"], scope, receive)
        except ClientDisconnect:
            return  # nobody is there to be answered
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
        if status in (404, 413, 503):
            # The rest of the body is not waited for.
            headers.append((b"connection", b"close"))
        if status == 503:
            headers.append((b"retry-after", b"5"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})


def deliveries(state: State) -> Deliveries:
    """Return the process's `Deliveries`, made with the first one and kept in the application's state."""
    found: Deliveries | None = getattr(state, "deliveries", None)
    if found is None:
        found = state.deliveries = Deliveries(state.runtime)
    return found


def _made_of(kind: str, account: str, at: str, body: bytes) -> str:
    """Return the id of an event that has none: the same event, sent again, has the same."""
    parts = (kind.encode(), account.encode("utf-8", "surrogatepass"), at.encode(), body)
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts)).hexdigest()


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        # A signature that comes twice is no signature: neither of the two is chosen.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


router = APIRouter(include_in_schema=False)
router.routes.append(Route("/webhooks/{provider}", _Endpoint(), methods=["POST", "GET"], include_in_schema=False))
