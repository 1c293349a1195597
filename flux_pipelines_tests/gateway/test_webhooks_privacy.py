"""What a webhook tells of a person is verified as it came, and stored without the person."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from flux_pipelines.domain.connection import Connection
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.webhookwire import connect, event, register, send

PERSON = {
    "customer_id": "C1",
    "buyer_email_address": "ada@example.com",
    "total": 1.10,
    "card_details": {"card": {"last_4": "1111", "card_brand": "VISA"}},
}


@pytest.fixture
def url(gateway: RunningGateway, runtime: Runtime) -> str:
    return register(runtime, gateway.url)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20, trust_env=False) as opened:
        yield opened


def test_bodies_are_stored_without_what_is_personal(runtime: Runtime, url: str, client: httpx.Client) -> None:
    connect(runtime)
    keeping = {"keep_personal_data": 1}
    runtime.state.connections.add(Connection("square:keeper", "k", account_id="KEEPER", settings=keeping))
    sent = {account: event(account, account=account, person=PERSON) for account in ("MERCHANT1", "STRANGER", "KEEPER")}
    plain = event("plain")
    for body in (*sent.values(), plain):
        assert send(client, url, body).status_code == 200
    stored = {one.event_id: one.body for one in runtime.state.inbox.recent()}
    assert stored["KEEPER"] == sent["KEEPER"], "somebody asked to keep it"
    assert stored["plain"] == plain, "byte for byte"
    for account in ("MERCHANT1", "STRANGER"):
        expected = json.loads(sent[account])
        expected["person"] |= {"customer_id": runtime.pseudonyms.of("C1"), "buyer_email_address": None}
        expected["person"]["card_details"]["card"]["last_4"] = None
        assert json.loads(stored[account]) == expected
        assert b"1.1" in stored[account]
    everything = b"".join(path.read_bytes() for path in runtime.settings.home.iterdir() if path.is_file())
    assert everything.count(b"ada@example.com") >= 1, "the keeper's"
    runtime.state.inbox.rewrite("square", "square:keeper", "KEEPER", lambda bodies: [b"{}" for _ in bodies])
    everything = b"".join(path.read_bytes() for path in runtime.settings.home.iterdir() if path.is_file())
    assert b"ada@example.com" not in everything, "what is forgotten is in no file of the database"
