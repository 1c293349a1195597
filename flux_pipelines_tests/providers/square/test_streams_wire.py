"""The sandbox's Square beside its orders: its rules, its OpenAPI description, its official SDK, and what it announces."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from flux_pipelines.providers.base import WebhookContext, WebhookRequest
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.providers.square.webhooks import SquareWebhooks
from flux_pipelines_tests.providers.square.conftest import House
from flux_pipelines_tests.sandbox.conftest import error_of
from flux_pipelines_tests.sandbox.receiver import Received, Receiver
from flux_sandbox.options import WEBHOOK_SIGNATURE_KEY

Settled = Callable[[str], House]
COUNTS, CARDS = "/v2/inventory/counts/batch-retrieve", "/v2/labor/timecards/search"
SPAN = {"begin_time": "2026-10-25T00:00:00Z", "end_time": "2026-11-03T00:00:00Z"}
BAD = "INVALID_REQUEST_ERROR"


def pages(ask: Callable[[dict[str, Any]], httpx.Response]) -> Iterator[Any]:
    """Follow cursors to the end."""
    more: dict[str, Any] = {}
    while True:
        answer = ask(more)
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if "cursor" not in answer.json():
            return
        more = {"cursor": answer.json()["cursor"]}


@pytest.mark.parametrize("handle", ["harbor", "sakura"])
def test_every_answer_is_what_square_describes(
    settled: Settled, validate: Callable[[str, Any], None], handle: str
) -> None:
    house = settled(handle)
    asked = {**SPAN, "location_id": house.locations[0].location_id}
    lists = {
        "ListPaymentsResponse": lambda more: house.http.get("/v2/payments", params={**asked, **more}),
        "ListPaymentRefundsResponse": lambda more: house.http.get("/v2/refunds", params={**asked, **more}),
        "SearchCatalogObjectsResponse": lambda more: house.http.post(
            "/v2/catalog/search", json={"include_related_objects": True, "limit": 10, **more}
        ),
        "BatchRetrieveInventoryCountsResponse": lambda more: house.http.post(COUNTS, json={"limit": 5, **more}),
        "SearchTimecardsResponse": lambda more: house.http.post(CARDS, json={"limit": 10, **more}),
    }
    for name, ask in lists.items():
        found = list(pages(ask))
        assert len(found) > 1 or name == "ListPaymentRefundsResponse"
        for page in found:
            validate(name, page)
    validate("ListPaymentsResponse", house.http.get("/v2/payments", params={**asked, "limit": "x"}).json())
    types = {"object_types": ["ITEM", "ITEM_VARIATION", "CATEGORY"], "include_deleted_objects": True}
    validate("SearchCatalogObjectsResponse", house.http.post("/v2/catalog/search", json=types).json())


def test_the_official_sdk_reads_them_all(settled: Settled) -> None:
    square = pytest.importorskip("square", reason="the official squareup SDK is not installed")
    house = settled("harbor")
    client = square.Square(token=house.token, base_url=house.sandbox.url)
    here = house.locations[2].location_id
    payments = list(client.payments.list(location_id=here, sort_order="ASC", **SPAN))
    first, last = (int(datetime.fromisoformat(text).timestamp() * 1000) for text in SPAN.values())
    expected = {
        one.id
        for sale in list(house.world.sales.values())
        if sale.location.id == here
        for one in house.world.payments_of(sale)
        if one.kind == "payment" and first <= one.at <= last and (sale.version or sale.arrived is None)
    }
    late = {one.id for one in payments if one.is_offline_payment}
    assert {one.id for one in payments} - late == expected
    assert late
    assert [one.created_at for one in payments] == sorted(one.created_at for one in payments)
    assert sum(one.total_money.amount for one in payments) > 0
    refunds = list(client.refunds.list(location_id=here, sort_order="ASC", **SPAN))
    assert {one.location_id for one in refunds} == {here}
    assert all(one.amount_money.amount > 0 for one in refunds)
    found = client.catalog.search(object_types=["ITEM"], include_related_objects=True)
    assert {one.type for one in found.related_objects} == {"CATEGORY"}
    assert found.objects[0].item_data.variations[0].item_variation_data.price_money.currency == "USD"
    counts = list(client.inventory.batch_get_counts(location_ids=[here], states=["IN_STOCK"]))
    assert {one.location_id for one in counts} == {here}
    cards = client.labor.search_timecards(
        query={
            "filter": {"location_ids": [here], "start": {"end_at": SPAN["begin_time"]}},
            "sort": {"field": "START_AT", "order": "ASC"},
        }
    ).timecards
    assert cards
    assert all(one.wage.hourly_rate.amount > 0 for one in cards)


def test_a_page_of_payments_holds_a_hundred_at_most(settled: Settled) -> None:
    house = settled("harbor")
    asked = {**SPAN, "location_id": house.merchant.locations[0].id, "limit": "5000"}
    sizes = [
        len(page["payments"]) for page in pages(lambda more: house.http.get("/v2/payments", params={**asked, **more}))
    ]
    assert max(sizes) == 100, "a larger limit counts as the largest"


def test_the_rules_of_the_lists(settled: Settled) -> None:
    house, other = settled("harbor"), settled("fjord")
    theirs = other.locations[0].location_id
    here = {"location_id": house.locations[0].location_id}
    get, post = house.http.get, house.http.post
    for path in ("/v2/payments", "/v2/refunds"):
        assert error_of(get(path, params={"locationId": "x"})) == (400, BAD, "UNKNOWN_QUERY_PARAMETER")
        for wrong, code in (
            ({"begin_time": "monday"}, "INVALID_TIME"),
            ({"sort_order": "UP"}, "INVALID_SORT_ORDER"),
            ({"sort_field": "AMOUNT"}, "INVALID_ENUM_VALUE"),
            ({"cursor": "made-up"}, "INVALID_CURSOR"),
            ({"begin_time": SPAN["end_time"], "end_time": SPAN["begin_time"]}, "INVALID_TIME_RANGE"),
        ):
            assert error_of(get(path, params={**here, **wrong})) == (400, BAD, code)
        assert error_of(get(path, params={"location_id": theirs}))[2] == "FORBIDDEN"
        assert error_of(get(path, headers={"Square-Version": "now"}))[2] == "INVALID_SQUARE_VERSION_FORMAT"
        assert error_of(get(path, headers={"Authorization": "Bearer x"}))[2] == "UNAUTHORIZED"
    # A cursor is good for the query that it came from.
    first = get("/v2/payments", params={**SPAN, **here, "limit": 5}).json()
    assert error_of(get("/v2/payments", params={**here, "cursor": first["cursor"], "limit": 5}))[2] == "INVALID_CURSOR"
    catalog = "/v2/catalog/search"
    assert error_of(post(catalog, json={"types": ["ITEM"]})) == (400, BAD, "UNKNOWN_BODY_PARAMETER")
    assert error_of(post(catalog, json={"object_types": ["THING"]})) == (400, BAD, "INVALID_ENUM_VALUE")
    assert error_of(post(COUNTS, json={"limit": 1001})) == (400, BAD, "VALUE_TOO_HIGH")
    assert error_of(post(COUNTS, json={"states": ["SOMEWHERE"]})) == (400, BAD, "INVALID_ENUM_VALUE")
    assert error_of(post(COUNTS, json={"location_ids": [theirs]}))[2] == "FORBIDDEN"
    every = [one["state"] for page in pages(lambda more: post(COUNTS, json=more)) for one in page["counts"]]
    assert set(every) == {"IN_STOCK", "WASTE"}, "whoever does not filter gets what cannot be sold too"
    assert error_of(post(CARDS, json={"limit": 201})) == (400, BAD, "VALUE_TOO_HIGH")
    assert error_of(post(CARDS, json={"query": {"filter": {"locations": []}}}))[2] == "UNKNOWN_BODY_PARAMETER"
    assert error_of(post(CARDS, json={"query": {"filter": {"location_ids": [theirs]}}}))[2] == "FORBIDDEN"


def test_cursors_limits_and_permissions(lively: House) -> None:
    here = {"location_id": lively.locations[0].location_id}
    asked: dict[str, Any] = {**SPAN, **here, "limit": 5}
    cursor = lively.http.get("/v2/payments", params=asked).json()["cursor"]
    assert lively.http.get("/v2/payments", params={**asked, "cursor": cursor}).status_code == 200
    lively.clock.forward(301)
    assert error_of(lively.http.get("/v2/payments", params={**asked, "cursor": cursor}))[2] == "INVALID_CURSOR"
    lively.post("tokens/scopes", merchant="sakura", remove=["PAYMENTS_READ", "TIMECARDS_READ"])
    refused = lively.http.get("/v2/refunds", params=here)
    assert error_of(refused) == (403, "AUTHENTICATION_ERROR", "INSUFFICIENT_SCOPES")
    assert "PAYMENTS_READ" in refused.json()["errors"][0]["detail"]
    assert lively.http.post(CARDS, json={}).status_code == 403
    assert lively.http.post(COUNTS, json={}).status_code == 200
    for _ in range(lively.world.options.rate_limit):
        lively.world.request_log.arrive({here["location_id"]}, time.monotonic(), 10**9)
    busy = lively.http.post(COUNTS, json={"location_ids": [here["location_id"]]})
    assert error_of(busy) == (429, "RATE_LIMIT_ERROR", "RATE_LIMITED"), "it counts against the location it names"
    assert lively.http.post("/v2/catalog/search", json={}).status_code == 200


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


def test_what_is_announced_and_what_it_makes_stale(
    lively: House, receiver: Receiver, validate: Callable[[str, Any], None]
) -> None:
    lively.post("webhooks", url=receiver.url, concurrency=1)
    source = SquareWebhooks(WebhookContext(PROVIDER, receiver.url, WEBHOOK_SIGNATURE_KEY))
    here = lively.locations[0].location_id
    counted = next(item for item in lively.merchant.items if item.tracked)
    told: list[tuple[str, Received]] = []

    def tell(what: str, **body: Any) -> Any:
        before = len(receiver.got)
        answer = lively.post(what, **body)
        for one in receiver.wait(before + answer["webhooks"])[before:]:
            source.verify(WebhookRequest(one.headers, one.body))
            told.append((what, one))
        return answer

    tell("stock/set", location_id=here, item=counted.id, quantity=-2)
    tell("catalog/change", merchant="sakura", item=counted.id, price=1)
    lively.clock.forward(3600)
    shift = tell("shifts/clock_in", location_id=here)["shift_id"]
    lively.clock.forward(3600)
    tell("shifts/clock_out", shift_id=shift)
    tell("shifts/edit", shift_id=shift, deleted=True)
    sold = tell("orders/late", location_id=here, hours=30)["order_id"]
    tell("orders/refund", order_id=sold)
    schemas = {
        "inventory.count.updated": "InventoryCountUpdatedEvent",
        "catalog.version.updated": "CatalogVersionUpdatedEvent",
        "labor.timecard.created": "LaborTimecardCreatedEvent",
        "labor.timecard.updated": "LaborTimecardUpdatedEvent",
        "labor.timecard.deleted": "LaborTimecardDeletedEvent",
        "payment.created": "PaymentCreatedEvent",
        "payment.updated": "PaymentUpdatedEvent",
        "refund.created": "RefundCreatedEvent",
        "refund.updated": "RefundUpdatedEvent",
    }
    assert {one.type for _, one in told} == schemas.keys()
    for _, one in told:
        body = one.json
        if one.type == "catalog.version.updated":
            del body["data"]["id"]  # Square's example has it, its description does not
        validate(schemas[one.type], body)
    with lively.client() as client:
        found = source.affected([(one.type, one.body) for _, one in told], client)
    streams = [(one.type, sorted(affected.streams, key=str)) for (_, one), affected in zip(told, found, strict=True)]
    by_type = dict(streams)
    assert by_type["inventory.count.updated"] == [("inventory", here, None)]
    assert by_type["catalog.version.updated"] == [("catalog", "", None)]
    assert by_type["labor.timecard.deleted"] == []
    (begun,) = by_type["labor.timecard.created"]
    assert begun[:2] == ("labor", here)
    assert by_type["labor.timecard.updated"] == [begun], "the day of the clock-in"
    assert begun[2] is not None
    assert begun[2].timestamp() == (lively.clock.now.timestamp() - 3600) // 60 * 60
    sale = lively.world.sale(sold)
    taken = {stream for _, stale in streams for stream in stale if stream[0] == "payments"}
    assert {int(at.timestamp() * 1000) for _, _, at in taken if at} >= {
        sale.created,
        lively.world.refunds_of(sale)[0].created,
    }
    assert {
        one.json["data"]["object"]["payment"]["is_offline_payment"] for what, one in told if what == "orders/late"
    } == {True}
    assert json.dumps(told[0][1].json["data"]["object"]["inventory_counts"][0]["quantity"]) == '"-2"'
