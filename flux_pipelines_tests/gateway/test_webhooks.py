"""Webhooks over real HTTP: what is stored, what is acknowledged, what is refused, and what a refusal costs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy import event as sql_event

from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.providers.square.webhooks import SIGNATURE_HEADER
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state import digest
from flux_pipelines_tests.gateway.webhookwire import (
    ACCOUNT,
    CONNECTION,
    KEY,
    Sender,
    connect,
    dial,
    event,
    read_all,
    register,
    request,
    send,
    sign,
    status_of,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    url = request.getfixturevalue("make_postgres_url")() if request.param == "postgresql" else None
    settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=url)
    with Runtime(settings, patient=False) as opened:
        connect(opened)
        yield opened


@pytest.fixture(scope="module")
def gateway(runtime: Runtime) -> Iterator[RunningGateway]:
    with RunningGateway(runtime, head_seconds=1.5, body_seconds=1.5) as running:
        yield running


@pytest.fixture(scope="module")
def registered(runtime: Runtime, gateway: RunningGateway) -> str:
    return register(runtime, gateway.url)


@pytest.fixture
def url(runtime: Runtime, registered: str) -> str:
    """The notification URL of a gateway whose inbox is empty."""
    with runtime.state.database.session() as session:
        session.execute(text("DELETE FROM inbox"))
    return registered


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20, trust_env=False) as opened:
        yield opened


def stored(runtime: Runtime) -> list[Any]:
    return list(runtime.state.inbox.recent(limit=100_000))


def test_an_event_is_in_the_inbox_when_it_is_acknowledged(runtime: Runtime, url: str, client: httpx.Client) -> None:
    body = json.dumps(json.loads(event("one", remark="é€😀")), ensure_ascii=False, indent=3).encode()
    before = datetime.now(UTC)
    answer = send(client, url, body)
    (found,) = stored(runtime)
    assert (answer.status_code, answer.content) == (200, b"")
    assert found.body == body, "byte for byte"
    assert (found.provider, found.event_id, found.event_type) == ("square", "one", "payment.updated")
    assert (found.account_id, found.connection_key, found.status) == (ACCOUNT, CONNECTION, "received")
    assert found.occurred_at == datetime(2026, 3, 2, 10, 0, 0, 123457, tzinfo=UTC)
    assert before <= found.received_at <= datetime.now(UTC)


def test_a_repetition_is_acknowledged_and_stored_once(runtime: Runtime, url: str, client: httpx.Client) -> None:
    first = event("one")
    assert [send(client, url, first).status_code for _ in range(3)] == [200, 200, 200]
    # The same id with other content is still the same event: the first stays.
    assert send(client, url, event("one", more=1)).status_code == 200
    (found,) = stored(runtime)
    assert found.body == first


def test_repetitions_at_the_same_time_are_stored_once(runtime: Runtime, url: str) -> None:
    bodies = [event(f"e{n % 20}") for n in range(400)]
    sender = Sender(url, lanes=40)
    sender.deliver((f"delivery-{n}", body) for n, body in enumerate(bodies))
    assert sender.statuses == {200: 400}
    assert sorted(one.event_id for one in stored(runtime)) == sorted(f"e{n}" for n in range(20))


def test_events_that_arrive_together_share_commits(runtime: Runtime, url: str) -> None:
    commits: list[None] = []

    def count(_: object) -> None:
        commits.append(None)

    sql_event.listen(Engine, "commit", count)
    try:
        sender = Sender(url, lanes=50)
        sender.deliver((f"e{n}", event(f"e{n}")) for n in range(500))
    finally:
        sql_event.remove(Engine, "commit", count)
    assert len(stored(runtime)) == len(sender.acknowledged) == 500
    assert len(commits) < 250


def test_unknown_types_are_kept_and_unknown_accounts_too(runtime: Runtime, url: str, client: httpx.Client) -> None:
    assert send(client, url, event("one", "brand.new.thing")).status_code == 200
    assert send(client, url, event("two", account="SOMEBODY")).status_code == 200
    assert send(client, url, b'{"event_id":"three","type":"webhooks.test_notification"}').status_code == 200
    found = {one.event_id: (one.event_type, one.connection_key) for one in stored(runtime)}
    assert found == {
        "one": ("brand.new.thing", CONNECTION),
        "two": ("payment.updated", None),
        "three": ("webhooks.test_notification", None),
    }


def test_an_event_that_is_nested_too_deeply_is_none(
    runtime: Runtime, url: str, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    deep = event("deep")[:-1] + b',"more":' + b"[" * 1200 + b"]" * 1200 + b"}"
    assert send(client, url, deep).status_code == 400
    # Toast's own time of sending is looked for before anything is proved.
    runtime.state.apps.put("toast", {"notification_url": "unused"}, {"webhook_signature_key": KEY})
    toast = url.replace("/square", "/toast")
    assert client.post(toast, content=deep, headers={"toast-signature": "anything"}).status_code == 400
    assert client.post(toast, content=b"[]", headers={"toast-signature": "anything"}).status_code == 401
    assert stored(runtime) == []
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def test_a_connection_made_a_moment_ago_gets_its_events(runtime: Runtime, url: str, client: httpx.Client) -> None:
    assert send(client, url, event("one", account="LATER")).status_code == 200
    connect(runtime, "square:later", "LATER")
    try:
        deadline = time.monotonic() + 10
        for n in range(1000):
            send(client, url, event(f"later-{n}", account="LATER"))
            if runtime.state.inbox.last_received().get("square:later") or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert "square:later" in runtime.state.inbox.last_received()
    finally:
        runtime.state.connections.remove("square:later")


def test_texts_that_no_database_holds_do_not_fail(runtime: Runtime, url: str, client: httpx.Client) -> None:
    bodies = [event("nul\x00"), event("x" * 5000), event("two", "t" * 5000, account="a\x00" + "a" * 5000)]
    assert [send(client, url, body).status_code for body in bodies * 2] == [200] * 6
    # Of a type that nothing is done for, the hash of the body is stored.
    assert sorted(one.body for one in stored(runtime)) == sorted([*bodies[:2], digest(bodies[2])])


def test_other_addresses_and_methods(runtime: Runtime, gateway: RunningGateway, url: str, client: httpx.Client) -> None:
    body = event("one")
    for path, status in (("/webhooks/nobody", 404), ("/webhooks/", 404), ("/webhooks/square/more", 404)):
        assert send(client, gateway.url + path, body).status_code == status, path
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert client.request(method, url).status_code == 405, method
    assert stored(runtime) == []


def test_without_a_signature_key_nothing_is_taken(runtime: Runtime, url: str, client: httpx.Client) -> None:
    for secrets in ({"client_id": "id", "client_secret": "secret"}, {"webhook_signature_key": ""}):
        runtime.state.apps.put("square", {"notification_url": url}, secrets)
        _until(lambda: send(client, url, event("no")).status_code == 404)
        # Nobody signs with nothing.
        assert send(client, url, event("empty"), key="").status_code == 404
    register(runtime, url.removesuffix("/webhooks/square"))
    _until(lambda: send(client, url, event("yes")).status_code == 200)
    assert not {"empty"} & {one.event_id for one in stored(runtime)}


def test_a_rotated_key_holds_at_once_and_the_old_one_no_more(runtime: Runtime, url: str, client: httpx.Client) -> None:
    assert send(client, url, event("one")).status_code == 200
    register(runtime, url.removesuffix("/webhooks/square"), key="the-next-key")
    _until(lambda: send(client, url, event("two"), key="the-next-key").status_code == 200, seconds=3)
    assert send(client, url, event("three")).status_code == 403
    assert {one.event_id for one in stored(runtime)} == {"one", "two"}
    register(runtime, url.removesuffix("/webhooks/square"))
    _until(lambda: send(client, url, event("four")).status_code == 200, seconds=3)


def _until(holds: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- forgeries ---


def test_forgeries_are_refused_and_nothing_is_stored(runtime: Runtime, url: str, client: httpx.Client) -> None:
    body = event("forged")
    good = sign(body, url)
    bare = base64.b64encode(hmac.new(KEY.encode(), body, hashlib.sha256).digest()).decode()
    matrix: dict[str, tuple[bytes, dict[str, str] | list[tuple[str, str]]]] = {
        "no signature": (body, {}),
        "empty signature": (body, {SIGNATURE_HEADER: ""}),
        "wrong key": (body, {SIGNATURE_HEADER: sign(body, url, "another")}),
        "wrong URL": (body, {SIGNATURE_HEADER: sign(body, url + "/")}),
        "URL left out": (body, {SIGNATURE_HEADER: bare}),
        "body written anew": (json.dumps(json.loads(body), indent=1).encode(), {SIGNATURE_HEADER: good}),
        "empty body": (b"", {SIGNATURE_HEADER: sign(b"", url)}),
        "unicode body": ('{"event_id":"é😀","type":"t"}'.encode(), {SIGNATURE_HEADER: good}),
        "binary body": (b"\x00\xff\xfe" * 1000, {SIGNATURE_HEADER: good}),
        "a large body": (b"a" * 1_000_000, {SIGNATURE_HEADER: good}),
        "twice, right and wrong": (body, [(SIGNATURE_HEADER, good), (SIGNATURE_HEADER, "x")]),
        "twice, wrong and right": (body, [(SIGNATURE_HEADER, "x"), (SIGNATURE_HEADER, good)]),
        "twice, both right": (body, [(SIGNATURE_HEADER, good), (SIGNATURE_HEADER, good)]),
        "in the old header": (body, {"x-square-signature": good}),
        "in the query": (body, {}),
    }
    for name, (sent, headers) in matrix.items():
        where = url + (f"?{SIGNATURE_HEADER}={good}" if name == "in the query" else "")
        answer = client.post(where, content=sent, headers=headers)
        assert answer.status_code == 403, name
        assert "the provider's" in answer.text
        assert KEY not in answer.text + str(answer.headers)
    assert stored(runtime) == []
    assert client.post(url, content=body, headers={SIGNATURE_HEADER: good}).status_code == 200


def test_what_is_signed_but_no_event_is_refused(runtime: Runtime, url: str, client: httpx.Client) -> None:
    for body in (b"[]", b"{}", b"not json", b'{"event_id":"e"}', "é".encode(), b"[" * 100_000):
        assert send(client, url, body).status_code == 400, body[:20]
    assert stored(runtime) == []


def test_refusals_leave_no_trace_each(
    runtime: Runtime, url: str, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger can fill neither the log nor the record of secret uses."""
    assert send(client, url, event("one")).status_code == 200
    uses = len(runtime.state.secrets.uses("apps/square", limit=100_000))
    body = event("forged")
    headers = {SIGNATURE_HEADER: "forged"}
    with caplog.at_level(logging.DEBUG):
        for _ in range(300):
            assert client.post(url, content=body, headers=headers).status_code == 403
    assert len(runtime.state.secrets.uses("apps/square", limit=100_000)) == uses
    ours = [record for record in caplog.records if record.name.startswith("flux_pipelines")]
    assert len(ours) <= 3
    assert KEY not in caplog.text
    assert [one.event_id for one in stored(runtime)] == ["one"]


