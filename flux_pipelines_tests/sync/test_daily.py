"""Streams into raw partitions: whole days or none, exactly as received, not twice, and nothing of a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import (
    EmptiedError,
    FluxError,
    HistoryUnavailableError,
    PermissionLostError,
    ProviderUnavailableError,
)
from flux_pipelines.lake.raw import RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Location, Provider, Record, Stream, Window
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days, read_now
from flux_pipelines.sync.records import DayOutcome

TOY = Provider(
    name="toy", title="Toy", owner="team:toys", docs_url="", base_url="", api_version="7", rate_limits=(), settings=(), secrets=(),
    streams=(
        Stream("payments", "payments", "daily"),
        Stream("inventory", "stock", "hourly"),
        Stream("catalog", "products", "current"),
    ),
)  # fmt: skip
CONNECTION = Connection("toy:acme", "acme", settings={"cutoff_hour": 4})
LOCATIONS = [
    Location("L1", "One", "America/New_York", "USD"),
    Location("L2", "Two", "America/New_York", "USD", active=False),
    Location("L3", "Three", "Asia/Tokyo", "JPY"),
]
DAYS = [date(2026, 3, 6), date(2026, 3, 7), date(2026, 3, 8), date(2026, 3, 9)]
AWKWARD = b'{ "id" : "\xc3\xa9", "amount":1.10,\n  "big": 12345678901234567890.0 }'


class MemorySource:
    """A `Source` over records with an instant each. `before` may raise for a window."""

    max_locations_per_window = 10

    def __init__(self, records: Sequence[tuple[datetime, str, bytes]]) -> None:
        self.records = list(records)
        self.asked: list[Window] = []
        self.before: Callable[[Window], None] = lambda window: None
        self._lock = threading.Lock()

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        with self._lock:
            self.asked.append(window)
        self.before(window)
        now = window.start == window.end
        found = [
            Record("payment", location, msgspec.Raw(raw), None if b"timeless" in raw else at)
            for at, location, raw in self.records
            if location in (*window.location_ids, "L9") and (now or window.start <= at < window.end)
        ]
        for start in range(0, len(found), 2):
            yield found[start : start + 2]

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:
        raise NotImplementedError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def records() -> list[tuple[datetime, str, bytes]]:
    return [
        (at("2026-03-08T03:59:00-04:00"), "L1", AWKWARD),  # before the cut-off, on the day that has 23 hours: the 7th
        (at("2026-03-08T04:00:00-04:00"), "L1", b'{"id":"b"}'),
        (at("2026-03-08T23:00:00+09:00"), "L3", b'{"id":"c"}'),
        *((at("2026-03-09T12:00:00-04:00"), "L2", b'{"id":"d%d"}' % n) for n in range(5)),
    ]


def store(folder: Path, stream: str = "payments") -> RawStore:
    return RawStore(object_store(str(folder / "lake")), stream)


def context(
    source: MemorySource,
    raw: RawStore,
    provider: Provider = TOY,
    locations: Sequence[Location] = LOCATIONS,
    **more: Any,
) -> SyncContext:
    return SyncContext(source, CONNECTION, locations, raw, provider, **more)  # type: ignore[arg-type]


def lines(raw: RawStore, manifest: RawManifest | None) -> list[bytes]:
    assert manifest is not None
    with raw.local_file(manifest) as path:
        if path is None:
            return []
        return (
            zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read().splitlines()
        )


def test_days_hold_what_fell_on_them_byte_for_byte(tmp_path: Path) -> None:
    source, raw = MemorySource(records()), store(tmp_path)
    source.max_locations_per_window = 1
    outcomes = list(read_days(context(source, raw), DAYS))
    assert [(o.day, o.status) for o in outcomes] == [(day, "committed") for day in DAYS]
    found = {o.day: lines(raw, o.manifest) for o in outcomes}
    assert {day.day: len(there) for day, there in found.items()} == {6: 0, 7: 1, 8: 2, 9: 5}
    (awkward,) = found[DAYS[1]]
    assert awkward == b'{"kind":"payment","location_id":"L1","object":' + AWKWARD.replace(b"\n", b" ") + b"}"
    (manifest,) = [o.manifest for o in outcomes if o.day == DAYS[2]]
    assert manifest is not None
    assert (manifest.stream, manifest.orders, manifest.states, manifest.api_version) == (
        "payments",
        2,
        {"payment": 2},
        "7",
    )
    new_york, tokyo = sorted(manifest.windows, key=lambda window: window.locations)
    assert (new_york.end - new_york.start).total_seconds() == 24 * 3600
    assert (new_york.locations, tokyo.locations) == (("L1", "L2"), ("L3",))
    assert {window.location_ids for window in source.asked} == {("L1",), ("L2",), ("L3",)}
    assert sorted(tmp_path.glob("lake/raw/toy/*/acme/*")) == [
        tmp_path / "lake/raw/toy/payments/acme" / day.isoformat() for day in DAYS
    ]


#: A stream whose records tell when they happened, so that dates are asked for together.
TOGETHER = replace(TOY, streams=(Stream("payments", "payments", "daily", dates_a_window=3),))


def test_dates_that_are_asked_for_together_hold_what_they_hold_alone(tmp_path: Path) -> None:
    given = [*records(), (at("2026-03-09T13:00:00-04:00"), "L2", b'{"id":"timeless"}')]
    found = []
    for provider in (TOY, TOGETHER):
        source, raw = MemorySource(given), store(tmp_path / str(len(found)))
        outcomes = list(read_days(context(source, raw, provider), DAYS))
        assert [(o.day, o.status) for o in outcomes] == [(day, "committed") for day in DAYS]
        found.append({o.day: (lines(raw, o.manifest), o.manifest.windows) for o in outcomes if o.manifest})
    assert found[0] == found[1]
    asked = {(window.business_date, len(window.starts), window.location_ids) for window in source.asked}
    assert asked == {(day, n, ids) for day, n in ((DAYS[0], 3), (DAYS[3], 0)) for ids in (("L1", "L2"), ("L3",))}


def test_dates_that_do_not_follow_one_another_are_not_asked_for_together(tmp_path: Path) -> None:
    source, raw = MemorySource(records()), store(tmp_path)
    days = [DAYS[0], DAYS[2], DAYS[3], date(2999, 1, 1)]
    outcomes = {o.day: o.status for o in read_days(context(source, raw, TOGETHER), days)}
    assert [outcomes[day] for day in days] == ["committed", "committed", "committed", "failed"]
    assert {(window.business_date, len(window.starts)) for window in source.asked} == {(DAYS[0], 0), (DAYS[2], 2)}


@pytest.mark.parametrize(
    "error", [ProviderUnavailableError("it is down"), HistoryUnavailableError("it lies too far back")]
)
def test_a_date_that_fails_costs_none_that_was_asked_for_with_it(error: FluxError, tmp_path: Path) -> None:
    source, raw = MemorySource(records()), store(tmp_path)

    def before(window: Window) -> None:
        if window.start <= at("2026-03-07T12:00:00-04:00") < window.end:
            raise error

    source.before = before
    outcomes = {o.day: o for o in read_days(context(source, raw, TOGETHER), DAYS)}
    assert [outcomes[day].status for day in DAYS] == ["committed", "failed", "committed", "committed"]
    assert outcomes[DAYS[1]].error is error
    assert {day: len(lines(raw, outcomes[day].manifest)) for day in (DAYS[0], *DAYS[2:])} == {
        DAYS[0]: 0,
        DAYS[2]: 2,
        DAYS[3]: 5,
    }
    assert not [path for path in tmp_path.glob("lake/.staging/**/*") if path.is_file() and path.suffix == ".zst"]


def test_the_same_sync_does_not_ask_twice_and_another_one_replaces(tmp_path: Path) -> None:
    source, raw = MemorySource(records()), store(tmp_path)

    def sync(token: str) -> list[str]:
        return [o.status for o in read_days(context(source, raw, token=token), DAYS)]

    assert sync("one") == ["committed"] * 4
    asked = len(source.asked)
    assert sync("one") == ["resumed"] * 4
    assert len(source.asked) == asked
    source.records.pop()
    assert sync("two") == ["committed"] * 4
    assert len(lines(raw, raw.read_manifest(CONNECTION.key, DAYS[3]))) == 4


def test_a_day_that_fails_stays_what_it_was_and_a_lost_permission_ends_the_rest(tmp_path: Path) -> None:
    source, raw = MemorySource(records()), store(tmp_path)

    def fail(error: Exception, day: date) -> None:
        def before(window: Window) -> None:
            if window.business_date == day and "L3" in window.location_ids:
                raise error

        source.before = before

    fail(ProviderUnavailableError("it is down"), DAYS[1])
    outcomes = list(read_days(context(source, raw), DAYS, parallel=2))
    assert [o.status for o in outcomes] == ["committed", "failed", "committed", "committed"]
    assert raw.read_manifest(CONNECTION.key, DAYS[1]) is None

    fail(PermissionLostError("PAYMENTS_READ is gone"), DAYS[0])
    outcomes = list(read_days(context(source, raw), DAYS, parallel=2))
    assert [o.status for o in outcomes] == ["failed"] * 4
    assert all(isinstance(o.error, PermissionLostError) for o in outcomes)
    assert len(lines(raw, raw.read_manifest(CONNECTION.key, DAYS[3]))) == 5
    assert not [path for path in tmp_path.glob("lake/.staging/**/*") if path.is_file() and path.suffix == ".zst"]


def test_days_to_come_are_refused_and_records_of_others_are_set_aside(tmp_path: Path) -> None:
    source, raw = MemorySource([*records(), (at("2026-03-09T12:00:00-04:00"), "L9", b'{"id":"x"}')]), store(tmp_path)
    (outcome,) = read_days(context(source, raw, locations=LOCATIONS[:1]), [DAYS[3]])
    assert [(bad.reason, bad.payload) for bad in outcome.bad] == [
        ("it is of the location 'L9', which was not asked for", b'{"id":"x"}')
    ]
    assert outcome.manifest is not None
    assert outcome.manifest.quarantined == 1
    (outcome,) = read_days(context(source, raw), [date(2099, 1, 1)])
    assert "has not begun" in str(outcome.error)


def shouting(given: Sequence[bytes | msgspec.Raw]) -> list[bytes | msgspec.Raw]:
    return [json.dumps(dict.fromkeys(json.loads(bytes(record)), "REMOVED")).encode() for record in given]


def test_what_is_personal_is_taken_out_before_anything_is_stored(tmp_path: Path) -> None:
    source, raw = MemorySource([(at("2026-03-09T12:00:00Z"), "L9", b'{"id":"x"}'), *records()]), store(tmp_path)
    outcomes = list(read_days(context(source, raw, redact=shouting), DAYS))
    stored = [line for o in outcomes for line in lines(raw, o.manifest)] + [
        bad.payload for o in outcomes for bad in o.bad
    ]
    assert len(stored) == 10  # the stranger is offered by both calendars
    assert all(b"REMOVED" in line and b'"d1"' not in line for line in stored)


def test_an_hour_is_replaced_by_the_same_hour_and_what_there_is_now_by_itself(tmp_path: Path) -> None:
    source, stock = MemorySource(records()), store(tmp_path, "inventory")

    def read(raw: RawStore, text: str) -> RawManifest | None:
        return read_now(context(source, raw), at(text)).manifest

    for text in ("2026-03-09T10:05:00Z", "2026-03-09T11:05:00Z", "2026-03-09T11:40:00Z", "2026-03-10T00:00:00Z"):
        read(stock, text)
    day: list[Any] = [(m.hour, m.fetched_at) for m in stock.hours(CONNECTION.key, date(2026, 3, 9)).readable]
    assert day == [
        (at("2026-03-09T10:00:00Z"), at("2026-03-09T10:05:00Z")),
        (at("2026-03-09T11:00:00Z"), at("2026-03-09T11:40:00Z")),
    ]
    assert stock.read_manifest(CONNECTION.key, date(2026, 3, 9)) is None  # a day of hours has no manifest of its own
    assert len(stock.everything(CONNECTION.key).readable) == 3

    catalog = store(tmp_path, "catalog")
    assert catalog.current(CONNECTION.key) is None
    read(catalog, "2026-03-09T10:00:00Z")
    source.records.pop()
    read(catalog, "2026-03-10T10:00:00Z")
    now = catalog.current(CONNECTION.key)
    assert now is not None
    assert (now.business_date, now.hour, len(lines(catalog, now))) == (date(2026, 3, 10), None, 7)

    def refuse(window: Window) -> None:
        raise PermissionLostError("ITEMS_READ is gone")

    source.before = refuse
    outcome = read_now(context(source, catalog))
    assert outcome.status == "failed"
    assert catalog.current(CONNECTION.key) == now


def test_what_holds_records_does_not_become_empty_unless_that_is_accepted(tmp_path: Path) -> None:
    source, payments, catalog = MemorySource(records()), store(tmp_path), store(tmp_path, "catalog")
    stock, later = store(tmp_path, "inventory"), at("2026-03-10T11:05:00Z")

    def read(**options: Any) -> list[DayOutcome]:
        now = at("2026-03-10T10:05:00Z") if source.records else later
        found = list(read_days(context(source, payments, **options), DAYS))
        return [*found, *(read_now(context(source, raw, **options), now) for raw in (catalog, stock))]

    before = read()
    source.records.clear()
    after = read()
    # The first day never had any: nothing is lost, and nothing is said.
    assert [one.status for one in after] == ["committed", *["failed"] * 5]
    for had, has in zip(before[1:], after[1:], strict=True):
        assert isinstance(has.error, EmptiedError)
        assert has.error.rerun_helps
        assert had.manifest is not None
        assert f"{had.manifest.orders} payment records" in str(has.error)
        assert has.manifest is not None
        assert (has.manifest.file, has.manifest.orders) == (had.manifest.file, had.manifest.orders)
    assert "of 2026-03-10/10 are stored" in str(after[-1].error), "the snapshot before this hour's"
    assert len(stock.hours(CONNECTION.key, later.date()).readable) == 1
    for raw, outcome in ((payments, after[1]), (catalog, after[-2])):
        kept = raw.current(CONNECTION.key) or raw.read_manifest(CONNECTION.key, outcome.day)
        assert kept == outcome.manifest
        assert kept is not None
        assert kept.verification.emptied_at is not None
        assert lines(raw, kept)
    assert [one.status for one in read(accept_empty=True)] == ["committed"] * 6
    assert lines(catalog, catalog.current(CONNECTION.key)) == []
    assert len(stock.hours(CONNECTION.key, later.date()).readable) == 2
    assert [one.status for one in read()] == ["committed"] * 6, "what was accepted is what there is"
