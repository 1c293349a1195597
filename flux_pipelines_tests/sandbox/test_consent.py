"""The pages on which a person answers: what they show, and, in a browser, where the buttons lead."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from flux_pipelines_tests.sandbox.conftest import Square
from flux_sandbox.server import RunningSandbox

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Start = Callable[..., RunningSandbox]
CHROMIUM = shutil.which("chromium")
STATE = "\"><script>alert(1)</script>&x='y"


def square_url(sandbox: RunningSandbox, redirect_uri: str, **query: str) -> str:
    app = httpx.get(f"{sandbox.url}/sandbox/app").json()
    asked = {
        "client_id": app["client_id"],
        "scope": "MERCHANT_PROFILE_READ ORDERS_READ PAYMENTS_READ",
        "state": STATE,
        "redirect_uri": redirect_uri,
        **query,
    }
    return f"{sandbox.url}/oauth2/authorize?{urlencode(asked)}"


def google_url(sandbox: RunningSandbox, redirect_uri: str) -> str:
    google = httpx.get(f"{sandbox.url}/sandbox/app").json()["apps"]["google"]
    asked = {
        "client_id": google["secrets"]["client_id"],
        "response_type": "code",
        "scope": "openid email",
        "state": STATE,
        "redirect_uri": redirect_uri,
    }
    return f"{google['settings']['issuer']}/o/oauth2/v2/auth?{urlencode(asked)}"


def test_the_page_says_who_asks_for_what_and_escapes_what_it_repeats(start: Start) -> None:
    sandbox = start()
    Square(sandbox, "harbor")
    page = httpx.get(square_url(sandbox, "https://flux.example/back?a=1"))
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    for text in ("Harbor Coffee", "12 locations · USD", "Sakura Teahouse", "See your orders", "flux.example"):
        assert text in page.text
    assert "<script" not in page.text
    # The first that has not authorised yet is chosen.
    chosen = re.findall(r'value="(\w+)" required checked', page.text)
    assert chosen == [sandbox.world.merchant("sakura").id]
    assert page.text.count("authorised before") == 1


@pytest.mark.parametrize("query", [{"client_id": "x"}, {"redirect_uri": "javascript:x"}, {"scope": "ALL"}])
def test_no_page_for_what_cannot_be_asked(start: Start, query: dict[str, str]) -> None:
    assert httpx.get(square_url(start(), **{"redirect_uri": "http://x/", **query})).status_code == 400


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


def answer_of(browser: Browser, url: str, *steps: str) -> dict[str, list[str]]:
    """Open a page without JavaScript, click through it, and return what was sent back to the app."""
    page = browser.new_page(java_script_enabled=False)
    try:
        page.goto(url)
        for step in steps:
            page.locator(step).click()
        page.wait_for_url("**/healthz?**")
        return parse_qs(urlsplit(page.url).query)
    finally:
        page.close()


@pytest.mark.browser
def test_a_person_answers_without_javascript(start: Start, browser: Browser) -> None:
    sandbox = start()
    back_to = f"{sandbox.url}/healthz?keep=1"
    allowed = answer_of(browser, square_url(sandbox, back_to), "text=Fjord Kahvila", "button:has-text('Allow')")
    assert (allowed["keep"], allowed["state"], allowed["response_type"]) == (["1"], [STATE], ["code"])
    app = httpx.get(f"{sandbox.url}/sandbox/app").json()
    body = {"grant_type": "authorization_code", "code": allowed["code"][0], "redirect_uri": back_to}
    keys = {name: app[name] for name in ("client_id", "client_secret")}
    tokens = httpx.post(f"{sandbox.url}/oauth2/token", json={**body, **keys}).json()
    assert tokens["merchant_id"] == sandbox.world.merchant("fjord").id

    denied = answer_of(browser, square_url(sandbox, back_to), "button:has-text('Deny')")
    assert denied == {
        "keep": ["1"],
        "error": ["access_denied"],
        "error_description": ["user_denied"],
        "state": [STATE],
    }
    signed_in = answer_of(browser, google_url(sandbox, back_to), "text=grace@example.com")
    assert (signed_in["state"], signed_in["hd"]) == ([STATE], ["example.com"])
    assert signed_in["code"]
    cancelled = answer_of(browser, google_url(sandbox, back_to), "text=Cancel")
    assert cancelled == {"keep": ["1"], "error": ["access_denied"], "state": [STATE]}