# --- sizes and slowness ---


def test_a_body_beyond_the_cap_is_refused_before_it_is_read(runtime: Runtime, url: str) -> None:
    body = event("large", padding="x" * 2_000_000)
    with dial(url) as connection:
        # Only the head is sent: the answer does not wait for the body.
        connection.sendall(request(url, b"", sign(body, url), length=len(body)))
        answer = read_all(connection)
    assert status_of(answer) == 413
    assert b"connection: close" in answer.lower()
    assert stored(runtime) == []


def test_a_body_that_does_not_tell_its_size_is_not_read_beyond_the_cap(runtime: Runtime, url: str) -> None:
    body = event("large", padding="x" * 50_000_000)
    head = request(url, b"", sign(body, url)).replace(b"content-length: 0", b"transfer-encoding: chunked")
    sent = 0
    with dial(url) as connection:
        try:
            connection.sendall(head)
            for start in range(0, len(body), 65536):
                part = body[start : start + 65536]
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                sent += len(part)
        except ConnectionError:
            pass
        answer = read_all(connection)
    assert status_of(answer) in (413, 0), "the answer, unless the closed connection overtook it"
    # What the kernel's buffers took beside the cap is no more than a few MiB.
    assert sent < 20_000_000
    assert stored(runtime) == []


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "", "18446744073709551616", "9" * 5000])
def test_a_length_that_is_none_is_refused(runtime: Runtime, url: str, length: str) -> None:
    body = event("one")
    head = request(url, b"", sign(body, url)).replace(b"content-length: 0", f"content-length: {length}".encode())
    with dial(url) as connection:
        connection.sendall(head + body)
        connection.shutdown(1)
        assert status_of(read_all(connection)) in (400, 413)
    assert stored(runtime) == []


