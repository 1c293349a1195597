"""Upkeep: once a week, checkpoints are written, and files and records that nothing needs any more are deleted."""

# No `from __future__ import annotations` here: Dagster reads the annotations of op functions as objects.

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.resources import FluxResource


@dg.op(
    name="maintain_tables",
    description="Writes a checkpoint of every table, and deletes files of long-gone versions and old records of the state.",
)
def _maintain(context: dg.OpExecutionContext, flux: FluxResource) -> None:
    lake = flux.runtime.lake
    done = [lake.maintain(name) for name in lake.tables()]
    rows = [(result.table, result.version, result.files_deleted) for result in done]
    context.log.info(f"{len(done)} tables maintained, {sum(result.files_deleted for result in done)} files deleted")
    purged = sorted({**flux.runtime.state.purge(), "bodies of events": flux.runtime.forget_unused_events()}.items())
    context.add_output_metadata(
        {
            "tables": preview(("table", "version", "files deleted"), rows),
            "records deleted": preview(("of the state", "deleted"), purged),
        }
    )


def upkeep_job() -> dg.JobDefinition:
    """Return the job that looks after the tables; readers and writers may be at work meanwhile."""

    @dg.job(
        name=names.UPKEEP_JOB,
        description="Look after the lake's tables (checkpoints, expired log entries, unneeded files) and delete old records of "
        "the state database: calls, events and requests that are done.",
        executor_def=dg.in_process_executor,
    )
    def maintain_lake() -> None:
        _maintain()

    return maintain_lake


def upkeep_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the weekly schedule, on Sunday nights."""
    return dg.ScheduleDefinition(
        name=f"{names.UPKEEP_JOB}_weekly",
        job=job,
        cron_schedule="40 3 * * 0",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks after the lake's tables and the state database every Sunday.",
    )
