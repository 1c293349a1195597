"""Providers whose folders are merely there, each with its own scheme and status. Nothing in the gateway names them."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
import time_machine

from flux_pipelines import providers
from flux_pipelines.domain.connection import Connection
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.webhooks import MAX_EVENTS
from flux_pipelines.providers.new import PLACES
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.contract.bunch import put

KEY = "toy-key"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Folders more where providers are looked for: the toy's, and the second worked example's."""
    put(checkout := tmp_path_factory.mktemp("checkout"))
    more = [str(Path(__file__).with_name("toyprovider")), str(checkout / PLACES["provider"])]
    providers.__path__.extend(more)
    all_providers.cache_clear()
    yield
    for folder in more:
        providers.__path__.remove(folder)
    all_providers.cache_clear()
    for name in [
        name
        for name in sys.modules
        if name.startswith(("flux_pipelines.providers.toy", "flux_pipelines.providers.bunch"))
    ]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def url(toy: None, runtime: Runtime, gateway: RunningGateway) -> str:
    runtime.state.apps.put("toy", {"notification_url": "unused"}, {"webhook_signature_key": KEY})
    runtime.state.connections.add(Connection("toy:shop", "acme", account_id="SHOP"))
    return f"{gateway.url}/webhooks/toy"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as opened:
        yield opened


def body(event_id: str) -> bytes:
    return json.dumps({"id": event_id, "kind": "toy.sold", "shop": "SHOP"}).encode()


def signed(content: bytes, at: float, key: str = KEY) -> dict[str, str]:
    mac = hmac.new(key.encode(), f"{int(at)}.".encode() + content, hashlib.sha256).hexdigest()
    return {"toy-signature": f"t={int(at)},v1={mac}"}


def test_its_events_are_stored(runtime: Runtime, url: str, client: httpx.Client) -> None:
    answer = client.post(url, content=body("one"), headers=signed(body("one"), time.time()))
    assert answer.status_code == 200
    (found,) = runtime.state.inbox.pending("toy")
    assert (found.event_id, found.event_type, found.connection_key) == ("one", "toy.sold", "toy:shop")


@pytest.mark.parametrize("age", [-3600, -301, 301, 86_400])
def test_a_replayed_or_postdated_delivery_is_refused(
    runtime: Runtime, url: str, client: httpx.Client, age: float
) -> None:
    """Rightly signed, but when? A time moved without the signature does not help either."""
    content = body(f"old-{age}")
    old = signed(content, time.time() - age)
    assert client.post(url, content=content, headers=old).status_code == 401
    moved = {"toy-signature": f"t={int(time.time())},{old['toy-signature'].partition(',')[2]}"}
    assert client.post(url, content=content, headers=moved).status_code == 401
    assert content not in {event.body for event in runtime.state.inbox.pending("toy")}


def test_a_delivery_recorded_now_is_refused_when_the_clock_has_moved_on(
    runtime: Runtime, url: str, client: httpx.Client
) -> None:
    content = body("recorded")
    headers = signed(content, time.time())
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6), tick=True):
        assert client.post(url, content=content, headers=headers).status_code == 401
    assert client.post(url, content=content, headers=headers).status_code == 200
    # Within the tolerance a replay is verified, and is known by its event id.
    assert client.post(url, content=content, headers=headers).status_code == 200
    assert [event.event_id for event in runtime.state.inbox.pending("toy")].count("recorded") == 1


@pytest.mark.parametrize("header", ["", "t=1", "v1=ab", "t=x,v1=y", "t=1,v1=é", ",,,", "t=1=2,v1"])
def test_damaged_signatures_get_its_own_status(url: str, client: httpx.Client, header: str) -> None:
    answer = client.post(url, content=body("x"), headers={"toy-signature": header.encode()})
    assert answer.status_code == 401
    assert "provider's" in answer.text


def test_an_event_id_is_its_providers_own(runtime: Runtime, url: str) -> None:
    """Two providers may give the same id to their events."""
    from flux_pipelines.state import NewEvent

    made = [NewEvent(name, "same", "t", "a", None, b"{}") for name in ("toy", "square")]
    assert runtime.state.inbox.add_many(made) == [True, True]


# --- A provider that signs nothing, and tells of several accounts at once ---

SECRET = {"x-bunch-auth": "bunch-secret"}


@pytest.fixture(scope="module")
def bunch(toy: None, runtime: Runtime, gateway: RunningGateway) -> str:
    runtime.state.apps.put("bunch", {"notification_url": "unused"}, {"webhook_signature_key": "bunch-secret"})
    for name in ("one", "two"):
        runtime.state.connections.add(Connection(f"bunch:{name}", "acme", account_id=name.upper()))
    return f"{gateway.url}/webhooks/bunch"


def told(**merchants: list[dict[str, object]]) -> bytes:
    return json.dumps({"merchants": merchants}).encode()


def change(n: int) -> dict[str, object]:
    return {"objectId": f"O:{n}", "type": "UPDATE", "ts": n}


def test_one_delivery_has_events_of_several_accounts_and_ids_are_made_of_them(
    runtime: Runtime, bunch: str, client: httpx.Client
) -> None:
    first, second, third = (change(n) for n in (1, 2, 3))
    content = told(ONE=[first, second], TWO=[first], NOBODY=[third])
    assert client.post(bunch, content=content, headers=SECRET).status_code == 200
    assert client.post(bunch, content=content, headers=SECRET).status_code == 200, "sent again"
    assert client.post(bunch, content=told(ONE=[second, third]), headers=SECRET).status_code == 200
    found = runtime.state.inbox.pending("bunch")
    assert sorted((event.connection_key or "", event.event_type, event.body) for event in found) == sorted(
        (key, "O:UPDATE", msgspec.json.encode(one))
        for key, one in [
            *(("bunch:one", each) for each in (first, second, third)),
            ("bunch:two", first),
            ("", third),
        ]
    )
    assert len({event.event_id for event in found}) == 5


@pytest.mark.parametrize("headers", [{}, {"x-bunch-auth": ""}, {"x-bunch-auth": "bunch-secreT"}, {"x-bunch-auth": "é"}])
def test_without_the_secret_nothing_is_stored(
    runtime: Runtime, bunch: str, client: httpx.Client, headers: dict[str, str]
) -> None:
    before = len(runtime.state.inbox.pending("bunch"))
    encoded = {name: value.encode() for name, value in headers.items()}
    assert client.post(bunch, content=told(ONE=[change(9)]), headers=encoded).status_code == 401
    assert len(runtime.state.inbox.pending("bunch")) == before


def test_a_question_whether_the_address_takes_webhooks_is_answered(
    url: str, bunch: str, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get(url, params={"challenge": "say this"})
    assert (answer.status_code, answer.text) == (200, "say this")
    with caplog.at_level("WARNING", "flux_pipelines.gateway"):
        asked = {"verificationCode": "ab12\nforged line"}
        assert client.post(bunch, content=json.dumps(asked)).status_code == 200
        assert client.post(bunch, content=json.dumps(asked)).status_code == 200
    (line,) = [record.getMessage() for record in caplog.records if "settings" in record.getMessage()]
    told = "Enter the code ab12\nforged line in the app's settings at Bunch."
    assert line == f"webhooks of bunch: {told!r}"
    assert "\n" not in line
    assert client.get(url).status_code == client.get(bunch).status_code == 405, "no question"


def test_more_events_than_a_delivery_may_have_are_refused(bunch: str, client: httpx.Client) -> None:
    many = told(ONE=[change(n) for n in range(MAX_EVENTS + 1)])
    assert client.post(bunch, content=many, headers=SECRET).status_code == 413
