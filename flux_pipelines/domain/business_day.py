"""The business date: a location's local date, shifted by the hour at which its trading day ends.

A bar that closes at 4 a.m. has `cutoff_hour=4`: a sale at 01:30 on Saturday belongs to Friday. A business day is a
half-open interval of UTC instants, so days of 23 and 25 hours (daylight-saving changes) need no special case.

A store moves to another zone, or its owner moves the cut-off hour: dates before the change keep the boundaries that they
have. A date ends by its own rule and begins where the one before it ends, so the first date of a new rule is longer or
shorter, and every instant is of exactly one date.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flux_pipelines.domain.errors import ConfigurationError, UnknownZoneError

#: Where a business date begins first on Earth (UTC+14, no daylight saving).
EARLIEST_ZONE = "Pacific/Kiritimati"
#: A business date counts as over this long after it has ended at the last of a connection's locations.
GRACE = timedelta(minutes=30)


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """Return the IANA zone of that name.

    Raises:
        UnknownZoneError: the IANA database has no such zone.

    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZoneError(
            f"the time zone {name!r} is not in the IANA database",
            next_step="Correct the location's time zone at the provider (for example America/New_York).",
        ) from error


@lru_cache(maxsize=65536)
def _start(day: date, zone_name: str, cutoff_hour: int) -> datetime:
    # A cut-off inside a spring-forward gap does not exist on the wall clock; zoneinfo maps it to the instant
    # that the gap skipped to (fold=0 uses the offset before the change), which keeps days contiguous.
    local = datetime(day.year, day.month, day.day, cutoff_hour, tzinfo=zone(zone_name))
    return local.astimezone(UTC)


def _date_of(instant: datetime, zone_name: str, cutoff_hour: int) -> date:
    local = instant.astimezone(zone(zone_name))
    guess = (local.replace(tzinfo=None) - timedelta(hours=cutoff_hour)).date()
    moment = instant.astimezone(UTC)
    if moment < _start(guess, zone_name, cutoff_hour):
        return guess - timedelta(days=1)
    if moment >= _start(guess + timedelta(days=1), zone_name, cutoff_hour):
        return guess + timedelta(days=1)
    return guess


class Earlier(NamedTuple):
    """A rule that held once: the zone and the cut-off hour of the business dates before `until`."""

    until: date
    zone_name: str
    cutoff_hour: int


@dataclass(frozen=True, slots=True)
class BusinessCalendar:
    """The rule that gives a location's business dates: its IANA zone and its cut-off hour (0-23, local).

    Args:
        zone_name: the zone.
        cutoff_hour: the hour.
        earlier: the rules of dates before the present one, the oldest first.

    """

    zone_name: str
    cutoff_hour: int = 0
    earlier: tuple[Earlier, ...] = ()

    def __post_init__(self) -> None:
        for zone_name, cutoff_hour in ((self.zone_name, self.cutoff_hour), *(rule[1:] for rule in self.earlier)):
            zone(zone_name)
            if not 0 <= cutoff_hour <= 23:
                raise ConfigurationError(f"cutoff_hour must be 0 to 23, not {cutoff_hour}")

    def start(self, day: date) -> datetime:
        """Return the UTC instant at which business date `day` begins: that at which the one before it ends."""
        if not self.earlier:
            return _start(day, self.zone_name, self.cutoff_hour)
        # From one end of the Earth to the other, and from one end of the day to the other, a change may put the end of a
        # date before that of an earlier one: it has no instants then. Two rules are less than three days apart.
        return max(self._end(day - timedelta(days=days)) for days in range(1, 5))

    def _end(self, day: date) -> datetime:
        rule = next((rule for rule in self.earlier if day < rule.until), None)
        zone_name, cutoff_hour = (self.zone_name, self.cutoff_hour) if rule is None else rule[1:]
        return _start(day + timedelta(days=1), zone_name, cutoff_hour)

    def window(self, day: date) -> tuple[datetime, datetime]:
        """Return business date `day` as a half-open interval of UTC instants."""
        return self.start(day), self.start(day + timedelta(days=1))

    def date_of(self, instant: datetime) -> date:
        """Return the business date of an aware instant."""
        since = date.min
        for until, zone_name, cutoff_hour in self.earlier:
            if instant < self.start(until):
                return max(since, _date_of(instant, zone_name, cutoff_hour))
            since = until
        return max(since, _date_of(instant, self.zone_name, self.cutoff_hour))


class Zoned(Protocol):
    """A location, as far as its calendar goes."""

    @property
    def timezone(self) -> str:
        """The IANA zone."""

    @property
    def location_id(self) -> str:
        """The provider's id."""

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        """The rules of its earlier business dates."""


def known_calendars(locations: Iterable[Zoned], cutoff_hour: int) -> dict[str, BusinessCalendar]:
    """Return the calendar of each location whose zone the IANA database has."""
    found: dict[str, BusinessCalendar] = {}
    for location in locations:
        with suppress(UnknownZoneError):  # landing says so; what has landed can be read all the same
            found[location.location_id] = BusinessCalendar(location.timezone, cutoff_hour, location.earlier)
    return found


def last_closed(calendars: Iterable[BusinessCalendar], now: datetime) -> date:
    """Return the latest business date that has ended at every location, with the grace period."""
    return min(calendar.date_of(now - GRACE) for calendar in calendars) - timedelta(days=1)


def newest_begun(now: datetime) -> date:
    """Return the latest business date that has begun anywhere on Earth."""
    return now.astimezone(zone(EARLIEST_ZONE)).date()
