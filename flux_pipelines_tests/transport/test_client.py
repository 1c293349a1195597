from __future__ import annotations

import gzip
import logging
import pickle
import random
import socket
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from flux_pipelines.domain.errors import (
    AmbiguousSendError,
    BadRequestError,
    BadResponseError,
    CircuitOpenError,
    ConfigurationError,
    FluxError,
    PermissionLostError,
    ProviderUnavailableError,
    RateLimitedError,
    ReauthorizationNeededError,
)
from flux_pipelines.providers.base import Concurrency, RateLimit
from flux_pipelines.transport import (
    AnsweredError,
    BreakerPolicy,
    RefusedError,
    RetryPolicy,
    Transport,
    TransportClosedError,
    metered,
)
from flux_pipelines.transport.client import ApiClient, Timeout
from flux_pipelines_tests.transport.server import (
    Audit,
    Reply,
    Script,
    Seen,
    StaticToken,
    memory,
    sequence,
    serve,
    transport,
)

TOKEN = "a1B2c3D4e5F6g7H8i9J0"
OTHER_TOKEN = "z9Y8x7W6v5U4t3S2r1Q0"
HTML = Reply(200, b"<!DOCTYPE html><html>Please wait</html>", {"Content-Type": "text/html"})
FREE = [RateLimit(10_000, 60.0)]


def client_of(made: Transport, url: str, **options: Any) -> ApiClient:
    options.setdefault("credentials", StaticToken(TOKEN))
    options.setdefault("limits", FREE)
    return made.client(
        provider="square",
        connection="square:acme",
        base_url=url,
        headers={"Square-Version": "2026-09-16"},
        **options,
    )


def get(script: Script, folder: Path, audit: Audit | None = None, **options: Any) -> tuple[Any, list[Seen]]:
    """One GET against a scripted server; returns the response or the error, and what the server saw."""
    with serve(script) as server, transport(folder, audit, **options) as made:
        client = client_of(made, server.url)
        try:
            return client.request("GET", "/v2/locations", idempotent=True), server.seen
        except FluxError as error:
            return error, server.seen


def post(script: Script, folder: Path, **options: Any) -> tuple[Any, list[Seen]]:
    """One POST that must not be repeated."""
    with serve(script) as server, transport(folder, **options) as made:
        try:
            return client_of(made, server.url).request(
                "POST", "/v2/orders", json={"a": 1}, idempotent=False
            ), server.seen
        except FluxError as error:
            return error, server.seen


# ── what is sent and what comes back ────────────────────────────────────────────────────────────────────────────────────


def test_a_request_and_its_answer(tmp_path: Path) -> None:
    audit = Audit()
    body = gzip.compress(b'{"orders":[1,2]}')
    with (
        serve(lambda _: Reply(201, body, {"Content-Encoding": "gzip", "X-Kind": "page"})) as server,
        transport(tmp_path, audit) as made,
    ):
        client = client_of(made, server.url)
        response = client.request(
            "POST",
            "/v2/orders/search",
            json={"limit": 500},
            params={"page": 2},
            headers={"X-Extra": "1"},
            budget=["L1", "L2"],
            idempotent=True,
            decode=lambda content: msgspec.json.decode(content)["orders"],
        )
        assert (response.status, response.content, response.attempts) == (201, b'{"orders":[1,2]}', 1)
        assert response.value == [1, 2]
        assert response.headers["x-kind"] == "page"
        stats = client.stats
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/v2/orders/search?page=2", b'{"limit":500}')
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    assert seen.headers["square-version"] == "2026-09-16"
    assert seen.headers["user-agent"] == "flux-tests"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["x-extra"] == "1"
    (call,) = audit.calls
    assert (call.provider, call.connection, call.method, call.status) == ("square", "square:acme", "POST", 201)
    assert call.url == f"{server.url}/v2/orders/search?page=*"
    assert (call.attempt, call.bytes, call.waited, call.error) == (1, 16, 0.0, None)
    assert 0 < call.seconds < 5
    assert abs((datetime.now(UTC) - call.at).total_seconds()) < 10
    assert (stats.requests, stats.retries, stats.bytes) == (1, 0, 16)


