"""Shopify's OAuth: its published vectors, what is sent and what is refused; and the whole of it against the sandbox."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import time_machine

from flux_pipelines.domain.errors import BadResponseError, ConfigurationError, ReauthorizationNeededError
from flux_pipelines.providers.shopify.oauth import is_signed
from flux_pipelines_tests.providers.shopify.wire import SECRET, oauth, shopify
from flux_pipelines_tests.transport.server import Reply, Seen, serve
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

AT = 1337178173
# Both of shopify_python_api@307fa92 test/session_test.py, secret `hush`.
CALLBACK = {
    "code": "a94a110d86d2452eb3e2af4cfb8a3828",
    "shop": "some-shop.myshopify.com",
    "timestamp": str(AT),
    "hmac": "2cb1a277650a659f1b11e92a4a64275b128e037f2c3390e3c8fd2d8721dac9e2",
}
WITH_A_LIST = {
    "ids": '["2", "1"]',
    "shop": "some-shop.myshopify.com",
    "hmac": "b93b9f82996f6f8bf9f1b7bbddec284c8fabacdc4e12dc80550b4705f3003b1e",
}


def test_the_published_signatures_fit_and_others_do_not() -> None:
    assert is_signed(CALLBACK, "hush")
    assert is_signed(WITH_A_LIST, "hush")
    for query, secret in (
        (CALLBACK, "husk"),
        (CALLBACK, ""),
        ({**CALLBACK, "shop": "other.myshopify.com"}, "hush"),
        ({**CALLBACK, "hmac": ""}, "hush"),
        ({**CALLBACK, "hmac": "é" * 64}, "hush"),
        ({**CALLBACK, "more": "1"}, "hush"),
    ):
        assert not is_signed(query, secret)


def test_a_callback_is_of_now_and_of_the_shop_that_was_asked(tmp_path: Path) -> None:
    with oauth("https://some-shop.myshopify.com", tmp_path, client_secret="hush") as client:
        with time_machine.travel(AT + 30, tick=False):
            client.verify_callback(CALLBACK)
            with pytest.raises(ConfigurationError, match="not signed"):
                client.verify_callback({**CALLBACK, "code": "other"})
        for seconds in (AT + 3600, AT - 3600):
            with time_machine.travel(seconds, tick=False), pytest.raises(ConfigurationError, match="3600 seconds"):
                client.verify_callback(CALLBACK)
        with pytest.raises(ConfigurationError, match="no timestamp"):
            client.verify_callback(WITH_A_LIST)
    with (
        oauth("https://another.myshopify.com", tmp_path, client_secret="hush") as client,
        time_machine.travel(AT, tick=False),
        pytest.raises(ConfigurationError, match="another shop"),
    ):
        client.verify_callback(CALLBACK)
    with pytest.raises(ConfigurationError, match="shop"), oauth("https://{shop}.myshopify.com", tmp_path):
        pass


def test_what_is_sent_and_what_comes_back(examples: Path, tmp_path: Path) -> None:
    refreshed = (examples / "oauth_refresh_response.json").read_bytes()

    def script(seen: Seen) -> Reply:
        if seen.path.endswith("graphql.json"):
            return Reply(200, b'{"data":{"shop":{"myshopifyDomain":"acme.myshopify.com"}}}')
        body = json.loads(seen.body)
        if body.get("code") == "wrong" or body.get("refresh_token") == "old":
            return Reply(400, b'{"error":"invalid_request","error_description":"The authorization code was not found"}')
        return Reply(200, refreshed)

    with serve(script) as server, oauth(server.url, tmp_path) as client:
        url = urlsplit(client.authorize_url("https://flux.test/back", "state-1"))
        began = datetime.now(UTC)
        first = client.exchange({"code": "code-1"}, "https://flux.test/back")
        again = client.refresh("refresh-1")
        for wrong in (lambda: client.exchange({"code": "wrong"}, ""), lambda: client.refresh("old")):
            with pytest.raises(ReauthorizationNeededError, match="invalid_request"):
                wrong()
    assert url.path == "/admin/oauth/authorize"
    assert parse_qs(url.query)["scope"] == [
        "read_orders,read_all_orders,read_products,read_inventory,read_locations,read_reports"
    ]
    assert parse_qs(url.query)["state"] == ["state-1"]
    sent = [json.loads(seen.body) for seen in server.seen if seen.path == "/admin/oauth/access_token"]
    app = {"client_id": "app", "client_secret": SECRET}
    assert sent[0] == {**app, "code": "code-1", "expiring": "1"}
    assert sent[1] == {**app, "grant_type": "refresh_token", "refresh_token": "refresh-1"}
    assert (first.access_token, first.refresh_token, first.account_id) == (
        "new_access_token",
        "new_refresh_token",
        "acme.myshopify.com",
    )
    assert again.refresh_token == "new_refresh_token"
    for at, seconds in ((first.expires_at, 525600), (first.refresh_expires_at, 2592000)):
        assert at is not None
        assert timedelta(0) <= at - began - timedelta(seconds=seconds) < timedelta(seconds=10)
    assert "new_access_token" not in repr(first)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":{"appUninstall":{"app":null,"userErrors":[{"message":"not installed"}]}}}',
        b'{"errors":[{"message":"no"}]}',
        b'{"data":null}',
    ],
)
def test_an_app_that_is_not_uninstalled_is_said(body: bytes, tmp_path: Path) -> None:
    with (
        serve(lambda _: Reply(200, body)) as server,
        oauth(server.url, tmp_path) as client,
        pytest.raises(BadResponseError, match="Shopify did not"),
    ):
        client.revoke("shpat_token")


def test_the_whole_of_it_against_the_sandbox(tmp_path: Path) -> None:
    with RunningSandbox(SandboxOptions(history_days=2, rate_limit=100_000)) as sandbox:
        app = httpx.get(f"{sandbox.url}/sandbox/app").json()["apps"]["shopify"]["secrets"]
        url = f"{sandbox.url}/shopify/shops/harbor-shop"
        with oauth(url, tmp_path, app["client_id"], app["client_secret"]) as client:
            consent = client.authorize_url("http://127.0.0.1/back", "state-1") + "&merchant=harbor-shop"
            location = httpx.get(consent).headers["location"]
            query: dict[str, Any] = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
            assert query["state"] == "state-1"
            client.verify_callback(query)
            with pytest.raises(ConfigurationError, match="not signed"):
                client.verify_callback({**query, "shop": "fjord-shop.myshopify.com"})
            tokens = client.exchange({"code": query["code"]}, "http://127.0.0.1/back")
            assert tokens.account_id == query["shop"] == "harbor-shop.myshopify.com"
            with pytest.raises(ReauthorizationNeededError):
                client.exchange({"code": query["code"]}, "http://127.0.0.1/back")
            assert tokens.refresh_token is not None
            fresh = client.refresh(tokens.refresh_token)
            assert fresh.refresh_token not in (None, tokens.refresh_token)
            with shopify(url, tmp_path / "client", fresh.access_token) as source:
                assert source.verify_access() == tokens.account_id
            client.revoke(fresh.access_token)
        with shopify(url, tmp_path / "client", fresh.access_token) as source, pytest.raises(ReauthorizationNeededError):
            source.verify_access()
