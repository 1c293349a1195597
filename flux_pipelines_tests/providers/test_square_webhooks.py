"""Square's webhooks: Square's own vectors, Square's own helper, every kind of forgery, and what events touch."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from square.utils.webhooks_helper import verify_signature
from werkzeug import Request, Response

from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.providers.base import Invalidation, WebhookContext, WebhookRequest
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.providers.square.webhooks import SIGNATURE_HEADER, SquareWebhooks
from flux_pipelines_tests.providers.squarewire import square

#: https://developer.squareup.com/docs/webhooks/step3validate and the SDK's own tests.
PUBLISHED = [
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
]
KEY, URL = "the-signature-key", "https://flux.example.com/webhooks/square"
EXAMPLES = Path(__file__).parents[3] / "shared" / "examples" / "square"


def webhooks(key: str = KEY, url: str = URL) -> SquareWebhooks:
    return SquareWebhooks(WebhookContext(PROVIDER, url, key))


def sign(body: bytes, key: str = KEY, url: str = URL) -> str:
    return base64.b64encode(hmac.new(key.encode(), url.encode() + body, hashlib.sha256).digest()).decode()


def delivery(body: bytes, signature: str | None) -> WebhookRequest:
    return WebhookRequest({} if signature is None else {SIGNATURE_HEADER: signature}, body)


@pytest.mark.parametrize(("key", "url", "body", "signature"), PUBLISHED)
def test_what_square_publishes_is_accepted(key: str, url: str, body: str, signature: str) -> None:
    webhooks(key, url).verify(delivery(body.encode(), signature))
    with pytest.raises(WebhookRefusedError):
        webhooks(key, url + "/").verify(delivery(body.encode(), signature))


@given(key=st.text(min_size=1), url=st.text(min_size=1), body=st.text(), flip=st.integers(0, 4000))
@settings(max_examples=200, deadline=None)
def test_it_agrees_with_squares_own_helper(key: str, url: str, body: str, flip: int) -> None:
    signature = sign(body.encode(), key, url)
    position = flip % len(signature)
    other = signature[:position] + ("A" if signature[position] != "A" else "B") + signature[position + 1 :]
    for shown in (signature, other, ""):
        theirs = verify_signature(request_body=body, signature_header=shown, signature_key=key, notification_url=url)
        try:
            webhooks(key, url).verify(delivery(body.encode(), shown))
        except WebhookRefusedError:
            ours = False
        else:
            ours = True
        assert ours == theirs


BODY = PUBLISHED[0][2].encode()
GOOD = sign(BODY)
FORGERIES = {
    "no signature": (BODY, None),
    "empty signature": (BODY, ""),
    "empty body, rightly signed": (b"", sign(b"")),
    "wrong key": (BODY, sign(BODY, key="another-key")),
    "wrong address": (BODY, sign(BODY, url="https://evil.example.com/webhooks/square")),
    "address with a slash more": (BODY, sign(BODY, url=URL + "/")),
    "address without TLS": (BODY, sign(BODY, url=URL.replace("https", "http"))),
    "body written anew": (json.dumps(json.loads(BODY)).encode(), GOOD),
    "one byte more": (BODY + b"\n", GOOD),
    "one byte less": (BODY[:-1], GOOD),
    "body alone signed": (BODY, sign(BODY, url="")),
    "hex instead of base64": (BODY, base64.b64decode(GOOD).hex()),
    "without padding": (BODY, GOOD.rstrip("=")),
    "spaces around": (BODY, f" {GOOD} "),
    "twice": (BODY, f"{GOOD}, {GOOD}"),
    "the old SHA-1 scheme": (
        BODY,
        base64.b64encode(hmac.new(KEY.encode(), URL.encode() + BODY, hashlib.sha1).digest()).decode(),
    ),
    "not ASCII": (BODY, "é" * 44),
    "half a surrogate pair": (BODY, "\ud800"),
    "a megabyte of signature": (BODY, "A" * 1_000_000),
    "unicode body, signed in another encoding": ("é€😀".encode(), sign("é€😀".encode("utf-16"))),
}


@pytest.mark.parametrize(("body", "signature"), FORGERIES.values(), ids=FORGERIES)
def test_forgeries_are_refused(body: bytes, signature: str | None) -> None:
    webhooks().verify(delivery(BODY, GOOD))  # the same object takes what is right
    with pytest.raises(WebhookRefusedError) as refused:
        webhooks().verify(delivery(body, signature))
    assert KEY not in str(refused.value)
    assert GOOD not in str(refused.value)


def test_unicode_and_binary_bodies_are_verified_as_bytes() -> None:
    for body in ("é€😀".encode(), b"\xff\xfe\x00", BODY * 1000):
        webhooks().verify(delivery(body, sign(body)))


def test_a_repetition_is_accepted_because_square_signs_no_timestamp() -> None:
    """An old delivery cannot be told by its age; the inbox stores its event id once."""
    source = webhooks()
    for _ in range(2):
        source.verify(delivery(BODY, GOOD))
    assert source.read(WebhookRequest({}, BODY))[0].occurred_at == datetime(2022, 7, 13, 20, 30, 59, 37340, tzinfo=UTC)


@pytest.mark.parametrize(("key", "url"), [("", URL), (KEY, "")])
def test_without_a_key_or_an_address_nobody_can_be_verified(key: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match="signature key and notification URL"):
        webhooks(key, url)
    assert KEY not in repr(WebhookContext(PROVIDER, URL, KEY))


def test_the_envelope_is_read() -> None:
    (event,) = webhooks().read(WebhookRequest({}, BODY))
    assert event.event_id == "ac3ac95b-f97d-458c-a6e6-18981597e05f"
    assert (event.event_type, event.account_id) == ("webhooks.test_notification", "MLEFBHHSJGVHD")


@pytest.mark.parametrize(
    ("created_at", "wanted"),
    [
        ("2020-02-06T21:27:34.308Z", datetime(2020, 2, 6, 21, 27, 34, 308000, tzinfo=UTC)),
        ("2020-02-06T23:27:34+02:00", datetime(2020, 2, 6, 21, 27, 34, tzinfo=UTC)),
        ("2020-02-06T21:27:34", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_an_event_is_worth_having_without_its_time(created_at: str, wanted: datetime | None) -> None:
    body = json.dumps({"event_id": "e", "type": "t", "created_at": created_at}).encode()
    assert webhooks().read(WebhookRequest({}, body))[0].occurred_at == wanted


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"null",
        b"not json",
        b'{"event_id":"e"',
        b'{"event_id":"","type":"t"}',
        b'{"event_id":"e","type":""}',
        b'{"event_id":1,"type":"t"}',
        b'{"event_id":"e","type":null}',
        b'{"event_id":"\xff","type":"t"}',
        b'{"event_id":"\\ud800","type":"t"}',
        b"[" * 100_000,
        PUBLISHED[1][2].encode(),
    ],
)
def test_what_is_not_an_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefusedError, match="not an event"):
        webhooks().read(WebhookRequest({}, body))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_body_breaks_reading(body: bytes) -> None:
    with contextlib.suppress(WebhookRefusedError):
        webhooks().read(WebhookRequest({}, body))
    (found,) = webhooks().affected([("payment.created", body)], NoSource())
    assert found.nothing


class NoSource:
    """A source that must not be asked."""

    max_locations_per_window = 1

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


class Orders:
    """Square's batch-retrieve over real HTTP: answers what it holds, remembers what it was asked."""

    def __init__(self, server: HTTPServer, *orders: dict[str, Any]) -> None:
        self.held = {order["id"]: order for order in orders}
        self.asked: list[list[str]] = []
        server.expect_request("/v2/orders/batch-retrieve", method="POST").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        ids = json.loads(request.data)["order_ids"]
        self.asked.append(ids)
        found = [self.held[order_id] for order_id in ids if order_id in self.held]
        return Response(json.dumps({"orders": found} if found else {}), 200, content_type="application/json")


