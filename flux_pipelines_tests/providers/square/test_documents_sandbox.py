"""Records that the sandbox took in stand among those it made up: on the same pages, found by the same questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines_tests.providers.square.conftest import LAST, House, instant
from flux_pipelines_tests.sandbox.conftest import Clock
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import total_of, truth

Json = dict[str, Any]
SPAN = {"begin_time": "2026-10-25T00:00:00Z", "end_time": "2026-11-03T12:00:00Z"}
COUNTS, CATALOG, SEARCH = "/v2/inventory/counts/batch-retrieve", "/v2/catalog/search", "/v2/orders/search"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    clock = Clock()
    with RunningSandbox(SandboxOptions(history_days=4, end_day=LAST, clock=clock)) as sandbox:
        yield House(sandbox, "harbor", tmp_path, clock)


@pytest.fixture
def store(house: House) -> str:
    return house.locations[2].location_id


def take(house: House, store: str, kind: str, *documents: Json) -> None:
    for one in documents:
        house.post("documents", location_id=store, kind=kind, document=one)


def stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listed(house: House, path: str, member: str, **asked: Any) -> list[Json]:
    """Every record of a list, page by page."""
    found: list[Json] = []
    while True:
        answer = (
            house.http.get(path, params=asked) if path in ("/v2/payments", "/v2/refunds") else house.http.post(path, json=asked)
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        found += answer.json().get(member, [])
        if "cursor" not in answer.json():
            return found
        asked["cursor"] = answer.json()["cursor"]


def searched(
    house: House, store: str, by: str = "created_at", order: str = "ASC", limit: int = 50, **wanted: Any
) -> list[Json]:
    span = {"start_at": "2020-01-01T00:00:00Z", "end_at": "2026-11-04T00:00:00Z"}
    states = {"states": ["COMPLETED", "CANCELED"] if by == "closed_at" else ["OPEN", "COMPLETED", "CANCELED"]}
    query = {
        "filter": {"date_time_filter": {by: span}, "state_filter": states, **wanted},
        "sort": {"sort_field": by.upper(), "sort_order": order},
    }
    return listed(house, SEARCH, "orders", location_ids=[store], query=query, limit=limit)


def some_orders(house: House, store: str) -> list[Json]:
    """Orders to take in, at the very instants of some that were made up, and long before."""
    sales = [sale for _, sale in house.world.between([store], "closed", 0, 2**60) if sale.state == "COMPLETED"]
    middle = sales[len(sales) // 2]
    at = {"created_at": stamp(middle.created), "updated_at": stamp(middle.updated)}
    return [
        {
            "id": "0-SAME",
            "location_id": store,
            "state": "COMPLETED",
            **at,
            "closed_at": stamp(middle.closed or 0),
            "source": {"name": "Kiosk"},
            "version": 5,
        },
        {
            "id": "zz-OPEN",
            "location_id": store,
            "state": "OPEN",
            **at,
            "customer_id": "SOMEBODY",
            "fulfillments": [{"type": "DELIVERY", "state": "RESERVED"}, {"type": "PICKUP", "state": "PROPOSED"}],
        },
        {
            "id": "OLD",
            "location_id": store,
            "state": "CANCELED",
            "created_at": "2021-05-05T05:05:05.005Z",
            "closed_at": "2021-05-05T06:00:00+01:00",
        },
    ]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
@pytest.mark.parametrize("by", ["created_at", "updated_at", "closed_at"])
def test_orders_are_on_the_pages_where_they_belong(house: House, store: str, by: str, order: str) -> None:
    before = searched(house, store, by, order)
    given = some_orders(house, store)
    take(house, store, "orders", *given)
    after = searched(house, store, by, order, limit=7)
    mine = {one["id"]: one for one in given if by != "closed_at" or "closed_at" in one}
    assert [one for one in after if one["id"] not in mine] == before
    assert {one["id"]: one for one in after if one["id"] in mine} == mine
    assert len(after) == len(before) + len(mine)
    instants = [instant(one.get(by) or one["created_at"]) for one in after]
    assert instants == sorted(instants, reverse=order == "DESC")


def test_orders_are_found_by_what_they_say(house: House, store: str) -> None:
    done, waiting, old = some_orders(house, store)
    take(house, store, "orders", done, waiting, old)
    assert old in searched(house, store, state_filter={"states": ["CANCELED"]})
    assert waiting in searched(house, store, state_filter={"states": ["OPEN"]})
    batch = house.http.post("/v2/orders/batch-retrieve", json={"order_ids": ["OLD", "nobody's", "0-SAME"]})
    assert batch.json() == {"orders": [old, done]}
    stranger = House(house.sandbox, "fjord", Path(), house.clock)
    assert stranger.http.post("/v2/orders/batch-retrieve", json={"order_ids": ["OLD"]}).json() == {}


def some_payments(house: House, store: str) -> tuple[Json, Json]:
    """A payment at the very instant of one that was made up, and one that a till took offline."""
    made_up = listed(house, "/v2/payments", "payments", location_id=store, **SPAN)
    middle = made_up[len(made_up) // 2]
    card = {"card_details": {"card": {"card_brand": "JCB", "last_4": "4321"}}}
    at = {"created_at": middle["created_at"], "updated_at": "2026-11-02T09:00:00.000Z"}
    money = {"total_money": {"amount": 987654, "currency": "USD"}}
    offline = {"offline_payment_details": {"client_created_at": "2026-10-29T10:00:00Z"}, "is_offline_payment": True}
    return {"id": "0-PAID", "location_id": store, **at, **card}, {"id": "zz-LATE", **at, **offline, **money}


@pytest.mark.parametrize("by", ["CREATED_AT", "UPDATED_AT", "OFFLINE_CREATED_AT"])
def test_payments_are_on_the_pages_where_they_belong(house: House, store: str, by: str) -> None:
    asked = {"location_id": store, "sort_field": by, "sort_order": "ASC", **SPAN}
    given = some_payments(house, store)
    before = listed(house, "/v2/payments", "payments", **asked)
    take(house, store, "payments", *given)
    after = listed(house, "/v2/payments", "payments", limit=7, **asked)
    mine = [one for one in given if by != "OFFLINE_CREATED_AT" or "offline_payment_details" in one]
    assert [one for one in after if one not in mine] == before
    assert [one for one in after if one in mine] == mine

    def when(one: Json) -> datetime:
        return instant(
            one["offline_payment_details"]["client_created_at"] if by.startswith("OFFLINE") else one[by.lower()]
        )

    assert [when(one) for one in after] == sorted(map(when, after))


def test_payments_are_found_by_what_they_say(house: House, store: str) -> None:
    paid, late = some_payments(house, store)
    take(house, store, "payments", paid, late)

    def found(**wanted: Any) -> list[Json]:
        return listed(house, "/v2/payments", "payments", location_id=store, sort_order="ASC", **SPAN, **wanted)

    offline = {"is_offline_payment": "true", "sort_field": "OFFLINE_CREATED_AT"}
    assert late in found(**offline)
    assert paid not in found(**offline)
    at = "2026-10-29T10:00:00Z"
    assert late in found(**offline, offline_begin_time=at, offline_end_time=at)
    assert late not in found(**offline, offline_begin_time="2026-10-29T10:00:01Z")
    assert paid in found(updated_at_begin_time=paid["updated_at"], updated_at_end_time=paid["updated_at"])
    assert paid not in found(updated_at_begin_time="2026-11-02T09:00:00.001Z")
    other = house.locations[0].location_id
    assert paid not in listed(house, "/v2/payments", "payments", **SPAN, location_id=other)
    start = datetime(2026, 11, 2, 9, tzinfo=UTC)
    window = replace(house.now(), location_ids=(store,), start=start, end=start + timedelta(milliseconds=1))
    with house.client() as client:
        assert (store, instant("2026-10-29T10:00:00Z")) in set(client.changes("payments", window))


def test_refunds_stand_among_the_others(house: House, store: str) -> None:
    asked = {**SPAN, "location_id": store}
    before = listed(house, "/v2/refunds", "refunds", **asked)
    given = {
        "id": "BACK",
        "location_id": store,
        "status": "REJECTED",
        "destination_type": "BANK_ACCOUNT",
        "created_at": before[len(before) // 2]["created_at"],
        "updated_at": "2026-11-02T09:00:00.000Z",
    }
    take(house, store, "refunds", given)
    after = listed(house, "/v2/refunds", "refunds", limit=3, **asked)
    assert [one for one in after if one != given] == before
    assert after.count(given) == 1
    changed = {"updated_at_begin_time": "2026-11-02T09:00:00Z", "updated_at_end_time": "2026-11-02T09:00:00Z"}
    assert listed(house, "/v2/refunds", "refunds", **asked, **changed, sort_field="UPDATED_AT") == [given]


def test_goods_stand_among_the_others(house: House, store: str) -> None:
    asked = {"object_types": ["ITEM", "ITEM_VARIATION", "CATEGORY"], "include_deleted_objects": True}
    before = listed(house, CATALOG, "objects", **asked)
    category = {
        "type": "CATEGORY",
        "id": "DRINKS",
        "updated_at": "2026-11-03T00:00:00Z",
        "category_data": {"name": "x"},
    }
    variation = {"type": "ITEM_VARIATION", "id": "SMALL", "item_variation_data": {"item_id": "TEA"}}
    gone = {"type": "ITEM_VARIATION", "id": "GONE", "updated_at": "2026-11-03T00:00:01Z", "is_deleted": True}
    item = {
        "type": "ITEM",
        "id": "TEA",
        "updated_at": "2026-11-03T00:00:02.500Z",
        "item_data": {"categories": [{"id": "DRINKS"}, {"id": "UNKNOWN"}], "variations": [variation]},
    }
    take(house, store, "objects", category, item, gone)
    after = listed(house, CATALOG, "objects", limit=7, **asked)
    mine = [variation, category, gone, item]
    assert [one for one in after if one not in mine] == before
    assert [one for one in after if one in mine] == mine, (
        "a variation is inside its item and by itself; what has no time is oldest"
    )
    assert gone not in listed(house, CATALOG, "objects", object_types=["ITEM_VARIATION"])
    answer = house.http.post(CATALOG, json={**asked, "limit": 1000, "include_related_objects": True}).json()
    assert category in answer["related_objects"]
    assert answer["latest_time"] == "2026-11-03T00:00:02.500Z"


def test_counts_stand_among_the_others(house: House, store: str) -> None:
    before = listed(house, COUNTS, "counts", location_ids=[store])
    counted = next(one for one in before if one["state"] == "IN_STOCK")
    again = {**counted, "quantity": "-3", "calculated_at": "2026-11-03T23:00:00.12345Z"}
    new = {"catalog_object_id": "NEW", "state": "SOLD_ONLINE", "location_id": store, "quantity": "1.5"}
    take(house, store, "counts", again, new)
    after = listed(house, COUNTS, "counts", location_ids=[store], limit=3)
    assert after[0] == again, "newest first, in place of what was counted before"
    assert after[-1] == new, "what has no time is oldest"
    assert after[1:-1] == [one for one in before if one != counted]
    assert listed(house, COUNTS, "counts", states=["SOLD_ONLINE"]) == [new]
    assert new not in listed(house, COUNTS, "counts", location_ids=[house.locations[0].location_id])


def test_no_truth_counts_them(house: House, store: str) -> None:
    def truths() -> list[Any]:
        days = {"from": "2026-10-25", "to": LAST.isoformat()}
        told = [house.truth(what, **days) for what in ("payments", "products", "inventory")]
        days_of_sales = truth(house.world, merchant="harbor")
        return [*told, len(days_of_sales), total_of(days_of_sales)]

    before, known = truths(), set(house.world.sales)
    take(house, store, "orders", *some_orders(house, store))
    take(house, store, "payments", *some_payments(house, store))
    take(house, store, "counts", {"catalog_object_id": "NEW", "state": "IN_STOCK", "quantity": "1"})
    assert truths() == before
    assert house.world.sales.keys() - known == {"0-SAME", "zz-OPEN", "OLD"}


@pytest.mark.parametrize("what", ["edit", "refund", "complete", "cancel", "customer"])
def test_nothing_happens_to_them(house: House, store: str, what: str) -> None:
    take(house, store, "orders", *some_orders(house, store))
    answer = httpx.post(f"{house.sandbox.url}/sandbox/orders/{what}", json={"order_id": "zz-OPEN"}, timeout=30)
    assert answer.status_code == 400
    assert "stays as it was taken in" in answer.text


def test_the_oldest_open_order_is_one_that_was_made_up(house: House, store: str) -> None:
    take(house, store, "orders", *some_orders(house, store))
    assert house.post("orders/complete")["order_id"] != "zz-OPEN"
    assert house.world.sales["zz-OPEN"].state == "OPEN"
