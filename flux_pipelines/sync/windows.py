"""Business days of a connection as windows of instants: locations of one calendar and one call go together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, DayNotReadyError, UnknownZoneError
from flux_pipelines.providers.base import Location, OrderHeader, Window

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Group:
    """Locations that share a calendar and are asked for in one call."""

    calendar: BusinessCalendar
    location_ids: tuple[str, ...]


def group_locations(connection: Connection, locations: Sequence[Location], most: int) -> list[Group]:
    """Group a connection's locations by time zone, at most `most` in a group.

    Raises:
        UnknownZoneError: a location's zone is not in the IANA database; the message names the location.
        ConfigurationError: the connection has no locations.

    """
    if not locations:
        raise ConfigurationError(
            "the connection has no locations, so there is nothing to ask for",
            connection=connection.key,
            next_step="Add a location at the provider, or connect the account that has the stores.",
        )
    by_calendar: dict[BusinessCalendar, list[str]] = {}
    for location in sorted(locations, key=lambda item: item.location_id):
        try:
            calendar = BusinessCalendar(location.timezone, connection.cutoff_hour, location.earlier)
        except UnknownZoneError as unknown:
            raise UnknownZoneError(
                f"the location {location.location_id} ({location.name}) has the time zone {location.timezone!r}, which "
                "is not in the IANA database",
                connection=connection.key,
                next_step=unknown.next_step,
            ) from unknown
        by_calendar.setdefault(calendar, []).append(location.location_id)
    return [
        Group(calendar, tuple(ids[start : start + most]))
        for calendar, ids in sorted(by_calendar.items(), key=lambda item: item[0].zone_name)
        for start in range(0, len(ids), most)
    ]


def stream_window(group: Group, days: Sequence[date]) -> Window:
    """Return the question about a group's records of business dates that follow one another."""
    starts = tuple(group.calendar.start(day) for day in days)
    end = group.calendar.window(days[-1])[1]
    return Window(group.location_ids, starts[0], end, days[0], starts if len(days) > 1 else ())


def not_begun(connection: Connection, day: date, groups: Sequence[Group], now: datetime) -> DayNotReadyError | None:
    """Return why a business date cannot be asked for yet: it has begun at no location; None when it has."""
    begins = min(group.calendar.start(day) for group in groups)
    if begins <= now:
        return None
    return DayNotReadyError(
        f"the business date {day} has not begun anywhere yet (it begins {begins:%Y-%m-%d %H:%M} UTC)",
        connection=connection.key,
        next_step="Ask for it again after it has begun.",
    )


def contiguous(days: Sequence[date]) -> Iterator[list[date]]:
    """Cut business dates into runs without gaps."""
    run: list[date] = []
    for day in sorted(set(days)):
        if run and day != run[-1] + _DAY:
            yield run
            run = []
        run.append(day)
    if run:
        yield run


class DayIndex:
    """Finds the business date of an instant among some contiguous days of a calendar, by bisection."""

    def __init__(self, calendar: BusinessCalendar, days: Sequence[date]) -> None:
        self.days = list(days)
        self._calendar = calendar
        self._bounds = [calendar.start(day) for day in days] + [calendar.window(days[-1])[1]]

    @property
    def start(self) -> datetime:
        """The first instant of the first day."""
        return self._bounds[0]

    @property
    def end(self) -> datetime:
        """The first instant after the last day."""
        return self._bounds[-1]

    def window(self, number: int) -> tuple[datetime, datetime]:
        """Return day `number` as a half-open interval."""
        return self._bounds[number], self._bounds[number + 1]

    def number(self, instant: datetime) -> int:
        """Return which of the days an instant is on: -1 before the first, the number of days after the last."""
        return bisect_right(self._bounds, instant) - 1

    def number_of(self, header: OrderHeader) -> int:
        """Return which of the days an order is on: the provider's own date where it gives one, else by its creation."""
        if header.business_date is None:
            return self.number(header.created_at)
        return min(max(-1, (header.business_date - self.days[0]).days), len(self.days))

    def date_of(self, header: OrderHeader) -> date:
        """Return the date that an order is of, whether it is among these or not."""
        return header.business_date or self._calendar.date_of(header.created_at)

    def nearest_start(self, instant: datetime) -> datetime:
        """Return the start of a day that is nearest to an instant."""
        at = bisect_left(self._bounds, instant)
        around = self._bounds[max(0, at - 1) : at + 1]
        return min(around, key=lambda bound: abs(bound - instant))
