"""What runs by itself beside orders: hourly snapshots, the daily catalogue, closed days, and changes after the fact.

Every provider with streams gets the same, for the streams it has.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.raw import key_of
from flux_pipelines.defs.completeness import calendars, due_days, last_fetched, stores
from flux_pipelines.defs.jobs import streams_of
from flux_pipelines.defs.partition_alerts import follow_damage
from flux_pipelines.defs.partitions import ranges
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.defs.sensors.order_changes import (
    CHANGES_SECONDS,
    DAILY_TAG,
    LAG,
    OVERLAP,
    SLICE,
    chunks,
    daily_name,
    last_look,
    may_be_asked,
)
from flux_pipelines.domain.business_day import last_closed
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.lake import CURRENT
from flux_pipelines.providers.base import Provider, Stream, Window

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime

#: What there is now is fetched again when it was last fetched this long ago.
_CATALOGUE_AGE = timedelta(hours=20)
_HOUR = timedelta(hours=1)


def stream_request(
    provider: Provider,
    stream: Stream,
    connection: str,
    first: date,
    last: date,
    *,
    run_key: str | None = None,
    tags: dict[str, str] | None = None,
) -> dg.RunRequest:
    """Return the request to collect one stream of a connection and make its tables, in one run.

    Args:
        provider: whose.
        stream: which stream.
        connection: the connection's key.
        first: first day; for what there is now, today.
        last: last day, included.
        run_key: keeps Dagster from making the same run twice.
        tags: further tags.

    """
    return dg.RunRequest(
        run_key=run_key,
        job_name=names.stream_job(provider.name, stream.grain),
        asset_selection=assets_of(provider, stream),
        tags={
            names.CONNECTION_TAG: connection,
            # Apart from the orders' queue: what has just been sold does not wait for these.
            names.QUEUE_TAG: f"{connection}/streams",
            names.STREAM_TAG: stream.name,
            names.RANGE_START: key_of(stream.grain, connection, first),
            names.RANGE_END: key_of(stream.grain, connection, last),
            **(tags or {}),
        },
    )


def assets_of(provider: Provider, stream: Stream) -> list[dg.AssetKey]:
    """Return what is made of one stream: its raw records, then its tables."""
    tables = [names.provider_table(provider.name, spec.table) for spec in provider.tables if spec.stream == stream.name]
    return [names.raw_stream(provider.name, stream.name), *tables]


def stream_schedules(provider: Provider) -> list[dg.ScheduleDefinition]:
    """Return the schedules of a provider's streams."""
    found = []
    if streams_of(provider, "hour"):
        found.append(_hourly(provider))
    if streams_of(provider, "current"):
        found.append(_catalogue(provider))
    if streams_of(provider, "day"):
        found.append(_daily(provider))
    return found


def _active(context: dg.ScheduleEvaluationContext, flux: FluxResource, provider: Provider) -> Iterator["Connection"]:
    for connection in flux.sensor_runtime.connections(provider.name):
        if connection.status == "active":
            yield connection
        else:
            context.log.info(f"{connection.key} is {connection.status}: left out")


