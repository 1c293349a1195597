"""Installing the app, tokens that expire and are replaced, and the end of an installation."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from flux_pipelines_tests.providers.shopify.sandboxwire import Clock, Shopify, sandbox_of
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET
from flux_sandbox.server import RunningSandbox

CALLBACK = "http://127.0.0.1:1/callback?from=flux"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with sandbox_of(Clock(), token_lifetime=3600) as running:
        yield running


@pytest.fixture
def moved(sandbox: RunningSandbox, clock: Clock) -> Clock:
    """The module's sandbox with a clock of this test's own."""
    sandbox.world.clock = clock
    return clock


def ask(sandbox: RunningSandbox, shop: str = "/shops/harbor-shop", **query: str) -> httpx.Response:
    base = {"client_id": CLIENT_ID, "scope": "read_orders,read_products", "redirect_uri": CALLBACK, "state": "s1"}
    return httpx.get(f"{sandbox.url}/shopify{shop}/admin/oauth/authorize", params={**base, **query})


def token(sandbox: RunningSandbox, shop: str = "/shops/harbor-shop", **body: str) -> httpx.Response:
    whole = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **body}
    return httpx.post(f"{sandbox.url}/shopify{shop}/admin/oauth/access_token", json=whole)


def granted(sandbox: RunningSandbox, **query: str) -> dict[str, str]:
    answer = ask(sandbox, merchant="harbor-shop", **query)
    assert answer.status_code == 302, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def works(sandbox: RunningSandbox, access: str) -> bool:
    answer = httpx.post(
        f"{sandbox.url}/shopify/admin/api/2026-10/graphql.json",
        json={"query": "{ shop { id } }"},
        headers={"X-Shopify-Access-Token": access},
    )
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_the_callback_is_signed_and_the_code_works_once(sandbox: RunningSandbox, moved: Clock) -> None:
    page = ask(sandbox)
    assert page.status_code == 200
    assert "Harbor Coffee Shop" in page.text
    assert "Fjord" not in page.text  # the address names the shop
    assert "Fjord" in ask(sandbox, "").text
    back = granted(sandbox)
    assert (back["state"], back["shop"], back["from"]) == ("s1", "harbor-shop.myshopify.com", "flux")
    assert int(back["timestamp"]) == int(moved.now.timestamp())
    signed = {name: value for name, value in back.items() if name not in ("hmac", "from")}
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    assert hmac.new(CLIENT_SECRET.encode(), text.encode(), hashlib.sha256).hexdigest() == back["hmac"]
    wrong = token(sandbox, "/shops/fjord-shop", code=back["code"], expiring="1")
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_request")
    answer = token(sandbox, code=back["code"], expiring="1").json()
    assert answer["scope"] == "read_orders,read_products"
    assert (answer["expires_in"], answer["refresh_token_expires_in"]) == (3600, 7776000)
    assert works(sandbox, answer["access_token"])
    assert token(sandbox, code=back["code"], expiring="1").status_code == 400
    late = granted(sandbox)["code"]
    moved.forward(seconds=301)
    assert token(sandbox, code=late).status_code == 400
    assert "error=access_denied" in ask(sandbox, deny="1").headers["location"]


def test_what_is_no_request_is_refused(sandbox: RunningSandbox, moved: Clock) -> None:
    for change in ({"client_id": "x"}, {"scope": "read_minds"}, {"scope": ""}, {"redirect_uri": "ftp://x"}):
        assert ask(sandbox, merchant="harbor-shop", **change).status_code == 400
    assert token(sandbox, code="nonsense").status_code == 400
    assert token(sandbox, code="x", client_secret="wrong").status_code == 401
    assert token(sandbox, code="x", client_id="wrong").json()["error"] == "application_cannot_be_found"


def test_a_replaced_refresh_token_works_until_its_replacement_was_used(sandbox: RunningSandbox, moved: Clock) -> None:
    first = token(sandbox, code=granted(sandbox)["code"], expiring="1").json()
    moved.forward(seconds=3599)
    assert works(sandbox, first["access_token"])
    moved.forward(seconds=2)
    assert not works(sandbox, first["access_token"])

    def refresh(text: str) -> httpx.Response:
        return token(sandbox, grant_type="refresh_token", refresh_token=text)

    second = refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    # The answer might have been lost: the old one works again.
    again = refresh(first["refresh_token"])
    assert again.status_code == 200
    third = refresh(again.json()["refresh_token"]).json()
    refused = refresh(first["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert works(sandbox, third["access_token"])
    moved.forward(days=91)
    assert refresh(third["refresh_token"]).status_code == 400


def test_uninstalling_ends_every_token(sandbox: RunningSandbox, moved: Clock) -> None:
    tokens = token(sandbox, code=granted(sandbox)["code"], expiring="1").json()
    shopify = Shopify(sandbox)
    assert shopify.ask("mutation { appUninstall { app { title } userErrors { message } } }") == {
        "appUninstall": {"app": {"title": "Flux"}, "userErrors": []}
    }
    for access in (tokens["access_token"], shopify.tokens["access_token"]):
        assert not works(sandbox, access)
    assert token(sandbox, grant_type="refresh_token", refresh_token=tokens["refresh_token"]).status_code == 400
    assert shopify.merchant.id not in httpx.get(f"{sandbox.url}/sandbox/merchants").json()["authorised"]
