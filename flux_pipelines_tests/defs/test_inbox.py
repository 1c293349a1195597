"""The inbox's sensor over a real inbox, instance and sandbox: nothing lost, whatever is done twice, late or never."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import httpx
import pytest

from flux_pipelines.defs import names
from flux_pipelines.defs.sensors import inbox
from flux_pipelines.defs.staleness import ORDERS, Run, StalePartition, batches
from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.money import from_minor
from flux_pipelines_tests.defs.conftest import Home, open_home
from flux_pipelines_tests.defs.webhooks import Drain, days, event, later, payment, stub
from flux_sandbox.model import Sale
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth

A, B = "square:harbor", "square:sakura"


@pytest.fixture
def home(environment: object) -> Iterator[Home]:
    """A home whose sandbox ends yesterday, so that something can be sold today."""
    options = SandboxOptions(seed=12, history_days=4, rate_limit=1_000_000)
    with RunningSandbox(options) as sandbox:
        yield from open_home(sandbox)


@pytest.fixture
def drain(home: Home) -> Iterator[Drain]:
    home.connect("harbor", "sakura")
    with closing(Drain(home)) as drain:
        yield drain


def sell(home: Home, merchant: str = "sakura", **options: datetime) -> Sale:
    return home.sandbox.world.sell(home.sandbox.world.merchant(merchant).locations[0].id, **options)


def day_of(sale: Sale) -> date:
    return BusinessCalendar(sale.location.timezone).date_of(datetime.fromtimestamp(sale.created / 1000, UTC))


def sold(home: Home, sale: Sale, table: str = "transactions") -> list[tuple[object, ...]]:
    return home.ask(f"select business_date, sum(quantity) from {table} where order_id = '{sale.id}' group by 1")


def assert_equals_truth(home: Home, merchant: str, *days: date) -> None:
    """Compare core `transactions` with the sandbox's own account."""
    told = {
        (day.location_id, day.business_date): from_minor(day.as_json()["total"], day.as_json()["currency"])
        for day in truth(home.sandbox.world, merchant=merchant, first=min(days), last=max(days))
        if day.business_date in days
    }
    listed = ", ".join(f"date '{day}'" for day in days)
    here = home.ask(
        f"select location_id, business_date, sum(total) from transactions where connection = 'square:{merchant}' "
        f"and business_date in ({listed}) group by all"
    )
    assert {(location, day): total for location, day, total in here if total} == {k: v for k, v in told.items() if v}


def test_a_sale_of_today_an_edit_and_a_refund_reach_the_core_tables(home: Home, drain: Drain) -> None:
    sale = sell(home)
    drain.inbox.add_many([payment(sale)])
    (request,) = drain.tick().run_requests or ()
    assert (request.job_name, days(request)) == ("sync_square", [day_of(sale)])
    assert request.tags[names.CONNECTION_TAG] == B
    assert drain.tick().run_requests == [], "no second run while the first one is being handed over"
    assert drain.run(request).success
    assert drain.tick().run_requests == []
    assert drain.inbox.counts()["assigned"] == 1, "not done before it is in core"
    drain.core(day_of(sale))
    drain.tick()
    assert drain.inbox.counts() == {"received": 0, "assigned": 0, "done": 1, "kept": 0, "failed": 0}
    assert sold(home, sale) == [(day_of(sale), 3)]
    assert home.ask(f"select count(*) from daily_sales where business_date = date '{day_of(sale)}'") == [(1,)]

    home.sandbox.world.edit(sale.id, add_units=2)
    drain.inbox.add_many([stub(sale)])
    drain.all()
    assert sold(home, sale) == [(day_of(sale), 5)]
    back = home.sandbox.world.refund(sale.id)
    drain.inbox.add_many([payment(back)])
    drain.all()
    assert sold(home, back) == [(day_of(back), -5)]
    assert_equals_truth(home, "sakura", day_of(sale))


