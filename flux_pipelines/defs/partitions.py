"""Partitions: business dates, and connections x business dates. A partition is the unit of truth, replaced whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import dagster as dg

from flux_pipelines.defs.internals import MULTIDIMENSIONAL_PARTITION_PREFIX, PARTITION_NAME_TAG
from flux_pipelines.defs.names import RANGE_END, RANGE_START
from flux_pipelines.domain.business_day import EARLIEST_ZONE
from flux_pipelines.domain.partition import Partition, Unit
from flux_pipelines.providers.base import Grain
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


class ConnectionDays(dg.MultiPartitionsDefinition):
    """Connections x business dates.

    Dagster gives every run of a job's backfill the tags of its first partition, and takes the one that they name for all
    that the run is asked for, whatever range it has. So those of the two dimensions are left out: the key says both.
    """

    def get_tags_for_partition_key(self, partition_key: str) -> Mapping[str, str]:
        """Return the tags of a run of one partition."""
        return {PARTITION_NAME_TAG: partition_key}


def connection_days(provider: str) -> ConnectionDays:
    """Return the partitions of a provider's tables: connection x business date."""
    return ConnectionDays({CONNECTION: connections_of(provider), DAY: business_days()})


def keys_of(context: dg.AssetExecutionContext) -> list[str]:
    """Return the keys of the partitions that a step was asked for.

    Raises:
        dg.Failure: Dagster would have the step do fewer than the run was asked for.

    """
    tags = context.run.tags
    keys: list[str] = list(context.partition_keys)
    one = PARTITION_NAME_TAG in tags or any(tag.startswith(MULTIDIMENSIONAL_PARTITION_PREFIX) for tag in tags)
    if RANGE_START in tags and one and [tags[RANGE_START], tags[RANGE_END]] != [str(keys[0]), str(keys[-1])]:
        raise dg.Failure(
            f"This run was asked for {tags[RANGE_START]} to {tags[RANGE_END]}, and its other tags name {keys[0]} alone: "
            "nothing was done, so that no partition seems to be there that is not. Running it again will not help by "
            "itself. Launch a new run or backfill of these partitions.",
            allow_retries=False,
        )
    return keys


def unit_by_grain(grain: Grain, partition: Partition) -> Unit:
    """Return what a partition of a stream is to Dagster: the connection alone where there is only the present."""
    return partition.connection if grain == "current" else partition


def by_connection(partitions: Iterable[Partition]) -> dict[str, list[date]]:
    """Group partitions: each connection with its business dates, in order."""
    grouped: dict[str, list[date]] = {}
    for partition in sorted(partitions):
        grouped.setdefault(partition.connection, []).append(partition.business_date)
    return grouped


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
