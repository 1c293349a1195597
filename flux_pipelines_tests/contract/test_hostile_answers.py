"""The contract suite, hostile answers: whatever a provider's call is answered with ends in a clear error, within bounds.

Nothing here lists a provider's calls: they are what goes through a proxy while all that a source can be asked is asked. Then
each of them is answered badly, one at a time.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.errors import BadResponseError, FluxError
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import OAuthContext, SourceContext, Window
from flux_pipelines.transport import Transport
from flux_pipelines_tests.contract.conftest import Connect, Played, providers
from flux_pipelines_tests.transport.server import memory, transport

pytestmark = pytest.mark.parametrize("name", providers())

MB = 1024 * 1024
CAP = 8 * MB
DEEP = b"[" * 1200 + b"]" * 1200
#: More requests than any question of these tests takes that ends.
MOST_REQUESTS = 400


@dataclasses.dataclass
class Answer:
    headers: dict[str, str]
    body: bytes
    endless: bool = False
    status: int = 200


Change = Callable[[Answer], Answer]


def first_object(more: bytes) -> Change:
    """Give the first object of an answer one member more."""
    return lambda answer: Answer(answer.headers, answer.body.replace(b"{", b'{"more":' + more + b",", 1))


def whole(body: bytes, **headers: str) -> Change:
    return lambda answer: Answer({**answer.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


def bomb() -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, again = (made.compress(bytes(MB)) + made.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * 200


#: Each must end in an error.
FATAL: dict[str, Change] = {
    "deep inside": first_object(DEEP),
    "deep and open": whole(b"[" * MB),
    "wide": whole(b"[" + b"0," * 4_000_000 + b"0]"),
    "a bomb of gzip": whole(bomb(), content_encoding="gzip"),
    "an encoding that was not offered": whole(b"(\xb5/\xfd", content_encoding="zstd"),
    "endless": lambda answer: Answer(answer.headers, b"[0," * 20_000, endless=True),
}
#: These may be borne, or end in an error, but in no other than one of ours.
ODD: dict[str, Change] = {
    "deep, but not too deep": lambda answer: Answer(
        answer.headers, (b'{"more":' + b"[" * 900 + b"]" * 900 + b',"').join(answer.body.rsplit(b'{"', 1))
    ),
    "long numbers": lambda answer: Answer(
        answer.headers, re.sub(rb'(?<=":)\d+(?=[,}])', b"9" * 5000, answer.body, count=50)
    ),
}


@dataclasses.dataclass
class Proxy:
    """Stands between a source and the sandbox, and notes what is called."""

    url: str
    sandbox: str
    calls: list[str] = dataclasses.field(default_factory=list)
    change: Change | None = None
    only: str = ""
    #: Whether `only` is asked of the sandbox once, and answered the same ever after.
    again: bool = False
    kept: Answer | None = None

    def answer(self, call: str, answer: Answer) -> Answer:
        self.calls.append(call)
        assert len(self.calls) < MOST_REQUESTS, f"{call} is called for ever"
        body = answer.body.replace(self.sandbox.encode(), self.url.encode())  # files are fetched through here as well
        answer = Answer(answer.headers, body)
        return self.change(answer) if self.change is not None and self.only in ("", call) else answer


def name_of(method: str, path: str, body: bytes) -> str:
    """Return which call it is: ids left out, GraphQL's operations by their names."""
    if path.endswith("graphql.json"):
        return "GraphQL " + re.split(r"[({ ]+", json.loads(body)["query"].strip())[1]
    parts = ["*" if re.search(r"\d{3}|-\w{4}-", part) else part for part in urlsplit(path).path.split("/")]
    return f"{method} {'/'.join(parts)}"


