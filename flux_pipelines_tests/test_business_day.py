from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_pipelines.domain.business_day import BusinessCalendar, Earlier
from flux_pipelines.domain.errors import ConfigurationError, UnknownZoneError

NEW_YORK = BusinessCalendar("America/New_York")


def hours(calendar: BusinessCalendar, day: date) -> float:
    start, end = calendar.window(day)
    return (end - start) / timedelta(hours=1)


def test_the_day_clocks_go_forward_has_23_hours() -> None:
    assert hours(NEW_YORK, date(2025, 3, 9)) == 23


def test_the_day_clocks_go_back_has_25_hours() -> None:
    assert hours(NEW_YORK, date(2025, 11, 2)) == 25


def test_a_sale_after_midnight_belongs_to_the_evening_before_the_cutoff() -> None:
    bar = BusinessCalendar("America/New_York", cutoff_hour=4)
    assert bar.date_of(datetime(2025, 6, 7, 5, 30, tzinfo=UTC)) == date(2025, 6, 6)  # 01:30 local
    assert bar.date_of(datetime(2025, 6, 7, 8, 0, tzinfo=UTC)) == date(2025, 6, 7)  # 04:00 local, the next day


def test_a_cutoff_inside_the_hour_that_does_not_exist() -> None:
    bar = BusinessCalendar("America/New_York", cutoff_hour=2)
    assert bar.window(date(2025, 3, 9))[0] == datetime(2025, 3, 9, 7, 0, tzinfo=UTC)
    assert bar.window(date(2025, 3, 8))[1] == bar.window(date(2025, 3, 9))[0]


def test_unknown_zone_is_named() -> None:
    with pytest.raises(UnknownZoneError, match="Mars/Olympus"):
        BusinessCalendar("Mars/Olympus")


def test_cutoff_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="24"):
        BusinessCalendar("UTC", 24)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["America/New_York", "Asia/Tokyo", "Australia/Lord_Howe", "Europe/London", "Asia/Kathmandu"]),
    st.integers(0, 23),
)
def test_every_instant_is_in_the_window_of_its_own_date(instant: datetime, zone: str, cutoff: int) -> None:
    calendar = BusinessCalendar(zone, cutoff)
    start, end = calendar.window(calendar.date_of(instant))
    assert start <= instant < end


ZONES = [
    "America/New_York",
    "America/Los_Angeles",
    "Pacific/Kiritimati",
    "Etc/GMT+12",
    "Australia/Lord_Howe",
    "Europe/London",
]
RULES = st.tuples(st.sampled_from(ZONES), st.integers(0, 23))


@st.composite
def changing(draw: st.DrawFn) -> BusinessCalendar:
    """A calendar whose rules have changed a few times, on dates as near to each other as dates can be."""
    dates = sorted(draw(st.sets(st.dates(date(2025, 2, 25), date(2025, 3, 20)), max_size=5)))
    earlier = tuple(Earlier(until, *draw(RULES)) for until in dates)
    return BusinessCalendar(*draw(RULES), earlier)


@given(changing(), st.datetimes(datetime(2025, 2, 20), datetime(2025, 3, 27), timezones=st.just(UTC)))
def test_whatever_changes_when_every_instant_is_of_exactly_one_date(
    calendar: BusinessCalendar, instant: datetime
) -> None:
    days = [date(2025, 2, 17) + timedelta(days=n) for n in range(43)]
    windows = {day: calendar.window(day) for day in days}
    assert all(windows[before][1] == windows[day][0] for before, day in pairwise(days))
    assert all(start <= end for start, end in windows.values())
    assert [day for day, (start, end) in windows.items() if start <= instant < end] == [calendar.date_of(instant)]


def test_dates_before_a_change_keep_their_boundaries_and_the_first_one_after_it_is_longer() -> None:
    moved = date(2025, 6, 10)
    calendar = BusinessCalendar("America/Los_Angeles", 4, (Earlier(moved, "America/New_York", 0),))
    assert calendar.window(date(2025, 6, 9)) == NEW_YORK.window(date(2025, 6, 9))
    assert calendar.start(moved) == NEW_YORK.start(moved)
    assert hours(calendar, moved) == 24 + 3 + 4
    assert calendar.window(date(2025, 6, 11)) == BusinessCalendar("America/Los_Angeles", 4).window(date(2025, 6, 11))
