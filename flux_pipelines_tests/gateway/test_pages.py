"""The pages: what they show, what they never show, and what their buttons do."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import httpx
import pyarrow as pa
import pytest

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.gateway.overview import health_of
from flux_pipelines.gateway.sales import recent_sales
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.views import ago, money
from flux_pipelines.providers.base import Location
from flux_pipelines.runtime import Runtime
from flux_pipelines.state import Alert
from flux_pipelines_tests.gateway.consent import KEY, agree, begin, connect, register
from flux_pipelines_tests.gateway.lakefill import land
from flux_pipelines_tests.gateway.people import Browser
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth

END_DAY = datetime.now(UTC).date() - timedelta(days=2)
DAYS = [END_DAY - timedelta(days=1), END_DAY]
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=4, end_day=END_DAY, rate_limit=1_000_000)) as running:
        yield running


@pytest.fixture(autouse=True)
def square(runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox) -> Iterator[None]:
    register(runtime, gateway, sandbox)
    yield
    for connection in runtime.state.connections.list():
        runtime.state.connections.remove(connection.key)
    for alert in runtime.state.alerts.open():
        runtime.state.alerts.resolve(alert.kind, alert.connection_key)


@pytest.fixture
def harbor(ada: Browser, runtime: Runtime) -> str:
    assert connect(ada).status_code == 303
    return KEY


# --- who may see them ---


@pytest.mark.parametrize(
    "path",
    ["/", "/connections", f"/connections/{KEY}", f"/connections/{KEY}/disconnect", "/tokens", "/integrations",
     "/integrations/square/connect"],
)  # fmt: skip
def test_a_page_leads_a_stranger_to_sign_in(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    while answer.is_redirect and not answer.headers["location"].startswith("/sign-in"):
        answer = browser.get(answer.headers["location"])
    assert answer.status_code == 303
    assert "harbor" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["test", "pause", "resume", "sync", "disconnect"],
)
def test_a_button_needs_the_forms_own_proof(ada: Browser, harbor: str, runtime: Runtime, path: str) -> None:
    before = runtime.state.connections.get(harbor)
    assert ada.submit(f"/connections/{harbor}/{path}", {"csrf": "0" * 64}).status_code == 403
    assert ada.submit(f"/connections/{harbor}/{path}", origin="https://evil.example").status_code == 403
    assert ada.get(f"/connections/{harbor}/{path}").status_code in (404, 405) or path == "disconnect"
    assert runtime.state.connections.get(harbor) == before


@pytest.mark.parametrize("key", ["square:nobody", "nonsense", "square:UPPER", "..%2f..%2fetc"])
def test_what_does_not_exist_is_not_found(ada: Browser, key: str) -> None:
    assert ada.get(f"/connections/{key}").status_code == 404
    assert ada.submit(f"/connections/{key}/test").status_code == 404
    assert ada.submit(f"/connections/{key}/disconnect").status_code == 404


# --- what they never show ---


def test_names_that_hold_markup_are_shown_as_text(ada: Browser, runtime: Runtime) -> None:
    runtime.state.connections.add(
        Connection("square:hostile", HOSTILE, account_id=HOSTILE, status="needs_reauth", status_reason=HOSTILE)
    )
    places = [Location(HOSTILE, HOSTILE, "Europe/Oslo", "NOK")]
    runtime.state.locations.replace("square:hostile", places)
    runtime.state.alerts.raise_("needs_reauth", "square:hostile", HOSTILE)
    request = runtime.state.sync_requests.add("square:hostile", date(2026, 1, 1), date(2026, 1, 2), HOSTILE, HOSTILE)
    runtime.state.sync_requests.finish(request, ok=False, detail=HOSTILE)
    runtime.state.api_tokens.create(HOSTILE, HOSTILE)
    refused = ada.submit("/integrations/square/connect", {"name": HOSTILE, "tenant": HOSTILE, "cutoff_hour": HOSTILE})
    pages = [refused, *(ada.get(p) for p in ("/connections", "/connections/square:hostile", "/tokens"))]
    pages += [ada.get("/connections/square:hostile/disconnect"), ada.get("/integrations/square/connect")]
    for page in pages:
        assert "<img src=x" not in page.text, page.url
        assert "49" not in page.text.partition("{{7*7}}")[0][-10:], "a template never runs what it shows"
    assert all("&lt;img src=x onerror=alert(1)&gt;" in page.text for page in pages[:4])


def test_no_page_no_log_and_no_address_holds_a_secret(
    ada: Browser, runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    client_secret = register(runtime, gateway, sandbox)
    with caplog.at_level(logging.INFO):
        back = agree(begin(ada))
        answers = [ada.get(back)]
        stored = runtime.state.secrets.get(KEY, purpose="test")
        answers += [ada.get(path) for path in ("/connections", f"/connections/{KEY}", "/tokens")]
        answers += [ada.get(f"/connections/{KEY}/disconnect"), ada.submit(f"/connections/{KEY}/test")]
        answers += [ada.submit(f"/connections/{KEY}/pause"), ada.submit(f"/connections/{KEY}/disconnect")]
    secrets = {client_secret, stored["access_token"], stored["refresh_token"], ada.session}
    lines = [record.getMessage() for record in caplog.records if record.name != "httpx"]  # httpx is the browser here
    assert any("connected with 12 locations" in line for line in lines)
    code = httpx.URL(back).params["code"]
    for text in [*(f"{a.text}{a.headers.get('location', '')}" for a in answers), *lines]:
        assert not [secret for secret in {*secrets, code} if secret in text]


def test_pages_load_nothing_from_elsewhere_and_need_no_script(ada: Browser, harbor: str) -> None:
    for path in ("/connections", f"/connections/{harbor}", "/tokens", "/integrations/square/connect"):
        text = ada.get(path).text
        assert "<script" not in text
        assert " style=" not in text
        assert " on" + "click" not in text
        for attribute in ('src="', 'href="/static', '<link rel="stylesheet" href="'):
            for part in text.split(attribute)[1:]:
                assert not part.startswith(("http", "//")), part[:60]


# --- what the buttons do ---


def test_pausing_and_resuming(ada: Browser, harbor: str, runtime: Runtime) -> None:
    assert ada.submit(f"/connections/{harbor}/pause").headers["location"] == f"/connections/{harbor}?said=paused"
    assert runtime.state.connections.get(harbor).status_reason == "paused by ada@example.com"
    page = ada.get(f"/connections/{harbor}?said=paused").text
    assert "Resume" in page
    assert f"/connections/{harbor}/test" not in page
    assert ada.submit(f"/connections/{harbor}/test").status_code == 409
    ada.submit(f"/connections/{harbor}/resume")
    assert runtime.state.connections.get(harbor).status == "active"


def test_a_test_that_fails_says_why(ada: Browser, harbor: str, runtime: Runtime, sandbox: RunningSandbox) -> None:
    httpx.post(f"{sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"}, timeout=30).raise_for_status()
    answer = ada.submit(f"/connections/{harbor}/test")
    assert answer.status_code == 409
    assert "Connection test failed." in answer.text
    assert "Needs reconnecting" in answer.text
    assert runtime.state.connections.get(harbor).status == "needs_reauth"
    assert "Needs reconnecting" in ada.get("/connections").text


def test_the_first_backfill_is_asked_for_once(ada: Browser, harbor: str, runtime: Runtime) -> None:
    page = ada.get(f"/connections/{harbor}").text
    first, last = DAYS[0].isoformat(), DAYS[1].isoformat()
    assert "Start the first backfill" in page
    answer = ada.submit(f"/connections/{harbor}/sync", {"first": first, "last": last})
    assert answer.headers["location"] == f"/connections/{harbor}?said=asked"
    (request,) = runtime.state.sync_requests.open()
    assert (request.first_day, request.last_day, request.asked_by) == (DAYS[0], DAYS[1], "ada@example.com")
    assert request.reason == "first backfill"
    page = ada.get(f"/connections/{harbor}").text
    assert "Waiting to begin." in page
    assert "0 of 2 business dates" in page
    assert "Beside orders: payments and refunds of 0, timecards of 0, sales report of 0." in page
    assert 'http-equiv="refresh"' in page
    assert 'http-equiv="refresh"' not in ada.get(f"/connections/{harbor}?follow=no").text
    assert "Start the first backfill" not in page
    again = ada.submit(f"/connections/{harbor}/sync", {"first": first, "last": first})
    assert again.status_code == 422
    assert len(runtime.state.sync_requests.open()) == 1

    why = "2 business dates were fetched: orders, timecards. Payments and refunds could not all be fetched: a reason."
    runtime.state.sync_requests.finish(request.id, ok=False, detail=why)
    page = ada.get(f"/connections/{harbor}").text
    assert "Not everything could be fetched" in page
    assert why in page
    assert '<progress id="progress" max="8" value="0">' in page, "orders, payments, hours and reports of two dates"
    assert "Of each day come its orders, payments and refunds, timecards, and sales report." in page


@pytest.mark.parametrize(
    ("first", "last", "complaint"),
    [
        ("", "2026-01-31", "Give a date"),
        ("yesterday", "2026-01-31", "Give a date"),
        ("2019-12-31", "2026-01-31", "Give a day from"),
        ("2026-01-31", "2999-01-01", "Give a day from"),
        ("2026-01-31", "2026-01-30", "must not be before the first"),
    ],
)
def test_a_range_that_cannot_be_fetched_says_where(
    ada: Browser, harbor: str, runtime: Runtime, first: str, last: str, complaint: str
) -> None:
    answer = ada.submit(f"/connections/{harbor}/sync", {"first": first, "last": last})
    assert answer.status_code == 422
    assert complaint in answer.text
    assert runtime.state.sync_requests.latest(harbor) is None


def test_a_paused_connection_is_not_backfilled(ada: Browser, harbor: str, runtime: Runtime) -> None:
    ada.submit(f"/connections/{harbor}/pause")
    days = {"first": DAYS[0].isoformat(), "last": DAYS[1].isoformat()}
    assert ada.submit(f"/connections/{harbor}/sync", days).status_code == 422
    assert runtime.state.sync_requests.latest(harbor) is None


def test_an_alert_stands_on_the_page_until_its_cause_is_gone(ada: Browser, harbor: str, runtime: Runtime) -> None:
    runtime.state.alerts.raise_("consent_expiring", harbor, "The permission ends on Sunday.")
    (alert,) = runtime.state.alerts.open()
    for path in ("/connections", f"/connections/{harbor}"):
        assert "The permission ends on Sunday." in ada.get(path).text
    assert ada.submit(f"/alerts/{alert.id}/acknowledge").status_code == 303
    page = ada.get("/connections").text
    assert "The permission ends on Sunday." in page
    assert "acknowledged by ada@example.com" in page
    assert connect(ada, again="yes").status_code == 303
    assert "The permission ends on Sunday." not in ada.get("/connections").text


# --- disconnecting ---


def test_disconnecting_revokes_forgets_and_keeps_the_history(
    ada: Browser, harbor: str, runtime: Runtime, sandbox: RunningSandbox
) -> None:
    land(runtime, harbor, DAYS[1:])
    token = runtime.state.secrets.get(harbor, purpose="test")["access_token"]
    page = ada.get(f"/connections/{harbor}/disconnect").text
    assert "1 business date in the lake" in page
    assert runtime.state.connections.get(harbor).status == "active", "asking is not doing"

    answer = ada.submit(f"/connections/{harbor}/disconnect")

    assert answer.headers["location"] == f"/connections/{harbor}?said=disconnected"
    connection = runtime.state.connections.get(harbor)
    assert (connection.status, connection.status_reason) == ("disconnected", "disconnected by ada@example.com")
    assert runtime.state.secrets.get(harbor, purpose="test") == {}
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{sandbox.url}/v2/locations", headers=headers, timeout=30).status_code == 401
    assert recent_sales(runtime.lake, harbor) is not None
    page = ada.get(f"/connections/{harbor}").text
    assert "Its history is kept." in page
    assert "Recent sales" in page
    assert f"/connections/{harbor}/test" not in page
    assert ada.submit(f"/connections/{harbor}/disconnect").status_code == 409, "once is enough"
    assert connect(ada, again="yes").status_code == 303
    assert runtime.state.connections.get(harbor).status == "active"


def test_a_provider_that_cannot_be_told_leaves_it_connected_unless_a_person_insists(
    ada: Browser, harbor: str, runtime: Runtime
) -> None:
    # The account is where it was connected, wherever the app is registered by now.
    runtime.state.connections.update_settings(harbor, {"base_url": "http://127.0.0.1:9"})
    answer = ada.submit(f"/connections/{harbor}/disconnect")
    assert answer.status_code == 409
    assert "It is not disconnected: nothing has changed." in answer.text
    assert runtime.state.connections.get(harbor).status == "active"
    assert "access_token" in runtime.state.secrets.get(harbor, purpose="test")
    answer = ada.submit(f"/connections/{harbor}/disconnect", {"anyway": "yes"})
    assert answer.headers["location"] == f"/connections/{harbor}?said=forgotten"
    assert runtime.state.secrets.get(harbor, purpose="test") == {}


def test_what_the_provider_has_revoked_already_is_only_forgotten(
    ada: Browser, harbor: str, runtime: Runtime, sandbox: RunningSandbox
) -> None:
    httpx.post(f"{sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"}, timeout=30).raise_for_status()
    ada.submit(f"/connections/{harbor}/test")
    assert runtime.state.connections.get(harbor).status == "needs_reauth"
    ada.submit(f"/connections/{harbor}/disconnect")
    assert runtime.state.connections.get(harbor).status == "disconnected"
    assert [alert for alert in runtime.state.alerts.open() if alert.connection_key == harbor] == []


# --- sales ---


def test_sales_on_the_page_are_the_sandboxs_truth(
    ada: Browser, harbor: str, runtime: Runtime, sandbox: RunningSandbox
) -> None:
    assert recent_sales(runtime.lake, "square:nobody") is None
    land(runtime, harbor, DAYS)
    sales = recent_sales(runtime.lake, harbor)
    assert sales is not None
    told: dict[date, list[Decimal]] = {}
    for row in truth(sandbox.world, merchant="harbor", first=DAYS[0], last=DAYS[1]):
        day = told.setdefault(row.business_date, [Decimal(0), Decimal(0)])
        day[0] += row.orders
        day[1] += Decimal(row.net) / 100
    assert {one.day: [Decimal(one.orders), one.net] for one in sales.days} == told
    assert [one.day for one in sales.days] == DAYS[::-1]
    assert len(sales.orders) == 8
    assert [one.occurred_at for one in sales.orders] == sorted((o.occurred_at for o in sales.orders), reverse=True)
    page = ada.get(f"/connections/{harbor}").text
    assert money(sales.days[0].net, "USD") in page
    assert "Fetch days again" in page
    # The newest business date was over two days ago, but it was fetched just now.
    assert "Healthy" in page


def test_what_is_kept_on_the_order_that_was_sold_is_told(ada: Browser, runtime: Runtime) -> None:
    """Toast and Shopify have no orders of their own for what is given back; a shop may sell in several currencies."""

    def row(order: str, kind: str, total: str, currency: str, line: int) -> dict[str, object]:
        at = datetime.combine(END_DAY, datetime.min.time(), UTC) + timedelta(hours=9, minutes=line)
        return {
            "tenant": "t", "connection": "square:mixed", "source_system": "square", "location_id": "L", "order_id": order,
            "line_id": str(line), "line_type": "item", "kind": kind, "product_name": f"Thing {line}", "currency": currency,
            "business_date": END_DAY, "occurred_at": at, "net": Decimal(total), "total": Decimal(total),
        }  # fmt: skip

    rows = [
        row("whole", "sale", "10", "USD", 1), row("whole", "return", "-10", "USD", 2),
        row("part", "sale", "10", "USD", 3), row("part", "return", "-4", "USD", 4),
        row("plain", "sale", "7", "EUR", 5), row("own", "return", "-3", "EUR", 6), row("void", "void", "0", "EUR", 7),
    ]  # fmt: skip
    runtime.state.connections.add(Connection("square:mixed", "t"))
    schema = TRANSACTIONS.arrow_schema()
    filled = [{name: one.get(name, blank(schema.field(name))) for name in schema.names} for one in rows]
    table = pa.Table.from_pylist(filled, schema=schema)
    runtime.lake.replace(TRANSACTIONS, table.to_reader(), [{"connection": "square:mixed", "business_date": END_DAY}])
    sales = recent_sales(runtime.lake, "square:mixed")
    assert sales is not None
    assert [(one.currency, one.orders, one.returns, one.net) for one in sales.days] == [
        ("EUR", 1, 1, Decimal(4)),
        ("USD", 2, 2, Decimal(6)),
    ]
    assert {one.order_id: one.kind for one in sales.orders} == {
        "whole": "Refunded", "part": "Partly refunded", "plain": "Sale", "own": "Return", "void": "Cancelled"
    }  # fmt: skip
    page = ada.get("/connections/square:mixed").text
    for text in ("4.00 EUR", "6.00 USD", "Partly refunded"):
        assert text in page


def blank(field: pa.Field) -> object:
    """What stands in a column that a row says nothing of: nothing, or what a column without nothing can hold."""
    if field.nullable:
        return None
    return (
        ""
        if pa.types.is_string(field.type)
        else 0
        if pa.types.is_integer(field.type)
        else Decimal(0)
        if pa.types.is_decimal(field.type)
        else datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_a_lake_that_cannot_be_read_does_not_take_the_page_away(ada: Browser, harbor: str, runtime: Runtime) -> None:
    land(runtime, harbor, DAYS[1:])
    manifests = list((runtime.settings.home / "lake").glob("raw/square/orders/harbor/*/manifest.json"))
    sound = {path: path.read_bytes() for path in manifests}
    for path in manifests:
        path.write_bytes(b"{")
    try:
        page = ada.get(f"/connections/{harbor}")
        assert page.status_code == 200
        assert "The lake cannot be read now." in page.text
        listed = ada.get("/connections")
        assert listed.status_code == 200
        assert "Not known" in listed.text
        assert "No sales have been fetched yet" not in listed.text, "what cannot be read is not what is not there"
    finally:
        for path, content in sound.items():
            path.write_bytes(content)


def test_one_day_that_cannot_be_read_does_not_hide_the_last_sync(ada: Browser, harbor: str, runtime: Runtime) -> None:
    land(runtime, harbor, DAYS)
    newest = runtime.settings.home / f"lake/raw/square/orders/harbor/{DAYS[-1]}/manifest.json"
    sound = newest.read_bytes()
    newest.write_bytes(sound[:50])
    try:
        for path in ("/connections", f"/connections/{harbor}"):
            page = ada.get(path).text
            assert "cannot be read now" not in page
            assert "No sales have been fetched yet" not in page
    finally:
        newest.write_bytes(sound)


# --- tokens ---


def test_a_token_is_shown_once_and_can_be_revoked(ada: Browser, runtime: Runtime, gateway: RunningGateway) -> None:
    answer = ada.submit("/tokens", {"name": "till reports", "days": "30", "scope": "read"})
    token = next(part.partition("<")[0] for part in answer.text.split('class="token">')[1:])
    assert token.startswith("flux_")
    assert token not in ada.get("/tokens").text
    call = {"headers": {"Authorization": f"Bearer {token}"}, "trust_env": False}
    assert httpx.get(f"{gateway.url}/api/v1/me", **call).json()["scopes"] == ["read"]  # type: ignore[arg-type]
    found = next(one for one in runtime.state.api_tokens.list() if one.name == "till reports")
    assert found.expires_at is not None
    # What cannot be taken back is asked for first: the button is inside what has to be opened.
    assert re.search(
        rf'<details><summary[^>]*>Revoke …</summary><form method="post" action="/tokens/{found.id}/revoke">',
        ada.get("/tokens").text,
    )
    assert timedelta(days=29) < found.expires_at - datetime.now(UTC) < timedelta(days=30, minutes=1)
    assert ada.submit(f"/tokens/{found.id}/revoke").status_code == 303
    assert httpx.get(f"{gateway.url}/api/v1/me", **call).status_code == 401  # type: ignore[arg-type]
    assert "Revoked" in ada.get("/tokens").text


@pytest.mark.parametrize("form", [{"name": " "}, {"name": "x" * 101}, {"days": "7"}, {"scope": "admin"}])
def test_a_token_that_cannot_be_made_is_not_made(ada: Browser, runtime: Runtime, form: dict[str, str]) -> None:
    before = len(runtime.state.api_tokens.list())
    assert ada.submit("/tokens", {"name": "n", "days": "30", "scope": "read", **form}).status_code == 422
    assert len(runtime.state.api_tokens.list()) == before


# --- verdicts and words ---

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "alert", "hours", "word"),
    [
        ("active", False, 1, "Healthy"),
        ("active", False, 35, "Healthy"),
        ("active", False, 37, "Behind"),
        ("active", False, None, "Connected"),
        ("active", True, 1, "Needs attention"),
        ("paused", True, 1, "Paused"),
        ("needs_reauth", True, 1, "Needs reconnecting"),
        ("disconnected", False, 1, "Disconnected"),
    ],
)
def test_the_gravest_verdict_is_given(status: str, alert: bool, hours: int | None, word: str) -> None:
    alerts = [Alert(1, "reconcile_short", KEY, "two orders are missing", NOW, None, "", None)] if alert else []
    synced = None if hours is None else NOW - timedelta(hours=hours)
    connection = Connection(KEY, "t", status=status, status_reason="because")  # type: ignore[arg-type]
    assert health_of(connection, alerts, synced, NOW).word == word


def test_what_cannot_be_read_is_not_called_absent() -> None:
    health = health_of(Connection(KEY, "t"), [], None, NOW, lake_problem="the bucket does not answer")
    assert (health.tone, health.word) == ("warn", "Not known")
    assert "bucket does not answer" in health.why


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(10, "just now"), (50, "1 minute ago"), (3599, "60 minutes ago"), (5400, "2 hours ago"), (200_000, "2 days ago"),
     (-7300, "in 2 hours"), (-10, "just now")],
)  # fmt: skip
def test_spans_are_written_for_people(seconds: int, words: str) -> None:
    assert f">{words}<" in str(ago(NOW - timedelta(seconds=seconds), NOW))


def test_amounts_have_their_currencys_places() -> None:
    assert money(Decimal("1234.5000"), "USD") == "1,234.50 USD"
    assert money(Decimal("1234.0000"), "JPY") == "1,234 JPY"
    assert money(Decimal("-0.1250"), "BHD") == "-0.125 BHD"
    assert money(Decimal("1234.5678"), "QQQ") == "1,234.5678 QQQ", "of an unknown currency no digit is dropped"
