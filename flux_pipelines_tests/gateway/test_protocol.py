"""What one connection and one address can make the gateway hold: heads, waiting, answers nobody reads, places."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flux_pipelines.gateway.protocol import MOST_HEAD_BYTES, guarded_protocol

MOST, OF_ONE = 20, 12
LARGE = 16_000_000
Address = tuple[str, int]


async def small(request: Request) -> Response:
    await request.body()
    return PlainTextResponse("fine")


async def large(request: Request) -> Response:
    return Response(b"x" * LARGE)


async def slow(request: Request) -> Response:
    await asyncio.sleep(0.1)
    return PlainTextResponse("fine")


APP = Starlette(routes=[Route("/", small, methods=["GET", "POST"]), Route("/large", large), Route("/slow", slow)])


@contextlib.contextmanager
def serving(**limits: Any) -> Iterator[uvicorn.Server]:
    """A server with these limits and otherwise patient ones; its `servers` tell where."""
    proxies = limits.pop("proxies", [])
    protocol = guarded_protocol(**{"head_seconds": 30, "body_seconds": 30, "write_seconds": 30, **limits})
    assert issubclass(protocol, HttpToolsProtocol), "the parser in C"
    config = uvicorn.Config(
        APP, http=protocol, ws="none", log_level="critical", proxy_headers=bool(proxies), forwarded_allow_ips=proxies
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server
        server.should_exit = server.force_exit = True
        thread.join(10)


def where(server: uvicorn.Server) -> Address:
    address: Address = server.servers[0].sockets[0].getsockname()
    return address


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with serving(most_connections=MOST) as server:
        yield where(server)


@pytest.fixture
def dial() -> Iterator[Any]:
    """Opens connections, from any address of this machine, and closes them in the end."""
    with contextlib.ExitStack() as opened:

        def connect(address: Address, sent: bytes = b"", *, source: str = "127.0.0.1", room: int = 0) -> socket.socket:
            connection = opened.enter_context(socket.socket())
            connection.settimeout(5)
            if room:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            connection.bind((source, 0))
            connection.connect(address)
            connection.sendall(sent)
            return connection

        yield connect


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"fine"):
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return answer


def gone(connection: socket.socket, seconds: float = 2) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def answer(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


# --- heads ---

BEGIN = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
CHUNKED = BEGIN + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"


#: It is noticed with the next 16 KiB.
ENOUGH = MOST_HEAD_BYTES + 16_384


def pieces(whole: bytes, size: int = 16_384) -> list[bytes]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


@pytest.mark.parametrize("size", [1_000, 16_384, 10**6], ids=["small pieces", "pieces", "at once"])
@pytest.mark.parametrize(
    "whole",
    [
        BEGIN + b"x-long: " + b"a" * ENOUGH,
        BEGIN + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 1000) for n in range(80)),
        BEGIN + b"a:\r\n" * (MOST_HEAD_BYTES // 32),
        b"GET /" + b"a" * ENOUGH,
        CHUNKED + b"x-trailer: " + b"a" * ENOUGH,
        CHUNKED + b"a:\r\n" * (MOST_HEAD_BYTES // 32),
    ],
    ids=["one long header", "long headers", "many headers", "a long path", "a long trailer", "many trailers"],
)
def test_a_head_beyond_64_kib_is_refused_while_it_arrives(address: Address, dial: Any, whole: bytes, size: int) -> None:
    connection = dial(address)
    cut = False
    try:
        for piece in pieces(whole, size):
            connection.sendall(piece)
            time.sleep(0.001)
    except ConnectionError:
        cut = True  # closed while more was sent: the answer may be lost with it
    told = answer(connection)

    assert told.startswith(b"HTTP/1.1 431 ") or (cut and told == b"")
    assert ask(dial(address)).endswith(b"fine")


def test_a_head_just_below_64_kib_and_a_large_body_are_taken(address: Address, dial: Any) -> None:
    body = b"x" * 500_000
    head = BEGIN + b"x-long: " + b"a" * (MOST_HEAD_BYTES - 1000) + b"\r\ncontent-length: %d\r\n\r\n" % len(body)

    assert answer(dial(address, head + body)).endswith(b"fine")


def test_requests_behind_one_that_is_being_answered_are_few(dial: Any) -> None:
    with serving() as server:
        connection = dial(where(server), b"GET /large HTTP/1.1\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 5_000, room=4096)
        assert len(answer(connection)) < LARGE
        assert server.server_state.total_requests <= 20
        assert ask(dial(where(server))).endswith(b"fine")


def test_what_is_no_http_is_refused_and_not_logged(
    address: Address, dial: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        assert answer(dial(address, b"\x16\x03\x01 no HTTP\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    upgrade = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert ask(dial(address, upgrade)).startswith(b"HTTP/1.1 200 ")
    assert not caplog.records


def test_who_leaves_while_requests_wait_behind_the_one_that_is_answered_leaves_no_error(
    dial: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        for _ in range(5):
            connection = dial(where(server), b"GET /slow HTTP/1.1\r\n\r\n" * 3)
            until(lambda: server.server_state.tasks)
            connection.close()
            until(lambda: not server.server_state.tasks)
    assert not caplog.records


# --- answers that nobody reads ---


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"], ids=["kept open", "closing"])
def test_who_does_not_read_the_answer_is_ended(dial: Any, more: bytes) -> None:
    with serving(write_seconds=0.5) as server:
        dial(where(server), b"GET /large HTTP/1.1\r\n" + more + b"\r\n", room=4096)
        until(lambda: len(server.server_state.connections) == 1)
        until(lambda: not server.server_state.connections)
        until(lambda: not server.server_state.tasks)


def test_who_reads_slowly_gets_the_whole_answer(dial: Any) -> None:
    with serving(write_seconds=0.5) as server:
        connection = dial(where(server), b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n")
        received = 0
        while part := connection.recv(10**6):
            received += len(part)
            time.sleep(0.005)
    assert received > LARGE


def test_who_does_not_read_makes_room_first(dial: Any) -> None:
    with serving(write_seconds=2.0, most_connections=MOST) as server:
        there = where(server)
        dawdlers = [dial(there, b"GET / HTTP/1.1\r\nx-slow: ") for _ in range(MOST - 2)]
        stalled = dial(there, b"GET /large HTTP/1.1\r\n\r\n", room=4096)
        until(lambda: any(one._stalled_at for one in list(server.server_state.connections)))
        assert ask(dial(there)).endswith(b"fine")
        assert len(dawdlers) + 2 == len(server.server_state.connections)
        assert ask(dial(there)).endswith(b"fine")
        assert len(answer(stalled)) < LARGE
        assert not any(gone(one, seconds=0.05) for one in dawdlers)


def until(holds: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- places ---


def test_those_that_dawdle_make_room_for_those_that_ask(address: Address) -> None:
    with socket.create_connection(address, timeout=5) as honest:
        assert ask(honest).endswith(b"fine")
        dawdlers = []
        for _ in range(MOST + 5):
            dawdler = socket.create_connection(address, timeout=5)
            dawdler.sendall(b"GET / HTTP/1.1\r\nx-slow: ")
            dawdlers.append(dawdler)
            time.sleep(0.01)
        try:
            # The idle connection between two requests was not among those that went.
            assert ask(honest).endswith(b"fine")
            assert gone(dawdlers[0])
            assert not gone(dawdlers[-1])
        finally:
            for dawdler in dawdlers:
                dawdler.close()


def test_one_address_has_its_share_only_and_others_keep_theirs(dial: Any) -> None:
    with serving(most_connections=MOST, most_of_one_address=OF_ONE) as server:
        there = where(server)
        others = [dial(there, source="127.0.0.2") for _ in range(3)]
        assert all(ask(one).endswith(b"fine") for one in others)
        # Those that have asked and idle, and those that dawdle: neither can take the places of another address.
        greedy = [dial(there) for _ in range(OF_ONE)]
        assert all(ask(one).endswith(b"fine") for one in greedy)
        greedy += [dial(there, b"GET / HTTP/1.1\r\nx-slow: ") for _ in range(MOST)]
        until(lambda: len(server.server_state.connections) == OF_ONE + 3)
        assert all(ask(one).endswith(b"fine") for one in others)
        assert any(gone(one, seconds=0.05) for one in greedy[:OF_ONE])


def test_of_those_that_idle_the_one_that_has_for_longest_makes_room(dial: Any) -> None:
    with serving(most_of_one_address=3) as server:
        idle = [dial(where(server)) for _ in range(3)]
        for one in idle:
            assert ask(one).endswith(b"fine")
            time.sleep(0.01)
        assert ask(dial(where(server))).endswith(b"fine")
        assert [gone(one, seconds=0.2) for one in idle] == [True, False, False]


def test_a_trusted_proxy_brings_everybody_and_has_no_share(dial: Any) -> None:
    with serving(most_of_one_address=2, proxies=["127.0.0.0/30"]) as server:
        several = [dial(where(server)) for _ in range(6)]
        assert all(ask(one).endswith(b"fine") for one in several)
        strangers = [dial(where(server), source="127.0.0.9") for _ in range(3)]
        assert ask(strangers[2]).endswith(b"fine")
        assert sum(gone(one, seconds=0.3) for one in strangers[:2]) == 1
