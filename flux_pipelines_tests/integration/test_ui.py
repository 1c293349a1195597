"""What an analyst does in the Dagster UI, in a browser, against the servers as `flux up` starts them."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from flux_pipelines.cli.processes import answers
from flux_pipelines_tests.integration.conftest import Flux, truth
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = shutil.which("chromium")
GROUPS = {
    "square": ("raw_orders", "transactions"),
    "sales": ("transactions", "daily_sales"),
    "demand": ("daily_item_demand", "demand_forecasts", "forecast_accuracy"),
}
AUTOMATIONS = (
    "keep_core_tables_up_to_date",
    "closed_days",
    "requested_syncs",
    "square_changes",
    "square_connections",
    "square_daily",
    "square_watch",
    "square_webhooks",
    "refresh_tokens_hourly",
    "reconcile_daily",
)
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.timeout(600),
]

#: The world has a day more than is asked for: that one may not have ended everywhere yet.
TODAY = datetime.now(UTC).date()
FIRST, LAST = TODAY - timedelta(days=4), TODAY - timedelta(days=2)
CONNECTION = "square:harbor"

MUTATION = '/graphql?query=mutation{wipeAssets(assetPartitionRanges:[{assetKey:{path:["daily_sales"]}}]){__typename}}'
#: What a person can type at a till: each is the name of a line of one order, and what is to be seen of it.
NAMES = {
    f"![a]({MUTATION})": f"![a]({MUTATION})",
    '<img src="https://evil.example/b.png"> ![b][b] [b]: https://evil.example/b': '<img src="https://evil.example/b.png"> '
    "![b][b] [b]: https://evil.example/b",
    "www.evil.example HTTP://evil.example/c c@evil.example": "www.evil.example HTTP://evil.example/c c@evil.example",
    "d \\| ![d](//evil.example/d.png) | `d` &#33;[d](//evil.example) ~~d~~ **d**": "d \\| ![d](//evil.example/d.png) | `d` "
    "&#33;[d](//evil.example) ~~d~~ **d**",
    "e\u202e gnp.exe\n| e |\n\n# e": "e gnp.exe | e | # e",
}


@contextmanager
def up(flux: Flux) -> Iterator[str]:
    """Run `flux up` on a free port; yield the UI's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = flux.home.parent / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            flux.command("up", "--port", str(port)), env=flux.environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 150
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def browsing(failure: Path) -> Iterator[Page]:
    """Open a page in chromium; if what is done with it fails, leave a picture of it."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS))
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        try:
            yield page
        except BaseException:
            page.screenshot(path=failure)
            raise
        finally:
            browser.close()


def test_an_analyst_backfills_days_in_the_ui_and_finds_figures_plots_and_running_automation(tmp_path: Path) -> None:
    flux = Flux(tmp_path / "home", FLUX_START_DATE=str(FIRST))
    options = SandboxOptions(history_days=5, end_day=TODAY - timedelta(days=1))
    with RunningSandbox(options) as sandbox:
        flux("connections", "add", CONNECTION, "--tenant", "harbor", "--sandbox", sandbox.url)
        orders = orders_by_day(sandbox)
        sells_what_is_named_to_do_harm(sandbox)
        orders[str(LAST)] += 1
        with up(flux) as url, browsing(tmp_path / "failure.png") as page:
            sees_every_asset(page, url)
            backfill = materialises_up_to_daily_sales(page, url)
            sees_it_succeed(page, url, backfill)
            sees_verified_orders(page, url)
            sees_sales_and_their_plot(page, url, orders[str(LAST)])
            sees_the_names_and_nothing_else(page, url)
            sees_automation_running(page, url)
    rows = flux.ask(
        f"select business_date, sum(orders)::integer as orders from daily_sales where business_date <= date '{LAST}' "
        "group by 1"
    )
    assert {row["business_date"][:10]: row["orders"] for row in rows} == orders


def orders_by_day(sandbox: RunningSandbox) -> dict[str, int]:
    """Return how many orders the sandbox says there were on the days that will be asked for."""
    orders: dict[str, int] = {}
    for day in truth(sandbox, "harbor", FIRST, LAST)["days"]:
        orders[day["business_date"]] = orders.get(day["business_date"], 0) + day["orders"]
    assert len(orders) == 3
    assert min(orders.values()) > 0
    return orders


def sells_what_is_named_to_do_harm(sandbox: RunningSandbox) -> None:
    """Let an order be paid whose lines have names that are pictures, links and HTML; it is the first of its date."""
    (store, *_) = next(
        one["locations"]
        for one in httpx.get(f"{sandbox.url}/sandbox/merchants", timeout=60).json()["merchants"]
        if one["handle"] == "harbor" and one["provider"] == "square"
    )
    at, one, all_of_them = f"{LAST}T18:00:00Z", {"amount": 100, "currency": "USD"}, {"amount": 500, "currency": "USD"}
    order = {
        "id": "0",
        "location_id": store["id"],
        "state": "COMPLETED",
        "created_at": at,
        "updated_at": at,
        "closed_at": at,
        "line_items": [
            {"uid": str(n), "name": name, "quantity": "1", "base_price_money": one, "total_money": one}
            for n, name in enumerate(NAMES)
        ],
        "total_money": all_of_them,
        "net_amount_due_money": {"amount": 0, "currency": "USD"},
        "tenders": [{"id": "0p", "type": "CARD", "created_at": at, "amount_money": all_of_them}],
    }
    posted = {"location_id": store["id"], "kind": "orders", "document": order}
    assert httpx.post(f"{sandbox.url}/sandbox/documents", json=posted, timeout=60).status_code == 200


def sees_every_asset(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/asset-groups")
    for group in GROUPS:
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    graph = page.locator("svg foreignObject")
    for group, assets in GROUPS.items():  # the graph of all of them draws only what is in view
        page.goto(f"{url}/locations/__repository__@flux_pipelines/asset-groups/{group}/lineage")
        for asset in assets:
            expect(graph.get_by_text(asset, exact=True).first).to_be_visible()
    page.goto(f"{url}/asset-groups")


def materialises_up_to_daily_sales(page: Page, url: str) -> str:
    """Choose days of one connection in the dialog; return the backfill's id."""
    from playwright.sync_api import expect

    page.locator(".CodeMirror").first.click()
    page.keyboard.type('key:"square/raw_orders"+ and +key:"daily_sales"')
    page.keyboard.press("Enter")
    expect(page.locator("svg foreignObject").get_by_text("daily_item_demand", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Materialize all").first.click()
    # Dagster says that Toast's and Shopify's transactions, which the core table is made of too, are not there: nobody
    # has connected any.
    page.get_by_role("button", name="Confirm").click()
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize 4 assets")
    dialog.wait_for()
    menu = page.locator("label").filter(has_text=CONNECTION)
    menu_closed = dialog.get_by_text("Select a partition or create one")
    # The dialog settles while partitions load, and a click before that closes the menu again.
    for _ in range(10):
        menu_closed.click()
        page.wait_for_timeout(1_000)
        if menu.count():
            break
    menu.first.click()
    page.keyboard.press("Escape")
    days = dialog.get_by_placeholder(re.compile("^ex: "))
    days.fill(f"[{FIRST}...{LAST}]")
    days.press("Enter")
    dialog.get_by_role("button", name="Launch backfill").click()
    created = page.get_by_text(re.compile("Created backfill"))
    created.wait_for()
    found = re.search(r"Created backfill\s+(\w+)", created.first.inner_text())
    assert found, created.first.inner_text()
    return found[1]


def sees_it_succeed(page: Page, url: str, backfill: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/runs/b/{backfill}?tab=overview")
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2, timeout=300_000)  # the status, and a column
    expect(page.get_by_text("100% completed")).to_have_count(4)


def open_partition(page: Page, url: str, asset: str, partition: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/assets/{asset}?view=partitions&partition={partition.replace('|', '%7C')}")
    expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
    expect(metadata(page, "rows")).to_be_visible()


def metadata(page: Page, name: str) -> Locator:
    """Return the cell beside a metadata entry's name."""
    return page.locator("tr").filter(has=page.get_by_text(name, exact=True)).locator("td").nth(1)


def sees_verified_orders(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    open_partition(page, url, "square/raw_orders", f"{CONNECTION}|{LAST}")
    expect(metadata(page, "verification")).to_have_text("verified")
    assert int(metadata(page, "orders").inner_text()) > 0


def sees_sales_and_their_plot(page: Page, url: str, orders: int) -> None:
    from playwright.sync_api import expect

    open_partition(page, url, "daily_sales", str(LAST))
    expect(metadata(page, "orders")).to_have_text(str(orders))
    metadata(page, "plot USD").get_by_text("Show Markdown").click()
    picture = page.get_by_role("dialog").get_by_role("img", name="Net sales in USD")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0"), "the plot is no picture"


def sees_the_names_and_nothing_else(page: Page, url: str) -> None:
    """The preview of names that are made to do harm shows them; the browser asks for nothing because of it."""
    from playwright.sync_api import expect

    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    open_partition(page, url, "transactions", str(LAST))
    shown = metadata(page, "preview").locator(".dagster-markdown")  # a short one is shown unasked
    expect(shown.locator("tbody tr")).to_have_count(len(NAMES))
    # The word joiners that keep an address from being a link take no room.
    cells = [text.replace("\u2060", "") for text in shown.locator("tbody tr td:nth-child(5)").all_inner_texts()]
    assert [" ".join(cell.split()) for cell in cells] == [" ".join(name.split()) for name in NAMES.values()]
    assert shown.locator("img, a, em, strong, del, code, h1, svg, iframe").count() == 0
    page.wait_for_timeout(1_000)
    assert asked, "the page itself"
    assert [one for one in asked if "evil.example" in one or one.startswith(f"GET {url}/graphql")] == []


def sees_automation_running(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/automation")
    for name in AUTOMATIONS:
        row = page.locator("[class*=ListItem_listItem__]").filter(has=page.get_by_text(name, exact=True))
        expect(row.locator("label[class*=formatSwitch] input"), f"{name} is not running").to_be_checked()
