"""`POST /v2/orders/search` with the rules of Square's documentation, each of which is an error when it is broken.

At most 10 locations; the sort field is the filtered instant; closed_at needs terminal states only; both ends of a time
range belong to it, and a missing end is the time of the first request of the cursor chain; 500 orders a page unless
asked otherwise, never more than 1000; a cursor is good for the query it came from, for a few minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flux_sandbox.square.cursors import Cursors, Position, fingerprint
from flux_sandbox.square.documents import within
from flux_sandbox.square.errors import invalid
from flux_sandbox.square.params import (
    FIRST,
    a_body,
    a_range,
    an_object,
    expect,
    forbidden,
    limit,
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
MAX_NAMES = 10

_MOMENTS: dict[str, Moment] = {"created_at": "created", "updated_at": "updated", "closed_at": "closed"}
_STATES = frozenset({"OPEN", "COMPLETED", "CANCELED", "DRAFT"})
_TERMINAL = frozenset({"COMPLETED", "CANCELED"})
_FULFILLMENTS = frozenset({"PICKUP", "SHIPMENT", "DELIVERY"})
_FULFILLMENT_STATES = frozenset({"PROPOSED", "RESERVED", "PREPARED", "COMPLETED", "CANCELED", "FAILED"})


class Search(msgspec.Struct, frozen=True):
    """A checked query. Instants are UTC milliseconds, both included."""

    location_ids: tuple[str, ...]
    moment: Moment
    first: int
    last: int | None
    descending: bool
    states: frozenset[str]
    sources: frozenset[str]
    customers: frozenset[str]
    fulfilled: frozenset[str]
    fulfillment_states: frozenset[str]
    limit: int
    entries: bool
    cursor: str
    fingerprint: bytes
    filtered: str


def parse(body: Any) -> Search:
    """Check a request body.

    Raises:
        ApiError: it breaks one of the documented rules.

    """
    body = a_body(body, "location_ids", "cursor", "query", "limit", "return_entries")
    location_ids = strings(body.get("location_ids"), "location_ids", MAX_LOCATIONS)
    if not location_ids:
        raise invalid("MISSING_REQUIRED_PARAMETER", "At least one location ID is required.", "location_ids")
    size = limit(body.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
    entries = expect(body.get("return_entries", False), bool, "EXPECTED_BOOLEAN", "return_entries")
    cursor = expect(body.get("cursor") or "", str, "EXPECTED_STRING", "cursor")
    query = an_object(body.get("query"), "query", frozenset({"filter", "sort"}))
    return _parse_query(query, location_ids, size, entries, cursor)


def _parse_query(query: dict[str, Any], location_ids: tuple[str, ...], size: int, entries: bool, cursor: str) -> Search:
    where = "query.filter"
    known = frozenset({"state_filter", "date_time_filter", "fulfillment_filter", "source_filter", "customer_filter"})
    found = an_object(query.get("filter"), where, known)
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
    sort_field = sort.get("sort_field", "CREATED_AT")
    if not isinstance(sort_field, str) or sort_field.lower() not in _MOMENTS or sort_field != sort_field.upper():
        raise invalid("INVALID_ENUM_VALUE", f"`{sort_field}` is not a valid sort field.", "query.sort.sort_field")
    sort_order = sort.get("sort_order") or "DESC"
    if sort_order not in ("ASC", "DESC"):
        raise invalid("INVALID_SORT_ORDER", "Sort order must be `ASC` or `DESC`.", "query.sort.sort_order")
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
    kinds, kind_states = _fulfillments(found, where)
    sources = an_object(found.get("source_filter"), f"{where}.source_filter", frozenset({"source_names"}))
    customers = an_object(found.get("customer_filter"), f"{where}.customer_filter", frozenset({"customer_ids"}))
    return Search(
        location_ids,
        _MOMENTS[sort_field.lower()],
        first,
        last,
        sort_order == "DESC",
        wanted,
        frozenset(strings(sources.get("source_names"), f"{where}.source_filter.source_names", MAX_NAMES)),
        frozenset(strings(customers.get("customer_ids"), f"{where}.customer_filter.customer_ids", MAX_NAMES)),
        kinds,
        kind_states,
        size,
        entries,
        cursor,
        fingerprint(location_ids, query, entries),
        filtered,
    )


def _fulfillments(found: dict[str, Any], where: str) -> tuple[frozenset[str], frozenset[str]]:
    field = f"{where}.fulfillment_filter"
    known = frozenset({"fulfillment_types", "fulfillment_states"})
    wanted = an_object(found.get("fulfillment_filter"), field, known)
    kinds = strings(wanted.get("fulfillment_types"), f"{field}.fulfillment_types", 10, _FULFILLMENTS)
    states = strings(wanted.get("fulfillment_states"), f"{field}.fulfillment_states", 10, _FULFILLMENT_STATES)
    return frozenset(kinds), frozenset(states)


class _Facts(NamedTuple):
    """What else an order is asked for by, or told with; `fulfillments` are types with states."""

    source: str
    customer_id: str
    version: int
    fulfillments: tuple[tuple[str, str], ...]


def _facts(sale: Sale) -> _Facts:
    if sale.document is not None:
        source, customer_id, version, fulfillments = (
            within(sale.document, *path)
            for path in (("source", "name"), ("customer_id",), ("version",), ("fulfillments",))
        )
        kinds = ((str(within(one, "type")), str(within(one, "state"))) for one in fulfillments or ())
        return _Facts(source or "", customer_id or "", version or 0, tuple(kinds))
    state = "COMPLETED" if sale.state == "COMPLETED" else "PROPOSED"
    collected = (("PICKUP", state),) if sale.version and sale.state != "CANCELED" else ()
    return _Facts(sale.source, sale.customer.id if sale.customer else "", sale.version, collected)


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
            if self._wanted(search, sale):
                if len(page) == size:
                    more = True
                    break
                page.append(sale)
                at = when
        parts = [self._list(search, page)] if page else []
        if more:
            sealed = self._cursors.seal(Position(search.fingerprint, now, last, at, page[-1].id))
            parts.append(b'"cursor":"' + sealed.encode() + b'"')
        return b"{" + b",".join(parts) + b"}", len(page)

    def _wanted(self, search: Search, sale: Sale) -> bool:
        if search.states and sale.state not in search.states:
            return False
        if not (search.sources or search.customers or search.fulfilled or search.fulfillment_states):
            return True
        facts = _facts(sale)
        if search.sources and facts.source not in search.sources:
            return False
        if search.customers and facts.customer_id not in search.customers:
            return False
        return not (search.fulfilled or search.fulfillment_states) or any(
            (not search.fulfilled or kind in search.fulfilled)
            and (not search.fulfillment_states or state in search.fulfillment_states)
            for kind, state in facts.fulfillments
        )

    def _list(self, search: Search, page: list[Sale]) -> bytes:
        if not search.entries:
            return b'"orders":[' + b",".join([self._write(sale) for sale in page]) + b"]"
        entries = []
        for sale in page:
            entry: dict[str, Any] = {"order_id": sale.id}
            if version := _facts(sale).version:
                entry["version"] = version
            entry["location_id"] = sale.location.id
            entries.append(entry)
        return b'"order_entries":' + msgspec.json.encode(entries)
