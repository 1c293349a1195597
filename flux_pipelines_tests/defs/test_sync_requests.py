"""What runs beside the syncs: asked-for syncs, the daily comparison, tokens kept alive, forecasts of closed days."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import httpx
import pytest
import time_machine

from flux_pipelines.connections import connect_to_sandbox, reconfigure
from flux_pipelines.defs import names
from flux_pipelines.defs.sensors import sync_requests
from flux_pipelines.domain.partition import Partition
from flux_pipelines.state import Alert, NewEvent
from flux_pipelines_tests.defs.conftest import END_DAY, Home, open_home
from flux_pipelines_tests.defs.webhooks import Drain, days, later, payment
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

A, B = "square:harbor", "square:sakura"
#: In Tokyo the last day of the sandbox's history has closed, in Los Angeles it has not.
CLOSED_IN_TOKYO = datetime(2026, 3, 10, 16, tzinfo=UTC)


@pytest.fixture
def drain(changing_home: Home) -> Iterator[Drain]:
    changing_home.connect("harbor", "sakura")
    with closing(Drain(changing_home)) as drain:
        yield drain


def test_what_people_ask_for_is_run_in_pieces_and_they_are_told_how_it_went(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_requests, "MAX_DAYS_PER_EVENT_RUN", 7)
    home, requests = drain.home, drain.home.runtime.state.sync_requests
    home.instance.delete_dynamic_partition("square_connections", B)  # its sensor has not looked yet
    asked = requests.add(B, END_DAY - timedelta(days=9), END_DAY, "ada@example.com", "first backfill")
    made = list(drain.tick("requested_syncs").run_requests or ())
    # Payments of the date after the last one too: tabs are paid on it.
    assert [(what(request), len(days(request))) for request in made] == [
        ("orders", 7), ("orders", 3), ("payments", 7), ("payments", 4), ("labor", 7), ("labor", 4),
        ("reported_sales", 7), ("reported_sales", 4),
    ]  # fmt: skip
    assert {request.tags[names.QUEUE_TAG] for request in made} == {B, f"{B}/streams"}
    assert B in home.instance.get_dynamic_partitions("square_connections")
    assert {r.run_key for r in drain.tick("requested_syncs").run_requests or ()} == {r.run_key for r in made}
    first = home.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None), tags=made[0].tags)
    for request in made[1:]:
        assert drain.run(request).success
    assert not drain.tick("requested_syncs").run_requests
    assert requests.open()[0].status == "started"
    home.instance.report_run_canceled(first)
    assert drain.run(made[0]).success  # as somebody who re-executes it would
    drain.tick("requested_syncs")
    latest = requests.latest(B)
    assert latest is not None
    assert (latest.id, latest.status) == (asked, "failed"), "one of its runs was cancelled"
    requests.add(B, END_DAY, END_DAY, "ada@example.com", "again")
    fetch(drain)
    done = requests.latest(B)
    assert done is not None
    assert (done.status, done.detail) == (
        "done",
        "1 business date was fetched: orders, payments and refunds, timecards, sales report.",
    )


def what(request: dg.RunRequest) -> str:
    return request.tags.get(names.STREAM_TAG, "orders")


def fetch(drain: Drain) -> list[str]:
    """Run what has been asked for and have it told; return what could not be fetched."""
    requests = list(drain.tick("requested_syncs").run_requests or ())
    failed = [what(request) for request in requests if not drain.run(request).success]
    drain.tick("requested_syncs")
    return failed


def test_days_that_people_ask_for_tie_out(drain: Drain) -> None:
    home, first = drain.home, END_DAY - timedelta(days=1)
    home.runtime.state.sync_requests.add(B, first, END_DAY, "ada@example.com", "first backfill")
    assert fetch(drain) == []
    assert home.run(names.REFRESH_CORE_JOB, str(first), str(END_DAY)).success
    assert home.run(names.REFRESH_BOOKS_JOB, str(first), str(END_DAY + timedelta(days=1))).success
    found = home.ask("select business_date, owed > 0, gap, payments_known from tie_out order by 1")
    assert found == [(first, True, 0, True), (END_DAY, True, 0, True)]
    assert home.ask("select count(*) from time_entries")[0][0] > 0


def test_payments_that_may_not_be_read_are_told_and_the_orders_are_there(drain: Drain) -> None:
    home, requests = drain.home, drain.home.runtime.state.sync_requests
    httpx.post(
        f"{home.sandbox.url}/sandbox/tokens/scopes", json={"merchant": "sakura", "remove": ["PAYMENTS_READ"]}
    ).raise_for_status()
    requests.add(B, END_DAY, END_DAY, "ada@example.com", "")
    assert fetch(drain) == ["payments"]
    told = requests.latest(B)
    assert told is not None
    assert told.status == "failed"
    assert told.detail.startswith(
        "1 business date was fetched: orders, timecards, sales report. Payments and refunds could not all be"
    )
    assert "PAYMENTS_READ" in told.detail
    assert told.detail.endswith("Then ask for these days again.")
    assert home.runtime.raw.read_manifest(B, END_DAY) is not None


def test_an_asked_for_sync_of_a_connection_that_cannot_be_synced_fails_with_the_reason(drain: Drain) -> None:
    home = drain.home
    home.runtime.state.sync_requests.add(B, date(2020, 1, 1), END_DAY, "ada@example.com", "")
    assert not drain.tick("requested_syncs").run_requests
    latest = home.runtime.state.sync_requests.latest(B)
    assert latest is not None
    assert "FLUX_START_DATE" in latest.detail
    home.runtime.state.sync_requests.add(B, END_DAY, END_DAY, "ada@example.com", "")
    home.runtime.state.connections.set_status(B, "needs_reauth", "revoked")
    assert not drain.tick("requested_syncs").run_requests
    latest = home.runtime.state.sync_requests.latest(B)
    assert latest is not None
    assert (latest.status, latest.detail) == ("failed", "the connection is needs_reauth")


def compare(home: Home) -> dg.ExecuteInProcessResult:
    return home.definitions.resolve_job_def(names.RECONCILE_JOB).execute_in_process(
        instance=home.instance, raise_on_error=False
    )


def alerts(home: Home, kind: str) -> list[Alert]:
    return [alert for alert in home.runtime.state.alerts.open() if alert.kind == kind]


def sell(home: Home, created: datetime, *, told: datetime) -> None:
    """Ring up a sale in Tokyo that neither a webhook nor the polling tells of; `told` is when Square has heard of it."""
    with time_machine.travel(told):
        home.sandbox.world.sell(home.sandbox.world.merchant("sakura").locations[0].id, created=created)


def test_days_that_differ_are_asked_for_again_and_an_alert_if_they_differ_even_then(drain: Drain) -> None:
    home, state = drain.home, drain.home.runtime.state
    first = END_DAY - timedelta(days=3)
    at = datetime(2026, 3, 11, 12, tzinfo=UTC)
    assert home.sync((B, first), (B, END_DAY)).success
    with time_machine.travel(at):
        assert compare(home).success
    assert not state.sync_requests.open()
    assert not alerts(home, "reconcile_short")

    told = at - timedelta(hours=1)
    sell(home, datetime(2026, 3, 9, 2, tzinfo=UTC), told=told)
    with time_machine.travel(at):
        assert compare(home).success
    (request,) = state.sync_requests.open()
    assert (request.first_day, request.last_day, request.asked_by) == (date(2026, 3, 9), date(2026, 3, 9), "reconcile")
    assert not alerts(home, "reconcile_short"), "once is no alert"
    assert fetch(drain) == []
    with time_machine.travel(at + timedelta(days=1)):
        assert compare(home).success
    assert not state.sync_requests.open(), "it was mended"

    sell(home, datetime(2026, 3, 9, 3, tzinfo=UTC), told=told)
    with time_machine.travel(at):
        assert compare(home).success
    assert home.sync((B, date(2026, 3, 9)), (B, date(2026, 3, 9))).success
    sell(home, datetime(2026, 3, 9, 4, tzinfo=UTC), told=told)  # it differs again
    with time_machine.travel(at):
        assert compare(home).success
    (alert,) = alerts(home, "reconcile_short")
    assert alert.connection_key == B
    assert "2026-03-09" in alert.message
    assert home.sync((B, date(2026, 3, 9)), (B, date(2026, 3, 9))).success
    with time_machine.travel(at):
        assert compare(home).success
    assert not alerts(home, "reconcile_short")


def test_a_connection_that_cannot_be_compared_does_not_hold_back_the_others(drain: Drain) -> None:
    home = drain.home
    for key in (A, B):
        assert home.sync((key, date(2026, 3, 8)), (key, date(2026, 3, 8))).success
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "harbor"})
    at = datetime(2026, 3, 11, 12, tzinfo=UTC)
    sell(home, datetime(2026, 3, 8, 2, tzinfo=UTC), told=at - timedelta(hours=1))
    with time_machine.travel(at):
        assert not compare(home).success
    assert [request.connection_key for request in home.runtime.state.sync_requests.open()] == [B]


def test_what_a_core_table_lacks_from_one_look_to_the_next_is_an_alert_and_before_that_on_its_way(drain: Drain) -> None:
    home = drain.home
    assert home.sync((B, END_DAY), (B, END_DAY)).success
    at = datetime(2026, 3, 11, 12, tzinfo=UTC)
    with time_machine.travel(at):
        assert compare(home).success
    assert not alerts(home, "on_two_dates"), "automation brings it into transactions within minutes"
    with time_machine.travel(at + timedelta(days=1)):
        assert compare(home).success
    (alert,) = alerts(home, "on_two_dates")
    assert alert.connection_key == B
    assert f"transactions does not have the rows that square/transactions has of {END_DAY}" in alert.message
    drain.core(END_DAY)
    with time_machine.travel(at + timedelta(days=2)):
        assert compare(home).success
    assert not alerts(home, "on_two_dates")


def test_webhooks_that_stop_while_sales_go_on_are_an_alert(drain: Drain) -> None:
    home, state = drain.home, drain.home.runtime.state
    assert home.sync((B, END_DAY), (B, END_DAY)).success
    sale = home.sandbox.world.sell(home.sandbox.world.merchant("sakura").locations[0].id, created=CLOSED_IN_TOKYO)
    old = payment(sale)
    before = datetime(2026, 3, 8, tzinfo=UTC)
    state.inbox.add_many([NewEvent("square", "old", old.event_type, old.account_id, None, old.body, B, before)])
    at = datetime(2026, 3, 11, 12, tzinfo=UTC)
    with time_machine.travel(at):
        assert compare(home).success
    assert len(alerts(home, "webhooks_failing")) == 1
    state.inbox.add_many([NewEvent("square", "new", old.event_type, old.account_id, None, old.body, B, at)])
    with time_machine.travel(at):
        assert compare(home).success
    assert not alerts(home, "webhooks_failing")


def keep(home: Home) -> dg.ExecuteInProcessResult:
    return home.definitions.resolve_job_def(names.TOKENS_JOB).execute_in_process(
        instance=home.instance, raise_on_error=False
    )


def hourly(home: Home, at: datetime) -> int:
    schedule = home.definitions.get_repository_def().get_schedule_def(f"{names.TOKENS_JOB}_hourly")
    return len(home.due(schedule, at))


@pytest.fixture
def tokens(environment: object) -> Iterator[Home]:
    """A home whose tokens live for 20 days."""
    with RunningSandbox(SandboxOptions(seed=12, history_days=1, token_lifetime=20 * 86_400.0)) as sandbox:
        yield from open_home(sandbox)


def test_tokens_are_refreshed_in_the_last_quarter_of_their_life_paused_connections_too(tokens: Home) -> None:
    tokens.connect("sakura")
    state = tokens.runtime.state
    state.connections.set_status(B, "paused", "for a test")
    before = state.secrets.expiries()[B]["expires_at"]
    now = datetime.now(UTC)
    assert hourly(tokens, now) == 0
    assert keep(tokens).success
    assert state.secrets.expiries()[B]["expires_at"] == before, "it is not due"
    assert hourly(tokens, now + timedelta(days=16)) == 1
    with later(days=16):
        assert keep(tokens).success
    assert state.secrets.expiries()[B]["expires_at"] > before
    assert not state.alerts.open()


def test_a_refused_refresh_is_an_alert_and_never_a_loop(tokens: Home) -> None:
    tokens.connect("harbor", "sakura")
    httpx.post(f"{tokens.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "sakura"})
    with later(days=16):
        failed = keep(tokens)
        assert not failed.success
        assert {a.connection_key for a in tokens.runtime.state.alerts.open() if a.kind == "needs_reauth"} == {B}
        calls = httpx.get(f"{tokens.sandbox.url}/sandbox/stats").json()
        assert keep(tokens).success, "it is left alone from then on"
        again = httpx.get(f"{tokens.sandbox.url}/sandbox/stats").json()
    assert again["endpoints"] == calls["endpoints"]
    assert tokens.runtime.state.connections.get(A).status == "active"


def test_what_only_a_person_can_renew_is_warned_of_a_week_ahead(tokens: Home) -> None:
    issued = httpx.post(
        f"{tokens.sandbox.url}/sandbox/tokens", json={"merchant": "sakura", "scopes": ["ORDERS_READ"]}
    ).json()
    state = tokens.runtime.state
    tokens.connect("sakura")
    state.secrets.put(B, {"access_token": issued["access_token"], "expires_at": _in(days=20)})
    assert keep(tokens).success
    assert not state.alerts.open()
    state.secrets.put(B, {"access_token": issued["access_token"], "expires_at": _in(days=6)})
    assert hourly(tokens, datetime.now(UTC)) == 1
    assert keep(tokens).success
    (alert,) = state.alerts.open()
    assert (alert.kind, alert.connection_key) == ("consent_expiring", B)
    assert "cannot be refreshed" in alert.message
    assert issued["access_token"] not in alert.message
    state.secrets.put(B, {"access_token": issued["access_token"], "expires_at": _in(days=60)})
    assert keep(tokens).success
    assert not state.alerts.open()


@pytest.mark.parametrize("key", ["square:harbor", "toast:harbor-kitchen", "shopify:harbor-shop"])
def test_what_renews_itself_is_never_warned_of(tokens: Home, key: str) -> None:
    state = tokens.runtime.state
    connect_to_sandbox(tokens.runtime, key, tenant="t", url=tokens.sandbox.url)
    ends = state.secrets.expiries().get(key, {}).get("expires_at", datetime.now(UTC))
    with time_machine.travel(ends - timedelta(hours=1)):
        assert keep(tokens).success
        assert not state.alerts.open()
        if key.startswith("toast"):
            assert hourly(tokens, datetime.now(UTC)) == 0, "a machine client signs in when it is used, never ahead"
    state.alerts.raise_("consent_expiring", key, "an earlier version said that its token cannot be refreshed")
    assert hourly(tokens, datetime.now(UTC)) == 1
    assert keep(tokens).success
    assert not state.alerts.open()


@pytest.mark.parametrize(
    ("key", "left", "again"),
    [
        ("toast:harbor-kitchen", {"access_token"}, {"client_id", "client_secret"}),
        # A refresh token is of no use without the app that it was given to.
        ("square:sakura", {"access_token", "refresh_token"}, {"access_token"}),
    ],
)
def test_what_has_nothing_to_renew_itself_with_is_warned_of_until_it_is_connected_again(
    tokens: Home, key: str, left: set[str], again: set[str]
) -> None:
    state = tokens.runtime.state
    connect_to_sandbox(tokens.runtime, key, tenant="t", url=tokens.sandbox.url)
    whole = state.secrets.get(key, purpose="test")
    secrets = {name: whole[name] for name in left}
    # An hour ago, so that it is not yet due: a refresh would fail, which is told as what it is.
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1), tick=False):
        state.secrets.put(key, {**secrets, "expires_at": _in(days=6)})
    for _ in range(2):
        assert hourly(tokens, datetime.now(UTC)) == 1
        assert keep(tokens).success
        (alert,) = state.alerts.open()
        assert "cannot be refreshed" in alert.message
    reconfigure(tokens.runtime, key, settings={}, secrets={name: whole[name] for name in again})
    assert not state.alerts.open()


def _in(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def closed(drain: Drain, cursor: str | None, at: datetime = CLOSED_IN_TOKYO) -> dg.SensorExecutionData:
    with time_machine.travel(at, tick=False):
        return drain.tick("closed_days", cursor)


def test_forecasts_follow_days_that_have_closed_and_not_sales_of_open_ones(drain: Drain) -> None:
    home = drain.home
    cursor = closed(drain, None).cursor
    with time_machine.travel(CLOSED_IN_TOKYO):  # what webhooks bring in from Los Angeles, where it is still morning
        assert home.sync((A, END_DAY), (A, END_DAY)).success
    drain.core(END_DAY)
    quiet = closed(drain, cursor)
    assert not quiet.run_requests, "half a day in one place, and nowhere a whole one"
    assert home.sync((B, END_DAY), (B, END_DAY)).success
    waiting = closed(drain, quiet.cursor)
    assert not waiting.run_requests, "its sales are not in daily_sales yet"
    drain.core(END_DAY)
    asked = closed(drain, waiting.cursor)
    (request,) = asked.run_requests or ()
    assert request.job_name == names.CLOSED_DAYS_JOB
    assert days(request) == [END_DAY]
    assert not closed(drain, asked.cursor).run_requests, "once"
    with time_machine.travel(CLOSED_IN_TOKYO):
        assert home.sync((A, END_DAY), (A, END_DAY)).success
    drain.core(END_DAY)
    assert not closed(drain, asked.cursor).run_requests, "an open day has changed, no closed one"
    old = closed(drain, waiting.cursor, CLOSED_IN_TOKYO + timedelta(days=9))
    assert not old.run_requests, "only the last week"


def test_an_unfinished_day_is_no_history(drain: Drain) -> None:
    home = drain.home
    first = END_DAY - timedelta(days=3)
    for key in (A, B):
        assert home.sync((key, first), (key, END_DAY)).success
    with time_machine.travel(CLOSED_IN_TOKYO):
        assert home.sync((A, END_DAY), (A, END_DAY)).success
    drain.core(*(first + timedelta(days=n) for n in range(4)))
    assert home.run(names.CLOSED_DAYS_JOB, str(END_DAY), str(END_DAY)).success
    told = home.metadata("demand_forecasts", partition=str(END_DAY))
    assert told["left out, day not over"] == A
    assert home.ask(f"select distinct connection from demand_forecasts where as_of = date '{END_DAY}'") == [(B,)]
    assert str(Partition(A, END_DAY)) in home.partitions("square", "transactions")
