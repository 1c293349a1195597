"""The contract suite, webhooks: what a provider sends is taken once, however often it comes, and says which day is stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import httpx
import pytest

from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.providers.base import WebhookEvent, WebhookRequest
from flux_pipelines.providers.registry import all_providers
from flux_pipelines_tests.contract.conftest import Connect, Played, providers
from flux_sandbox.deliveries import Delivery
from flux_sandbox.options import SandboxOptions
from flux_sandbox.provider import TellingSandbox, WebhookSender
from flux_sandbox.registry import build
from flux_sandbox.world import World

TELLING = [name for name in providers() if all_providers()[name].webhooks is not None]

#: More than anybody reads.
DEEP = b'{"timestamp":' + b"[" * 1200 + b"]" * 1200 + b"}"

pytestmark = pytest.mark.parametrize("name", TELLING)


def sold(played: Played) -> list[Delivery]:
    """Let something be sold, and return what the provider sends about it instead of sending it."""
    world, store = played.sandbox.world, played.merchant.locations[0].id
    with world.outbox.collect() as announced:
        order = played.pull("orders/sell", location_id=store)["order_id"]
    sale = world.sales.pop(order)  # the world is everybody's
    world.order_index[store].drop(sale)
    world.sales[order] = sale  # its provider can still be asked for it
    return announced


def headers_of(delivery: Delivery) -> dict[str, str]:
    return dict(delivery.headers(0, "", datetime.now(UTC).isoformat()))


def post(delivery: Delivery, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> int:
    sent = delivery.body if body is None else body
    return httpx.post(delivery.url, content=sent, headers={**headers_of(delivery), **(headers or {})}).status_code


def sender(name: str) -> WebhookSender:
    """Return how a provider signs, over a world of its own."""
    made = build(name, World(SandboxOptions(), []))
    assert isinstance(made, TellingSandbox)
    return made.webhooks


def read(played: Played, deliveries: Sequence[Delivery]) -> list[WebhookEvent]:
    """Return the events of deliveries, each with what is kept of it."""
    webhooks = played.runtime.webhooks(played.spec)
    return [
        event._replace(body=delivery.body if event.body is None else event.body)
        for delivery in deliveries
        for event in webhooks.read(
            WebhookRequest({k.lower(): v for k, v in headers_of(delivery).items()}, delivery.body)
        )
    ]


def test_a_sale_is_told_once_whatever_the_post_does_and_names_its_day(connect: Connect, name: str) -> None:
    played = connect(name)
    runtime, connection = played.runtime, played.connection
    with RunningGateway(runtime) as gateway:
        try:
            assert register_at_sandbox(runtime, played.sandbox.url, gateway.url) == []
            announced = sold(played)
            assert announced
            assert all(post(delivery) < 300 for delivery in announced)
            assert all(post(delivery) < 300 for delivery in announced), (
                "a second delivery is none of the provider's faults"
            )
            refused = runtime.webhooks(played.spec).refused_status
            first = announced[0]
            changed, signed = first.body.replace(b"{", b"{ ", 1), sender(name).signed
            if signed(first.url, "a key", first.body) != signed(
                first.url, "a key", changed
            ):  # else a secret comes with it
                assert post(first, changed) == refused
            assert post(first, headers=signed(first.url, "another key", first.body)) == refused
            assert post(first, b"") in (400, refused)
            assert post(first, DEEP) in (400, refused), "whoever looks into a body before it is verified bears it"
        finally:
            played.pull("webhooks/clear", subscriptions=True)
    events, told = runtime.state.inbox.pending(name), read(played, announced)
    assert len({event.event_id for event in events}) == len(events) == len(told)
    if any(event.event_id for event in told):  # else they are made of the events
        assert sorted(event.event_id for event in events) == sorted(delivery.event_id for delivery in announced)
    assert {event.connection_key for event in events} == {connection.key}

    source = runtime.source(connection)
    try:
        stale = runtime.webhooks(played.spec).affected([(event.event_type, event.body) for event in events], source)
    finally:
        source.close()
    assert len(stale) == len(events)
    store = played.merchant.locations[0]
    calendar = BusinessCalendar(store.timezone, connection.cutoff_hour)
    days = {(where, calendar.date_of(at)) for one in stale for where, at in one.sold}
    days |= {day for one in stale for day in one.days}
    assert days == {(store.id, calendar.date_of(datetime.now(UTC)))}


def test_an_event_that_nobody_knows_touches_nothing_and_loses_no_other(connect: Connect, name: str) -> None:
    played = connect(name)
    runtime = played.runtime
    with RunningGateway(runtime) as gateway:
        try:
            register_at_sandbox(runtime, played.sandbox.url, gateway.url)
            announced = sold(played)
        finally:
            played.pull("webhooks/clear", subscriptions=True)
    told = read(played, announced)
    types = sorted({event.event_type for event in told})
    assert [kind for kind in types if not played.spec.uses(kind)] == [], "their bodies would be dropped"
    odd = [("nobody.knows.this", announced[0].body)]
    odd += [(kind, body) for kind in types for body in (b"{}", b"not json at all", DEEP)]
    source = runtime.source(played.connection)
    try:
        good = [(event.event_type, event.body or b"") for event in told]
        stale = runtime.webhooks(played.spec).affected([*odd, *good], source)
    finally:
        source.close()
    assert stale[0].nothing
    assert not any(one.sold or one.days for one in stale[: len(odd)]), stale[: len(odd)]
    assert any(one.sold or one.days for one in stale[len(odd) :])