def test_a_body_that_never_ends_is_given_up(runtime: Runtime, url: str) -> None:
    body = event("slow")
    whole = request(url, body, sign(body, url))
    started = time.monotonic()
    with dial(url) as connection:
        connection.sendall(whole[:-1])
        answer = read_all(connection)
    assert status_of(answer) == 408
    assert 0.4 < time.monotonic() - started < 5
    assert stored(runtime) == []


def test_a_body_byte_by_byte_is_given_up(url: str) -> None:
    assert _drip(url, request(url, event("slow"), "x"), after=b"\r\n\r\n") == 408


def test_a_head_byte_by_byte_is_given_up(url: str) -> None:
    assert _drip(url, request(url, event("slow"), "x")) == 408


def test_the_second_head_of_a_connection_is_given_up_too(runtime: Runtime, url: str) -> None:
    body = event("first")
    with dial(url) as connection:
        connection.sendall(request(url, body, sign(body, url)))
        assert status_of(connection.recv(65536)) == 200
    assert _drip(url, request(url, event("slow"), "x"), first=request(url, body, sign(body, url))) == 408


def _drip(url: str, whole: bytes, *, after: bytes = b"", first: bytes = b"") -> int:
    """Send a request byte by byte (up to `after` at once) until the server has had enough; return its answer."""
    started = time.monotonic()
    quick = whole.index(after) + len(after) if after else 1
    with dial(url) as connection:
        if first:
            connection.sendall(first)
            assert status_of(connection.recv(65536)) == 200
        connection.sendall(whole[:quick])
        answer: list[bytes] = []
        reader = threading.Thread(target=lambda: answer.append(read_all(connection)))
        reader.start()
        try:
            for byte in whole[quick:]:
                connection.sendall(bytes([byte]))
                reader.join(0.02)
                if not reader.is_alive():
                    break
        except ConnectionError:
            pass
        reader.join(5)
    assert time.monotonic() - started < 5
    return status_of(answer[0])


