"""Square's rules for searching orders, each over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flux_pipelines_tests.sandbox.conftest import Clock, Square, error_of, search_body
from flux_sandbox.server import RunningSandbox

Start = Callable[..., RunningSandbox]
BAD = "INVALID_REQUEST_ERROR"


@pytest.mark.parametrize("moment", ["created_at", "updated_at", "closed_at"])
def test_pages_to_the_end_without_loss_or_repetition(start: Start, moment: str) -> None:
    square = Square(start(), "harbor")
    orders = square.everything(moment, square.locations[:10], limit=37)
    expected = {
        sale.id
        for _, sale in start().world.between(square.locations[:10], "created", 0, 2**60)
        if moment != "closed_at" or sale.closed is not None
    }
    ids = [order["id"] for order in orders]
    assert len(ids) == len(set(ids))
    assert set(ids) == expected
    assert [order[moment] for order in orders] == sorted(order[moment] for order in orders)


def test_pages_are_now_and_then_short_and_only_the_last_has_no_cursor(start: Start) -> None:
    square = Square(start(history_days=6))
    sizes, body = [], search_body(square.locations[:10], limit=20)
    while True:
        page = square.search(body).json()
        sizes.append(len(page["orders"]))
        if "cursor" not in page:
            break
        body["cursor"] = page["cursor"]
    assert set(page) == {"orders"}
    assert any(size < 20 for size in sizes[:-1])
    assert sizes.count(20) > len(sizes) // 2


def test_the_default_page_holds_500_and_nothing_is_an_empty_object(start: Start) -> None:
    square = Square(start(history_days=14, seed=3))
    body = search_body(square.locations[:10])
    assert len(square.search(body).json()["orders"]) <= 500
    body["query"]["filter"]["date_time_filter"]["created_at"]["end_at"] = "2001-01-01T00:00:00Z"
    answer = square.search(body)
    assert answer.status_code == 200
    assert answer.content == b"{}"


def test_both_ends_of_a_range_belong_to_it(start: Start) -> None:
    square = Square(start())
    orders = square.everything(ids=square.locations[:1])
    first, last = orders[3]["created_at"], orders[7]["created_at"]
    body = search_body(square.locations[:1])
    span = {"start_at": first, "end_at": last}
    body["query"]["filter"]["date_time_filter"]["created_at"] = span
    assert [order["id"] for order in square.search(body).json()["orders"]] == [o["id"] for o in orders[3:8]]
    # Another offset, and a fraction finer than a millisecond, mean the same instants.
    moved = datetime.fromisoformat(last).astimezone(UTC) + timedelta(hours=2)
    span["end_at"] = moved.strftime("%Y-%m-%dT%H:%M:%S.") + last[-4:-1] + "000001+02:00"
    assert len(square.search(body).json()["orders"]) == 5
    span["start_at"] = first.replace("Z", "001Z")
    assert len(square.search(body).json()["orders"]) == 4


def test_newest_first_unless_asked_and_by_creation_unless_asked(start: Start) -> None:
    square = Square(start())
    orders = square.search({"location_ids": square.locations[:2]}).json()["orders"]
    created = [order["created_at"] for order in orders]
    assert created == sorted(created, reverse=True)


def test_a_missing_end_is_the_time_of_the_first_request(start: Start, clock: Clock) -> None:
    sandbox = start()
    square = Square(sandbox)
    where = square.locations[0]
    body = search_body([where], limit=10)
    del body["query"]["filter"]["date_time_filter"]["created_at"]["end_at"]
    page = square.search(body).json()
    clock.forward(60)
    late = square.http.post("/sandbox/orders/sell", json={"location_id": where}).json()["order_id"]
    seen = [order["id"] for order in page["orders"]]
    while "cursor" in page:
        page = square.search({**body, "cursor": page["cursor"]}).json()
        seen += [order["id"] for order in page["orders"]]
    assert late not in seen
    body["limit"] = 1000
    assert late in [order["id"] for order in square.search(body).json()["orders"]]


def test_states_narrow_a_search(start: Start) -> None:
    square = Square(start(history_days=6))
    body = search_body(square.locations[:10], limit=1000)
    body["query"]["filter"]["state_filter"] = {"states": ["CANCELED"]}
    cancelled = square.search(body).json()["orders"]
    assert {order["state"] for order in cancelled} == {"CANCELED"}


def filtered(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["query"]["filter"]
    return found


BREAKING: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("no locations", lambda b: b.update(location_ids=[]), "MISSING_REQUIRED_PARAMETER"),
    ("location_ids absent", lambda b: b.pop("location_ids"), "MISSING_REQUIRED_PARAMETER"),
    ("eleven locations", lambda b: b.update(location_ids=["L"] * 11), "ARRAY_LENGTH_TOO_LONG"),
    ("location not text", lambda b: b.update(location_ids=[1]), "EXPECTED_STRING"),
    ("limit 0", lambda b: b.update(limit=0), "VALUE_TOO_LOW"),
    ("limit 1001", lambda b: b.update(limit=1001), "VALUE_TOO_HIGH"),
    ("limit text", lambda b: b.update(limit="5"), "EXPECTED_INTEGER"),
    ("limit true", lambda b: b.update(limit=True), "EXPECTED_INTEGER"),
    ("strange key", lambda b: b.update(page=1), "UNKNOWN_BODY_PARAMETER"),
    ("strange filter", lambda b: filtered(b).update(price={}), "UNKNOWN_BODY_PARAMETER"),
    ("two dates", lambda b: filtered(b)["date_time_filter"].update(updated_at={}), "BAD_REQUEST"),
    ("no date", lambda b: filtered(b).update(date_time_filter={}), "BAD_REQUEST"),
    ("sorted by another", lambda b: b["query"]["sort"].update(sort_field="UPDATED_AT"), "BAD_REQUEST"),
    ("not sorted at all", lambda b: filtered(b).update(date_time_filter={"updated_at": {}}), "BAD_REQUEST"),
    ("sort by price", lambda b: b["query"]["sort"].update(sort_field="PRICE"), "INVALID_ENUM_VALUE"),
    ("sort upwards", lambda b: b["query"]["sort"].update(sort_order="UP"), "INVALID_SORT_ORDER"),
    ("state PAID", lambda b: filtered(b)["state_filter"].update(states=["PAID"]), "INVALID_ENUM_VALUE"),
    (
        "time without offset",
        lambda b: filtered(b)["date_time_filter"]["created_at"].update(start_at="2026-01-01T00:00:00"),
        "INVALID_TIME",
    ),
    (
        "impossible date",
        lambda b: filtered(b)["date_time_filter"]["created_at"].update(start_at="2026-02-30T00:00:00Z"),
        "INVALID_TIME",
    ),
    (
        "end before start",
        lambda b: filtered(b)["date_time_filter"]["created_at"].update(end_at="1999-01-01T00:00:00Z"),
        "INVALID_TIME_RANGE",
    ),
]


def test_every_broken_rule_is_an_error_in_the_documented_form(start: Start) -> None:
    square = Square(start())
    for what, break_it, code in BREAKING:
        body = search_body(square.locations[:1])
        break_it(body)
        answer = square.search(body)
        assert error_of(answer) == (400, BAD, code), (what, answer.text)
        assert answer.json()["errors"][0]["detail"]


def test_closed_at_needs_terminal_states_only(start: Start) -> None:
    square = Square(start())
    body = search_body(square.locations[:1], "closed_at")
    assert square.search(body).status_code == 200
    for states in (["OPEN", "COMPLETED"], ["DRAFT"], []):
        filtered(body)["state_filter"] = {"states": states}
        assert error_of(square.search(body)) == (400, BAD, "BAD_REQUEST")
    del filtered(body)["state_filter"]
    assert error_of(square.search(body)) == (400, BAD, "BAD_REQUEST")


def test_somebody_elses_location_is_as_forbidden_as_one_that_does_not_exist(start: Start) -> None:
    square = Square(start())
    other = square.http.get("/sandbox/merchants").json()["merchants"][1]["locations"][0]["id"]
    answers = [square.search(search_body([square.locations[0], id_])) for id_ in (other, "LDOESNOTEXIST")]
    assert [error_of(answer) for answer in answers] == [(403, "AUTHENTICATION_ERROR", "FORBIDDEN")] * 2
    assert answers[0].content == answers[1].content


def test_a_cursor_is_good_for_its_query_alone_and_not_for_long(start: Start, clock: Clock) -> None:
    sandbox = start()
    square = Square(sandbox)
    body = search_body(square.locations[:2], limit=10)
    cursor = square.search(body).json()["cursor"]
    assert square.search({**body, "cursor": cursor, "limit": 20}).status_code == 200
    changed = search_body(square.locations[:1], limit=10)
    dead = (400, BAD, "INVALID_CURSOR")
    assert error_of(square.search({**changed, "cursor": cursor})) == dead
    assert error_of(square.search({**body, "cursor": cursor[:-2]})) == dead
    assert error_of(square.search({**body, "cursor": "nonsense!"})) == dead
    other_states = search_body(square.locations[:2], limit=10)
    filtered(other_states)["state_filter"]["states"] = ["COMPLETED"]
    assert error_of(square.search({**other_states, "cursor": cursor})) == dead
    clock.forward(299)
    assert square.search({**body, "cursor": cursor}).status_code == 200
    clock.forward(2)
    assert error_of(square.search({**body, "cursor": cursor})) == dead


def test_batches_hold_100_and_ignore_strangers(start: Start) -> None:
    sandbox = start()
    square = Square(sandbox)
    ids = [order["id"] for order in square.everything(ids=square.locations[:2])][:98]
    stranger = next(iter(s.id for s in sandbox.world.sales.values() if s.location.currency == "JPY"))
    batch = square.http.post("/v2/orders/batch-retrieve", json={"order_ids": [*ids, "nothing", stranger]})
    assert [order["id"] for order in batch.json()["orders"]] == ids
    assert square.http.post("/v2/orders/batch-retrieve", json={"order_ids": ["nothing"]}).json() == {}
    for wrong, code in (
        ({"order_ids": ["x"] * 101}, "ARRAY_LENGTH_TOO_LONG"),
        ({"order_ids": []}, "ARRAY_EMPTY"),
        ({"order_ids": "x"}, "EXPECTED_ARRAY"),
    ):
        assert error_of(square.http.post("/v2/orders/batch-retrieve", json=wrong)) == (400, BAD, code)


def test_bodies_that_are_none_and_paths_that_do_not_exist(start: Start) -> None:
    square = Square(start())
    order = square.everything(ids=square.locations[:1])[0]
    assert square.order(order["id"]) == order
    prefixed = square.http.post("/square/v2/orders/batch-retrieve", json={"order_ids": [order["id"]]})
    assert prefixed.json() == {"orders": [order]}
    assert error_of(square.http.post("/v2/orders/search", content=b"{")) == (400, BAD, "EXPECTED_JSON_BODY")
    assert error_of(square.http.post("/v2/orders/search", content=b"[]")) == (400, BAD, "EXPECTED_JSON_BODY")
    assert error_of(square.http.post("/v2/orders/search")) == (400, BAD, "EXPECTED_JSON_BODY")
    assert square.http.get("/nothing").status_code == 404


def test_locations_are_alphabetical_and_inactive_ones_are_there(start: Start) -> None:
    square = Square(start())
    shown = square.http.get("/v2/locations").json()["locations"]
    names = [location["name"] for location in shown]
    assert len(names) == 12
    assert names == sorted(names)
    assert [location["name"] for location in shown if location["status"] == "INACTIVE"] == ["Old Wharf"]


def test_orders_not_made_through_the_api_have_no_version(start: Start) -> None:
    square = Square(start())
    orders = square.everything(ids=square.locations[:4])
    assert {("version" in o) == (o["source"]["name"] != "Square Point of Sale") for o in orders} == {True}
