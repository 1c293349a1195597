"""What is fetched at an hour: the closed dates of each connection, hourly snapshots, and daily what there is now.

Every provider gets the same, for the streams it has. They are running as soon as the daemon is: nobody has to switch them on.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of schedule functions as objects.

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.completeness import due_days
from flux_pipelines.defs.jobs import stream_request
from flux_pipelines.defs.partition_alerts import follow_damage
from flux_pipelines.defs.partitions import ranges
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.lake import CURRENT
from flux_pipelines.providers.base import Provider, Strategy, Stream

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection

DAILY_TAG = "flux/daily"
#: A daily sync that failed is asked for again each hour, this many times in all; then the watch says what to do.
DAILY_ATTEMPTS = 3
#: What there is now is fetched again when it was last fetched this long ago.
_CATALOG_AGE = timedelta(hours=20)
_HOUR = timedelta(hours=1)


def schedules(provider: Provider) -> list[dg.ScheduleDefinition]:
    """Return the schedules of a provider's streams."""
    makers: dict[Strategy, Callable[[Provider, Strategy], dg.ScheduleDefinition]] = {
        "windowed": _daily,
        "daily": _daily,
        "hourly": _hourly,
        "current": _catalog,
    }
    return [make(provider, strategy) for strategy, make in makers.items() if provider.streams_by(strategy)]


def told(streams: Iterable[Stream]) -> str:
    """Return what streams are, in words."""
    return " and ".join(stream.title for stream in streams)


def _active(context: dg.ScheduleEvaluationContext, flux: FluxResource, provider: Provider) -> Iterator["Connection"]:
    for connection in flux.sensor_runtime.connections(provider.name):
        if connection.status == "active":
            yield connection
        else:
            context.log.info(f"{connection.key} is {connection.status}: left out")


def _daily(provider: Provider, strategy: Strategy) -> dg.ScheduleDefinition:
    """Return the schedule that reads each connection's yesterday once it has ended at every location.

    It looks every hour because connections close at different hours; each day is asked for once, and again if its run
    failed. One run a connection, so that one whose access was revoked does not hold back the others.
    """
    streams = provider.streams_by(strategy)
    orders = strategy == "windowed"
    beside = "" if orders else ", and what today has brought so far"

    @dg.schedule(
        name=f"{provider.name}_daily" if orders else f"{provider.name}_daily_records",
        job_name=names.stream_job(provider.name, strategy),
        cron_schedule="10 * * * *" if orders else "15 * * * *",
        execution_timezone="UTC",
        description=(
            f"Reads yesterday's {told(streams)} of each {provider.title} connection after its day has ended everywhere{beside}."
        ),
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def daily(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(UTC)
        requests = []
        for connection in _active(context, flux, provider):
            for stream in streams:
                what = connection.key if orders else f"{connection.key}|{stream.name}"
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
                    # The date that has begun since, as far as it goes: tabs of the last one are paid on it. Orders are
                    # of the date they were made on, and what is said of dates that are over only is not asked for.
                    further = last == max(due.days) and not orders and not stream.again
                    requests.append(
                        stream_request(
                            provider,
                            stream,
                            connection.key,
                            first,
                            last + timedelta(days=1) if further else last,
                            run_key=f"{what}|{first}|{last}|{now:%Y-%m-%dT%H}",
                            tags={DAILY_TAG: tags[last]},
                        )
                    )
        return requests or dg.SkipReason("Every connection's closed days have been asked for.")

    return daily


def _hourly(provider: Provider, strategy: Strategy) -> dg.ScheduleDefinition:
    streams = provider.streams_by(strategy)

    @dg.schedule(
        name=f"{provider.name}_hourly",
        job_name=names.stream_job(provider.name, strategy),
        cron_schedule="2 * * * *",
        execution_timezone="UTC",
        description=f"Takes a snapshot of {told(streams)} of each {provider.title} connection every hour.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def hourly(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC)
        if datetime.now(UTC) - at > _HOUR:
            return dg.SkipReason("That hour is over, and the past cannot be asked for.")
        requests = [
            _present(provider, stream, connection, at)
            for connection in _active(context, flux, provider)
            for stream in streams
        ]
        return requests or dg.SkipReason("No connection is active.")

    return hourly


def _catalog(provider: Provider, strategy: Strategy) -> dg.ScheduleDefinition:
    streams = provider.streams_by(strategy)

    @dg.schedule(
        name=f"{provider.name}_catalog",
        job_name=names.stream_job(provider.name, strategy),
        cron_schedule="20 * * * *",
        execution_timezone="UTC",
        description=(
            f"Fetches {told(streams)} of each {provider.title} connection once a day. Looks every hour, so that a new "
            "connection need not wait for tomorrow."
        ),
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def catalog(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> list[dg.RunRequest] | dg.SkipReason:
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
                fresh = any(at - one.fetched_at < _CATALOG_AGE for one in stored.readable)
                if not fresh and may_be_asked(context.instance, name, again=bool(stored.damaged)):
                    requests.append(_present(provider, stream, connection, at, {DAILY_TAG: name}))
        return requests or dg.SkipReason("What there is was fetched today.")

    return catalog


def _present(
    provider: Provider, stream: Stream, connection: "Connection", at: datetime, tags: dict[str, str] | None = None
) -> dg.RunRequest:
    """Return the request to read what there is now."""
    run_key = f"{connection.key}|{stream.name}|{at:%Y-%m-%dT%H}"
    return stream_request(provider, stream, connection.key, at.date(), at.date(), run_key=run_key, tags=tags)


def daily_name(what: str, day: date, again: datetime | None = None) -> str:
    """Return how the daily runs of a connection's stream for a date are tagged.

    Args:
        what: the connection, and the stream if it is not orders.
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
