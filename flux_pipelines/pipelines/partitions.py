"""Partitions: business dates, and connections x business dates. A partition is the unit of truth, replaced whole."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import dagster as dg

from flux_pipelines.domain.business_day import EARLIEST_ZONE
from flux_pipelines.settings import settings

CONNECTION = "connection"
DAY = "day"

#: At most this many partitions a run: a run that dies loses little, and costs its own 3 CPU seconds seldom.
BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=31)


def business_days() -> dg.DailyPartitionsDefinition:
    """Return the partitions of every core table: business dates from `FLUX_START_DATE` to the date now beginning."""
    # end_offset=1: the partition exists when its date begins, not when it has ended; and it begins where it begins
    # first, so that "today" is there for a store in Auckland as well as for one in Honolulu.
    return dg.DailyPartitionsDefinition(
        start_date=settings().start_date.isoformat(), timezone=EARLIEST_ZONE, end_offset=1
    )


def connections_of(provider: str) -> dg.DynamicPartitionsDefinition:
    """Return the dynamic partitions that follow a provider's connections (`square:acme`)."""
    return dg.DynamicPartitionsDefinition(name=f"{provider}_connections")


def connection_days(provider: str) -> dg.MultiPartitionsDefinition:
    """Return the partitions of a provider's tables: connection x business date."""
    return dg.MultiPartitionsDefinition({CONNECTION: connections_of(provider), DAY: business_days()})


def partition_key(connection: str, day: date) -> dg.MultiPartitionKey:
    """Return the key of one connection and business date."""
    return dg.MultiPartitionKey({CONNECTION: connection, DAY: day.isoformat()})


def split_partition(key: str) -> tuple[str, date]:
    """Split a connection-and-date partition key.

    Args:
        key: as Dagster writes it, dimensions in alphabetical order: `square:acme|2025-06-30`.

    """
    connection, _, day = key.rpartition("|")
    return connection, date.fromisoformat(day)


def by_connection(keys: Iterable[str]) -> dict[str, list[date]]:
    """Group connection-and-date keys: each connection with its days, in order."""
    grouped: dict[str, list[date]] = {}
    for key in keys:
        connection, day = split_partition(key)
        grouped.setdefault(connection, []).append(day)
    return {connection: sorted(days) for connection, days in grouped.items()}


def ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return the days as runs of consecutive dates, first and last inclusive."""
    found: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if found and found[-1][1] + timedelta(days=1) == day:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def each_day(first: date, last: date) -> list[date]:
    """Return every date from `first` to `last`, both included."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