def test_what_comes_while_a_run_is_under_way_waits_and_goes_together(home: Home, drain: Drain) -> None:
    first = sell(home)
    drain.inbox.add_many([payment(first)])
    (request,) = drain.tick().run_requests or ()
    under_way = home.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None), tags=request.tags)
    others = [sell(home) for _ in range(5)]
    for sale in others:
        drain.inbox.add_many([payment(sale)])
        assert drain.tick().run_requests == []
    of_the_other = sell(home, "harbor")
    drain.inbox.add_many([payment(of_the_other)])
    (alongside,) = drain.tick().run_requests or ()
    assert alongside.tags[names.CONNECTION_TAG] == A, "another connection need not wait"
    home.instance.report_run_canceled(under_way)
    assert drain.run(alongside).success
    (after,) = drain.tick().run_requests or ()
    assert after.tags[names.CONNECTION_TAG] == B
    assert drain.inbox.batches()[after.tags[names.BATCH_TAG]].events == 5


def test_a_tick_that_died_before_its_run_was_made_loses_nothing(home: Home, drain: Drain) -> None:
    sale = sell(home)
    drain.inbox.add_many([payment(sale)])
    (lost,) = drain.tick().run_requests or ()  # nobody makes this run
    with later(seconds=30):
        assert drain.tick().run_requests == []
    with later(seconds=90):
        (again,) = drain.tick().run_requests or ()
        assert again.tags[names.BATCH_TAG] != lost.tags[names.BATCH_TAG]
        assert drain.run(again).success
        drain.core(day_of(sale))
        drain.tick()
    assert drain.inbox.counts()["done"] == 1
    assert drain.inbox.recent()[0].attempts == 0, "a crash is not the event's fault"


def test_a_batch_of_several_runs_is_done_only_when_all_were_made(home: Home, drain: Drain) -> None:
    """A return of an old sale touches two business dates that are not neighbours."""
    old = sell(home, created=datetime.now(UTC) - timedelta(days=20))
    back = home.sandbox.world.refund(old.id)
    drain.inbox.add_many([payment(back)])
    requests = list(drain.tick().run_requests or ())
    assert {day for request in requests for day in days(request)} == {day_of(old), day_of(back)}
    assert len({request.tags[names.BATCH_TAG] for request in requests}) == 1
    assert drain.run(requests[0]).success
    drain.core(*days(requests[0]))
    drain.tick()
    assert drain.inbox.counts()["assigned"] == 1
    assert drain.run(requests[1]).success
    drain.core(*days(requests[1]))
    drain.tick()
    drain.core(day_of(old))
    drain.tick()
    assert drain.inbox.counts()["done"] == 1


def test_a_run_that_fails_is_tried_again_later_and_given_up_with_an_alert(home: Home, drain: Drain) -> None:
    sale = sell(home)
    drain.inbox.add_many([payment(sale)])
    moment = timedelta(0)
    for attempt in range(1, 6):
        with later(seconds=moment.total_seconds()):
            (request,) = drain.tick().run_requests or ()
            run = home.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None), tags=request.tags)
            home.instance.report_run_canceled(run)
            assert drain.tick().run_requests == [], "not at once"
            if attempt < 5:
                assert drain.inbox.counts()["received"] == 1
                assert not home.runtime.state.alerts.open()
        moment += timedelta(hours=2)
    assert drain.inbox.counts()["failed"] == 1
    (alert,) = home.runtime.state.alerts.open()
    assert (alert.kind, alert.connection_key) == ("inbox_failed", B)
    drain.inbox.retry()
    drain.all()
    assert drain.inbox.counts()["done"] == 1
    assert not home.runtime.state.alerts.open(), "the alert closes by itself"


def test_a_run_that_failed_says_why_and_what_a_provider_refuses_counts_as_an_attempt(home: Home, drain: Drain) -> None:
    drain.inbox.add_many([payment(sell(home))])
    (request,) = drain.tick().run_requests or ()
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/scopes", json={"merchant": "sakura", "remove": ["ORDERS_READ"]})
    assert not drain.run(request).success
    drain.tick()
    (waiting,) = drain.inbox.recent(status="received")
    assert waiting.attempts == 1
    assert "ORDERS_READ" in waiting.reason
    with later(hours=1):
        assert drain.tick().run_requests == []
    (waiting,) = drain.inbox.recent(status="received")
    assert waiting.attempts == 2