def test_without_auth_no_token_is_sent_and_other_bodies_pass(tmp_path: Path) -> None:
    with serve(lambda _: Reply(200, b"")) as server, transport(tmp_path) as made:
        response = client_of(made, server.url).request(
            "POST",
            "/oauth2/token",
            content=b"grant_type=x",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            auth=False,
            idempotent=True,
            expect="bytes",
        )
    assert response.content == b""
    assert "authorization" not in server.seen[0].headers
    assert server.seen[0].headers["content-type"] == "application/x-www-form-urlencoded"


def test_cookies_are_not_kept(tmp_path: Path) -> None:
    with serve(lambda _: Reply(headers={"Set-Cookie": "session=1; Path=/"})) as server, transport(tmp_path) as made:
        client = client_of(made, server.url)
        for _ in range(2):
            client.request("GET", "/", idempotent=True)
    assert "cookie" not in server.seen[1].headers


def test_other_kinds_of_authorisation(tmp_path: Path) -> None:
    with serve(lambda _: Reply()) as server, transport(tmp_path) as made:
        client = client_of(made, server.url, authorize=lambda token: {"X-Api-Key": token})
        client.request("GET", "/", idempotent=True)
    assert server.seen[0].headers["x-api-key"] == TOKEN


@pytest.mark.parametrize("url", ["", "ftp://host", "host", "https://user:pw@host", "https://", "https://h?x=1"])
def test_a_wrong_base_url_is_said_at_once(url: str, tmp_path: Path) -> None:
    with transport(tmp_path) as made, pytest.raises(ConfigurationError, match="base_url"):
        client_of(made, url)


# ── retries ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500),
        Reply(503, b"Service Unavailable"),
        Reply(502, b"<html>bad gateway</html>"),
        Reply(408),
        Reply(409),
        Reply(429),
        HTML,
        Reply(200, b""),
        Reply(200, b'{"orders":[{"id":"x"'),
        Reply(200, b'{"a":1}trailing'),
        Reply(200, b'{"orders":[1,2,3]}', cut=9),
        Reply(hang_up=True),
        Reply(200, b"not gzip", {"Content-Encoding": "gzip"}),
    ],
    ids=repr,
)
def test_passing_faults_are_survived(fault: Reply, tmp_path: Path) -> None:
    audit = Audit()
    response, seen = get(sequence(fault, fault, Reply()), tmp_path, audit)
    assert response.attempts == 3
    assert len(seen) == 3
    assert [call.attempt for call in audit.calls] == [1, 2, 3]
    assert [call.error is None for call in audit.calls] == [False, False, True]


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (Reply(503, b"Service Unavailable"), ProviderUnavailableError, "was answered 503"),
        (Reply(429), RateLimitedError, "was answered 429"),
        (HTML, BadResponseError, "HTML page"),
        (Reply(200, b""), BadResponseError, "empty body"),
        (Reply(200, b'{"a":'), BadResponseError, "damaged body"),
        (Reply(200, b'{"a":1}', cut=3), BadResponseError, "no complete answer"),
        (Reply(hang_up=True), ProviderUnavailableError, "no complete answer"),
    ],
    ids=repr,
)
def test_lasting_faults_end_in_their_own_error(fault: Reply, kind: type[FluxError], text: str, tmp_path: Path) -> None:
    error, seen = get(lambda _: fault, tmp_path, breaker_policy=BreakerPolicy(failures=100))
    assert type(error) is kind
    assert error.connection == "square:acme"
    assert error.rerun_helps
    assert text in str(error)
    assert "GET" in str(error)
    assert "attempt 8" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error), "a pool's worker hands it over"
    assert len(seen) == 8


def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with transport(tmp_path, retry_policy=RetryPolicy(attempts=3, waiting=False)) as made:
        client = client_of(made, f"http://127.0.0.1:{port}")
        for idempotent in (True, False):  # nothing was sent: even a request that must not be repeated may be
            with pytest.raises(
                ProviderUnavailableError, match=r"could not be reached \(connection refused\), attempt 3"
            ):
                client.request("POST", "/", idempotent=idempotent)


