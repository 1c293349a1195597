"""What a person does who has never seen Flux, in a real browser with JavaScript off, from signing in to seeing sales."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.views import STATIC
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.consent import KEY
from flux_pipelines_tests.gateway.lakefill import land
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
END_DAY = datetime.now(UTC).date() - timedelta(days=2)
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=4, end_day=END_DAY, rate_limit=1_000_000)) as running:
        yield running


@pytest.fixture
def page(runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox, tmp_path: Path) -> Iterator[Page]:
    """A page of a browser that has never been here; every app of the sandbox is registered."""
    from playwright.sync_api import expect, sync_playwright

    for name, app in httpx.get(f"{sandbox.url}/sandbox/app", timeout=30).json()["apps"].items():
        runtime.state.apps.put(name, app["settings"], app["secrets"])
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
        opened = context.new_page()
        opened.set_default_timeout(20_000)
        complaints: list[str] = []
        opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)

        def complain(request: Any) -> None:
            if request.failure != "net::ERR_ABORTED":  # a picture that the next page has cut off
                complaints.append(f"{request.url}: {request.failure}")

        opened.on("requestfailed", complain)
        try:
            yield opened
        except BaseException:
            opened.screenshot(path=tmp_path / "failure.png")
            raise
        finally:
            browser.close()
    # Chromium reports the statuses of pages that say no as errors of the console; nothing else may be wrong.
    assert [text for text in complaints if not re.search("status of (403|409|422)", text)] == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_from_nothing_to_sales(page: Page, runtime: Runtime, gateway: RunningGateway) -> None:
    signs_in(page, gateway.url)
    denies_and_sees_why(page)
    assert runtime.state.connections.list() == []
    connects(page)
    sees_locations(page)
    starts_the_first_backfill(page)
    (request,) = runtime.state.sync_requests.open()
    assert (request.connection_key, request.asked_by) == (KEY, "ada@example.com")
    # What Dagster does with the request, its own tests show: here its result lies in the lake.
    runtime.state.sync_requests.start(request.id, "run")
    land(runtime, KEY, [END_DAY - timedelta(days=1), END_DAY])
    sees_progress(page, gateway.url)
    runtime.state.sync_requests.finish(request.id, ok=True)
    sees_sales(page, gateway.url)
    pauses_and_resumes(page)
    disconnects(page)
    assert runtime.state.connections.get(KEY).status == "disconnected"
    signs_out(page)
    runtime.state.connections.remove(KEY)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_shop_and_restaurants_are_connected_in_their_own_ways(
    page: Page, runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox
) -> None:
    signs_in(page, gateway.url)
    connects_a_shop(page)
    connects_restaurants(page, gateway.url, sandbox)
    sees_both(page, gateway.url)
    connections = {one.key: one for one in runtime.state.connections.list()}
    assert {"shopify:harbor-shop", "toast:kitchen"} <= connections.keys()
    for key in ("shopify:harbor-shop", "toast:kitchen"):
        assert connections[key].status == "active"
        runtime.state.connections.remove(key)


def connects_a_shop(page: Page) -> None:
    from playwright.sync_api import expect

    page.get_by_role("link", name="Connect an account").click()
    page.get_by_role("link", name="Connect Shopify").click()
    page.get_by_label("Name of the connection").fill("harbor-shop")
    page.get_by_label("Company").fill("Harbor Group")
    page.get_by_label("Shop").fill("harbor shop")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("needs to be corrected")
    fits(page)
    page.get_by_label("Shop").fill("harbor-shop")
    page.get_by_role("button", name="Continue").click()
    fits(page)
    page.get_by_role("link", name="Continue to Shopify").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="shopify:harbor-shop is not connected")).to_be_visible()
    fits(page)
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("link", name="Continue to Shopify").click()
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("The account is connected")
    expect(
        page.get_by_role("region", name="Locations").get_by_role("row").filter(has_text="America/New_York")
    ).to_have_count(2)
    assert "hmac=" not in page.url
    fits(page)


def connects_restaurants(page: Page, url: str, sandbox: RunningSandbox) -> None:
    from playwright.sync_api import expect

    query = {"provider": "toast", "merchant": "harbor-kitchen"}
    secrets = httpx.get(f"{sandbox.url}/sandbox/credentials", params=query, timeout=30).json()["secrets"]
    page.goto(f"{url}/integrations")
    page.get_by_role("link", name="Connect Toast").click()
    fits(page)
    page.get_by_label("Name of the connection").fill("kitchen")
    page.get_by_label("Company").fill("Harbor Group")
    for secret in ("not this one", secrets["client_secret"]):
        page.get_by_label("Client id").fill(secrets["client_id"])
        page.get_by_label("Client secret").fill(secret)
        page.get_by_role("button", name="Connect").click()
        if secret == "not this one":
            expect(page.get_by_role("alert")).to_contain_text("Toast does not accept the client id and secret")
            assert page.get_by_label("Client secret").input_value() == ""
            fits(page)
    expect(page.get_by_role("status")).to_contain_text("The account is connected")
    expect(page.get_by_text("Flux signs in again by itself")).to_be_visible()
    fits(page)


def sees_both(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/connections")
    for name, title in (("harbor-shop", "Shopify"), ("kitchen", "Toast")):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        expect(row).to_contain_text(title)
        expect(row).to_contain_text("renewed by itself")
    fits(page)
    page.get_by_role("button", name="Reconnect kitchen").click()
    expect(page.get_by_role("heading", name="Reconnect kitchen")).to_be_visible()
    fits(page)
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("heading", name="kitchen")).to_be_visible()


def signs_in(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    fits(page)
    page.get_by_role("link", name="Sign in with Google").click()
    page.get_by_role("button", name=re.compile("ada@example.com")).click()
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()
    expect(page.get_by_text("Nothing is connected yet")).to_be_visible()
    fits(page)


def fills_in_the_form(page: Page) -> None:
    page.get_by_label("Name of the connection").fill("harbor")
    page.get_by_label("Company").fill("Harbor Group")
    fits(page)
    page.get_by_role("button", name="Continue").click()
    fits(page)
    page.get_by_role("link", name="Continue to Square").click()


def denies_and_sees_why(page: Page) -> None:
    from playwright.sync_api import expect

    page.get_by_role("link", name="Connect an account").click()
    fits(page)
    page.get_by_role("link", name="Connect Square").click()
    fills_in_the_form(page)
    page.get_by_role("radio", name=re.compile("Harbor Coffee")).check()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="square:harbor is not connected")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("the permission was not given")
    expect(page.get_by_text("access_denied: user_denied")).to_be_visible()
    fits(page)


def connects(page: Page) -> None:
    from playwright.sync_api import expect

    page.get_by_role("button", name="Try again").click()
    page.get_by_role("link", name="Continue to Square").click()
    page.get_by_role("radio", name=re.compile("Harbor Coffee")).check()
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("The account is connected")
    assert "code=" not in page.url
    assert "state=" not in page.url


def sees_locations(page: Page) -> None:
    from playwright.sync_api import expect

    locations = page.get_by_role("region", name="Locations").get_by_role("row")
    expect(locations).to_have_count(13)  # twelve and the heading
    expect(locations.filter(has_text="Wicker Park Late Bar")).to_contain_text("America/Chicago")
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    fits(page)


def starts_the_first_backfill(page: Page) -> None:
    from playwright.sync_api import expect

    first, last = page.get_by_label("First day"), page.get_by_label("Last day")
    assert first.input_value() < last.input_value() < datetime.now(UTC).date().isoformat(), "sensible days stand there"
    first.fill((END_DAY - timedelta(days=1)).isoformat())
    last.fill(END_DAY.isoformat())
    page.get_by_role("button", name="Start the first backfill").click()
    expect(page.get_by_text("Waiting to begin.")).to_be_visible()


def sees_progress(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/connections/{KEY}")
    expect(page.get_by_label("2 of 2 business dates in the lake")).to_be_visible()
    expect(page.get_by_text("Fetching.")).to_be_visible()
    fits(page)


def sees_sales(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(url)
    row = page.get_by_role("row").filter(has_text="harbor")
    expect(row).to_contain_text("Healthy")
    expect(row).to_contain_text("just now")
    fits(page)
    row.get_by_role("link", name="harbor").click()
    sales = page.get_by_role("region", name="Recent sales")
    expect(sales.get_by_role("row").filter(has_text=f"{END_DAY:%a} {END_DAY.day} {END_DAY:%b %Y}")).to_contain_text(
        "USD"
    )
    expect(page.get_by_role("heading", name="harbor")).to_contain_text("Healthy")
    fits(page)


def pauses_and_resumes(page: Page) -> None:
    from playwright.sync_api import expect

    page.get_by_role("button", name="Test").click()
    expect(page.get_by_role("status")).to_contain_text("12 locations")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_contain_text("Resumed")


def disconnects(page: Page) -> None:
    from playwright.sync_api import expect

    page.get_by_role("link", name="Disconnect").click()
    expect(page.get_by_text("What was fetched stays")).to_be_visible()
    fits(page)
    page.get_by_role("button", name="Disconnect harbor").click()
    expect(page.get_by_role("status")).to_contain_text("The authorisation was revoked")
    expect(page.get_by_role("region", name="Recent sales").get_by_text("USD").first).to_be_visible()


def signs_out(page: Page) -> None:
    from playwright.sync_api import expect

    page.get_by_role("link", name="API tokens").click()
    fits(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()  # the page was not kept


def fits(page: Page) -> None:
    """Nothing is wider than a narrow screen, every field has its label, every page one heading of the first rank."""
    # A click that leads to another page returns when that is on its way; until it has come there is nothing to measure.
    page.wait_for_function("document.documentElement !== null && document.readyState === 'complete'")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{page.url} at {width}"
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    unlabelled = (
        "[...document.querySelectorAll('input:not([type=hidden]), select')].filter(i => !i.labels.length).length"
    )
    assert page.evaluate(unlabelled) == 0, page.url
    assert page.evaluate("document.querySelectorAll('h1').length") == 1, page.url
    assert page.evaluate("document.documentElement.lang") == "en"


# --- colours ---


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("ink", "grounds"),
    [
        ("ink", ("ground", "paper", "good-ground", "warn-ground", "bad-ground", "quiet-ground")),
        ("soft", ("ground", "paper", "good-ground", "warn-ground", "bad-ground")),
        ("accent", ("ground", "paper", "good-ground", "warn-ground", "bad-ground")),
        ("good", ("good-ground",)),
        ("warn", ("warn-ground",)),
        ("bad", ("bad-ground", "paper", "ground")),
        ("paper", ("accent", "bad")),
    ],
)
def test_text_stands_out_from_its_ground(ink: str, grounds: tuple[str, ...]) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", (STATIC / "flux.css").read_text()))
    for ground in grounds:
        light, dark = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}"
