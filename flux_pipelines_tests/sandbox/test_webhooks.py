"""Webhooks as Square documents them: who is told what, in which shape, and signed so that Square's own helper agrees."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines_tests.sandbox.conftest import Square
from flux_pipelines_tests.sandbox.receiver import Received, Receiver
from flux_sandbox.options import WEBHOOK_SIGNATURE_KEY
from flux_sandbox.server import RunningSandbox
from flux_sandbox.square.webhooks import signature

webhooks_helper = pytest.importorskip("square.utils.webhooks_helper", reason="the official squareup SDK is missing")

Start = Callable[..., RunningSandbox]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


class World:
    """A sandbox whose events go to a receiver, strictly in order."""

    def __init__(self, sandbox: RunningSandbox, receiver: Receiver, **conditions: Any) -> None:
        self.sandbox, self.receiver = sandbox, receiver
        self.http = httpx.Client(base_url=sandbox.url, timeout=30)
        self.subscription = self.post("webhooks", url=receiver.url, **{"concurrency": 1, **conditions})["subscription"]

    def post(self, what: str, **body: Any) -> Any:
        answer = self.http.post(f"/sandbox/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self) -> Any:
        return self.http.get("/sandbox/webhooks").json()

    def told(self, what: str, **body: Any) -> list[Received]:
        """Let something happen; return what was told of it."""
        before, events = len(self.receiver.got), self.status()["events"]
        self.post(what, **body)
        return self.receiver.wait(before + self.status()["events"] - events)[before:]


def types(received: list[Received]) -> list[str]:
    return [one.type for one in received]


@pytest.mark.parametrize(
    ("key", "url", "body", "expected"),
    [
        (
            "Ibxx_5AKakO-3qeNVR61Dw",
            "https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9",
            '{"merchant_id":"MLEFBHHSJGVHD","type":"webhooks.test_notification",'
            '"event_id":"ac3ac95b-f97d-458c-a6e6-18981597e05f","created_at":"2022-07-13T20:30:59.037339943Z",'
            '"data":{"type":"webhooks","id":"bc368e64-01aa-407e-b46e-3231809b1129"}}',
            "GF4YkrJgGBDZ9NIYbNXBnMzqb2HoL4RW/S6vkZ9/2N4=",
        ),
        (
            "signature-key",
            "https://webhook.site/webhooks",
            '{"data":{"type":"webhooks","id":">id<"}}',
            "Cxt7+aTi4rKgcA0bC4g9EHdVtLSDWdqccmL5MvihU4U=",
        ),
    ],
)
def test_the_signature_is_the_published_one(key: str, url: str, body: str, expected: str) -> None:
    assert signature(key, url, body.encode()) == expected


def test_what_is_announced_of_every_happening(start: Start, receiver: Receiver) -> None:
    world = World(start(history_days=10), receiver)
    harbor = Square(world.sandbox, "harbor")
    here = harbor.locations[0]
    sale = world.told("orders/sell", location_id=here)
    assert types(sale) == ["payment.created", "payment.updated"]  # never order.created: it was rung up at the counter
    first, second = (one.json["data"]["object"]["payment"] for one in sale)
    assert (first["status"], second["status"]) == ("APPROVED", "COMPLETED")
    order = harbor.order(first["order_id"])
    assert order["tenders"][0]["id"] == first["id"]
    assert order["total_money"] == second["total_money"]

    online = world.told("orders/sell", location_id=here, online=True)
    assert types(online) == ["order.created", "payment.created", "payment.updated", "order.updated"]
    stub = online[0].json["data"]["object"]["order_created"]
    assert (stub["version"], stub["state"], stub["location_id"]) == (1, "OPEN", here)
    edited = world.told("orders/edit", order_id=stub["order_id"], add_units=1)
    assert types(edited) == ["order.updated", "payment.updated"]
    assert edited[0].json["data"]["object"]["order_updated"]["version"] == 3
    assert types(world.told("orders/edit", order_id=first["order_id"])) == ["order.updated"]

    back = world.told("orders/refund", order_id=first["order_id"])
    assert types(back) == ["refund.created", "refund.updated", "payment.updated"]
    refund = back[1].json["data"]["object"]["refund"]
    assert refund["status"] == "COMPLETED"
    assert refund["payment_id"] == first["id"]
    assert refund["order_id"] != first["order_id"]
    returned = harbor.order(refund["order_id"])
    assert returned["returns"][0]["source_order_id"] == first["order_id"]
    assert back[2].json["data"]["object"]["payment"]["refunded_money"] == refund["amount_money"]

    late = world.told("orders/late", location_id=here, hours=30)
    offline = late[0].json["data"]["object"]["payment"]
    rung_up = harbor.order(offline["order_id"])["created_at"]
    assert offline["offline_payment_details"]["client_created_at"] == rung_up
    assert offline["created_at"] > rung_up

    waiting = world.http.get("/sandbox/orders", params={"merchant": "harbor", "state": "OPEN"}).json()["orders"]
    unpaid = [one["order_id"] for one in waiting if not one["paid"]]
    assert types(world.told("orders/complete", order_id=unpaid[0]))[:2] == [
        "payment.created",
        "payment.updated",
    ]
    assert types(world.told("orders/cancel", order_id=unpaid[1])) == ["order.updated"]
    assert types(world.told("locations/timezone", location_id=here, timezone="Asia/Tokyo")) == ["location.updated"]
    assert types(world.told("locations/open", merchant="harbor", name="Kiosk")) == ["location.created"]
    assert len(harbor.http.get("/v2/locations").json()["locations"]) == len(harbor.locations) + 1
    assert types(world.told("webhooks/emit", merchant="harbor", type="nobody.knows.this")) == ["nobody.knows.this"]
    assert types(world.told("tokens/revoke", merchant="harbor")) == ["oauth.authorization.revoked"]
    assert receiver.got[-1].json["data"]["object"]["revocation"]["revoker_type"] == "MERCHANT"


def test_every_request_is_signed_over_the_address_and_the_raw_body(start: Start, receiver: Receiver) -> None:
    world = World(start(), receiver, signature_key="a key of my own")
    Square(world.sandbox, "sakura")
    tokyo = world.sandbox.world.merchant("sakura").locations[0].id
    (request, *_) = world.told("orders/sell", location_id=tokyo)
    text = request.body.decode()
    assert "抹茶" in text  # not escaped: whoever decodes and encodes the body again gets another signature
    good = {
        "signature_header": request.headers["x-square-hmacsha256-signature"],
        "signature_key": "a key of my own",
        "notification_url": receiver.url,
    }
    assert webhooks_helper.verify_signature(request_body=text, **good)
    assert not webhooks_helper.verify_signature(request_body=json.dumps(request.json), **good)
    assert not webhooks_helper.verify_signature(
        request_body=text, **{**good, "notification_url": receiver.url.partition("?")[0]}
    )
    assert request.path == "/webhooks/square?from=sandbox"
    assert request.headers["square-environment"] == "Sandbox"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["square-initial-delivery-timestamp"] == "2026-11-04T12:00:00Z"
    assert "square-retry-number" not in request.headers


def test_only_what_was_granted_and_subscribed_to_is_told(start: Start, receiver: Receiver) -> None:
    world = World(start(), receiver, event_types=["payment.created", "order.updated", "location.updated"])
    here = world.sandbox.world.merchant("harbor").locations[0].id
    assert world.post("orders/sell", location_id=here)["webhooks"] == 0  # nobody has authorised the app
    Square(world.sandbox, "harbor", scopes=["ORDERS_READ"])
    sale = world.post("orders/sell", location_id=here)
    assert sale["webhooks"] == 0  # without PAYMENTS_READ a sale is not announced
    assert types(world.told("orders/edit", order_id=sale["order_id"], add_units=1)) == ["order.updated"]
    Square(world.sandbox, "harbor", scopes=["PAYMENTS_READ"])
    assert types(world.told("orders/sell", location_id=here)) == ["payment.created"]
    world.post("tokens/scopes", merchant="harbor", remove=["PAYMENTS_READ"])
    assert world.post("orders/sell", location_id=here)["webhooks"] == 0
    world.post("tokens/revoke", merchant="harbor")
    assert world.post("orders/edit", order_id=sale["order_id"])["webhooks"] == 0


def test_the_app_revokes_too(start: Start, receiver: Receiver) -> None:
    world = World(start(), receiver)
    harbor = Square(world.sandbox, "harbor")
    app = world.http.get("/sandbox/app").json()
    header = {"Authorization": f"Client {app['client_secret']}"}
    body = {"client_id": app["client_id"], "access_token": harbor.tokens["access_token"]}
    assert world.http.post("/oauth2/revoke", json=body, headers=header).json() == {"success": True}
    (told,) = receiver.wait(1)
    assert told.json["data"]["object"]["revocation"]["revoker_type"] == "APPLICATION"
    assert told.json["merchant_id"] == harbor.merchant.id


EXAMPLES = {
    "catalog.version.updated": "CatalogVersionUpdatedEvent",
    "inventory.count.updated": "InventoryCountUpdatedEvent",
    "location.updated": "LocationUpdatedEvent",
    "oauth.authorization.revoked": "OauthAuthorizationRevokedEvent",
    "order.created": "OrderCreatedEvent",
    "order.fulfillment.updated": "OrderFulfillmentUpdatedEvent",
    "order.updated": "OrderUpdatedEvent",
    "payment.created": "PaymentCreatedEvent",
    "payment.updated": "PaymentUpdatedEvent",
    "refund.created": "RefundCreatedEvent",
    "refund.updated": "RefundUpdatedEvent",
}


def shape(value: Any, path: str = "") -> dict[str, str]:
    """Return every path of a JSON value with the kind of what is there."""
    if isinstance(value, dict):
        found = {path: "object"}
        for key, inner in value.items():
            found |= shape(inner, f"{path}.{key}")
        return found
    if isinstance(value, list):
        return {path: "list", **{k: v for inner in value for k, v in shape(inner, f"{path}[]").items()}}
    return {path: type(value).__name__}


@pytest.fixture
def everything(start: Start, receiver: Receiver) -> list[Received]:
    """At least one event of every type, in three currencies."""
    world = World(start(history_days=10), receiver)
    merchants = [Square(world.sandbox, handle).merchant for handle in ("harbor", "sakura", "fjord")]
    for merchant in merchants:
        here = merchant.locations[0].id
        for paid_by in ("CARD", "CASH", "WALLET", "OTHER", "GIFT_CARD"):
            world.sandbox.world.sell(here, paid_by=paid_by)
        sale = world.post("orders/sell", location_id=here, online=True)
        world.post("orders/late", location_id=here, hours=4)
        world.post("orders/edit", order_id=sale["order_id"], add_units=2)
        world.post("orders/refund", order_id=sale["order_id"])
        world.post("locations/timezone", location_id=here, timezone="UTC")
        for kind in ("catalog.version.updated", "inventory.count.updated"):
            world.post("webhooks/emit", merchant=merchant.id, type=kind)
    waiting = world.http.get("/sandbox/orders", params={"merchant": "harbor", "state": "OPEN"}).json()["orders"]
    open_order = world.sandbox.world.sales[waiting[0]["order_id"]]
    open_order.version = 3  # as one made through the API, with a fulfilment that is still to come
    world.post("orders/complete", order_id=open_order.id)
    world.post("tokens/revoke", merchant="fjord")
    return receiver.wait(world.status()["events"])


def test_bodies_have_the_shape_of_squares_examples(everything: list[Received], shared: Path) -> None:
    assert set(types(everything)) >= set(EXAMPLES)
    for received in everything:
        name = EXAMPLES[received.type]
        example = shape(json.loads((shared / f"examples/square/webhook_{name}.json").read_text()))
        ours = shape(received.json)
        whole = not received.type.startswith(("payment.", "refund."))
        for path, kind in ours.items():
            # The object in a payment or refund has fields that the one example happens not to have: see the schema.
            assert example.get(path, kind if path.startswith(".data.object.") and not whole else "") == kind, path
        optional = {
            ".data.object.order_updated.version",
            ".data.object.order_created.version",
        }  # only of the API's orders
        if whole:
            assert set(example) - set(ours) <= optional
        else:
            kind = received.type.partition(".")[0]
            needed = {"id", "status", "amount_money.amount", "order_id", "location_id", "created_at", "updated_at"}
            assert {f".data.object.{kind}.{name}" for name in needed} <= set(ours)
            assert {path for path in example if path.count(".") == 1} <= set(ours)


def test_bodies_are_what_square_describes(everything: list[Received], validate: Callable[[str, Any], None]) -> None:
    for received in everything:
        body = received.json
        if received.type == "catalog.version.updated":
            del body["data"]["id"]  # which is in Square's own example of it, but not in its description
        validate(EXAMPLES[received.type], body)


def test_the_sandbox_tells_what_the_app_is_registered_with(start: Start, receiver: Receiver) -> None:
    sandbox = start()
    square = httpx.get(f"{sandbox.url}/sandbox/app").json()["apps"]["square"]
    assert square["settings"] == {"base_url": sandbox.url}
    assert square["secrets"]["webhook_signature_key"] == WEBHOOK_SIGNATURE_KEY
    World(sandbox, receiver, signature_key="another")
    square = httpx.get(f"{sandbox.url}/sandbox/app").json()["apps"]["square"]
    assert square["settings"] == {"base_url": sandbox.url, "notification_url": receiver.url}
    assert square["secrets"]["webhook_signature_key"] == "another"


@pytest.mark.parametrize(
    "body",
    [
        {"duplicates": 1.5},
        {"delay": [3, 1]},
        {"delay": 3},
        {"concurrency": 0},
        {"timeout": 0},
        {"url": "javascript:x"},
        {"url": "http://[::1"},
        {"url": "http://x:nothing/"},
        {"url": "http://x/", "event_types": ["nothing"]},
        {"url": "http://x/", "provider": "nobody"},
    ],
)
def test_conditions_that_cannot_be(start: Start, body: dict[str, Any]) -> None:
    http = httpx.Client(base_url=start().url)
    before = http.get("/sandbox/webhooks").json()
    answer = http.post("/sandbox/webhooks", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert http.get("/sandbox/webhooks").json() == before
