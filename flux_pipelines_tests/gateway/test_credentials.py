"""Connecting an account with a client id and secret: they are tried, kept encrypted, and shown to nobody."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.people import Browser
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

KEY = "toast:kitchen"
FORM = "/integrations/toast/connect"
GIVE = "/integrations/toast/credentials"
SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=2)) as running:
        yield running


@pytest.fixture(autouse=True)
def toast(runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox) -> Iterator[None]:
    """The sandbox's webhooks are registered, which is also where Toast answers; nothing is connected."""
    assert register_at_sandbox(runtime, sandbox.url, gateway.url) == []
    yield
    for connection in runtime.state.connections.list():
        runtime.state.connections.remove(connection.key)


@pytest.fixture
def secrets(sandbox: RunningSandbox) -> dict[str, str]:
    query = {"provider": "toast", "merchant": "harbor-kitchen"}
    found: dict[str, str] = httpx.get(f"{sandbox.url}/sandbox/credentials", params=query).json()["secrets"]
    return found


def give(browser: Browser, secrets: dict[str, str], **form: str) -> httpx.Response:
    typed = {f"secret_{name}": value for name, value in secrets.items()}
    return browser.submit(GIVE, {"name": "kitchen", "tenant": "Harbor Group", **typed, **form})


def test_an_account_is_connected_and_its_secrets_are_nowhere_in_clear(
    ada: Browser, runtime: Runtime, secrets: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    listed = ada.get("/integrations").text
    assert "You enter the client id and client secret that Toast gave" in listed
    asked = ada.get(FORM).text
    fields = re.findall(r'<input type="(\w+)" id="secret_(\w+)"([^>]*)>', asked)
    assert [(kind, name) for kind, name, _ in fields] == [("text", "client_id"), ("password", "client_secret")]
    assert all('autocomplete="off"' in rest and "value" not in rest for _, _, rest in fields)
    assert 'method="post"' in asked

    with caplog.at_level(logging.DEBUG):
        answer = give(ada, secrets)

    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"/connections/{KEY}?said=connected"
    connection = runtime.state.connections.get(KEY)
    assert (connection.status, connection.tenant, connection.cutoff_hour) == ("active", "Harbor Group", 4)
    assert connection.settings["base_url"] == runtime.app("toast").settings["base_url"]
    assert len(runtime.state.locations.list(KEY)) == 3
    stored = runtime.state.secrets.get(KEY, purpose="test")
    assert secrets.items() <= stored.items()

    page = ada.get(answer.headers["location"]).text
    assert "Flux signs in again by itself" in page
    lines = [record.getMessage() for record in caplog.records]
    assert any("ada@example.com gave credentials: toast:kitchen connected with 3 locations" in line for line in lines)
    texts = [answer.text, page, ada.get("/connections").text, ada.get(FORM).text, *lines]
    for secret in (secrets["client_secret"], stored["access_token"]):
        assert not [text for text in texts if secret in text]
        for path in runtime.settings.home.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_credentials_that_are_not_accepted_leave_nothing_behind(
    ada: Browser, runtime: Runtime, secrets: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = give(ada, {**secrets, "client_secret": SECRET}, cutoff_hour="5")
    assert answer.status_code == 409
    assert "Toast does not accept the client id and secret." in answer.text
    assert "Nothing was stored." in answer.text
    assert "flux connections" not in answer.text, "whoever reads this has no command line"
    assert 'value="kitchen"' in answer.text, "what is no secret need not be typed again"
    assert 'name="cutoff_hour" value="5"' in answer.text
    assert SECRET not in answer.text + caplog.text
    assert secrets["client_id"] not in answer.text
    assert runtime.state.connections.list() == []
    assert runtime.state.alerts.open() == []


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": "Harbor Kitchen"}, "name"),
        ({"tenant": ""}, "tenant"),
        ({"cutoff_hour": "24"}, "cutoff_hour"),
        ({"secret_client_id": ""}, "secret_client_id"),
        ({"secret_client_id": "two\nlines"}, "secret_client_id"),
        ({"secret_client_secret": SECRET * 100}, "secret_client_secret"),
    ],
)
def test_a_form_that_is_wrong_says_where_and_gives_no_secret_back(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, form: dict[str, str], field: str
) -> None:
    before = sandbox.world.request_log.counts["requests"]
    answer = give(ada, {"client_id": "the-client", "client_secret": SECRET}, **form)
    assert answer.status_code == 422
    assert f'id="{field}-problem"' in answer.text
    assert SECRET not in answer.text
    assert "the-client" not in answer.text
    assert runtime.state.connections.list() == []
    assert sandbox.world.request_log.counts["requests"] == before, "nobody was asked"