def test_a_slow_answer_times_out(tmp_path: Path) -> None:
    error, seen = get(
        lambda _: Reply(delay=0.5),
        tmp_path,
        timeout=Timeout(read=0.1),
        retry_policy=RetryPolicy(attempts=2, waiting=False),
    )
    assert isinstance(error, ProviderUnavailableError)
    assert "ReadTimeout" in str(error)
    assert len(seen) == 2


def test_an_answer_that_trickles_ends_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return
                    time.sleep(0.05)

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        with transport(
            tmp_path, timeout=Timeout(total=0.3), retry_policy=RetryPolicy(attempts=1, waiting=False)
        ) as made:
            client = client_of(made, f"http://127.0.0.1:{listening.getsockname()[1]}")
            with pytest.raises(BadResponseError, match="did not end in time"):
                client.request("GET", "/", idempotent=True)
        thread.join(10)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str, tmp_path: Path) -> None:
    value = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    started = time.monotonic()
    response, seen = get(
        sequence(Reply(429, b"", {"Retry-After": value}), Reply()),
        tmp_path,
        retry_policy=RetryPolicy(base_seconds=0.01),
    )
    assert response.attempts == 2
    assert seen[1].at - seen[0].at >= 0.9
    assert time.monotonic() - started < 4


def test_a_retry_after_beyond_the_total_is_told_instead_of_waited_for(tmp_path: Path) -> None:
    body = b'{"errors":[{"code":"RATE_LIMITED","detail":"Please retry later.","category":"RATE_LIMIT_ERROR"}]}'
    error, seen = get(
        lambda _: Reply(429, body, {"Retry-After": "3600"}), tmp_path, retry_policy=RetryPolicy(total_seconds=60)
    )
    assert isinstance(error, RateLimitedError)
    assert "RATE_LIMITED: Please retry later." in str(error)
    assert "3600 s" in str(error)
    assert len(seen) == 1


def test_a_form_that_is_not_documented_is_not_asked_for_again(tmp_path: Path) -> None:
    class Page(msgspec.Struct):
        orders: list[int]

    with (
        serve(lambda _: Reply(200, b'{"orders":{"a":1}}')) as server,
        transport(tmp_path) as made,
        pytest.raises(BadResponseError, match="another form") as caught,
    ):
        client_of(made, server.url).request(
            "GET", "/", idempotent=True, decode=lambda content: msgspec.json.decode(content, type=Page)
        )
    assert not caught.value.rerun_helps
    assert len(server.seen) == 1


def test_an_answer_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    error, seen = get(lambda _: Reply(200, b"x" * 300_000), tmp_path, max_body_bytes=100_000)
    assert isinstance(error, BadResponseError)
    assert "more than 100,000 bytes" in str(error)
    assert not error.rerun_helps
    assert len(seen) == 1


MB = 1024 * 1024


def bomb(bits: int, megabytes: int = 1024) -> bytes:
    """A body that is so many megabytes when it is decompressed: about a thousandth of that."""
    made = zlib.compressobj(9, zlib.DEFLATED, bits)
    first, again = (made.compress(bytes(MB)) + made.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * (megabytes - 1)


def zstd_bomb() -> bytes:
    made = zstandard.ZstdCompressor().compressobj()
    return b"".join([*(made.compress(bytes(MB)) for _ in range(512)), made.flush()])


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(("encoding", "body"), [("gzip", bomb(31)), ("deflate", bomb(15)), ("zstd", zstd_bomb())])
def test_a_body_that_is_much_larger_than_it_comes_is_given_up_at_the_cap(
    encoding: str, body: bytes, status: int, tmp_path: Path
) -> None:
    with memory() as grown:
        error, seen = get(
            lambda _: Reply(status, body, {"Content-Encoding": encoding}), tmp_path, max_body_bytes=16 * MB
        )
        assert grown() < 48 * MB
    assert isinstance(error, BadResponseError)
    assert error.connection == "square:acme"
    assert not error.rerun_helps
    assert len(seen) == 1
    assert seen[0].headers["accept-encoding"] == "gzip, deflate"
    assert ("'zstd', which was not offered" if encoding == "zstd" else "more than 16,777,216 bytes") in str(error)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "gzip, zstd"])
def test_an_encoding_that_was_not_offered_is_refused(encoding: str, tmp_path: Path) -> None:
    error, _ = get(lambda _: Reply(200, b"anything", {"Content-Encoding": encoding}), tmp_path)
    assert isinstance(error, BadResponseError)
    assert f"{encoding!r}, which was not offered" in str(error)


