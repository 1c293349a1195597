"""Connecting a shop that has an address of its own and signs its callbacks: the whole way, and every way around it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import httpx
import pytest

from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.consent import agree, begin, deny
from flux_pipelines_tests.gateway.people import Browser, query_of
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.oauth import signed

KEY = "shopify:harbor-shop"
SHOP = {"provider": "shopify", "shop": "harbor-shop"}
CALLBACK = "/integrations/shopify/callback"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=2)) as running:
        yield running


@pytest.fixture(autouse=True)
def shopify(runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox) -> Iterator[None]:
    """The apps are registered, and nothing is connected."""
    assert register_at_sandbox(runtime, sandbox.url, gateway.url) == []
    yield
    runtime.state.apps.remove("shopify")
    for connection in runtime.state.connections.list():
        runtime.state.connections.remove(connection.key)


def connect(browser: Browser, name: str = "harbor-shop", merchant: str = "harbor-shop", **form: str) -> httpx.Response:
    """Go the whole way; return the answer to the callback. A person may agree at another shop than we sent them to."""
    url = begin(browser, name, **{**SHOP, **form}).replace("/shops/harbor-shop/", f"/shops/{merchant}/")
    return browser.get(agree(url, merchant))


def tokens_given(sandbox: RunningSandbox) -> int:
    return sandbox.world.request_log.counts["tokens_issued"]


def test_a_shop_is_connected_at_its_own_address(ada: Browser, runtime: Runtime, sandbox: RunningSandbox) -> None:
    listed = ada.get("/integrations").text
    assert "/integrations/shopify/connect" in listed
    assert "You say which shop it is" in listed
    form = ada.get("/integrations/shopify/connect").text
    assert "<code>acme</code> of acme.myshopify.com" in form
    url = begin(ada, "harbor-shop", **SHOP)
    assert url.startswith(f"{sandbox.url}/shopify/shops/harbor-shop/admin/oauth/authorize?")
    assert "client_secret" not in url

    answer = ada.get(agree(url, "harbor-shop"))

    assert answer.headers["location"] == f"/connections/{KEY}?said=connected"
    connection = runtime.state.connections.get(KEY)
    assert (connection.status, connection.account_id) == ("active", "harbor-shop.myshopify.com")
    assert connection.settings["base_url"] == f"{sandbox.url}/shopify/shops/harbor-shop"
    merchant = sandbox.world.merchant("harbor-shop")
    assert len(runtime.state.locations.list(KEY)) == len(merchant.locations)
    stored = runtime.state.secrets.get(KEY, purpose="test")
    assert set(stored) == {"access_token", "refresh_token", "expires_at", "refresh_token_expires_at"}
    page = ada.get(answer.headers["location"]).text
    assert "Shopify account of Harbor Group" in page
    assert merchant.locations[1].name in page
    assert "It works" in ada.submit(f"/connections/{KEY}/test").text


@pytest.mark.parametrize("said", ["Harbor-Shop", "harbor-shop.myshopify.com", "https://harbor-shop.myshopify.com/"])
def test_a_shop_may_be_written_as_people_know_it(ada: Browser, sandbox: RunningSandbox, said: str) -> None:
    if "." in said:  # the sandbox's addresses have no host of their own to be taken off
        answer = ada.submit("/integrations/shopify/connect", {"name": "x", "tenant": "t", "shop": said})
        assert answer.status_code == 422
        return
    assert "/shops/harbor-shop/" in begin(ada, **{**SHOP, "shop": said})


@pytest.mark.parametrize(
    "said",
    ["", "evil.example", "127.0.0.1", "127.0.0.1:80", "localhost/x", "harbor-shop@evil.example", "harbor-shop#",
     "harbor-shop/../..", "harbor-shop?x", "a" * 64, "{shop}", "-shop", "shop\\evil", "sh op", "http://evil.example"],
)  # fmt: skip
def test_what_is_said_of_the_shop_sends_nobody_elsewhere(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, said: str
) -> None:
    for template in (f"{sandbox.url}/shopify/shops/{{shop}}", "https://{shop}.myshopify.com"):
        app = runtime.app("shopify")
        secrets = runtime.state.apps.secrets("shopify", purpose="test")
        runtime.state.apps.put("shopify", {**app.settings, "base_url": template}, secrets)
        form = {"name": "harbor-shop", "tenant": "Harbor Group", "shop": said}
        answer = ada.submit("/integrations/shopify/connect", form)
        assert answer.status_code == 422
        assert 'id="shop-problem"' in answer.text
        assert "/admin/oauth" not in answer.text
        # A form that names an address, as no form of ours does, changes nothing either.
        named = ada.submit("/integrations/shopify/connect", {**form, "base_url": "http://127.0.0.1:9"})
        assert named.status_code == 422
    assert runtime.state.connections.list() == []


def test_a_denial_says_why_and_trying_again_asks_the_same_shop(ada: Browser, runtime: Runtime) -> None:
    answer = ada.get(deny(begin(ada, **SHOP)))
    assert answer.status_code == 403
    assert "the permission was not given" in answer.text
    for field in ('name="name" value="harbor"', 'name="shop" value="harbor-shop"'):
        assert field in answer.text
    assert runtime.state.connections.list() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hmac": "0" * 64}, "not signed"),
        ({"hmac": ""}, "not signed"),
        ({"code": "another"}, "not signed"),
        ({"shop": "fjord-shop.myshopify.com"}, "not signed"),
        ({"timestamp": "1"}, "not signed"),
        ({"more": "than it signed"}, "not signed"),
    ],
)
def test_a_callback_that_is_not_the_providers_connects_nothing(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, change: dict[str, str], complaint: str
) -> None:
    query = {**query_of(agree(begin(ada, **SHOP), "harbor-shop")), **change}
    before = tokens_given(sandbox)
    answer = ada.get(f"{CALLBACK}?{urlencode(query)}")
    assert answer.status_code == 409
    assert complaint in answer.text
    assert query["code"] not in answer.text
    assert runtime.state.connections.list() == []
    assert tokens_given(sandbox) == before, "the code was not used"
    whole = {**query_of(agree(begin(ada, **SHOP), "harbor-shop")), "state": query["state"]}
    assert ada.get(f"{CALLBACK}?{urlencode(whole)}").status_code == 400, "its state is used up"


def test_a_callback_of_another_shop_than_the_one_asked_connects_nothing(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox
) -> None:
    before = tokens_given(sandbox)
    answer = connect(ada, merchant="fjord-shop")
    assert answer.status_code == 409
    assert "is not connected" in answer.text
    assert tokens_given(sandbox) == before
    assert runtime.state.connections.list() == []


def test_at_the_providers_own_address_too(ada: Browser, runtime: Runtime, sandbox: RunningSandbox) -> None:
    """The address is Shopify's: were anything sent there, this test would wait for it in vain."""
    app = runtime.app("shopify")
    secrets = runtime.state.apps.secrets("shopify", purpose="test")
    runtime.state.apps.put("shopify", {**app.settings, "base_url": "https://{shop}.myshopify.com"}, secrets)
    now = sandbox.world.clock()
    for shop, complaint in (
        ("other-shop.myshopify.com", "of another shop than the one that was asked"),
        ("harbor-shop.evil.example", "names no shop of Shopify"),
    ):
        url = begin(ada, "real", **{**SHOP, "shop": "harbor-shop.myshopify.com"})
        assert url.startswith("https://harbor-shop.myshopify.com/admin/oauth/authorize?")
        query = signed({"code": "c0de", "shop": shop, "state": query_of(url)["state"]}, now)
        answer = ada.get(f"{CALLBACK}?{urlencode(query)}")
        assert answer.status_code == 409
        assert complaint in answer.text.replace("&#39;", "'")
    assert runtime.state.connections.list() == []