@contextmanager
def proxied(sandbox: str) -> Iterator[Proxy]:
    client = httpx.Client(trust_env=False, headers={"Accept-Encoding": "identity"})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            dropped = ("host", "content-length", "accept-encoding", "connection")
            headers = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
            call, found = name_of(self.command, self.path, body), proxy.kept
            if not (proxy.again and call == proxy.only and found is not None):
                got = client.request(self.command, sandbox + self.path, headers=headers, content=body)
                dropped = ("content-length", "connection", "date", "server")
                kept = {key: value for key, value in got.headers.items() if key not in dropped}
                found = Answer(kept, got.content, status=got.status_code)
                if call == proxy.only:
                    proxy.kept = found
            try:
                answer = proxy.answer(call, found)
            except AssertionError:
                self.send_error(410, "called for ever")
                return
            self.send_response(found.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            if answer.endless:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            while answer.endless:  # until the client has enough
                self.wfile.write(answer.body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients hang up on what is too much

    server = Quiet(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}", sandbox)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        client.close()


class Asking:
    """All that a provider can be asked, each question with a source and a transport of its own: limits begin anew."""

    def __init__(self, played: Played, proxy: Proxy, folder: Path) -> None:
        self.played, self.proxy, self._folder = played, proxy, folder
        address = str(played.connection.settings["base_url"]).replace(played.sandbox.url, proxy.url)
        settings = {**played.connection.settings, "base_url": address, "bulk_days": 1, "report_wait_seconds": 1}
        self._connection = dataclasses.replace(played.connection, settings=settings)
        self._address = address
        source = played.runtime.source(played.connection)
        places = source.locations()[:2]
        ids = tuple(sorted(place.location_id for place in places))[: source.max_locations_per_window]
        start, end = BusinessCalendar(places[0].timezone, played.connection.cutoff_hour).window(played.last)
        by_date = played.last if source.by_business_date else None
        self.orders = Window(ids, start, end, by_date)
        self.updated = Window(ids, start, end)
        self.records = Window(ids, start, end, played.last)
        (first, *_) = (order.header for page in source.pages(self.orders, "created") for order in page.orders)
        assert first is not None
        self._order_id = first.order_id
        source.close()
        self._number = 0

    def questions(self) -> dict[str, Callable[[Any], object]]:
        found: dict[str, Callable[[Any], object]] = {
            "access": lambda source: source.verify_access(),
            "locations": lambda source: source.locations(),
            "history": lambda source: source.history_from(self.records.end),
            "orders": lambda source: [*source.pages(self.orders, "created")],
            "changed orders": lambda source: [*source.pages(self.updated, "updated")],
            "orders by id": lambda source: source.orders([self._order_id]),
        }
        for stream in self.played.spec.streams:
            if stream.name == "orders":
                continue
            found[stream.name] = lambda source, stream=stream: [*source.read(stream.name, self.records)]  # type: ignore[misc]
            if stream.strategy == "daily" and stream.name != witness.STREAM:
                found[f"changed {stream.name}"] = lambda source, stream=stream: [
                    *source.changes(stream.name, self.records)
                ]  # type: ignore[misc]
        if self.played.spec.oauth:
            found["a new token"] = lambda source: self._oauth(source).refresh("a-refresh-token")
        if self.played.spec.login:
            found["a sign-in"] = lambda source: self._oauth(source).sign_in()
        return found

    def _oauth(self, source: Any) -> Any:
        reference = self.played.spec.oauth or self.played.spec.login or ""
        context = OAuthContext(self.played.spec, self._address, "id", "secret", self._transport, self._connection.key)
        return self.played.spec.load(reference)(context)

    def ask(self, question: str, change: Change | None = None, only: str = "", *, again: bool = False) -> Any:
        """Ask, and return what is answered, or the error that came of it. Any other than ours fails the test."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        self.proxy.calls, self.proxy.change, self.proxy.only = [], change, only
        self.proxy.again, self.proxy.kept = again, None
        with transport(folder, max_body_bytes=CAP) as self._transport:
            manager = self.played.runtime.token_manager(self.played.connection)
            spec = self.played.spec
            source = spec.load(spec.source or "")(SourceContext(spec, self._connection, manager, self._transport))
            try:
                return self.questions()[question](source)
            except FluxError as error:
                return error
            finally:
                source.close()
                assert len(self.proxy.calls) < MOST_REQUESTS, f"{question} is asked for ever"


@pytest.fixture
def asking(connect: Connect, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    # The second in which Toast lets one menu be read, the pauses of a bulk operation.
    monkeypatch.setattr(Transport, "_sleep", lambda _self, _seconds: None)
    played = connect(name)
    with proxied(played.sandbox.url) as proxy:
        yield Asking(played, proxy, tmp_path)


def walk(asking: Asking) -> dict[str, dict[str, int]]:
    """Return every call that is made, each with the questions that make it and how often they do."""
    found: dict[str, dict[str, int]] = {}
    for question in asking.questions():
        asking.ask(question)
        for call, count in Counter(asking.proxy.calls).items():
            found.setdefault(call, {})[question] = count
    return found


def optional(call: str, question: str) -> bool:
    """Tell whether there is another way when a call is answered badly: paging instead of a bulk operation, no witness."""
    return "bulk" in call.lower() or "/files/" in call or question == witness.STREAM


def unreadable(found: Any) -> bool:
    """Tell whether orders were given that are known to be unreadable: those go to quarantine."""
    return isinstance(found, list) and bool(found) and all(getattr(one, "header", 0) is None for one in found)


def test_every_answer_is_read_within_bounds(asking: Asking) -> None:
    calls = walk(asking)
    assert len(calls) >= 5
    with memory() as grown:
        for call, (question, *_) in calls.items():
            for kind, change in {**FATAL, **ODD}.items():
                error = asking.ask(question, change, call)
                if kind in FATAL and not optional(call, question) and not unreadable(error):
                    assert isinstance(error, FluxError), f"{call}: {kind}"
                    assert asking.played.connection.key in str(error), f"{call}: {kind}"
                    assert error.next_step
        assert grown() < 128 * MB


def goes_on(body: bytes, cursor: bytes) -> bytes:
    """Return an answer of GraphQL whose outermost connections have a further page."""
    found = json.loads(body)
    level = [found]
    while level and not any("pageInfo" in one for one in level):
        level = [value for one in level for value in one.values() if isinstance(value, dict)]
    for one in level:
        if "pageInfo" in one:
            one["pageInfo"] = {"hasNextPage": True, "endCursor": json.loads(cursor)}
    return json.dumps(found).encode()


def never_ending(name: Callable[[int], int]) -> Change:
    """Let every page be followed by one more, in each provider's way; `name` gives the next page's number."""
    given = 0

    def change(answer: Answer) -> Answer:
        nonlocal given
        number = name(given)
        given += 1
        cursor = b'"again-%d"' % number
        body = goes_on(answer.body, cursor) if b'"pageInfo"' in answer.body else answer.body
        if body.startswith(b"{") and b'"data"' not in body[:200]:
            body = b'{"cursor":' + cursor + re.sub(rb'"cursor": ?"[^"]*",?', b"", body.replace(b"{", b",", 1))
            body = body.replace(b",}", b"}")
        headers = {
            "Link": f'<http://provider/list?page={number + 2}>; rel="next"',
            "toast-next-page-token": cursor.decode(),
        }
        return Answer({**answer.headers, **headers}, body)

    return change


PAGES: dict[str, Callable[[int], int]] = {
    "the same cursor for ever": lambda _: 0,
    "a circle of three": lambda number: number % 3,
    "ever new cursors for the same page": lambda number: number,
}


def test_pages_that_never_end_are_noticed(asking: Asking) -> None:
    paged = 0
    asked = [(call, question, usual) for call, of in walk(asking).items() for question, usual in of.items()]
    for call, question, usual in asked:
        noticed = set()
        for kind, name in PAGES.items():
            found = asking.ask(question, never_ending(name), call, again=True)
            if isinstance(found, BadResponseError) and "do not end" in found.what:
                noticed.add(kind)
                assert asking.played.connection.key in str(found)
                assert found.next_step
            elif not optional(call, question):
                assert asking.proxy.calls.count(call) <= usual, f"{call}: {kind}: {found}"
        assert noticed in (set(), set(PAGES)), call
        paged += bool(noticed)
    assert paged >= 2