@pytest.mark.parametrize("size", [0, 1, 50_000, 2 * MB])
@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_an_encoding_that_was_offered_is_decoded_to_its_last_byte(
    encoding: str, bits: int, size: int, tmp_path: Path
) -> None:
    whole = b'"' + random.Random(size).randbytes(size).hex().encode() + b'"'
    made = zlib.compressobj(1, zlib.DEFLATED, bits)
    body = made.compress(whole) + made.flush()
    answer, _ = get(lambda _: Reply(200, body, {"Content-Encoding": encoding}), tmp_path)
    assert answer.content == whole
    short = Reply(200, body[:-1], {"Content-Encoding": encoding})
    answer, seen = get(sequence(short, Reply(200, whole)), tmp_path)
    assert (answer.content, len(seen)) == (whole, 2), "one that is cut off is asked for again"


DEEP = b"[" * 1200 + b"]" * 1200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (DEEP, "nested too deeply"),
        (b'{"orders":[{"id":"a","more":' + DEEP + b"}]}", "nested too deeply"),
        (b'{"orders":[' + b"[" * 4_000_000, "nested too deeply"),
        (b"[" + b"0," * 4_000_000 + b"0]", "more than 4,000,000 values"),
    ],
)
def test_json_that_is_too_deep_or_too_wide_is_a_bad_answer(body: bytes, said: str, tmp_path: Path) -> None:
    with memory() as grown:
        error, seen = get(lambda _: Reply(200, body), tmp_path)
        assert grown() < 64 * MB
    assert isinstance(error, BadResponseError)
    assert said in str(error)
    assert error.connection == "square:acme"
    assert not error.rerun_helps
    assert len(seen) == 1


def test_an_error_answer_that_is_too_deep_is_known_by_its_status(tmp_path: Path) -> None:
    error, _ = get(lambda _: Reply(400, DEEP), tmp_path)
    assert isinstance(error, RefusedError)
    assert error.status == 400


# ── requests that must not be repeated ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fault",
    [
        Reply(hang_up=True),
        Reply(500),
        Reply(504),
        Reply(408),
        HTML,
        Reply(200, b""),
        Reply(201, b'{"a":1}', cut=2),
        Reply(200, b'"' + b"x" * 3000 + b'"'),
    ],
    ids=lambda reply: f"{reply.status}-{reply.body[:12]!r}-{reply.cut}-{reply.hang_up}",
)
def test_an_ambiguous_send_is_not_repeated(fault: Reply, tmp_path: Path) -> None:
    error, seen = post(lambda _: fault, tmp_path, max_body_bytes=2000)
    assert isinstance(error, AmbiguousSendError)
    assert "whether it took effect is unknown" in str(error)
    assert not error.rerun_helps
    assert len(seen) == 1


def test_what_was_surely_not_done_is_repeated(tmp_path: Path) -> None:
    response, seen = post(sequence(Reply(429), Reply(429), Reply()), tmp_path)
    assert response.attempts == 3
    assert len(seen) == 3


def test_a_conflict_is_told_not_repeated(tmp_path: Path) -> None:
    error, seen = post(lambda _: Reply(409), tmp_path)
    assert isinstance(error, RefusedError)
    assert len(seen) == 1


def test_a_conflict_that_will_not_pass_is_told_at_once(tmp_path: Path) -> None:
    with serve(lambda _: Reply(409)) as server, transport(tmp_path) as made:
        with pytest.raises(RefusedError) as refused:
            client_of(made, server.url).request("GET", "/v2/locations", idempotent=True, repeat_conflicts=False)
        assert refused.value.status == 409
        assert len(server.seen) == 1


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_carries_the_providers_reason(tmp_path: Path) -> None:
    body = msgspec.json.encode(
        {
            "errors": [
                {"category": "INVALID_REQUEST_ERROR", "code": "INVALID_CURSOR", "detail": "Cursor expired."},
                {"category": "INVALID_REQUEST_ERROR", "code": "BAD_REQUEST", "detail": "x"},
            ]
        }
    )
    error, seen = get(lambda _: Reply(400, body), tmp_path)
    assert isinstance(error, RefusedError)
    assert isinstance(error, BadRequestError)
    assert (error.status, error.codes) == (400, ("INVALID_CURSOR", "BAD_REQUEST"))
    assert "400 (INVALID_CURSOR, BAD_REQUEST: Cursor expired.)" in str(error)
    assert not error.rerun_helps
    assert len(seen) == 1
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.status, copy.codes) == (str(error), 400, error.codes)


