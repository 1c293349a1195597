"""The orders of a store, findable by each of their instants."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Literal

from flux_sandbox.model import Sale

Moment = Literal["created", "updated", "closed"]
Entry = tuple[int, str]


class OrderIndex:
    """The orders of one store, in order of each of their instants (UTC milliseconds)."""

    def __init__(self) -> None:
        self.created: list[Entry] = []
        self.updated: list[Entry] = []
        self.closed: list[Entry] = []

    def fill(self, sales: Iterable[Sale]) -> None:
        """Add many orders at once."""
        for sale in sales:
            self.created.append((sale.created, sale.id))
            self.updated.append((sale.updated, sale.id))
            if sale.closed is not None:
                self.closed.append((sale.closed, sale.id))
        for entries in (self.created, self.updated, self.closed):
            entries.sort()

    def add(self, sale: Sale) -> None:
        """Add one order."""
        insort(self.created, (sale.created, sale.id))
        insort(self.updated, (sale.updated, sale.id))
        if sale.closed is not None:
            insort(self.closed, (sale.closed, sale.id))

    def drop(self, sale: Sale) -> None:
        """Take one order out, before its instants change."""
        for entries, at in ((self.created, sale.created), (self.updated, sale.updated), (self.closed, sale.closed)):
            if at is not None:
                entries.pop(bisect_left(entries, (at, sale.id)))

    def between(self, moment: Moment, first: int, last: int, after: Entry | None, descending: bool) -> Iterator[Entry]:
        """Yield the entries from `first` to `last`, both included, beyond `after` in the direction of travel."""
        entries: list[Entry] = getattr(self, moment)
        low = bisect_left(entries, (first, ""))
        high = bisect_right(entries, (last, "\U0010ffff"))
        if after is not None and descending:
            high = min(high, bisect_left(entries, after))
        elif after is not None:
            low = max(low, bisect_right(entries, after))
        positions = range(high - 1, low - 1, -1) if descending else range(low, high)
        return (entries[i] for i in positions)