def test_events_that_failed_before_go_by_themselves_so_that_a_bad_day_fails_alone() -> None:
    day = date(2026, 3, 1)
    units = {n: (frozenset({StalePartition(A, ORDERS, day + timedelta(days=n))}), True) for n in range(3)}
    (together,) = batches(units)
    assert together.runs() == [Run(A, ORDERS, day, day + timedelta(days=2))]
    alone = list(batches({n: (touched, False) for n, (touched, _) in units.items()}))
    assert sorted(batch.runs() for batch in alone) == [
        [Run(A, ORDERS, day + timedelta(days=n), day + timedelta(days=n))] for n in range(3)
    ]
    mixed = list(batches({**units, 3: (frozenset({StalePartition(A, ORDERS, day + timedelta(days=1))}), False)}))
    assert sorted(sorted(batch.ids) for batch in mixed) == [[0], [1, 3], [2]], "its day is not tied to its neighbours"
    long = {n: (frozenset({StalePartition(A, ORDERS, day + timedelta(days=n))}), True) for n in range(40)}
    (cut,) = batches(long)
    assert [(last - first).days + 1 for _, _, first, last in cut.runs()] == [31, 9]
    both = {
        0: (frozenset({StalePartition(A, "payments", day), StalePartition(A, ORDERS, day)}), True),
        1: (frozenset({StalePartition(A, "payments", day + timedelta(days=1))}), True),
        2: (frozenset({StalePartition(A, "labor", day)}), True),
    }
    one, other = batches(both)
    assert one.runs() == [Run(A, ORDERS, day, day), Run(A, "payments", day, day + timedelta(days=1))], "orders first"
    assert other.runs() == [Run(A, "labor", day, day)], "streams that share no event go by themselves"


