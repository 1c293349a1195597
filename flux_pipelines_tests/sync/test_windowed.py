"""The engine over a source in memory: every order lands once, on its business date; what is missing is told."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import (
    DayNotReadyError,
    EmptiedError,
    IncompleteError,
    PermissionLostError,
    ProviderUnavailableError,
    UnknownZoneError,
)
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.providers.base import Location, TimeField, Window
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines.sync.reconcile import difference, recount
from flux_pipelines.sync.records import DayOutcome
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.sync.memory import MemorySource, sale
from flux_pipelines_tests.sync.rawfiles import raw_store

NEW_YORK = "America/New_York"
LOCATIONS = [
    Location("L1", "One", NEW_YORK, "USD"),
    Location("L2", "Two", NEW_YORK, "USD"),
    Location("L3", "Three", NEW_YORK, "USD", active=False),
    Location("T1", "Tokyo", "Asia/Tokyo", "JPY"),
]
CONNECTION = Connection("square:test", "tenant", settings={"cutoff_hour": 4})
FIRST = date(2026, 3, 6)  # the clocks change on the 8th: one of these days has 23 hours
DAYS = [FIRST + timedelta(days=n) for n in range(6)]


def world(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Sales spread over the days and some hours around them, with many ties."""
    chance = random.Random(seed)
    start = datetime(2026, 3, 5, tzinfo=UTC)
    seconds = 8 * 86400
    orders = []
    for number in range(count):
        at = start + timedelta(seconds=chance.choice([chance.randrange(seconds), 86400 * 3 + chance.randrange(5)]))
        location = chance.choice(LOCATIONS).location_id
        order = sale(f"O{number}", at, location, amount=number)
        if number % 17 == 0:
            order |= {"state": "CANCELED"}
        if number % 23 == 0:
            order |= {"state": "OPEN", "closed_at": None}
        orders.append(order)
    return orders


def expected(orders: list[dict[str, Any]]) -> dict[date, set[str]]:
    zones = {location.location_id: BusinessCalendar(location.timezone, 4) for location in LOCATIONS}
    found: dict[date, set[str]] = {day: set() for day in DAYS}
    for order in orders:
        day = zones[order["location_id"]].date_of(datetime.fromisoformat(order["created_at"]))
        if day in found:
            found[day].add(order["id"])
    return found


def landed(raw: RawStore, day: date) -> list[str]:
    manifest = raw.read_manifest(CONNECTION.key, day)
    assert manifest is not None
    with raw.local_file(manifest) as path:
        lines = [json.loads(line) for block in raw_blocks(path) for line in block] if path else []
    assert manifest.orders == len(lines) == sum(manifest.states.values())
    return [line["id"] for line in lines]


def sync(source: MemorySource, raw: RawStore, days: Sequence[date] = DAYS, **options: Any) -> dict[date, DayOutcome]:
    of_context = {name: options.pop(name) for name in ("token", "accept_empty") if name in options}
    context = SyncContext(source, CONNECTION, LOCATIONS, raw, PROVIDER, **of_context)
    return {o.day: o for o in read_windowed(context, days, **options)}


@pytest.mark.parametrize("parallel", [1, 3, 8])
@pytest.mark.parametrize("restart_every", [0, 2])
def test_every_order_lands_once_on_its_day(parallel: int, restart_every: int, tmp_path: Path) -> None:
    orders = world(700)
    source = MemorySource(orders, LOCATIONS, restart_every=restart_every, page_size=10 if not restart_every else 400)
    raw = raw_store(tmp_path)
    outcomes = sync(source, raw, parallel=parallel)
    for day, ids in expected(orders).items():
        found = landed(raw, day)
        assert sorted(found) == sorted(ids)
        manifest = outcomes[day].manifest
        assert outcomes[day].status == "committed"
        assert manifest is not None
        assert manifest.verification.status == "verified", manifest.verification
        completed = [o for o in orders if o["id"] in ids and o["state"] == "COMPLETED"]
        assert manifest.totals == {"USD": sum(o["total_money"]["amount"] for o in completed)}
        assert sum(window.end - window.start > timedelta(hours=22) for window in manifest.windows) == 2


