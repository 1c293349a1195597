"""Which partitions webhook events touch, and how events are put together so that few runs cover them. No Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, cast

from flux_pipelines.defs.completeness import calendars, stores
from flux_pipelines.defs.deleted_orders import remember_deleted, where_kept
from flux_pipelines.defs.partitions import each_day, ranges
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.base import ORDERS, Invalidation, Provider, Source, WebhookSource

if TYPE_CHECKING:
    from flux_pipelines.domain.business_day import BusinessCalendar
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.state import Event

#: What of a unit is not a stream's name: orders, and what a person asked to be forgotten (with the event's id).
FORGET = "forget"


class StalePartition(NamedTuple):
    """What an event makes stale: of a connection, the orders or a stream of a business date."""

    connection: str
    what: str
    day: date


class Run(NamedTuple):
    """A run that brings units up to date: one connection, one stream (or orders), a range of business dates."""

    connection: str
    what: str
    first: date
    last: date


#: Business dates in one run, as in a backfill: a run that dies loses little.
MAX_DAYS_PER_EVENT_RUN = 31


class _Nobody:
    """A client that cannot be asked, for events that need none: those of people who ask to be forgotten."""

    def __getattr__(self, name: str) -> object:
        raise ConfigurationError("this event cannot be understood without asking the provider")


NOBODY = cast("Source", _Nobody())


def asks_to_forget(webhooks: WebhookSource, event: Event) -> bool:
    """Tell whether a person asks to be forgotten by an event; the provider is not asked for it.

    It must be heeded when the account was disconnected long ago, too.
    """
    try:
        (affected,) = webhooks.affected([(event.event_type, event.body)], NOBODY)
    except Exception:  # noqa: BLE001 - any other event may want to ask, or hold anything
        return False
    return affected.erase is not None


@dataclass(slots=True)
class Batch:
    """Events that are brought in together, and the partitions to sync for them."""

    ids: list[int]
    units: set[StalePartition]

    def runs(self) -> list[Run]:
        """Return the runs it takes, those of orders first: what was sold is wanted soonest."""
        subjects = {(unit.connection, unit.what) for unit in self.units}
        return [
            Run(key, what, start, min(start + timedelta(days=MAX_DAYS_PER_EVENT_RUN - 1), last))
            for key, what in sorted(subjects, key=lambda subject: (subject[1] != ORDERS, subject))
            for first, last in ranges(unit.day for unit in self.units if (unit.connection, unit.what) == (key, what))
            for start in each_day(first, last)[::MAX_DAYS_PER_EVENT_RUN]
        ]


class EventResolver:
    """Asks the provider, for one account, what events touch. Opens its client when it is needed."""

    def __init__(
        self,
        runtime: Runtime,
        provider: Provider,
        webhooks: WebhookSource,
        connections: Sequence[Connection],
        now: datetime,
    ) -> None:
        self._runtime = runtime
        self._provider = provider
        self._webhooks = webhooks
        self._connections = connections
        self._now = now
        self._opened: Source | None = None
        self._zones: dict[str, dict[str, BusinessCalendar]] = {}
        self._asked_for_locations = False

    @property
    def connections(self) -> Sequence[Connection]:
        """The connections of the account."""
        return self._connections

    @property
    def connection(self) -> Connection:
        """The connection whose credentials are used; others of the same account share what is found."""
        return self._connections[0]

    @property
    def source(self) -> Source:
        """The provider's client."""
        if self._opened is None:
            self._opened = self._runtime.source(self.connection)
        return self._opened

    def close(self) -> None:
        """Close what was opened."""
        if self._opened is not None:
            self._opened.close()

    def affected(self, events: Sequence[Event]) -> list[Invalidation]:
        """Ask what the events touch."""
        return self._webhooks.affected([(event.event_type, event.body) for event in events], self.source)

    def ask_for_locations(self) -> None:
        """Read the locations again, once a tick."""
        if not self._asked_for_locations:
            self._asked_for_locations = True
            for connection in self._connections:
                self._runtime.refresh_locations(connection, self.source)
            self._zones.clear()

    def units(self, affected: Invalidation) -> tuple[frozenset[StalePartition], bool]:
        """Return what was touched, and whether a business date among it has not begun yet."""
        if affected.locations:
            self.ask_for_locations()
        found: set[StalePartition] = set()
        early = False
        for connection in self._connections:
            days: set[tuple[str, str, date | None, datetime | None]] = {
                (ORDERS, location, None, instant) for location, instant in affected.sold
            }
            days |= {(ORDERS, location, day, None) for location, day in affected.days}
            found |= self._left_by(connection, affected.deleted)
            days |= {(stream, location, None, at) for stream, location, at in affected.streams if self._by_day(stream)}
            for what, location, day, instant in days:
                calendar = self._calendar(connection, location)
                if calendar is None:
                    continue
                if day is None:
                    if instant is None:
                        continue
                    day = calendar.date_of(instant)
                early = early or calendar.start(day) > self._now
                if day >= self._runtime.settings.start_date:
                    found.add(StalePartition(connection.key, what, day))
            found |= {
                StalePartition(connection.key, stream, self._now.date())
                for stream, location, _ in affected.streams
                if not self._by_day(stream) and self._is_of(connection, location)
            }
        return frozenset(found), early

    def _left_by(self, connection: Connection, deleted: frozenset[str]) -> set[StalePartition]:
        """Return what deleted orders leave stale: the date that each is stored under, or those on which its rows count."""
        if not deleted:
            return set()
        kept = where_kept(self._runtime, self._provider, connection.key, deleted)
        remember_deleted(self._runtime, connection.key, {order_id: one.raw_date for order_id, one in kept.items()})
        stale: set[date] = set()
        for one in kept.values():
            # An older order is kept without its date, which is not fetched for it.
            stale |= {one.raw_date} if one.is_landed else self._runtime.raw.landed(connection.key, one.counted_on)
        return {
            StalePartition(connection.key, ORDERS, day) for day in stale if day >= self._runtime.settings.start_date
        }

    def _by_day(self, stream: str) -> bool:
        return self._provider.stream(stream).grain == "day"

    def _is_of(self, connection: Connection, location: str) -> bool:
        """Tell whether a location, if one is named, is the connection's; an account has only one connection mostly."""
        return not location or len(self._connections) == 1 or self._calendar(connection, location) is not None

    def _calendar(self, connection: Connection, location: str) -> BusinessCalendar | None:
        zones = self._zones_of(connection)
        if location not in zones:
            self.ask_for_locations()  # a store may be new
            zones = self._zones_of(connection)
        return zones.get(location)

    def _zones_of(self, connection: Connection) -> dict[str, BusinessCalendar]:
        if connection.key not in self._zones:
            self._zones[connection.key] = calendars(connection, stores(self._runtime, connection))
        return self._zones[connection.key]


