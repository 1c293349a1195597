"""What the pages say about connections, gathered from the state database and the lake. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from flux_pipelines.domain.business_day import BusinessCalendar, last_closed
from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.contact import Contact
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.gateway.sales import Sales, recent_sales
from flux_pipelines.providers.base import Provider
from flux_pipelines.providers.registry import all_providers, provider
from flux_pipelines.runtime import Runtime
from flux_pipelines.state import Alert, CachedLocation, SyncRequest

Tone = Literal["good", "warn", "bad", "quiet"]

#: The newest data of a connection that works is never older: yesterday is fetched every night.
_BEHIND_AFTER = timedelta(hours=36)
#: Once there is data, the form proposes the days that change most.
_LATER_BACKFILL = timedelta(days=6)
#: A first backfill goes back this far unless a person says otherwise: enough to forecast from, fetched in minutes.
_FIRST_BACKFILL = timedelta(days=89)


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict for people: a word, why, and what to do now (empty when nothing)."""

    tone: Tone
    word: str
    why: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """One connection as the list shows it. Instants are None for `never`."""

    connection: Connection
    name: str
    title: str
    locations: int
    last_sync: datetime | None
    last_webhook: datetime | None
    expiries: Mapping[str, datetime]
    health: Health
    reconnectable: bool  # in a browser
    renewed: bool  # whether its access token is replaced without anybody


@dataclass(frozen=True, slots=True)
class Backfill:
    """How far a sync that somebody asked for has come: orders of `landed` of `days` business dates.

    `beside` is the same of what is kept by the day beside orders: what it is, and of how many dates it is there.
    """

    request: SyncRequest
    days: int
    landed: int
    beside: Sequence[tuple[str, int]]

    @property
    def under_way(self) -> bool:
        """Whether it has not ended yet."""
        return self.request.status in ("waiting", "started")


@dataclass(frozen=True, slots=True)
class Detail:
    """One connection as its own page shows it."""

    summary: Summary
    spec: Provider
    locations: Sequence[CachedLocation]
    landed_days: int
    first_day: date | None
    last_day: date | None
    backfill: Backfill | None
    #: The dates that a backfill may ask for, and those that the form proposes.
    earliest: date
    latest: date
    proposed: tuple[date, date]
    sales: Sales | None
    #: Why the lake could not be read, when it could not.
    lake_problem: str = ""
    alerts: Sequence[Alert] = field(default=())

    def location(self, location_id: str) -> CachedLocation | None:
        """Return one of the locations, if it is known."""
        return next((one for one in self.locations if one.location_id == location_id), None)


def summaries(runtime: Runtime) -> list[Summary]:
    """Return every connection for the list, those that need somebody first."""
    connections = runtime.state.connections.list()
    webhooks, expiries = runtime.state.inbox.last_received(), runtime.state.secrets.expiries()
    alerts = runtime.state.alerts.open()
    renewed, contacts = runtime.renewed_by_itself(), runtime.contacts(connections)

    def synced(connection: Connection) -> tuple[datetime | None, str]:
        try:
            return _last_sync(runtime, connection.key, runtime.raw.days(connection.key)), ""
        except FluxError as problem:
            return None, problem.what

    with ThreadPoolExecutor(8, thread_name_prefix="overview") as pool:  # on S3 each is two round trips
        looks = list(pool.map(synced, connections))
    found = [
        _summary(
            runtime,
            connection,
            look,
            webhooks,
            expiries,
            alerts,
            renewed=renewed,
            contact=contacts.get(connection.key),
            request=runtime.state.sync_requests.latest(connection.key),
        )
        for connection, look in zip(connections, looks, strict=True)
    ]
    order = {"bad": 0, "warn": 1, "good": 2, "quiet": 3}
    return sorted(found, key=lambda one: (order[one.health.tone], one.connection.key))


def detail(runtime: Runtime, key: str) -> Detail:
    """Return one connection for its own page.

    Raises:
        UnknownConnectionError: there is none of that name.

    """
    connection = runtime.state.connections.get(key)
    locations = runtime.state.locations.list(key)
    earliest = runtime.settings.start_date
    latest = max(_newest_closed(connection, locations, datetime.now(UTC)), earliest)
    spec = provider(connection.provider)
    days: list[date] = []
    beside: dict[str, list[date]] = {}
    last_sync, sales, lake_problem = None, None, ""
    try:
        days = runtime.raw.days(key)
        beside = {
            stream.title: runtime.raw.of(stream.name).days(key) for stream in spec.streams if stream.strategy == "daily"
        }
        last_sync = _last_sync(runtime, key, days)
        sales = recent_sales(runtime.lake, key)
    except FluxError as problem:
        lake_problem = problem.what
    alerts = [alert for alert in runtime.state.alerts.open() if alert.connection_key == key]
    webhooks, expiries = runtime.state.inbox.last_received(), runtime.state.secrets.expiries()
    backfill = _backfill(runtime, key, days, beside)
    return Detail(
        summary=_summary(
            runtime,
            connection,
            (last_sync, lake_problem),
            webhooks,
            expiries,
            alerts,
            renewed=runtime.renewed_by_itself(),
            contact=runtime.contacts([connection]).get(key),
            request=backfill.request if backfill is not None else None,
        ),
        spec=spec,
        locations=locations,
        landed_days=len(days),
        first_day=days[0] if days else None,
        last_day=days[-1] if days else None,
        backfill=backfill,
        earliest=earliest,
        latest=latest,
        proposed=(max(latest - (_LATER_BACKFILL if days else _FIRST_BACKFILL), earliest), latest),
        sales=sales,
        lake_problem=lake_problem,
        alerts=alerts,
    )


