"""The second, independent query that confirms a partition: its orders by another time than the one they were landed by.

The partition was fetched by time of creation. Orders that were closed (or changed, as the provider allows to ask)
between the start of the day and a while after its end are asked for again by that time, and those of the day must be the
same ones, with the same totals. Both sides leave out what changed after the fetch began, so that sales that go on do not
disturb the proof.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from flux_pipelines.lake.raw import Verification
from flux_pipelines.providers.base import Order, OrderHeader, TimeField
from flux_pipelines.sync.landing import Checksum, DayBatch, comparable
from flux_pipelines.sync.older import Older
from flux_pipelines.sync.slices import INSTANT_OF
from flux_pipelines.sync.windows import DayIndex
from flux_pipelines.transport import Stats

_METHODS: dict[TimeField, str] = {
    "closed": "a second query, by closing time",
    "updated": "a second query, by time of the last change",
}
_PAGES_REMEMBERED = 3


class VerificationCount:
    """The sink of one slice of orders by the time of the proof: counts them under the business date they were made on.

    Orders from before the first of these dates are handed to `older`.

    Orders that come twice (a search that starts again) come within a few pages; so long are ids remembered, or for
    ever when `thorough`, or when they come in no order.
    """

    def __init__(
        self,
        index: DayIndex,
        checksums: Sequence[Checksum],
        days: Sequence[DayBatch],
        verifiable_before: Sequence[datetime],
        time_field: TimeField,
        lock: threading.Lock,
        older: Older | None = None,
        *,
        thorough: bool,
    ) -> None:
        self._index = index
        self._checksums = checksums
        self._days = days
        self._verifiable_before = verifiable_before
        self._instant_of = INSTANT_OF[time_field]
        self._lock = lock
        self._older = older
        self._recent: deque[set[str]] = deque(maxlen=_PAGES_REMEMBERED)
        self._every: set[str] | None = set() if thorough else None
        self._own = [Checksum() for _ in checksums]
        self._at = 0

    def take(self, orders: Sequence[Order], cost: Stats) -> None:
        """Count a page of orders."""
        found: dict[int, dict[str, OrderHeader]] = {}
        seen = set().union(*self._recent) if self._every is None else self._every
        for order in orders:
            header = order.header
            if header is not None and self._older is not None and self._index.number_of(header) < 0:
                self._older.add(self._index.date_of(header), order, header)
            if header is None or not comparable(header) or (at := self._instant_of(header)) is None:
                continue
            number = self._index.number_of(header)
            if not 0 <= number < len(self._days):
                continue
            self._at = number
            if self._index.window(number)[0] <= at < self._verifiable_before[number]:
                found.setdefault(number, {})[header.order_id] = header
        ids: set[str] = set()
        for number, headers in found.items():
            if not seen.isdisjoint(headers):
                headers = {order_id: header for order_id, header in headers.items() if order_id not in seen}
            ids |= headers.keys()
            self._own[number].add(list(headers.values()))
        if ids:  # pages that repeat what has been counted push nothing out
            self._recent.append(ids)
        if self._every is not None:
            self._every |= ids
        with self._lock:
            self._days[self._at].spend(cost)

    def finish(self) -> None:
        """Hand the counts over."""
        with self._lock:
            for checksum, own in zip(self._checksums, self._own, strict=True):
                checksum.merge(own)


def verify(day: DayBatch, confirmed: Checksum, time_field: TimeField, *, final: bool) -> Verification | None:
    """Compare a day with its recount; None when it should be fetched and recounted once more before it is judged."""
    expected = day.verifiable
    open_orders = day.orders - day.terminal
    later = day.terminal - expected.orders
    remarks = [
        f"{number} {what}"
        for number, what in (
            (open_orders, "not closed yet"),
            (later, f"{time_field} outside the time compared"),
            (len(day.bad), "unreadable and in quarantine"),
        )
        if number
    ]
    rest = f" ({'; '.join(remarks)})" if remarks else ""

    def verdict(status: str, detail: str) -> Verification:
        return Verification(
            status=status,  # type: ignore[arg-type]
            method=_METHODS[time_field],
            expected=expected.orders,
            confirmed=confirmed.orders,
            detail=detail + rest,
        )

    if day.bad:
        return verdict("unverifiable", "some orders cannot be read, so the two queries cannot be compared")
    if expected.same_as(confirmed):
        return verdict("verified", "the same orders with the same totals")
    if not final:
        return None
    missing = confirmed.orders - expected.orders
    if missing > 0:
        return verdict("short", f"{missing} orders are missing")
    if missing < 0:
        return verdict("unverifiable", f"the second query gave {-missing} orders fewer than were fetched")
    return verdict("unverifiable", "as many orders, but their ids or totals differ")
