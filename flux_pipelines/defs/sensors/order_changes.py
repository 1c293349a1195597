"""What runs by itself: partitions that follow connections, the daily sync, and changes after the fact.

Every provider with orders gets the same. They are running as soon as the daemon is: nobody has to switch them on.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.completeness import calendars, due_days, last_fetched, stores
from flux_pipelines.defs.internals import FINISHED_STATUSES
from flux_pipelines.defs.partitions import connections_of, partition_key, ranges
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.business_day import last_closed
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.domain.tables import RESTATEMENTS, SETTLED_ORDERS
from flux_pipelines.providers.base import Provider, Window

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime

DAILY_TAG = "flux/daily"
#: A daily sync that failed is asked for again each hour, this many times in all; then the watch says what to do.
DAILY_ATTEMPTS = 3

#: Offline sales arrive up to 72 hours late; a connection that is watched for the first time looks back that far.
LOOK_BACK = timedelta(hours=72)
#: Each look begins this long before the last one ended: the provider's index by update time is not instant.
OVERLAP = timedelta(minutes=10)
#: The newest moments are left to the next look for the same reason, and what a landing may have missed so is landed again.
LAG = timedelta(minutes=1)
#: A look covers at most this much at once, and a tick takes no new look after this long (Dagster stops it at 60 s).
SLICE = timedelta(hours=6)
CHANGES_SECONDS = 35.0


def automation_sensors() -> list[dg.AutomationConditionSensorDefinition]:
    """Return the sensors that bring the tables up to date. Dagster's own default one starts stopped.

    They look often, because what a webhook announces has a minute to get from the provider to core `transactions`. That
    table and what is made of it have a queue of their own: a run costs seconds before it does anything, and a sale must
    not wait for those of payments, stock and the tie-out, which the same event asks for.
    """
    sold = dg.AssetSelection.assets(
        names.TRANSACTIONS,
        names.DAILY_SALES,
        names.DAILY_ITEM_DEMAND,
        *(dg.AssetKey(table.name) for table in (RESTATEMENTS, SETTLED_ORDERS)),
    )
    return [
        dg.AutomationConditionSensorDefinition(
            name,
            target=target,
            description=description,
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=5,
            run_tags={names.AUTOMATION_TAG: queue, names.PRIORITY_TAG: priority},
        )
        for name, target, description, queue, priority in (
            (
                "keep_core_tables_up_to_date",
                sold,
                "Brings exactly the partitions of core `transactions`, and of what is made of it, up to date whose upstream "
                "has changed.",
                "core",
                names.FRESH,
            ),
            (
                "keep_books_up_to_date",
                dg.AssetSelection.all() - sold,
                "Brings exactly the partitions of the other tables up to date whose upstream has changed: payments, stock, "
                "products, time entries, the tie-out.",
                "books",
                names.SOON,
            ),
        )
    ]


def connection_partitions_sensor(provider: Provider) -> dg.SensorDefinition:
    """Return the sensor that keeps the dynamic partitions in step with the connections."""
    partitions = connections_of(provider.name)

    @dg.sensor(
        name=f"{provider.name}_connections",
        description=(
            f"Adds a partition for each new {provider.title} connection and takes those of removed ones away. A paused "
            "connection keeps its partitions."
        ),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def follow_connections(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult | dg.SkipReason:
        known = set(context.instance.get_dynamic_partitions(str(partitions.name)))
        wanted = {connection.key for connection in flux.sensor_runtime.connections(provider.name)}
        # A run that is under way needs its partition to the end; the next look takes it away.
        gone = known - wanted - _in_use(context.instance, known - wanted)
        requests: list[Any] = []
        if wanted - known:
            requests.append(partitions.build_add_request(sorted(wanted - known)))
        if gone:
            requests.append(partitions.build_delete_request(sorted(gone)))
        if not requests:
            return dg.SkipReason(f"{len(wanted)} connections, all in step.")
        return dg.SensorResult(dynamic_partitions_requests=requests)

    return follow_connections


def _in_use(instance: dg.DagsterInstance, connections: set[str]) -> set[str]:
    """Return which of the connections a run that is not over has to do with, by its tags (backfills included)."""
    if not connections:
        return set()
    under_way = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    values = {tag for run in instance.get_runs(dg.RunsFilter(statuses=under_way)) for tag in run.tags.values()}
    return {key for key in connections if any(tag == key or tag.startswith(f"{key}|") for tag in values)}


def sync_request(
    provider: str,
    connection: str,
    first: date,
    last: date,
    *,
    run_key: str | None = None,
    tags: dict[str, str] | None = None,
) -> dg.RunRequest:
    """Return the request to sync a connection's business dates, both included, in one run."""
    start, end = partition_key(connection, first), partition_key(connection, last)
    return dg.RunRequest(
        run_key=run_key,
        job_name=names.sync_job(provider),
        tags={
            names.CONNECTION_TAG: connection,
            names.QUEUE_TAG: connection,
            names.RANGE_START: start,
            names.RANGE_END: end,
            **(tags or {}),
        },
    )


