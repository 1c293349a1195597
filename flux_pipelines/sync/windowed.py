"""Fetches a connection's orders of many business dates into raw partitions: in parallel, resumable, proven complete.

Contiguous days are fetched as one window for each group of locations (not one a day), in batches that grow and shrink
with how busy the days are, so that an interrupted sync loses little. A day is committed when all of its groups are
complete and the second query has been made; so what is committed is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from types import MappingProxyType

from flux_pipelines.domain.errors import (
    FluxError,
    HistoryUnavailableError,
    IncompleteError,
    TableDamagedError,
)
from flux_pipelines.lake.raw import FetchedWindow, PartitionEmptiedError, Verification
from flux_pipelines.providers.base import OrderHeader, TimeField
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.landing import Checksum, DayBatch, Landing
from flux_pipelines.sync.older import Older, OlderOrders
from flux_pipelines.sync.reading import order_lines
from flux_pipelines.sync.records import DayOutcome, emptied
from flux_pipelines.sync.slices import Slice, SliceRunner
from flux_pipelines.sync.verification import VerificationCount, verify
from flux_pipelines.sync.windows import DayIndex, Group, contiguous, not_begun

#: No order that the provider has told to be deleted.
NOTHING_DELETED: Mapping[str, date] = MappingProxyType({})
#: Orders that a batch of days should hold: enough to keep threads busy, few enough that a killed run loses seconds.
_ORDERS_A_BATCH = 100_000
#: Days that a batch may hold: Dagster's backfills ask for as many at once.
_DAYS_A_BATCH = 31
_GROWTH = 8
#: How long after the end of a day an order made on it may be closed (or changed) and still take part in the proof.
_TAIL = timedelta(hours=24)
#: A batch of days that fails for a passing reason does not stop the next one; a second in a row does.
_FAILURES_IN_A_ROW = 2


def read_windowed(
    context: SyncContext,
    days: Iterable[date],
    *,
    parallel: int = 8,
    verify: bool = True,
    progress: Callable[[int], None] | None = None,
    deleted: Mapping[str, date] = NOTHING_DELETED,
) -> Iterator[DayOutcome]:
    """Bring the raw orders of some business dates up to date, and yield what became of each as soon as it is known.

    Args:
        context: what the sync is made with.
        days: the business dates.
        parallel: most pages fetched at a time.
        verify: whether to confirm each day with a second query.
        progress: told, from several threads, how many more orders have landed.
        deleted: orders, by their ids, that the provider has told to be deleted, each with the day that it was stored under.
            A day whose orders are all of these may become one without any.

    """
    yield from _Engine(context, parallel, verify, progress or (lambda _: None), deleted).run(frozenset(days))


def _next_size(size: int, orders_a_day: float) -> int:
    """Return how many days the batch after one of `size` days should have."""
    return max(1, min(_DAYS_A_BATCH, size * _GROWTH, int(_ORDERS_A_BATCH / max(1.0, orders_a_day))))


def batch_sizes(days: int, orders_a_day: float) -> list[int]:
    """Return the batches in which so many contiguous days, equally busy, are fetched."""
    sizes = []
    size = 1
    while days > 0:
        sizes.append(min(size, days))
        days -= size
        size = _next_size(size, orders_a_day)
    return sizes


@dataclass(slots=True)
class _Batch:
    """Some contiguous days under way."""

    days: list[DayBatch]
    indexes: list[DayIndex]  # one a group: the same dates, each in its own calendar
    verifiable_before: list[list[datetime]]  # by group, then by day
    began: datetime


class _Engine:
    def __init__(
        self,
        context: SyncContext,
        parallel: int,
        verify: bool,
        progress: Callable[[int], None],
        deleted: Mapping[str, date],
    ) -> None:
        self._context = context
        self._source = context.source
        self._time_field: TimeField = context.source.verified_by
        self._connection = context.connection
        self._raw = context.raw
        self._parallel = parallel
        self._verify = verify
        self._progress = progress
        self._lock = threading.Lock()
        self._deleted = deleted
        self._groups: list[Group] = []
        self._access_verified = False
        self._asked: frozenset[date] = frozenset()

    def run(self, days: frozenset[date]) -> Iterator[DayOutcome]:
        self._asked = days
        wanted, self._groups = yield from self._context.begin(days)
        if not wanted:
            return
        self._older().drop(self._deleted)
        ready = []
        now = datetime.now(UTC)
        earliest = self._source.history_from(now)
        for day in wanted:
            begins = min(group.calendar.start(day) for group in self._groups)
            if earliest is not None and begins < earliest:
                yield DayOutcome(day, "failed", error=self._out_of_reach(day, earliest))
                continue
            early = not_begun(self._connection, day, self._groups, now)
            if early is None:
                ready.append(day)
            else:
                yield DayOutcome(day, "failed", error=early)
        yield from self._batches(ready)

    def _out_of_reach(self, day: date, earliest: datetime) -> HistoryUnavailableError:
        title = self._context.provider.title
        return HistoryUnavailableError(
            f"{title} gives no orders from before {earliest:%Y-%m-%d %H:%M} UTC, so the business date {day} cannot be had",
            connection=self._connection.key,
            next_step=f"Ask {title} for access to older orders and connect the account again, or begin later.",
        )

    def _batches(self, days: Sequence[date]) -> Iterator[DayOutcome]:
        size = 1
        failures = 0
        for run in contiguous(days):
            at = 0
            while at < len(run):
                batch_days = run[at : at + size]
                at += len(batch_days)
                outcomes, orders = self._batch(batch_days)
                yield from outcomes
                broken = next((o.error for o in outcomes if o.error and not isinstance(o.error, IncompleteError)), None)
                failures = failures + 1 if broken is not None else 0
                if broken is not None and (not broken.rerun_helps or failures >= _FAILURES_IN_A_ROW):
                    rest = [day for day in days if day > batch_days[-1]]
                    yield from (DayOutcome(day, "failed", error=broken) for day in rest)
                    return
                size = _next_size(size, orders / len(batch_days))

    def _batch(self, dates: Sequence[date]) -> tuple[list[DayOutcome], int]:
        """Fetch, prove and commit some contiguous days; return their outcomes and how many orders they have."""
        batch = self._begin(dates)
        outcomes: list[DayOutcome] = []
        try:
            self._fetch(batch)
            older = Older(self._asked)
            verdicts = self._prove(batch, older)
            # Before the dates are: once they are committed, nobody looks for these again.
            stale = self._older().keep(older, batch.began)
            if not self._access_verified and any(not day.orders for day in batch.days):
                self._source.verify_access()  # once is enough: a loss later on is a 403 on the query itself
                self._access_verified = True
            for number, verdict in enumerate(verdicts):
                outcomes.append(self._commit(batch, number, verdict, frozenset() if number else stale))
        except FluxError as error:
            outcomes += (DayOutcome(day, "failed", error=error) for day in dates[len(outcomes) :])
        finally:
            for day in batch.days:
                day.writer.abort()
        return outcomes, sum(day.orders for day in batch.days)

    def _begin(self, dates: Sequence[date]) -> _Batch:
        began = datetime.now(UTC)
        indexes = [DayIndex(group.calendar, dates) for group in self._groups]
        return _Batch(
            days=[DayBatch(day, self._raw.writer(self._connection.key, day)) for day in dates],
            indexes=indexes,
            verifiable_before=[
                [min(index.window(number)[1] + _TAIL, began) for number in range(len(dates))] for index in indexes
            ]
            if self._time_field == "closed"
            # Orders change long after their day: as far as the batch is asked for, every day of it takes part.
            else [[min(index.end + _TAIL, began)] * len(dates) for index in indexes],
            began=began,
        )

    def _fetch(self, batch: _Batch) -> None:
        def landing(piece: Slice) -> Landing:
            return Landing(
                self._context,
                piece,
                self._groups[piece.group],
                batch.indexes[piece.group],
                batch.days,
                batch.verifiable_before[piece.group],
                self._lock,
                self._progress,
            )

        if self._source.by_business_date:
            slices = [
                Slice(number, group.location_ids, start, end, start, business_date=day)
                for number, (group, index) in enumerate(zip(self._groups, batch.indexes, strict=True))
                for day, (start, end) in zip(index.days, map(index.window, range(len(index.days))), strict=True)
            ]
        else:
            slices = self._slices([(index.start, index.end) for index in batch.indexes])
        self._runner("created", batch).run(slices, landing)

    def _older(self) -> OlderOrders:
        calendars = {location: group.calendar for group in self._groups for location in group.location_ids}

        def date_of(header: OrderHeader) -> date | None:
            calendar = calendars.get(header.location_id)
            return None if calendar is None else header.business_date or calendar.date_of(header.created_at)

        return OlderOrders(self._context, date_of)

    def _recount(self, batch: _Batch, older: Older | None = None, *, thorough: bool) -> list[Checksum]:
        checksums = [Checksum() for _ in batch.days]

        def recount(piece: Slice) -> VerificationCount:
            index, before = batch.indexes[piece.group], batch.verifiable_before[piece.group]
            remember = thorough or self._source.by_business_date
            return VerificationCount(
                index, checksums, batch.days, before, self._time_field, self._lock, older, thorough=remember
            )

        windows = [
            (index.start, bounds[-1]) for index, bounds in zip(batch.indexes, batch.verifiable_before, strict=True)
        ]
        self._runner(self._time_field, batch).run(self._slices(windows), recount)
        return checksums

    def _runner(self, time_field: TimeField, batch: _Batch) -> SliceRunner:
        def snap(piece: Slice, instant: datetime) -> datetime:
            if piece.end - piece.reached < 3 * _TAIL:
                return instant
            return batch.indexes[piece.group].nearest_start(instant)

        return SliceRunner(self._source, time_field, self._parallel, snap=snap)

    def _slices(self, windows: Sequence[tuple[datetime, datetime]]) -> list[Slice]:
        return [
            Slice(number, group.location_ids, start, end, start)
            for number, (group, (start, end)) in enumerate(zip(self._groups, windows, strict=True))
            if start < end
        ]

    def _prove(self, batch: _Batch, older: Older) -> list[Verification]:
        if not self._verify:
            return [Verification(detail="not asked for") for _ in batch.days]
        checksums = self._recount(batch, older, thorough=False)
        verdicts: list[Verification] = []
        for number, (day, checksum) in enumerate(zip(batch.days, checksums, strict=True)):
            if any(index.window(number)[1] > batch.began for index in batch.indexes):
                verdicts.append(Verification(method="", detail="the day is not over"))
                continue
            verdict = verify(day, checksum, self._time_field, final=False)
            if verdict is None:
                verdict = self._again(batch, number)
            verdicts.append(verdict)
        return verdicts

    def _again(self, batch: _Batch, number: int) -> Verification:
        """Fetch one day and recount it once more: what was missing may have arrived in between."""
        alone = self._begin([batch.days[number].day])
        try:
            self._fetch(alone)
            (checksum,) = self._recount(alone, thorough=True)
        except BaseException:
            alone.days[0].writer.abort()
            raise
        batch.days[number].writer.abort()
        for name in ("requests", "retries", "waited_seconds"):
            setattr(alone.days[0], name, getattr(alone.days[0], name) + getattr(batch.days[number], name))
        batch.days[number] = alone.days[0]
        verdict = verify(alone.days[0], checksum, self._time_field, final=True)
        assert verdict is not None  # noqa: S101 - a final judgement is one
        return verdict

    def _commit(self, batch: _Batch, number: int, verdict: Verification, stale: frozenset[date]) -> DayOutcome:
        day = batch.days[number]
        short = verdict.status == "short"
        try:
            manifest = day.writer.commit(
                [segment for _, segment in sorted(day.segments, key=lambda item: item[0])],
                fetched_at=batch.began,
                quarantined=len(day.bad),
                totals=day.totals,
                states=day.states,
                windows=self._windows(batch, number),
                locations=sorted(id_ for group in self._groups for id_ in group.location_ids),
                api_version=self._context.provider.api_version,
                requests=day.requests,
                retries=day.retries,
                waited_seconds=round(day.waited_seconds, 3),
                sync_token="" if short else self._context.token,
                verification=verdict,
                redacted=self._context.redact is not None,
                accept_empty=self._context.accept_empty or self._all_were_deleted(day),
            )
        except PartitionEmptiedError as nothing:
            error = emptied(self._connection.key, str(day.day), nothing.lost, self._raw.stream)
            return DayOutcome(day.day, "failed", nothing.kept, error, stale=stale)
        if not short:
            return DayOutcome(day.day, "committed", manifest, bad=tuple(day.bad), stale=stale)
        missing = verdict.confirmed - verdict.expected
        short_of = IncompleteError(
            f"{missing} orders of {day.day} are missing: {verdict.expected} were fetched, and {verdict.method} finds "
            f"{verdict.confirmed}",
            connection=self._connection.key,
        )
        return DayOutcome(day.day, "failed", manifest, short_of, tuple(day.bad), stale)

    def _all_were_deleted(self, day: DayBatch) -> bool:
        """Tell whether the provider has told of every order that is stored of a day that it is deleted."""
        gone = {order_id for order_id, of in self._deleted.items() if of == day.day}
        if not gone or day.orders:
            return False
        try:
            kept = self._raw.read_manifest(self._connection.key, day.day)
            return kept is None or gone >= order_lines(self._raw, kept, self._context.provider.order_id_field).keys()
        except TableDamagedError:
            return False

    def _windows(self, batch: _Batch, number: int) -> list[FetchedWindow]:
        """Return the day's own intervals, one a calendar."""
        found = []
        pairs = zip(self._groups, batch.indexes, strict=True)
        for _, same in groupby(pairs, key=lambda pair: pair[0].calendar):
            members = list(same)
            start, end = members[0][1].window(number)
            ids = tuple(id_ for group, _ in members for id_ in group.location_ids)
            found.append(FetchedWindow(basis="created", start=start, end=end, locations=ids))
        return found
