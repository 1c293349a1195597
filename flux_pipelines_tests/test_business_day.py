from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_pipelines.domain.business_day import BusinessCalendar
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