def daily_schedule(provider: Provider) -> dg.ScheduleDefinition:
    """Return the schedule that syncs each connection's yesterday once it has ended at every location.

    It looks every hour because connections close at different hours; each day is asked for once, and again if its run
    failed. One run a connection, so that one whose access was revoked does not hold back the others.
    """

    @dg.schedule(
        name=f"{provider.name}_daily",
        job_name=names.sync_job(provider.name),
        cron_schedule="10 * * * *",
        execution_timezone="UTC",
        description=f"Syncs yesterday's {provider.title} orders of each connection after its day has ended everywhere.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def daily(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(UTC)
        requests: list[dg.RunRequest] = []
        for connection in flux.sensor_runtime.connections(provider.name):
            if connection.status != "active":
                context.log.info(f"{connection.key} is {connection.status}: left out")
                continue
            try:
                due = due_days(flux.sensor_runtime, connection, now)
            except FluxError as error:
                context.log.error(str(error))
                continue
            tags = {day: daily_name(connection.key, day, now if day in due.again else None) for day in due.days}
            for first, last in ranges(
                day for day in due.days if may_be_asked(context.instance, tags[day], again=day in due.again)
            ):
                requests.append(
                    sync_request(
                        provider.name,
                        connection.key,
                        first,
                        last,
                        run_key=f"{connection.key}|{first}|{last}",
                        tags={DAILY_TAG: tags[last]},
                    )
                )
        return requests or dg.SkipReason("Every connection's closed days have been asked for.")

    return daily


def daily_name(what: str, day: date, again: datetime | None = None) -> str:
    """Return how the daily runs of a connection (or of one of its streams) for a date are tagged.

    Args:
        what: the connection, and the stream if there is one.
        day: the business date.
        again: the present instant, for a date whose run was well and which has come to grief since: it may be asked for
            as often as any other, anew on each date.

    """
    return f"{what}|{day}" if again is None else f"{what}|{day}|again on {again.date()}"


def may_be_asked(instance: dg.DagsterInstance, name: str, *, again: bool = False) -> bool:
    """Tell whether a daily run may be asked for: never asked yet, or the last ones failed and there are attempts left.

    What has come to grief since it was fetched is asked for `again` after runs that went well, too.
    """
    runs = instance.get_runs(dg.RunsFilter(tags={DAILY_TAG: name}), limit=DAILY_ATTEMPTS)
    return len(runs) < DAILY_ATTEMPTS and all(run.is_finished if again else run.is_failure_or_canceled for run in runs)


@dataclass(slots=True)
class Look:
    """What a connection's change feed showed: the business dates to sync again, and how far it was read."""

    until: datetime
    days: set[date] = field(default_factory=set)
    changes: int = 0


def change_sensor(provider: Provider) -> dg.SensorDefinition:
    """Return the sensor that syncs closed business dates again when their orders change afterwards."""

    @dg.sensor(
        name=f"{provider.name}_changes",
        job_name=names.sync_job(provider.name),
        description=(
            f"Asks {provider.title} which orders changed since the last look (refunds, edits, offline sales that arrive "
            "up to 72 hours late) and syncs their business dates again."
        ),
        minimum_interval_seconds=900,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def changes(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        stop_at = now + timedelta(seconds=CHANGES_SECONDS)
        cursors: dict[str, str] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        connections = [c for c in flux.sensor_runtime.connections(provider.name) if c.status == "active"]
        # Who was read least far comes first, so that a tick that runs out of time starves nobody.
        for connection in sorted(connections, key=lambda c: cursors.get(c.key, "")):
            if datetime.now(UTC) >= stop_at:
                break
            since = cursors.get(connection.key)
            begin = last_look(since, now)
            try:
                look = _look(flux.sensor_runtime, connection, begin, now - LAG, stop_at)
            except FluxError as error:
                # The cursor stays: the next tick asks for the same again.
                context.log.error(str(error))
                continue
            cursors[connection.key] = look.until.isoformat()
            if look.days:
                context.log.info(f"{connection.key}: {look.changes} orders changed on {len(look.days)} closed days")
            requests += [
                sync_request(
                    provider.name,
                    connection.key,
                    first,
                    last,
                    run_key=f"{connection.key}|{first}|{last}|{look.until.isoformat()}",
                )
                for first, last in ranges(look.days)
            ]
        known = {connection.key for connection in flux.sensor_runtime.connections(provider.name)}
        kept = {key: value for key, value in cursors.items() if key in known}
        # Dagster stores the cursor after it has launched the runs: a crash in between asks again, and loses nothing.
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps(kept, sort_keys=True),
            skip_reason=None if requests else "No closed day has changed.",
        )

    return changes


def last_look(cursor: str | None, now: datetime) -> datetime:
    """Return how far a change feed was read; from far enough back when it never was.

    A cursor that lies ahead was written before the clock was set back: what changed until then would never be looked at.
    """
    until = datetime.fromisoformat(cursor) if cursor else None
    return until if until is not None and until <= now else now - LOOK_BACK


def _look(runtime: "Runtime", connection: "Connection", begin: datetime, end: datetime, stop_at: datetime) -> Look:
    """Read the change feed from `begin` (with overlap) to `end`, or as far as there is time."""
    look = Look(until=begin)
    zones = calendars(connection, stores(runtime, connection))
    if not zones:
        return look
    first, last = runtime.settings.start_date, last_closed(zones.values(), datetime.now(UTC))
    source = runtime.source(connection)
    fetched: dict[date, datetime | None] = {}
    try:
        while look.until < end and datetime.now(UTC) < stop_at:
            upto = min(look.until + SLICE, end)
            for ids in chunks(sorted(zones), source.max_locations_per_window):
                for page in source.pages(Window(ids, look.until - OVERLAP, upto), "updated"):
                    for order in page.orders:
                        header = order.header
                        if header is None or header.location_id not in zones:
                            continue  # landing its day has put it in quarantine, or will
                        day = header.business_date or zones[header.location_id].date_of(header.created_at)
                        if not first <= day <= last:
                            continue  # an open day is for the daily schedule
                        if day not in fetched:
                            fetched[day] = last_fetched(runtime.raw, connection.key, day)
                        landed = fetched[day]
                        # A day that was never landed is for the schedule, or for whoever backfills it.
                        if landed is not None and header.updated_at >= landed - LAG:
                            look.changes += 1
                            look.days.add(day)
            look.until = upto
    finally:
        source.close()
    return look


def chunks(ids: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Cut ids into tuples of at most `size`."""
    return [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
