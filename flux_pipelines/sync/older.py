"""Orders that are older than what was asked for, and have something in it: paid, given back or changed there.

The second query, by closing time or time of the last change, gives them beside the orders of the dates that are fetched.
Where the date they are of has been fetched before, it is stale, and is fetched again. Where it has not been, they alone are
kept, apart from the partitions that are whole (`OLDER`), each under its own date: a history that begins in January has the
refunds that were made in January of December's orders. Once a date is fetched whole, what was kept of it is deleted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.lake.raw import OLDER, RawManifest, RawStore
from flux_pipelines.providers.base import Order, OrderHeader
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.reading import order_lines

#: An order that changed this long before its date was fetched may have been missed: indexes by time of change are not instant.
_LAG = timedelta(minutes=1)


@dataclass
class Older:
    """Orders found that were made before the dates of a batch, by the date that each is of. Safe to use from threads.

    Args:
        asked: dates that are being fetched anyway, whose orders are not remembered.

    """

    asked: frozenset[date]
    orders: dict[str, tuple[date, Order, OrderHeader]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, day: date, order: Order, header: OrderHeader) -> None:
        """Remember an order; of two versions the newer one."""
        if day in self.asked:
            return
        with self._lock:
            known = self.orders.get(header.order_id)
            if known is None or known[2].updated_at <= header.updated_at:
                self.orders[header.order_id] = (day, order, header)


@dataclass(frozen=True)
class OlderOrders:
    """Keeps what `Older` has found, for one connection.

    Args:
        context: what the sync is made with.
        date_of: the date that an order is of, by its header; None for a location that is not known.

    """

    context: SyncContext
    date_of: Callable[[OrderHeader], date | None]

    def keep(self, found: Older, fetched_at: datetime) -> frozenset[date]:
        """Keep orders whose dates have never been fetched; return the dates that are to be fetched again.

        Those are dates that were fetched before their orders changed, and dates of which what was kept cannot be read: adding
        to that would lose the rest of it, and the whole date has it all.

        Args:
            found: the orders.
            fetched_at: when they were asked for.

        """
        stale: set[date] = set()
        wanted: dict[date, list[tuple[Order, OrderHeader]]] = {}
        seen: dict[date, datetime | None] = {}
        for day, order, header in found.orders.values():
            if day not in seen:
                seen[day] = self._fetched(day)
            before = seen[day]
            if before is None:
                wanted.setdefault(day, []).append((order, header))
            elif header.updated_at >= before - _LAG:
                stale.add(day)
        if wanted and not self.context.source.verification_is_whole:
            wanted = self._whole([header.order_id for orders in wanted.values() for _, header in orders], wanted.keys())
        for day, orders in sorted(wanted.items()):
            try:
                self._store(day, orders, fetched_at)
            except TableDamagedError:
                stale.add(day)
        return frozenset(stale)

    def drop(self, deleted: Mapping[str, date]) -> None:
        """Take deleted orders out of what is kept; each is given with the date that it is of."""
        store = self.context.raw.of(OLDER)
        if not deleted:
            return
        for day in sorted(set(deleted.values()).intersection(store.days(self.context.connection.key))):
            # What cannot be read is fetched again as soon as something is added to it.
            with store.writing(self.context.connection.key), suppress(TableDamagedError):
                manifest = store.read_manifest(self.context.connection.key, day)
                records = self._records(store, manifest)
                left = {order_id: line for order_id, line in records.items() if deleted.get(order_id) != day}
                if manifest is not None and len(left) < len(records):
                    self._write(store, day, left, datetime.now(UTC))

    def _fetched(self, day: date) -> datetime | None:
        try:
            manifest = self.context.raw.read_manifest(self.context.connection.key, day)
        except TableDamagedError:
            return datetime.max.replace(tzinfo=UTC)  # an alert of its own has it fetched again
        return None if manifest is None else manifest.fetched_at

    def _whole(self, ids: Sequence[str], days: Iterable[date]) -> dict[date, list[tuple[Order, OrderHeader]]]:
        """Ask for the orders themselves, where the second query gives their heads alone."""
        known = set(days)
        found: dict[date, list[tuple[Order, OrderHeader]]] = {}
        for order in self.context.source.orders(ids):
            if order.header is not None and (day := self.date_of(order.header)) in known and day is not None:
                found.setdefault(day, []).append((order, order.header))
        return found

    def _store(self, day: date, orders: Sequence[tuple[Order, OrderHeader]], fetched_at: datetime) -> None:
        lines = self.context.redacted([order.raw for order, _ in orders])
        fresh = {header.order_id: line for (_, header), line in zip(orders, lines, strict=True)}
        store = self.context.raw.of(OLDER)
        with store.writing(self.context.connection.key):  # syncs of other dates may keep orders of the same one
            records = {**self._records(store, store.read_manifest(self.context.connection.key, day)), **fresh}
            self._write(store, day, records, fetched_at)

    def _write(self, store: RawStore, day: date, records: Mapping[str, bytes], fetched_at: datetime) -> None:
        with store.writer(self.context.connection.key, day) as writer:
            segment = writer.segment()
            segment.write_many([records[order_id] for order_id in sorted(records)])
            writer.commit(
                [segment],
                fetched_at=fetched_at,
                states={"order": len(records)},
                api_version=self.context.provider.api_version,
                redacted=self.context.redact is not None,
                accept_empty=True,
            )

    def _records(self, store: RawStore, manifest: RawManifest | None) -> dict[str, bytes]:
        return {} if manifest is None else order_lines(store, manifest, self.context.provider.order_id_field)