def test_a_form_of_another_site_or_session_gives_nothing(
    ada: Browser, runtime: Runtime, secrets: dict[str, str]
) -> None:
    assert give(ada, secrets, csrf="0" * 64).status_code == 403
    typed = {"name": "kitchen", "tenant": "t", **{f"secret_{name}": value for name, value in secrets.items()}}
    assert ada.submit(GIVE, typed, origin="https://evil.example").status_code == 403
    assert ada.get(GIVE, params=typed).status_code == 405, "never in an address"
    assert runtime.state.connections.list() == []


def test_an_address_in_the_form_is_not_where_they_are_sent(
    ada: Browser, runtime: Runtime, secrets: dict[str, str]
) -> None:
    elsewhere = {"base_url": "http://127.0.0.1:9", "settings": '{"base_url": "http://127.0.0.1:9"}'}
    assert give(ada, secrets, **elsewhere).status_code == 303
    assert runtime.state.connections.get(KEY).settings["base_url"] == runtime.app("toast").settings["base_url"]


def test_each_provider_is_connected_in_its_own_way_only(ada: Browser, secrets: dict[str, str]) -> None:
    typed = {"name": "kitchen", "tenant": "t", **{f"secret_{name}": value for name, value in secrets.items()}}
    assert ada.submit("/integrations/square/credentials", typed).status_code == 404
    assert ada.submit("/integrations/nowhere/credentials", typed).status_code == 404
    assert ada.get("/integrations/toast/callback?state=x&code=y").status_code == 404


def test_new_credentials_take_the_place_of_old_ones(ada: Browser, runtime: Runtime, secrets: dict[str, str]) -> None:
    give(ada, secrets, cutoff_hour="5")
    runtime.state.connections.set_status(KEY, "needs_reauth", "revoked")
    before = runtime.state.secrets.get(KEY, purpose="test")
    asked = ada.submit(FORM, {"name": "kitchen", "again": "yes"})
    assert asked.status_code == 200
    assert "Reconnect kitchen" in asked.text
    assert 'id="tenant"' not in asked.text, "whose it is stays"
    wrong = give(ada, {**secrets, "client_secret": SECRET}, again="yes")
    assert wrong.status_code == 409
    assert "The connection is as it was before." in wrong.text
    assert runtime.state.connections.get(KEY).status == "needs_reauth"
    assert runtime.state.secrets.get(KEY, purpose="test") == before
    assert give(ada, secrets, again="yes", tenant="ignored").status_code == 303
    connection = runtime.state.connections.get(KEY)
    assert (connection.status, connection.cutoff_hour, connection.tenant) == ("active", 5, "Harbor Group")
    assert runtime.state.alerts.open() == []
    assert give(ada, secrets, again="yes").status_code == 303, "also of one that works"
    unknown = ada.submit(FORM, {"name": "nobody", "again": "yes"})
    assert unknown.status_code == 422
    assert "There is no connection of that name." in unknown.text


def test_a_restaurant_has_one_connection(ada: Browser, runtime: Runtime, secrets: dict[str, str]) -> None:
    give(ada, secrets)
    answer = give(ada, secrets, name="second")
    assert answer.status_code == 409
    assert "is connected already, as toast:kitchen" in answer.text
    assert [connection.key for connection in runtime.state.connections.list()] == [KEY]


def test_disconnecting_says_that_the_provider_is_not_told(
    ada: Browser, runtime: Runtime, secrets: dict[str, str]
) -> None:
    give(ada, secrets)
    asked = ada.get(f"/connections/{KEY}/disconnect").text
    assert "Toast is not told" in asked
    assert "is told to revoke" not in asked
    assert ada.submit(f"/connections/{KEY}/disconnect").headers["location"] == f"/connections/{KEY}?said=forgotten"
    assert runtime.state.secrets.get(KEY, purpose="test") == {}
    assert "Reconnect" in ada.get(f"/connections/{KEY}").text
    assert give(ada, secrets, again="yes").status_code == 303


def test_without_registered_webhooks_it_works_and_the_page_says_what_is_missing(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, secrets: dict[str, str]
) -> None:
    assert "No webhooks of Toast" not in ada.get(FORM).text
    runtime.state.apps.remove("toast")
    page = ada.get(FORM).text
    assert "No webhooks of Toast are registered yet." in page
    assert "flux apps set toast" in page
    assert 'id="secret_client_secret"' in page


def test_events_that_name_a_restaurant_show_on_its_connection(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, secrets: dict[str, str]
) -> None:
    give(ada, secrets)
    assert ada.get(f"/connections/{KEY}").text.count("<dd>never</dd>") == 2
    store = sandbox.world.merchant("harbor-kitchen").locations[1].id
    told = httpx.post(f"{sandbox.url}/sandbox/orders/sell", json={"location_id": store}).json()
    assert told["webhooks"] >= 1
    deadline = time.monotonic() + 20
    while KEY not in runtime.state.inbox.last_received():
        assert time.monotonic() < deadline, sandbox.world.outbox.snapshot()
        time.sleep(0.1)
    page = ada.get(f"/connections/{KEY}").text
    assert page.count("<dd>never</dd>") == 1, "only the last sync is missing"
