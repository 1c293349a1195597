"""What every way of reading a stream is given: whose records are asked for, of whom, and where and how they are kept."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

import msgspec

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.providers.base import Location, Provider, Source
from flux_pipelines.sync.records import DayOutcome
from flux_pipelines.sync.windows import Group, group_locations

Record = bytes | msgspec.Raw


class Redact(Protocol):
    """Takes what is personal out of JSON records, as `privacy.Redactor` does."""

    def __call__(self, records: Sequence[Record], /) -> list[Record]:
        """Return the records without it."""

    def lines(self, page: bytes, /) -> bytes:
        """Return records without it that stand on a line each."""


@dataclass(frozen=True, slots=True)
class SyncContext:
    """What a sync of one stream of a connection is made with, in whatever way the stream is read.

    Args:
        source: the provider's client.
        connection: whose records.
        locations: all of its locations, inactive ones too: their past remains.
        raw: where they land (`raw.stream` says which stream).
        provider: the provider's declaration.
        token: names this sync. A date that is stored under the same token already is not fetched again.
        redact: takes what is personal out of records before they are stored anywhere, quarantine included
            (`Runtime.redactor`); None stores them as received.
        accept_empty: whether a partition that holds records may become one without any. Otherwise it fails
            (`EmptiedError`) and keeps what it has: providers answer `nothing` by mistake more often than a day's sales vanish.

    """

    source: Source
    connection: Connection
    locations: Sequence[Location]
    raw: RawStore
    provider: Provider
    token: str = ""
    redact: Redact | None = None
    accept_empty: bool = False

    def begin(self, days: Iterable[date]) -> Generator[DayOutcome, None, tuple[list[date], list[Group]]]:
        """Yield what becomes of business dates without asking for them: stored by this sync already, or not to be asked for.

        Returns:
            The others, in order, and the groups of locations to ask for them by; no dates if there are none.

        """
        left: list[date] = []
        for day in sorted(set(days)):
            known = self.raw.stored_under(self.token, self.connection.key, day)
            if known is None:
                left.append(day)
            else:
                yield DayOutcome(day, "resumed", known)
        if left:
            try:
                return left, group_locations(self.connection, self.locations, self.source.max_locations_per_window)
            except FluxError as error:
                yield from (DayOutcome(day, "failed", error=error) for day in left)
        return [], []

    def redacted(self, records: Sequence[Record]) -> list[bytes]:
        """Return records as they may be stored."""
        return [bytes(one) for one in (records if self.redact is None else self.redact(records))]