@pytest.mark.parametrize(
    ("body", "codes", "text"),
    [
        (b"<html>no</html>", (), "an HTML page"),
        (b"", (), ""),
        (b"[1,2]", (), ""),
        (b'"x"', (), ""),
        (b"\xff\xfe", (), ""),
        (b'{"error":"invalid_grant","error_description":"gone"}', ("invalid_grant",), "gone"),
        (b'{"error":{"code":"x","message":"y"}}', ("x",), "y"),
        (b'{"errors":"Exceeded 2 calls per second"}', (), "Exceeded 2 calls per second"),
        (b'{"code":10,"message":"m"}', ("10",), "m"),
        (b'{"errors":[]}', (), ""),
        (b'{"errors":[null,{"code":null,"detail":5}]}', (), ""),
    ],
)
def test_any_error_body_is_read(body: bytes, codes: tuple[str, ...], text: str, tmp_path: Path) -> None:
    error, _ = get(lambda _: Reply(404, body), tmp_path)
    assert isinstance(error, RefusedError)
    assert (error.status, error.codes) == (404, codes)
    assert text in str(error)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    error, seen = get(lambda _: Reply(302, b"", {"Location": "http://127.0.0.1:1/"}), tmp_path)
    assert isinstance(error, RefusedError)
    assert "base_url" in str(error)
    assert len(seen) == 1


def test_a_refusal_whose_body_is_cut_off_is_known_by_its_status(tmp_path: Path) -> None:
    error, seen = post(lambda _: Reply(422, b'{"errors":[{"code":"X"}]}', cut=5), tmp_path)
    assert isinstance(error, RefusedError)
    assert (error.status, error.codes) == (422, ())
    assert len(seen) == 1


@pytest.mark.parametrize("body", [b'{"errors":[{"code":"INSUFFICIENT_SCOPES"}]}', b"<html>denied</html>"])
def test_a_lost_permission_is_its_own_error(body: bytes, tmp_path: Path) -> None:
    error, seen = get(lambda _: Reply(403, body), tmp_path)
    assert type(error) is PermissionLostError
    assert len(seen) == 1


# ── 401 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def only(token: str) -> Script:
    return lambda seen: Reply() if seen.headers.get("authorization") == f"Bearer {token}" else Reply(401)


def test_a_rejected_token_is_renewed_once(tmp_path: Path) -> None:
    credentials = StaticToken(TOKEN, OTHER_TOKEN)
    with serve(only(OTHER_TOKEN)) as server, transport(tmp_path) as made:
        response = client_of(made, server.url, credentials=credentials).request("GET", "/", idempotent=False)
    assert response.attempts == 2
    assert credentials.renewals == [TOKEN]


def test_many_threads_renew_a_rejected_token_once_together(tmp_path: Path) -> None:
    class Slow(StaticToken):
        def renew(self, rejected: str) -> str:
            time.sleep(0.1)
            return super().renew(rejected)

    credentials = Slow(TOKEN, OTHER_TOKEN, "never-needed")
    with serve(only(OTHER_TOKEN)) as server, transport(tmp_path) as made:
        client = client_of(made, server.url, credentials=credentials)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: client.request("GET", "/", idempotent=True), range(32)))
    assert len(answers) == 32
    assert credentials.renewals == [TOKEN]


def test_a_renewed_token_that_is_rejected_too_needs_a_person(tmp_path: Path) -> None:
    credentials = StaticToken(TOKEN, OTHER_TOKEN)
    body = b'{"errors":[{"category":"AUTHENTICATION_ERROR","code":"ACCESS_TOKEN_REVOKED"}]}'
    with (
        serve(lambda _: Reply(401, body)) as server,
        transport(tmp_path) as made,
        pytest.raises(ReauthorizationNeededError, match="ACCESS_TOKEN_REVOKED"),
    ):
        client_of(made, server.url, credentials=credentials).request("GET", "/", idempotent=True)
    assert credentials.renewals == [TOKEN]
    assert len(server.seen) == 2


