"""A real HTTP server on loopback whose answers a test scripts, and the small parts a transport is made of."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from flux_pipelines.transport import CallRecord, RetryPolicy, SqliteLimitStore, Transport


@dataclass(frozen=True)
class Seen:
    """A request as the server received it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Reply:
    """What the server does: answer, cut the body off after `cut` bytes, or hang up without a word."""

    status: int = 200
    body: bytes = b'{"ok":true}'
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang_up: bool = False
    delay: float = 0.0


Script = Callable[[Seen], Reply]


@dataclass
class Server:
    url: str
    seen: list[Seen] = field(default_factory=list)


@contextmanager
def serve(script: Script) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            at = time.monotonic()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body, at)
            server.seen.append(seen)
            reply = script(seen)
            time.sleep(reply.delay)
            if reply.hang_up:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut])
            if reply.cut is not None:
                self.close_connection = True

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hung up is part of some tests

    http = Quiet(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def sequence(*replies: Reply) -> Script:
    """Answer with each reply in turn, and with the last one for ever."""
    left = list(replies)
    mutex = threading.Lock()

    def script(_: Seen) -> Reply:
        with mutex:
            return left.pop(0) if len(left) > 1 else left[0]

    return script


class Audit:
    """Keeps records in memory."""

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []

    def record(self, call: CallRecord) -> None:
        self.calls.append(call)


class StaticToken:
    """Credentials that count how often they were renewed."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)
        self.renewals: list[str] = []

    def token(self) -> str:
        return self._tokens[0]

    def renew(self, rejected: str) -> str:
        self.renewals.append(rejected)
        if len(self._tokens) > 1:
            self._tokens.pop(0)
        return self._tokens[0]


@contextmanager
def transport(folder: Path, audit: Audit | None = None, **options: object) -> Iterator[Transport]:
    """A transport over SQLite whose waits between attempts take no time."""
    options.setdefault("retry_policy", RetryPolicy(waiting=False))
    made = Transport(
        SqliteLimitStore(folder / "limits.db"),
        audit or Audit(),
        user_agent="flux-tests",
        **options,  # type: ignore[arg-type]
    )
    try:
        yield made
    finally:
        made.close()


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """A function that returns by how many bytes this process has been larger, at most, than it was at the beginning."""

    def highest() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now
    began = highest()
    yield lambda: highest() - began