def order(order_id: str, created_at: str, location: str = "L1", **more: Any) -> dict[str, Any]:
    return {"id": order_id, "location_id": location, "created_at": created_at, "state": "COMPLETED", **more}


def event(event_type: str, **inside: Any) -> tuple[str, bytes]:
    name = event_type.replace(".", "_") if event_type.startswith("order") else event_type.partition(".")[0]
    envelope = {"event_id": "e", "type": event_type, "data": {"type": name, "id": "x", "object": {name: inside}}}
    return event_type, json.dumps(envelope).encode()


def counted(*locations: str) -> tuple[str, bytes]:
    counts = [{"catalog_object_id": "V", "state": "IN_STOCK", "location_id": one, "quantity": "3"} for one in locations]
    data = {"type": "inventory_counts", "id": "x", "object": {"inventory_counts": counts}}
    return "inventory.count.updated", json.dumps({"event_id": "e", "type": "x", "data": data}).encode()


CATALOG = frozenset({("catalog", "", None)})
AT = "2026-03-02T10:00:00Z"
INSTANT = datetime(2026, 3, 2, 10, tzinfo=UTC)


def affected(server: HTTPServer, folder: Path, *events: tuple[str, bytes]) -> list[Invalidation]:
    with square(server.url_for(""), folder) as source:
        return webhooks().affected(events, source)


