"""The contract suite: what every provider must bear before anybody's books are made with it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import pytest

from flux_pipelines.domain.errors import EmptiedError, FluxError, PermissionLostError, ReauthorizationNeededError
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.providers import witness
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days, read_now
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines.sync.records import DayOutcome
from flux_pipelines.sync.transform import transform
from flux_pipelines_tests.contract.conftest import Connect, Played, providers
from flux_sandbox.world import MALFORMED

pytestmark = pytest.mark.parametrize("name", providers())

FAULTS = "error500=0.04,error429=0.04,html=0.03,truncate=0.03,disconnect=0.02,cursor=0.1"


def today(played: Played) -> datetime:
    """Return the business date that is going on now at the merchant's first location."""
    from flux_pipelines.domain.business_day import BusinessCalendar

    zone = played.merchant.locations[0].timezone
    day = BusinessCalendar(zone, played.connection.cutoff_hour).date_of(datetime.now(UTC))
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def test_every_order_lands_once_is_proved_and_adds_up_to_the_truth(connect: Connect, name: str) -> None:
    played = connect(name)
    outcomes = played.sync(played.days)
    first = played.landed(outcomes)
    assert all(orders for orders, _ in first.values())
    assert {outcome.manifest.verification.status for outcome in outcomes.values() if outcome.manifest} == {"verified"}
    assert played.totals(outcomes) == played.true_totals(played.days)
    assert played.bad == []
    again = played.sync(played.days)
    assert played.landed(again) == first, "a rerun gives identical files"


def test_failures_of_every_kind_change_nothing(connect: Connect, name: str) -> None:
    played = connect(name)
    calm = played.landed(played.sync(played.days))
    faults = played.sandbox.world.faults
    retries = 0
    for _ in range(20):  # a provider that needs few calls meets few failures: until one had to be made again
        faults.change(FAULTS)
        try:
            stormy = played.sync(played.days)
        finally:
            faults.change("")
        assert played.landed(stormy) == calm
        retries += sum(outcome.manifest.retries for outcome in stormy.values() if outcome.manifest)
        if retries:
            break
    assert retries > 0


def test_being_told_to_slow_down_is_waited_for_in_the_providers_own_way(connect: Connect, name: str) -> None:
    played = connect(name)
    played.sandbox.world.faults.change("error429=0.3")
    try:
        outcomes = played.sync(played.days[-1:])
    finally:
        played.sandbox.world.faults.change("")
    assert played.totals(outcomes) == played.true_totals(played.days[-1:])


def test_a_token_that_expires_is_replaced_in_the_middle(connect: Connect, name: str) -> None:
    played = connect(name)
    days = played.days[-2:]
    assert played.of_this_merchant("tokens/expire")["expired"] >= 1
    outcomes = played.sync(days)
    assert played.totals(outcomes) == played.true_totals(days)


def test_a_revoked_authorisation_is_an_error_that_names_what_to_do_and_never_an_empty_day(
    connect: Connect, name: str
) -> None:
    played = connect(name)
    assert played.of_this_merchant("tokens/revoke")["revoked"] >= 1
    with pytest.raises(ReauthorizationNeededError) as refused:
        played.sync(played.days[-1:])
    assert played.connection.key in str(refused.value)
    assert refused.value.next_step
    assert not refused.value.rerun_helps
    assert played.runtime.raw.read_manifest(played.connection.key, played.last) is None
    assert played.runtime.state.connections.get(played.connection.key).status == "needs_reauth"


def test_a_permission_that_was_taken_away_is_an_error_and_never_an_empty_day(connect: Connect, name: str) -> None:
    played = connect(name)
    reading = [scope for scope in played.spec.scopes if "order" in scope.lower()]
    assert reading
    played.of_this_merchant("tokens/scopes", remove=reading)
    try:
        outcomes = played.sync(played.days[-1:])
        problems = [outcome.error for outcome in outcomes.values()]
    except FluxError as problem:
        problems = [problem]
    for lost in problems:
        assert isinstance(lost, PermissionLostError | ReauthorizationNeededError), lost
        assert not lost.rerun_helps
        assert played.connection.key in str(lost)
    assert played.runtime.raw.read_manifest(played.connection.key, played.last) is None


@pytest.mark.parametrize("kind", MALFORMED)
def test_an_order_that_nobody_can_use_goes_to_quarantine_alone(connect: Connect, name: str, kind: str) -> None:
    played = connect(name)
    store = played.merchant.locations[0].id
    sold = played.pull("orders/sell", location_id=store)["order_id"]
    bad = played.pull("orders/malformed", location_id=store, kind=kind)["order_id"]
    world = played.sandbox.world
    try:
        day = today(played).date()
        outcomes = played.sync([day])
        assert outcomes[day].error is None
        expected = played.true_totals([day])
        assert played.totals(outcomes) == expected
        assert expected
        assert len(played.bad) >= 1
        assert all(record.reason for record in played.bad)
        assert all(record.payload for record in played.bad)
    finally:
        for order in (sold, bad):  # the world is everybody's
            sale = world.sales.pop(order)
            for entries in (
                world.order_index[store].created,
                world.order_index[store].updated,
                world.order_index[store].closed,
            ):
                entries[:] = [entry for entry in entries if entry[1] != sale.id]


