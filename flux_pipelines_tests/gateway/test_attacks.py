"""Deep, long, wide, compressed, slow and endless input to every route and every webhook endpoint, of a stranger and inside."""

from __future__ import annotations

import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from benchmarks.attack import FORGED, bodies, holding, memory_mib, requests, status_of
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.gateway.routes import every_route, filled
from flux_pipelines_tests.gateway.webhook_process import GatewayProcess
from flux_sandbox.options import SandboxOptions
from flux_sandbox.registry import build
from flux_sandbox.world import World

KEY = "a-signature-key-of-the-tests"
NOW = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
#: How much more than before all of it the gateway may hold at any time: what is read at once, of 8 senders and those held.
MOST_MIB = 96
WEBHOOKS = sorted(name for name, spec in all_providers().items() if spec.webhooks is not None)


class Attacked:
    """`flux gateway` in a process of its own, with every provider's webhooks, a session and a token."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.process = GatewayProcess(home, port)
        self.url, self.host, self.address = self.process.url, f"127.0.0.1:{port}", ("127.0.0.1", port)
        self.log = home / "gateway.log"
        world = World(SandboxOptions(history_days=1))
        self.senders = {name: build(name, world).webhooks for name in WEBHOOKS}
        with Runtime(Settings(home=home), patient=False) as runtime:
            for name in WEBHOOKS:
                settings = {"base_url": "http://127.0.0.1:9", "notification_url": f"{self.url}/webhooks/{name}"}
                secrets = {"client_id": "id", "client_secret": KEY, "webhook_signature_key": KEY}
                runtime.state.apps.put(name, settings, secrets)
            session = runtime.state.people.sign_in("google:ada", "ada@example.com", "Ada")
            _, token = runtime.state.api_tokens.create("machine", "ada@example.com")
        self.inside = {
            "/api/": f"authorization: Bearer {token}\r\n",
            "/": f"cookie: flux_session={session}\r\norigin: {self.url}\r\nsec-fetch-site: same-origin\r\n",
        }

    def everything(self) -> Iterator[tuple[str, bytes]]:
        for method, path in [*every_route(), ("GET", "/static/flux.css"), ("GET", "/nothing-here")]:
            target = filled(path)
            callers = (
                ("",) if path.startswith("/webhooks/") else ("", self.inside["/api/" * path.startswith("/api/") or "/"])
            )
            for more in callers:
                for name, sent in requests(method, target, self.host, more):
                    yield f"{method} {target}{' inside' * bool(more)}: {name}", sent
        for method, path in every_route():
            forged = re.sub(r"\{\w+\}", quote(f"\r\n{FORGED}"), path)
            head = f"{method} {forged} HTTP/1.1\r\nhost: {self.host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            yield f"{method} {path}: a name with a line for the log", head.encode()
        for name in WEBHOOKS:
            for what, (_, body) in bodies().items():
                for signed in (body, b'{"timestamp":"%s","guid":"g","data":' % NOW.encode() + body + b"}"):
                    headers = self.senders[name].signed(f"{self.url}/webhooks/{name}", KEY, signed)
                    lines = "".join(f"{header}: {value}\r\n" for header, value in headers.items())
                    head = f"POST /webhooks/{name} HTTP/1.1\r\nhost: {self.host}\r\nconnection: close\r\n{lines}"
                    yield (
                        f"{name}, signed: {what}",
                        f"{head}content-length: {len(signed)}\r\n\r\n".encode() + signed,
                    )


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("FLUX_ALLOWED_PEOPLE", "ada@example.com")
    attacked = Attacked(tmp_path_factory.mktemp("home"))
    try:
        attacked.process.start()
        yield attacked
    finally:
        attacked.process.close()
        monkeypatch.undo()


def probe(url: str, over: threading.Event, taken: list[float]) -> None:
    while not over.wait(0.05):
        began = time.monotonic()
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
            assert answer.read() == b"ok\n"
        taken.append(time.monotonic() - began)


def test_no_input_breaks_the_gateway_fills_its_memory_or_writes_its_log(attacked: Attacked) -> None:
    """The cost of all of it is bounded, and health is told meanwhile."""
    paths = sorted({filled(path) for _, path in every_route()})
    over, taken = threading.Event(), list[float]()
    with ThreadPoolExecutor(9) as threads:
        list(threads.map(lambda path: status_of(attacked.address, plain(attacked, path)), paths))
        before = memory_mib(attacked.process.pid)
        prober = threads.submit(probe, attacked.url, over, taken)
        try:
            with holding(attacked.address, attacked.host, paths):
                told = list(
                    threads.map(lambda one: (one[0], status_of(attacked.address, one[1])), attacked.everything())
                )
        finally:
            over.set()
        prober.result()
    most = memory_mib(attacked.process.pid, "VmHWM")
    log = attacked.log.read_text().partition("\n")[2]  # the first line is for whoever has started it

    broken = [f"{name} ({status})" for name, status in told if status >= 500]
    assert not broken, "\n".join(broken)
    assert {200, 400, 401, 403, 404, 422} <= {status for _, status in told}, "they get to what is behind"
    assert max(taken) < 5, "seconds, on a machine that does everything else too"
    assert most - before < MOST_MIB, f"{before:.0f} MiB before, {most:.0f} at most"
    assert "Traceback" not in log
    assert FORGED in log, "it was tried"
    assert all(re.match(r"20\d\d-\d\d-\d\d [\d:,]+ (INFO|WARNING|ERROR) ", line) for line in log.splitlines())
    assert not any(line.startswith(FORGED) for line in log.splitlines())


def plain(attacked: Attacked, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {attacked.host}\r\nconnection: close\r\n\r\n".encode()