def _hourly(provider: Provider) -> dg.ScheduleDefinition:
    streams = streams_of(provider, "hour")

    @dg.schedule(
        name=f"{provider.name}_hourly",
        job_name=names.stream_job(provider.name, "hour"),
        cron_schedule="2 * * * *",
        execution_timezone="UTC",
        description=f"Takes a snapshot of {_told(streams)} of each {provider.title} connection every hour.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def hourly(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC)
        if datetime.now(UTC) - at > _HOUR:
            return dg.SkipReason("That hour is over, and the past cannot be asked for.")
        requests = [
            stream_request(
                provider,
                stream,
                connection.key,
                at.date(),
                at.date(),
                run_key=f"{connection.key}|{stream.name}|{at:%Y-%m-%dT%H}",
            )
            for connection in _active(context, flux, provider)
            for stream in streams
        ]
        return requests or dg.SkipReason("No connection is active.")

    return hourly


def _catalogue(provider: Provider) -> dg.ScheduleDefinition:
    streams = streams_of(provider, "current")

    @dg.schedule(
        name=f"{provider.name}_catalogue",
        job_name=names.stream_job(provider.name, "current"),
        cron_schedule="20 * * * *",
        execution_timezone="UTC",
        description=(
            f"Fetches {_told(streams)} of each {provider.title} connection once a day. Looks every hour, so that a new "
            "connection need not wait for tomorrow."
        ),
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def catalogue(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC)
        requests = []
        for connection in _active(context, flux, provider):
            for stream in streams:
                name = daily_name(f"{connection.key}|{stream.name}", at.date())
                try:
                    raw = flux.sensor_runtime.raw.of(stream.name)
                    stored = raw.look(connection.key, [CURRENT], files=True)
                    follow_damage(flux.sensor_runtime, connection.key, raw, stored.damaged)
                except FluxError as error:
                    context.log.error(str(error))
                    continue
                if stored.damaged:  # it is fetched anew, even though that has been done today
                    name = daily_name(f"{connection.key}|{stream.name}", at.date(), at)
                fresh = any(at - one.fetched_at < _CATALOGUE_AGE for one in stored.readable)
                if not fresh and may_be_asked(context.instance, name, again=bool(stored.damaged)):
                    requests.append(
                        stream_request(
                            provider,
                            stream,
                            connection.key,
                            at.date(),
                            at.date(),
                            run_key=f"{connection.key}|{stream.name}|{at:%Y-%m-%dT%H}",
                            tags={DAILY_TAG: name},
                        )
                    )
        return requests or dg.SkipReason("What there is was fetched today.")

    return catalogue


def _daily(provider: Provider) -> dg.ScheduleDefinition:
    streams = streams_of(provider, "day")

    @dg.schedule(
        name=f"{provider.name}_daily_feeds",
        job_name=names.stream_job(provider.name, "day"),
        cron_schedule="15 * * * *",
        execution_timezone="UTC",
        description=(
            f"Collects yesterday's {_told(streams)} of each {provider.title} connection after its day has ended everywhere, and "
            "what today has brought so far."
        ),
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def daily(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(UTC)
        requests = []
        for connection in _active(context, flux, provider):
            for stream in streams:
                what = f"{connection.key}|{stream.name}"
                try:
                    raw = flux.sensor_runtime.raw.of(stream.name)
                    due = due_days(flux.sensor_runtime, connection, now, raw, unanswered=stream.again)
                except FluxError as error:
                    context.log.error(str(error))
                    continue
                tags = {day: daily_name(what, day, now if day in due.again else None) for day in due.days}
                for first, last in ranges(
                    day for day in due.days if may_be_asked(context.instance, tags[day], again=day in due.again)
                ):
                    requests.append(
                        stream_request(
                            provider,
                            stream,
                            connection.key,
                            first,
                            # The date that has begun since, as far as it goes: tabs of the last one are paid on it.
                            # What is said of dates that are over only is not asked for.
                            last + timedelta(days=1) if last == max(due.days) and not stream.again else last,
                            run_key=f"{what}|{first}|{last}|{now:%Y-%m-%dT%H}",
                            tags={DAILY_TAG: tags[last]},
                        )
                    )
        return requests or dg.SkipReason("Every connection's closed days have been asked for.")

    return daily


@dataclass(slots=True)
class _Look:
    """What changed in a stream of a connection: the business dates to collect again, and how far it was read."""

    until: datetime
    days: set[date] = field(default_factory=set)
    changes: int = 0


def stream_change_sensors(provider: Provider) -> list[dg.SensorDefinition]:
    """Return the sensor that collects closed business dates again when their records change; none without such streams."""
    streams = streams_of(provider, "day")
    if not streams:
        return []

    @dg.sensor(
        name=f"{provider.name}_feed_changes",
        job_name=names.stream_job(provider.name, "day"),
        description=(
            f"Asks {provider.title} which {_told(streams)} changed since the last look, and collects their business dates "
            "again."
        ),
        minimum_interval_seconds=900,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def changes(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        stop_at = now + timedelta(seconds=CHANGES_SECONDS)
        cursors: dict[str, str] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        working = [c for c in flux.sensor_runtime.connections(provider.name) if c.status == "active"]
        pairs = [
            (f"{connection.key}|{stream.name}", connection, stream) for connection in working for stream in streams
        ]
        # Who was read least far comes first, so that a tick that runs out of time starves nobody.
        for name, connection, stream in sorted(pairs, key=lambda pair: cursors.get(pair[0], "")):
            if datetime.now(UTC) >= stop_at:
                break
            since = cursors.get(name)
            begin = last_look(since, now)
            try:
                look = _look(flux.sensor_runtime, connection, stream, begin, now - LAG, stop_at)
            except FluxError as error:
                # The cursor stays: the next tick asks for the same again.
                context.log.error(str(error))
                continue
            cursors[name] = look.until.isoformat()
            if look.days:
                context.log.info(f"{name}: {look.changes} records changed on {len(look.days)} closed days")
            requests += [
                stream_request(
                    provider,
                    stream,
                    connection.key,
                    first,
                    last,
                    run_key=f"{name}|{first}|{last}|{look.until.isoformat()}",
                )
                for first, last in ranges(look.days)
            ]
        known = {connection.key for connection in flux.sensor_runtime.connections(provider.name)}
        kept = {name: value for name, value in cursors.items() if name.partition("|")[0] in known}
        # Dagster stores the cursor after it has launched the runs: a crash in between asks again, and loses nothing.
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps(kept, sort_keys=True),
            skip_reason=None if requests else "No closed day has changed.",
        )

    return [changes]


def _look(
    runtime: "Runtime", connection: "Connection", stream: Stream, begin: datetime, end: datetime, stop_at: datetime
) -> _Look:
    """Read which records of a stream changed from `begin` (with overlap) to `end`, or as far as there is time."""
    look = _Look(until=begin)
    zones = calendars(connection, stores(runtime, connection))
    if not zones:
        return look
    first, last = runtime.settings.start_date, last_closed(zones.values(), datetime.now(UTC))
    raw = runtime.raw.of(stream.name)
    fetched: dict[date, datetime | None] = {}
    source = runtime.source(connection)
    try:
        while look.until < end and datetime.now(UTC) < stop_at:
            upto = min(look.until + SLICE, end)
            # The overlap by itself: what was fetched since the last look has those changes, and is not fetched again.
            for since, before in ((look.until - OVERLAP, look.until), (look.until, upto)):
                for ids in chunks(sorted(zones), source.max_locations_per_window):
                    window = Window(ids, since, before, since.date())
                    for location, instant in source.changes(stream.name, window):
                        if location not in zones:
                            continue  # collecting its day will put it in quarantine
                        day = zones[location].date_of(instant)
                        if not first <= day <= last:
                            continue  # an open day is for the daily schedule
                        if day not in fetched:
                            fetched[day] = last_fetched(raw, connection.key, day)
                        stored = fetched[day]
                        # A day that was never collected is for the schedule, or for whoever backfills it.
                        if stored is not None and stored - LAG < before:
                            look.changes += 1
                            look.days.add(day)
            look.until = upto
    finally:
        source.close()
    return look


def _told(streams: Iterable[Stream]) -> str:
    return " and ".join(stream.title for stream in streams)
