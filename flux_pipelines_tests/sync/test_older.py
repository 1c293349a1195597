"""Orders from before the dates that are asked for, with something in them that happened on these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import OLDER, RawStore
from flux_pipelines.privacy import Pseudonyms, Redactor
from flux_pipelines.providers.base import Location, Order, Page, TimeField, Window
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.sync.memory import MemorySource, read, sale
from flux_pipelines_tests.sync.rawfiles import raw_store

CONNECTION = Connection("square:test", "tenant")
LOCATIONS = [Location("L1", "One", "America/New_York", "USD")]
OLD, DAY, NEXT = date(2026, 3, 2), date(2026, 3, 10), date(2026, 3, 11)
MADE = datetime(2026, 3, 2, 15, tzinfo=UTC)
PAID = datetime(2026, 3, 10, 15, tzinfo=UTC)


def sync(source: MemorySource, raw: RawStore, days: Sequence[date]) -> frozenset[date]:
    outcomes = list(read_windowed(SyncContext(source, CONNECTION, LOCATIONS, raw, PROVIDER), days))
    assert [one.error for one in outcomes if one.error] == []
    return frozenset().union(*(one.stale for one in outcomes))


def kept(raw: RawStore, day: date) -> list[str]:
    older = raw.of(OLDER)
    manifest = older.read_manifest(CONNECTION.key, day)
    if manifest is None:
        return []
    with older.local_file(manifest) as path:
        assert path is not None
        return [line.decode() for block in raw_blocks(path) for line in block]


def closed_late(order_id: str = "OLD", at: datetime = PAID) -> dict[str, object]:
    return sale(order_id, MADE) | {"closed_at": at.isoformat(), "updated_at": at.isoformat()}


def test_an_older_order_is_kept_apart_until_its_date_is_fetched(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    source = MemorySource([closed_late(), sale("NEW", PAID)], LOCATIONS)
    assert sync(source, raw, [DAY]) == frozenset()
    (line,) = kept(raw, OLD)
    assert '"OLD"' in line
    assert raw.read_manifest(CONNECTION.key, OLD) is None
    # One more, later: what is kept is added to, and of an order the newer version stays.
    later = PAID + timedelta(days=1)
    source.orders = [closed_late("LATER", later), closed_late(at=later)]
    assert sync(source, raw, [NEXT]) == frozenset()
    assert [later.isoformat() in line for line in kept(raw, OLD)] == [True, True]


def test_an_order_of_a_date_that_is_fetched_with_it_is_not_an_older_one(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    days = [OLD + timedelta(days=n) for n in range((DAY - OLD).days + 1)]
    assert sync(MemorySource([closed_late()], LOCATIONS), raw, days) == frozenset()
    assert raw.of(OLDER).connections() == []


def test_a_date_that_was_fetched_before_its_order_changed_is_stale(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    source = MemorySource([sale("OLD", MADE)], LOCATIONS)
    sync(source, raw, [OLD])
    assert sync(source, raw, [DAY]) == frozenset()
    today = datetime.now(UTC)
    source.orders = [closed_late(at=today)]
    assert sync(source, raw, [today.astimezone(ZoneInfo("America/New_York")).date()]) == {OLD}
    assert kept(raw, OLD) == []
    source.orders = [closed_late()]  # changed long before it was fetched
    assert sync(source, raw, [DAY]) == frozenset()


class Known(list[dict[str, Any]]):
    """The orders of a source in memory, which can be asked for by id too."""

    def __call__(self, order_ids: Sequence[str]) -> list[Order]:
        return [read(one) for one in self if one["id"] in order_ids]


class Heads(MemorySource):
    """Gives heads alone when asked by closing time."""

    verification_is_whole = False

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        for page in super().pages(window, time_field):
            heads = [Order(msgspec.Raw(b'{"id":"head"}'), one.header) for one in page.orders]
            yield page if time_field == "created" else Page(heads, page.last)


def test_what_the_second_query_gives_in_part_is_asked_for_whole(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    assert sync(Heads(Known([closed_late()]), LOCATIONS), raw, [DAY]) == frozenset()
    (line,) = kept(raw, OLD)
    assert '"OLD"' in line


def test_what_is_personal_is_taken_out_of_them(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    redactor = Redactor(PROVIDER.redaction, Pseudonyms(bytes(32)))
    source = MemorySource([closed_late() | {"customer_id": "SOMEBODY"}], LOCATIONS)
    list(read_windowed(SyncContext(source, CONNECTION, LOCATIONS, raw, PROVIDER, redact=redactor), [DAY]))
    (line,) = kept(raw, OLD)
    assert "SOMEBODY" not in line


def test_what_is_kept_and_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    source = MemorySource([closed_late()], LOCATIONS)
    sync(source, raw, [DAY])
    manifest = raw.of(OLDER).read_manifest(CONNECTION.key, OLD)
    assert manifest is not None
    (file,) = tmp_path.rglob(manifest.file)
    file.write_bytes(b"damaged")
    source.orders = [closed_late("LATER", PAID + timedelta(days=1))]
    assert sync(source, raw, [NEXT]) == {OLD}, "the whole date has both"
    assert raw.of(OLDER).read_manifest(CONNECTION.key, OLD) == manifest
