"""What Shopify's webhooks tell, how they are signed, and what becomes of them when nobody takes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines_tests.providers.shopify.sandboxwire import Clock, Shopify, provider_of, sandbox_of
from flux_sandbox.deliveries import Delivery
from flux_sandbox.options import CLIENT_SECRET
from flux_sandbox.pricing import price
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.topics import TOPICS
from flux_sandbox.shopify.webhooks import RETRY_MINUTES, retries, signature

HOOK = "http://127.0.0.1:1/hooks"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with sandbox_of(Clock(), history_days=2) as running:
        running.world.outbox.change(delay=(3000.0, 3000.0))  # nothing is sent: what would be is looked at here
        yield running


@pytest.fixture
def shopify(sandbox: RunningSandbox) -> Shopify:
    provider_of(sandbox.world).webhooks.subscribe(HOOK, None, None)
    return Shopify(sandbox)


def told(found: list[Delivery]) -> dict[str, Any]:
    return {one.event_type: json.loads(one.body, parse_float=Decimal) for one in found}


def test_the_published_signature_vector() -> None:
    assert signature("test_secret_key", b'{"foo": "bar"}') == "B23tXN681gZ0qIWNRrgtzBE9XSDo5yaUu6wfmhu3a7g="


def test_a_sale_its_edit_and_its_refund_are_told(shopify: Shopify) -> None:
    world = shopify.sandbox.world
    goods = [(shopify.merchant.items[0], 2), (shopify.merchant.items[4], 1)]
    with world.outbox.collect() as found:
        sale = world.sell(shopify.merchant.locations[1].id, goods=goods)
    order = told(found)["orders/create"]
    assert (order["id"], order["admin_graphql_api_id"]) == (int(sale.id), f"gid://shopify/Order/{sale.id}")
    assert Decimal(order["total_price"]) * 100 == price(sale).total
    assert order["created_at"].endswith("-05:00")  # in the shop's time zone
    delivery = next(one for one in found if one.event_type == "orders/create")
    headers = delivery.headers(0, "", "")
    wanted = base64.b64encode(hmac.new(CLIENT_SECRET.encode(), delivery.body, hashlib.sha256).digest()).decode()
    assert headers["X-Shopify-Hmac-Sha256"] == wanted
    assert headers["X-Shopify-Shop-Domain"] == "harbor-shop.myshopify.com"
    assert (headers["X-Shopify-Topic"], headers["X-Shopify-API-Version"]) == ("orders/create", "2026-10")
    again = delivery.copy().headers(3, "timeout", "")
    assert again["X-Shopify-Webhook-Id"] == headers["X-Shopify-Webhook-Id"] == delivery.event_id
    orders = [one for one in found if one.event_type.startswith("orders/")]
    assert {one.headers(0, "", "")["X-Shopify-Event-Id"] for one in orders} == {headers["X-Shopify-Event-Id"]}
    assert len({one.event_id for one in orders}) == len(orders) == 2  # created and paid: one event, two deliveries
    with world.outbox.collect() as found:
        world.edit(sale.id, add_units=1)
    assert {"orders/edited", "orders/updated"} <= set(told(found))
    assert set(told(found)["orders/edited"]) == {"order_edit"}
    with world.outbox.collect() as found:
        back = world.refund(sale.id)
    refund, updated = told(found)["refunds/create"], told(found)["orders/updated"]
    assert refund["order_id"] == updated["id"] == int(sale.id)
    assert updated["financial_status"] == "refunded"
    (money,) = refund["transactions"]
    assert Decimal(money["amount"]) * 100 == price(back).returns[0].total


def test_payloads_have_the_members_of_the_published_examples(shopify: Shopify, examples: Path) -> None:
    world = shopify.sandbox.world
    sale = world.sell(shopify.merchant.locations[1].id)
    with world.outbox.collect() as found:
        world.refund(sale.id)
    ours, refund = told(found)["orders/updated"], told(found)["refunds/create"]
    theirs = json.loads((examples / "rest_order_get_with_refunds.json").read_text())["order"]
    assert set(ours) - set(theirs) == set()
    assert set(ours["line_items"][0]) - set(theirs["line_items"][0]) == set()
    assert set(refund) - set(theirs["refunds"][0]) == set()
    for name in ("total_price", "current_total_price", "currency", "updated_at"):
        assert type(ours[name]) is type(theirs[name])


def test_goods_people_and_the_end_of_it(shopify: Shopify, examples: Path) -> None:
    world, merchant = shopify.sandbox.world, shopify.merchant
    item = merchant.items[0]
    with world.outbox.collect() as found:
        world.set_stock(merchant.locations[0].id, item.id, 7)
        world.change_item(merchant, item.id, price=1999)
    events = told(found)
    level = json.loads((examples / "rest_inventory_levels.json").read_text())["inventory_levels"][0]
    assert set(events["inventory_levels/update"]) == set(level)
    assert events["inventory_levels/update"]["available"] == 7
    assert events["inventory_levels/update"]["inventory_item_id"] == int(item.id)
    product = events["products/update"]
    assert product["id"] == int(item.product_id)
    assert "19.99" in [one["price"] for one in product["variants"]]
    person = next(s.customer for s in world.sales.values() if world.owner(s) is merchant and s.customer)
    with world.outbox.collect() as found:
        world.ask_for_erasure(merchant, person.email)
    redact = told(found)["customers/redact"]
    assert (redact["shop_domain"], redact["customer"]["email"]) == ("harbor-shop.myshopify.com", person.email)
    own = [s for s in world.sales.values() if world.is_order(s) and world.owner(s) is merchant and s.customer is person]
    assert sorted(redact["orders_to_redact"]) == sorted(int(sale.id) for sale in own) != []
    with world.outbox.collect() as found:
        for topic in TOPICS:
            provider_of(world).webhooks.emit(merchant, topic)
        provider_of(world).webhooks.emit(merchant, "planets/aligned")
    assert set(told(found)) == {*TOPICS, "planets/aligned"}
    with world.outbox.collect() as found:
        world.uninstall(merchant)
    assert list(told(found)) == ["app/uninstalled"]
    assert shopify.post("{ shop { id } }").status_code == 401
    with world.outbox.collect() as found:
        world.sell(merchant.locations[1].id)
    assert not any(
        topic.startswith("orders/") for topic in told(found)
    )  # a scope is needed, and there is none any more


def test_people_are_in_what_is_told_of_an_order(shopify: Shopify) -> None:
    world, merchant = shopify.sandbox.world, shopify.merchant
    with world.outbox.collect() as found:
        sale = world.sell(merchant.locations[0].id)
        world.set_customer(sale.id, merchant.customers[0].id)
    body, person = found[-1].body.decode(), merchant.customers[0]
    assert found[-1].event_type == "orders/updated"
    assert all(text in body for text in (person.email, person.phone, person.family_name, person.street))
    assert json.loads(body)["browser_ip"]


def test_eight_retries_over_four_hours() -> None:
    assert [retries(attempt, "status", 500) for attempt in range(9)] == [*RETRY_MINUTES, None]
    assert sum(RETRY_MINUTES) == 240
