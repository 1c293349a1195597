"""`POST /webhooks/{provider}`: read once, verified, in the inbox before the answer. Nothing of what is refused is kept.

What a provider declares personal is taken out of a body after it was verified, and before it is stored. Of events of types that
nothing is done for only the hash of the body is stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from flux_pipelines.domain.decoding import UnboundedError
from flux_pipelines.domain.errors import FluxError, WebhookRefusedError
from flux_pipelines.gateway.inbox_writer import InboxWriter
from flux_pipelines.gateway.webhook_registry import WebhookRegistry
from flux_pipelines.providers.base import WebhookRequest
from flux_pipelines.state import NewEvent

if TYPE_CHECKING:
    from starlette.datastructures import State
    from starlette.types import Receive, Scope, Send

    from flux_pipelines.runtime import Runtime

MAX_BODY_BYTES = 1024 * 1024
_MOST_BYTES_BEING_READ = 64 * MAX_BODY_BYTES
_LOG_EVERY_SECONDS = 10.0

_TEXTS = {
    200: b"",
    400: b"This is not an event.\n",
    401: b"The signature is not the provider's.\n",
    403: b"The signature is not the provider's.\n",
    404: b"No webhooks are expected here.\n",
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
        self._logged_at = float("-inf")

    async def answer(self, provider: str, scope: Scope, receive: Receive) -> int:
        """Take one delivery and return the status that answers it.

        Raises:
            ClientDisconnect: the sender left before its body was complete.

        """
        try:
            await self._take(provider, scope, receive)
        except _AnswerError as answer:
            self._note(provider, answer)
            return answer.status
        except UnboundedError as problem:  # of a body that is looked into before it is verified
            self._note(provider, _AnswerError(400, str(problem)))
            return 400
        except FluxError as problem:
            self._note(provider, _AnswerError(503, str(problem)))
            return 503
        return 200

    async def _take(self, provider: str, scope: Scope, receive: Receive) -> None:
        source = await self._registry.source(provider)
        if source is None:
            raise _AnswerError(404, "there is no such provider, or its app has no signature key")
        request = WebhookRequest(_headers(scope["headers"]), await self._body(scope["headers"], receive))
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
            event = source.read(request)
        except WebhookRefusedError as refused:
            raise _AnswerError(400, refused.what) from refused
        key = await self._registry.connection(provider, event.account_id)
        await self._writer.add(
            NewEvent(
                provider=provider,
                event_id=event.event_id,
                event_type=event.event_type,
                account_id=event.account_id,
                connection_key=key,
                occurred_at=event.occurred_at,
                body=request.body if event.body is None else event.body,
            )
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

    def close(self) -> None:
        """Finish what is being stored."""
        self._writer.close()


class _Endpoint:
    """The route as plain ASGI: an event passes through in a fraction of a millisecond."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status = await deliveries(scope["app"].state).answer(scope["path_params"]["provider"], scope, receive)
        except ClientDisconnect:
            return  # nobody is there to be answered
        text = _TEXTS.get(status, _TEXTS[403])
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


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        # A signature that comes twice is no signature: neither of the two is chosen.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


router = APIRouter(include_in_schema=False)
router.routes.append(Route("/webhooks/{provider}", _Endpoint(), methods=["POST"], include_in_schema=False))
