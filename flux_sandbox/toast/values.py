"""How Toast writes values: dollars as JSON numbers, instants without a colon in the offset, dates as integers.

Numbers are put together from integers, never through binary floats: what is printed is what is meant. Like Toast's own
answers they are not uniform: `12.5`, `111`, `8.0` and `1.06` all occur.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from flux_pipelines.domain.business_day import BusinessCalendar

#: The placeholder of a deletion that did not happen (devguide, "Order changes, deletions, and voids").
NEVER = "1970-01-01T00:00:00.000+0000"
#: What never differs of Toast's objects in the sandbox's world, by what it is of: members that examples of Toast's show as well.
FIXED: Mapping[str, Mapping[str, Any]] = msgspec.json.decode(Path(__file__).with_name("fixed.json").read_bytes())
_INSTANT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:?\d\d)$")
_DATE = re.compile(r"^\d{8}$")


def decimal_text(amount: int, places: int, *, whole: bool = False) -> str:
    """Return `amount / 10 ** places` without needless zeros; `whole` lets whole numbers end in `.0`."""
    sign = "-" if amount < 0 else ""
    units, part = divmod(abs(amount), 10**places)
    digits = f"{part:0{places}d}".rstrip("0") if part else ""
    if not digits:
        return f"{sign}{units}.0" if whole else f"{sign}{units}"
    return f"{sign}{units}.{digits}"


@lru_cache(maxsize=200_000)
def dollars(cents: int, *, whole: bool = False) -> msgspec.Raw:
    """Return an amount as a JSON number in major units, exact to the cent."""
    return msgspec.Raw(decimal_text(cents, 2, whole=whole).encode())


@lru_cache(maxsize=10_000)
def quantity(units: int, precision: int, *, whole: bool = False) -> msgspec.Raw:
    """Return a quantity as a JSON number."""
    return msgspec.Raw(decimal_text(units, precision, whole=whole).encode())


@lru_cache(maxsize=1_000)
def rate(millionths: int) -> msgspec.Raw:
    """Return a rate as a JSON number: 62,500 is 0.0625."""
    return msgspec.Raw(decimal_text(millionths, 6).encode())


@lru_cache(maxsize=10_000)
def stamp(ms: int) -> str:
    """Return an instant as the APIs write it: `2019-02-24T13:48:44.206+0000`."""
    seconds, rest = divmod(ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}+0000"


def stamp_z(ms: int) -> str:
    """Return an instant as webhooks and the partners API write it: `2024-03-28T15:11:01.050Z`."""
    return stamp(ms).replace("+0000", "Z")


def instant_ms(text: str) -> int | None:
    """Return the UTC milliseconds of an instant in a query, or None: it must have a fraction and an offset."""
    if not _INSTANT.match(text):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    # Not through a float: milliseconds of today do not all survive one.
    whole = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1000 + whole.microseconds // 1000


def date_of(text: str) -> date | None:
    """Return the business date of a query (`yyyyMMdd`), or None."""
    if not _DATE.match(text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def day_number(day: date) -> int:
    """Return a business date as Toast's integer: 20190224."""
    return day.year * 10_000 + day.month * 100 + day.day


def business_day(ms: int, zone: str, closeout_hour: int) -> int:
    """Return the business date of an instant, as Toast's integer."""
    return day_number(BusinessCalendar(zone, closeout_hour).date_of(datetime.fromtimestamp(ms // 1000, UTC)))


def window_ms(day: date, zone: str, closeout_hour: int) -> tuple[int, int]:
    """Return a business date as a half-open interval of UTC milliseconds."""
    start, end = BusinessCalendar(zone, closeout_hour).window(day)
    return int(start.timestamp()) * 1000, int(end.timestamp()) * 1000
