"""People who ask to be forgotten: a run of its own takes what is theirs out of the lake, history included, and out of previews.

Whose data it is stands in the body of the event, in the inbox, and never in a run's configuration, tags or log.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of op functions as objects.

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.driver import Build, dagster_home, driving
from flux_pipelines.defs.internals import event_log
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.defs.staleness import NOBODY
from flux_pipelines.defs.tags import day_tags, runs_of
from flux_pipelines.domain import tables
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.providers.base import Erasure
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.erasure import ErasureReport, Wanted
    from flux_pipelines.runtime import Runtime


def forget(
    runtime: "Runtime", connection: "Connection", erasure: Erasure, build: Build, *, asked_by: str
) -> "ErasureReport":
    """Erase a person as `flux_pipelines.erasure.erase` does, and what tables and previews have of texts that name them.

    Tables that are made of sales are made again of what was fetched, the others are rewritten; earlier versions of all of
    them are deleted. What cannot be done leaves the request undone: to give it again goes on.

    Args:
        runtime: the rooms.
        connection: whose records are searched.
        erasure: whom to forget.
        build: makes the definitions whose jobs make tables again.
        asked_by: who passed the request on, for the record.

    Raises:
        ConfigurationError: an id or text that would be found anywhere.
        TableDamagedError: something could not be read; all else is done.
        FluxError: tables could not be made again, or name the person even so.

    """
    from flux_pipelines.erasure import erase

    def further(wanted: "Wanted") -> None:
        if erasure.texts:  # ids of customers and of orders name nobody in a table
            _forget_in_tables(runtime, connection, wanted, build)
            runtime.state.mappings.forget(wanted.mentions)
            with dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance:
                _forget_in_events(instance, wanted)

    return erase(runtime, connection, erasure, asked_by=asked_by, further=further)


def _forget_in_tables(runtime: "Runtime", connection: "Connection", wanted: "Wanted", build: Build) -> None:
    from flux_pipelines.erasure import blank, in_tables, tables_of

    found = in_tables(runtime, connection, wanted)
    days = {table.name: _days(table, partitions) for table, partitions in found.items()}
    own = f"{connection.provider}/{tables.TRANSACTIONS.name}"
    again = (own, tables.TRANSACTIONS.name, tables.DAILY_ITEM_DEMAND.name, tables.DEMAND_FORECASTS.name)
    for table, partitions in found.items():
        if table.name not in again:
            for partition in sorted(partitions):
                blank(runtime, connection, table, partition, wanted)
    failures: list[str] = []
    if days.keys() & set(again):
        sold = {day for name in again[:3] for day in days.get(name, {}).get("business_date", ())}
        with driving(runtime, build) as driver:
            fetched = days.get(own, {}).get("raw_date", set())
            landed = runtime.raw.landed(connection.key, sorted(fetched))
            if fetched - landed:  # orders of dates that were never fetched, which are made rows of with any other date
                runtime.raw.of(OLDER).unmake(connection.key, tables.TRANSACTIONS.name)
                landed = landed or set(runtime.raw.days(connection.key)[-1:])
            driver.normalise(connection.provider, connection.key, sorted(landed))
            driver.materialise_core(sorted(sold))
            for first, last in runs_of(sorted(days.get(again[3], {}).get("as_of", ()))):
                driver.run(names.FORECAST_JOB, day_tags(first, last))
            failures = list(driver.failures)
    left = in_tables(runtime, connection, wanted) if found else {}
    if failures or left:
        raise FluxError(
            f"tables still name who was to be forgotten ({', '.join(sorted(table.name for table in left or found))}): "
            f"{'; '.join(failures) or 'they were made again, and are as they were'}",
            connection=connection.key,
            rerun_helps=True,
            next_step="Correct that, then ask for the erasure again; what is done is done.",
        )
    # Also where nothing names them now: a table that was made again since has earlier versions that do.
    for table in tables_of(runtime, connection):
        runtime.lake.forget_history(table.name)


def _days(table: tables.Table, partitions: set[tuple[str, ...]]) -> Mapping[str, set[date]]:
    """Return the dates of partitions, by the column that has them."""
    days: dict[str, set[date]] = {}
    for partition in partitions:
        for column, value in zip(table.partition_by, partition, strict=True):
            with suppress(ValueError):  # a connection or a tenant
                days.setdefault(column, set()).add(date.fromisoformat(value))
    return days


def _forget_in_events(instance: dg.DagsterInstance, wanted: "Wanted") -> int:
    """Take lines that name the person out of everything that Dagster's event log keeps: previews, mostly. Return how many events."""

    def change(event: str) -> str | None:
        if not wanted.may_be_in(event.encode()):
            return None
        before = json.loads(event)
        after = _without(before, wanted)
        return None if after == before else json.dumps(after)

    return event_log.rewrite(instance, change)


def _without(value: Any, wanted: "Wanted") -> Any:
    """Return a JSON value without the lines of its texts that name the person."""
    if isinstance(value, str):
        return wanted.without(value)
    if isinstance(value, list):
        return [_without(one, wanted) for one in value]
    if isinstance(value, dict):
        return {name: _without(one, wanted) for name, one in value.items()}
    return value


def forget_request(connection: str, *, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    """Return the request to carry out what the events of a batch ask to be forgotten.

    Args:
        connection: the connection's key.
        run_key: keeps Dagster from making the same run twice.
        tags: further tags, the batch's name among them.

    """
    return dg.RunRequest(
        run_key=run_key,
        job_name=names.FORGET_JOB,
        # In the queue of the connection's syncs: nothing may be written while it is looked through.
        tags={names.CONNECTION_TAG: connection, names.QUEUE_TAG: connection, **tags},
    )


def forget_job(build: Build) -> dg.JobDefinition:
    """Return the job that carries out requests to be forgotten.

    Args:
        build: makes the definitions that the job is one of: tables are made again by other jobs of theirs.

    """

    @dg.op(
        name="forget_people",
        description="Takes out of the lake what people have asked to be forgotten, as the events of this run's batch say.",
    )
    def _forget(context: dg.OpExecutionContext, flux: FluxResource) -> None:
        runtime = flux.runtime
        connection = runtime.state.connections.get(context.run.tags[names.CONNECTION_TAG])
        webhooks = runtime.webhooks(provider_named(connection.provider))
        events = runtime.state.inbox.in_batch(context.run.tags[names.BATCH_TAG])
        # Nobody is asked: the account may have been disconnected long ago.
        answers = webhooks.affected([(event.event_type, event.body) for event in events], NOBODY)
        asked = [affected.erase for affected in answers if affected.erase is not None]
        for one in asked:
            forget(runtime, connection, one, build, asked_by="webhook")
        context.log.info(f"{len(asked)} requests of {connection.key} carried out")
        context.add_output_metadata({"requests carried out": len(asked)})

    @dg.job(
        name=names.FORGET_JOB,
        description="Take out of the lake, history included, what people have asked to be forgotten.",
        executor_def=dg.in_process_executor,
    )
    def erase_requested() -> None:
        _forget()

    return erase_requested
