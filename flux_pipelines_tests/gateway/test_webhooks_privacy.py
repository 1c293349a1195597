"""What a webhook tells of a person is verified as it came, and stored without the person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import httpx
import pytest

from flux_pipelines.domain.connection import Connection
from flux_pipelines.erasure import erase
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.providers.base import Erasure
from flux_pipelines.runtime import Runtime
from flux_pipelines.state import NewEvent
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


UNUSED = ("customer.created", "invoice.created", "loyalty.account.created", "team_member.created")


def files(runtime: Runtime) -> bytes:
    return b"".join(path.read_bytes() for path in runtime.settings.home.iterdir() if path.is_file())


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


def test_of_events_that_nothing_is_done_for_no_body_is_stored_and_none_that_was_stays(
    runtime: Runtime, url: str, client: httpx.Client
) -> None:
    connect(runtime, "square:other", "OTHER")
    person = {"given_name": "Ada", "family_name": "Lovelace-Byron", "birthday": "1815-12-10"}
    bodies = {kind: event(kind, type=kind, data={"object": {"customer": person}}) for kind in UNUSED}
    for body in bodies.values():
        assert send(client, url, body).status_code == 200
    stored = {one.event_type: one.body for one in runtime.state.inbox.recent() if one.event_type in UNUSED}
    assert {kind: json.loads(body) for kind, body in stored.items()} == {
        kind: {"sha256": hashlib.sha256(body).hexdigest()} for kind, body in bodies.items()
    }
    assert b"Lovelace-Byron" not in files(runtime)
    # What an earlier version has kept, upkeep and each erasure forget.
    for forget in (
        runtime.forget_unused_events,
        lambda: erase(runtime, runtime.state.connections.get("square:other"), Erasure()),
        lambda: erase(runtime, runtime.state.connections.get("square:other"), Erasure(texts=("somebody else",))),
    ):
        old = [
            NewEvent("square", f"old-{n}-{id(forget)}", "customer.created", "", None, bodies[UNUSED[0]]) for n in "ab"
        ]
        runtime.state.inbox.add_many(old)
        assert b"Lovelace-Byron" in files(runtime)
        forget()
        assert b"Lovelace-Byron" not in files(runtime), "not in a free page either"
        assert runtime.forget_unused_events() == 0
