"""How days are cut into the runs of this process, and the tags of those runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from flux_pipelines.defs import names
from flux_pipelines.defs.partitions import ranges, unit_by_grain
from flux_pipelines.domain.partition import Partition
from flux_pipelines.providers.base import Grain

#: More days than this are cut into several runs, to keep what one run holds in memory bounded.
MAX_DAYS_PER_LOCAL_RUN = 400


def runs_of(days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Cut days into runs: first and last day of each."""
    for first, last in ranges(days):
        for start in range(0, (last - first).days + 1, MAX_DAYS_PER_LOCAL_RUN):
            begin = first + timedelta(days=start)
            yield begin, min(begin + timedelta(days=MAX_DAYS_PER_LOCAL_RUN - 1), last)


def day_tags(first: date, last: date) -> dict[str, str]:
    """Return the tags of a run over business dates."""
    return {names.RANGE_START: first.isoformat(), names.RANGE_END: last.isoformat()}


def connection_tags(connection: str, first: date, last: date, grain: Grain = "day") -> dict[str, str]:
    """Return the tags of a run over business dates of a connection, or of what a stream of a grain has of them."""
    return {
        names.CONNECTION_TAG: connection,
        names.RANGE_START: str(unit_by_grain(grain, Partition(connection, first))),
        names.RANGE_END: str(unit_by_grain(grain, Partition(connection, last))),
    }
