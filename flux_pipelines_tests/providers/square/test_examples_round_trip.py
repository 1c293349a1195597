"""Square's own examples, given out by the sandbox, come home whole: as received in the raw files, read in the tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines_tests.providers.square.conftest import LAST, House
from flux_pipelines_tests.providers.square.examples import (
    EXAMPLES,
    as_sold,
    at,
    check_count,
    check_order,
    check_payment,
    check_product,
    check_refund,
    records,
)
from flux_pipelines_tests.providers.square.roundtrip import Home, as_text, stored
from flux_pipelines_tests.sandbox.conftest import Clock
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

Json = dict[str, Any]

#: The example files that hold orders, payments, products or counts: how many of which kind.
WITH_RECORDS: dict[str, dict[str, int]] = {
    "catalog_list.json": {"objects": 2},
    "catalog_search.json": {"objects": 2},
    "inventory_counts_batch_retrieve.json": {"counts": 1},
    "order_calculate.json": {"orders": 1},
    "order_create.json": {"orders": 1},
    "order_retrieve.json": {"orders": 1},
    "orders_batch_retrieve.json": {"orders": 1},
    "payments_list.json": {"payments": 1},
    "refunds_list.json": {"refunds": 1},
    "webhook_InventoryCountUpdatedEvent.json": {"counts": 1},
    "webhook_PaymentCreatedEvent.json": {"payments": 1},
    "webhook_PaymentUpdatedEvent.json": {"payments": 1},
    "webhook_RefundCreatedEvent.json": {"refunds": 1},
    "webhook_RefundUpdatedEvent.json": {"refunds": 1},
    "webhook_test_result.json": {"payments": 1},
}
#: The others, each with what it holds instead.
WITHOUT: dict[str, str] = {
    "events_search.json": "a dispute",
    "index.md": "words",
    "inventory_changes_batch_retrieve.json": "a change of stock, which is never asked for: stock is read as counts",
    "locations_list.json": "locations, which are the sandbox's own stores",
    "oauth_obtain_token.json": "tokens",
    "oauth_obtain_token_request.json": "a request for tokens",
    "oauth_token_status.json": "what a token may do",
    "orders_search.json": "ids of orders, as `return_entries` gives them",
    "orders_search_request.json": "a request",
    "webhook_CatalogVersionUpdatedEvent.json": "when the catalog changed",
    "webhook_LocationUpdatedEvent.json": "the id of a location",
    "webhook_OauthAuthorizationRevokedEvent.json": "that an authorisation ended",
    "webhook_OrderCreatedEvent.json": "the stub of an order: id, state and version",
    "webhook_OrderFulfillmentUpdatedEvent.json": "the stub of an order",
    "webhook_OrderUpdatedEvent.json": "the stub of an order",
    "webhook_subscriptions_list.json": "subscriptions",
}
#: What the catalog is asked for: a TAX is no product, and stays at Square.
ASKED_FOR = ("ITEM", "ITEM_VARIATION", "CATEGORY")

needs_examples = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared examples are not here")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A lake, and a merchant of American stores in a sandbox that nothing was given to yet."""
    clock = Clock()
    with RunningSandbox(SandboxOptions(history_days=3, end_day=LAST, clock=clock)) as sandbox:
        yield Home(House(sandbox, "harbor", tmp_path, clock), tmp_path)


def of_store(record: Json, home: Home) -> Json:
    """The record as if it were of the sandbox's store: with its location's id in place of the example's."""
    text, own = json.dumps(record), record.get("location_id")
    found: Json = json.loads(text.replace(f'"{own}"', f'"{home.store.location_id}"') if own else text)
    return found


@needs_examples
def test_every_example_goes_round_or_holds_no_record() -> None:
    assert WITH_RECORDS.keys().isdisjoint(WITHOUT)
    assert {file.name for file in EXAMPLES.iterdir()} == WITH_RECORDS.keys() | WITHOUT.keys()
    for file in EXAMPLES.glob("*.json"):
        kinds = Counter(kind for kind, _ in records(json.loads(file.read_text())))
        assert kinds == WITH_RECORDS.get(file.name, {}), file.name


@needs_examples
@pytest.mark.parametrize("name", WITH_RECORDS, ids=lambda name: name.removesuffix(".json"))
def test_an_example_goes_round(name: str, home: Home) -> None:
    found: dict[str, list[Json]] = {}
    for kind, record in records(json.loads((EXAMPLES / name).read_text())):
        found.setdefault(kind, []).append(of_store(record, home))
    for kind, given in found.items():
        ROUND[kind](home, given)


