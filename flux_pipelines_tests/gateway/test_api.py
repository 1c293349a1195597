"""The machine endpoints: what they show, what they change, and that nothing secret is among it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.domain.business_day import newest_begun
from flux_pipelines.domain.connection import Connection, Status
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.inbox.inbox import NewEvent
from flux_pipelines.state.syncs import sync_requests as state_requests
from flux_pipelines.state.syncs.sync_requests import MOST_OF_A_CONNECTION
from flux_pipelines_tests.gateway.people import Browser
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

SECRET = "EAAAsecret-of-the-connection"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=3, end_day=date(2026, 11, 2))) as running:
        yield running


@pytest.fixture
def acme(runtime: Runtime) -> Iterator[str]:
    key = "square:acme"
    runtime.state.connections.add(
        Connection(key, "Acme", "M-1", settings={"base_url": "http://127.0.0.1:9"}), {"access_token": SECRET}
    )
    yield key
    runtime.state.connections.remove(key)


@pytest.fixture
def client(machine: Callable[..., httpx.Client]) -> httpx.Client:
    return machine()


def test_a_connection_is_shown_without_anything_secret(client: httpx.Client, acme: str, runtime: Runtime) -> None:
    moment = datetime.now(UTC)
    event = NewEvent("square", "e-1", "order.updated", "M-1", moment, b"{}", connection_key=acme, received_at=moment)
    runtime.state.inbox.add_many([event])

    (shown,) = client.get("/api/v1/connections").json()

    assert shown == client.get(f"/api/v1/connections/{acme}").json()
    assert datetime.fromisoformat(shown.pop("last_webhook_at")) == moment
    assert shown == {
        "key": "square:acme",
        "provider": "square",
        "tenant": "Acme",
        "account_id": "M-1",
        "status": "active",
        "status_reason": "",
        "settings": {"base_url": "http://127.0.0.1:9"},
        "locations": 0,
    }
    assert client.get("/api/v1/connections", params={"provider": "toast"}).json() == []
    assert client.get("/api/v1/connections", params={"providr": "toast"}).status_code == 422
    assert client.get("/api/v1/inbox").json()["received"] == 1
    assert client.get("/api/v1/inbox", params={"provider": "toast"}).json()["received"] == 0


def test_pausing_and_resuming(client: httpx.Client, acme: str, runtime: Runtime) -> None:
    paused = client.post(f"/api/v1/connections/{acme}/pause").json()
    assert (paused["status"], paused["status_reason"]) == ("paused", "paused by machine")
    assert runtime.state.connections.get(acme).status == "paused"
    assert client.post(f"/api/v1/connections/{acme}/pause").json() == paused  # doing it twice is doing it once

    resumed = client.post(f"/api/v1/connections/{acme}/resume").json()
    assert (resumed["status"], resumed["status_reason"]) == ("active", "")


def test_one_that_lost_its_authorisation_can_neither_be_paused_nor_resumed(
    client: httpx.Client, acme: str, runtime: Runtime
) -> None:
    runtime.state.connections.set_status(acme, "needs_reauth", "revoked")

    for what in ("pause", "resume", "test"):
        answer = client.post(f"/api/v1/connections/{acme}/{what}")
        assert answer.status_code == 409
        assert answer.json()["connection"] == acme
        assert answer.json()["rerun_helps"] is False
    assert runtime.state.connections.get(acme).status == "needs_reauth"


def test_a_connection_that_works_says_so(client: httpx.Client, runtime: Runtime, sandbox: RunningSandbox) -> None:
    connection, locations = connect_to_sandbox(runtime, "square:harbor", tenant="Harbor", url=sandbox.url)
    try:
        answer = client.post(f"/api/v1/connections/{connection.key}/test")
        assert (answer.status_code, answer.json()) == (200, {"locations": len(locations)})
    finally:
        runtime.state.connections.remove(connection.key)


def test_a_provider_that_does_not_answer_is_said_and_the_token_is_not(client: httpx.Client, acme: str) -> None:
    answer = client.post(f"/api/v1/connections/{acme}/test")

    assert answer.status_code == 502
    assert answer.json()["rerun_helps"] is True
    assert SECRET not in answer.text


def test_asking_for_a_sync(client: httpx.Client, acme: str, runtime: Runtime) -> None:
    assert client.get(f"/api/v1/connections/{acme}/syncs/latest").status_code == 404
    order = {"first_day": "2026-01-01", "last_day": "2026-01-31", "reason": "the books of January"}

    asked = client.post(f"/api/v1/connections/{acme}/syncs", json=order)

    assert asked.status_code == 202
    assert asked.json() == client.get(f"/api/v1/connections/{acme}/syncs/latest").json()
    (waiting,) = runtime.state.sync_requests.open()
    assert (waiting.connection_key, waiting.first_day, waiting.last_day) == (acme, date(2026, 1, 1), date(2026, 1, 31))
    assert (waiting.asked_by, waiting.reason, waiting.status) == ("machine", "the books of January", "waiting")


DAY = {"first_day": "2026-01-01", "last_day": "2026-01-01"}


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({}, 422),
        ({**DAY, "last_day": "soon"}, 422),
        ({**DAY, "reason": "a\x00b"}, 422),
        ({**DAY, "reason": "a" * 201}, 422),
        ({**DAY, "reason": 7}, 422),
        ({**DAY, "days": 1}, 422),
        ([], 422),
        ("text", 422),
        ({**DAY, "first_day": "2026-01-02"}, 409),
        ({**DAY, "first_day": "2024-12-31"}, 409),  # before the first partition
        ({**DAY, "last_day": "9999-12-31"}, 409),
    ],
    ids=str,
)
def test_a_sync_that_makes_no_sense_is_refused(
    client: httpx.Client, acme: str, runtime: Runtime, order: object, status: int
) -> None:
    answer = client.post(f"/api/v1/connections/{acme}/syncs", json=order)

    assert answer.status_code == status
    assert runtime.state.sync_requests.open() == []


def test_the_answer_is_the_sync_that_was_asked_for(client: httpx.Client, acme: str) -> None:
    first, second = DAY, {"first_day": "2026-02-01", "last_day": "2026-02-02"}
    for order in (first, second, first):
        answer = client.post(f"/api/v1/connections/{acme}/syncs", json=order)
        assert answer.status_code == 202
        assert {name: answer.json()[name] for name in order} == order


def ask(client: httpx.Client, key: str, day: int = 1) -> httpx.Response:
    body = {"first_day": "2025-01-01", "last_day": f"2026-01-{day:02}"}
    return client.post(f"/api/v1/connections/{key}/syncs", json=body)


def test_a_repetition_is_answered_with_the_sync_that_waits(client: httpx.Client, acme: str, runtime: Runtime) -> None:
    answers = [ask(client, acme) for _ in range(10)]

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == len(runtime.state.sync_requests.open()) == 1


def test_no_more_syncs_wait_or_run_than_a_connection_may_have(
    client: httpx.Client, acme: str, runtime: Runtime
) -> None:
    requests = runtime.state.sync_requests
    taken = [ask(client, acme, day) for day in range(1, MOST_OF_A_CONNECTION + 1)]
    assert {answer.status_code for answer in taken} == {202}
    requests.start(taken[0].json()["id"], "request-1")  # its runs may be queued still
    for day in (1, 25):  # one that was started does not wait any more: to ask for it again would be another
        refused = ask(client, acme, day)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert refused.json() == {
            "what": "3 syncs of it wait or are under way",
            "connection": acme,
            "rerun_helps": True,
            "next_step": "Wait until some of it has ended, then ask again.",
        }
    assert len(requests.open()) == MOST_OF_A_CONNECTION
    assert ask(client, acme, 2).json()["id"] == taken[1].json()["id"]
    requests.finish(taken[0].json()["id"], ok=True)
    assert ask(client, acme, 25).status_code == 202


def test_no_more_syncs_wait_in_all_than_the_installation_may_have(
    client: httpx.Client, acme: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_requests, "MOST_IN_ALL", 2)
    others = [f"square:other-{n}" for n in range(2)]
    for key in others:
        runtime.state.connections.add(Connection(key, "Acme", key))
        assert ask(client, key).status_code == 202
    try:
        refused = ask(client, acme)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert refused.json()["what"] == "2 syncs wait or are under way"
        # What the pipelines ask for themselves is not counted against anybody, and not refused.
        runtime.state.sync_requests.add(acme, date(2026, 1, 1), date(2026, 1, 1), "reconcile", "a difference")
    finally:
        for key in others:
            runtime.state.connections.remove(key)


@pytest.mark.parametrize(
    ("status", "step"), [("paused", "Resume it first."), ("needs_reauth", "Reconnect the account first.")]
)
def test_a_sync_of_a_connection_that_is_not_active_is_refused_with_the_reason(
    client: httpx.Client, acme: str, runtime: Runtime, status: Status, step: str
) -> None:
    runtime.state.connections.set_status(acme, status, "by ada@example.com")
    refused = ask(client, acme)

    assert refused.status_code == 409
    assert refused.json() == {
        "what": f"nothing can be fetched: it is {status} (by ada@example.com)",
        "connection": acme,
        "rerun_helps": False,
        "next_step": step,
    }
    assert runtime.state.sync_requests.open() == []


def test_a_sync_ends_with_the_newest_day_that_has_begun(client: httpx.Client, acme: str) -> None:
    newest = newest_begun(datetime.now(UTC))
    body = {"first_day": str(newest), "last_day": str(newest)}
    assert client.post(f"/api/v1/connections/{acme}/syncs", json=body).status_code == 202
    late = {**body, "last_day": str(newest + timedelta(days=1))}
    assert client.post(f"/api/v1/connections/{acme}/syncs", json=late).status_code == 409


def test_what_was_given_is_not_repeated_in_an_error(client: httpx.Client, acme: str) -> None:
    body = {"first_day": SECRET, "last_day": SECRET}
    answer = client.post(f"/api/v1/connections/{acme}/syncs", json=body)

    assert answer.status_code == 422
    assert SECRET not in answer.text
    assert "first_day" in answer.json()["what"]


def test_alerts_are_seen_and_acknowledged(client: httpx.Client, acme: str, runtime: Runtime) -> None:
    runtime.state.alerts.raise_("needs_reauth", acme, "Reconnect it.")
    (alert,) = client.get("/api/v1/alerts").json()
    assert (alert["kind"], alert["connection"], alert["acknowledged_at"]) == ("needs_reauth", acme, None)

    seen = client.post(f"/api/v1/alerts/{alert['id']}/acknowledge").json()

    assert seen["acknowledged_by"] == "machine"
    assert client.get("/api/v1/alerts").json() == [seen]
    runtime.state.alerts.resolve("needs_reauth", acme)
    assert client.post(f"/api/v1/alerts/{alert['id']}/acknowledge").status_code == 404


@pytest.mark.parametrize("what", ["", "/pause", "/resume", "/test", "/syncs/latest"])
def test_a_connection_that_is_not_there_is_not_found(client: httpx.Client, what: str) -> None:
    method = "GET" if what in ("", "/syncs/latest") else "POST"
    answer = client.request(method, f"/api/v1/connections/square:nobody{what}")

    assert answer.status_code == 404


@pytest.mark.parametrize(
    "key", ["acme", "square:", ":acme", "Square:acme", "square:acme%0A", "square:a%00", "%F0%9F%92%A9"]
)
def test_what_is_no_name_is_refused(client: httpx.Client, key: str) -> None:
    assert client.get(f"/api/v1/connections/{key}").status_code == 422


def test_a_person_may_call_them_too(ada: Browser, acme: str) -> None:
    own = {"origin": ada.gateway.url, "sec-fetch-site": "same-origin", "x-csrf-token": ada.csrf()}

    assert ada.get("/api/v1/me").json() == {"kind": "person", "name": "ada@example.com", "scopes": ["read", "write"]}
    paused = ada.post(f"/api/v1/connections/{acme}/pause", headers=own).json()
    assert paused["status_reason"] == "paused by ada@example.com"


def test_the_description_is_of_the_machine_endpoints_only(client: httpx.Client) -> None:
    described = client.get("/api/openapi.json").json()

    assert described["openapi"].startswith("3.1")
    assert described["paths"]
    assert all(path.startswith("/api/v1/") for path in described["paths"])
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)
            assert {"401", "403", "422"} <= set(operation["responses"])
    assert "HTTPValidationError" not in json.dumps(described)


def test_the_pages_that_would_load_scripts_from_elsewhere_are_off(client: httpx.Client) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert client.get(path).status_code == 404
