"""Shopify's webhooks: the published signature, the fields of an event, what each topic makes stale."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.privacy import Pseudonyms, Redactor
from flux_pipelines.providers.base import (
    Erasure,
    Invalidation,
    Order,
    OrderHeader,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.providers.shopify.webhooks import DESTROYING, ShopifyWebhooks
from flux_pipelines_tests.providers.shopify.nodes import found_in

MADE = datetime(2008, 1, 10, 16, tzinfo=UTC)
HEADERS = {
    "x-shopify-topic": "orders/updated",
    "x-shopify-shop-domain": "acme.myshopify.com",
    "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
    "x-shopify-triggered-at": "2026-03-29T18:00:27.877041743Z",
}


def webhooks(key: str = "test_secret_key") -> ShopifyWebhooks:
    return ShopifyWebhooks(WebhookContext(PROVIDER, "https://flux.test/webhooks/shopify", key))


def signature(body: bytes, key: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), body, hashlib.sha256).digest()).decode()


def request(body: bytes, **headers: str) -> WebhookRequest:
    return WebhookRequest({**HEADERS, **headers}, body)


class Source:
    """Knows one order."""

    asked: list[list[str]]

    def __init__(self) -> None:
        self.asked = []

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        self.asked.append(list(order_ids))
        header = OrderHeader("450789469", "7", MADE, MADE, MADE, "COMPLETED", 0, "USD")
        return [Order(msgspec.Raw(b"{}"), header)] if "450789469" in order_ids else []


def affected(*events: tuple[str, Any]) -> list[Invalidation]:
    bodies = [(topic, body if isinstance(body, bytes) else json.dumps(body).encode()) for topic, body in events]
    return webhooks().affected(bodies, Source())  # type: ignore[arg-type]


def test_the_published_signature_fits_and_others_do_not() -> None:
    # shopify-app-js, webhooks/__tests__/validate.test.ts
    body, given = b'{"foo": "bar"}', "B23tXN681gZ0qIWNRrgtzBE9XSDo5yaUu6wfmhu3a7g="
    webhooks().verify(request(body, **{"x-shopify-hmac-sha256": given}))
    webhooks().verify(WebhookRequest({"shopify-hmac-sha256": given}, body))
    webhooks("newer_key, test_secret_key").verify(request(body, **{"x-shopify-hmac-sha256": given}))
    for wrong in ("", given[:-2] + "0=", signature(body, "other"), "ümlaut", hashlib.sha256(body).hexdigest()):
        with pytest.raises(WebhookRefusedError):
            webhooks().verify(request(body, **{"x-shopify-hmac-sha256": wrong}))
    with pytest.raises(WebhookRefusedError):
        webhooks().verify(request(body + b" ", **{"x-shopify-hmac-sha256": given}))
    with pytest.raises(WebhookRefusedError):
        webhooks().verify(request(b"", **{"x-shopify-hmac-sha256": signature(b"", "test_secret_key")}))
    with pytest.raises(ConfigurationError):
        webhooks("")
    assert webhooks().refused_status == 401


def test_an_event_is_in_its_headers() -> None:
    (event,) = webhooks().read(request(b'{"id":1}'))
    assert event.event_id == HEADERS["x-shopify-webhook-id"]  # not the event's: two topics can share that
    assert (event.event_type, event.account_id) == ("orders/updated", "acme.myshopify.com")
    assert event.occurred_at == datetime(2026, 3, 29, 18, 0, 27, 877042, tzinfo=UTC)
    assert webhooks().read(request(b"{}", **{"x-shopify-triggered-at": "soon"}))[0].occurred_at is None
    for body, headers in (
        (b"[1]", {}),
        (b"{", {}),
        (b"{}", {"x-shopify-topic": ""}),
        (b"{}", {"x-shopify-shop-domain": ""}),
    ):
        with pytest.raises(WebhookRefusedError):
            webhooks().read(request(body, **headers))


def test_what_touches_an_order_is_looked_up_together(examples: Path) -> None:
    order = found_in(json.loads((examples / "rest_order_get_with_refunds.json").read_text()), "order")
    refund = json.loads((examples / "pyfixture_refund.json").read_text())["refund"]
    payment = found_in(json.loads((examples / "rest_order_transactions_list.json").read_text()), "transactions")[0]
    source = Source()
    events = [
        ("orders/create", order),
        ("orders/updated", order),
        ("orders/cancelled", order),
        ("refunds/create", refund),
        ("order_transactions/create", payment),
        ("orders/edited", {"order_edit": {"id": 1, "order_id": 450789469}}),
    ]
    found = webhooks().affected([(topic, json.dumps(body).encode()) for topic, body in events], source)  # type: ignore[arg-type]
    assert found == [Invalidation(sold=frozenset({("7", MADE)}))] * len(events)
    assert source.asked == [["450789469"]]
    (gone, nameless) = affected(("orders/create", {"id": 5}), ("orders/create", {"id": None}))
    assert "does not give the order 5" in gone.nothing
    assert "names no order" in nameless.nothing


def test_every_other_topic(examples: Path) -> None:
    product = json.loads((examples / "webhook_products_update_excerpt.json").read_text())
    catalog = Invalidation(streams=frozenset({("catalog", "", None)}))
    found = affected(
        ("products/update", product),
        ("products/delete", {"id": 1}),
        ("inventory_levels/update", {"inventory_item_id": 271878346596884015, "location_id": 24826418, "available": 3}),
        ("locations/update", {"id": 1}),
        ("app/uninstalled", {"id": 548380009}),
        ("customers/data_request", {"customer": {"id": 1}, "orders_requested": [1]}),
        ("themes/publish", {"id": 1}),
        ("orders/create", b"{"),
    )
    assert found[:2] == [catalog, catalog]
    assert found[2] == Invalidation(streams=frozenset({("inventory", "24826418", None)}))
    assert found[3] == Invalidation(locations=True, streams=frozenset({("catalog", "", None)}))
    assert found[4] == Invalidation(revoked=True)
    for nothing, said in zip(
        found[5:], ("a person has to answer it", "say nothing about sales", "cannot be read"), strict=True
    ):
        assert said in nothing.nothing
        assert nothing == Invalidation(nothing=nothing.nothing)


def test_a_deleted_order_is_known_by_its_id_alone_and_one_that_shopify_still_gives_is_not() -> None:
    gone, there = affected(("orders/delete", {"id": 5}), ("orders/delete", {"id": 450789469}))
    assert gone == Invalidation(deleted=frozenset({"5"}))
    assert there == Invalidation(sold=frozenset({("7", MADE)}))


SHOP = {"shop_id": 954889, "shop_domain": "acme.myshopify.com"}
FORGET = {**SHOP, "customer": {"id": 191167, "email": "john@example.com"}, "orders_to_redact": [299938]}
ABOUT = {"id": 954889, "name": "Acme", "myshopify_domain": "Acme.myshopify.com", "created_at": "2020-01-01T00:00:00Z"}
ORDER = {"id": 450789469, "created_at": "2008-01-10T11:00:00-05:00", "line_items": [], "customer": {"id": 191167}}
#: What a topic that destroys may be sent with, and bodies of others that have a signature as good.
REAL = {"shop/redact": SHOP, "customers/redact": FORGET, "app/uninstalled": ABOUT, "orders/delete": {"id": 1}}
OTHERS = (
    ORDER,
    {**FORGET, "data_request": {"id": 9999}, "orders_requested": [299938]},
    {"id": 1, "title": "a product", "created_at": "2020-01-01T00:00:00Z"},
    {},
)


@pytest.mark.parametrize("topic", sorted(DESTROYING))
def test_what_destroys_is_of_the_topic_and_the_shop_that_its_headers_name(topic: str) -> None:
    def read(body: object, **headers: str) -> WebhookEvent:
        return webhooks().read(request(json.dumps(body).encode(), **{"x-shopify-topic": topic, **headers}))[0]

    assert read(REAL[topic]).event_type == topic
    for body in (*OTHERS, *(body for name, body in REAL.items() if name != topic)):
        if topic == "orders/delete" and "created_at" not in body and "id" in body:
            continue  # it is no other than its own
        with pytest.raises(WebhookRefusedError, match=f"not one of {topic} of the shop"):
            read(body)
    if topic != "orders/delete":  # whose body names no shop
        with pytest.raises(WebhookRefusedError, match="of the shop"):
            read(REAL[topic], **{"x-shopify-shop-domain": "other.myshopify.com"})
    again = read(REAL[topic], **{"x-shopify-webhook-id": "another"})
    assert again.event_id == read(REAL[topic]).event_id, "a body is one event, whatever id it is sent with"


def test_of_a_request_to_forget_a_customer_is_kept_whom_it_names_by_pseudonyms() -> None:
    body = json.dumps({**FORGET, "orders_to_redact": []}).encode()
    kept = webhooks().read(request(body, **{"x-shopify-topic": "customers/redact"}))[0].body
    assert kept is not None
    pseudonyms = Pseudonyms(b"k" * 32)
    stored = Redactor(PROVIDER.redaction, pseudonyms).one(kept)
    assert b"john" not in stored
    assert b"191167" not in stored
    (found,) = affected(("customers/redact", stored))
    assert found.erase == Erasure((pseudonyms.of("191167"),), (), (pseudonyms.of("john@example.com"),))


def test_who_asks_to_be_forgotten_is() -> None:
    body = {
        "shop_id": 954889,
        "shop_domain": "acme.myshopify.com",
        "customer": {"id": 191167, "email": "john@example.com", "phone": "555-625-1199"},
        "orders_to_redact": [299938, 280263],
    }
    whom, whose_orders, nobody, shop = affected(
        ("customers/redact", body),
        ("customers/redact", {**body, "customer": None}),
        ("customers/redact", {**body, "customer": None, "orders_to_redact": []}),
        ("shop/redact", {"shop_id": 954889, "shop_domain": "acme.myshopify.com"}),
    )
    assert whom.erase == Erasure(("191167",), ("299938", "280263"), ("john@example.com", "555-625-1199"))
    assert whose_orders.erase == Erasure((), ("299938", "280263"))
    assert nobody.erase is None  # an erasure that names nobody would be the whole shop's
    assert nobody.nothing
    assert shop.erase == Erasure()
