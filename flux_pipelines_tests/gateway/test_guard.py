"""The guard around every request: headers, host, TLS, proxies, size of bodies, and what is told when something breaks."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from flux_pipelines.domain.errors import StateUnavailableError
from flux_pipelines.gateway import health
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.gateway.people import Browser
from flux_pipelines_tests.gateway.routes import every_route, filled


def raw(gateway: RunningGateway, request: bytes) -> bytes:
    """Send bytes as they are; return how the answer begins."""
    port = int(gateway.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (chunk := connection.recv(65536)):
            answer += chunk
        return answer


# --- headers ---


@pytest.mark.parametrize(
    ("method", "path"),
    [*every_route(), ("GET", "/nothing-here"), ("GET", "/static/flux.css"), ("PUT", "/sign-in")],
    ids=str,
)
def test_every_answer_has_the_security_headers(ada: Browser, method: str, path: str) -> None:
    headers = ada.request(method, filled(path)).headers

    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers
    assert "x-powered-by" not in headers
    if path.startswith("/static/"):
        assert "no-store" not in headers.get("cache-control", "")
    else:
        assert headers["cache-control"].lower() == "no-store"
    for name in ("location", "content-type"):
        assert "flux_session" not in headers.get(name, "")


def test_pages_name_their_character_set(browser: Browser) -> None:
    assert browser.get("/sign-in").headers["content-type"] == "text/html; charset=utf-8"
    assert browser.get("/healthz").headers["content-type"] == "text/plain; charset=utf-8"


def test_pages_have_nothing_inline_and_nothing_from_elsewhere(ada: Browser) -> None:
    """The policy would keep a browser from running it: then it must not be there either."""
    for path in ("/sign-in", "/connections", "/nothing-here", "/integrations/square/connect", "/tokens"):
        text = ada.get(path, follow_redirects=True).text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert "<script>" not in text
        assert 'src="http' not in text
        assert 'rel="stylesheet" href="/static/' in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS"])
def test_methods_that_nothing_needs_are_refused(ada: Browser, method: str) -> None:
    for path in ("/sign-in", "/api/v1/me", "/connections", "/healthz"):
        assert ada.request(method, path).status_code in (400, 404, 405)


# --- which host, and through what ---


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "localhost:{port}",
        "127.0.0.1:{port}.evil.example",
        "127.0.0.1:{port}@evil.example",
        "",
        "127.0.0.1:1",
    ],
)
def test_another_host_name_is_refused(gateway: RunningGateway, host: str) -> None:
    port = gateway.url.rpartition(":")[2]
    answer = httpx.get(f"{gateway.url}/sign-in", headers={"host": host.format(port=port)}, trust_env=False)

    assert answer.status_code == 421
    assert "evil" not in answer.text


def test_no_host_name_and_two_host_names_are_refused(gateway: RunningGateway) -> None:
    own = gateway.options.public_host.encode()
    assert raw(gateway, b"GET /sign-in HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")
    two = b"GET /sign-in HTTP/1.1\r\nHost: %s\r\nHost: evil.example\r\nConnection: close\r\n\r\n" % own
    assert raw(gateway, two).startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))


def test_forwarding_headers_of_strangers_change_nothing(gateway: RunningGateway, browser: Browser) -> None:
    headers = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "x-forwarded-for": "10.9.9.9",
        "forwarded": "host=evil.example;proto=https",
    }
    answer = browser.get("/connections", headers=headers)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")
    assert "strict-transport-security" not in answer.headers


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that a proxy at 127.0.0.1 ends TLS for."""
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        public_url="https://flux.example.com",
        trusted_proxies="127.0.0.1",
        allowed_people="ada@example.com",
    )
    with Runtime(settings, patient=False) as rooms, RunningGateway(rooms) as running:
        rooms.state.apps.put(
            "github", {"base_url": "https://github.com"}, {"client_id": "x", "client_secret": "secret-x"}
        )
        yield running


def test_behind_a_proxy_only_what_came_through_tls_is_served(behind_proxy: RunningGateway) -> None:
    def get(path: str, **headers: str) -> httpx.Response:
        sent = {"host": "flux.example.com"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(behind_proxy.url + path, headers=sent, trust_env=False)

    for wrong in (
        {},
        {"x_forwarded_proto": "http"},
        {"x_forwarded_proto": "https, http"},
        {"forwarded": "proto=https"},
    ):
        answer = get("/sign-in/github", **wrong)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    right = get("/sign-in/github", x_forwarded_proto="https", x_forwarded_for="203.0.113.7")

    assert right.status_code == 303
    assert right.headers["set-cookie"].startswith("__Host-flux=")
    assert "Secure" in right.headers["set-cookie"]
    assert right.headers["strict-transport-security"] == "max-age=31536000"
    assert "redirect_uri=https%3A%2F%2Fflux.example.com%2Fsign-in%2Fgithub%2Fcallback" in right.headers["location"]


def test_load_balancers_may_ask_for_health_without_tls_and_by_address(behind_proxy: RunningGateway) -> None:
    assert httpx.get(f"{behind_proxy.url}/healthz", trust_env=False).text == "ok\n"
    assert httpx.get(f"{behind_proxy.url}/readyz", trust_env=False).text == "ready\n"


def test_forwarding_headers_of_another_address_are_not_believed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, public_url="https://flux.example.com", trusted_proxies="10.0.0.5")
    with Runtime(settings, patient=False) as rooms, RunningGateway(rooms) as running:
        headers = {"host": "flux.example.com", "x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.5"}
        answer = httpx.get(f"{running.url}/sign-in", headers=headers, trust_env=False)

    assert answer.status_code == 403


