"""Asking for orders: the documented conditions, pages by number, and an order of results that nobody may rely on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode

from flux_sandbox.documents import ORDERS, documents
from flux_sandbox.toast.errors import invalid
from flux_sandbox.toast.values import date_of, day_number, instant_ms, window_ms

if TYPE_CHECKING:
    from starlette.datastructures import URL

    from flux_sandbox.model import Location, Merchant, Sale
    from flux_sandbox.world import World

MOST_PER_PAGE = 100
DAY = 86_400_000
_MONTH = 31 * DAY
#: 2015-12-01T00:00:00Z: no order can be asked for before.
_EARLIEST = 1_448_928_000_000
EITHER = "EITHER (startDate and endDate) OR businessDate is required"


class OrderQuery(NamedTuple):
    """Which orders: of a business date, or modified in a half-open interval (UTC milliseconds)."""

    day: date | None
    start: int
    end: int
    page: int = 1
    size: int = MOST_PER_PAGE


def _number(query: Mapping[str, str], name: str, default: int, most: int | None) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < 1 or (most is not None and int(text) > most):
        limit = f" and at most {most}" if most else ""
        raise invalid(f"{name} must be an integer of at least 1{limit}")
    return int(text)


def instant(query: Mapping[str, str], name: str) -> int:
    """Return a parameter's instant in UTC milliseconds.

    Raises:
        ApiError: 400: it is not one, for example because a `+` was not percent-encoded.

    """
    at = instant_ms(query.get(name, ""))
    if at is None:
        raise invalid(f"Invalid {name}: expected ISO-8601 like 2016-01-01T14:13:12.000+0000")
    return at


def span(
    query: Mapping[str, str], first: str = "startDate", last: str = "endDate", most: int = _MONTH
) -> tuple[int, int]:
    """Return an interval of a query, checked.

    Raises:
        ApiError: 400: not two instants, in the wrong order, too far back or too far apart.

    """
    start, end = instant(query, first), instant(query, last)
    if start <= _EARLIEST:
        raise invalid(f"Input {first} must be after 2015-12-01")
    if start >= end:
        raise invalid(f"Input {first} must be before {last}")
    if end - start > most:
        limit = "one month" if most == _MONTH else f"{most // DAY} days"
        raise invalid(f"The interval between {first} and {last} must not be longer than {limit}")
    return start, end


def parse(query: Mapping[str, str]) -> OrderQuery:
    """Read the conditions of ordersBulk.

    Raises:
        ApiError: 400, with the documented messages.

    """
    spanned = "startDate" in query or "endDate" in query
    if ("businessDate" in query) == spanned or (spanned and not ("startDate" in query and "endDate" in query)):
        raise invalid(EITHER)
    page, size = _number(query, "page", 1, None), _number(query, "pageSize", MOST_PER_PAGE, MOST_PER_PAGE)
    if spanned:
        return OrderQuery(None, *span(query), page, size)
    return OrderQuery(business_date(query, "businessDate"), 0, 0, page, size)


def business_date(query: Mapping[str, str], name: str) -> date:
    """Return a parameter's business date.

    Raises:
        ApiError: 400: it is not `yyyyMMdd`.

    """
    found = date_of(query.get(name, ""))
    if found is None:
        raise invalid(f"Invalid {name}: expected yyyyMMdd")
    return found


def find(world: World, merchant: Merchant, location: Location, asked: OrderQuery) -> list[Sale]:
    """Return the orders asked for, in an order of no use: seeded, and not that of any of their members."""
    if asked.day is not None:
        start, end = window_ms(asked.day, location.timezone, merchant.cutoff_hour)
        made_up = world.between([location.id], "created", start, end - 1)
        found = [sale for _, sale in made_up if sale.document is None]
        # One that was taken in says its business date itself, whenever it was opened.
        taken = (
            one for one in documents(merchant, ORDERS, location.id) if one["businessDate"] == day_number(asked.day)
        )
        found += [world.sales[one["guid"]] for one in taken]
    else:
        found = [sale for _, sale in world.between([location.id], "updated", asked.start, asked.end - 1)]
    salt = f"{world.options.seed}|{asked.day}|{asked.start}|{asked.end}|"
    return sorted(found, key=lambda sale: (zlib.crc32((salt + sale.id).encode()), sale.id))


def page_of(found: list[Sale], asked: OrderQuery) -> list[Sale]:
    """Return one page."""
    first = (asked.page - 1) * asked.size
    return found[first : first + asked.size]


def links(url: URL, asked: OrderQuery, found: int) -> str:
    """Return the Link header: first, self, and where they exist prev and next. There is no last and no count."""
    last = max(1, -(-found // asked.size))
    pages = {"first": 1, "self": asked.page, "prev": asked.page - 1, "next": asked.page + 1}
    kept = [
        (key, value) for key, value in parse_qsl(url.query, keep_blank_values=True) if key not in ("page", "pageSize")
    ]
    base = str(url.replace(query=""))
    return ", ".join(
        f'<{base}?{urlencode([*kept, ("page", page), ("pageSize", asked.size)])}>; rel="{rel}"'
        for rel, page in pages.items()
        if rel in ("first", "self") or 1 <= page <= last
    )
