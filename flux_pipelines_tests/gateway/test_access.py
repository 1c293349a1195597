"""Nothing but sign-in, callbacks, webhooks and health answers without a session or a token; forms must be ours."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from flux_pipelines.gateway.options import AllowedPeople
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.sessions import local_path
from flux_pipelines_tests.gateway.people import Browser
from flux_pipelines_tests.gateway.routes import every_route, filled

OPEN = {
    ("GET", "/"),  # leads to the connections page, whoever asks
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/sign-in"),
    ("GET", "/sign-in/{provider}"),
    ("GET", "/sign-in/{provider}/callback"),
    ("GET", "/integrations/{provider}/callback"),
    ("POST", "/webhooks/{provider}"),
    ("GET", "/webhooks/{provider}"),  # some providers ask whether the address is theirs to send to
}
GUARDED = [route for route in every_route() if route not in OPEN]
FORMS = [path for method, path in GUARDED if method == "POST" and not path.startswith("/api/")]
READS = [path for method, path in GUARDED if method == "GET" and path.startswith("/api/")]
WRITES = [path for method, path in GUARDED if method == "POST" and path.startswith("/api/")]


def test_the_routes_are_really_found() -> None:
    assert set(every_route()) >= OPEN
    assert {"/sign-out", "/integrations/{provider}/connect"} <= set(FORMS)
    assert "/api/openapi.json" in READS
    assert "/api/v1/connections/{key}/pause" in WRITES
    assert {method for method, _ in every_route()} <= {"GET", "POST"}


@pytest.mark.parametrize(("method", "path"), GUARDED, ids=lambda value: str(value))
def test_without_a_session_or_token_nothing_answers(browser: Browser, method: str, path: str) -> None:
    answer = browser.request(method, filled(path), headers={"origin": browser.gateway.url})

    if path.startswith("/api/"):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    else:
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("path", READS + WRITES)
@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer flux_" + "A" * 43, "Bearer wrong", "Basic YTpi", "flux_x", "", "Bearer a b"],
)
def test_a_wrong_token_is_refused_and_never_falls_back_to_the_cookie(
    ada: Browser, path: str, authorization: str
) -> None:
    method = "GET" if path in READS else "POST"
    answer = ada.request(method, filled(path), headers={"authorization": authorization, "origin": ada.gateway.url})

    assert answer.status_code == 401


def test_a_token_that_is_revoked_or_expired_is_refused(machine: Callable[..., httpx.Client], ada: Browser) -> None:
    client = machine()
    assert client.get("/api/v1/me").status_code == 200

    tokens = ada.gateway.app.state.runtime.state.api_tokens
    tokens.revoke(tokens.list()[-1].id)

    assert client.get("/api/v1/me").status_code == 401


def test_a_token_ends_when_its_maker_is_taken_off_the_list(ada: Browser) -> None:
    tokens = ada.gateway.app.state.runtime.state.api_tokens
    ada.submit("/tokens", {"name": "export", "days": "", "scope": "write"})
    assert tokens.list()[-1].created_by == "ada@example.com"
    _, hers = tokens.create("hers", "ada@example.com")
    _, of_nobody = tokens.create("of nobody", "")
    _, of_the_machine = tokens.create("cron", "command line (ada@corp.example)")
    with RunningGateway(
        ada.gateway.app.state.runtime, allowed_people=AllowedPeople.parse("grace@example.com")
    ) as other:
        for plaintext, before, after in ((hers, 200, 401), (of_nobody, 401, 401), (of_the_machine, 200, 200)):
            headers = {"authorization": f"Bearer {plaintext}"}
            assert ada.get("/api/v1/me", headers=headers).status_code == before
            assert httpx.get(f"{other.url}/api/v1/me", headers=headers, trust_env=False).status_code == after
        with Browser(other) as grace:
            grace.sign_in_as("google:grace", "grace@example.com", "Grace")
            assert "Refused: its maker may not sign in" in grace.get("/tokens").text


@pytest.mark.parametrize("path", WRITES)
def test_a_token_that_may_only_read_changes_nothing(machine: Callable[..., httpx.Client], path: str) -> None:
    answer = machine("read").post(filled(path), json={"first_day": "2026-01-01", "last_day": "2026-01-01"})

    assert answer.status_code == 403
    assert answer.json()["what"] == "This API token may only read."


def test_a_token_opens_no_page(machine: Callable[..., httpx.Client]) -> None:
    client = machine()

    assert client.get("/connections").headers["location"].startswith("/sign-in")


# --- forms: CSRF ---


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_a_form_without_the_token_of_its_session_is_refused(ada: Browser, path: str, token: str | None) -> None:
    form = {} if token is None else {"csrf": token}
    answer = ada.post(filled(path), data=form, headers={"origin": ada.gateway.url, "sec-fetch-site": "same-origin"})

    assert answer.status_code == 403
    assert ada.get("/api/v1/me").status_code == 200  # still signed in: nothing happened


@pytest.mark.parametrize("path", FORMS)
def test_the_token_of_another_session_is_refused(ada: Browser, path: str) -> None:
    with Browser(ada.gateway) as eve:
        eve.sign_in_as("google:grace", "grace@example.com", "Grace")
        stolen = eve.csrf()
    answer = ada.post(filled(path), data={"csrf": stolen}, headers={"origin": ada.gateway.url})

    assert answer.status_code == 403


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:8410"},
        {},
        {"origin": "OWN", "sec-fetch-site": "cross-site"},
        {"origin": "OWN", "sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_a_form_of_another_site_is_refused_even_with_the_right_token(
    ada: Browser, path: str, headers: dict[str, str]
) -> None:
    sent = {name: ada.gateway.url if value == "OWN" else value for name, value in headers.items()}
    answer = ada.post(filled(path), data={"csrf": ada.csrf()}, headers=sent)

    assert answer.status_code == 403


def test_the_token_in_the_url_or_as_json_is_not_taken(ada: Browser) -> None:
    token = ada.csrf()
    own = {"origin": ada.gateway.url, "sec-fetch-site": "same-origin"}

    assert ada.post(f"/sign-out?csrf={token}", headers=own).status_code == 403
    assert ada.post("/sign-out", json={"csrf": token}, headers=own).status_code == 403
    assert ada.submit("/sign-out").status_code == 303


@pytest.mark.parametrize("path", WRITES)
def test_a_machine_endpoint_with_a_session_needs_the_token_too(ada: Browser, path: str) -> None:
    own = {"origin": ada.gateway.url, "sec-fetch-site": "same-origin"}
    body = {"first_day": "2026-01-01", "last_day": "2026-01-01"}

    assert ada.post(filled(path), json=body, headers=own).status_code == 403
    assert ada.post(filled(path), json=body, headers={"x-csrf-token": ada.csrf()}).status_code == 403
    answer = ada.post(filled(path), json=body, headers={**own, "x-csrf-token": ada.csrf()})
    assert answer.status_code == 404  # let in: there is no such connection or alert


@pytest.mark.parametrize("path", [path for method, path in GUARDED if method == "GET"])
def test_reading_changes_nothing_so_a_form_cannot_be_sent_as_a_link(ada: Browser, path: str) -> None:
    state = ada.gateway.app.state.runtime.state
    before = (state.connections.list(), state.api_tokens.list(), state.alerts.open(), state.sync_requests.open())
    ada.get(filled(path), params={"csrf": ada.csrf()})

    assert (
        state.connections.list(),
        state.api_tokens.list(),
        state.alerts.open(),
        state.sync_requests.open(),
    ) == before


def test_other_sites_get_no_permission_to_read(ada: Browser) -> None:
    for method in ("GET", "OPTIONS"):
        answer = ada.request(
            method,
            "/api/v1/me",
            headers={"origin": "https://evil.example", "access-control-request-method": "GET"},
        )
        assert not [name for name in answer.headers if name.startswith("access-control")]


# --- redirects ---

ELSEWHERE = [
    "https://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http:evil.example",
    "evil.example",
    "@evil.example",
    ".evil.example",
    "/x\r\nSet-Cookie: a=b",
    "/é",
    "/" + "a" * 2000,
    "",
    "https:///evil.example",
    "/\x00",
    "//[::1",
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_redirect_never_leads_elsewhere(ada: Browser, target: str) -> None:
    assert local_path(target) == "/"
    answer = ada.get("/sign-in", params={"return_to": target})

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("target", ["/", "/connections", "/connections?x=1&y=//b", "/a/b#c", "/connections/square:x"])
def test_a_redirect_back_to_a_page_of_ours_is_kept(ada: Browser, target: str) -> None:
    assert local_path(target) == target
    assert ada.get("/sign-in", params={"return_to": target}).headers["location"] == target
