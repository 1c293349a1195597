"""Square's OAuth over HTTP: codes, tokens, refresh of both kinds, scopes, revocation."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from flux_pipelines_tests.sandbox.conftest import VERSION, Clock, Square, error_of
from flux_sandbox.server import RunningSandbox

Start = Callable[..., RunningSandbox]
REDIRECT = "http://127.0.0.1:1/callback?keep=1"
DENIED = (401, "AUTHENTICATION_ERROR", "UNAUTHORIZED")


class App:
    """An app that connects merchants."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.http = httpx.Client(base_url=sandbox.url, headers=VERSION, timeout=30)
        self.credentials = self.http.get("/sandbox/app").json()

    def authorize(self, **query: str) -> dict[str, str]:
        asked = {
            "client_id": self.credentials["client_id"],
            "scope": "MERCHANT_PROFILE_READ ORDERS_READ",
            "state": "abc",
            "merchant": "",
            "redirect_uri": REDIRECT,
            **query,
        }
        answer = self.http.get("/oauth2/authorize", params=asked)
        assert answer.status_code == 302, answer.text
        back = urlsplit(answer.headers["location"])
        assert answer.headers["location"].startswith("http://127.0.0.1:1/callback?keep=1&")
        return {name: values[0] for name, values in parse_qs(back.query).items()}

    def token(self, **body: Any) -> httpx.Response:
        full = {**self.credentials, "grant_type": "authorization_code", **body}
        return self.http.post("/oauth2/token", json={k: v for k, v in full.items() if v is not None})

    def connect(self, **query: str) -> dict[str, Any]:
        answer = self.token(code=self.authorize(**query)["code"], redirect_uri=REDIRECT)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def use(self, access: str) -> httpx.Response:
        return self.http.get("/v2/locations", headers={"Authorization": f"Bearer {access}"})


def test_the_whole_code_flow(start: Start, clock: Clock) -> None:
    app = App(start())
    back = app.authorize(merchant="sakura")
    assert back["code"].startswith("sq0cgb-")
    assert (back["response_type"], back["state"], back["keep"]) == ("code", "abc", "1")
    tokens = app.token(code=back["code"], redirect_uri=REDIRECT).json()
    assert tokens["token_type"] == "bearer"
    assert "expires_in" not in tokens
    assert "refresh_token_expires_at" not in tokens
    assert datetime.fromisoformat(tokens["expires_at"]) == clock.now + timedelta(days=30)
    assert [x["currency"] for x in app.use(tokens["access_token"]).json()["locations"]] == ["JPY"]
    again = app.token(code=back["code"], redirect_uri=REDIRECT)
    assert error_of(again) == DENIED


def test_merchants_are_chosen_by_name_or_in_turn(start: Start) -> None:
    sandbox = start()
    app = App(sandbox)
    ids = list(sandbox.world.merchants)
    assert app.connect(merchant="Fjord Kahvila")["merchant_id"] == ids[2]
    assert app.connect()["merchant_id"] == ids[0]
    assert app.connect(merchant="unheard-of")["merchant_id"] == ids[1]
    assert app.connect()["merchant_id"] == ids[0]
    assert app.connect(merchant=ids[1])["merchant_id"] == ids[1]


def test_a_person_can_say_no(start: Start) -> None:
    back = App(start()).authorize(deny="1")
    assert back == {"keep": "1", "error": "access_denied", "error_description": "user_denied", "state": "abc"}


@pytest.mark.parametrize(
    "query", [{"client_id": "x"}, {"redirect_uri": "javascript:x"}, {"scope": ""}, {"scope": "ORDERS_READ ALL"}]
)
def test_pages_that_are_not_shown(start: Start, query: dict[str, str]) -> None:
    app = App(start())
    asked = {"client_id": app.credentials["client_id"], "scope": "ORDERS_READ", "redirect_uri": REDIRECT, **query}
    assert app.http.get("/oauth2/authorize", params=asked).status_code == 400


