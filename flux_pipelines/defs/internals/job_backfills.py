"""Mends what Dagster 1.13 gets wrong about backfills that are started from a job's page and cut into ranges.

Importing this module does it, in whatever process: the daemon launches such backfills, and it loads this code for the
instance alone (`instance.FluxStorage`, `instance.FluxRunQueue`). Three things were wrong, each checked on 1.13:

- Every run kept the tags of the first partition beside those of its range, and Dagster believes the former: it landed
  one day of many and succeeded. That is mended where the tags are made (`partitions.ConnectionDays`).
- Of more than 25 ranges, a daemon that was restarted on the way left out those partitions that were named before the
  end of the last range submitted, and the backfill succeeded without them.
- "Re-execute from failure" stopped the backfill with an error of Dagster's own (`Param "partition_name" is not a str`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, PartitionKeyRange, RunsFilter
from dagster._core.execution import job_backfill
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    PARTITION_SET_TAG,
)

if TYPE_CHECKING:
    from dagster import PartitionsDefinition
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.remote_representation.external import RemotePartitionSet

_chunk_of_single_runs = job_backfill._get_partitions_chunk


def _chunk(
    instance: DagsterInstance,
    logger: logging.Logger,
    backfill_job: PartitionBackfill,
    chunk_size: int,
    partition_set: RemotePartitionSet,
) -> tuple[Sequence[str | PartitionKeyRange], str, bool]:
    """Return the next ranges of a backfill to submit, the last one's end, and whether more follow.

    The ranges are always cut from all of the backfill's partitions and in the same order, so that what lies behind the
    checkpoint has been submitted, whatever the order in which the partitions were named.
    """
    policy = partition_set.backfill_policy
    if policy is None or policy.max_partitions_per_run == 1:
        return _chunk_of_single_runs(instance, logger, backfill_job, chunk_size, partition_set)
    definition = partition_set.get_partitions_definition()
    ranges = _ranges(definition, backfill_job.partition_names or (), policy.max_partitions_per_run)
    ends = [one.end for one in ranges]
    checkpoint = backfill_job.last_submitted_partition_name
    left = ranges[ends.index(checkpoint) + 1 :] if checkpoint in ends else ranges
    # Submitted by a daemon that died before it could write the checkpoint down.
    runs = instance.get_runs(RunsFilter(tags=DagsterRun.tags_for_backfill_id(backfill_job.backfill_id)))
    submitted = {
        (run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)) for run in runs
    }
    chunk = left[:chunk_size]
    last = chunk[-1].end if chunk else checkpoint or ""
    return [one for one in chunk if (one.start, one.end) not in submitted], last, len(left) > chunk_size


def _ranges(definition: PartitionsDefinition[str], keys: Sequence[str], most: int | None) -> list[PartitionKeyRange]:
    whole = definition.subset_with_partition_keys(keys).get_partition_key_ranges(definition)
    return [
        part
        for one in sorted(whole, key=lambda one: (str(one.start), str(one.end)))
        for part in job_backfill._subdivide_partition_key_range(definition, one, most)
    ]


def _last_run(
    instance: DagsterInstance, remote_partition_set: RemotePartitionSet, partition_key_or_range: str | PartitionKeyRange
) -> DagsterRun | None:
    """Return the newest run of a partition, or of a range of them."""
    tags = (
        {PARTITION_NAME_TAG: partition_key_or_range}
        if isinstance(partition_key_or_range, str)
        else {
            ASSET_PARTITION_RANGE_START_TAG: partition_key_or_range.start,
            ASSET_PARTITION_RANGE_END_TAG: partition_key_or_range.end,
        }
    )
    wanted = RunsFilter(
        job_name=remote_partition_set.job_name, tags={PARTITION_SET_TAG: remote_partition_set.name, **tags}
    )
    return next(iter(instance.get_runs(wanted, limit=1)), None)


job_backfill._get_partitions_chunk = _chunk
job_backfill._fetch_last_run = _last_run