def test_reconnecting_asks_nothing_and_goes_to_the_same_shop(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox
) -> None:
    assert connect(ada).status_code == 303
    sandbox.world.uninstall(sandbox.world.merchant("harbor-shop"))
    assert ada.submit(f"/connections/{KEY}/test").status_code == 409
    assert runtime.state.connections.get(KEY).status == "needs_reauth"
    page = ada.get(f"/connections/{KEY}").text
    assert "Needs reconnecting" in page
    button = {"name": "harbor-shop", "again": "yes"}  # all that "Reconnect" sends
    assert 'action="/integrations/shopify/connect"><input type="hidden" name="csrf"' in page
    assert connect(ada, **{**button, "shop": "", "tenant": ""}).status_code == 303
    assert runtime.state.connections.get(KEY).status == "active"
    # Another shop's agreement does not take the connection over.
    before = runtime.state.connections.get(KEY), runtime.state.secrets.get(KEY, purpose="test")
    assert connect(ada, merchant="fjord-shop", again="yes").status_code == 409
    assert (runtime.state.connections.get(KEY), runtime.state.secrets.get(KEY, purpose="test")) == before


def test_a_connection_that_names_its_shop_as_a_setting_is_reconnected_and_refreshed(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox
) -> None:
    connect(ada)
    named = {"base_url": f"{sandbox.url}/shopify/shops/{{shop}}", "shop": "harbor-shop"}
    runtime.state.connections.update_settings(KEY, named)
    httpx.post(f"{sandbox.url}/sandbox/tokens/expire", json={"merchant": "harbor-shop"}).raise_for_status()
    before = runtime.state.secrets.get(KEY, purpose="test")["access_token"]
    assert "It works" in ada.submit(f"/connections/{KEY}/test").text
    assert runtime.state.secrets.get(KEY, purpose="test")["access_token"] != before, "it was refreshed"
    second = connect(ada, "second")
    assert second.status_code == 409
    assert "is connected already, as shopify:harbor-shop" in second.text
    assert connect(ada, again="yes").status_code == 303


def test_disconnecting_uninstalls_the_app(ada: Browser, runtime: Runtime, sandbox: RunningSandbox) -> None:
    connect(ada)
    assert "is told to revoke" in ada.get(f"/connections/{KEY}/disconnect").text
    answer = ada.submit(f"/connections/{KEY}/disconnect")
    assert answer.headers["location"] == f"/connections/{KEY}?said=disconnected"
    merchants = httpx.get(f"{sandbox.url}/sandbox/merchants").json()
    shop = next(one["id"] for one in merchants["merchants"] if one["handle"] == "harbor-shop")
    assert shop not in merchants["authorised"]