@needs_examples
@pytest.mark.parametrize(
    "name", [name for name, kinds in WITH_RECORDS.items() if "orders" in kinds], ids=lambda name: name.removesuffix(".json")
)  # fmt: skip
def test_an_example_order_goes_round_as_a_sale(name: str, home: Home) -> None:
    ((_, printed),) = records(json.loads((EXAMPLES / name).read_text()))
    order = as_sold(of_store(printed, home))
    # An open order is no sale. One that is complete has the instant at which it was completed.
    order["closed_at"] = order.get("updated_at", order["created_at"])
    home.take("orders", order)
    landed, rows = home.orders(home.day_of(order["created_at"]))
    assert as_text(landed) == as_text([stored(order)])
    check_order(rows, order)
    assert {(row["order_id"], row["location_id"]) for row in rows} == {(order["id"], home.store.location_id)}


def orders_round(home: Home, given: list[Json]) -> None:
    """Open orders: they come home whole, and are no sales."""
    (printed,) = given
    # An order that was only calculated has no id, and an old example neither instant nor state: Square gives them always.
    order = {"id": "calculated", "created_at": "2026-03-02T12:00:00Z", "state": "OPEN", **printed}
    home.take("orders", order)
    with home.house.client() as client:
        (found,) = client.orders([order["id"]])
    assert as_text(json.loads(bytes(found.raw))) == as_text(order)
    landed, rows = home.orders(home.day_of(order["created_at"]))
    assert as_text(landed) == as_text([stored(order)])
    assert rows == []


def payments_round(home: Home, given: list[Json]) -> None:
    home.take("payments", *given)
    (payment,) = given
    day = home.day_of(payment["created_at"])
    landed, (row,) = home.stream("payments", "payments", day)
    assert as_text(landed) == as_text([stored(payment)])
    check_payment(row, payment, day)


def refunds_round(home: Home, given: list[Json]) -> None:
    home.take("refunds", *given)
    (refund,) = given
    landed, (row,) = home.stream("payments", "payments", home.day_of(refund["created_at"]))
    assert as_text(landed) == as_text([stored(refund)])
    check_refund(row, refund)
    assert row["location_id"] == home.store.location_id


def objects_round(home: Home, given: list[Json]) -> None:
    home.take("objects", *given)
    for one in given:
        asked = {"object_types": [one["type"]], "limit": 1000}
        shown = home.house.http.post("/v2/catalog/search", json=asked).json()["objects"]
        assert as_text([other for other in shown if other["id"] == one["id"]]) == as_text([one])
    landed, rows = home.stream("catalog", "products")
    ids = {one["id"] for one in given}
    wanted = sorted((one for one in given if one["type"] in ASKED_FOR), key=as_text)
    assert wanted
    assert as_text(sorted((one for one in landed if one["id"] in ids), key=as_text)) == as_text(
        [stored(one) for one in wanted]
    )
    by_id = {row["product_id"]: row for row in rows}
    added = sum(len(one["item_data"]["variations"]) for one in given if one["type"] == "ITEM")
    assert len(by_id) == len(rows) == len(home.house.merchant.items) + added, (
        "the sandbox's own goods are there as well"
    )
    for item in (one for one in given if one["type"] == "ITEM"):
        for variation in item["item_data"]["variations"]:
            row = by_id[variation["id"]]
            # A table with history says when a product changed by when the row began to hold.
            check_product({**row, "changed_at": row["valid_from"]}, variation, item)


def counts_round(home: Home, given: list[Json]) -> None:
    home.take("counts", *given)
    (count,) = given
    landed, rows = home.stream("inventory", "inventory_levels")
    mine = [one for one in landed if one["catalog_object_id"] == count["catalog_object_id"]]
    assert as_text(mine) == as_text([stored(count)])
    (row,) = [row for row in rows if row["product_id"] == count["catalog_object_id"]]
    check_count(row, count, home.house.clock.now.replace(minute=0, second=0, microsecond=0))
    assert len(rows) > 1, "the sandbox's own counts are there as well"


ROUND = {
    "orders": orders_round,
    "payments": payments_round,
    "refunds": refunds_round,
    "objects": objects_round,
    "counts": counts_round,
}


# Without the examples: a small record of each kind


def usd(amount: int) -> Json:
    return {"amount": amount, "currency": "USD"}


