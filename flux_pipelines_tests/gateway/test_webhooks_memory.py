"""A gateway under a flood of what it refuses: its memory stays flat, and honest senders still get through."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.gateway.webhook_process import GatewayProcess
from flux_pipelines_tests.gateway.webhookwire import Sender, dial, event, read_all, register, request, send, status_of

MIB = 1024
TEN_MB = 10_000_000


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Runtime(Settings(home=tmp_path), patient=False) as runtime:
        register(runtime, f"http://127.0.0.1:{port}")
    process = GatewayProcess(tmp_path, port)
    try:
        process.start()
        yield process
    finally:
        process.close()


def flood(url: str, times: int) -> None:
    """Everything that costs memory somewhere, `times` over: large bodies, told and untold, whole and cut, forged."""
    large = b"x" * 200_000
    told = request(url, b"", "forged", length=TEN_MB)
    untold = told.replace(f"content-length: {TEN_MB}".encode(), b"transfer-encoding: chunked")
    below_the_cap = request(url, b"x" * 1_000_000, "forged")
    for n in range(times):
        with dial(url) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(told + large)
            assert status_of(read_all(connection)) in (413, 0)
        if n % 20 == 0:
            with dial(url) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(untold)
                for _ in range(TEN_MB // len(large)):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(large), large))
            with dial(url) as connection:
                connection.sendall(below_the_cap)
                assert status_of(connection.recv(65536)) == 403
        if n % 200 == 0:
            # Slow ones, all at once: silent, half a head, most of a body.
            slow = [dial(url) for _ in range(300)]
            for number, connection in enumerate(slow):
                connection.sendall((b"", told[:40], below_the_cap[:60_000])[number % 3])
            for connection in slow:
                connection.close()


def test_memory_is_flat_under_refusals(gateway: GatewayProcess, tmp_path: Path) -> None:
    url = f"{gateway.url}/webhooks/square"
    # The same once before, and honest events: what is allocated once and kept is not growth.
    flood(url, 300)
    Sender(url).deliver((f"warm-{n}", event(f"warm-{n}")) for n in range(300))
    before = gateway.resident_kib()
    flood(url, 2_000)
    after = gateway.resident_kib()
    assert after - before < 24 * MIB, f"{before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after"
    with httpx.Client(timeout=20, trust_env=False) as client:
        assert send(client, url, event("honest")).status_code == 200
    with Runtime(Settings(home=tmp_path), patient=False) as runtime:
        assert sum(runtime.state.inbox.counts().values()) == 301, "the honest ones and nothing else"
    log = (tmp_path / "gateway.log").read_text()
    assert log.count("\n") < 100, "a line every ten seconds, not one each"
    assert "Traceback" not in log
