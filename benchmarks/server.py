"""A local Square that answers from ready bytes, so that a benchmark measures the client and not the server.

`python -m benchmarks.server --orders N` prints its port as one line of JSON when it is ready. It speaks what a Square
client needs (orders/search by created, closed or updated time with cursors, batch-retrieve, locations, token status),
gives the very same orders as numbered pages for dlt (`GET /pages?page=N`), and tells what it saw (`GET /bench/seen`).
A window that is contiguous in time and asks for every location is one slice of one buffer; nothing is encoded.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import time
from collections import defaultdict
from datetime import date, datetime
from urllib.parse import parse_qs, urlsplit

from benchmarks.dataset import CLOSED_AFTER_MS, CURRENCY, MERCHANT, TIMEZONE, UPDATED_AFTER_MS, Orders

#: How many orders a page has at most, whatever is asked for.
PAGE = 500
_SHIFT = {"created_at": 0, "closed_at": CLOSED_AFTER_MS, "updated_at": UPDATED_AFTER_MS}
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}

Body = list["bytes | memoryview"]


class Refusal(Exception):
    """A request that Square would refuse."""

    def __init__(self, status: int, category: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"errors": [{"category": category, "code": code, "detail": detail}]}


def _invalid(detail: str) -> Refusal:
    return Refusal(400, "INVALID_REQUEST_ERROR", "BAD_REQUEST", detail)


def _milliseconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


class Square:
    """Answers requests out of `Orders`. Remembers when each location was asked for."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.requests = 0
        self.arrivals: dict[str, list[float]] = defaultdict(list)
        every = frozenset(orders.locations)
        self._every = every
        self._locations = json.dumps(
            {
                "locations": [
                    {
                        "id": place,
                        "name": f"Bench {n}",
                        "timezone": TIMEZONE,
                        "currency": CURRENCY,
                        "country": "US",
                        "status": "ACTIVE",
                        "merchant_id": MERCHANT,
                    }
                    for n, place in enumerate(orders.locations)
                ]
            }
        ).encode()

    def answer(self, method: str, target: str, headers: dict[bytes, bytes], body: bytes) -> Body:
        """Return the body of a 200.

        Raises:
            Refusal: the request is not one that Square would serve.

        """
        url = urlsplit(target)
        route = (method, url.path)
        if route == ("GET", "/pages"):
            return self._page(int(parse_qs(url.query).get("page", ["0"])[0]))
        if route == ("GET", "/healthz"):
            return [b"{}"]
        if route == ("GET", "/bench/seen"):
            return [json.dumps({"requests": self.requests, "arrivals": self.arrivals}).encode()]
        self.requests += 1
        if not headers.get(b"authorization", b"").startswith(b"Bearer ") or b"square-version" not in headers:
            raise Refusal(401, "AUTHENTICATION_ERROR", "UNAUTHORIZED", "Send a bearer token and Square-Version.")
        if route == ("POST", "/v2/orders/search"):
            return self._search(json.loads(body))
        if route == ("POST", "/v2/orders/batch-retrieve"):
            return self._batch(json.loads(body))
        if route == ("GET", "/v2/locations"):
            return [self._locations]
        if route == ("POST", "/oauth2/token/status"):
            return [json.dumps({"scopes": ["MERCHANT_PROFILE_READ", "ORDERS_READ"], "merchant_id": MERCHANT}).encode()]
        raise Refusal(404, "INVALID_REQUEST_ERROR", "NOT_FOUND", f"There is no {method} {url.path}.")

    def _page(self, number: int) -> Body:
        first, last = number * PAGE, min((number + 1) * PAGE, self.orders.count)
        more = b'],"next":%d}' % (number + 1) if last < self.orders.count else b'],"next":null}'
        return [b'{"orders":[', self.orders.slice(first, last), more]

    def _batch(self, asked: dict) -> Body:
        if len(asked["order_ids"]) > 100:
            raise _invalid("At most 100 order_ids.")
        found = [i for i in map(self.orders.index_of, asked["order_ids"]) if i is not None]
        return [b'{"orders":[', self.orders.joined(found), b"]}"]

    def _search(self, asked: dict) -> Body:
        wanted, limit = frozenset(asked.get("location_ids", ())), int(asked.get("limit", PAGE))
        query = asked.get("query", {})
        times = query.get("filter", {}).get("date_time_filter", {})
        if not 1 <= len(wanted) <= 10 or not wanted <= self._every or not 1 <= limit <= 1000 or len(times) != 1:
            raise _invalid("1 to 10 known location_ids, a limit of 1 to 1000 and one date_time_filter are needed.")
        ((name, span),) = times.items()
        sort = query.get("sort", {})
        if name not in _SHIFT or sort.get("sort_field") != name.upper() or sort.get("sort_order") != "ASC":
            raise _invalid("sort_field must be the filtered field, sort_order ASC.")
        states = query["filter"].get("state_filter", {}).get("states", ["COMPLETED"])
        if name == "closed_at" and not {"COMPLETED", "CANCELED"}.issuperset(states):
            raise _invalid("closed_at needs a state_filter of COMPLETED and CANCELED.")
        now = time.monotonic()
        for place in wanted:
            self.arrivals[place].append(now)
        limit = min(limit, PAGE)  # Square may give shorter pages than asked for; here all contenders get the same
        if "cursor" in asked:
            first, last = map(int, base64.urlsafe_b64decode(asked["cursor"]).split(b":"))
        else:
            end = _milliseconds(span["end_at"]) if "end_at" in span else float("inf")
            first, last = self.orders.between(_milliseconds(span["start_at"]), end, _SHIFT[name])
        if "COMPLETED" not in states or first >= last:
            return [b"{}"]
        if wanted == self._every:
            stop = min(first + limit, last)
            page = range(first, stop)
        else:
            indices = self.orders.of_locations(first, last, wanted)
            page = [i for i, _ in zip(indices, range(limit), strict=False)]
            stop = page[-1] + 1 if page else last
        if not page:
            return [b"{}"]
        tail = b'],"cursor":"%s"}' % base64.urlsafe_b64encode(b"%d:%d" % (stop, last)) if stop < last else b"]}"
        if asked.get("return_entries"):
            entries = b",".join(
                b'{"order_id":"%s","version":4,"location_id":"%s"}'
                % (b"BENCH%022X" % i, self.orders.locations[i % len(self.orders.locations)].encode())
                for i in page
            )
            return [b'{"order_entries":[', entries, tail]
        return [b'{"orders":[', self.orders.joined(page), tail]


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and Content-Length bodies: what httpx and requests send, and no more."""

    def __init__(self, square: Square, delay: float) -> None:
        self._square, self._delay = square, delay
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            request, *lines = bytes(self._received[:end]).split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            size = int(headers.get(b"content-length", b"0"))
            if len(self._received) < end + 4 + size:
                return
            body = bytes(self._received[end + 4 : end + 4 + size])
            del self._received[: end + 4 + size]
            method, target, _ = request.decode().split(" ")
            self._respond(method, target, headers, body)

    def _respond(self, method: str, target: str, headers: dict[bytes, bytes], body: bytes) -> None:
        status = 200
        try:
            parts = self._square.answer(method, target, headers, body)
        except Refusal as refusal:
            status, parts = refusal.status, [json.dumps(refusal.body).encode()]
        size = sum(len(part) for part in parts)
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        )
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._send, [head.encode(), *parts])
        else:
            self._send([head.encode(), *parts])

    def _send(self, parts: Body) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(parts)


async def serve(square: Square, port: int, delay: float) -> None:
    """Serve on the loopback until cancelled; print the port (0 chooses one) and what the orders come to."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(square, delay), "127.0.0.1", port, backlog=128)
    orders = square.orders
    facts = {
        "port": server.sockets[0].getsockname()[1],
        "orders": orders.count,
        "lines": orders.lines,
        "total": orders.total,
        "bytes": orders.bytes,
        "first_day": orders.first_day.isoformat(),
        "days": orders.days,
        "locations": len(orders.locations),
    }
    print(json.dumps(facts), flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--first-day", type=date.fromisoformat, default=date(2026, 2, 2))
    parser.add_argument("--locations", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added to every answer")
    chosen = parser.parse_args()
    orders = Orders.make(chosen.orders, days=chosen.days, first_day=chosen.first_day, locations=chosen.locations)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Square(orders), chosen.port, chosen.delay_ms / 1000))


if __name__ == "__main__":
    main()