def test_codes_expire_and_are_bound_to_where_they_were_sent(start: Start, clock: Clock) -> None:
    app = App(start())
    code = app.authorize()["code"]
    assert error_of(app.token(code=code)) == DENIED
    assert error_of(app.token(code=code, redirect_uri="http://127.0.0.1:1/other")) == DENIED
    assert error_of(app.token(code=code, redirect_uri=REDIRECT, client_secret="wrong")) == DENIED
    clock.forward(301)
    assert error_of(app.token(code=code, redirect_uri=REDIRECT)) == DENIED
    assert error_of(app.token(code=None)) == (400, "INVALID_REQUEST_ERROR", "MISSING_REQUIRED_PARAMETER")
    assert error_of(app.token(grant_type="password")) == (400, "INVALID_REQUEST_ERROR", "INVALID_VALUE")


def test_refreshing_keeps_the_refresh_token_in_the_code_flow(start: Start, clock: Clock) -> None:
    app = App(start(token_lifetime=100))
    tokens = app.connect()
    for _ in range(2):
        clock.forward(101)
        assert error_of(app.use(tokens["access_token"])) == (401, "AUTHENTICATION_ERROR", "ACCESS_TOKEN_EXPIRED")
        answer = app.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"]).json()
        assert answer["refresh_token"] == tokens["refresh_token"]
        assert answer["access_token"] != tokens["access_token"]
        assert app.use(answer["access_token"]).status_code == 200
    assert app.http.get("/sandbox/stats").json()["token_refreshes"] == 2
    missing = app.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"], client_secret=None)
    assert error_of(missing) == (400, "INVALID_REQUEST_ERROR", "MISSING_REQUIRED_PARAMETER")
    assert error_of(app.token(grant_type="refresh_token", refresh_token="no")) == DENIED


def test_pkce_refresh_tokens_work_once_and_end_after_90_days(start: Start, clock: Clock) -> None:
    app = App(start())
    verifier = "v" * 50
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    code = app.authorize(code_challenge=challenge)["code"]
    asked = {"code": code, "redirect_uri": REDIRECT, "client_secret": None}
    assert error_of(app.token(**asked, code_verifier="w" * 50)) == DENIED
    tokens = app.token(**asked, code_verifier=verifier).json()
    ends = datetime.fromisoformat(tokens["refresh_token_expires_at"])
    assert ends == clock.now + timedelta(days=90)
    renewal = {"grant_type": "refresh_token", "client_secret": None}
    second = app.token(**renewal, refresh_token=tokens["refresh_token"]).json()
    assert second["refresh_token"] != tokens["refresh_token"]
    assert error_of(app.token(**renewal, refresh_token=tokens["refresh_token"])) == DENIED
    clock.forward(91 * 86_400)
    assert error_of(app.token(**renewal, refresh_token=second["refresh_token"])) == DENIED


def pkce(app: App) -> dict[str, Any]:
    """Connect without a secret; return the tokens."""
    verifier = "v" * 50
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    code = app.authorize(code_challenge=challenge)["code"]
    return dict(app.token(code=code, redirect_uri=REDIRECT, client_secret=None, code_verifier=verifier).json())


def test_a_rotated_refresh_token_works_on_for_the_grace(start: Start, clock: Clock) -> None:
    app = App(start(refresh_grace=60))
    first = pkce(app)["refresh_token"]
    renewal = {"grant_type": "refresh_token", "client_secret": None}
    second = app.token(**renewal, refresh_token=first).json()["refresh_token"]
    clock.forward(59)  # as after a crash between the answer and its storing
    again = app.token(**renewal, refresh_token=first)
    assert again.status_code == 200
    assert again.json()["refresh_token"] not in (first, second)
    clock.forward(1)
    assert error_of(app.token(**renewal, refresh_token=first)) == DENIED
    assert app.token(**renewal, refresh_token=second).status_code == 200


