"""uvicorn's HTTP protocol with limits on what one connection and one address can make the gateway hold.

uvicorn bounds only the pause between two requests. A head of any size would be kept in memory, and a connection that sends
nothing, or a body byte by byte, or never reads its answer, would stay for ever. Here they are told 431 or 408, or just closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from flux_pipelines.domain.addresses import ip_of, subscriber_of

MOST_HEAD_BYTES = 64 * 1024
WRITE_SECONDS = 20.0
#: What a header costs beside its name and value, as HTTP/2 counts it (RFC 9113, 6.5.2): many empty ones are large too.
_FIELD_BYTES = 32
#: What is parsed at a time: a head that is too large is noticed so much later at most.
_PIECE_BYTES = 16 * 1024
#: Requests that wait behind one that is being answered. Browsers and proxies send none.
_MOST_PIPELINED = 16
_LOG_EVERY_SECONDS = 10.0

_log = logging.getLogger("flux_pipelines.gateway")


def _closing(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()


_TIMEOUT = _closing("408 Request Timeout")
_TOO_LARGE = _closing("431 Request Header Fields Too Large")
_INVALID = _closing("400 Bad Request")


class _TooLargeError(Exception):
    """Raised out of the parser, which stops there."""


@lru_cache(maxsize=4096)
def _counts_for(host: str, proxies: tuple[str, ...]) -> str:
    """Return whom a connection counts for; empty for a trusted proxy, which brings everybody's."""
    found = ip_of(host)
    trusted = found is not None and any(found in ip_network(proxy) for proxy in proxies)
    return "" if trusted else subscriber_of(host)