def test_payments_refunds_and_orders_touch_their_order(httpserver: HTTPServer, tmp_path: Path) -> None:
    orders = Orders(httpserver, order("A", AT), order("B", "2026-03-03T23:30:00.5Z", "L2"))
    found = affected(
        httpserver,
        tmp_path,
        # The payment's own time is another day: the order's counts.
        event("payment.created", order_id="A", location_id="L1", created_at="2026-03-05T10:00:00Z"),
        event("refund.updated", order_id="A", location_id="L1"),
        event("order.updated", order_id="B", location_id="L2", created_at="2026-03-03T23:30:00.5Z", version=3),
        event("order.fulfillment.updated", order_id="B"),
    )
    a, b = ("L1", INSTANT), ("L2", datetime(2026, 3, 3, 23, 30, 0, 500000, tzinfo=UTC))
    paid = frozenset({("payments", "L1", datetime(2026, 3, 5, 10, tzinfo=UTC))})
    assert found == [
        Invalidation(frozenset({a}), streams=paid),
        Invalidation(frozenset({a})),  # this refund does not say when it was made
        Invalidation(frozenset({b})),
        Invalidation(frozenset({b})),
    ]
    assert orders.asked == [["A", "B"]], "one call for all of them"


def test_a_return_touches_the_days_of_what_came_back(httpserver: HTTPServer, tmp_path: Path) -> None:
    back = order("R", "2026-03-09T10:00:00Z", returns=[{"source_order_id": "A"}, {"source_order_id": "gone"}, {}])
    orders = Orders(httpserver, order("A", AT), back)
    (found,) = affected(httpserver, tmp_path, event("refund.created", order_id="R"))
    assert found.sold == {("L1", INSTANT), ("L1", datetime(2026, 3, 9, 10, tzinfo=UTC))}
    assert orders.asked == [["R"], ["A", "gone"]]


def test_a_storm_costs_one_call_a_hundred_orders(httpserver: HTTPServer, tmp_path: Path) -> None:
    orders = Orders(httpserver, *(order(f"O{n}", AT) for n in range(250)))
    events = [event("payment.updated", order_id=f"O{n % 250}") for n in range(1000)]
    found = affected(httpserver, tmp_path, *events)
    assert found == [Invalidation(frozenset({("L1", INSTANT)}))] * 1000
    assert [len(ids) for ids in orders.asked] == [100, 100, 50]


def test_an_order_that_square_does_not_give(httpserver: HTTPServer, tmp_path: Path) -> None:
    Orders(httpserver)
    stub, payment, incomplete = affected(
        httpserver,
        tmp_path,
        event("order.created", order_id="A", location_id="L1", created_at=AT, state="OPEN"),
        event("payment.created", order_id="A", location_id="L1", created_at=AT),
        event("order.created", order_id="A", location_id="L1"),
    )
    assert stub == Invalidation(frozenset({("L1", INSTANT)})), "what the stub says is enough"
    assert payment == Invalidation(streams=frozenset({("payments", "L1", INSTANT)})), "the payment itself is known"
    assert incomplete.nothing == "Square does not give the order A"


