"""What every request passes through: host and TLS checks, limits of the body, security headers, the last error net.

Plain ASGI, because it stands before webhooks too: a function call and a few comparisons.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import MutableMapping
from typing import Any

from fastapi import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux_pipelines.gateway.options import GatewayOptions
from flux_pipelines.transport.redact import RedactingFilter


class _OneLine(logging.Filter):
    """Paths come from strangers: none of them may begin a line of the log that we did not write."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(record.msg))
        return True


logger = logging.getLogger("flux_pipelines.gateway")
logger.addFilter(RedactingFilter())
logger.addFilter(_OneLine())

#: Nothing from anywhere else. Forms go to ourselves only: browsers apply `form-action` to every redirect that follows a
#: form, so the round trips to providers begin with a link, never with a form.
CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # `no-referrer` would make browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_YEAR = 365 * 24 * 3600
_PROBES = frozenset({"/healthz", "/readyz"})
_READS_ITS_OWN_BODY = "/webhooks/"


class Guard:
    """ASGI middleware around everything the gateway answers.

    Args:
        app: what it guards.
        options: how the gateway is reached.

    """

    def __init__(self, app: ASGIApp, options: GatewayOptions) -> None:
        self._app = app
        self._options = options
        headers = dict(_HEADERS)
        if options.secure:
            headers["strict-transport-security"] = f"max-age={_YEAR}"
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._host = options.public_host.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no web sockets here: the server then refuses the handshake
        started = False
        own = self._headers if scope["path"].startswith("/static/") else [*self._headers, _NO_STORE]

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name for name, _ in message.get("headers", ())}
                message["headers"] = [*message.get("headers", ()), *(h for h in own if h[0] not in present)]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        if not scope["path"].startswith(_READS_ITS_OWN_BODY):
            receive = _without_body(receive) if scope["method"] in _BODILESS else self._bounded(scope, receive)
        try:
            await self._app(scope, receive, send_guarded)
        except Exception:
            reference = secrets.token_hex(4)
            logger.exception("%s %s failed (reference %s)", scope["method"], scope["path"], reference)
            if started:
                raise
            text = f"Something went wrong in Flux. Its log tells more: reference {reference}.\n"
            await PlainTextResponse(text, status_code=500)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Return the answer to a request that must not get any further."""
        if scope["path"] in _PROBES:
            # Load balancers ask by address and without TLS. The answer is one word.
            return None
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() != self._host:
            # Links and redirect addresses are never made of what a request says; this also stops DNS rebinding.
            return PlainTextResponse(f"This gateway answers at {self._options.public_url}\n", status_code=421)
        if self._options.secure and scope["scheme"] != "https":
            return PlainTextResponse(f"Use {self._options.public_url}\n", status_code=403)
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Refuse bodies that are too large, before they are read or while they are; `protocol.py` ends slow ones."""
        most = self._options.max_body_bytes
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        size, more = 0, True

        async def receive_bounded() -> MutableMapping[str, Any]:
            nonlocal size, more
            if not more:
                return await receive()  # waits until the client leaves
            if not told.isdigit() or int(told) > most:
                raise _too_large(most)
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise _too_large(most)
            more = message.get("more_body", False)
            return message

        return receive_bounded


def _without_body(receive: Receive) -> Receive:
    """Drop bodies that mean nothing. To refuse them would be too late: files are sent while it is awaited that one leaves."""

    async def receive_without_body() -> MutableMapping[str, Any]:
        message = await receive()
        return {**message, "body": b""} if message["type"] == "http.request" else message

    return receive_without_body


_BODILESS = frozenset({"GET", "HEAD"})
_NO_STORE = (b"cache-control", b"no-store")


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The request is larger than {most:,} bytes.", headers={"connection": "close"})