@pytest.mark.parametrize("parallel", [1, 8])
@pytest.mark.parametrize("number", [3, 9, 14])
def test_a_list_that_begins_again_brings_nothing_twice(parallel: int, number: int, tmp_path: Path) -> None:
    """Dates that were complete already come again, in what lands and in what is counted to prove it."""
    orders = world(700)
    source = MemorySource(orders, LOCATIONS, from_the_start=number, page_size=7)
    raw = raw_store(tmp_path)
    outcomes = sync(source, raw, parallel=parallel)
    for day, ids in expected(orders).items():
        assert sorted(landed(raw, day)) == sorted(ids)
        assert outcomes[day].error is None
    if parallel == 1:
        assert len(source.asked) == 12, "three groups in two batches, fetched once and counted once"


@pytest.mark.parametrize("oldest_first", [True, False])
def test_what_lies_before_or_after_the_time_asked_for_is_on_no_date_of_it(tmp_path: Path, oldest_first: bool) -> None:
    class Generous(MemorySource):
        """A client that asks for the second before its interval, and for the one that ends it."""

        def supports_slicing(self, _window: Window, _time_field: TimeField) -> bool:
            return oldest_first

        def pages(self, window: Window, time_field: TimeField) -> Any:
            second = timedelta(seconds=1)
            if time_field == "created":
                window = replace(window, start=window.start - second, end=window.end + second)
            return super().pages(window, time_field)

    day = date(2026, 3, 7)
    start, end = BusinessCalendar(NEW_YORK, 4).window(day)
    ours = sale("ours", start), sale("ours too", end - timedelta(seconds=1))
    others = sale("before", start - timedelta(seconds=1)), sale("after", end)
    raw = raw_store(tmp_path)
    outcome = sync(Generous([*ours, *others], LOCATIONS), raw, [day], parallel=1)[day]
    assert sorted(landed(raw, day)) == ["ours", "ours too"]
    told = {bad.order_id: bad.reason.rpartition(", ")[2] for bad in outcome.bad}
    assert told.pop("before") == "before the time that was asked for"
    # Of pages that come oldest first nothing is read that lies behind the end.
    assert told == ({} if oldest_first else {"after": "after the time that was asked for"})


def test_orders_of_one_second_may_come_in_any_order_over_pages(tmp_path: Path) -> None:
    begin, day = datetime(2026, 3, 7, 15, tzinfo=UTC), date(2026, 3, 7)
    orders = [sale(f"O{n}", begin + timedelta(milliseconds=250 * n)) for n in range(12)]
    source = MemorySource(orders, LOCATIONS, page_size=3)
    # A provider that sorts by whole seconds; within one the latest come first.
    source.sorted_by = lambda item: (item[0].replace(microsecond=0), -item[0].microsecond)
    raw = raw_store(tmp_path)
    outcome = sync(source, raw, [day], parallel=1)[day]
    assert outcome.manifest is not None
    assert outcome.manifest.verification.status == "verified"
    assert sorted(landed(raw, day)) == sorted(order["id"] for order in orders)