def test_a_401_without_a_token_is_a_plain_refusal(tmp_path: Path) -> None:
    with (
        serve(lambda _: Reply(401, b'{"error":"invalid_client"}')) as server,
        transport(tmp_path) as made,
        pytest.raises(RefusedError) as caught,
    ):
        client_of(made, server.url).request("POST", "/oauth2/token", idempotent=False, auth=False)
    assert (caught.value.status, caught.value.codes) == (401, ("invalid_client",))


@pytest.mark.parametrize("token", ["töken-abc-def", "token\nX-Evil: 1"])
def test_a_token_that_no_header_can_carry(token: str, tmp_path: Path) -> None:
    with (
        serve(lambda _: Reply()) as server,
        transport(tmp_path) as made,
        pytest.raises(ConfigurationError) as caught,
    ):
        client_of(made, server.url, credentials=StaticToken(token)).request("GET", "/", idempotent=True)
    assert token not in str(caught.value)
    assert server.seen == []


# ── limit and breaker ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_attempt_spends_budget_and_keys_are_apart(tmp_path: Path) -> None:
    audit = Audit()
    with serve(sequence(Reply(500), Reply())) as server, transport(tmp_path, audit) as made:
        client = client_of(made, server.url, limits=[RateLimit(2, 0.5)])
        first = client.request("GET", "/", idempotent=True, budget=["L1"])
        other = client.request("GET", "/", idempotent=True, budget=["L2"])
        whole = client.request("GET", "/", idempotent=True)
        with metered() as spent:
            second = client.request("GET", "/", idempotent=True, budget=["L1"])
        assert (first.attempts, first.waited, other.waited, whole.waited) == (2, 0.0, 0.0, 0.0)
        assert 0.2 < second.waited <= 0.6
        assert client.stats.waited_seconds == pytest.approx(second.waited)
        assert (client.stats.requests, client.stats.retries) == (5, 1)
        assert (spent.requests, spent.waited_seconds) == (1, second.waited)


def test_a_wait_that_is_not_worth_it(tmp_path: Path) -> None:
    with serve(lambda _: Reply()) as server, transport(tmp_path, give_up_after=5.0) as made:
        client = client_of(made, server.url, limits=[RateLimit(1, 60.0)])
        client.request("GET", "/", idempotent=True)
        with pytest.raises(RateLimitedError, match="square:acme: the rate limit leaves no room within 5 s"):
            client.request("GET", "/", idempotent=True)
    assert len(server.seen) == 1


def test_quota_headers_slow_everybody_down(tmp_path: Path) -> None:
    script = sequence(Reply(headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}), Reply())
    with serve(script) as server, transport(tmp_path) as made:
        client_of(made, server.url).request("GET", "/", idempotent=True)
        client_of(made, server.url).request("GET", "/", idempotent=True)
    assert server.seen[1].at - server.seen[0].at >= 0.9