ORDER: Json = {
    "id": "TAKEN-IN",
    "location_id": "HERE",
    "state": "OPEN",
    "created_at": "2026-10-20T16:00:00.123Z",
    "updated_at": "2026-10-20T16:05:00.456Z",
    "version": 3,
    "source": {"name": "Kiosk"},
    "customer_id": "SOMEBODY",
    "ticket_name": "Ada",
    "a_member_of_tomorrow": [1.5, None, True, 12345678901234567890, "\u00fc"],
    "line_items": [
        {
            "uid": "l1",
            "name": "Tea",
            "quantity": "2",
            "base_price_money": usd(350),
            "total_tax_money": usd(50),
            "total_discount_money": usd(0),
            "total_money": usd(750),
        }
    ],
    "total_money": usd(750),
}
PAYMENT: Json = {
    "id": "PAID",
    "location_id": "HERE",
    "order_id": "TAKEN-IN",
    "status": "COMPLETED",
    "source_type": "CARD",
    "created_at": "2026-10-20T16:05:00.123Z",
    "updated_at": "2026-10-22T09:00:00.000Z",
    "amount_money": usd(750),
    "total_money": usd(750),
    "card_details": {"card": {"card_brand": "VISA", "last_4": "4321", "fingerprint": "sq-1-print"}},
}
REFUND: Json = {
    "id": "PAID_BACK",
    "location_id": "HERE",
    "order_id": "RETURN",
    "payment_id": "PAID",
    "status": "PENDING",
    "created_at": "2026-10-21T16:05:00.123Z",
    "updated_at": "2026-10-21T16:05:00.123Z",
    "amount_money": usd(250),
}
VARIATION: Json = {
    "id": "TEA-LARGE",
    "type": "ITEM_VARIATION",
    "version": 7,  # no time: Square promises only that it grows
    "updated_at": "2026-10-19T08:00:00Z",
    "is_deleted": False,
    "item_variation_data": {
        "item_id": "TEA",
        "name": "Large",
        "price_money": usd(350),
        "pricing_type": "FIXED_PRICING",
    },
}
ITEM: Json = {
    "id": "TEA",
    "type": "ITEM",
    "version": 7,
    "updated_at": "2026-10-20T08:00:00Z",
    "is_deleted": False,
    "item_data": {"name": "Tea", "variations": [VARIATION]},
}
COUNT: Json = {
    "catalog_object_id": "TEA-LARGE",
    "catalog_object_type": "ITEM_VARIATION",
    "location_id": "HERE",
    "state": "IN_STOCK",
    "quantity": "7.5",
    "calculated_at": "2026-10-20T16:05:00.12345Z",
}
WRITTEN = {"orders": ORDER, "payments": PAYMENT, "refunds": REFUND, "objects": ITEM, "counts": COUNT}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_record_of_each_kind_goes_round(kind: str, home: Home) -> None:
    ROUND[kind](home, [of_store(WRITTEN[kind], home)])


def test_a_sale_goes_round(home: Home) -> None:
    sold = {**of_store(ORDER, home), "state": "COMPLETED", "closed_at": "2026-10-20T16:05:00.456Z"}
    home.take("orders", sold)
    landed, rows = home.orders(home.day_of(sold["created_at"]))
    assert as_text(landed) == as_text([stored(sold)])
    assert landed[0]["ticket_name"] is None, "what is personal is taken out"
    check_order(rows, sold)


def test_a_till_that_was_offline_decides_the_day(home: Home) -> None:
    late = {
        **of_store(PAYMENT, home),
        "is_offline_payment": True,
        "offline_payment_details": {"client_created_at": "2026-10-18T16:00:00.000Z"},
    }
    home.take("payments", late)
    assert home.stream("payments", "payments", home.day_of(late["created_at"])) == ([], [])
    landed, (row,) = home.stream("payments", "payments", home.day_of("2026-10-18T16:00:00Z"))
    assert as_text(landed) == as_text([stored(late)])
    assert row["occurred_at"] == at("2026-10-18T16:00:00+00:00")


def test_a_newer_version_takes_the_place_of_the_older(home: Home) -> None:
    home.take("payments", of_store({**PAYMENT, "status": "APPROVED"}, home), of_store(PAYMENT, home))
    _, (row,) = home.stream("payments", "payments", home.day_of(PAYMENT["created_at"]))
    assert row["status"] == "completed"


def test_what_is_refused(home: Home) -> None:
    def refused(kind: str, document: Any) -> str:
        body = {"location_id": home.store.location_id, "kind": kind, "document": document}
        answer = httpx.post(f"{home.house.sandbox.url}/sandbox/documents", json=body, timeout=30)
        assert answer.status_code == 400
        return str(answer.json()["error"])

    assert "It takes in: counts, objects, orders, payments, refunds." in refused("timecards", {})
    assert "must be a JSON object" in refused("orders", [ORDER])
    assert "does not say its `id`" in refused("orders", {**ORDER, "id": ""})
    for member, value in (("created_at", None), ("created_at", "yesterday"), ("updated_at", "2026-13-01T00:00:00Z")):
        assert f"'TAKEN-IN' does not say its `{member}`" in refused("orders", {**ORDER, member: value})
    assert "does not say its `closed_at`" in refused("orders", {**ORDER, "state": "COMPLETED"})
    assert "has the state 'DRAFT'" in refused("orders", {**ORDER, "state": "DRAFT"})
    home.take("orders", of_store(ORDER, home))
    assert "has an order 'TAKEN-IN' already" in refused("orders", ORDER)
