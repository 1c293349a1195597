"""Takes fetched orders to the raw partitions of their business dates, each order once, and counts them.

An order's time of creation never changes, so an order that is delivered twice arrives at the same slice and the same
day both times: what has to be remembered are the ids of the day a slice is at.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from flux_pipelines.domain.money import known_currencies
from flux_pipelines.domain.partition import Partition
from flux_pipelines.lake.raw import RawWriter, Segment, ndjson
from flux_pipelines.providers.base import Order, OrderHeader
from flux_pipelines.sync.context import Redact, SyncContext
from flux_pipelines.sync.records import BadRecord
from flux_pipelines.sync.slices import INSTANT_OF, Slice
from flux_pipelines.sync.windows import DayIndex, Group
from flux_pipelines.transport import Stats

TERMINAL = frozenset({"COMPLETED", "CANCELED"})
_MASK = (1 << 64) - 1


def comparable(header: OrderHeader) -> bool:
    """Tell whether two queries are compared by an order: it is closed, or counts as a sale though it is still open."""
    return header.state in TERMINAL or header.counts


def add_up(totals: dict[str, int], headers: Sequence[OrderHeader]) -> None:
    """Add the totals of the orders that count as sales, in minor units, by currency."""
    for currency in {header.currency for header in headers}:
        sums = [h.total for h in headers if h.currency == currency and h.counts]
        if sums:
            totals[currency] = totals.get(currency, 0) + sum(sums)


@dataclass(slots=True)
class Checksum:
    """Orders counted so that two counts can be compared without keeping the orders.

    `ids` is the sum of the ids' hashes, which does not depend on the order they come in.
    """

    orders: int = 0
    ids: int = 0
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, headers: Sequence[OrderHeader]) -> None:
        """Count orders."""
        self.orders += len(headers)
        self.ids = (self.ids + sum([hash(header.order_id) for header in headers])) & _MASK
        add_up(self.totals, headers)

    def merge(self, other: Checksum) -> None:
        """Add another count to this one."""
        self.orders += other.orders
        self.ids = (self.ids + other.ids) & _MASK
        for currency, total in other.totals.items():
            self.totals[currency] = self.totals.get(currency, 0) + total

    def same_as(self, other: Checksum) -> bool:
        """Tell whether both counted the same orders with the same totals."""

        def totals(checksum: Checksum) -> dict[str, int]:
            return {currency: total for currency, total in checksum.totals.items() if total}

        return (self.orders, self.ids, totals(self)) == (other.orders, other.ids, totals(other))


@dataclass(slots=True)
class DayBatch:
    """What has landed for one business date so far, over all groups and slices."""

    day: date
    writer: RawWriter
    segments: list[tuple[tuple[int, datetime, int], Segment]] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    verifiable: Checksum = field(default_factory=Checksum)  # those that the second query must find again
    terminal: int = 0  # closed, or a sale already
    bad: list[BadRecord] = field(default_factory=list)
    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0

    @property
    def orders(self) -> int:
        """How many orders have landed."""
        return sum(self.states.values())

    def spend(self, cost: Stats) -> None:
        """Count what calls for this day have cost."""
        self.requests += cost.requests
        self.retries += cost.retries
        self.waited_seconds += cost.waited_seconds


class _OpenDay:
    """The day a slice is at: its segment, the ids it has, and what they come to."""

    def __init__(
        self,
        segment: Segment,
        since: datetime,
        before: datetime,
        instant_of: Callable[[OrderHeader], datetime | None],
        redact: Redact | None,
    ) -> None:
        self.segment = segment
        self.seen: set[str] = set()
        self.states: Counter[str] = Counter()
        self.totals: dict[str, int] = {}
        self.terminal = 0
        self.verifiable = Checksum()
        self._since = since
        self._before = before
        self._instant_of = instant_of
        self._redact = redact

    def write(self, orders: Sequence[tuple[Order, OrderHeader]]) -> int:
        """Land the orders that are not there yet; return how many those are."""
        headers = [header for _, header in orders]
        ids = {header.order_id for header in headers}
        if len(ids) < len(orders) or not self.seen.isdisjoint(ids):  # twice in one page, or in an earlier one
            fresh = {h.order_id: (order, h) for order, h in orders if h.order_id not in self.seen}
            orders, headers = list(fresh.values()), [header for _, header in fresh.values()]
        self.seen |= ids
        lines = ndjson([order.raw for order, _ in orders])
        self.segment.write_lines(lines if self._redact is None else self._redact.lines(lines), len(orders))
        self.states.update([header.state for header in headers])
        add_up(self.totals, headers)
        final = [header for header in headers if comparable(header)]
        self.terminal += len(final)
        since, before, instant_of = self._since, self._before, self._instant_of
        self.verifiable.add([h for h in final if (at := instant_of(h)) is not None and since <= at < before])
        return len(orders)


class Landing:
    """The sink of one slice of orders by time of creation.

    Args:
        context: what the sync is made with.
        piece: the slice.
        group: its locations.
        index: the business dates of the batch, in the group's calendar.
        days: where they land, in the same order.
        verifiable_before: for each day, the instant up to which orders are compared in its proof.
        lock: guards `days`, which slices share.
        landed: told how many orders have landed.

    """

    def __init__(
        self,
        context: SyncContext,
        piece: Slice,
        group: Group,
        index: DayIndex,
        days: Sequence[DayBatch],
        verifiable_before: Sequence[datetime],
        lock: threading.Lock,
        landed: Callable[[int], None],
    ) -> None:
        self._context = context
        self._piece = piece
        self._locations = frozenset(group.location_ids)
        self._index = index
        self._days = days
        self._verifiable_before = verifiable_before
        self._instant_of = INSTANT_OF[context.source.verified_by]
        self._lock = lock
        self._landed = landed
        self._open: dict[int, _OpenDay] = {}
        self._opened = 0
        self._at = max(0, index.number(piece.start))
        self._bad: set[bytes] = set()
        # The last orders of a page, those made at its last instant: a search that has to start again begins there, so
        # that these, and only these, can come once more, in a newer version.
        self._tail: list[tuple[Order, OrderHeader]] = []

    def take(self, orders: Sequence[Order], cost: Stats) -> None:
        """Land a page of orders."""
        good = self._tail
        for order in orders:
            header = order.header
            if header is None:
                self._refuse(order, order.problem, None)
            elif header.location_id not in self._locations:
                self._refuse(order, f"it is of the location {header.location_id!r}, which was not asked for", header)
            elif reason := self._misplaced(header):
                self._refuse(order, reason, header)
            else:
                good.append((order, header))
        if self._piece.business_date is not None:
            # Pages of a whole date come in whatever order, and shift while orders change: all of it is held until the
            # newest version of each order is known.
            self._tail = good
        elif good and not self._piece.supports_slicing:
            self._land(_newest(good))
            self._tail = []
        elif good:
            good = _newest(good)
            last = good[-1][1].created_at
            cut = len(good)
            while cut and good[cut - 1][1].created_at == last:
                cut -= 1
            self._tail = good[cut:]
            self._land(good[:cut])
            self._at = self._number(last)
        with self._lock:
            self._days[self._at].spend(cost)

    def _misplaced(self, header: OrderHeader) -> str:
        """Say why an order is not one that was asked for; empty when it is."""
        wanted = self._piece.business_date
        if wanted is not None:
            given = header.business_date
            return "" if given == wanted else f"it is of the business date {given}, and {wanted} was asked for"
        if header.created_at < self._index.start:
            return f"it was made at {header.created_at}, before the time that was asked for"
        if header.created_at >= self._index.end:
            return f"it was made at {header.created_at}, after the time that was asked for"
        return ""

    def finish(self) -> None:
        """Land what was held back and hand the days' figures over."""
        self._land(_newest(self._tail))
        self._tail = []
        for number in list(self._open):
            self._close(number)

    def _number(self, instant: datetime) -> int:
        return min(max(0, self._index.number(instant)), len(self._days) - 1)

    def _number_of(self, header: OrderHeader) -> int:
        return min(max(0, self._index.number_of(header)), len(self._days) - 1)

    def _land(self, orders: list[tuple[Order, OrderHeader]]) -> None:
        if not orders:
            return
        if self._piece.business_date is not None:
            self._write(self._number_of(orders[0][1]), orders)
            return
        instants = [header.created_at for _, header in orders]
        first, last = self._number(min(instants)), self._number(max(instants))
        if first == last:  # most pages lie within one day
            self._write(first, orders)
        else:
            by_day: dict[int, list[tuple[Order, OrderHeader]]] = {}
            for item in orders:
                by_day.setdefault(self._number(item[1].created_at), []).append(item)
            for number in sorted(by_day):
                self._write(number, by_day[number])
        if self._piece.supports_slicing:  # else more of an earlier day may follow
            for number in [n for n in self._open if n < first]:
                self._close(number)

    def _write(self, number: int, orders: list[tuple[Order, OrderHeader]]) -> None:
        day = self._open.get(number)
        if day is None:
            with self._lock:
                segment = self._days[number].writer.segment(self._piece.group)
                self._opened += 1
                key = (self._piece.group, self._piece.start, self._opened)
                self._days[number].segments.append((key, segment))
            day = self._open[number] = _OpenDay(
                segment,
                self._index.window(number)[0],
                self._verifiable_before[number],
                self._instant_of,
                self._context.redact,
            )
        self._landed(day.write(orders))

    def _close(self, number: int) -> None:
        """The slice is past this day: free what it holds."""
        day = self._open.pop(number)
        day.segment.finish()
        with self._lock:
            batch = self._days[number]
            for state, count in day.states.items():
                batch.states[state] = batch.states.get(state, 0) + count
            for currency, total in day.totals.items():
                if total and currency in known_currencies():
                    batch.totals[currency] = batch.totals.get(currency, 0) + total
            batch.terminal += day.terminal
            batch.verifiable.merge(day.verifiable)

    def _refuse(self, order: Order, reason: str, header: OrderHeader | None) -> None:
        (payload,) = self._context.redacted([order.raw])
        digest = hashlib.sha256(payload).digest()
        if digest in self._bad:
            return
        self._bad.add(digest)
        number = self._at if header is None else self._number_of(header)
        partition = Partition(self._context.connection.key, self._days[number].day)
        record = BadRecord(partition, reason, payload, header.order_id if header is not None else None)
        with self._lock:
            self._days[number].bad.append(record)


def _newest(orders: list[tuple[Order, OrderHeader]]) -> list[tuple[Order, OrderHeader]]:
    """Leave one version of each order, the newest, in its first place."""
    if len({header.order_id for _, header in orders}) == len(orders):
        return orders
    found: dict[str, tuple[Order, OrderHeader]] = {}
    for item in orders:
        known = found.get(item[1].order_id)
        if known is None or item[1].updated_at > known[1].updated_at:
            found[item[1].order_id] = item
    return list(found.values())