def guarded_protocol(
    *,
    head_seconds: float,
    body_seconds: float,
    write_seconds: float = WRITE_SECONDS,
    most_connections: int = 1024,
    most_of_one_address: int = 256,
) -> type[Any]:
    """Return a protocol class for `uvicorn.Config(http=..., ws="none")`.

    Beyond a cap the connection goes that has not read its answers for longest; else the one that has kept a request
    unfinished for longest, else the one that has been idle for longest, else the new one. None that is being answered.

    Args:
        head_seconds: from connecting, or from the first byte of a further request, to the end of its headers.
        body_seconds: from there to the end of its body.
        write_seconds: the longest that a client may leave unread what is sent to it.
        most_connections: of one process.
        most_of_one_address: of one process; the addresses of an IPv6 /64 are one, and trusted proxies are not counted.

    """
    places: dict[str, set[Guarded]] = {}
    ended, logged_at = 0, float("-inf")

    def note() -> None:
        nonlocal ended, logged_at
        ended += 1
        if time.monotonic() - logged_at >= _LOG_EVERY_SECONDS:
            _log.warning("no place for more connections: %d were ended", ended)
            ended, logged_at = 0, time.monotonic()

    class Guarded(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None
        _in_body = False
        _head_bytes = 0  # of the present head and its trailers, as far as the parser has told of them
        _untold_bytes = 0  # what has arrived since the parser told of anything
        _looking: asyncio.TimerHandle | None = None
        _stalled_at: float | None = None
        _evicted = False
        _counted = ""
        _answered: RequestResponseCycle | None = None  # while others wait behind it, `cycle` is the last of those

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait(head_seconds)
            self._look()
            trusted = self.config.forwarded_allow_ips if self.config.proxy_headers else None
            proxies = tuple(trusted) if isinstance(trusted, list) else ()
            self._counted = _counts_for(self.client[0], proxies) if self.client is not None else ""
            mine = places.setdefault(self._counted, set()) if self._counted else set()
            mine.add(self)
            if len(mine) > most_of_one_address:
                self._make_room(mine)
            elif len(self.connections) > most_connections:
                self._make_room(self.connections)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            if self._looking is not None:
                self._looking.cancel()
            mine = places.get(self._counted, set())
            mine.discard(self)
            if not mine:
                places.pop(self._counted, None)
            if self._answered is not None and not self._answered.response_complete:
                # uvicorn tells the last request only: the answer to an earlier one would be written nowhere, and logged.
                self._answered.disconnected = True
                self._answered.message_event.set()
            super().connection_lost(exc)

        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            self._answered = cycle
            super()._start_asgi_task(cycle, app)

        def _make_room(self, among: Any) -> None:
            ranked = [(rank, id(one), one) for one in among if one is not self and (rank := one._rank()) is not None]
            victim = min(ranked, default=(None, 0, self))[2]
            victim._evicted = True
            victim.transport.abort()
            note()

        def _rank(self) -> tuple[int, float] | None:
            """Return who goes before whom; None: stays."""
            if self._evicted:
                return None
            if self._stalled_at is not None:
                return 0, self._stalled_at
            if self._deadline is not None:
                return 1, self._deadline.when()
            idle = self.timeout_keep_alive_task
            return (2, idle.when()) if idle is not None else None

        # --- what comes ---

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            try:
                # Nothing here is upgraded to: such a request is answered like any other. Neither that nor what is no
                # HTTP is logged, as uvicorn would: a stranger must not be able to fill the log.
                with contextlib.suppress(HttpParserUpgrade):
                    self._feed(memoryview(data))
            except (HttpParserError, _TooLargeError) as wrong:
                too_large = isinstance(wrong, _TooLargeError) or isinstance(wrong.__context__, _TooLargeError)
                self._end(_TOO_LARGE if too_large else _INVALID)
                return
            if self.transport.is_closing():
                return
            cycle = self.cycle
            if cycle is None or cycle.response_complete:
                # The headers of a request, or the rest of a body that nobody waits for any more.
                if self._deadline is None:
                    self._wait(head_seconds)
            elif not cycle.more_body:
                self._stop_waiting()
            elif not self._in_body:
                self._stop_waiting()
                self._in_body = True
                self._wait(body_seconds)

        def _feed(self, data: memoryview) -> None:
            for start in range(0, len(data), _PIECE_BYTES):
                piece = data[start : start + _PIECE_BYTES]
                self._untold_bytes += len(piece)
                self.parser.feed_data(piece)
                self._count(0)

        def on_message_begin(self) -> None:
            self._head_bytes = self._untold_bytes = 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._untold_bytes = 0
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._untold_bytes = 0
            self._count(len(name) + len(value) + _FIELD_BYTES)
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            if len(self.pipeline) >= _MOST_PIPELINED:
                raise _TooLargeError
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._untold_bytes = 0
            super().on_body(body)

        def _count(self, size: int) -> None:
            self._head_bytes += size
            if self._head_bytes + self._untold_bytes > MOST_HEAD_BYTES:
                raise _TooLargeError

        def _wait(self, seconds: float) -> None:
            self._deadline = self.loop.call_later(seconds, self._end, _TIMEOUT)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._in_body = False

        def _end(self, answer: bytes) -> None:
            """Answer what is unfinished and close. While an earlier request is being answered there is nothing to say."""
            self._stop_waiting()
            if self.transport.is_closing():
                return
            cycle = self.cycle
            if cycle is None or cycle.response_complete:
                self.transport.write(answer)
            elif cycle.more_body and not cycle.response_started and not self.pipeline:
                # The application learns of it as of any client that went away, and its answer is not sent.
                cycle.disconnected = True
                cycle.message_event.set()
                self.transport.write(answer)
            self.transport.close()

        # --- what goes ---

        def resume_writing(self) -> None:
            self._stalled_at = None
            super().resume_writing()

        def _look(self) -> None:
            """See whether the client reads, again and again: closing, too, waits until everything has been read."""
            now = self.loop.time()
            if not self.transport.get_write_buffer_size():
                self._stalled_at = None
            elif self._stalled_at is None:
                self._stalled_at = now
            elif now - self._stalled_at >= write_seconds:
                self.transport.abort()
                return
            self._looking = self.loop.call_later(write_seconds / 10, self._look)

    return Guarded
