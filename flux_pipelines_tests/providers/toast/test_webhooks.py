"""Toast's signature, what its own example events make stale, and events that are none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
import time_machine

from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.providers.base import Invalidation, Location, WebhookContext, WebhookRequest
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines.providers.toast.webhooks import ToastWebhooks
from flux_pipelines_tests.providers.toast.wire import EXAMPLES

SECRET = "secret-tenant-a"
#: The vector of the project's facts about Toast, which publishes none.
BODY = (
    b'{"timestamp":"2024-03-28T15:11:01.050Z","eventCategory":"stock","eventType":"in_stock",'
    b'"guid":"e445f586-081c-4a2a-bcd6-30717a48e17a","details":{"restaurantGuid":"3325cc58-dc6e-4e21-85f9-7de275ffe820"}}'
)
SIGNATURE = "/lMqqrbhLq0q/hhJneDcBxofK1geS66uSOBbT/95ufg="
SENT = datetime(2024, 3, 28, 15, 11, 2, tzinfo=UTC)


def webhooks(keys: str = SECRET) -> ToastWebhooks:
    return ToastWebhooks(WebhookContext(PROVIDER, "https://flux.example/webhooks/toast", keys))


def delivery(body: bytes = BODY, signature: str = SIGNATURE, **headers: str) -> WebhookRequest:
    return WebhookRequest({"toast-signature": signature, **headers}, body)


def signed(body: bytes, key: str = SECRET) -> WebhookRequest:
    message = body + json.loads(body)["timestamp"].encode()
    return delivery(body, base64.b64encode(hmac.digest(key.encode(), message, hashlib.sha256)).decode())


def example(name: str) -> bytes:
    if not EXAMPLES.is_dir():
        pytest.skip("the shared examples are not here")
    return (EXAMPLES / f"webhook_{name}.json").read_bytes()


@time_machine.travel(SENT)
def test_the_signature_is_over_the_body_and_its_timestamp() -> None:
    webhooks().verify(delivery())
    webhooks(f"another-secret, {SECRET}").verify(delivery())
    for request in (
        delivery(BODY + b" "),
        delivery(BODY.replace(b"in_stock", b"out_of_stock")),
        delivery(signature=""),
        delivery(signature="é"),
        delivery(b""),
        delivery(b"[]"),
        delivery(b'{"guid":"x"}'),
        delivery(signature=base64.b64encode(hmac.digest(SECRET.encode(), BODY, hashlib.sha256)).decode()),
    ):
        with pytest.raises(WebhookRefusedError):
            webhooks().verify(request)
    with pytest.raises(WebhookRefusedError):
        webhooks("another-secret").verify(delivery())
    assert webhooks().refused_status == 401  # 4xx but 404 and 429 is never tried again


@pytest.mark.parametrize(("minutes", "good"), [(-29, True), (29, True), (31, False), (-31, False)])
def test_a_signed_time_is_good_for_half_an_hour(minutes: int, good: bool) -> None:
    with time_machine.travel(SENT.timestamp() + 60 * minutes):
        if good:
            webhooks().verify(delivery())
        else:
            with pytest.raises(WebhookRefusedError, match="30 minutes"):
                webhooks().verify(delivery())


def test_without_a_secret_nothing_is_accepted() -> None:
    with pytest.raises(ConfigurationError):
        webhooks(" , ")


def test_an_event_names_itself_and_its_restaurant() -> None:
    (event,) = webhooks().read(delivery())
    assert (event.event_id, event.event_type) == ("e445f586-081c-4a2a-bcd6-30717a48e17a", "in_stock")
    assert event.account_id == "3325cc58-dc6e-4e21-85f9-7de275ffe820"
    assert event.occurred_at == datetime(2024, 3, 28, 15, 11, 1, 50_000, UTC)
    for body in (b"{", b"[]", b'{"timestamp":"x","guid":"","eventType":"a"}', b'{"timestamp":"x","guid":"a"}', b"\xff"):
        with pytest.raises(WebhookRefusedError):
            webhooks().read(delivery(body))


class Restaurants:
    """A source that still has these restaurants."""

    def __init__(self, *left: str) -> None:
        self.left = left
        self.asked = 0

    def accessible(self) -> tuple[str, ...]:
        self.asked += 1
        return self.left

    def locations(self) -> list[Location]:
        raise AssertionError("not needed")


def affected(*events: tuple[str, bytes], left: tuple[str, ...] = ()) -> list[Invalidation]:
    return webhooks().affected(list(events), Restaurants(*left))  # type: ignore[arg-type]


def test_the_examples_say_what_is_stale() -> None:
    order, menus, stock = example("order_updated"), example("menus_updated"), example("stock_low_quantity")
    request = signed(order)
    with time_machine.travel(datetime(2024, 3, 28, 15, 12, tzinfo=UTC)):
        webhooks().verify(request)
    assert webhooks().read(request)[0].event_type == "order_updated"
    restaurant = json.loads(order)["details"]["restaurantGuid"]
    of_stock = json.loads(stock)["details"]["restaurantGuid"]
    of_menus = json.loads(menus)["details"]["restaurantGuid"]
    assert affected(("order_updated", order), ("menus_updated", menus), ("low_quantity", stock)) == [
        Invalidation(days=frozenset({(restaurant, date(2024, 4, 1))})),
        Invalidation(streams=frozenset({("catalog", of_menus, None)})),
        Invalidation(streams=frozenset({("inventory", of_stock, None)})),
    ]
    assert affected(("partner_added", example("partner_added"))) == [Invalidation(locations=True)]


def body(category: str, event_type: str, **details: Any) -> bytes:
    event = {"timestamp": "2024-03-28T15:11:01.050Z", "eventCategory": category, "eventType": event_type, "guid": "g"}
    return json.dumps({**event, "details": details}).encode()


def test_a_restaurant_that_left_takes_the_connection_along_only_when_it_was_the_last() -> None:
    removed = ("partner_removed", body("partner", "partner_removed", restaurantGuid="R1"))
    assert affected(removed, left=("R2",)) == [Invalidation(locations=True)]
    assert affected(removed) == [Invalidation(revoked=True)]
    source = Restaurants("R1")
    webhooks().affected([("in_stock", BODY)], source)  # type: ignore[arg-type]
    assert source.asked == 0


@pytest.mark.parametrize(
    ("event_type", "given", "words"),
    [
        ("order_updated", body("order_updated", "order_updated", restaurantGuid="R"), "no business date"),
        ("order_updated", body("order_updated", "order_updated", order={"businessDate": 20240401}), "no restaurant"),
        (
            "order_updated",
            body("order_updated", "order_updated", restaurantGuid="R", order={"businessDate": 20241399}),
            "none",
        ),
        ("order_updated", b"{", "cannot be read"),
        ("online", body("restaurant_availability", "online", restaurantGuid="R"), "say nothing about"),
        ("brand_new", body("brand_new", "brand_new", restaurantGuid="R"), "say nothing about"),
    ],
)
def test_an_event_of_nothing_says_why_and_loses_no_other(event_type: str, given: bytes, words: str) -> None:
    nothing, stock = affected((event_type, given), ("in_stock", BODY))
    assert words in nothing.nothing
    assert stock.streams


def test_an_order_of_another_channel_counts_too() -> None:
    given = body(
        "channel_order_updated",
        "channel_order_updated",
        restaurantGuid="R",
        order={"guid": "O", "businessDate": 20240401},
    )
    assert affected(("channel_order_updated", given)) == [Invalidation(days=frozenset({("R", date(2024, 4, 1))}))]