def test_it_ends_tls_itself(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    settings = Settings(home=tmp_path / "home", tls_certificate=certificate, tls_key=key, allowed_people="@example.com")
    with Runtime(settings, patient=False) as rooms, RunningGateway(rooms) as running:
        assert running.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(certificate))
        answer = httpx.get(f"{running.url}/sign-in", verify=trusting, trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        # Old protocols are refused by the handshake.
        old = ssl.create_default_context(cafile=str(certificate))
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/sign-in", verify=old, trust_env=False)
        # And plain HTTP gets nothing at all.
        with pytest.raises(httpx.HTTPError):
            httpx.get(running.url.replace("https", "http") + "/sign-in", trust_env=False)


def _certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "gateway.crt", folder / "gateway.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


# --- bodies ---


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/connections/square:acme/syncs", 413), ("/sign-out", 303), ("/nothing-here", 404)],
)
def test_a_large_body_of_a_stranger_is_not_waited_for(gateway: RunningGateway, path: str, status: int) -> None:
    host = gateway.options.public_host
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n"
    answer = raw(gateway, head.encode() + b"{")

    assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:200]


def test_a_large_body_without_a_length_is_refused_while_it_is_read(ada: Browser) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"csrf="
        for _ in range(40):
            yield b"a" * 16_384

    answer = ada.post(
        "/sign-out",
        content=chunks(),
        headers={"content-type": "application/x-www-form-urlencoded", "origin": ada.gateway.url},
    )
    assert answer.status_code == 413
    assert ada.get("/api/v1/me").status_code == 200


def test_a_large_body_with_a_request_for_a_file_leaves_no_error(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"GET /static/flux.css HTTP/1.1\r\nHost: {gateway.options.public_host}\r\nConnection: close\r\n"
    for length in ("Content-Length: 300000", "Transfer-Encoding: chunked"):
        body = b"a" * 300_000 if length.startswith("C") else b"493e0\r\n" + b"a" * 300_000 + b"\r\n0\r\n\r\n"
        assert raw(gateway, f"{head}{length}\r\n\r\n".encode() + body).startswith(b"HTTP/1.1 200")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("length", ["-1", "x", "1e9", "+5", "99999999999999999999999"])
def test_a_length_that_is_no_number_is_refused(gateway: RunningGateway, length: str) -> None:
    host = gateway.options.public_host
    head = f"POST /sign-out HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    answer = raw(gateway, head.encode())

    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), answer[:200]


def test_a_request_with_two_lengths_is_refused(gateway: RunningGateway) -> None:
    """Request smuggling: a proxy in front and we must not disagree about where a request ends."""
    host = gateway.options.public_host.encode()
    both = (
        b"POST /sign-out HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        % host
    )
    twice = b"POST /sign-out HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!" % host

    assert raw(gateway, both).startswith(b"HTTP/1.1 400")
    assert raw(gateway, twice).startswith(b"HTTP/1.1 400")


# --- when something breaks ---


def test_an_unexpected_error_tells_nothing_and_the_log_hides_secrets(
    ada: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("at postgresql://flux:hunter2-secret@db/flux with Bearer abcdefghijklmnop")

    monkeypatch.setattr(ada.gateway.app.state.runtime.state.alerts, "open", broken)
    answer = ada.get("/api/v1/alerts")

    assert answer.status_code == 500
    assert "content-security-policy" in answer.headers
    assert "RuntimeError" not in answer.text
    assert "hunter2" not in answer.text
    reference = answer.text.strip().rstrip(".").rpartition(" ")[2]
    written = "\n".join(
        logging.Formatter().format(record) for record in caplog.records if record.name == "flux_pipelines.gateway"
    )
    assert reference in written
    assert "RuntimeError" in written
    assert "hunter2" not in written
    assert "abcdefghijklmnop" not in written


def test_a_database_that_does_not_answer_is_said_without_where_it_is(
    ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise StateUnavailableError("the state database /secret/place cannot be used now (locked)")

    monkeypatch.setattr(ada.gateway.app.state.runtime.state.database, "migrate", down)
    ada.gateway.app.state.readiness = (float("-inf"), False)
    answer = httpx.get(f"{ada.gateway.url}/readyz", trust_env=False)
    ada.gateway.app.state.readiness = (float("-inf"), False)

    assert (answer.status_code, answer.text) == (503, "not ready\n")
    assert httpx.get(f"{ada.gateway.url}/healthz", trust_env=False).status_code == 200


def test_readiness_asks_the_database_once_a_second_however_often_strangers_ask(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = gateway.app.state.runtime.state.database
    asked: list[int] = []
    real = database.migrate
    monkeypatch.setattr(database, "migrate", lambda: (asked.append(1), real())[1])
    clock = [time.monotonic()]
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    gateway.app.state.readiness = (float("-inf"), False)

    for seconds, times in ((0.0, 1), (0.9, 1), (0.2, 2)):
        clock[0] += seconds
        for _ in range(5):
            assert httpx.get(f"{gateway.url}/readyz", trust_env=False).status_code == 200
        assert len(asked) == times


def test_a_web_socket_is_refused(gateway: RunningGateway) -> None:
    host = gateway.options.public_host
    request = (
        f"GET /connections HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert not raw(gateway, request.encode()).startswith(b"HTTP/1.1 101")
