"""The client where answers are odd (scripted, over real HTTP), and where the sandbox is strict."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from flux_pipelines.domain.errors import (
    BadResponseError,
    ConfigurationError,
    PermissionLostError,
    ProviderUnavailableError,
)
from flux_pipelines.providers.base import RateLimit, Window
from flux_pipelines.providers.toast.client import limits_of
from flux_pipelines_tests.providers.squarewire import Calls, FixedToken
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE, Toast, toast_sandbox
from flux_pipelines_tests.providers.toast.wire import RESTAURANT, toast

DAY = date(2026, 3, 2)
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
WINDOW = Window((RESTAURANT,), START, START + timedelta(days=1), DAY)
BULK = "/orders/v2/ordersBulk"


def order(guid: str, **more: Any) -> dict[str, Any]:
    return {
        "guid": guid,
        "businessDate": 20260302,
        "openedDate": "2026-03-02T12:00:00.000+0000",
        "modifiedDate": "2026-03-02T13:00:00.000+0000",
        "checks": [],
        **more,
    }


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    text = body if isinstance(body, str) else json.dumps(body)
    return Response(
        text, status, headers={k.replace("_", "-"): v for k, v in headers.items()}, content_type="application/json"
    )


class Script:
    """Gives one answer after the other to a path and keeps what was asked."""

    def __init__(self, server: HTTPServer, path: str, *answers: Response | Callable[[Request], Response]) -> None:
        self.asked: list[dict[str, str]] = []
        self.headers: list[Any] = []
        self._answers = list(answers)
        server.expect_request(path).respond_with_handler(self._handle)

    def _handle(self, request: Request) -> Response:
        self.asked.append(dict(request.args))
        self.headers.append(request.headers)
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return found(request) if callable(found) and not isinstance(found, Response) else found


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    restaurant = {"guid": RESTAURANT, "general": {"name": "Roma", "timeZone": "America/New_York", "closeoutHour": 4}}
    httpserver.expect_request(f"/restaurants/v1/restaurants/{RESTAURANT}").respond_with_json(restaurant)
    return httpserver


def ids(pages: Any) -> list[list[str]]:
    return [[order.header.order_id for order in page.orders] for page in pages]


def test_links_are_followed_and_not_counted_from_the_size_of_a_page(server: HTTPServer, tmp_path: Path) -> None:
    where = server.url_for(BULK)
    following = f'<{where}?page=1>; rel="first", <{where}?page=1>; rel="self", <{where}?businessDate=20260302&page=2>; rel="next"'
    script = Script(
        server,
        BULK,
        answer([order("a")], Link=following),
        answer([], Link=f"<{where}?page=3>; rel=next"),
        answer([order("b"), order("c")], Link=f'<{where}?page=2>; rel="prev"'),
    )
    with toast(server.url_for(""), tmp_path) as client:
        pages = list(client.pages(WINDOW, "created"))
    assert ids(pages) == [["a"], [], ["b", "c"]]
    assert [page.last for page in pages] == [False, False, True]
    assert script.asked == [
        {"businessDate": "20260302", "pageSize": "100", "page": str(number)} for number in (1, 2, 3)
    ]
    assert {headers["Toast-Restaurant-External-ID"] for headers in script.headers} == {RESTAURANT}
    assert script.headers[0]["Authorization"] == "Bearer token"


def test_pages_that_lead_back_are_no_endless_loop(server: HTTPServer, tmp_path: Path) -> None:
    Script(server, BULK, answer([order("a")], Link=f'<{server.url_for(BULK)}?page=1>; rel="next"'))
    with toast(server.url_for(""), tmp_path) as client, pytest.raises(BadResponseError, match="given already"):
        list(client.pages(WINDOW, "created"))


def test_history_is_asked_for_a_month_at_a_time_with_a_pause_between(server: HTTPServer, tmp_path: Path) -> None:
    at: list[float] = []

    def note(_request: Request) -> Response:
        at.append(time.monotonic())
        return answer([])

    script = Script(server, BULK, note)
    begin = datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)
    window = Window((RESTAURANT,), begin, begin + timedelta(days=65))
    with toast(server.url_for(""), tmp_path, history_pause_seconds=1) as client:
        pages = list(client.pages(window, "updated"))
    assert [page.last for page in pages] == [False, False, True]
    assert [(one["startDate"], one["endDate"]) for one in script.asked] == [
        ("2026-01-01T00:00:00.123+0000", "2026-01-31T00:00:00.124+0000"),
        ("2026-01-31T00:00:00.123+0000", "2026-03-02T00:00:00.124+0000"),
        ("2026-03-02T00:00:00.123+0000", "2026-03-07T00:00:00.124+0000"),
    ]
    assert at[1] - at[0] >= 1
    assert at[2] - at[1] >= 1


def test_what_cannot_be_asked_for_is_not_an_empty_answer(server: HTTPServer, tmp_path: Path) -> None:
    script = Script(server, BULK, answer([]))
    with toast(server.url_for(""), tmp_path) as client:
        with pytest.raises(ConfigurationError):
            list(client.pages(WINDOW, "closed"))
        assert client.history_from(START) == datetime(2015, 12, 2, tzinfo=UTC)
        old = Window((RESTAURANT,), datetime(2015, 1, 1, tzinfo=UTC), datetime(2015, 12, 20, tzinfo=UTC))
        list(client.pages(old, "updated"))
    assert [one["startDate"] for one in script.asked] == ["2015-12-02T00:00:00.000+0000"]


def test_without_a_business_date_the_dates_that_the_interval_touches_are_asked_for(
    server: HTTPServer, tmp_path: Path
) -> None:
    early = order("early", openedDate="2026-03-02T08:59:00.000+0000")
    script = Script(server, BULK, answer([early]), answer([order("a")]))
    with toast(server.url_for(""), tmp_path) as client:
        found = ids(client.pages(Window((RESTAURANT,), START, START + timedelta(hours=12)), "created"))
    # 4 in the morning in New York is 9 UTC: the business date before ends where the interval begins.
    assert [one["businessDate"] for one in script.asked] == ["20260302"]
    assert found == [[]]


@pytest.mark.parametrize("body", ["{}", "["])
def test_a_damaged_page_is_never_a_day_without_orders(server: HTTPServer, tmp_path: Path, body: str) -> None:
    Script(server, BULK, answer(body))
    with toast(server.url_for(""), tmp_path) as client, pytest.raises(BadResponseError):
        list(client.pages(WINDOW, "created"))


def test_a_malformed_order_does_not_lose_its_page(server: HTTPServer, tmp_path: Path) -> None:
    Script(server, BULK, answer([order("a"), order("b", openedDate="yesterday"), order("c", checks="none")]))
    with toast(server.url_for(""), tmp_path) as client:
        (page,) = client.pages(WINDOW, "created")
    assert [o.header is None for o in page.orders] == [False, True, True]
    assert all(order.problem for order in page.orders[1:])


def test_a_refusal_is_told_and_429_waits_as_it_says(server: HTTPServer, tmp_path: Path) -> None:
    soon = str(int(time.time()) + 1)
    script = Script(
        server,
        BULK,
        answer({"status": 429}, 429, Retry_After="0", X_Toast_RateLimit_Remaining="0", X_Toast_RateLimit_Reset=soon),
        answer([order("a")]),
        answer({"status": 403, "code": 0, "message": "no access", "errors": []}, 403),
    )
    calls = Calls()
    with toast(server.url_for(""), tmp_path, calls=calls) as client:
        assert ids(client.pages(WINDOW, "created")) == [["a"]]
        with pytest.raises(PermissionLostError):
            list(client.pages(WINDOW, "created"))
        assert client.stats.requests == 4
        assert client.stats.retries == 1
    assert len(script.asked) == 3
    assert "token" not in "".join(call.url for call in calls)


def read(client: Any, stream: str) -> list[Any]:
    now = datetime.now(UTC)
    return [record for page in client.read(stream, Window((RESTAURANT,), now, now, DAY)) for record in page]


def test_configuration_published_meanwhile_is_read_from_the_beginning_again(server: HTTPServer, tmp_path: Path) -> None:
    server.expect_request("/menus/v2/menus").respond_with_json({"menus": []})
    script = Script(
        server,
        "/config/v2/alternatePaymentTypes",
        answer([{"guid": "old"}], Toast_Next_Page_Token="t1"),
        answer({"status": 409}, 409),
        answer([{"guid": "n1"}], Toast_Next_Page_Token="t2"),
        answer([{"guid": "n2"}]),
    )
    with toast(server.url_for(""), tmp_path) as client:
        records = read(client, "catalog")
    assert [(r.kind, json.loads(bytes(r.raw)).get("guid")) for r in records] == [
        ("location", RESTAURANT),
        ("menu", None),
        ("alternate_payment_type", "n1"),
        ("alternate_payment_type", "n2"),
    ]
    assert [asked.get("pageToken") for asked in script.asked] == [None, "t1", None, "t2"]


def test_configuration_that_never_settles_is_an_error(server: HTTPServer, tmp_path: Path) -> None:
    server.expect_request("/menus/v2/menus").respond_with_json({"menus": []})
    Script(server, "/config/v2/alternatePaymentTypes", answer({"status": 409}, 409))
    with toast(server.url_for(""), tmp_path) as client:
        with pytest.raises(ProviderUnavailableError, match="anew"):
            read(client, "catalog")
        with pytest.raises(ConfigurationError):
            read(client, "payments")


def test_the_limits_are_toasts_own_or_an_hourly_figure() -> None:
    assert limits_of(0) == (RateLimit(20, 1.0), RateLimit(10_000, 900.0))
    hourly = limits_of(1000)[-1]
    assert (3600 / hourly.seconds) * hourly.requests <= 1000
    assert hourly.seconds < 900, "nobody waits longer than a call may"
    assert limits_of(5)[-1].requests == 1


def test_toasts_limits_are_kept_without_a_single_refusal(tmp_path: Path) -> None:
    with toast_sandbox(history_days=2, rate_limit=500) as sandbox:  # 500: exactly as documented
        wire = Toast(sandbox)
        token = str(wire.http.headers["Authorization"]).removeprefix("Bearer ")
        with toast(f"{sandbox.url}/toast", tmp_path, credentials=FixedToken(token)) as client:
            places = tuple(place.location_id for place in client.locations())
            began = time.monotonic()
            for _ in range(8):
                list(client.pages(Window(places[:1], START, START, date(2026, 11, 2)), "created"))
            for _ in range(2):
                list(client.read("inventory", Window(places[:1], START, START, DAY)))
            took = time.monotonic() - began
        assert sandbox.world.merchant(HANDLE).locations
        assert sandbox.world.request_log.counts["rate_limited"] == 0
    assert took >= 1.0, "more than five pages at five a second"
