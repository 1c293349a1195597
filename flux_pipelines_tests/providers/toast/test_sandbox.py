"""Toast's sandbox refuses what Toast refuses: tokens, scopes, restaurants, windows, pages and rates."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from flux_pipelines_tests.providers.toast.sandboxed import BULK, HANDLE, Toast, exact, message_of, toast_sandbox
from flux_pipelines_tests.sandbox.conftest import END_DAY, Clock
from flux_sandbox.toast.limits import Limiter
from flux_sandbox.toast.values import instant_ms, stamp


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def toast(clock: Clock) -> Iterator[Toast]:
    with toast_sandbox(clock) as running:
        yield Toast(running)


def claims(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(found, dict)
    return found


def test_a_login_gives_the_same_token_until_its_last_minute(toast: Toast, clock: Clock) -> None:
    toast.control("tokens/expire", merchant=HANDLE)
    first = toast.login().json()
    assert first["@class"] == ".SuccessfulResponse"
    assert first["status"] == "SUCCESS"
    assert (first["token"]["tokenType"], first["token"]["scope"], first["token"]["expiresIn"]) == (
        "Bearer",
        None,
        86400,
    )
    clock.forward(86_400 - 61)
    again = toast.login().json()["token"]
    assert again["accessToken"] == first["token"]["accessToken"]
    assert again["expiresIn"] == 61
    clock.forward(2)
    renewed = toast.login().json()["token"]
    assert renewed["accessToken"] != again["accessToken"]
    assert renewed["expiresIn"] == 86_400
    assert "orders:read" in str(claims(renewed["accessToken"])["scope"]).split()
    clock.now -= timedelta(seconds=86_400 - 59)


def test_signing_in_needs_the_right_secret_and_json(toast: Toast) -> None:
    assert "authentication" in message_of(toast.login(clientSecret="wrong"), 401)
    assert "userAccessType" in message_of(toast.login(userAccessType="PASSWORD"), 400)
    form = toast.http.post("/toast/authentication/v1/authentication/login", data=toast.secrets)
    assert "JSON" in message_of(form, 400)


def test_what_a_token_does_not_say_cannot_be_read(toast: Toast) -> None:
    narrow = Toast(toast.sandbox, scopes=["orders:read"])
    assert "menus:read" in message_of(narrow.get("/menus/v2/menus"), 403)
    assert narrow.get(BULK, businessDate="20261101").status_code == 200
    lost = Toast(toast.sandbox)
    lost.control("tokens/scopes", merchant=HANDLE, remove=["orders:read"])
    assert "orders:read" in message_of(lost.get(BULK, businessDate="20261101"), 403)
    lost.control("tokens", provider="toast", merchant=HANDLE)  # everything is granted again
    assert lost.get(BULK, businessDate="20261101").status_code == 200


def test_expired_and_deleted_credentials_are_told_by_401(toast: Toast) -> None:
    late = Toast(toast.sandbox, lifetime=30)
    late.control("tokens/expire", merchant=HANDLE)
    message_of(late.get(BULK, businessDate="20261101"), 401)
    gone = Toast(toast.sandbox)
    gone.control("tokens/revoke", merchant=HANDLE)
    message_of(gone.get(BULK, businessDate="20261101"), 401)
    message_of(gone.login(), 401)
    assert not toast.http.get("/sandbox/merchants").json()["authorised"]
    # Whoever connects again grants everything anew; what was deleted stays dead.
    assert toast.http.get("/sandbox/credentials", params={"merchant": HANDLE}).status_code == 200
    assert toast.login().status_code == 200
    message_of(gone.get(BULK, businessDate="20261101"), 401)
    toast.http.headers["Authorization"] = Toast(toast.sandbox).http.headers["Authorization"]


def test_every_call_names_a_restaurant_that_is_connected(toast: Toast) -> None:
    bare = toast.http.get(f"/toast{BULK}", params={"businessDate": "20261101"})
    assert "Toast-Restaurant-External-ID" in message_of(bare, 400)
    message_of(toast.get(BULK, "00000000-0000-4000-8000-000000000000", businessDate="20261101"), 403)
    square = toast.world.merchant("harbor").locations[0].id
    message_of(toast.get(BULK, square, businessDate="20261101"), 403)
    last = list(toast.restaurants)[-1]
    location = toast.restaurants[last].id
    assert toast.control("toast/restaurants/disconnect", location_id=location) == {"restaurants": 2}
    message_of(toast.get(BULK, last, businessDate="20261101"), 403)
    assert len(toast.http.get("/toast/partners/v1/restaurants").json()) == 2
    toast.control("toast/restaurants/connect", location_id=location)
    assert toast.get(BULK, last, businessDate="20261101").status_code == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "EITHER (startDate and endDate) OR businessDate is required"),
        ({"startDate": "2026-11-01T00:00:00.000+0000"}, "EITHER (startDate and endDate) OR businessDate is required"),
        (
            {
                "businessDate": "20261101",
                "startDate": "2026-11-01T00:00:00.000+0000",
                "endDate": "2026-11-01T01:00:00.000+0000",
            },
            "EITHER (startDate and endDate) OR businessDate is required",
        ),
        (
            {"startDate": "2026-11-02T00:00:00.000+0000", "endDate": "2026-11-02T00:00:00.000+0000"},
            "Input startDate must be before endDate",
        ),
        (
            {"startDate": "2015-11-30T00:00:00.000+0000", "endDate": "2015-12-20T00:00:00.000+0000"},
            "Input startDate must be after 2015-12-01",
        ),
        (
            {"startDate": "2026-09-01T00:00:00.000+0000", "endDate": "2026-10-02T00:00:00.001+0000"},
            "The interval between startDate and endDate must not be longer than one month",
        ),
        (
            {"startDate": "2026-11-01T00:00:00.000 0000", "endDate": "2026-11-02T00:00:00.000+0000"},
            "Invalid startDate: expected ISO-8601 like 2016-01-01T14:13:12.000+0000",
        ),
        ({"businessDate": "2026-11-01"}, "Invalid businessDate: expected yyyyMMdd"),
        ({"businessDate": "20261101", "pageSize": "101"}, "pageSize must be an integer of at least 1 and at most 100"),
        ({"businessDate": "20261101", "page": "0"}, "page must be an integer of at least 1"),
    ],
)
def test_orders_are_asked_for_as_documented(toast: Toast, query: dict[str, str], message: str) -> None:
    assert message_of(toast.get(BULK, **query), 400) == message


def test_pages_are_linked_and_in_no_useful_order(toast: Toast) -> None:
    first = toast.get(BULK, businessDate=f"{END_DAY:%Y%m%d}", pageSize="10")
    assert set(first.links) == {"first", "self", "next"}
    assert "last" not in first.links
    second = toast.get(BULK, businessDate=f"{END_DAY:%Y%m%d}", pageSize="10", page="2")
    assert set(second.links) >= {"first", "self", "prev"}
    beyond = toast.get(BULK, businessDate=f"{END_DAY:%Y%m%d}", pageSize="10", page="99")
    assert beyond.json() == []
    every = toast.orders(businessDate=f"{END_DAY:%Y%m%d}", pageSize="10")
    guids = [order["guid"] for order in every]
    assert len(set(guids)) == len(guids) > 20
    for member in ("openedDate", "modifiedDate", "guid"):
        values = [str(order[member]) for order in every]
        assert values not in (sorted(values), sorted(values, reverse=True))
    assert [order["guid"] for order in toast.orders(businessDate=f"{END_DAY:%Y%m%d}", pageSize="7")] == guids


def test_an_edited_order_leaves_its_old_window(toast: Toast) -> None:
    order = toast.day(END_DAY)[0]
    at = instant_ms(order["modifiedDate"])
    assert at is not None
    window = {"startDate": stamp(at), "endDate": stamp(at + 1)}
    assert order["guid"] in [one["guid"] for one in toast.orders(**window)]
    before = {"startDate": stamp(at - 1), "endDate": stamp(at)}  # the end is exclusive
    assert order["guid"] not in [one["guid"] for one in toast.orders(**before)]
    toast.control("orders/edit", order_id=order["guid"])
    assert order["guid"] not in [one["guid"] for one in toast.orders(**window)]
    recent = toast.orders(startDate="2026-11-04T00:00:00.000+0000", endDate="2026-11-05T00:00:00.000+0000")
    assert order["guid"] in [one["guid"] for one in recent]
    assert order["guid"] in [one["guid"] for one in toast.day(END_DAY)]
    whole = exact(toast.get(f"/orders/v2/orders/{order['guid']}"))
    assert whole["modifiedDate"] == "2026-11-04T12:00:00.000+0000"


def test_orders_by_guid_belong_to_their_restaurant(toast: Toast) -> None:
    order = toast.day(END_DAY)[0]
    message_of(toast.get(f"/orders/v2/orders/{order['guid']}", list(toast.restaurants)[1]), 404)
    assert exact(toast.get(f"/orders/v2/orders/{order['guid']}")) == order
    message_of(toast.get("/orders/v2/orders/00000000-0000-4000-8000-000000000000"), 404)


def test_limits_are_fixed_slices_told_in_headers() -> None:
    with toast_sandbox(rate_limit=500) as running:
        toast = Toast(running)
        time.sleep(1.02 - time.time() % 1)  # to the beginning of a slice
        answers = [toast.get("/menus/v2/menus") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert answers[0].headers["X-Toast-RateLimit-By"] == "ENDPOINT"
        assert answers[0].headers["X-Toast-RateLimit-Remaining"] == "0"
        assert "Retry-After" not in answers[0].headers
        assert answers[1].headers["Retry-After"] == "1"
        assert 0 <= int(answers[1].headers["X-Toast-RateLimit-Reset"]) - time.time() <= 1
        message_of(answers[1], 429)
        unknown = toast.http.get("/toast/labor/v1/jobs", headers={"Authorization": "Bearer nobody"})
        message_of(unknown, 401)
        assert unknown.headers["X-Toast-RateLimit-By"] == "GLOBAL"
        # Another restaurant has limits of its own; the login has none and says nothing of any.
        assert toast.get("/menus/v2/menus", list(toast.restaurants)[1]).status_code == 200
        assert not [name for name in toast.login().headers if "ratelimit" in name.lower()]
        assert toast.http.get("/sandbox/stats").json()["rate_limited"] == 2


def test_twenty_a_second_ten_thousand_a_quarter_and_five_of_ordersbulk() -> None:
    limiter = Limiter(500)
    at = 1_800_000_000.25
    bulk = [limiter.arrive("a", "orders_bulk", at)[0] for _ in range(6)]
    assert bulk == [True] * 5 + [False]
    assert limiter.arrive("a", "orders_bulk", at + 0.75)[0]  # the next slice
    rest = [limiter.arrive("b", "order", at) for _ in range(21)]
    assert [within for within, _ in rest].count(True) == 20
    assert rest[-1][1]["X-Toast-RateLimit-By"] == "GLOBAL"
    many = [limiter.arrive("c", "order", at + n / 15)[0] for n in range(10_001)]
    assert many.count(False) == 1
    assert not many[-1]
    told = limiter.arrive("c", "order", at + 700)[1]
    assert int(told["Retry-After"]) == 200
    assert Limiter(50).arrive("d", "orders_bulk", at)[0]


def test_faults_come_in_toasts_own_form(toast: Toast) -> None:
    seen: set[int] = set()
    toast.control("faults", faults="error500=0.5,error429=0.5,html=0.5")
    try:
        for _ in range(60):
            answer = toast.get("/labor/v1/jobs")
            seen.add(answer.status_code)
            if answer.status_code == 429:
                assert answer.headers["Retry-After"] == "1"
            if answer.headers["content-type"] == "application/json" and answer.status_code != 200:
                message_of(answer, answer.status_code)
        assert seen >= {429, 500, 502, 503, 504}
        toast.control("faults", faults="truncate=1")
        with pytest.raises(json.JSONDecodeError):
            toast.get("/labor/v1/jobs").json()
        toast.control("faults", faults="disconnect=1")
        with pytest.raises(httpx.RemoteProtocolError):
            toast.get("/labor/v1/jobs")
    finally:
        toast.control("faults", faults="")