def connectable() -> list[Provider]:
    """Return the providers whose accounts are connected in a browser: by agreeing there, or with credentials given here."""
    return [spec for spec in all_providers().values() if spec.oauth is not None or spec.login is not None]


def elsewhere_connectable() -> list[Provider]:
    """Return the providers whose accounts are connected on the command line only."""
    here = connectable()
    return [spec for spec in all_providers().values() if spec.source is not None and spec not in here]


def _newest_closed(connection: Connection, locations: Sequence[CachedLocation], now: datetime) -> date:
    """Return the latest business date that is over at every location; of a connection without any, yesterday's (UTC)."""
    zones = [BusinessCalendar(location.timezone, connection.cutoff_hour, location.earlier) for location in locations]
    return last_closed(zones or [BusinessCalendar("UTC", connection.cutoff_hour)], now)


def _last_sync(runtime: Runtime, key: str, days: Sequence[date]) -> datetime | None:
    """Return when the newest of these business dates was last fetched; None when none was."""
    # The newest may have been begun and not finished: it then has no manifest yet. One that is damaged has an alert.
    stored = runtime.raw.look(key, [day.isoformat() for day in days[-3:]])
    if stored.damaged and not stored.readable:
        raise next(iter(stored.damaged.values()))  # which is not the same as never
    return stored.readable[-1].fetched_at if stored.readable else None


def _backfill(
    runtime: Runtime, key: str, landed: Sequence[date], beside: Mapping[str, Sequence[date]]
) -> Backfill | None:
    request = runtime.state.sync_requests.latest(key)
    if request is None:
        return None

    def count(days: Sequence[date]) -> int:
        return sum(request.first_day <= day <= request.last_day for day in days)

    days = (request.last_day - request.first_day).days + 1
    return Backfill(request, days, count(landed), [(title, count(there)) for title, there in beside.items()])


def _summary(
    runtime: Runtime,
    connection: Connection,
    look: tuple[datetime | None, str],
    webhooks: Mapping[str, datetime],
    expiries: Mapping[str, Mapping[str, datetime]],
    alerts: Sequence[Alert],
    *,
    renewed: Set[str],
    contact: Contact | None,
    request: SyncRequest | None,
) -> Summary:
    known = all_providers().get(connection.provider)
    last_sync, lake_problem = look
    mine = [alert for alert in alerts if alert.connection_key == connection.key]
    return Summary(
        connection=connection,
        name=split_key(connection.key)[1],
        title=known.title if known is not None else connection.provider,
        locations=len(runtime.state.locations.list(connection.key)),
        last_sync=last_sync,
        last_webhook=webhooks.get(connection.key),
        expiries=expiries.get(connection.key, {}),
        health=health_of(
            connection, mine, last_sync, datetime.now(UTC), contact=contact, request=request, lake_problem=lake_problem
        ),
        reconnectable=known is not None and (known.oauth is not None or known.login is not None),
        renewed=connection.key in renewed,
    )


def health_of(
    connection: Connection,
    alerts: Sequence[Alert],
    last_sync: datetime | None,
    now: datetime,
    *,
    contact: Contact | None = None,
    request: SyncRequest | None = None,
    lake_problem: str = "",
) -> Health:
    """Return the verdict on a connection, the gravest first.

    Args:
        connection: which.
        alerts: its open alerts.
        last_sync: when its newest business date was fetched.
        now: the present instant.
        contact: how its last calls and its last test went; None when it is not called.
        request: the last sync that somebody asked for.
        lake_problem: why nobody can tell what was fetched; empty when the lake can be read.

    """
    reason = connection.status_reason
    if connection.status == "needs_reauth":
        return Health("bad", "Needs reconnecting", _sentence(reason), "Reconnect the account to fetch sales again.")
    if connection.status == "disconnected":
        return Health("quiet", "Disconnected", _sentence(reason), "Its history is kept. Reconnect it to go on.")
    if connection.status == "paused":
        return Health("quiet", "Paused", _sentence(reason), "Nothing is fetched until it is resumed.")
    trouble = contact.trouble() if contact is not None else None
    if trouble is not None:
        return Health("bad" if trouble.grave else "warn", trouble.word, _sentence(trouble.why), trouble.next_step)
    if alerts:
        return Health("warn", "Needs attention", _sentence(alerts[0].message))
    if lake_problem:
        return Health("warn", "Not known", f"The lake cannot be read now: {_sentence(lake_problem)}")
    if request is not None and request.status == "failed" and _newer(request.finished_at, last_sync):
        why = (
            f"The sync of {request.first_day} to {request.last_day} failed, {request.finished_at:%Y-%m-%d %H:%M} UTC: "
        )
        return Health(
            "warn", "Sync failed", why + _sentence(request.detail), "Ask for these days again when that is mended."
        )
    if last_sync is None:
        asked = request is not None and request.status in ("waiting", "started")
        step = "Its first backfill is under way." if asked else "Start its first backfill."
        return Health("good", "Connected", "No sales have been fetched yet.", step)
    if now - last_sync > _BEHIND_AFTER:
        return Health(
            "warn",
            "Behind",
            "Nothing has been fetched for more than 36 hours.",
            "See in Dagster whether its daemon runs and what its last runs say.",
        )
    return Health("good", "Healthy", "Sales arrive and the account is authorised.")


def _newer(ended: datetime | None, last_sync: datetime | None) -> bool:
    """Tell whether a sync ended, and nothing was fetched after that."""
    return ended is not None and (last_sync is None or last_sync < ended)


def _sentence(text: str) -> str:
    """Write a reason as a sentence: capital first, full stop last."""
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
