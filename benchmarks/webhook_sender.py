"""Sends signed events at a fixed rate, whatever the answers take, and tells the percentiles of how long each took.

An event's time counts from when it was due: if the gateway stands still, all that should have been sent meanwhile are late.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit


class _Lane(asyncio.Protocol):
    """One connection with at most one delivery under way."""

    def __init__(self, free: list[_Lane]) -> None:
        self._free = free
        self.done: asyncio.Future[int] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        # Acknowledgements have no body.
        if self._received.endswith(b"\r\n\r\n") and self.done is not None:
            status = int(self._received[9:12])
            self._received = b""
            self._free.append(self)
            done, self.done = self.done, None
            done.set_result(status)

    def send(self, request: bytes) -> asyncio.Future[int]:
        self.done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self.done


async def send(url: str, requests: list[bytes], rate: float) -> tuple[list[float], int]:
    """Send the requests at the rate; return how long each took in milliseconds, and how many were not acknowledged."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    free: list[_Lane] = []
    taken: list[float] = []
    failed = 0

    async def lane() -> _Lane:
        _, made = await loop.create_connection(lambda: _Lane(free), parts.hostname, parts.port)
        return made

    free += [await lane() for _ in range(32)]

    async def one(request: bytes, due: float) -> None:
        nonlocal failed
        # The connection used longest ago: all stay warm, and workers that share the port all get some.
        chosen = free.pop(0) if free else await lane()
        status = await chosen.send(request)
        taken.append((loop.time() - due) * 1000)
        failed += status != 200

    start = loop.time() + 0.1
    under_way = []
    for number, request in enumerate(requests):
        due = start + number / rate
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        under_way.append(loop.create_task(one(request, due)))
    await asyncio.gather(*under_way)
    return taken, failed


def main() -> None:
    url, pairs, rate, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    lines = pairs.read_text().splitlines()
    parts = urlsplit(url)
    requests = []
    for line in lines[2 : 2 + int(rate * seconds)]:
        event_id, signature = line.split(" ")
        body = lines[0] + event_id + lines[1]
        requests.append(
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            f"x-square-hmacsha256-signature: {signature}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
    warm = requests[: int(rate)]  # the first second opens connections and reads keys: sent, not counted
    taken, failed = asyncio.run(_both(url, warm, requests[len(warm) :], rate))
    taken.sort()
    told = {
        "sent": len(requests),
        "failed": failed,
        "p50": taken[len(taken) // 2],
        "p99": taken[len(taken) * 99 // 100],
        "worst": taken[-1],
    }
    print(json.dumps(told))


async def _both(url: str, warm: list[bytes], counted: list[bytes], rate: float) -> tuple[list[float], int]:
    _, failed_warm = await send(url, warm, rate)
    taken, failed = await send(url, counted, rate)
    return taken, failed + failed_warm


if __name__ == "__main__":
    main()
