"""Which business dates of a connection are over, and which of those are missing. No Dagster."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from flux_pipelines.defs.partition_alerts import follow_damage
from flux_pipelines.domain.business_day import BusinessCalendar, Zoned, last_closed, newest_begun
from flux_pipelines.domain.errors import TableDamagedError

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake.raw import RawManifest, RawStore
    from flux_pipelines.runtime import Runtime

#: Days that were missed (the machine was off, the connection had to be authorised again) are made up for, this far.
CATCH_UP_DAYS = 7
#: Locations change seldom: they are asked for again when they were last heard of this long ago.
LOCATIONS_AGE = timedelta(days=1)
#: What a provider did not have yet is asked for again when it was last asked for this long ago, for so many days.
ASK_AGAIN_AFTER = timedelta(hours=4)
ASK_AGAIN_DAYS = 3


def stores(runtime: Runtime, connection: Connection) -> list[Zoned]:
    """Return the connection's locations, closed ones too, asking the provider when they are not known of late."""
    known = runtime.state.locations.list(connection.key, max_age=LOCATIONS_AGE)
    if known:
        return list(known)
    source = runtime.source(connection)
    try:
        return list(runtime.refresh_locations(connection, source))
    finally:
        source.close()


def calendars(connection: Connection, locations: Iterable[Zoned]) -> dict[str, BusinessCalendar]:
    """Return each location's business calendar."""
    return {
        store.location_id: BusinessCalendar(store.timezone, connection.cutoff_hour, store.earlier)
        for store in locations
    }


def was_over(manifest: RawManifest) -> bool:
    """Tell whether a partition was fetched after its day had ended at every location that was asked."""
    return all(manifest.fetched_at >= window.end for window in manifest.windows)


def open_then(runtime: Runtime, day: date) -> list[str]:
    """Return the connections whose partition of a business date was fetched before the date had ended for them.

    One that cannot be read counts as well: nobody can tell whether the date had ended.
    """
    found = []
    for key in runtime.raw.connections():  # not those of today: what a removed one has landed is history all the same
        stored = runtime.raw.look(key, [day.isoformat()])
        if stored.damaged or not all(was_over(manifest) for manifest in stored.readable):
            found.append(key)
    return found


def collected_until(last: date, now: datetime) -> date:
    """Return up to which date daily streams are collected for business dates up to `last`: tabs of it are paid on the next.

    The next one is left out until it has begun everywhere.
    """
    after = last + timedelta(days=1)
    return after if after <= newest_begun(now) - timedelta(days=1) else last


def last_fetched(raw: RawStore, connection: str, day: date) -> datetime | None:
    """Return when a business date was fetched; None when it never was.

    One that cannot be read was fetched before everything that can be: whoever compares fetches it again.
    """
    try:
        manifest = raw.read_manifest(connection, day)
    except TableDamagedError:
        return datetime(1970, 1, 1, tzinfo=UTC)
    return None if manifest is None else manifest.fetched_at


def is_complete(manifest: RawManifest | None, day: date, calendars: Iterable[BusinessCalendar]) -> bool:
    """Tell whether a landed partition was fetched after its day had ended everywhere, and nothing was found missing.

    One that the provider has called empty since is not complete: it is asked for again until the provider agrees.
    """
    if manifest is None or manifest.verification.status == "short" or manifest.verification.emptied_at is not None:
        return False
    return manifest.fetched_at >= max(calendar.window(day)[1] for calendar in calendars)


class Due(NamedTuple):
    """Business dates to fetch, in order; and which of them had been fetched well, and cannot be relied on any more."""

    days: list[date]
    again: frozenset[date]


def due_days(
    runtime: Runtime, connection: Connection, now: datetime, raw: RawStore | None = None, *, unanswered: str = ""
) -> Due:
    """Return the closed business dates that are due: yesterday, and every other one since the first complete one.

    A day that was landed while it was open (webhooks do that) is due like one that was never landed, and so is one
    that lies before a complete day: webhooks land days out of order. A connection that has not landed anything lately
    begins with yesterday: its history is for a person to backfill.

    A day whose manifest or file is damaged is due as well, whatever else there is, and so is one that the provider has
    called empty since. An alert names those that are damaged until they can be read again.

    Args:
        runtime: the rooms.
        connection: whose days.
        now: the present instant.
        raw: the raw records of which stream; orders unless another is given.
        unanswered: the kind of record that says that the provider did not have a date yet; empty without one.

    """
    zones = list(calendars(connection, stores(runtime, connection)).values())
    if not zones:
        return Due([], frozenset())
    newest = last_closed(zones, now)
    first = max(newest - timedelta(days=CATCH_UP_DAYS - 1), runtime.settings.start_date)
    raw = raw or runtime.raw
    landed = raw.survey(connection.key, first, newest, files=True)
    follow_damage(runtime, connection.key, raw, landed.damaged)
    complete = {one.business_date for one in landed.readable if is_complete(one, one.business_date, zones)}
    emptied = {one.business_date for one in landed.readable if one.verification.emptied_at is not None}
    waiting = {
        one.business_date
        for one in landed.readable
        if unanswered in one.states
        and now - one.fetched_at >= ASK_AGAIN_AFTER
        and newest - one.business_date < timedelta(days=ASK_AGAIN_DAYS)
    }
    complete -= waiting
    again = landed.damaged_days | emptied | waiting
    since = min(complete | again, default=max(newest, first))
    due = [day for n in range((newest - since).days + 1) if (day := since + timedelta(days=n)) not in complete]
    return Due(due, frozenset(again))