def test_a_silent_connection_is_closed(url: str) -> None:
    started = time.monotonic()
    with dial(url) as connection:
        assert status_of(read_all(connection)) == 408
    assert time.monotonic() - started < 5


def test_slow_senders_do_not_keep_others_out(runtime: Runtime, url: str, client: httpx.Client) -> None:
    idle = [dial(url) for _ in range(200)]
    try:
        for n, connection in enumerate(idle):
            connection.sendall(request(url, b"x", "x")[: n % 60])
        started = time.monotonic()
        assert send(client, url, event("one")).status_code == 200
        assert time.monotonic() - started < 2
    finally:
        for connection in idle:
            connection.close()


def test_a_client_that_leaves_is_no_error(
    runtime: Runtime, url: str, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    body = event("gone")
    with caplog.at_level(logging.WARNING):
        for cut in (1, 50, 300):
            with dial(url) as connection:
                connection.sendall(request(url, body, sign(body, url))[:-cut])
        assert send(client, url, event("one")).status_code == 200
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert [one.event_id for one in stored(runtime)] == ["one"]


# --- the database ---


def test_what_cannot_be_stored_is_not_acknowledged(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The database refuses connections for a while: 503, sent again later, stored then."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=postgres_url)
    with Runtime(settings, patient=False) as runtime, RunningGateway(runtime) as gateway:
        url = register(runtime, gateway.url)
        with httpx.Client(timeout=30, trust_env=False) as client:
            assert send(client, url, event("before")).status_code == 200
            _admin(postgres_url, allow=False)
            try:
                with ThreadPoolExecutor(8) as pool:
                    answers = list(pool.map(lambda n: send(client, url, event(f"e{n}")), range(8)))
                time.sleep(1.1)  # longer than what is known of the sender is taken for granted after a refusal
                forged = send(client, url, event("forged"), key="another")
            finally:
                _admin(postgres_url, allow=True)
            assert {answer.status_code for answer in answers} == {503}
            assert forged.status_code == 403
            assert answers[0].headers["retry-after"]
            assert "postgres" not in answers[0].text
            _until(lambda: send(client, url, event("e0")).status_code == 200)
        assert {one.event_id for one in stored(runtime)} == {"before", "e0"}


def _admin(url: str, *, allow: bool) -> None:
    """Open or close a database, as an administrator does for maintenance."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url

    name = make_url(url).database
    engine = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'true' if allow else 'false'}"))
        if not allow:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
            )
    engine.dispose()
