"""The stores of each connection, as the provider last described them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from flux_pipelines.domain.business_day import Earlier
from flux_pipelines.domain.errors import UnknownConnectionError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import ConnectionRow, LocationCalendarRow, LocationRow


def _rules(session: Session, connection_key: str) -> dict[str, list[LocationCalendarRow]]:
    query = (
        select(LocationCalendarRow)
        .where(LocationCalendarRow.connection_key == connection_key)
        .order_by(LocationCalendarRow.location_id, LocationCalendarRow.valid_from)
    )
    found: dict[str, list[LocationCalendarRow]] = {}
    for row in session.scalars(query):
        found.setdefault(row.location_id, []).append(row)
    return found


def _earlier(rules: Sequence[LocationCalendarRow]) -> tuple[Earlier, ...]:
    """Return all rules but the present one, each with the date from which on the next one holds."""
    return tuple(Earlier(after.valid_from, rule.timezone, rule.cutoff_hour) for rule, after in pairwise(rules))


class LocationLike(Protocol):
    """What a provider says of a store."""

    @property
    def location_id(self) -> str:
        """The provider's id."""

    @property
    def name(self) -> str:
        """The store's name."""

    @property
    def timezone(self) -> str:
        """The IANA zone."""

    @property
    def currency(self) -> str:
        """The ISO 4217 code."""

    @property
    def active(self) -> bool:
        """Whether the store trades."""


@dataclass(frozen=True, slots=True)
class CachedLocation:
    """A store and when the provider last named it (UTC)."""

    location_id: str
    name: str
    timezone: str
    currency: str
    active: bool
    seen_at: datetime
    earlier: tuple[Earlier, ...] = ()


class Locations:
    """Remembers the stores of connections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def replace(self, connection_key: str, locations: Iterable[LocationLike]) -> None:
        """Store what the provider answered. A store it no longer names is kept as inactive: its past remains.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        now = datetime.now(UTC)
        rows = [
            {
                "connection_key": connection_key,
                "location_id": location.location_id,
                "name": location.name,
                "timezone": location.timezone,
                "currency": location.currency,
                "active": location.active,
                "seen_at": now,
            }
            for location in locations
        ]
        with self._database.session() as session:
            # Locked whole: two processes that store the same stores would else lock them in different orders.
            if session.get(ConnectionRow, connection_key, with_for_update=True) is None:
                raise UnknownConnectionError(f"there is no connection called {connection_key!r}")
            gone = update(LocationRow).where(LocationRow.connection_key == connection_key).values(active=False)
            session.execute(gone)
            self._database.upsert(session, LocationRow, rows)

    def list(self, connection_key: str, *, max_age: timedelta | None = None) -> list[CachedLocation]:
        """Return the stores by id; none when they were never asked for, or last longer ago than `max_age`."""
        query = (
            select(LocationRow).where(LocationRow.connection_key == connection_key).order_by(LocationRow.location_id)
        )
        with self._database.reading() as session:
            rows = session.scalars(query).all()
            rules = _rules(session, connection_key)
        if max_age is not None and rows:
            age = datetime.now(UTC) - max(row.seen_at for row in rows)
            if not timedelta(0) <= age <= max_age:  # from the future: the clock was set back, and the age is not known
                return []
        return [
            CachedLocation(
                row.location_id,
                row.name,
                row.timezone,
                row.currency,
                row.active,
                row.seen_at,
                _earlier(rules.get(row.location_id, ())),
            )
            for row in rows
        ]

    def keep_calendars(
        self, connection_key: str, zones: Mapping[str, str], cutoff_hour: int, first_new: Callable[[], date | None]
    ) -> dict[str, tuple[Earlier, ...]]:
        """Remember by which rule the business dates of stores end; return the rules of earlier dates, by store.

        A rule that is another than before holds from the first date that has not been landed yet: what has landed keeps its
        boundaries.

        Args:
            connection_key: whose stores.
            zones: the IANA zone of each.
            cutoff_hour: the hour, of all of them.
            first_new: gives that date; None when nothing has been landed.

        """
        with self._database.session() as session:
            # Locked: of two processes that see a change at the same time, the second one finds it made.
            if session.get(ConnectionRow, connection_key, with_for_update=True) is None:
                raise UnknownConnectionError(f"there is no connection called {connection_key!r}")
            rules = _rules(session, connection_key)
            changed = [
                location_id
                for location_id, zone in zones.items()
                if not (known := rules.get(location_id))
                or (known[-1].timezone, known[-1].cutoff_hour) != (zone, cutoff_hour)
            ]
            since = (first_new() if any(rules.get(one) for one in changed) else None) or date.min
            for location_id in changed:
                kept = [rule for rule in rules.get(location_id, ()) if rule.valid_from < since]
                for rule in rules.get(location_id, ())[len(kept) :]:
                    session.delete(rule)
                session.flush()
                if not kept or (kept[-1].timezone, kept[-1].cutoff_hour) != (zones[location_id], cutoff_hour):
                    rule = LocationCalendarRow(
                        connection_key=connection_key,
                        location_id=location_id,
                        valid_from=since if kept else date.min,
                        timezone=zones[location_id],
                        cutoff_hour=cutoff_hour,
                    )
                    session.add(rule)
                    kept.append(rule)
                rules[location_id] = kept
            return {location_id: _earlier(rules[location_id]) for location_id in zones}

    def names(self) -> dict[str, str]:
        """Return what every store is called, by its id; without ids that two connections have for different stores."""
        with self._database.reading() as session:
            found = session.execute(select(LocationRow.location_id, LocationRow.name).distinct()).all()
        counted = Counter(location_id for location_id, _ in found)
        return {location_id: name for location_id, name in found if name and counted[location_id] == 1}

    def owners(self, provider: str, location_id: str) -> Sequence[str]:
        """Return the keys of a provider's connections that have a location of this id."""
        if "\x00" in location_id:  # a text that no location has, and that PostgreSQL does not take
            return []
        query = (
            select(LocationRow.connection_key)
            .where(
                LocationRow.location_id == location_id,
                LocationRow.connection_key.startswith(f"{provider}:", autoescape=True),
            )
            .order_by(LocationRow.connection_key)
        )
        with self._database.reading() as session:
            return session.scalars(query).all()
