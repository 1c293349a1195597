"""What runs by itself beside orders, ticked for real over Square's sandbox: schedules, changes, webhooks, `flux sync`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import httpx
import pytest
import time_machine

from flux_pipelines.defs import names
from flux_pipelines.defs.runner import sync
from flux_pipelines.defs.schedules import DAILY_ATTEMPTS
from flux_pipelines.defs.sensors.changes import change_sensors
from flux_pipelines.domain.partition import Partition
from flux_pipelines.providers.registry import provider
from flux_pipelines.providers.square.webhooks import SquareWebhooks
from flux_pipelines_tests.defs.conftest import END_DAY, Home
from flux_pipelines_tests.defs.test_order_sensors import schedule_of, start
from flux_pipelines_tests.defs.webhooks import Drain, event, later

SQUARE = provider("square")
A, B = "square:harbor", "square:sakura"


@pytest.fixture
def drain(changing_home: Home) -> Iterator[Drain]:
    changing_home.connect("sakura")
    with closing(Drain(changing_home)) as drain:
        yield drain


def asked(home: Home, name: str, at: datetime) -> list[dg.RunRequest]:
    return home.due(schedule_of(name), at)


def run(home: Home, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    return home.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
        instance=home.instance, tags=request.tags, asset_selection=request.asset_selection, raise_on_error=False
    )


def test_stock_is_asked_for_every_hour_the_catalog_once_a_day(home: Home) -> None:
    home.connect("harbor", "sakura")
    home.runtime.state.connections.set_status(A, "needs_reauth", "revoked")
    now = datetime.now(UTC)
    (hourly,) = asked(home, "square_hourly", now)
    assert start(hourly) == (f"{B}|{now.date()}",) * 2
    assert hourly.asset_selection == [
        dg.AssetKey(["square", "raw_inventory"]),
        dg.AssetKey(["square", "inventory_levels"]),
    ]
    assert asked(home, "square_hourly", now - timedelta(hours=2)) == [], "that hour is over"
    assert run(home, hourly).success

    (daily,) = asked(home, "square_catalog", now)
    assert start(daily) == (B, B)
    assert run(home, daily).success
    assert asked(home, "square_catalog", now + timedelta(hours=1)) == []
    (tomorrow,) = asked(home, "square_catalog", now + timedelta(hours=25))
    for _ in range(DAILY_ATTEMPTS):
        failed = home.instance.create_run_for_job(dg.job(name="by_hand")(lambda: None), tags=tomorrow.tags)
        home.instance.report_run_failed(failed)
    assert asked(home, "square_catalog", now + timedelta(hours=25)) == [], "now somebody has to look"


def test_closed_days_are_collected_feed_by_feed(home: Home) -> None:
    home.connect("sakura")
    requests = asked(home, "square_daily_records", datetime(2026, 3, 10, 16, 15, tzinfo=UTC))
    assert {request.tags[names.STREAM_TAG] for request in requests} == {"payments", "labor", "reported_sales"}
    (report,) = [request for request in requests if request.tags[names.STREAM_TAG] == "reported_sales"]
    assert start(report) == (f"{B}|{END_DAY}",) * 2, "a date is reported once it is over"
    requests.remove(report)
    assert run(home, report).success
    # And the date after it as far as it goes: tabs of the closed one are paid on it.
    assert {start(request) for request in requests} == {(f"{B}|{END_DAY}", f"{B}|{END_DAY + timedelta(days=1)}")}
    assert {request.tags[names.QUEUE_TAG] for request in requests} == {f"{B}/streams"}, (
        "the orders do not wait for these"
    )
    payments = next(request for request in requests if request.tags[names.STREAM_TAG] == "payments")
    assert run(home, payments).success
    (left,) = asked(home, "square_daily_records", datetime(2026, 3, 10, 17, 15, tzinfo=UTC))
    assert left.tags[names.STREAM_TAG] == "labor"
    assert home.partitions("square", "raw_labor") == []


def test_a_report_that_was_not_there_yet_is_asked_for_again_for_a_few_days(home: Home) -> None:
    home.connect("sakura")

    def reports(now: datetime) -> list[dg.RunRequest]:
        found = asked(home, "square_daily_records", now)
        return [request for request in found if request.tags[names.STREAM_TAG] == "reported_sales"]

    now = datetime(2026, 3, 10, 16, 15, tzinfo=UTC)
    try:
        home.sandbox.world.reporting.change({"empty": True})
        with time_machine.travel(now):
            assert run(home, reports(now)[0]).success
        assert reports(now + timedelta(hours=1)) == []
        (again,) = reports(now + timedelta(hours=5))
        assert start(again) == (f"{B}|{END_DAY}",) * 2
        home.sandbox.world.reporting.change({})
        with time_machine.travel(now + timedelta(hours=5)):
            assert run(home, again).success
        assert reports(now + timedelta(hours=10)) == []
    finally:
        home.sandbox.world.reporting.change({})
    home.sandbox.world.reporting.change({"empty": True})
    later = now + timedelta(days=6)
    try:
        with time_machine.travel(now + timedelta(hours=5)):
            assert home.run(names.stream_job("square", "daily"), *[str(Partition(B, END_DAY))] * 2).success
        assert f"{B}|{END_DAY}" not in {day for request in reports(later) for day in start(request)}
    finally:
        home.sandbox.world.reporting.change({})


def test_late_changes_make_their_own_days_run_again_and_nothing_else(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    first = END_DAY - timedelta(days=3)
    done = home.run("collect_square", str(Partition(B, first)), str(Partition(B, END_DAY)))
    assert done.success
    _, sensor = change_sensors(SQUARE)
    quiet = home.tick(sensor)
    assert not quiet.run_requests
    orders = httpx.get(
        f"{home.sandbox.url}/sandbox/orders", params={"merchant": "sakura", "state": "COMPLETED", "limit": "400"}
    ).json()["orders"]
    sold = min(orders, key=lambda order: order["created_ms"])
    httpx.post(f"{home.sandbox.url}/sandbox/orders/refund", json={"order_id": sold["order_id"]}).raise_for_status()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=5)):
        changed = home.tick(sensor, quiet.cursor)
    # The payment that was refunded changed; the refund itself is of today, which is not closed.
    assert [start(request) for request in changed.run_requests or ()] == [(f"{B}|{first}",) * 2]
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        for request in changed.run_requests or ():
            assert run(home, request).success
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=9)):
        assert not home.tick(sensor, changed.cursor).run_requests, "what was fetched since is not asked for again"


def test_a_feed_that_may_not_be_read_fails_by_itself_and_the_sales_stay(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    httpx.post(
        f"{home.sandbox.url}/sandbox/tokens/scopes", json={"merchant": "sakura", "remove": ["TIMECARDS_READ"]}
    ).raise_for_status()
    report = sync(home.runtime, [B], [END_DAY])
    (failure,) = report.failures
    assert "TIMECARDS_READ" in failure
    assert "then run the failed partitions again" in failure
    assert report.net["JPY"] > 0
    for table in ("payments", "products", "locations", "inventory_levels"):
        assert home.ask(f"select count(*) from {table}")[0][0] > 0, table
    assert home.ask("select count(*) from time_entries")[0][0] == 0
    assert home.partitions("square", "time_entries") == []
    assert home.partitions("inventory_levels") == [str(datetime.now(UTC).date())], (
        "of days without snapshots there is nothing"
    )


def test_webhooks_bring_in_the_feeds_that_they_announce(drain: Drain) -> None:
    home, world = drain.home, drain.home.sandbox.world
    merchant = world.merchant("sakura")
    where, today = merchant.locations[0].id, datetime.now(UTC).date()
    worked = {"id": "T", "location_id": where, "start_at": "2026-03-10T01:00:00Z", "created_at": "2026-03-10T01:00:00Z"}
    counted = [{"catalog_object_id": "x", "location_id": where}]
    drain.inbox.add_many(
        [
            event("labor.timecard.updated", merchant.id, {"timecard": worked}),
            event("inventory.count.updated", merchant.id, {"inventory_counts": counted}),
            event("inventory.count.updated", merchant.id, {"inventory_counts": counted}),
            event("catalog.version.updated", merchant.id, {"catalog_version": {"updated_at": "2026-03-10T01:00:00Z"}}),
        ]
    )
    made = drain.all()
    assert sorted((request.tags[names.STREAM_TAG], start(request)[0]) for request in made) == [
        ("catalog", B),
        ("inventory", f"{B}|{today}"),
        ("labor", f"{B}|2026-03-10"),
    ]
    assert drain.inbox.counts()["done"] == 4
    assert home.partitions("square", "products") == [B]
    # Stock changes with each sale: it is fetched again after a while, once.
    drain.inbox.add_many([event("inventory.count.updated", merchant.id, {"inventory_counts": counted})])
    assert not drain.tick().run_requests
    assert drain.inbox.counts()["received"] == 1
    with later(minutes=3):
        (again,) = list(drain.tick().run_requests or ())
    assert again.tags[names.STREAM_TAG] == "inventory"


def test_an_event_is_done_only_when_its_run_has_succeeded_and_names_of_locations_find_their_connection(
    drain: Drain,
) -> None:
    home, merchant = drain.home, drain.home.sandbox.world.merchant("sakura")
    where = merchant.locations[0].id
    httpx.post(
        f"{home.sandbox.url}/sandbox/tokens/scopes", json={"merchant": "sakura", "remove": ["INVENTORY_READ"]}
    ).raise_for_status()
    source = home.runtime.source(home.runtime.state.connections.get(B))
    home.runtime.refresh_locations(home.runtime.state.connections.get(B), source)
    source.close()
    counted = {"inventory_counts": [{"catalog_object_id": "x", "location_id": where}]}
    drain.inbox.add_many(
        [event("inventory.count.updated", where, counted), event("inventory.count.updated", "L?", counted)]
    )
    (request,) = list(drain.tick().run_requests or ())
    assert request.tags[names.CONNECTION_TAG] == B
    assert drain.inbox.counts()["kept"] == 1, "nobody has that location"
    assert not drain.run(request).success
    drain.tick()
    assert (drain.inbox.counts()["received"], drain.inbox.counts()["done"]) == (1, 0)
    (waiting,) = [one for one in drain.inbox.recent() if one.status == "received"]
    assert "INVENTORY_READ" in waiting.reason


def test_who_asks_to_be_forgotten_does_not_wait_for_the_connection(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Square has no such events: its own code is given one, as another provider's would be."""
    from flux_pipelines.providers.base import Erasure, Invalidation

    understood = SquareWebhooks.affected

    def affected(self: SquareWebhooks, events: list[tuple[str, bytes]], source: object) -> list[Invalidation]:
        if all(kind == "customer.forget" for kind, _ in events):
            return [Invalidation(erase=Erasure(customer_ids=("C1",))) for _ in events]
        return understood(self, events, source)  # type: ignore[arg-type]

    monkeypatch.setattr(SquareWebhooks, "affected", affected)
    drain.home.runtime.state.connections.set_status(B, "needs_reauth", "revoked")
    account = drain.home.sandbox.world.merchant("sakura").id
    drain.inbox.add_many(
        [
            event("payment.updated", account, {"payment": {"order_id": "x"}}, connection=B),
            event("customer.forget", account, {"customer": {"id": "C1"}}, connection=B),
        ]
    )
    first = drain.tick()
    (request,) = list(first.run_requests or ())
    assert request.job_name == names.FORGET_JOB
    assert "C1" not in str(request), "nothing of theirs is in what Dagster keeps"
    assert drain.run(request).success
    drain.tick(cursor=first.cursor)
    counts = drain.inbox.counts()
    assert (counts["done"], counts["received"]) == (1, 1), "the others wait for the connection"


def test_dates_that_a_provider_names_itself_are_synced(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    from flux_pipelines.providers.base import Invalidation

    where = drain.home.sandbox.world.merchant("sakura").locations[0].id
    day = date(2026, 3, 9)

    def affected(self: SquareWebhooks, events: list[tuple[str, bytes]], source: object) -> list[Invalidation]:
        return [Invalidation(days=frozenset({(where, day)})) for _ in events]

    monkeypatch.setattr(SquareWebhooks, "affected", affected)
    drain.inbox.add_many([event("order.updated", drain.home.sandbox.world.merchant("sakura").id, {})])
    (request,) = list(drain.tick().run_requests or ())
    assert (request.job_name, start(request)) == ("sync_square", (f"{B}|{day}",) * 2)