def forgotten(event: int, connections: Sequence[Connection], now: datetime) -> frozenset[StalePartition]:
    """Return the units of an event by which a person asks to be forgotten: a run of its own for each connection."""
    return frozenset(StalePartition(connection.key, f"{FORGET}-{event}", now.date()) for connection in connections)


def batches(units: Mapping[int, tuple[frozenset[StalePartition], bool]]) -> Iterator[Batch]:
    """Group events so that each group's partitions are synced together and no two groups share one.

    Neighbouring days go together, except those of events that have failed before: they go by themselves, so that a day
    that cannot be brought in fails alone.
    """
    parent: dict[StalePartition, StalePartition] = {}

    def root(unit: StalePartition) -> StalePartition:
        while parent.setdefault(unit, unit) != unit:
            parent[unit] = unit = parent[parent[unit]]
        return unit

    calm: set[StalePartition] = set()
    for touched, first_time in units.values():
        one, *others = sorted(touched)
        for other in others:
            parent[root(other)] = root(one)
        root(one)
        if first_time:
            calm |= touched
    troubled = {unit for touched, first_time in units.values() if not first_time for unit in touched}
    calm -= troubled
    for unit in sorted(calm):
        before = unit._replace(day=unit.day - timedelta(days=1))
        if before in calm:
            parent[root(unit)] = root(before)
    grouped: dict[StalePartition, Batch] = {}
    for event, (touched, _) in units.items():
        batch = grouped.setdefault(root(min(touched)), Batch([], set()))
        batch.ids.append(event)
        batch.units |= touched
    yield from grouped.values()
