"""The client against scripted answers over real HTTP: what it asks for, and what it makes of every kind of answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from flux_pipelines.domain.errors import (
    BadResponseError,
    PermissionLostError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
)
from flux_pipelines.providers.base import OAuthContext, TimeField, Window
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.providers.square.oauth import SquareOAuth
from flux_pipelines_tests.providers.squarewire import Calls, square, transport

START = datetime(2026, 3, 2, tzinfo=UTC)
END = datetime(2026, 3, 3, tzinfo=UTC)
WINDOW = Window(("L1", "L2"), START, END)


def order(order_id: str, at: datetime, **more: Any) -> dict[str, Any]:
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": order_id,
        "location_id": "L1",
        "state": "COMPLETED",
        "created_at": stamp,
        "updated_at": stamp,
        "closed_at": stamp,
        "total_money": {"amount": 100, "currency": "USD"},
        **more,
    }


def answer(status: int, body: Any) -> Response:
    return Response(
        body if isinstance(body, (str, bytes)) else json.dumps(body), status, content_type="application/json"
    )


class Script:
    """Gives one answer after the other and keeps what was asked."""

    def __init__(self, server: HTTPServer, *answers: tuple[int, Any]) -> None:
        self.asked: list[Any] = []
        self.headers: list[Any] = []
        self._answers = list(answers)
        server.expect_request("/v2/orders/search", method="POST").respond_with_handler(self._handle)

    def _handle(self, request: Request) -> Response:
        self.asked.append(json.loads(request.data))
        self.headers.append(request.headers)
        status, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer(status, body)


def test_it_asks_as_square_documents(httpserver: HTTPServer, tmp_path: Path) -> None:
    script = Script(httpserver, (200, {"orders": [order("A", START)], "cursor": "next"}), (200, {}))
    with square(httpserver.url_for(""), tmp_path) as client:
        pages = list(client.pages(WINDOW, "created"))
    assert [[o.header.order_id for o in page.orders if o.header] for page in pages] == [["A"], []]
    assert [page.last for page in pages] == [False, True]
    first, second = script.asked
    assert first == {
        "location_ids": ["L1", "L2"],
        "limit": 1000,
        "query": {
            "filter": {
                "date_time_filter": {
                    "created_at": {"start_at": "2026-03-02T00:00:00Z", "end_at": "2026-03-03T00:00:00Z"}
                },
                "state_filter": {"states": ["OPEN", "COMPLETED", "CANCELED", "DRAFT"]},
            },
            "sort": {"sort_field": "CREATED_AT", "sort_order": "ASC"},
        },
    }
    assert second == {**first, "cursor": "next"}
    assert script.headers[0]["Square-Version"] == PROVIDER.api_version
    assert script.headers[0]["Authorization"] == "Bearer token"
    assert script.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("time_field", "states"),
    [("closed", ["COMPLETED", "CANCELED"]), ("updated", ["OPEN", "COMPLETED", "CANCELED", "DRAFT"])],
)
def test_sort_field_and_states_go_with_the_filter(
    time_field: TimeField, states: list[str], httpserver: HTTPServer, tmp_path: Path
) -> None:
    script = Script(httpserver, (200, {}))
    with square(httpserver.url_for(""), tmp_path) as client:
        list(client.pages(WINDOW, time_field))
    query = script.asked[0]["query"]
    assert list(query["filter"]["date_time_filter"]) == [f"{time_field}_at"]
    assert query["sort"]["sort_field"] == f"{time_field.upper()}_AT"
    assert query["filter"]["state_filter"]["states"] == states


def test_orders_at_the_end_are_the_next_windows(httpserver: HTTPServer, tmp_path: Path) -> None:
    Script(httpserver, (200, {"orders": [order("IN", END - timedelta(milliseconds=1)), order("OUT", END)]}))
    with square(httpserver.url_for(""), tmp_path) as client:
        (page,) = client.pages(WINDOW, "created")
    assert [o.header.order_id for o in page.orders if o.header] == ["IN"]


def test_a_dead_cursor_starts_again_at_the_last_instant_seen(httpserver: HTTPServer, tmp_path: Path) -> None:
    dead = {"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "INVALID_CURSOR", "field": "cursor"}]}
    seen = START + timedelta(hours=5)
    script = Script(
        httpserver,
        (200, {"orders": [order("A", START), order("B", seen)], "cursor": "dies"}),
        (400, dead),
        (200, {"orders": [order("B", seen), order("C", seen)]}),
    )
    with square(httpserver.url_for(""), tmp_path) as client:
        ids = [o.header.order_id for page in client.pages(WINDOW, "created") for o in page.orders if o.header]
    assert ids == ["A", "B", "B", "C"]
    assert script.asked[2]["query"]["filter"]["date_time_filter"]["created_at"]["start_at"] == "2026-03-02T05:00:00Z"
    assert "cursor" not in script.asked[2]


def test_cursors_that_always_die_end_in_an_error(httpserver: HTTPServer, tmp_path: Path) -> None:
    dead = {"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "INVALID_CURSOR", "field": "cursor"}]}
    page = {"orders": [order("A", START)], "cursor": "dies"}
    Script(httpserver, *[(200, page), (400, dead)] * 20)
    with (
        square(httpserver.url_for(""), tmp_path) as client,
        pytest.raises(ProviderUnavailableError, match="cursors die"),
    ):
        list(client.pages(WINDOW, "created"))


def test_an_order_is_given_exactly_as_received(httpserver: HTTPServer, tmp_path: Path) -> None:
    raw = '{ "id":"A", "location_id":"L1","state":"COMPLETED", "created_at":"2026-03-02T10:00:00.123456789Z",\n "x": 1.50}'
    Script(httpserver, (200, '{"orders":[' + raw + "]}"))
    with square(httpserver.url_for(""), tmp_path) as client:
        (page,) = client.pages(WINDOW, "created")
    (found,) = page.orders
    assert bytes(found.raw) == raw.encode()
    assert found.header is not None
    assert found.header.created_at == datetime(2026, 3, 2, 10, 0, 0, 123457, tzinfo=UTC)
    assert found.header.updated_at == found.header.created_at


@pytest.mark.parametrize(
    "damage",
    [
        {"created_at": "yesterday"},
        {"id": None},
        {"created_at": "2026-03-02T10:00:00"},
        {"total_money": {"amount": "1"}},
    ],
)
def test_one_unreadable_header_does_not_lose_the_page(
    damage: dict[str, Any], httpserver: HTTPServer, tmp_path: Path
) -> None:
    bad = {**order("BAD", START), **damage}
    Script(httpserver, (200, {"orders": [order("A", START), bad, order("B", START)]}))
    with square(httpserver.url_for(""), tmp_path) as client:
        (page,) = client.pages(WINDOW, "created")
    assert [o.header.order_id if o.header else None for o in page.orders] == ["A", None, "B"]
    assert json.loads(bytes(page.orders[1].raw)) == bad
    assert "header cannot be read" in page.orders[1].problem


@pytest.mark.parametrize(
    "body",
    [
        b'{"orders":[{"id":"A","location_id"',
        b"<html>bad gateway</html>",
        b"",
        b'{"errors":[{"category":"API_ERROR","code":"INTERNAL_SERVER_ERROR"}]}',
    ],
)
def test_a_damaged_page_is_asked_for_again(body: bytes, httpserver: HTTPServer, tmp_path: Path) -> None:
    script = Script(httpserver, (200, body), (200, body), (200, {"orders": [order("A", START)]}))
    with square(httpserver.url_for(""), tmp_path) as client:
        (page,) = client.pages(WINDOW, "created")
    assert len(page.orders) == 1
    assert len(script.asked) == 3


@pytest.mark.parametrize("body", ["[]", '{"orders": {}}', "null", '"orders"'])
def test_another_form_is_an_error_and_never_no_orders(body: str, httpserver: HTTPServer, tmp_path: Path) -> None:
    Script(httpserver, (200, body))
    with square(httpserver.url_for(""), tmp_path) as client, pytest.raises(BadResponseError):
        list(client.pages(WINDOW, "created"))


def test_a_lost_permission_is_an_error_and_never_no_orders(httpserver: HTTPServer, tmp_path: Path) -> None:
    Script(httpserver, (403, {"errors": [{"category": "AUTHENTICATION_ERROR", "code": "INSUFFICIENT_SCOPES"}]}))
    with (
        square(httpserver.url_for(""), tmp_path) as client,
        pytest.raises(PermissionLostError, match="INSUFFICIENT_SCOPES"),
    ):
        list(client.pages(WINDOW, "created"))


def test_a_revoked_token_needs_reauthorization(httpserver: HTTPServer, tmp_path: Path) -> None:
    Script(httpserver, (401, {"errors": [{"category": "AUTHENTICATION_ERROR", "code": "ACCESS_TOKEN_REVOKED"}]}))
    with square(httpserver.url_for(""), tmp_path) as client, pytest.raises(ReauthorizationNeededError):
        list(client.pages(WINDOW, "created"))


def test_access_is_confirmed_by_scope(httpserver: HTTPServer, tmp_path: Path) -> None:
    scopes = ["MERCHANT_PROFILE_READ"]
    httpserver.expect_request("/oauth2/token/status", method="POST").respond_with_handler(
        lambda _: answer(
            200, {"scopes": scopes, "merchant_id": "M", "client_id": "C", "expires_at": "2027-01-01T00:00:00Z"}
        )
    )
    with square(httpserver.url_for(""), tmp_path) as client:
        with pytest.raises(PermissionLostError, match="ORDERS_READ"):
            client.verify_access()
        scopes.append("ORDERS_READ")
        client.verify_access()


def test_calls_count_against_each_location(httpserver: HTTPServer, tmp_path: Path) -> None:
    calls = Calls()
    Script(httpserver, (200, {}))
    with square(httpserver.url_for(""), tmp_path, calls=calls, requests_per_minute=2) as client:
        list(client.pages(WINDOW, "created"))
        list(client.pages(Window(("L3",), START, END), "created"))
        list(client.pages(WINDOW, "created"))
        stats = client.stats
    assert stats.requests == len(calls) == 3
    assert stats.waited_seconds == 0


def oauth(httpserver: HTTPServer, opened: Any, secret: str = "app-secret") -> SquareOAuth:
    return SquareOAuth(OAuthContext(PROVIDER, httpserver.url_for(""), "app-id", secret, opened, "square:test"))


TOKENS = {
    "access_token": "new-access-token",
    "token_type": "bearer",
    "expires_at": "2026-12-01T18:31:06Z",
    "merchant_id": "M1",
    "refresh_token": "new-refresh-token",
    "short_lived": False,
}


def test_oauth_speaks_squares_dialect(httpserver: HTTPServer, tmp_path: Path) -> None:
    asked: list[tuple[str, Any, Any]] = []

    def handle(request: Request) -> Response:
        asked.append((request.path, json.loads(request.data), request.headers.get("Authorization")))
        return answer(200, {"success": True} if request.path.endswith("revoke") else TOKENS)

    httpserver.expect_request("/oauth2/token").respond_with_handler(handle)
    httpserver.expect_request("/oauth2/revoke").respond_with_handler(handle)
    with transport(tmp_path) as opened:
        app = oauth(httpserver, opened)
        url = app.authorize_url("https://flux.example/back", "state-1")
        assert (
            "/oauth2/authorize?client_id=app-id&scope=MERCHANT_PROFILE_READ+ORDERS_READ+PAYMENTS_READ+ITEMS_READ+INVENTORY_READ"
            "+TIMECARDS_READ+REPORTING_READ&session=false&state=state-1" in url
        )
        assert "response_type" not in url
        assert "app-secret" not in url
        assert "code_challenge=abc" in app.authorize_url("https://flux.example/back", "s", "abc")
        tokens = app.exchange({"code": "code-1"}, "https://flux.example/back")
        app.refresh("old-refresh-token")
        app.revoke("new-access-token")
        oauth(httpserver, opened, "").exchange({"code": "code-2"}, "https://flux.example/back", "verifier")
    assert tokens.expires_at == datetime(2026, 12, 1, 18, 31, 6, tzinfo=UTC)
    assert (tokens.access_token, tokens.refresh_token, tokens.account_id) == (
        "new-access-token",
        "new-refresh-token",
        "M1",
    )
    assert "new-access-token" not in repr(tokens)
    assert asked[0][1] == {
        "client_id": "app-id",
        "client_secret": "app-secret",
        "code": "code-1",
        "grant_type": "authorization_code",
        "redirect_uri": "https://flux.example/back",
    }
    assert asked[1][1]["grant_type"] == "refresh_token"
    assert asked[2] == (
        "/oauth2/revoke",
        {"client_id": "app-id", "access_token": "new-access-token"},
        "Client app-secret",
    )
    assert asked[3][1]["code_verifier"] == "verifier"
    assert "client_secret" not in asked[3][1]


@pytest.mark.parametrize("status", [400, 401])
def test_a_refused_refresh_needs_reauthorization(status: int, httpserver: HTTPServer, tmp_path: Path) -> None:
    body = {"errors": [{"category": "AUTHENTICATION_ERROR", "code": "UNAUTHORIZED", "detail": "revoked"}]}
    httpserver.expect_request("/oauth2/token").respond_with_response(answer(status, body))
    with transport(tmp_path) as opened, pytest.raises(ReauthorizationNeededError, match="UNAUTHORIZED") as caught:
        oauth(httpserver, opened).refresh("old-refresh-token")
    assert "old-refresh-token" not in str(caught.value)
