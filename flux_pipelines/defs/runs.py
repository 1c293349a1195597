"""What became of the runs that a sensor has asked for, as Dagster's own records tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from flux_pipelines.defs.internals import FINISHED_STATUSES, WILL_RETRY_TAG
from flux_pipelines.defs.names import DATE_WAS_OVER, FETCHED_AT, RANGE_END, RANGE_START
from flux_pipelines.defs.partitions import each_day
from flux_pipelines.domain import inert
from flux_pipelines.domain.partition import Partition

if TYPE_CHECKING:
    from flux_pipelines.defs.internals import RunRecord

Outcome = Literal["under way", "succeeded", "failed"]
#: Dagster starts a run whose process died again within seconds; after this long it will not any more.
_RETRY_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Followed:
    """Some runs that were asked for together: how many there were, what became of them, and the failed one if any."""

    asked: int
    outcome: Outcome
    ended_at: float
    failed: dg.DagsterRun | None = None
    records: Sequence[RunRecord] = ()


def follow(instance: dg.DagsterInstance, tags: Mapping[str, str], now: datetime) -> Followed:
    """Return what became of the runs with these tags; of a run and its retries, the latest counts.

    Args:
        instance: where the runs are.
        tags: tags that only they have.
        now: the present instant.

    """
    latest: dict[str, RunRecord] = {}
    for record in instance.get_run_records(dg.RunsFilter(tags=dict(tags))):  # newest first
        latest.setdefault(record.dagster_run.root_run_id or record.dagster_run.run_id, record)
    records = list(latest.values())
    if any(_under_way(record, now) for record in records):
        return Followed(len(records), "under way", 0.0, records=records)
    ended_at = max((record.end_time or 0.0 for record in records), default=0.0)
    failed = next((r.dagster_run for r in records if r.dagster_run.status != dg.DagsterRunStatus.SUCCESS), None)
    return Followed(len(records), "succeeded" if failed is None else "failed", ended_at, failed, records)


def _under_way(record: RunRecord, now: datetime) -> bool:
    run = record.dagster_run
    if run.status not in FINISHED_STATUSES:
        return True
    retried = run.status == dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG) == "true"
    # One that ended far ahead did so before the clock was set back.
    return retried and abs(now.timestamp() - (record.end_time or 0.0)) < _RETRY_PATIENCE.total_seconds()


def why_failed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return in words why a run failed: the errors of its steps, else what Dagster says of the run itself."""
    records = instance.get_records_for_run(
        run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    ).records
    steps: list[str] = []
    others: list[str] = []
    for record in records:
        event = record.event_log_entry.get_dagster_event()
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                steps.append(data.user_failure_data.description)
            elif data.error is not None:
                steps.append((data.error.cause or data.error).message.strip())
        elif event.message:
            others.append(event.message)
    told = steps or others or [f"it ended as {run.status.value.lower()}"]
    return inert.plain("; ".join(told))


def partitions_of(run: dg.DagsterRun) -> list[Partition]:
    """Return the partitions of a sync run, from its tags."""
    first, last = Partition.parse(run.tags[RANGE_START]), Partition.parse(run.tags[RANGE_END])
    return [Partition(first.connection, day) for day in each_day(first.business_date, last.business_date)]


def fetched_at(record: dg.EventLogRecord) -> datetime:
    """Return when the raw records that a partition of a provider's table was made of were fetched."""
    return datetime.fromtimestamp(_metadata(record).get(FETCHED_AT, 0.0), UTC)


def was_over(record: dg.EventLogRecord) -> bool:
    """Tell whether the day of a partition of a provider's transactions was over when its orders were fetched."""
    return bool(_metadata(record).get(DATE_WAS_OVER, False))


def _metadata(record: dg.EventLogRecord) -> dict[str, Any]:
    materialisation = record.asset_materialization
    return {} if materialisation is None else {key: value.value for key, value in materialisation.metadata.items()}


def latest_materialisation(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    """Return the newest materialisation of a partition."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]), limit=1
    ).records
    return records[0] if records else None


def brought_up_to_date(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Iterable[str], since: float) -> bool:
    """Tell whether each partition was last written by a run that began after an instant (seconds since 1970).

    Not the time of writing: a run that was under way at that instant may have read before it.
    """
    for partition in partitions:
        record = latest_materialisation(instance, key, partition)
        if record is None or record.timestamp < since:
            return False
        run = instance.get_run_record_by_id(record.run_id)
        if run is None or (run.start_time or 0.0) < since:
            return False
    return True
