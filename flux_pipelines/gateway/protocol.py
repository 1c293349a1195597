"""uvicorn's HTTP protocol with a deadline for requests that never end (slow-loris) and a cap on connections.

uvicorn bounds only the pause between two requests. A connection that sends nothing, or a header a minute, or a body byte
by byte, would stay for ever; here it is told 408 and closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def guarded_protocol(*, head_seconds: float, body_seconds: float, most_connections: int = 1000) -> type[Any]:
    """Return a protocol class for `uvicorn.Config(http=..., ws="none")`.

    Args:
        head_seconds: from connecting, or from the first byte of a further request, to the end of its headers.
        body_seconds: from there to the end of its body.
        most_connections: of one process. Beyond it the connection that has kept a request unfinished for longest goes,
            or the new one when there is none such.

    """

    class Guarded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen by uvicorn when it is imported
        _deadline: asyncio.TimerHandle | None = None
        _in_body = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._wait(head_seconds)
            if len(self.connections) > most_connections:
                unfinished = [one for one in self.connections if one._deadline is not None]
                min(unfinished, key=lambda one: one._deadline.when(), default=self).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
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

        def _wait(self, seconds: float) -> None:
            self._deadline = self.loop.call_later(seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._in_body = False

        def _give_up(self) -> None:
            self._deadline = None
            if self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TIMEOUT)
            elif not self.cycle.response_started:
                # The application learns of it as of any client that went away, and its answer is not sent.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self.transport.write(_TIMEOUT)
            self.transport.close()

    return Guarded
