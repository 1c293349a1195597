"""`POST /v2/orders/search` with the rules of Square's documentation, each of which is an error when it is broken.

At most 10 locations; the sort field is the filtered instant; closed_at needs terminal states only; both ends of a time
range belong to it, and a missing end is the time of the first request of the cursor chain; 500 orders a page unless
asked otherwise, never more than 1000; a cursor is good for the query it came from, for a few minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.square.cursors import Cursors, Position, fingerprint
from flux_sandbox.square.errors import invalid
from flux_sandbox.square.params import (
    FIRST,
    a_body,
    a_range,
    an_object,
    expect,
    forbidden,
    limit,
    one_of,
    strings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flux_sandbox.model import Merchant, Sale
    from flux_sandbox.order_index import Moment
    from flux_sandbox.world import World

MAX_LOCATIONS = 10
DEFAULT_LIMIT = 500
MAX_LIMIT = 1000

_MOMENTS: dict[str, Moment] = {"created_at": "created", "updated_at": "updated", "closed_at": "closed"}
_STATES = frozenset({"OPEN", "COMPLETED", "CANCELED", "DRAFT"})
_TERMINAL = frozenset({"COMPLETED", "CANCELED"})


class Search(msgspec.Struct, frozen=True):
    """A checked query. Instants are UTC milliseconds, both included."""

    location_ids: tuple[str, ...]
    moment: Moment
    first: int
    last: int | None
    descending: bool
    states: frozenset[str]
    limit: int
    cursor: str
    fingerprint: bytes


def parse(body: Any) -> Search:
    """Check a request body.

    Raises:
        ApiError: it breaks one of the documented rules.

    """
    body = a_body(body, "location_ids", "cursor", "query", "limit")
    location_ids = strings(body.get("location_ids"), "location_ids", MAX_LOCATIONS)
    if not location_ids:
        raise invalid("MISSING_REQUIRED_PARAMETER", "At least one location ID is required.", "location_ids")
    size = limit(body.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
    cursor = expect(body.get("cursor") or "", str, "EXPECTED_STRING", "cursor")
    query = an_object(body.get("query"), "query", frozenset({"filter", "sort"}))
    where = "query.filter"
    found = an_object(query.get("filter"), where, frozenset({"state_filter", "date_time_filter"}))
    field = f"{where}.date_time_filter"
    dates = an_object(found.get("date_time_filter"), field, frozenset(_MOMENTS))
    dates = {name: span for name, span in dates.items() if span is not None}
    if found.get("date_time_filter") is not None and len(dates) != 1:
        raise invalid("BAD_REQUEST", "Exactly one of created_at, updated_at and closed_at must be filtered on.", field)
    filtered = next(iter(dates), "")
    first, last = a_range(dates[filtered], f"{field}.{filtered}") if filtered else (FIRST, None)
    states = an_object(found.get("state_filter"), f"{where}.state_filter", frozenset({"states"}))
    wanted = frozenset(strings(states.get("states"), f"{where}.state_filter.states", 10, _STATES))
    sort = an_object(query.get("sort"), "query.sort", frozenset({"sort_field", "sort_order"}))
    sort_field = one_of(
        sort.get("sort_field"), "query.sort.sort_field", ("CREATED_AT", *(name.upper() for name in _MOMENTS))
    )
    if filtered and sort_field.lower() != filtered:
        raise invalid(
            "BAD_REQUEST",
            f"The sort field must match the filtered timestamp: filtered on {filtered}, sorted by {sort_field}.",
            "query.sort.sort_field",
        )
    if sort_field == "CLOSED_AT" and not (wanted and wanted <= _TERMINAL):
        raise invalid(
            "BAD_REQUEST",
            "Filtering or sorting by closed_at requires a state filter of only COMPLETED and CANCELED.",
            f"{where}.state_filter.states",
        )
    return Search(
        location_ids,
        _MOMENTS[sort_field.lower()],
        first,
        last,
        one_of(sort.get("sort_order"), "query.sort.sort_order", ("DESC", "ASC")) == "DESC",
        wanted,
        size,
        cursor,
        fingerprint(location_ids, query),
    )


class Searcher:
    """Answers checked searches."""

    def __init__(self, world: World, write: Callable[[Sale], bytes]) -> None:
        self._world = world
        self._write = write
        self._cursors = Cursors(world)

    def answer(self, merchant: Merchant, search: Search) -> tuple[bytes, int]:
        """Return a page of the search and how many orders are on it.

        Raises:
            ApiError: a location of someone else's, or a cursor that is not (or no longer) good.

        """
        own = {location.id for location in merchant.locations}
        for id_ in search.location_ids:
            if id_ not in own:
                raise forbidden()
        now = self._world.clock().timestamp()
        after = None
        last = search.last if search.last is not None else int(now * 1000)
        if search.cursor:
            position = self._cursors.open(search.cursor, search.fingerprint, now)
            after, last = (position.at, position.id), position.last
        size = self._cursors.page_size(search.limit, search.fingerprint, after)
        found = self._world.between(
            search.location_ids, search.moment, search.first, last, after=after, descending=search.descending
        )
        page: list[Sale] = []
        at = 0
        more = False
        for (when, _), sale in found:
            if not search.states or sale.state in search.states:
                if len(page) == size:
                    more = True
                    break
                page.append(sale)
                at = when
        parts = [b'"orders":[' + b",".join([self._write(sale) for sale in page]) + b"]"] if page else []
        if more:
            sealed = self._cursors.seal(Position(search.fingerprint, now, last, at, page[-1].id))
            parts.append(b'"cursor":"' + sealed.encode() + b'"')
        return b"{" + b",".join(parts) + b"}", len(page)
