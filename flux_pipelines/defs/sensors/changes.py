"""Changes after the fact: closed business dates are read again when the provider says that records of theirs have changed.

Every provider gets the same, for orders and for its other streams by business date.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of sensor functions as objects.

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.completeness import calendars, last_fetched, stores
from flux_pipelines.defs.jobs import stream_request
from flux_pipelines.defs.partitions import ranges
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.defs.schedules import told
from flux_pipelines.domain.business_day import last_closed
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.providers.base import Provider, Strategy, Stream

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime

#: Offline sales arrive up to 72 hours late; a connection that is watched for the first time looks back that far.
LOOK_BACK = timedelta(hours=72)
#: Each look begins this long before the last one ended: the provider's index by update time is not instant.
OVERLAP = timedelta(minutes=10)
#: The newest moments are left to the next look for the same reason, and what a fetch may have missed so is fetched again.
LAG = timedelta(minutes=1)
#: A look covers at most this much at once, and a tick takes no new look after this long (Dagster stops it at 60 s).
SLICE = timedelta(hours=6)
CHANGES_SECONDS = 35.0


@dataclass(slots=True)
class _Look:
    """What changed in a stream of a connection: the business dates to read again, and how far it was looked at."""

    until: datetime
    days: set[date] = field(default_factory=set)
    changes: int = 0


def change_sensors(provider: Provider) -> list[dg.SensorDefinition]:
    """Return the sensors that read closed business dates again: of orders, and of daily streams if there are any."""
    both: tuple[Strategy, ...] = ("windowed", "daily")
    return [_change_sensor(provider, strategy) for strategy in both if provider.streams_by(strategy)]


def _change_sensor(provider: Provider, strategy: Strategy) -> dg.SensorDefinition:
    streams = provider.streams_by(strategy)
    orders = strategy == "windowed"
    such = " (refunds, edits, offline sales that arrive up to 72 hours late)" if orders else ""

    def what(connection: "Connection", stream: Stream) -> str:
        return connection.key if orders else f"{connection.key}|{stream.name}"

    @dg.sensor(
        name=f"{provider.name}_changes" if orders else f"{provider.name}_record_changes",
        job_name=names.stream_job(provider.name, strategy),
        description=(
            f"Asks {provider.title} which {told(streams)} changed since the last look{such}, and reads their business dates "
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
        pairs = [(what(connection, stream), connection, stream) for connection in working for stream in streams]
        # Who was read least far comes first, so that a tick that runs out of time starves nobody.
        for name, connection, stream in sorted(pairs, key=lambda pair: cursors.get(pair[0], "")):
            if datetime.now(UTC) >= stop_at:
                break
            begin = last_look(cursors.get(name), now)
            try:
                look = _look(flux.sensor_runtime, connection, stream, begin, now - LAG, stop_at)
            except FluxError as error:
                # The cursor stays: the next tick asks for the same again.
                context.log.error(str(error))
                continue
            cursors[name] = look.until.isoformat()
            if look.days:
                context.log.info(f"{name}: {look.changes} records changed on {len(look.days)} closed days")
            requests += _requests(provider, stream, connection, name, look)
        known = {connection.key for connection in flux.sensor_runtime.connections(provider.name)}
        kept = {name: value for name, value in cursors.items() if name.partition("|")[0] in known}
        # Dagster stores the cursor after it has launched the runs: a crash in between asks again, and loses nothing.
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps(kept, sort_keys=True),
            skip_reason=None if requests else "No closed day has changed.",
        )

    return changes


def _requests(
    provider: Provider, stream: Stream, connection: "Connection", name: str, look: _Look
) -> Sequence[dg.RunRequest]:
    return [
        stream_request(
            provider, stream, connection.key, first, last, run_key=f"{name}|{first}|{last}|{look.until.isoformat()}"
        )
        for first, last in ranges(look.days)
    ]


def last_look(cursor: str | None, now: datetime) -> datetime:
    """Return how far changes were read; from far enough back when they never were.

    A cursor that lies ahead was written before the clock was set back: what changed until then would never be looked at.
    """
    until = datetime.fromisoformat(cursor) if cursor else None
    return until if until is not None and until <= now else now - LOOK_BACK


def _look(
    runtime: "Runtime", connection: "Connection", stream: Stream, begin: datetime, end: datetime, stop_at: datetime
) -> _Look:
    """Read which records of a stream changed from `begin` (with overlap) to `end`, or as far as there is time."""
    from flux_pipelines.sync.changes import changes

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
            for change in changes(source, stream, sorted(zones), look.until - OVERLAP, look.until, upto):
                if change.location_id not in zones:
                    continue  # reading its day has put it in quarantine, or will
                day = change.business_date or zones[change.location_id].date_of(change.at)
                if not first <= day <= last:
                    continue  # an open day is for the daily schedule
                if day not in fetched:
                    fetched[day] = last_fetched(raw, connection.key, day)
                stored = fetched[day]
                # A day that was never fetched is for the schedule, or for whoever backfills it.
                if stored is not None and change.changed_at >= stored - LAG:
                    look.changes += 1
                    look.days.add(day)
            look.until = upto
    finally:
        source.close()
    return look
