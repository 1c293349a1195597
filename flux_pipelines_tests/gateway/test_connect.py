"""Connecting an account: what has to hold on the way to the provider and back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import time_machine

from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.consent import KEY, agree, begin, connect, deny, register
from flux_pipelines_tests.gateway.people import Browser, query_of
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=3)) as running:
        yield running


@pytest.fixture(autouse=True)
def square(runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox) -> Iterator[None]:
    """The app is registered, and nothing is connected."""
    register(runtime, gateway, sandbox)
    yield
    for connection in runtime.state.connections.list():
        runtime.state.connections.remove(connection.key)


@pytest.fixture
def grace(gateway: RunningGateway) -> Iterator[Browser]:
    with Browser(gateway) as opened:
        opened.sign_in_as("google:grace", "grace@example.com", "Grace")
        yield opened


def nothing_connected(runtime: Runtime) -> bool:
    return runtime.state.connections.list() == []


# --- the way that succeeds ---


def test_an_account_is_connected_with_its_locations(ada: Browser, runtime: Runtime, gateway: RunningGateway) -> None:
    url = begin(ada, cutoff_hour="4")
    asked = query_of(url)
    assert asked["redirect_uri"] == f"{gateway.options.public_url}/integrations/square/callback"
    assert len(asked["state"]) >= 43
    assert "code_challenge" not in asked, "Square's flow with a client secret has no PKCE"

    answer = ada.get(agree(url))

    assert answer.status_code == 303
    assert answer.headers["location"] == f"/connections/{KEY}?said=connected"
    connection = runtime.state.connections.get(KEY)
    assert (connection.status, connection.tenant, connection.cutoff_hour) == ("active", "Harbor Group", 4)
    assert connection.account_id.startswith("ML")
    assert len(runtime.state.locations.list(KEY)) == 12
    # The app's own credentials stay with the app: they are stored once, whoever connects.
    assert set(runtime.state.secrets.get(KEY, purpose="test")) == {"access_token", "refresh_token", "expires_at"}
    page = ada.get(answer.headers["location"]).text
    assert "Wicker Park Late Bar" in page
    assert "Start the first backfill" in page


def test_every_state_is_another(ada: Browser) -> None:
    assert len({query_of(begin(ada))["state"] for _ in range(5)}) == 5


def test_an_app_without_a_secret_connects_with_pkce_and_its_refresh_tokens_rotate(
    ada: Browser, runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox
) -> None:
    register(runtime, gateway, sandbox, secret=False)
    url = begin(ada)
    assert len(query_of(url)["code_challenge"]) == 43
    assert ada.get(agree(url)).status_code == 303
    before = runtime.state.secrets.get(KEY, purpose="test")
    assert "refresh_token_expires_at" in before
    httpx.post(f"{sandbox.url}/sandbox/tokens/expire", json={"merchant": "harbor"}, timeout=30).raise_for_status()
    assert "It works" in ada.submit(f"/connections/{KEY}/test").text
    assert runtime.state.secrets.get(KEY, purpose="test")["refresh_token"] != before["refresh_token"]


def test_a_code_with_pkce_is_worthless_without_the_verifier(
    ada: Browser, runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox
) -> None:
    register(runtime, gateway, sandbox, secret=False)
    own, other = begin(ada), begin(ada, "other")
    code = query_of(agree(other))["code"]
    answer = ada.get(f"/integrations/square/callback?state={query_of(own)['state']}&code={code}")
    assert answer.status_code == 409
    assert nothing_connected(runtime)


# --- the state ---


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 400 and "cannot be completed" in answer.text


def test_a_replayed_state_is_refused(ada: Browser, runtime: Runtime) -> None:
    back = agree(begin(ada))
    assert ada.get(back).status_code == 303
    tokens = runtime.state.secrets.get(KEY, purpose="test")
    assert refused(ada.get(back))
    assert runtime.state.secrets.get(KEY, purpose="test") == tokens


def test_of_two_at_once_one_connects(ada: Browser, runtime: Runtime, gateway: RunningGateway) -> None:
    back = agree(begin(ada))
    statuses: list[int] = []

    def come_back() -> None:
        with Browser(gateway) as same:
            same.cookies.update(ada.cookies)
            statuses.append(same.get(back).status_code)

    threads = [threading.Thread(target=come_back) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303, 400, 400, 400, 400, 400]
    assert [connection.key for connection in runtime.state.connections.list()] == [KEY]


def test_a_state_stolen_by_another_session_is_refused_and_used_up(
    ada: Browser, grace: Browser, runtime: Runtime
) -> None:
    back = agree(begin(ada))
    assert refused(grace.get(back))
    assert refused(ada.get(back)), "somebody else has seen it"
    assert nothing_connected(runtime)


def test_a_state_without_a_session_is_refused(ada: Browser, browser: Browser, runtime: Runtime) -> None:
    back = agree(begin(ada))
    answer = browser.get(back)
    assert refused(answer)
    assert "Sign in" in answer.text
    assert refused(ada.get(back))
    assert nothing_connected(runtime)


def test_a_session_that_was_left_does_not_complete_what_it_began(ada: Browser, runtime: Runtime) -> None:
    back = agree(begin(ada))
    ada.submit("/sign-out")
    ada.sign_in_as("google:ada", "ada@example.com", "Ada")
    assert refused(ada.get(back))
    assert nothing_connected(runtime)


def test_a_state_expires_after_ten_minutes(ada: Browser, runtime: Runtime) -> None:
    back = agree(begin(ada))
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=10, seconds=1)):
        assert refused(ada.get(back))
    assert nothing_connected(runtime)


@pytest.mark.parametrize("query", ["", "?code=sq0cgb-1", "?state=&code=sq0cgb-1", "?state=acme&code=sq0cgb-1"])
def test_an_absent_or_invented_state_is_refused(ada: Browser, runtime: Runtime, query: str) -> None:
    assert refused(ada.get(f"/integrations/square/callback{query}"))
    assert nothing_connected(runtime)


@pytest.mark.parametrize(("purpose", "provider"), [("connect", "acorn"), ("sign_in", "square")])
def test_a_state_of_something_else_is_refused(ada: Browser, runtime: Runtime, purpose: str, provider: str) -> None:
    code = query_of(agree(begin(ada)))["code"]
    payload = {"key": KEY, "tenant": "t", "settings": {}, "again": False, "redirect_uri": "x", "code_verifier": None}
    state = runtime.state.authorizations.begin(purpose, provider, session=ada.session, payload=payload)  # type: ignore[arg-type]
    assert refused(ada.get(f"/integrations/square/callback?state={state}&code={code}"))
    assert nothing_connected(runtime)


def test_a_provider_that_does_not_exist_has_no_pages(ada: Browser) -> None:
    assert ada.get("/integrations/nowhere/connect").status_code == 404
    assert ada.get("/integrations/nowhere/callback?state=x&code=y").status_code == 404


def test_a_refused_state_is_never_logged_or_shown(ada: Browser, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = ada.get("/integrations/square/callback?state=the-stolen-state&code=the-stolen-code")
    assert "unknown" in caplog.text, "the log says which of the reasons it was"
    for text in (answer.text, caplog.text.replace("HTTP Request: GET " + str(answer.url), "")):
        assert "the-stolen" not in text


# --- the form ---


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({"name": "Harbor Café"}, "Use lower-case letters"),
        ({"name": ""}, "Use lower-case letters"),
        ({"name": "x" * 64}, "Use lower-case letters"),
        ({"tenant": ""}, "Say whose account it is"),
        ({"tenant": "Har\nbor"}, "Say whose account it is"),
        ({"tenant": "x" * 101}, "Say whose account it is"),
        ({"cutoff_hour": "24"}, "Give a full hour"),
        ({"cutoff_hour": "four"}, "Give a full hour"),
        ({"again": "yes"}, "There is no connection of that name."),
    ],
)
def test_a_form_that_is_wrong_says_where(ada: Browser, form: dict[str, str], complaint: str) -> None:
    given = {"name": "harbor", "tenant": "Harbor Group", **form}
    answer = ada.submit("/integrations/square/connect", given)
    assert 'title="Lower-case letters, digits, - and _ only' in answer.text, "which browsers add to their own words"
    assert answer.status_code == 422
    assert complaint in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert "/oauth2/authorize" not in answer.text


def test_a_name_that_is_taken_is_refused_before_anybody_is_sent_away(ada: Browser) -> None:
    assert connect(ada).status_code == 303
    answer = ada.submit("/integrations/square/connect", {"name": "harbor", "tenant": "Other"})
    assert answer.status_code == 422
    assert "There is a connection of that name already" in answer.text


def test_a_form_of_another_site_begins_nothing(ada: Browser) -> None:
    form = {"name": "harbor", "tenant": "Harbor Group"}
    assert ada.submit("/integrations/square/connect", {**form, "csrf": "0" * 64}).status_code == 403
    assert ada.submit("/integrations/square/connect", form, origin="https://evil.example").status_code == 403


def test_without_a_registered_app_the_page_says_what_to_do(ada: Browser, runtime: Runtime) -> None:
    runtime.state.apps.remove("square")
    answer = ada.get("/integrations/square/connect")
    assert answer.status_code == 200
    assert "flux apps set square" in answer.text
    assert 'action="/integrations' not in answer.text
    assert ada.submit("/integrations/square/connect", {"name": "harbor", "tenant": "T"}).status_code == 409


# --- not connected ---


def test_a_denial_says_why_and_what_to_do(ada: Browser, runtime: Runtime) -> None:
    answer = ada.get(deny(begin(ada, cutoff_hour="4")))
    assert answer.status_code == 403
    assert "square:harbor is not connected" in answer.text
    assert "the permission was not given" in answer.text
    assert "access_denied: user_denied" in answer.text
    for field in ('name="name" value="harbor"', 'name="tenant" value="Harbor Group"', 'name="cutoff_hour" value="4"'):
        assert field in answer.text, "trying again asks for the same"
    assert nothing_connected(runtime)


def test_what_the_provider_says_is_shown_escaped_and_cut(ada: Browser) -> None:
    state = query_of(begin(ada))["state"]
    said = "\u202e<script>alert(1)</script>" + "x" * 1000
    answer = ada.get(
        "/integrations/square/callback", params={"state": state, "error": "server_error", "error_description": said}
    )
    assert answer.status_code == 502
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "x" * 301 not in answer.text
    assert "\u202e" not in answer.text, "it would turn around what follows it"


def test_a_way_back_without_code_and_error_connects_nothing(ada: Browser, runtime: Runtime) -> None:
    answer = ada.get(f"/integrations/square/callback?state={query_of(begin(ada))['state']}")
    assert answer.status_code == 502
    assert "sent you back without a permission" in answer.text
    assert nothing_connected(runtime)


def test_a_code_that_the_provider_does_not_accept_connects_nothing(ada: Browser, runtime: Runtime) -> None:
    state = query_of(begin(ada))["state"]
    answer = ada.get(f"/integrations/square/callback?state={state}&code=sq0cgb-invented")
    assert answer.status_code == 409
    assert "Square does not accept the authorization code" in answer.text
    assert "sq0cgb-invented" not in answer.text
    assert nothing_connected(runtime)


def test_a_permission_that_is_too_small_connects_nothing(ada: Browser, runtime: Runtime) -> None:
    answer = ada.get(agree(begin(ada).replace("ORDERS_READ+", "")))
    assert answer.status_code == 409
    assert "could not be made" in answer.text
    assert nothing_connected(runtime)


def test_a_provider_that_is_down_connects_nothing(ada: Browser, runtime: Runtime) -> None:
    app = runtime.state.apps.get("square")
    assert app is not None
    secrets = runtime.state.apps.secrets("square", purpose="test")
    runtime.state.apps.put("square", {**app.settings, "base_url": "http://127.0.0.1:9"}, secrets)
    # The person agrees where the provider really is; the exchange goes to where it was said to be.
    answer = ada.get(agree(begin(ada).replace("http://127.0.0.1:9", str(app.settings["base_url"]))))
    assert answer.status_code == 502
    assert "Trying again later can help" in answer.text
    assert nothing_connected(runtime)


def test_one_account_has_one_connection(ada: Browser, runtime: Runtime) -> None:
    assert connect(ada).status_code == 303
    answer = connect(ada, "second")
    assert answer.status_code == 409
    assert "is connected already, as square:harbor" in answer.text
    assert [connection.key for connection in runtime.state.connections.list()] == [KEY]
    assert "It works" in ada.submit(f"/connections/{KEY}/test").text


# --- again ---


def test_an_account_is_authorised_again_and_keeps_its_settings(ada: Browser, runtime: Runtime) -> None:
    connect(ada, cutoff_hour="4")
    runtime.state.connections.set_status(KEY, "needs_reauth", "revoked")
    runtime.state.alerts.raise_("needs_reauth", KEY, "Reconnect it.")
    before = runtime.state.secrets.get(KEY, purpose="test")
    assert connect(ada, again="yes", tenant="ignored").status_code == 303
    connection = runtime.state.connections.get(KEY)
    assert (connection.status, connection.cutoff_hour, connection.tenant) == ("active", 4, "Harbor Group")
    assert runtime.state.secrets.get(KEY, purpose="test")["access_token"] != before["access_token"]
    assert runtime.state.alerts.open() == []


@pytest.mark.parametrize("status", ["active", "needs_reauth", "paused"])
def test_another_merchant_is_refused_on_reconnecting_and_everything_stays(
    ada: Browser, runtime: Runtime, status: str
) -> None:
    connect(ada)
    runtime.state.connections.set_status(KEY, status, "as it was")  # type: ignore[arg-type]
    before = runtime.state.connections.get(KEY), runtime.state.secrets.get(KEY, purpose="test")
    answer = connect(ada, merchant="fjord", again="yes")
    assert answer.status_code == 409
    assert "this authorisation is for another account" in answer.text.casefold()
    assert (runtime.state.connections.get(KEY), runtime.state.secrets.get(KEY, purpose="test")) == before


@pytest.mark.parametrize("status", ["active", "disconnected"])
def test_what_fails_while_reconnecting_is_put_back(ada: Browser, runtime: Runtime, status: str) -> None:
    connect(ada, cutoff_hour="4")
    if status == "disconnected":
        ada.submit(f"/connections/{KEY}/disconnect")
    before = runtime.state.connections.get(KEY), runtime.state.secrets.get(KEY, purpose="test")
    assert before[0].status == status
    answer = ada.get(agree(begin(ada, again="yes").replace("ORDERS_READ+", "")))
    assert answer.status_code == 409
    assert "is not reconnected" in answer.text
    assert (runtime.state.connections.get(KEY), runtime.state.secrets.get(KEY, purpose="test")) == before