def test_a_verifier_is_checked_beside_a_secret_too(start: Start) -> None:
    app = App(start())
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 50).digest()).decode().rstrip("=")
    code = app.authorize(code_challenge=challenge)["code"]
    assert error_of(app.token(code=code, redirect_uri=REDIRECT, code_verifier="w" * 50)) == DENIED
    assert app.token(code=code, redirect_uri=REDIRECT, code_verifier="v" * 50).status_code == 200


def test_a_token_says_what_it_may(start: Start) -> None:
    app = App(start())
    tokens = app.connect(scope="ORDERS_READ")
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    status = app.http.post("/oauth2/token/status", headers=bearer).json()
    assert status["scopes"] == ["ORDERS_READ"]
    assert status["client_id"] == app.credentials["client_id"]
    assert status["merchant_id"] == tokens["merchant_id"]
    assert status["expires_at"] == tokens["expires_at"]
    assert error_of(app.use(tokens["access_token"])) == (403, "AUTHENTICATION_ERROR", "INSUFFICIENT_SCOPES")


def test_revoking_needs_the_client_secret_and_ends_every_token(start: Start) -> None:
    app = App(start())
    tokens, others = app.connect(merchant="harbor"), app.connect(merchant="fjord")
    header = {"Authorization": f"Client {app.credentials['client_secret']}"}
    body = {"client_id": app.credentials["client_id"], "access_token": tokens["access_token"]}
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert error_of(app.http.post("/oauth2/revoke", json=body, headers=bearer)) == DENIED
    fresh = app.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"]).json()
    assert app.http.post("/oauth2/revoke", json=body, headers=header).json() == {"success": True}
    revoked = (401, "AUTHENTICATION_ERROR", "ACCESS_TOKEN_REVOKED")
    for one in (tokens, fresh):
        assert error_of(app.use(one["access_token"])) == revoked
    assert error_of(app.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"])) == DENIED
    assert app.use(others["access_token"]).status_code == 200
    assert app.http.post("/oauth2/revoke", json={**body, "access_token": "no"}, headers=header).status_code == 404


def test_tokens_that_were_never_given_out(start: Start) -> None:
    app = App(start())
    for headers in ({}, {"Authorization": "Bearer made-up"}, {"Authorization": "Client x"}):
        assert error_of(app.http.get("/v2/locations", headers=headers)) == DENIED


def test_a_test_can_expire_revoke_and_unscope(start: Start) -> None:
    sandbox = start()
    harbor, fjord = Square(sandbox, "harbor"), Square(sandbox, "fjord")
    control = httpx.Client(base_url=sandbox.url)
    control.post("/sandbox/tokens/scopes", json={"merchant": "harbor", "remove": ["ORDERS_READ"]})
    body = {"location_ids": harbor.locations[:1]}
    assert error_of(harbor.search(body)) == (403, "AUTHENTICATION_ERROR", "INSUFFICIENT_SCOPES")
    assert harbor.http.get("/v2/locations").status_code == 200
    assert fjord.search({"location_ids": fjord.locations}).status_code == 200
    assert control.post("/sandbox/tokens/expire").json() == {"expired": 2}
    assert error_of(fjord.http.get("/v2/locations"))[2] == "ACCESS_TOKEN_EXPIRED"
    assert control.post("/sandbox/tokens/revoke", json={"merchant": "fjord"}).json() == {"revoked": 1}
    assert error_of(fjord.http.get("/v2/locations"))[2] == "ACCESS_TOKEN_REVOKED"
    assert fjord.merchant.id not in control.get("/sandbox/merchants").json()["authorised"]


@pytest.mark.parametrize("version", ["2026-9-16", "latest", "2026-13-01"])
def test_the_version_has_a_form(start: Start, version: str) -> None:
    square = Square(start())
    answer = square.http.get("/v2/locations", headers={"Square-Version": version})
    assert error_of(answer) == (400, "INVALID_REQUEST_ERROR", "INVALID_SQUARE_VERSION_FORMAT")
    assert square.http.get("/v2/locations").headers["square-version"] == VERSION["Square-Version"]
