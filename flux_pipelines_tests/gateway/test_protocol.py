"""The cap on connections: who has kept a request unfinished for longest goes first."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flux_pipelines.gateway.protocol import guarded_protocol

MOST = 20


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    protocol = guarded_protocol(head_seconds=30, body_seconds=30, most_connections=MOST)
    assert issubclass(protocol, HttpToolsProtocol), "the parser in C"
    config = uvicorn.Config(PlainTextResponse("fine"), http=protocol, ws="none", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[:2]
        server.should_exit = True
        thread.join(10)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"fine"):
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return answer


def gone(connection: socket.socket) -> bool:
    connection.settimeout(2)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_those_that_dawdle_make_room_for_those_that_ask(address: tuple[str, int]) -> None:
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