def test_a_day_without_orders_is_empty_and_proved_to_be(connect: Connect, name: str) -> None:
    played = connect(name)
    before = played.last - timedelta(days=HISTORY_AND_MORE)
    outcome = played.sync([before])[before]
    assert outcome.error is None
    assert outcome.manifest is not None
    assert (outcome.manifest.orders, outcome.manifest.file) == (0, "")
    assert outcome.manifest.verification.status == "verified"


HISTORY_AND_MORE = 20


def test_days_that_come_back_empty_fail_and_keep_what_they_had(connect: Connect, name: str) -> None:
    """Each provider says `nothing` in its own words, with status 200: by mistake as well."""
    played = connect(name)
    spec, runtime, connection, days = played.spec, played.runtime, played.connection, played.days[-2:]
    landed = played.landed(played.sync(days))
    source = runtime.source(connection)
    locations = runtime.refresh_locations(connection, source)
    # A report without figures is no witness, which is a record of its own.
    daily = [stream.name for stream in spec.streams if stream.strategy == "daily" and stream.name != "reported_sales"]

    def read(stream: str) -> list[DayOutcome]:
        return list(read_days(SyncContext(source, connection, locations, runtime.raw.of(stream), spec), days))

    try:
        had = {stream: read(stream) for stream in daily}
        played.pull("withhold", merchant=played.merchant.handle)
        has = {"orders": list(played.sync(days).values()), **{stream: read(stream) for stream in daily}}
    finally:
        played.pull("withhold", merchant=played.merchant.handle, back=True)
        source.close()
    for stream, outcomes in has.items():
        for outcome in outcomes:
            assert isinstance(outcome.error, EmptiedError), (stream, outcome)
            assert outcome.manifest is not None
            assert outcome.manifest.verification.status == "unverifiable"
            assert outcome.manifest.verification.expected > 0
            assert f"of {outcome.day} are stored, and the provider now says that there are none" in str(outcome.error)
    assert {o.day: (o.manifest.orders, o.manifest.sha256) for o in has["orders"] if o.manifest} == landed
    for stream in daily:
        before, after = ([o.manifest.sha256 for o in many if o.manifest] for many in (had[stream], has[stream]))
        assert before == after
    assert played.landed(played.sync(days)) == landed, "and when they are there again, they are as they were"


def test_every_feed_is_collected_and_every_table_is_made_of_it(connect: Connect, name: str) -> None:
    played = connect(name)
    spec, runtime, connection = played.spec, played.runtime, played.connection
    source = runtime.source(connection)
    locations = runtime.refresh_locations(connection, source)
    days = played.days[-2:]
    landed = {"orders": [outcome.manifest for outcome in played.sync(days).values()]}
    try:
        for stream in spec.streams:
            if stream.name == "orders":
                continue
            context = SyncContext(source, connection, locations, runtime.raw.of(stream.name), spec)
            outcomes = list(read_days(context, days)) if stream.strategy == "daily" else [read_now(context)]
            assert all(outcome.error is None for outcome in outcomes)
            landed[stream.name] = [outcome.manifest for outcome in outcomes]
    finally:
        source.close()
    assert spec.tables
    for table in spec.tables:
        if table.table == "transactions":
            continue
        manifests = [manifest for manifest in landed[table.stream] if manifest is not None]
        made = transform(spec, table, connection, locations, runtime.raw.of(table.stream), manifests)
        assert made.bad == [], (table.table, made.bad[:1])
        assert made.rows.num_rows, table.table


def test_dates_of_a_feed_hold_the_same_asked_for_together_or_one_by_one(connect: Connect, name: str) -> None:
    played = connect(name)
    spec, runtime, connection = played.spec, played.runtime, played.connection
    source = runtime.source(connection)
    locations = runtime.refresh_locations(connection, source)

    def held(raw: RawStore, outcomes: Iterable[DayOutcome]) -> dict[date, list[str]]:
        """What the dates hold: lines, or of reports, which say the same with more rows or fewer, the rows made of them."""
        found = {}
        for outcome in outcomes:
            assert outcome.error is None
            assert outcome.manifest is not None
            if raw.stream == witness.STREAM:
                (table,) = (one for one in spec.tables if one.stream == raw.stream)
                made = transform(spec, table, connection, locations, raw, [outcome.manifest])
                found[outcome.day] = sorted(map(str, made.rows.to_pylist()))
                continue
            with raw.local_file(outcome.manifest) as file:
                found[outcome.day] = sorted(str(line) for block in raw_blocks(file) for line in block) if file else []
        return found

    try:
        for stream in spec.streams:
            if stream.strategy != "daily":
                continue
            raw = runtime.raw.of(stream.name)
            context = SyncContext(source, connection, locations, raw, spec)
            together = held(raw, read_days(context, played.days))
            assert together.keys() == set(played.days)
            for day in played.days:
                alone = held(raw, read_days(context, [day]))
                assert alone == {day: together[day]}
    finally:
        source.close()


def test_personal_data_is_declared(connect: Connect, name: str) -> None:
    played = connect(name)
    declared = played.spec.redaction
    assert declared.remove or declared.pseudonymise
    assert any(setting.name == "keep_personal_data" and setting.default == 0 for setting in played.spec.settings)
