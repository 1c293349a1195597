"""Once a day: the last closed business dates of each connection are counted again at the provider.

Webhooks and polling tell of changes; this finds what both have missed. A day that differs is asked for again, and one
that differs even then is an alert.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of op functions as objects.

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.completeness import calendars
from flux_pipelines.defs.consistency import faults
from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.partition_alerts import follow_damage
from flux_pipelines.defs.partitions import ranges
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.business_day import last_closed
from flux_pipelines.domain.errors import FluxError

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime

#: Closed business dates that are compared each day. Offline sales arrive up to 72 hours late.
DAYS = 7
#: Orders that are closed for so long while no webhook comes mean that webhooks do not come any more.
SILENCE = timedelta(hours=24)


@dataclass
class _Compared:
    """What the comparison of one connection found."""

    days: int = 0
    asked: dict[date, str] = field(default_factory=dict)
    staying: dict[date, str] = field(default_factory=dict)


@dg.op(name="compare_with_providers", description="Counts the last closed business dates again at each provider.")
def _reconcile(context: dg.OpExecutionContext, flux: FluxResource) -> None:
    runtime = flux.runtime
    rows: list[tuple[str, int, str, str]] = []
    failures: list[str] = []
    try:
        _look_at_every_date(runtime)
    except FluxError as error:  # of the lake; the connections are compared all the same
        failures.append(str(error))
    for provider in names.sources():
        for connection in runtime.connections(provider.name):
            if connection.status != "active":
                continue
            try:
                _ask_for_damaged(runtime, connection)
                found = _compare(runtime, connection, datetime.now(UTC))
            except FluxError as error:  # of this connection alone; the others are compared
                failures.append(str(error))
                continue
            differing = found.asked | found.staying
            rows.append((connection.key, found.days, ", ".join(map(str, sorted(differing))), _told(differing)))
            context.log.info(f"{connection.key}: {len(differing)} of {found.days} business dates differ")
    context.add_output_metadata(
        {
            "connections": len(rows),
            "business dates compared": sum(row[1] for row in rows),
            "comparison": preview(("connection", "compared", "differ", "how"), rows),
        }
    )
    if failures:
        raise dg.Failure("Some connections could not be compared.\n" + "\n".join(failures))


def _look_at_every_date(runtime: "Runtime") -> None:
    """See that nothing is on two dates, nor on none; what is, is told, and asked for again.

    What a core table lacks is told if it was lacking at the last look too: until then it may be on its way.
    """
    found = faults(runtime)
    for connection in runtime.connections():
        all_mine = [fault for fault in found if fault.connection == connection.key]
        name = f"whole/{connection.key}"
        before = set(runtime.state.cursors.get(name) or ())
        mine = [fault for fault in all_mine if not fault.behind or before.intersection(fault.behind)]
        behind = sorted(one for fault in all_mine for one in fault.behind)
        runtime.state.cursors.set(name, behind, connection=connection.key)
        if not mine:
            runtime.state.alerts.resolve("on_two_dates", connection.key)
            continue
        told = "; ".join(fault.what for fault in mine)
        runtime.state.alerts.raise_(
            "on_two_dates",
            connection.key,
            f"{told}. The dates are fetched again; if this stays, run `flux doctor --lake` and report it.",
        )
        for start, end in ranges({day for fault in mine for day in fault.dates if day >= runtime.settings.start_date}):
            runtime.state.sync_requests.add(
                connection.key, start, end, names.RECONCILE_JOB, "something is on two dates"
            )


def _ask_for_damaged(runtime: "Runtime", connection: "Connection") -> None:
    """Read every manifest of a connection's days: what is damaged is told, and asked for again, however old it is."""
    damaged: set[date] = set()
    for stream in runtime.raw.streams(connection.provider):
        raw = runtime.raw.of(stream)
        stored = raw.survey(connection.key, date.min, date.max)
        follow_damage(runtime, connection.key, raw, stored.damaged)
        damaged |= stored.damaged_days
    for start, end in ranges(day for day in damaged if day >= runtime.settings.start_date):
        why = "what was stored cannot be read"
        runtime.state.sync_requests.add(connection.key, start, end, names.RECONCILE_JOB, why)


