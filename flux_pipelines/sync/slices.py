"""Fetches windows of orders in parallel, as parallel as there is work.

How many threads that is, the answers decide: two to begin with, and one more whenever a page was waited for longer than
the threads that are there could have kept the processor busy. A fast provider is read by two threads, which costs less
processor time and memory than eight that hinder each other; a slow one by as many as it takes.

Within a window pages come one after the other, because each is named by the cursor of the one before. So a window that
turns out to be long is cut in two by time: a thread with nothing to do takes the later half of the longest remaining
slice, and the slice it took from simply ends earlier. A window of one page costs one call; a long one keeps every
thread busy until the end, wherever in it the orders lie.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import Protocol

from flux_pipelines.providers.base import Order, OrderHeader, Page, Source, TimeField, Window
from flux_pipelines.transport import Stats, metered

#: The time of an order that a window of that time_field goes by.
INSTANT_OF: dict[TimeField, Callable[[OrderHeader], datetime | None]] = {
    "created": attrgetter("created_at"),
    "updated": attrgetter("updated_at"),
    "closed": attrgetter("closed_at"),
}
#: A slice is cut when it is expected to need at least this many more pages: a cut costs about one call.
_WORTH_A_CUT = 2.5
_LONGEST_PAUSE = 0.5
_AT_FIRST = 2
_SECOND = timedelta(seconds=1)


@dataclass(slots=True, eq=False)
class Slice:
    """One thread's part of a window: `[start, end)`. `end` moves forward in time when another thread takes the rest.

    Args:
        group: number of the group of locations.
        location_ids: whose orders.
        start: first instant, included.
        end: last instant, not included.
        reached: orders up to here have been handed over.
        pages: pages received.
        expected_pages: what the slice was expected to need when it was cut.
        business_date: the date that is asked for, of a provider that keeps business dates itself.
        supports_slicing: whether its orders come oldest first, so that its later part can be given to another thread.

    """

    group: int
    location_ids: tuple[str, ...]
    start: datetime
    end: datetime
    reached: datetime
    pages: int = 0
    expected_pages: float = 0.0
    done: bool = False
    business_date: date | None = None
    supports_slicing: bool = True

    @property
    def window(self) -> Window:
        """The question that it asks."""
        return Window(self.location_ids, self.start, self.end, self.business_date)

    def pages_left(self) -> float:
        """Estimate how many pages remain, from what the pages so far covered; nothing of a slice that cannot be cut."""
        if self.done or not self.supports_slicing:
            return 0.0
        covered = self.reached - self.start
        if self.pages and covered > timedelta(0):
            return self.pages * ((self.end - self.reached) / covered)
        return self.expected_pages


class Sink(Protocol):
    """Takes what one slice fetches. Used by one thread at a time."""

    def take(self, orders: Sequence[Order], cost: Stats) -> None:
        """Take orders of the slice, oldest first, and what fetching them has cost."""

    def finish(self) -> None:
        """The slice is complete."""


@dataclass(slots=True)
class _State:
    queue: deque[Slice]
    active: set[Slice] = field(default_factory=set)
    sinks: list[tuple[Slice, Sink]] = field(default_factory=list)
    error: BaseException | None = None
    stopped: bool = False


class SliceRunner:
    """Runs slices on up to `parallel` threads.

    Args:
        source: where orders come from; must be safe to use from threads.
        time_field: the time that windows are asked and cut by.
        parallel: most threads, and so most pages in memory at once.
        snap: gives the boundary (of a day) nearest to an instant, so that a cut of a long window does not split a day.

    """

    def __init__(
        self,
        source: Source,
        time_field: TimeField,
        parallel: int,
        *,
        snap: Callable[[Slice, datetime], datetime] | None = None,
    ) -> None:
        self._source = source
        self._time_field = time_field
        self._parallel = max(1, parallel)
        self._useful = min(_AT_FIRST, self._parallel)
        self._snap = snap
        self._changed = threading.Condition()

    def run(self, slices: Sequence[Slice], make_sink: Callable[[Slice], Sink]) -> list[tuple[Slice, Sink]]:
        """Fetch the slices to their ends; return all of them, cut ones too, by group and time.

        Raises:
            BaseException: the first error of any slice, after the other threads have stopped.

        """
        state = _State(deque(sorted(slices, key=lambda s: (s.start, s.group))))
        threads = [
            # In a copy of this thread's context, so that what is measured around the whole run counts these calls too.
            threading.Thread(
                target=copy_context().run, args=(self._work, state, make_sink), name=f"orders-{n}", daemon=True
            )
            for n in range(self._parallel)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LONGEST_PAUSE)
        except BaseException:
            self._stop(state, None)  # an interrupt: the threads are daemons and end after their current call
            raise
        if state.error is not None:
            raise state.error
        return sorted(state.sinks, key=lambda item: (item[0].group, item[0].start))

    def _stop(self, state: _State, error: BaseException | None) -> None:
        with self._changed:
            state.error = state.error or error
            state.stopped = True
            self._changed.notify_all()

    def _work(self, state: _State, make_sink: Callable[[Slice], Sink]) -> None:
        try:
            while (piece := self._next(state)) is not None:
                sink = make_sink(piece)
                with self._changed:
                    state.sinks.append((piece, sink))
                self._fetch(state, piece, sink)
                with self._changed:
                    state.active.discard(piece)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that called `run`
            self._stop(state, error)

    def _next(self, state: _State) -> Slice | None:
        """Return the next slice to work on: a waiting one, or the later part of one that is under way."""
        with self._changed:
            while not state.stopped:
                if len(state.active) >= self._useful:
                    self._changed.wait(_LONGEST_PAUSE)
                    continue
                if state.queue:
                    piece = state.queue.popleft()
                elif not state.active:
                    return None
                else:
                    cut = self._cut(state)
                    if cut is None:
                        self._changed.wait(_LONGEST_PAUSE)
                        continue
                    piece = cut
                state.active.add(piece)
                return piece
            return None

    def _cut(self, state: _State) -> Slice | None:
        longest = max(state.active, key=Slice.pages_left)
        left = longest.pages_left()
        if left < _WORTH_A_CUT:
            return None
        middle = longest.reached + (longest.end - longest.reached) / 2
        if self._snap is not None:
            middle = self._snap(longest, middle)
        if not longest.reached + _SECOND < middle < longest.end - _SECOND:
            return None
        later = Slice(longest.group, longest.location_ids, middle, longest.end, middle, expected_pages=left / 2)
        longest.end = middle
        longest.expected_pages = left / 2
        return later

    def _fetch(self, state: _State, piece: Slice, sink: Sink) -> None:
        with self._changed:
            piece.supports_slicing = self._source.supports_slicing(piece.window, self._time_field)
        pages = self._source.pages(piece.window, self._time_field)
        try:
            while not state.stopped:
                asked, busy = time.perf_counter(), time.thread_time()
                with metered() as cost:
                    page = next(pages, None)
                waited = time.perf_counter() - asked - (time.thread_time() - busy)
                complete = page is None or self._hand_over(piece, page, sink, cost)
                self._judge(waited, time.thread_time() - busy)
                if complete:
                    break
        finally:
            if isinstance(pages, Generator):
                pages.close()
        with self._changed:
            piece.done = True
        if not state.stopped:
            sink.finish()

    def _judge(self, waited: float, worked: float) -> None:
        """Allow one more thread if waiting for a page took longer than all threads need to work on one each."""
        with self._changed:
            if self._useful < self._parallel and waited > (self._useful + 1) * worked:
                self._useful += 1
                self._changed.notify_all()

    def _hand_over(self, piece: Slice, page: Page, sink: Sink, cost: Stats) -> bool:
        """Give a page's orders to the sink; tell whether the slice is complete."""
        if not piece.supports_slicing:
            with self._changed:
                piece.pages += 1
                piece.done = page.last
                self._changed.notify_all()
            sink.take(page.orders, cost)
            return page.last
        instant_of = INSTANT_OF[self._time_field]
        instants = [None if o.header is None else instant_of(o.header) for o in page.orders]
        known = [instant for instant in instants if instant is not None]
        first, last = min(known, default=piece.reached), max(known, default=piece.reached)
        with self._changed:
            # Before the orders are handed over: no other thread may cut behind what this page holds.
            end = piece.end
            # A list that had to begin again repeats what has been handed over. Within a second a provider may sort as it
            # likes; who takes the orders still knows those of that second.
            since = piece.reached.replace(microsecond=0) if piece.pages else first
            piece.pages += 1
            piece.reached = max(piece.reached, min(last, end))
            piece.done = page.last
            self._changed.notify_all()
        orders: Sequence[Order] = page.orders
        if last >= end or first < since:
            orders = [o for o, at in zip(orders, instants, strict=True) if at is None or since <= at < end]
        sink.take(orders, cost)
        return page.last or last >= end