def test_an_open_breaker_refuses_without_calling_and_reopens_by_itself(tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()
    policy = BreakerPolicy(failures=4, open_seconds=0.5)
    with (
        serve(lambda _: Reply(503) if broken.is_set() else Reply()) as server,
        transport(tmp_path, breaker_policy=policy, retry_policy=RetryPolicy(attempts=2, waiting=False)) as made,
    ):
        client = client_of(made, server.url)
        for _ in range(2):
            with pytest.raises(ProviderUnavailableError, match="503"):
                client.request("GET", "/", idempotent=True)
        with pytest.raises(CircuitOpenError, match="calls are paused until"):
            client.request("GET", "/", idempotent=True)
        assert len(server.seen) == 4
        broken.clear()
        time.sleep(0.6)
        client.request("GET", "/", idempotent=True)
        client.request("GET", "/", idempotent=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_an_answer_that_refuses_is_no_failure_of_the_provider(status: int, tmp_path: Path) -> None:
    with (
        serve(lambda _: Reply(status)) as server,
        transport(tmp_path, breaker_policy=BreakerPolicy(failures=1)) as made,
    ):
        client = client_of(made, server.url)
        for _ in range(2):
            with pytest.raises(FluxError) as caught:
                client.request("GET", "/", idempotent=True)
            assert not isinstance(caught.value, CircuitOpenError)


def test_closing_wakes_whoever_waits(tmp_path: Path) -> None:
    with serve(lambda _: Reply()) as server, transport(tmp_path) as made, ThreadPoolExecutor(1) as pool:
        client = client_of(made, server.url, limits=[RateLimit(1, 60.0)])
        client.request("GET", "/", idempotent=True)
        waiting = pool.submit(client.request, "GET", "/", idempotent=True)
        time.sleep(0.2)
        made.close()
        with pytest.raises(TransportClosedError):
            waiting.result(5)
        with pytest.raises(TransportClosedError):
            client.request("GET", "/", idempotent=True)


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "script",
    [
        lambda seen: Reply(
            400, msgspec.json.encode({"errors": [{"code": "X", "detail": seen.headers["authorization"]}]})
        ),
        lambda seen: Reply(403, msgspec.json.encode({"message": f"token was {TOKEN}"})),
        lambda _: Reply(401, msgspec.json.encode({"error_description": TOKEN})),
        lambda _: Reply(500, msgspec.json.encode({"message": TOKEN})),
        lambda _: Reply(200, TOKEN.encode()),
        lambda _: Reply(hang_up=True),
        lambda _: Reply(200, b"{}", cut=1),
    ],
)
def test_no_secret_in_exceptions_logs_or_audit(
    script: Callable[[Seen], Reply], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit()
    with (
        caplog.at_level(logging.DEBUG),
        serve(script) as server,
        transport(tmp_path, audit, retry_policy=RetryPolicy(attempts=2, waiting=False)) as made,
    ):
        client = client_of(made, server.url)
        with pytest.raises(FluxError) as caught:
            client.request(
                "GET",
                "/v2",
                params={"cursor": OTHER_TOKEN},
                headers={"X-Client-Secret": "s3cr3t-of-the-app"},
                idempotent=True,
            )
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None  # what httpx raises holds the request, headers and all
    read = "".join(traceback.format_exception(error)) + repr(error) + caplog.text + repr(audit.calls) + repr(client)
    read += repr(pickle.loads(pickle.dumps(error)).__dict__)
    for secret in (TOKEN, OTHER_TOKEN, "s3cr3t-of-the-app"):
        assert secret not in read


# ── cost ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_pass_at_little_cost(tmp_path: Path) -> None:
    import httpx

    page = b'{"orders":["' + b"x" * 1_500_000 + b'"]}'
    with serve(lambda _: Reply(200, page)) as server, transport(tmp_path) as made, httpx.Client() as bare:
        client = client_of(made, server.url)

        def cost(call: Callable[[], object]) -> float:
            call()
            started = time.perf_counter()
            for _ in range(10):
                call()
            return time.perf_counter() - started

        ratios = [
            cost(lambda: client.request("GET", "/", idempotent=True, expect="bytes"))
            / cost(lambda: bare.get(server.url).content)
            for _ in range(8)
        ]
    assert min(ratios) < 1.4


def test_bodies_are_handed_over_not_copied(tmp_path: Path) -> None:
    kept: list[bytes] = []
    with serve(lambda _: Reply(200, b'{"a":1}')) as server, transport(tmp_path) as made:
        response = client_of(made, server.url).request("GET", "/", idempotent=True, decode=kept.append)
    assert kept[0] is response.content


def test_the_http_library_is_loaded_with_the_first_client_only() -> None:
    import subprocess
    import sys

    heavy = "import sys, flux_pipelines.transport; print([m for m in ('httpx', 'sqlalchemy', 'tenacity') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_body_may_say_that_the_request_failed_although_its_status_is_good(tmp_path: Path) -> None:
    def decode(content: bytes) -> int:
        said = msgspec.json.decode(content)
        if said == "busy":
            raise AnsweredError(RateLimitedError, f"busy, and secret={TOKEN}", again=True, retry_after=0.2)
        if said == "no":
            raise AnsweredError(RefusedError, "no", codes=("NO",))
        if said == "broken":
            raise AnsweredError(ProviderUnavailableError, "broken", failure=True)
        return int(said)

    def answered(*bodies: bytes) -> tuple[Any, list[Seen]]:
        policy = RetryPolicy(attempts=2, base_seconds=0.01)
        with (
            serve(sequence(*(Reply(200, body) for body in bodies))) as server,
            transport(tmp_path, retry_policy=policy) as made,
        ):
            try:
                client = client_of(made, server.url)
                return client.request("POST", "/graphql", json={}, idempotent=False, decode=decode).value, server.seen
            except FluxError as error:
                return error, server.seen

    value, seen = answered(b'"busy"', b"7")
    assert (value, len(seen)) == (7, 2)
    assert seen[1].at - seen[0].at >= 0.15
    error, seen = answered(b'"busy"')
    assert (type(error), len(seen)) == (RateLimitedError, 2)
    assert TOKEN not in str(error)
    error, seen = answered(b'"no"')
    assert (type(error), error.codes, error.status, len(seen)) == (RefusedError, ("NO",), 200, 1)
    error, seen = answered(b'"broken"')
    assert (type(error), len(seen)) == (ProviderUnavailableError, 1)


def test_a_pause_between_calls_ends_with_the_transport(tmp_path: Path) -> None:
    with serve(lambda _: Reply()) as server, transport(tmp_path) as made:
        client = client_of(made, server.url)
        threading.Timer(0.1, made.close).start()
        with pytest.raises(TransportClosedError):
            client.pause(30)


# ── what is counted together ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_query_may_have_a_name_several_times(tmp_path: Path) -> None:
    with serve(sequence(Reply())) as server, transport(tmp_path) as made:
        pairs = [("filter", "createdTime>=1"), ("filter", "createdTime<2"), ("limit", 5)]
        client_of(made, server.url).request("GET", "/orders", idempotent=True, params=pairs)
    assert server.seen[0].path == "/orders?filter=createdTime%3E%3D1&filter=createdTime%3C2&limit=5"


def waits(folder: Path, limits: list[RateLimit], calls: list[tuple[str, str]]) -> list[float]:
    """How long each call (a connection, a location) waits for the limits."""
    with serve(sequence(Reply())) as server, transport(folder) as made:
        clients = {
            name: made.client(
                provider="bunch", connection=name, base_url=server.url, limits=limits, credentials=None, headers={}
            )
            for name, _ in calls
        }
        return [
            clients[name].request("GET", "/x", idempotent=True, budget=[place] if place else []).waited
            for name, place in calls
        ]


@pytest.mark.parametrize(
    ("per", "calls", "waited"),
    [
        ("location", [("bunch:a", "1"), ("bunch:a", "2"), ("bunch:a", "1")], [False, False, True]),
        ("connection", [("bunch:a", "1"), ("bunch:b", "1"), ("bunch:a", "2")], [False, False, True]),
        ("app", [("bunch:a", "1"), ("bunch:b", "2")], [False, True]),
    ],
)
def test_a_limit_holds_for_what_is_counted_together(
    tmp_path: Path, per: Any, calls: list[tuple[str, str]], waited: list[bool]
) -> None:
    found = waits(tmp_path, [RateLimit(1, 0.5, per), RateLimit(100, 0.5)], calls)
    assert [seconds > 0.2 for seconds in found] == waited


@pytest.mark.parametrize(("per", "most"), [("connection", 2), ("app", 1)])
def test_no_more_requests_are_under_way_than_may_be(tmp_path: Path, per: Any, most: int) -> None:
    lock, under_way, highest = threading.Lock(), 0, 0

    def script(_: Seen) -> Reply:
        nonlocal under_way, highest
        with lock:
            under_way += 1
            highest = max(highest, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return Reply()

    with serve(script) as server, transport(tmp_path) as made, ThreadPoolExecutor(8) as threads:
        clients = [
            made.client(
                provider="bunch",
                connection=f"bunch:{name}",
                base_url=server.url,
                limits=FREE,
                credentials=None,
                headers={},
                concurrency=[Concurrency(1, per)],
            )
            for name in "ab"
        ]
        asked = [threads.submit(clients[n % 2].request, "GET", "/x", idempotent=True) for n in range(8)]
        assert {one.result().status for one in asked} == {200}
    assert highest == most
