"""HTTP/1.1 POSTs over connections that are kept: what a sender of webhooks needs of HTTP, and no more.

The protocol is `h11`'s, which uvicorn brings. `transport` is Flux's way out to providers: its limits, retries, breaker and
audit would hide what a provider's own sender does. httpx's asynchronous client was measured at 140 requests a second on
the machine where this does a thousand.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import SplitResult, urlsplit

import h11

_READ = 64 * 1024
_ANSWER_BYTES = 64 * 1024  # of an answer that nobody reads, before its connection is given up
_IDLE_SECONDS = 4.0  # less than the five after which uvicorn closes an idle connection


class _Line:
    """One connection to a receiver."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = h11.Connection(h11.CLIENT)
        self._used = time.monotonic()
        self.fresh = True

    @property
    def open(self) -> bool:
        """Whether it can carry another request."""
        done = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        return done and not self._reader.at_eof()

    @property
    def stale(self) -> bool:
        return time.monotonic() - self._used > _IDLE_SECONDS or self._reader.at_eof()

    def close(self) -> None:
        self._writer.transport.abort()

    async def post(self, parts: SplitResult, headers: Mapping[str, str], body: bytes) -> int:
        """Send one request; return the status of its answer."""
        if not self.fresh:
            self._protocol.start_next_cycle()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        own = {"Host": parts.netloc.rpartition("@")[2], "Content-Length": str(len(body))}
        request = h11.Request(method="POST", target=target, headers=[*own.items(), *headers.items()])
        pieces = (self._protocol.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage()))
        self._writer.write(b"".join(piece for piece in pieces if piece))
        await self._writer.drain()
        status = received = 0
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                self._protocol.receive_data(await self._reader.read(_READ))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                received += len(event.data)
                if received > _ANSWER_BYTES:
                    return status
            elif isinstance(event, h11.EndOfMessage):
                self.fresh = False
                self._used = time.monotonic()
                return status
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the receiver closed the connection without an answer")


class HttpSender:
    """Keeps connections to receivers, each used by one request at a time."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[str, str], list[_Line]] = defaultdict(list)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """POST a body; return the status. A redirect is not followed.

        Raises:
            OSError: no connection, or a broken one; `ssl.SSLError` when the certificate is to blame.
            h11.RemoteProtocolError: what came back is not HTTP.

        """
        parts = urlsplit(url)
        where = (parts.scheme, parts.netloc)
        while True:
            line = self._kept(where) or await self._connect(parts)
            try:
                status = await line.post(parts, headers, body)
            except (ConnectionError, h11.RemoteProtocolError):
                line.close()
                if line.fresh:
                    raise
                continue  # it was closed while it lay idle, as a receiver may: once more, over another
            except BaseException:  # a deadline too: its answer must not be taken for the next request's
                line.close()
                raise
            if line.open:
                self._idle[where].append(line)
            else:
                line.close()
            return status

    def _kept(self, where: tuple[str, str]) -> _Line | None:
        kept = self._idle[where]
        while kept:
            line = kept.pop()
            if not line.stale:
                return line
            line.close()
        return None

    async def _connect(self, parts: SplitResult) -> _Line:
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return _Line(*await asyncio.open_connection(parts.hostname, port, ssl=self._tls if secure else None))

    def close(self) -> None:
        """Close every connection."""
        for kept in self._idle.values():
            for line in kept:
                line.close()
        self._idle.clear()
