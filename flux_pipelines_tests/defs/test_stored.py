"""What is stored stays when the provider says `nothing`, and what cannot be read costs itself alone and is fetched again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import time_machine

from flux_pipelines.defs import freshness, names
from flux_pipelines.defs.runner import SyncReport, sync
from flux_pipelines.defs.sensors.changes import change_sensors
from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.erasure import erase
from flux_pipelines.lake import hour_slot
from flux_pipelines.providers.base import Erasure
from flux_pipelines.providers.registry import provider
from flux_pipelines_tests.defs.conftest import END_DAY, Home, made_once, open_copy
from flux_pipelines_tests.defs.test_order_sensors import hour, start
from flux_pipelines_tests.defs.test_stream_sensors import asked, run
from flux_pipelines_tests.defs.webhooks import Drain, days, payment
from flux_sandbox.server import RunningSandbox

SQUARE = provider("square")
A, B = "square:fjord", "square:sakura"
DAYS = [END_DAY - timedelta(days=n) for n in (2, 1, 0)]
CLOSED = datetime(2026, 3, 10, 16, 10, tzinfo=UTC)  # END_DAY has ended in Tokyo
#: A run that somebody waits for is not tried again after a minute.
ONCE = {names.DRIVER_TAG: "host:somebody"}
TABLES = (
    "square.transactions",
    "transactions",
    "daily_sales",
    "square.payments",
    "payments",
    "time_entries",
    "tie_out",
)


def withhold(home: Home, merchant: str, *, back: bool = False) -> None:
    """Let the provider answer that nothing was ever sold or worked there, or (`back`) what is true."""
    httpx.post(f"{home.sandbox.url}/sandbox/withhold", json={"merchant": merchant, "back": back}).raise_for_status()


def contents(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    made = [name for name in TABLES if name.replace(".", "/") in home.runtime.lake.tables()]
    return {name: home.ask(f"select count(*), bit_xor(md5_number(t::varchar)) from {name} t") for name in made}


def alerts(home: Home) -> dict[str, str]:
    return {alert.kind: alert.message for alert in home.runtime.state.alerts.open() if alert.connection_key == B}


def folder(home: Home, day: date, stream: str = "orders", connection: str = B) -> Path:
    return home.runtime.settings.home / "lake" / "raw" / "square" / stream / connection.partition(":")[2] / str(day)


def why(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(
        str(event.step_failure_data.user_failure_data.description)
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    )


# --- what comes back empty ---


def test_days_that_come_back_empty_are_red_keep_every_row_and_alert_until_they_are_back(changing_home: Home) -> None:
    home = changing_home
    keys = home.connect("fjord", "sakura")
    assert sync(home.runtime, keys, DAYS, beside_orders=False).failures == []
    had = contents(home)
    orders = {one.business_date: one.orders for one in home.runtime.raw.manifests(B, DAYS[0], DAYS[-1]).values()}
    withhold(home, "sakura")
    report = sync(home.runtime, keys, DAYS, beside_orders=False)
    told = "\n".join(report.failures)
    for day in DAYS:
        assert f"{B}: {orders[day]} orders of {day} are stored, and the provider now says that there are none" in told
    assert "Running it again can help." in told
    assert "--accept-empty" in told
    assert A not in told
    assert contents(home) == had
    assert home.runtime.state.syncs.recent()[0].state == "failed"

    # Where a person looks: the check, the partition's own page, the alert.
    (last,) = home.instance.fetch_observations(dg.AssetKey(["square", "raw_orders"]), limit=1).records
    assert last.partition_key == f"{B}|{DAYS[-1]}"
    seen = last.asset_observation
    assert seen is not None
    assert (seen.metadata["verification"].value, seen.metadata["orders"].value) == ("unverifiable", orders[DAYS[-1]])
    assert "there are none" in str(seen.metadata["verification detail"].value)
    failed = home.sync((B, DAYS[0]), (B, DAYS[0]), tags=ONCE)
    assert not failed.success
    (check,) = [one for one in failed.get_asset_check_evaluations() if one.check_name == "completeness"]
    assert not check.passed
    assert "came back empty" in check.metadata["sample"].value
    message = alerts(home)["came_back_empty"]
    assert f"orders of {DAYS[0]} to {DAYS[-1]} ({sum(orders.values())} records)" in message
    assert f"`flux sync square --connection {B} --from {DAYS[0]} --to {DAYS[-1]}`" in message
    assert alerts(home).keys() == {"came_back_empty"}

    withhold(home, "sakura", back=True)
    assert home.sync((B, DAYS[0]), (B, DAYS[1])).success
    assert f"orders of {DAYS[-1]} ({orders[DAYS[-1]]} records)" in alerts(home)["came_back_empty"], "one is still out"
    assert sync(home.runtime, keys, DAYS, beside_orders=False).failures == []
    assert alerts(home) == {}
    assert contents(home) == had


def test_feeds_that_come_back_empty_are_red_and_keep_every_row(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    assert sync(home.runtime, [B], DAYS[-1:]).failures == []
    had = contents(home)
    withhold(home, "sakura")
    key = str(Partition(B, END_DAY))
    done = home.run(names.stream_job("square", "daily"), key, key, tags=ONCE)
    assert not done.success
    assert " payment records" in why(done)
    assert " time_entry records" in why(done)
    assert contents(home) == had
    message = alerts(home)["came_back_empty"]
    assert f"payments of {END_DAY}" in message
    assert "orders of" not in message
    # A test sale may really have been taken away: who knows better says so.
    config = {"ops": {f"square__raw_{stream}": {"config": {"accept_empty": True}} for stream in ("payments", "labor")}}
    assert home.run(names.stream_job("square", "daily"), key, key, run_config=config).success
    assert home.ask("select count(*) from square.payments") == [(0,)]
    assert alerts(home) == {}


def test_a_day_that_came_back_empty_is_asked_for_again_by_itself(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    _, sensor = freshness.watch(SQUARE)
    with time_machine.travel(CLOSED):
        assert home.sync((B, DAYS[0]), (B, END_DAY)).success
        assert hour(home, CLOSED) == []
        withhold(home, "sakura")
        assert not home.sync((B, END_DAY), (B, END_DAY), tags=ONCE).success
        (request,) = hour(home, CLOSED)
        assert start(request) == (f"{B}|{END_DAY}", f"{B}|{END_DAY}")
    with time_machine.travel(CLOSED + timedelta(hours=3)):
        late, open_alerts, *_ = home.tick(sensor).asset_events
        assert isinstance(late, dg.AssetCheckEvaluation)
        assert "came back empty" in late.metadata["late"].value
        assert isinstance(open_alerts, dg.AssetCheckEvaluation)
        assert not open_alerts.passed
    withhold(home, "sakura", back=True)
    with time_machine.travel(CLOSED):
        job = home.definitions.resolve_job_def(str(request.job_name))
        assert job.execute_in_process(instance=home.instance, tags=request.tags).success
        assert hour(home, CLOSED) == []
    assert alerts(home) == {}


# --- what cannot be read ---

Damage = Callable[[Path], None]


def _cut_off(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:100])


def _of_another(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes().replace(b"square:sakura", b"square:fjord"))


def _nothing_in_it(manifest: Path) -> None:
    manifest.write_bytes(b"")


def _not_to_be_opened(manifest: Path) -> None:
    manifest.unlink()
    manifest.symlink_to(manifest)  # the system refuses, whoever asks


def _file_gone(manifest: Path) -> None:
    next(manifest.parent.glob("*.zst")).unlink()


def _file_damaged(manifest: Path) -> None:
    file = next(manifest.parent.glob("*.zst"))
    file.write_bytes(b"x" * file.stat().st_size)


DAMAGES = (_cut_off, _of_another, _nothing_in_it, _not_to_be_opened, _file_gone, _file_damaged)


@pytest.fixture(scope="module")
def landed_once(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Path:
    def happen(home: Home) -> None:
        home.connect("fjord", "sakura")
        assert home.sync((A, DAYS[0]), (B, DAYS[2])).success

    return made_once(tmp_path_factory.mktemp("landed") / "home", sandbox, happen)


@pytest.fixture(scope="module")
def collected_once(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Path:
    def happen(home: Home) -> None:
        assert sync(home.runtime, home.connect("fjord", "sakura"), DAYS).failures == []

    return made_once(tmp_path_factory.mktemp("collected") / "home", sandbox, happen)


@pytest.fixture
def landed(environment: Path, landed_once: Path, sandbox: RunningSandbox) -> Iterator[Home]:
    """Two connections with the orders of three complete days; nobody may change the sandbox."""
    yield from open_copy(landed_once, sandbox)


@pytest.fixture
def collected(environment: Path, collected_once: Path, sandbox: RunningSandbox) -> Iterator[Home]:
    """The same with what is beside orders, marts and forecasts."""
    yield from open_copy(collected_once, sandbox)


def test_damaged_days_are_fetched_again_the_next_night_and_told_until_they_are_read(landed: Home) -> None:
    home = landed
    had = contents(home)
    with time_machine.travel(CLOSED):
        assert hour(home, CLOSED) == []
        for number, damage in enumerate(DAMAGES):
            day = DAYS[number % 3]
            damage(folder(home, day) / "manifest.json")
            (request,) = hour(home, CLOSED)
            assert start(request) == (f"{B}|{day}", f"{B}|{day}"), damage.__name__
            message = alerts(home)["records_damaged"]
            assert f"cannot be read: orders of {day}." in message
            assert f"--connection {B} --from {day} --to {day}`" in message
            job = home.definitions.resolve_job_def(str(request.job_name))
            assert job.execute_in_process(instance=home.instance, tags=request.tags).success, damage.__name__
            assert alerts(home) == {}
            assert hour(home, CLOSED) == []
    assert contents(home) == had


def test_feeds_that_are_damaged_are_collected_again(collected: Home) -> None:
    home = collected
    at = CLOSED + timedelta(hours=1)
    with time_machine.travel(at):
        before = asked(home, "square_daily_records", at)
        _cut_off(folder(home, DAYS[0], "payments") / "manifest.json")
        fresh = [one for one in asked(home, "square_daily_records", at) if one not in before]
        due = [start(one) for one in fresh if one.tags[names.STREAM_TAG] == "payments"]
        assert [first for first, _ in due] == [f"{B}|{DAYS[0]}"]
        assert f"payments of {DAYS[0]}" in alerts(home)["records_damaged"]
        for request in fresh:
            assert run(home, request).success
        assert alerts(home) == {}
    now = datetime.now(UTC)
    _cut_off(folder(home, now.date(), "catalog").with_name("current") / "manifest.json")
    (request,) = [one for one in asked(home, "square_catalog", now) if one.tags[names.CONNECTION_TAG] == B]
    assert alerts(home)["records_damaged"].startswith("what is stored cannot be read: catalog.")
    assert run(home, request).success
    assert alerts(home) == {}


def test_a_manifest_that_is_put_back_ends_the_alert(landed: Home) -> None:
    manifest = folder(landed, DAYS[1]) / "manifest.json"
    sound = manifest.read_bytes()
    with time_machine.travel(CLOSED):
        _cut_off(manifest)
        assert hour(landed, CLOSED)
        assert alerts(landed)
        manifest.write_bytes(sound)
        assert hour(landed, CLOSED) == []
    assert alerts(landed) == {}


def test_flux_sync_mends_damaged_days_and_they_cost_no_other(collected: Home) -> None:
    home = collected
    had = contents(home)

    def again(days: list[date]) -> SyncReport:
        return sync(home.runtime, [A, B], days, beside_orders=False)

    _cut_off(folder(home, DAYS[0]) / "manifest.json")
    _file_gone(folder(home, DAYS[1]) / "manifest.json")
    assert again(DAYS[2:]).failures == []
    done = home.sync((A, DAYS[0]), (B, DAYS[2]), asset_selection=[dg.AssetKey(["square", "transactions"])])
    assert not done.success
    assert "2 of 6 partitions failed" in why(done)
    assert "`flux sync` over its business date" in why(done)
    assert f"orders of {DAYS[0]} to {DAYS[1]}" in alerts(home)["records_damaged"]
    assert contents(home) == had, "what cannot be made again is what it was"
    # The core tables and the forecasts of that date go on with the rows there are.
    assert home.run(names.REFRESH_CORE_JOB, str(DAYS[0]), str(DAYS[2])).success
    assert home.run(names.REFRESH_BOOKS_JOB, str(DAYS[0]), str(DAYS[2])).success
    assert contents(home) == had
    assert again(DAYS).failures == []
    assert alerts(home) == {}
    assert contents(home) == had


def test_running_the_same_run_again_fetches_a_file_that_is_gone(landed: Home) -> None:
    """The advice is to run the raw asset again, and `Re-execute` is how people do that: it is the same sync."""
    home = landed
    first = home.sync((B, END_DAY), (B, END_DAY))
    _file_gone(folder(home, END_DAY) / "manifest.json")
    again = home.sync((B, END_DAY), (B, END_DAY), tags={names.SYNC_TAG: first.run_id})
    assert again.success
    manifest = home.runtime.raw.read_manifest(B, END_DAY)
    assert manifest is not None
    assert home.runtime.raw.is_whole(manifest)


def test_sensors_and_the_daily_comparison_go_on_past_what_is_damaged(changing_home: Home) -> None:
    home = changing_home
    home.connect("fjord", "sakura")
    assert home.sync((A, DAYS[0]), (B, DAYS[2])).success
    quiet = home.tick(change_sensors(SQUARE)[0])
    _cut_off(folder(home, DAYS[1]) / "manifest.json")
    sold = httpx.get(f"{home.sandbox.url}/sandbox/orders", params={"merchant": "sakura", "limit": "4000"}).json()
    noon = {day: datetime(day.year, day.month, day.day, 3, tzinfo=UTC).timestamp() * 1000 for day in DAYS[1:]}
    for at in noon.values():
        order = min(sold["orders"], key=lambda one: abs(one["created_ms"] - at))
        body = {"order_id": order["order_id"], "add_units": 1}
        httpx.post(f"{home.sandbox.url}/sandbox/orders/edit", json=body).raise_for_status()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=5)):
        changed = home.tick(change_sensors(SQUARE)[0], quiet.cursor)
    assert {start(request) for request in changed.run_requests or ()} == {(f"{B}|{DAYS[1]}", f"{B}|{DAYS[2]}")}
    with time_machine.travel(CLOSED):
        job = home.definitions.resolve_job_def(names.RECONCILE_JOB)
        assert job.execute_in_process(instance=home.instance).success
    assert f"orders of {DAYS[1]}" in alerts(home)["records_damaged"]
    asked_again = {(one.first_day, one.last_day) for one in home.runtime.state.sync_requests.open()}
    assert asked_again == {(DAYS[1], DAYS[1]), (DAYS[2], DAYS[2])}


def test_what_a_webhook_brought_and_is_damaged_before_it_is_done_goes_again(changing_home: Home) -> None:
    home = changing_home
    home.connect("sakura")
    sale = home.sandbox.world.sell(home.sandbox.world.merchant("sakura").locations[0].id)
    with closing(Drain(home)) as drain:
        drain.inbox.add_many([payment(sale)])
        (request,) = drain.tick().run_requests or ()
        assert drain.run(request).success
        (day,) = days(request)
        _cut_off(folder(home, day) / "manifest.json")
        drain.all()
        assert drain.inbox.counts()["done"] == 1
    assert home.ask(f"select count(*) > 0 from transactions where order_id = '{sale.id}'") == [(True,)]
    assert list(home.runtime.raw.manifests(B, day, day)) == [day]


def test_snapshots_of_hours_that_cannot_be_read_keep_their_rows(home: Home) -> None:
    (sakura,) = home.connect("sakura")
    job, key = names.stream_job("square", "hourly"), str(Partition(sakura, datetime.now(UTC).date()))
    noon = datetime.now(UTC).replace(hour=12, minute=5)
    with time_machine.travel(noon):
        assert home.run(job, key, key).success
    first = home.ask("select snapshot_at, count(*) from square.inventory_levels group by 1")
    place = home.runtime.settings.home / "lake/raw/square/inventory/sakura" / hour_slot(noon)
    (place / "manifest.json").write_bytes(b"{")
    with time_machine.travel(noon + timedelta(hours=1)):
        assert home.run(job, key, key).success
    both = home.ask("select snapshot_at, count(*) from square.inventory_levels group by 1 order by 1")
    assert (len(both), both[:1]) == (2, first), "what cannot be read can neither be had again nor be lost"
    message = alerts(home)["records_damaged"]
    assert f"inventory of {hour_slot(noon)}" in message
    assert "restore them from a backup" in message


def test_an_erasure_says_what_it_could_not_search_and_does_all_others(landed: Home) -> None:
    home = landed
    connection = home.runtime.state.connections.get(B)
    for day in DAYS[:2]:
        _cut_off(folder(home, day) / "manifest.json")
    with pytest.raises(TableDamagedError, match="2 raw partitions could not be searched") as caught:
        erase(home.runtime, connection, Erasure())
    for day in DAYS[:2]:
        assert str(day) in str(caught.value)
    assert sync(home.runtime, [B], DAYS, beside_orders=False).failures == []
    erase(home.runtime, connection, Erasure())