def test_an_event_that_nobody_can_understand_fails_alone(
    home: Home, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flux_pipelines.providers.square.webhooks import SquareWebhooks

    understood = SquareWebhooks.affected

    def choke(self: SquareWebhooks, events: list[tuple[str, bytes]], source: object) -> object:
        if any(b"poison" in body for _, body in events):
            raise KeyError("what the provider never documented")
        return understood(self, events, source)  # type: ignore[arg-type]

    monkeypatch.setattr(SquareWebhooks, "affected", choke)
    sale = sell(home)
    drain.inbox.add_many([payment(sale), payment(sale, note="poison"), stub(sale)])
    drain.all()
    assert drain.inbox.counts() == {"received": 1, "assigned": 0, "done": 2, "kept": 0, "failed": 0}
    for n in range(1, 5):
        with later(hours=2 * n):
            drain.tick()
    assert drain.inbox.counts()["failed"] == 1
    assert "KeyError" in drain.inbox.recent(status="failed")[0].reason


def test_what_says_nothing_about_sales_is_kept_with_the_reason(home: Home, drain: Drain) -> None:
    account = home.sandbox.world.merchant("sakura").id
    drain.inbox.add_many(
        [
            event("inventory.count.updated", account, {"inventory_counts": []}),
            event("payment.updated", "MLUNKNOWN", {"payment": {"order_id": "x"}}),
            event("location.updated", account, {}),
        ]
    )
    before = home.runtime.state.locations.list(B)[0].seen_at
    assert drain.tick().run_requests == []
    assert drain.inbox.counts()["kept"] == 3
    reasons = {kept.event_type: kept.reason for kept in drain.inbox.recent(status="kept")}
    assert "names no location" in reasons["inventory.count.updated"]
    assert "no connection is of this account" in reasons["payment.updated"]
    assert home.runtime.state.locations.list(B)[0].seen_at > before


def test_an_event_that_names_no_account_is_of_no_connection(home: Home, drain: Drain) -> None:
    home.runtime.state.connections.add(
        Connection("square:manual", "manual")
    )  # made with a token; its account is not known
    drain.inbox.add_many([event("payment.updated", "", {"payment": {"order_id": "x"}})])
    assert drain.tick().run_requests == []
    (kept,) = drain.inbox.recent(status="kept")
    assert "no connection is of this account" in kept.reason


def test_a_sale_of_a_day_that_has_not_begun_waits_for_it(home: Home, drain: Drain) -> None:
    ahead = sell(home, created=datetime.now(UTC) + timedelta(days=1, hours=1))
    drain.inbox.add_many([payment(ahead)])
    assert drain.tick().run_requests == []
    with later(days=2):
        (request,) = drain.tick().run_requests or ()
    assert days(request) == [day_of(ahead)]


def test_a_revoked_account_is_marked_and_one_that_was_connected_again_is_not(home: Home, drain: Drain) -> None:
    account = home.sandbox.world.merchant("sakura").id
    revoked = event("oauth.authorization.revoked", account, {"revocation": {"revoker_type": "MERCHANT"}})
    drain.inbox.add_many([revoked])
    drain.tick()
    assert home.runtime.state.connections.get(B).status == "active", "a late event must not end a new authorisation"
    httpx.post(f"{home.sandbox.url}/sandbox/tokens/revoke", json={"merchant": "sakura"})
    drain.inbox.add_many([event("oauth.authorization.revoked", account, {"revocation": {}})])
    drain.tick()
    drain.inbox.add_many([payment(sell(home))])
    drain.tick()
    assert home.runtime.state.connections.get(B).status == "needs_reauth"
    assert {alert.kind for alert in home.runtime.state.alerts.open()} == {"needs_reauth"}
    assert drain.inbox.counts()["received"] == 1, "sales wait until it is connected again"
    assert drain.inbox.recent(status="received")[0].attempts == 0


def test_events_of_a_connection_that_waits_do_not_stand_before_the_others(
    home: Home, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "EVENTS_A_TICK", 3)
    home.runtime.state.connections.set_status(B, "paused", "for a test")
    waiting = [payment(sell(home)) for _ in range(5)]
    for one in waiting:
        drain.inbox.add_many([event(one.event_type, one.account_id, {}, connection=B)])
    drain.inbox.add_many([payment(sell(home, "harbor"))])
    (request,) = drain.tick().run_requests or ()
    assert request.tags[names.CONNECTION_TAG] == A


def test_a_provider_that_does_not_answer_costs_the_events_no_attempt(home: Home, drain: Drain) -> None:
    sale, other = sell(home), sell(home, "harbor")
    drain.inbox.add_many([payment(sale)])
    httpx.post(f"{home.sandbox.url}/sandbox/faults", json={"faults": "error500=1.0"})
    began = time.monotonic()
    for n in range(3):
        with later(minutes=2 * n):
            assert drain.tick().run_requests == []
    httpx.post(f"{home.sandbox.url}/sandbox/faults", json={"faults": ""})
    assert drain.inbox.recent()[0].attempts == 0
    assert time.monotonic() - began < 180
    drain.inbox.add_many([payment(other)])
    with later(minutes=30):
        connections = {request.tags[names.CONNECTION_TAG] for request in drain.tick().run_requests or ()}
    assert connections == {A, B}


def test_the_core_tables_are_asked_for_when_automation_does_not_bring_them_up_to_date(home: Home, drain: Drain) -> None:
    sale = sell(home)
    drain.inbox.add_many([payment(sale)])
    (request,) = drain.tick().run_requests or ()
    assert drain.run(request).success
    assert drain.tick().run_requests == [], "automation has its two minutes"
    with later(minutes=3):
        (core,) = drain.tick().run_requests or ()
        assert core.job_name == names.REFRESH_CORE_JOB
        failed = home.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None), tags=core.tags)
        home.instance.report_run_canceled(failed)
        (again,) = drain.tick().run_requests or ()
        assert again.run_key != core.run_key
        assert drain.run(again).success
        drain.tick()
    assert drain.inbox.counts()["done"] == 1


def test_a_batch_whose_orders_an_older_fetch_has_replaced_goes_again(home: Home, drain: Drain) -> None:
    sale = sell(home)
    drain.inbox.add_many([payment(sale)])
    with later(hours=1):
        (request,) = drain.tick().run_requests or ()  # the batch is made an hour after the fetch below
    assert drain.run(request).success
    drain.core(day_of(sale))
    (again,) = drain.tick().run_requests or ()
    assert days(again) == [day_of(sale)]
