"""The engine over a provider that keeps business dates itself and gives orders in no order at all, as Toast does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from flux_pipelines.domain.errors import HistoryUnavailableError, IncompleteError
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.providers.base import Order, Page, TimeField, Window
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.records import DayOutcome
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.sync.memory import MemorySource, read, sale, stamp
from flux_pipelines_tests.sync.rawfiles import raw_store
from flux_pipelines_tests.sync.test_windowed import CONNECTION, DAYS, LOCATIONS, landed
from flux_pipelines_tests.sync.test_windowed import PROVIDER as SQUARE


class DatedSource(MemorySource):
    """Keeps a business date with each order; pages are shuffled, and one in five orders also comes in an older version."""

    max_locations_per_window = 1
    by_business_date = True
    verified_by: Final = "updated"  # type: ignore[misc,assignment]

    def supports_slicing(self, _window: Window, _time_field: TimeField) -> bool:
        return False

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        self.asked.append((time_field, window))
        assert (window.business_date is not None) == (time_field == "created")
        found = [self._dated(order) for order in self.orders if self._wanted(order, window)]
        older = [self._dated(order | {"updated_at": order["created_at"], "old": True}) for order in self.orders
                 if self._wanted(order, window) and time_field == "created" and order["number"] % 5 == 0]  # fmt: skip
        found += older
        random.Random(len(found)).shuffle(found)
        size = self._page_size
        for at in range(0, max(1, len(found)), size):
            self.before_page(time_field, window, at // size)
            yield Page(found[at : at + size], at + size >= len(found))

    @staticmethod
    def _dated(order: dict[str, Any]) -> Order:
        found = read(order)
        assert found.header is not None
        return Order(found.raw, msgspec.structs.replace(found.header, business_date=order["business_date"]))

    @staticmethod
    def _wanted(order: dict[str, Any], window: Window) -> bool:
        if order["location_id"] not in window.location_ids:
            return False
        if window.business_date is not None:
            return bool(order["business_date"] == window.business_date)
        return window.start <= datetime.fromisoformat(order["updated_at"]) < window.end


def dated_world(count: int = 600) -> list[dict[str, Any]]:
    """Sales whose date is the provider's own: a fifth of them belongs to the day before the one the clock says."""
    chance = random.Random(7)
    orders = []
    for number in range(count):
        day = chance.choice(DAYS)
        at = datetime(day.year, day.month, day.day, 17, tzinfo=UTC) + timedelta(seconds=chance.randrange(30_000))
        kept = day - timedelta(days=1) if number % 5 == 0 and day != DAYS[0] else day
        order = sale(f"O{number}", at, chance.choice(LOCATIONS).location_id, amount=number)
        changed = at + timedelta(hours=chance.randrange(1, 20))
        orders.append(order | {"business_date": kept, "number": number, "updated_at": stamp(changed)})
    for order in orders:
        order["business_date"] = Date(order["business_date"])
    return orders


class Date(date):
    """A date that the source's JSON can hold."""

    def __new__(cls, day: date) -> Date:
        return super().__new__(cls, day.year, day.month, day.day)


@pytest.fixture(autouse=True)
def _dates_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    from flux_pipelines_tests.sync import memory

    plain = memory.json.dumps
    monkeypatch.setattr(memory.json, "dumps", lambda value: plain(value, default=str))


def sync(source: MemorySource, raw: RawStore, **options: Any) -> dict[date, DayOutcome]:
    return {o.day: o for o in read_windowed(SyncContext(source, CONNECTION, LOCATIONS, raw, SQUARE), DAYS, **options)}


@pytest.mark.parametrize("parallel", [1, 6])
def test_orders_land_on_the_providers_own_date_each_once_in_its_newest_version(parallel: int, tmp_path: Path) -> None:
    orders = dated_world()
    source = DatedSource(orders, LOCATIONS, page_size=25)
    raw = raw_store(tmp_path)
    outcomes = sync(source, raw, parallel=parallel)
    for day in DAYS:
        wanted = {order["id"] for order in orders if order["business_date"] == day}
        assert wanted
        assert sorted(landed(raw, day)) == sorted(wanted)
        manifest = outcomes[day].manifest
        assert manifest is not None
        with raw.local_file(manifest) as path:
            assert path is not None
            assert b'"old"' not in _unpacked(path)
        assert manifest.verification.status == "verified", manifest.verification
        # The first day is a batch of its own, and some of its orders were changed after the time compared.
        assert manifest.verification.confirmed == len(wanted) or day == DAYS[0]
        assert "last change" in manifest.verification.method


def _unpacked(path: Path) -> bytes:
    import zstandard

    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()


def test_an_order_that_slipped_between_two_pages_is_missed_by_nobody(tmp_path: Path) -> None:
    orders = dated_world(200)
    hidden = next(order for order in orders if order["business_date"] == DAYS[2])
    source = DatedSource(orders, LOCATIONS, page_size=25)

    def slip(time_field: TimeField, window: Window, number: int) -> None:
        hidden["location_id"] = "L1" if time_field == "updated" else "nowhere"

    source.before_page = slip
    found = sync(source, raw_store(tmp_path), parallel=1)
    error = found[DAYS[2]].error
    assert isinstance(error, IncompleteError)
    assert "1 orders" in str(error)
    assert all(found[day].status == "committed" for day in DAYS if day != DAYS[2])


def test_an_order_of_another_date_goes_to_quarantine(tmp_path: Path) -> None:
    orders = dated_world(60)
    stray = next(order for order in orders if order["business_date"] == DAYS[1])
    source = DatedSource(orders, LOCATIONS)
    keep = source._wanted
    source._wanted = lambda order, window: order is stray or keep(order, window)  # type: ignore[method-assign]
    bad = [record for outcome in sync(source, raw_store(tmp_path), verify=False).values() for record in outcome.bad]
    assert {record.order_id for record in bad} == {stray["id"]}
    assert f"it is of the business date {DAYS[1]}" in bad[0].reason


def test_what_the_provider_does_not_give_any_more_is_said_and_not_called_empty(tmp_path: Path) -> None:
    class Forgetful(MemorySource):
        def history_from(self, _now: datetime) -> datetime | None:
            return datetime(2026, 3, 9, tzinfo=UTC)

    raw = raw_store(tmp_path)
    found = sync(Forgetful([sale("O1", datetime(2026, 3, 10, 17, tzinfo=UTC))], LOCATIONS), raw)
    for day in DAYS[:3]:
        error = found[day].error
        assert isinstance(error, HistoryUnavailableError)
        assert not error.rerun_helps
        assert "2026-03-09 00:00 UTC" in str(error)
        assert raw.read_manifest(CONNECTION.key, day) is None
    assert [found[day].status for day in DAYS[4:]] == ["committed", "committed"]