def _compare(runtime: "Runtime", connection: "Connection", now: datetime) -> _Compared:
    from flux_pipelines.sync.reconcile import difference, recount

    source = runtime.source(connection)
    try:
        locations = runtime.refresh_locations(connection, source)
        newest = last_closed(calendars(connection, locations).values(), now)
        first = max(newest - timedelta(days=DAYS - 1), runtime.settings.start_date)
        # Days that were never landed are for the daily schedule, or for whoever backfills them.
        manifests = runtime.raw.manifests(connection.key, first, newest)
        if not manifests:
            return _Compared()
        counted = recount(source, connection, locations, sorted(manifests), now)
    finally:
        source.close()
    told = {day: difference(manifest, counted.days[day]) for day, manifest in manifests.items()}
    found = _Compared(len(manifests))
    name = f"reconcile/{connection.key}"
    before: dict[str, str] = runtime.state.cursors.get(name) or {}
    asked: dict[str, str] = {}
    for day, what in told.items():
        if not what:
            continue
        earlier = before.get(day.isoformat())
        if earlier is not None and manifests[day].fetched_at > datetime.fromisoformat(earlier):
            found.staying[day] = what  # it was fetched again since it was asked for, and differs still
        else:
            found.asked[day] = what
        asked[day.isoformat()] = now.isoformat()
    runtime.state.cursors.set(name, asked, connection=connection.key)
    for start, end in ranges([*found.asked, *found.staying]):
        runtime.state.sync_requests.add(
            connection.key, start, end, names.RECONCILE_JOB, "the daily comparison found a difference"
        )
    _alert(runtime, connection, found)
    _listen(runtime, connection, counted.latest)
    return found


def _alert(runtime: "Runtime", connection: "Connection", found: _Compared) -> None:
    if not found.staying:
        runtime.state.alerts.resolve("reconcile_short", connection.key)
        return
    runtime.state.alerts.raise_(
        "reconcile_short",
        connection.key,
        f"business dates differ from what the provider says of them, although they were fetched again: "
        f"{_told(found.staying)}. Compare them with the provider's own report; they are fetched again each day.",
    )


def _listen(runtime: "Runtime", connection: "Connection", latest_order: datetime | None) -> None:
    """Raise an alert if orders go on and the webhooks that used to announce them do not come any more."""
    last = runtime.state.inbox.last_received().get(connection.key)
    if last is None or latest_order is None:
        return  # it never had any, or nothing was sold
    if latest_order - last <= SILENCE:
        runtime.state.alerts.resolve("webhooks_failing", connection.key)
        return
    runtime.state.alerts.raise_(
        "webhooks_failing",
        connection.key,
        f"no webhook has come since {last:%Y-%m-%d %H:%M} UTC although orders went on until {latest_order:%Y-%m-%d %H:%M} "
        "UTC. See in the provider's developer console whether the subscription is enabled and its address is the one in "
        "`flux apps list`. Until then the polling and the daily sync bring sales in, later.",
    )


def _told(days: dict[date, str]) -> str:
    return "; ".join(f"{day}: {what}" for day, what in sorted(days.items()))


def reconcile_job() -> dg.JobDefinition:
    """Return the job that compares what was landed with the providers."""

    @dg.job(
        name=names.RECONCILE_JOB,
        description=(
            f"Counts each active connection's last {DAYS} closed business dates again at the provider, asks for those that "
            "differ from what was landed, and raises an alert if they differ even then, or if webhooks have stopped. Reads "
            "every manifest as well: days that cannot be read are asked for again, however old they are."
        ),
        executor_def=dg.in_process_executor,
    )
    def reconcile() -> None:
        _reconcile()

    return reconcile


def reconcile_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the daily schedule."""
    return dg.ScheduleDefinition(
        name=f"{names.RECONCILE_JOB}_daily",
        job=job,
        cron_schedule="25 9 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Compares the last {DAYS} closed business dates with the providers every day at 9:25 UTC.",
    )
