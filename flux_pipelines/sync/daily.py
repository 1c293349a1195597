"""Reads the streams beside orders into raw partitions: by business date, by the hour, or as they are now.

A line of a raw file is one record: `{"kind":"payment","location_id":"L1","object":{...}}`, the object's bytes as received
but for what is personal in them. A daily stream is fetched like orders: several days at a time, in one question where its
records tell when they happened, each committed when all of its calendars are complete, and not fetched again by the same
sync. Of the other streams there is only the present.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby
from operator import itemgetter

import msgspec

from flux_pipelines.domain.errors import EmptiedError, FluxError, HistoryUnavailableError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.lake.raw import (
    CURRENT,
    FetchedWindow,
    PartitionEmptiedError,
    RawManifest,
    RawWriter,
    Segment,
    Verification,
    hour_slot,
    lost_kinds,
)
from flux_pipelines.providers.base import Record, Window
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.records import BadRecord, DayOutcome, emptied
from flux_pipelines.sync.windows import Group, not_begun, stream_window
from flux_pipelines.transport import Stats, metered

_FAILURES_IN_A_ROW = 2
_DAY = timedelta(days=1)
_UNPROVEN = Verification(detail="this stream cannot be asked for in a second way")


def line_of(kind: str, location_id: str, raw: bytes) -> bytes:
    """Return the line of a raw file that keeps a record."""
    where = msgspec.json.encode(location_id)
    return b'{"kind":%b,"location_id":%b,"object":%b}' % (msgspec.json.encode(kind), where, raw)


@dataclass(slots=True)
class _Part:
    """What one calendar group gave for a partition."""

    day: date
    open: Callable[[], Segment]
    segment: Segment | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    bad: list[BadRecord] = field(default_factory=list)
    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0

    def write(self, kinds: Sequence[str], lines: Sequence[bytes]) -> None:
        if self.segment is None:
            self.segment = self.open()
        self.segment.write_many(lines)
        self.kinds.update(kinds)

    def spend(self, cost: Stats) -> None:
        self.requests += cost.requests
        self.retries += cost.retries
        self.waited_seconds += cost.waited_seconds


@dataclass(slots=True)
class _Partition:
    """A partition under way: what it is asked for with, and what each group gave."""

    day: date
    began: datetime
    writer: RawWriter
    windows: list[Window]
    parts: list[_Part]
    #: The snapshot before this one: stock does not vanish from one hour to the next.
    before: RawManifest | None = None


@dataclass(slots=True)
class _Batch:
    """Business dates that follow one another and are asked for together, by a question a group."""

    partitions: list[_Partition]
    reading: list[Future[None]]

    @property
    def days(self) -> list[date]:
        return [partition.day for partition in self.partitions]


def read_days(context: SyncContext, days: Iterable[date], *, parallel: int = 4) -> Iterator[DayOutcome]:
    """Bring some business dates of a daily stream up to date, and yield what became of each.

    Args:
        context: what the sync is made with.
        days: the business dates.
        parallel: most questions under way (of a date, or of several), and most windows read at a time.

    """
    yield from _Engine(context).days(days, parallel)


def read_now(context: SyncContext, now: datetime | None = None) -> DayOutcome:
    """Store what there is now of a stream of grain `hour` or `current`: as the snapshot of this hour, or in place of what there was.

    Args:
        context: what the sync is made with. Of snapshots, the newest before this hour's is one that may not become empty.
        now: the present instant.

    """
    return _Engine(context).now((now or datetime.now(UTC)).astimezone(UTC))


class _Engine:
    def __init__(self, context: SyncContext) -> None:
        self._context = context
        self._connection = context.connection
        self._raw = context.raw
        self._stream = context.provider.stream(context.raw.stream)
        self._stopped = threading.Event()

    def days(self, days: Iterable[date], parallel: int) -> Iterator[DayOutcome]:
        left, groups = yield from self._context.begin(days)
        wanted = deque(left)
        pool = ThreadPoolExecutor(max(1, parallel), thread_name_prefix=f"stream-{self._raw.stream}")
        running: deque[_Batch] = deque()
        alone: set[date] = set()  # dates that are asked for one by one, because a question about several failed
        failures = 0
        try:
            while wanted or running:
                while wanted and len(running) < parallel:
                    early = self._not_begun(wanted[0], groups)
                    if early is not None:
                        yield DayOutcome(wanted.popleft(), "failed", error=early)
                        continue
                    running.append(self._begin(pool, self._next(wanted, groups, alone), groups))
                if not running:
                    continue
                batch = running.popleft()
                broken = self._read(batch)
                if len(batch.partitions) > 1 and broken is not None and _of_one_date(broken):
                    alone.update(batch.days)
                    wanted.extendleft(reversed(batch.days))
                    continue
                telling: list[FluxError | None] = []
                try:
                    for partition in batch.partitions:
                        outcome = self._finish(partition, broken)
                        yield outcome
                        # A day that lies too far back says nothing of the next one, nor does one that came back empty.
                        if not isinstance(outcome.error, HistoryUnavailableError | EmptiedError):
                            telling.append(outcome.error)
                finally:
                    self._abandon([batch])
                if not telling:
                    continue
                broken = next((error for error in telling if error is not None), None)
                failures = failures + 1 if broken is not None else 0
                if broken is not None and (not broken.rerun_helps or failures >= _FAILURES_IN_A_ROW):
                    left = [*(day for one in running for day in one.days), *wanted]
                    yield from (DayOutcome(day, "failed", error=broken) for day in left)
                    return
        finally:
            self._stopped.set()  # threads end with the page they are at
            pool.shutdown(wait=True, cancel_futures=True)
            self._abandon(running)

    def _next(self, wanted: deque[date], groups: Sequence[Group], alone: Set[date]) -> list[date]:
        """Take the next dates that are asked for together: they follow one another, and have begun somewhere."""
        days = [wanted.popleft()]
        while (
            wanted
            and len(days) < self._stream.dates_a_window
            and wanted[0] == days[-1] + _DAY
            and alone.isdisjoint((days[0], wanted[0]))
            and self._not_begun(wanted[0], groups) is None
        ):
            days.append(wanted.popleft())
        return days

    def _abandon(self, batches: Iterable[_Batch]) -> None:
        for batch in batches:
            for reading in batch.reading:  # they may still be writing
                if not reading.cancel():
                    reading.exception()
            for partition in batch.partitions:
                partition.writer.abort()

    def now(self, now: datetime) -> DayOutcome:
        day = now.date()
        slot = hour_slot(now) if self._stream.grain == "hour" else CURRENT
        ids = tuple(sorted(one.location_id for one in self._context.locations))
        writer = self._raw.writer(self._connection.key, day, slot)
        window = Window(ids, now, now, day)
        part = _Part(day, writer.segment)
        broken: FluxError | None = None
        try:
            self._fetch(window, [part])
        except FluxError as error:
            broken = error
        except BaseException:
            writer.abort()
            raise
        before = None if slot == CURRENT or self._context.accept_empty else self._last_snapshot()
        return self._finish(_Partition(day, now, writer, [window], [part], before), broken)

    def _last_snapshot(self) -> RawManifest | None:
        """Return the newest snapshot that can be read."""
        for day in reversed(self._raw.days(self._connection.key)):
            if stored := self._raw.hours(self._connection.key, day).readable:
                return stored[-1]
        return None

    def _not_begun(self, day: date, groups: Sequence[Group]) -> FluxError | None:
        return not_begun(self._connection, day, groups, datetime.now(UTC))

    def _begin(self, pool: ThreadPoolExecutor, days: Sequence[date], groups: Sequence[Group]) -> _Batch:
        began = datetime.now(UTC)
        partitions = []
        for day in days:
            writer = self._raw.writer(self._connection.key, day)
            windows = [stream_window(group, [day]) for group in groups]
            parts = [_Part(day, partial(writer.segment, number)) for number in range(len(groups))]
            partitions.append(_Partition(day, began, writer, windows, parts))
        fetch: Callable[[Window, Sequence[_Part]], None] = self._fetch
        reading = [
            pool.submit(
                copy_context().run,
                fetch,
                stream_window(group, days),
                [partition.parts[number] for partition in partitions],
            )
            for number, group in enumerate(groups)
        ]
        return _Batch(partitions, reading)

    def _read(self, batch: _Batch) -> FluxError | None:
        """Wait until everything has been read; return what went wrong first."""
        try:
            for reading in batch.reading:
                reading.result()
        except FluxError as error:
            self._abandon([batch])
            return error
        except BaseException:
            self._abandon([batch])
            raise
        return None

    def _fetch(self, window: Window, parts: Sequence[_Part]) -> None:
        """Read a window to its end; `parts` are its business dates."""
        asked = frozenset(window.location_ids)
        pages = iter(self._context.source.read(self._raw.stream, window))
        of = {part.day: part for part in parts}
        at = parts[0]
        while not self._stopped.is_set():
            with metered() as cost:
                page = next(pages, None)
            days, day = [], at.day
            for record in page or ():
                # What has no time of its own stays with the record before it.
                day = day if record.at is None else window.date_of(record.at)
                days.append(day)
            for day, records in groupby(zip(days, page or (), strict=True), key=itemgetter(0)):
                at = of[day]
                self._land(at, asked, [record for _, record in records])
            at.spend(cost)
            if page is None:
                break
        for part in parts:
            if part.segment is not None:
                part.segment.finish()

    def _land(self, part: _Part, asked: frozenset[str], page: Sequence[Record]) -> None:
        good: list[Record] = []
        for record in page:
            if record.location_id and record.location_id not in asked:
                reason = f"it is of the location {record.location_id!r}, which was not asked for"
                # Redacted like the others: quarantine is stored too.
                (payload,) = self._context.redacted([record.raw])
                part.bad.append(BadRecord(Partition(self._connection.key, part.day), reason, payload))
            else:
                good.append(record)
        texts = self._context.redacted([record.raw for record in good])
        lines = [line_of(record.kind, record.location_id, text) for record, text in zip(good, texts, strict=True)]
        if lines:
            part.write([record.kind for record in good], lines)

    def _finish(self, partition: _Partition, broken: FluxError | None) -> DayOutcome:
        """Commit a partition, unless reading it failed; whatever fails, it stays what it was."""
        if broken is not None:
            partition.writer.abort()  # of what there is now, nothing else does
            return DayOutcome(partition.day, "failed", error=broken)
        parts = partition.parts
        try:
            bad = tuple(record for part in parts for record in part.bad)
            kinds: Counter[str] = Counter()
            for part in parts:
                kinds.update(part.kinds)
            passing = self._stream.passing
            if partition.before is not None and not bad:
                lost = lost_kinds(partition.before, kinds.total(), kinds, passing)
                if lost:
                    raise PartitionEmptiedError(partition.before, lost)
            manifest = partition.writer.commit(
                [part.segment for part in parts if part.segment is not None],
                fetched_at=partition.began,
                quarantined=len(bad),
                states=kinds,
                windows=_windows(partition.windows),
                locations=sorted(id_ for window in partition.windows for id_ in window.location_ids),
                api_version=self._context.provider.api_version,
                requests=sum(part.requests for part in parts),
                retries=sum(part.retries for part in parts),
                waited_seconds=round(sum(part.waited_seconds for part in parts), 3),
                sync_token=self._context.token,
                verification=_UNPROVEN,
                redacted=self._context.redact is not None,
                accept_empty=self._context.accept_empty,
                passing=passing,
            )
        except PartitionEmptiedError as nothing:
            slot = nothing.kept.slot if nothing.kept is not None else ""
            where = "" if slot == CURRENT else slot or str(partition.day)
            what = emptied(self._connection.key, where, nothing.lost, self._raw.stream)
            return DayOutcome(partition.day, "failed", nothing.kept, what)
        except FluxError as error:
            return DayOutcome(partition.day, "failed", error=error)
        finally:
            partition.writer.abort()
        return DayOutcome(partition.day, "committed", manifest, bad=bad)


def _of_one_date(error: FluxError) -> bool:
    """Tell whether an error may be of one date among several: too old a one, or a page that could not be had."""
    return isinstance(error, HistoryUnavailableError) or error.rerun_helps


def _windows(windows: Sequence[Window]) -> list[FetchedWindow]:
    """Return what was asked, one window a calendar."""
    found = []
    for (start, end), same in groupby(windows, key=lambda window: (window.start, window.end)):
        ids = tuple(id_ for window in same for id_ in window.location_ids)
        found.append(FetchedWindow(basis="collected", start=start, end=end, locations=ids))
    return found
