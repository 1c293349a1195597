"""A token endpoint on loopback whose refresh tokens are good once, and its client."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flux_pipelines.domain.errors import ProviderUnavailableError, ReauthorizationNeededError


@dataclass
class TokenSet:
    access_token: str
    refresh_token: str | None
    expires_at: datetime | None
    refresh_expires_at: datetime | None = None


class TokenEndpoint:
    """Counts what it is asked. `delay` (s) holds each answer back; `failures` of the next answers are 503."""

    def __init__(self) -> None:
        self.generation = 0
        self.delay = 0.0
        self.life = 3600.0
        self.failures = 0
        self.asked = 0
        self.revoked = False
        self.in_flight = threading.Event()
        self._mutex = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, answer = outer._answer(body["refresh_token"])
                content = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    return  # the caller was killed

            def log_message(self, *args: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/oauth2/token"

    def __enter__(self) -> TokenEndpoint:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def refresh_token(self) -> str:
        return f"refresh-{self.generation}"

    @property
    def access_token(self) -> str:
        return f"access-{self.generation}"

    def _answer(self, presented: str) -> tuple[int, dict[str, str]]:
        with self._mutex:
            self.asked += 1
            delay = self.delay
        self.in_flight.set()
        threading.Event().wait(delay)
        with self._mutex:
            if self.failures:
                self.failures -= 1
                return 503, {"error": "temporarily_unavailable"}
            if self.revoked or presented != self.refresh_token:
                return 400, {"error": "invalid_grant"}
            self.generation += 1
            expires = datetime.now(UTC) + timedelta(seconds=self.life)
            return 200, {
                "access_token": self.access_token,
                "refresh_token": self.refresh_token,
                "expires_at": expires.isoformat(),
            }


def refresher(url: str) -> Callable[[str], TokenSet]:
    def refresh(token: str) -> TokenSet:
        request = urllib.request.Request(url, json.dumps({"refresh_token": token}).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                fresh = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 400:
                    raise ReauthorizationNeededError("the refresh token was refused (invalid_grant)") from None
            raise ProviderUnavailableError("the token endpoint answered 503") from None
        return TokenSet(fresh["access_token"], fresh["refresh_token"], datetime.fromisoformat(fresh["expires_at"]))

    return refresh