def test_an_order_whose_header_cannot_be_read_does_not_lose_the_others(httpserver: HTTPServer, tmp_path: Path) -> None:
    Orders(httpserver, order("A", "not a time"), order("B", AT))
    broken, good = affected(
        httpserver, tmp_path, event("payment.created", order_id="A"), event("payment.created", order_id="B")
    )
    assert broken.nothing
    assert good.sold == {("L1", INSTANT)}


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (event("location.updated"), Invalidation(locations=True)),
        (event("location.created"), Invalidation(locations=True)),
        (event("oauth.authorization.revoked", revoker_type="MERCHANT"), Invalidation(revoked=True)),
        (
            event("inventory.count.updated"),
            Invalidation(nothing="the event names no location whose stock changed"),
        ),
        (
            counted("L1", "L2", "L1"),
            Invalidation(streams=frozenset({("inventory", "L1", None), ("inventory", "L2", None)})),
        ),
        (event("catalog.version.updated", updated_at=AT), Invalidation(streams=CATALOG)),
        (
            event(
                "labor.timecard.updated",
                location_id="L1",
                start_at="2026-03-02T05:00:00-05:00",
                created_at="2026-03-09T00:00:00Z",
            ),
            Invalidation(streams=frozenset({("labor", "L1", INSTANT)})),
        ),
        (
            ("labor.timecard.deleted", b'{"data":{"id":"T1","type":"labor","deleted":true}}'),
            Invalidation(nothing="the event does not say where and when work began"),
        ),
        (
            event("labor.scheduled_shift.updated", location_id="L1"),
            Invalidation(nothing="events of type labor.scheduled_shift.updated say nothing about sales"),
        ),
        (
            # Taken offline: created when it arrived, made when the till says.
            event(
                "payment.created",
                location_id="L1",
                created_at="2026-03-04T10:00:00Z",
                offline_payment_details={"client_created_at": AT},
            ),
            Invalidation(streams=frozenset({("payments", "L1", INSTANT)})),
        ),
        (event("brand.new"), Invalidation(nothing="events of type brand.new say nothing about sales")),
        (event("payment.created", amount=3), Invalidation(nothing="this payment belongs to no order")),
        (("order.created", b'{"data":{"object":{}}}'), Invalidation(nothing="this order has no id")),
    ],
)
def test_what_needs_no_call(told: tuple[str, bytes], wanted: Invalidation) -> None:
    assert webhooks().affected([told], NoSource()) == [wanted]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[]}', b'{"data":{"object":{"payment":3}}}', b"\xff"])
def test_an_event_that_cannot_be_read_is_nothing(body: bytes) -> None:
    (found,) = webhooks().affected([("payment.created", body)], NoSource())
    assert found.nothing.startswith("the event cannot be read")


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="Square's example events are not beside this checkout")
def test_squares_own_examples(httpserver: HTTPServer, tmp_path: Path) -> None:
    bodies = {file.name.split("_")[1]: file.read_bytes() for file in EXAMPLES.glob("webhook_*Event.json")}
    source = webhooks()
    read = {name: source.read(WebhookRequest({}, body))[0] for name, body in bodies.items()}
    assert len(read) >= 10
    assert all(one.event_id and one.account_id and one.occurred_at for one in read.values())
    orders = Orders(
        httpserver,
        order("03O3USaPaAaFnI6kkwB1JxGgBsUZY", AT),
        order("haOyDuHiqtAXMk0d8pDKXpL7Jg4F", AT),
    )
    names = sorted(bodies)
    found = dict(
        zip(names, affected(httpserver, tmp_path, *((read[n].event_type, bodies[n]) for n in names)), strict=True)
    )
    assert {name for name, one in found.items() if one.sold} == {
        f"{kind}Event.json"
        for kind in (
            "OrderCreated", "OrderUpdated", "OrderFulfillmentUpdated", "PaymentCreated", "PaymentUpdated",
            "RefundCreated", "RefundUpdated",
        )
    }  # fmt: skip
    assert [name for name, one in found.items() if one.revoked] == ["OauthAuthorizationRevokedEvent.json"]
    assert [name for name, one in found.items() if one.locations] == ["LocationUpdatedEvent.json"]
    assert len(orders.asked) == 1
    assert {
        (name.removesuffix("Event.json"), stream, place)
        for name, one in found.items()
        for stream, place, _ in one.streams
    } == {
        ("PaymentCreated", "payments", "S8GWD5R9QB376"),
        ("PaymentUpdated", "payments", "S8GWD5R9QB376"),
        ("RefundCreated", "payments", "NAQ1FHV6ZJ8YV"),
        ("RefundUpdated", "payments", "NAQ1FHV6ZJ8YV"),
        ("InventoryCountUpdated", "inventory", "YYQR03DGCTXA4"),
        ("CatalogVersionUpdated", "catalog", ""),
    }