def test_a_long_window_is_cut_so_that_all_threads_work(tmp_path: Path) -> None:
    orders = world(3000)
    source = MemorySource(orders, LOCATIONS, page_size=10, seconds_a_page=0.01)
    day = date(2026, 3, 7)
    sync(source, raw_store(tmp_path), [day], verify=False, parallel=8)
    one_by_one = sum(-(-len(ids) // 10) for ids in [expected(orders)[day]])
    assert len(source.asked) > 5  # three groups of locations, and cuts; fewer of these on a busy machine
    assert source.pages_given < one_by_one * 1.5 + 12  # cuts cost a few pages, not many


def test_days_without_gaps_are_asked_for_in_one_window(tmp_path: Path) -> None:
    source = MemorySource(world(5), LOCATIONS, page_size=100)
    sync(source, raw_store(tmp_path), verify=False)
    # Three groups (New York's three locations need two), and two batches: the first day, then all the others.
    assert len(source.asked) == source.pages_given == 6


def test_a_day_of_the_same_sync_is_not_fetched_again(tmp_path: Path) -> None:
    source = MemorySource(world(100), LOCATIONS)
    raw = raw_store(tmp_path)
    sync(source, raw, DAYS[:2], token="one")
    before = source.pages_given
    assert [o.status for o in sync(source, raw, DAYS[:2], token="one").values()] == ["resumed", "resumed"]
    assert source.pages_given == before
    assert [o.status for o in sync(source, raw, DAYS[:2], token="two").values()] == ["committed", "committed"]
    assert [o.status for o in sync(source, raw, DAYS[:2]).values()] == ["committed", "committed"]


def test_a_second_sync_leaves_the_same_files(tmp_path: Path) -> None:
    orders = world(500)
    raw = raw_store(tmp_path)
    first = sync(MemorySource(orders, LOCATIONS), raw, parallel=1)
    second = sync(MemorySource(orders, LOCATIONS, seconds_a_page=0.005), raw, parallel=8)
    assert {d: o.manifest.sha256 for d, o in first.items() if o.manifest} == {
        d: o.manifest.sha256 for d, o in second.items() if o.manifest
    }


def test_an_empty_day_is_committed_only_after_access_is_proven(tmp_path: Path) -> None:
    source = MemorySource([], LOCATIONS)
    raw = raw_store(tmp_path)
    outcomes = sync(source, raw)
    assert source.access_confirmed == 1
    assert all(o.manifest is not None and o.manifest.orders == 0 for o in outcomes.values())

    class Revoked(MemorySource):
        def verify_access(self) -> str:
            raise PermissionLostError("the token no longer has ORDERS_READ", connection=CONNECTION.key)

    outcomes = sync(Revoked([], LOCATIONS), raw_store(tmp_path / "other"))
    assert {o.status for o in outcomes.values()} == {"failed"}
    assert all(isinstance(o.error, PermissionLostError) and o.manifest is None for o in outcomes.values())


def test_an_order_that_the_first_query_missed_is_found_by_the_second(tmp_path: Path) -> None:
    at = datetime(2026, 3, 7, 15, tzinfo=UTC)
    source = MemorySource([sale("A", at)], LOCATIONS)
    late = sale("LATE", at + timedelta(minutes=1))

    def arrive(time_field: TimeField, window: Window, number: int) -> None:
        if time_field == "closed" and late not in source.orders:
            source.orders.append(late)

    source.before_page = arrive
    raw = raw_store(tmp_path)
    outcome = sync(source, raw, [date(2026, 3, 7)])[date(2026, 3, 7)]
    assert outcome.status == "committed"
    assert sorted(landed(raw, date(2026, 3, 7))) == ["A", "LATE"]
    assert outcome.manifest is not None
    assert outcome.manifest.verification.status == "verified"


def test_what_stays_missing_is_told_by_number_and_the_day_is_not_resumed(tmp_path: Path) -> None:
    at = datetime(2026, 3, 7, 15, tzinfo=UTC)

    class Forgetful(MemorySource):
        def _matching(self, window: Window, time_field: TimeField) -> Any:
            return (
                item
                for item in super()._matching(window, time_field)
                if time_field == "closed" or item[1].header is None or item[1].header.order_id not in ("B", "C")
            )

    raw = raw_store(tmp_path)
    day = date(2026, 3, 7)
    source = Forgetful([sale(name, at) for name in "ABC"], LOCATIONS)
    outcome = sync(source, raw, [day], token="t")[day]
    assert outcome.status == "failed"
    assert isinstance(outcome.error, IncompleteError)
    assert outcome.error.rerun_helps
    assert "2 orders of 2026-03-07 are missing" in str(outcome.error)
    assert outcome.manifest is not None
    assert (outcome.manifest.verification.status, outcome.manifest.verification.confirmed) == ("short", 3)
    assert sync(source, raw, [day], token="t")[day].status == "failed"


def test_what_counts_as_a_sale_is_the_providers_word_and_not_the_state(tmp_path: Path) -> None:
    at, day = datetime(2026, 3, 7, 15, tzinfo=UTC), date(2026, 3, 7)
    waiting = {"state": "OPEN", "closed_at": None}
    orders = [
        sale("PAID", at, amount=700, **waiting, sold=True),
        sale("UNPAID", at, amount=90, **waiting, sold=False),
        sale("CLOSED", at, amount=5000),
        sale("CLOSED BUT NO SALE", at, amount=3, sold=False),
    ]

    class ByChange(MemorySource):
        verified_by: Final = "updated"  # type: ignore[misc,assignment]

    source = ByChange(orders, LOCATIONS)
    outcome = sync(source, raw_store(tmp_path), [day])[day]
    assert outcome.manifest is not None
    assert outcome.manifest.totals == {"USD": 5700}
    proof = outcome.manifest.verification
    assert (proof.status, proof.expected) == ("verified", 3), "an open order that is a sale takes part"
    assert proof.detail.endswith("(1 not closed yet)")

    found = recount(source, CONNECTION, LOCATIONS, [day], at + timedelta(days=1))
    assert difference(outcome.manifest, found.days[day]) == ""
    orders[1]["sold"] = True  # it was paid since
    found = recount(source, CONNECTION, LOCATIONS, [day], at + timedelta(days=1))
    assert "come to 5790, landed were 5700" in difference(outcome.manifest, found.days[day])


def test_fewer_in_the_second_query_cannot_be_told(tmp_path: Path) -> None:
    at = datetime(2026, 3, 7, 15, tzinfo=UTC)

    class Blind(MemorySource):
        def _matching(self, window: Window, time_field: TimeField) -> Any:
            return () if time_field == "closed" else super()._matching(window, time_field)

    outcome = sync(Blind([sale("A", at)], LOCATIONS), raw_store(tmp_path), [date(2026, 3, 7)])[date(2026, 3, 7)]
    assert outcome.manifest is not None
    assert outcome.manifest.verification.status == "unverifiable"
    assert "1 orders fewer" in outcome.manifest.verification.detail


def test_a_newer_version_at_a_restart_wins(tmp_path: Path) -> None:
    at = datetime(2026, 3, 7, 15, tzinfo=UTC)
    orders = [sale(f"O{n}", at + timedelta(seconds=min(n, 9))) for n in range(20)]
    source = MemorySource(orders, LOCATIONS, page_size=15, restart_every=1)

    def edit(time_field: TimeField, window: Window, number: int) -> None:
        if number == 1:
            orders[12]["state"] = "CANCELED"
            orders[12]["updated_at"] = "2026-03-07T16:00:00.000Z"

    source.before_page = edit
    raw = raw_store(tmp_path)
    day = date(2026, 3, 7)
    manifest = sync(source, raw, [day], verify=False)[day].manifest
    assert manifest is not None
    assert manifest.states == {"CANCELED": 1, "COMPLETED": 19}
    assert sorted(landed(raw, day)) == sorted(o["id"] for o in orders)


def test_unreadable_orders_and_strangers_are_kept_aside_with_the_reason(tmp_path: Path) -> None:
    at = datetime(2026, 3, 7, 15, tzinfo=UTC)
    bad = sale("BAD", at + timedelta(seconds=1), unreadable=True)

    class Generous(MemorySource):
        def _matching(self, window: Window, time_field: TimeField) -> Any:
            from flux_pipelines_tests.sync.memory import read

            yield from super()._matching(window, time_field)
            if "L1" in window.location_ids and time_field == "created":
                yield at, read(sale("STRANGER", at, "ELSEWHERE"))

    source = Generous(
        [sale("A", at), bad, sale("B", at + timedelta(seconds=2))], LOCATIONS, page_size=3, restart_every=1
    )
    raw = raw_store(tmp_path)
    day = date(2026, 3, 7)
    outcome = sync(source, raw, [day])[day]
    assert sorted(landed(raw, day)) == ["A", "B"]
    assert {(r.order_id, r.reason.partition(",")[0]) for r in outcome.bad} == {
        (None, "it cannot be read"),
        ("STRANGER", "it is of the location 'ELSEWHERE'"),
    }
    assert json.loads(next(r.payload for r in outcome.bad if r.order_id is None)) == bad
    assert outcome.manifest is not None
    assert outcome.manifest.quarantined == 2
    assert outcome.manifest.verification.status == "unverifiable"


def test_a_permanent_error_stops_and_keeps_the_good_days(tmp_path: Path) -> None:
    source = MemorySource(world(200), LOCATIONS)

    def lose(time_field: TimeField, window: Window, number: int) -> None:
        if window.end > datetime(2026, 3, 8, 12, tzinfo=UTC):
            raise PermissionLostError("403", connection=CONNECTION.key)

    source.before_page = lose
    raw = raw_store(tmp_path)
    outcomes = sync(source, raw, token="t")
    assert outcomes[FIRST].status == "committed"
    assert {o.status for day, o in outcomes.items() if day > FIRST} == {"failed"}
    assert set(outcomes) == set(DAYS)
    assert raw.read_manifest(CONNECTION.key, DAYS[-1]) is None


def test_a_passing_error_does_not_stop_later_days_but_two_in_a_row_do(tmp_path: Path) -> None:
    far = [FIRST + timedelta(days=n) for n in (0, 2, 4, 6)]  # four runs
    source = MemorySource(world(50), LOCATIONS)
    failing: set[date] = {far[1]}

    def fail(time_field: TimeField, window: Window, number: int) -> None:
        if any(BusinessCalendar(NEW_YORK, 4).start(day) == window.start for day in failing):
            raise ProviderUnavailableError("500", connection=CONNECTION.key)

    source.before_page = fail
    outcomes = sync(source, raw_store(tmp_path), far)
    assert [outcomes[day].status for day in far] == ["committed", "failed", "committed", "committed"]
    failing.add(far[2])
    outcomes = sync(source, raw_store(tmp_path / "2"), far)
    assert [outcomes[day].status for day in far] == ["committed", "failed", "failed", "failed"]


def test_days_that_have_not_begun_and_days_that_are_not_over(tmp_path: Path) -> None:
    import time_machine

    with time_machine.travel(datetime(2026, 3, 7, 18, tzinfo=UTC), tick=True):
        orders = [sale("NOW", datetime(2026, 3, 7, 17, tzinfo=UTC))]
        outcomes = sync(MemorySource(orders, LOCATIONS), raw_store(tmp_path), [date(2026, 3, 7), date(2026, 3, 9)])
    today, later = outcomes[date(2026, 3, 7)], outcomes[date(2026, 3, 9)]
    assert today.status == "committed"
    assert today.manifest is not None
    assert today.manifest.orders == 1
    assert today.manifest.verification.detail == "the day is not over"
    assert later.status == "failed"
    assert isinstance(later.error, DayNotReadyError)


def test_an_unknown_zone_names_the_location(tmp_path: Path) -> None:
    odd = [*LOCATIONS, Location("M1", "Crater", "Moon/Tycho", "USD")]
    context = SyncContext(MemorySource([], odd), CONNECTION, odd, raw_store(tmp_path), PROVIDER)
    outcomes = list(read_windowed(context, DAYS))
    assert {o.status for o in outcomes} == {"failed"}
    assert isinstance(outcomes[0].error, UnknownZoneError)
    assert "M1 (Crater)" in str(outcomes[0].error)
    assert "Moon/Tycho" in str(outcomes[0].error)


def test_a_damaged_partition_is_fetched_anew(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    source = MemorySource(world(50), LOCATIONS)
    sync(source, raw, DAYS[:1], token="t")
    manifest = next((tmp_path / "lake").rglob("manifest.json"))
    manifest.write_text("{")
    assert sync(source, raw, DAYS[:1], token="t")[FIRST].status == "committed"


@pytest.mark.parametrize("what", ["everything", "the file", "the second query"])
def test_a_day_with_orders_that_comes_back_empty_fails_and_keeps_them(what: str, tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    orders = world(200)
    source = MemorySource(list(orders), LOCATIONS)
    sync(source, raw, DAYS, token="one")
    had = {day: landed(raw, day) for day in DAYS}
    if what == "the file":  # it is gone, and yet nobody may say that there was nothing
        for file in (tmp_path / "lake").rglob("*.zst"):
            file.unlink()

    class Silent(MemorySource):
        def _matching(self, window: Window, time_field: TimeField) -> Any:
            return super()._matching(window, time_field) if (what, time_field) == ("the second query", "closed") else ()

    outcomes = sync(Silent(list(orders), LOCATIONS), raw, DAYS, token="one" if what == "the file" else "two")
    assert {outcome.status for outcome in outcomes.values()} == {"failed"}, "each by itself, to the last"
    for day, outcome in outcomes.items():
        assert isinstance(outcome.error, EmptiedError)
        assert f"{len(had[day])} orders of {day} are stored, and the provider now says that there are none" in str(
            outcome.error
        )
        assert "--accept-empty" in str(outcome.error)
        kept = raw.read_manifest(CONNECTION.key, day)
        assert kept == outcome.manifest
        assert kept is not None
        assert (kept.orders, kept.verification.status) == (len(had[day]), "unverifiable")
        assert "there are none" in kept.verification.detail
    if what == "everything":
        assert {day: landed(raw, day) for day in DAYS} == had
    assert {o.status for o in sync(source, raw, DAYS, token="one").values()} == {"committed"}, "nothing is resumed"
    assert {day: landed(raw, day) for day in DAYS} == had
    gone = sync(MemorySource([], LOCATIONS), raw, DAYS, token="three", accept_empty=True)
    assert {(o.status, o.manifest.orders) for o in gone.values() if o.manifest} == {("committed", 0)}


def test_a_sync_does_not_resume_a_day_whose_file_is_gone(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    source = MemorySource(world(50), LOCATIONS)
    sync(source, raw, DAYS[:2], token="t")
    had = landed(raw, FIRST)
    next((tmp_path / "lake").rglob(f"{FIRST}/*.zst")).unlink()
    outcomes = sync(source, raw, DAYS[:2], token="t")
    assert {day: outcome.status for day, outcome in outcomes.items()} == {FIRST: "committed", DAYS[1]: "resumed"}
    assert landed(raw, FIRST) == had
