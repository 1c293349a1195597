"""`POST /v2/orders/search` with the rules of Square's documentation, each of which is an error when it is broken.

At most 10 locations; the sort field is the filtered instant; closed_at needs terminal states only; both ends of a time
range belong to it, and a missing end is the time of the first request of the cursor chain; 500 orders a page unless
asked otherwise, never more than 1000; a cursor is good for the query it came from, for a few minutes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from flux_pipelines.providers.square.sandbox_errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from flux_pipelines.sandbox.book import Entry, Moment
    from flux_pipelines.sandbox.model import Merchant, Sale
    from flux_pipelines.sandbox.world import World

MAX_LOCATIONS = 10
DEFAULT_LIMIT = 500
MAX_LIMIT = 1000
MAX_NAMES = 10
_SHORT_PAGES = 0.06  # how often a page holds fewer orders than it could

_MOMENTS: dict[str, Moment] = {"created_at": "created", "updated_at": "updated", "closed_at": "closed"}
_STATES = frozenset({"OPEN", "COMPLETED", "CANCELED", "DRAFT"})
_TERMINAL = frozenset({"COMPLETED", "CANCELED"})
_FULFILLMENTS = frozenset({"PICKUP", "SHIPMENT", "DELIVERY"})
_FULFILLMENT_STATES = frozenset({"PROPOSED", "RESERVED", "PREPARED", "COMPLETED", "CANCELED", "FAILED"})
_RFC3339 = re.compile(r"^(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$")
_FIRST, _LAST = -(2**62), 2**62


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


class _Cursor(msgspec.Struct, array_like=True):
    fingerprint: bytes
    issued: float
    last: int
    at: int
    order_id: str


def _expect(value: Any, kind: type, code: str, field: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid(code, f"Expected a different type for `{field}`.", field)
    return value


def _object(value: Any, field: str, known: frozenset[str]) -> dict[str, Any]:
    if value is None:
        return {}
    found: dict[str, Any] = _expect(value, dict, "EXPECTED_OBJECT", field)
    for name in found:
        if name not in known:
            where = f"{field}.{name}" if field else name
            raise invalid("UNKNOWN_BODY_PARAMETER", f"The body parameter `{where}` is not recognized.", where)
    return found


def _strings(value: Any, field: str, most: int, allowed: frozenset[str] | None = None) -> tuple[str, ...]:
    if value is None:
        return ()
    for one in _expect(value, list, "EXPECTED_ARRAY", field):
        _expect(one, str, "EXPECTED_STRING", field)
        if allowed is not None and one not in allowed:
            raise invalid("INVALID_ENUM_VALUE", f"`{one}` is not a valid enum value for `{field}`.", field)
    if len(value) > most:
        raise invalid("ARRAY_LENGTH_TOO_LONG", f"Array must contain no more than {most} elements.", field)
    return tuple(value)


def instant(text: Any, field: str) -> int:
    """Return an RFC 3339 time of any precision as UTC nanoseconds."""
    match = _RFC3339.match(_expect(text, str, "EXPECTED_STRING", field))
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, offset = match.groups()
        whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError:
        raise invalid("INVALID_TIME", f"`{text}` is not a valid RFC 3339 timestamp.", field) from None
    return int(whole.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def _range(value: Any, field: str) -> tuple[int, int | None]:
    span = _object(value, field, frozenset({"start_at", "end_at"}))
    first, last = _FIRST, None
    if (start := span.get("start_at")) is not None:
        first = -(-instant(start, f"{field}.start_at") // 1_000_000)
    if (end := span.get("end_at")) is not None:
        last = instant(end, f"{field}.end_at") // 1_000_000
    if start is not None and end is not None and instant(start, field) > instant(end, field):
        raise invalid("INVALID_TIME_RANGE", "The start time must not be after the end time.", field)
    return first, last


def parse(body: Any) -> Search:
    """Check a request body.

    Raises:
        ApiError: it breaks one of the documented rules.

    """
    if not isinstance(body, dict):
        raise invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
    _object(body, "", frozenset({"location_ids", "cursor", "query", "limit", "return_entries"}))
    location_ids = _strings(body.get("location_ids"), "location_ids", MAX_LOCATIONS)
    if not location_ids:
        raise invalid("MISSING_REQUIRED_PARAMETER", "At least one location ID is required.", "location_ids")
    limit = _expect(body.get("limit", DEFAULT_LIMIT), int, "EXPECTED_INTEGER", "limit")
    if limit < 1:
        raise invalid("VALUE_TOO_LOW", "`limit` must be at least 1.", "limit")
    if limit > MAX_LIMIT:
        raise invalid("VALUE_TOO_HIGH", f"`limit` must be no more than {MAX_LIMIT}.", "limit")
    entries = _expect(body.get("return_entries", False), bool, "EXPECTED_BOOLEAN", "return_entries")
    cursor = _expect(body.get("cursor") or "", str, "EXPECTED_STRING", "cursor")
    query = _object(body.get("query"), "query", frozenset({"filter", "sort"}))
    return _parse_query(query, location_ids, limit, entries, cursor)


def _parse_query(
    query: dict[str, Any], location_ids: tuple[str, ...], limit: int, entries: bool, cursor: str
) -> Search:
    where = "query.filter"
    known = frozenset({"state_filter", "date_time_filter", "fulfillment_filter", "source_filter", "customer_filter"})
    found = _object(query.get("filter"), where, known)
    field = f"{where}.date_time_filter"
    dates = _object(found.get("date_time_filter"), field, frozenset(_MOMENTS))
    dates = {name: span for name, span in dates.items() if span is not None}
    if found.get("date_time_filter") is not None and len(dates) != 1:
        raise invalid("BAD_REQUEST", "Exactly one of created_at, updated_at and closed_at must be filtered on.", field)
    filtered = next(iter(dates), "")
    first, last = _range(dates[filtered], f"{field}.{filtered}") if filtered else (_FIRST, None)
    states = _object(found.get("state_filter"), f"{where}.state_filter", frozenset({"states"}))
    wanted = frozenset(_strings(states.get("states"), f"{where}.state_filter.states", 10, _STATES))
    sort = _object(query.get("sort"), "query.sort", frozenset({"sort_field", "sort_order"}))
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
    sources = _object(found.get("source_filter"), f"{where}.source_filter", frozenset({"source_names"}))
    customers = _object(found.get("customer_filter"), f"{where}.customer_filter", frozenset({"customer_ids"}))
    identity = msgspec.json.encode([location_ids, query, entries], order="sorted")
    return Search(
        location_ids,
        _MOMENTS[sort_field.lower()],
        first,
        last,
        sort_order == "DESC",
        wanted,
        frozenset(_strings(sources.get("source_names"), f"{where}.source_filter.source_names", MAX_NAMES)),
        frozenset(_strings(customers.get("customer_ids"), f"{where}.customer_filter.customer_ids", MAX_NAMES)),
        kinds,
        kind_states,
        limit,
        entries,
        cursor,
        hashlib.blake2b(identity, digest_size=12).digest(),
        filtered,
    )


def _fulfillments(found: dict[str, Any], where: str) -> tuple[frozenset[str], frozenset[str]]:
    field = f"{where}.fulfillment_filter"
    known = frozenset({"fulfillment_types", "fulfillment_states"})
    wanted = _object(found.get("fulfillment_filter"), field, known)
    kinds = _strings(wanted.get("fulfillment_types"), f"{field}.fulfillment_types", 10, _FULFILLMENTS)
    states = _strings(wanted.get("fulfillment_states"), f"{field}.fulfillment_states", 10, _FULFILLMENT_STATES)
    return frozenset(kinds), frozenset(states)


class Searcher:
    """Answers checked searches; keeps nothing between requests, as all of a chain's state is in its cursor."""

    def __init__(self, world: World, write: Callable[[Sale], bytes]) -> None:
        self._world = world
        self._write = write
        # Cursors of an earlier sandbox are worthless, as they should be.
        self._key = hashlib.blake2b(f"{world.options.seed}|{world.clock()}".encode(), digest_size=32).digest()

    def _seal(self, cursor: _Cursor) -> str:
        body = msgspec.msgpack.encode(cursor)
        mark = hmac.digest(self._key, body, "sha256")[:12]
        return base64.urlsafe_b64encode(mark + body).decode().rstrip("=")

    def _open(self, search: Search, now: float) -> _Cursor:
        try:
            sealed = base64.urlsafe_b64decode(search.cursor + "=" * (-len(search.cursor) % 4))
            mark, body = sealed[:12], sealed[12:]
            if not hmac.compare_digest(mark, hmac.digest(self._key, body, "sha256")[:12]):
                raise invalid_cursor()
            cursor = msgspec.msgpack.decode(body, type=_Cursor)
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise invalid_cursor() from None
        if cursor.fingerprint != search.fingerprint or now - cursor.issued > self._world.options.cursor_lifetime:
            raise invalid_cursor()
        return cursor

    def answer(self, merchant: Merchant, search: Search) -> tuple[bytes, int]:
        """Return a page of the search and how many orders are on it.

        Raises:
            ApiError: a location of someone else's, or a cursor that is not (or no longer) good.

        """
        own = {location.id for location in merchant.locations}
        for id_ in search.location_ids:
            if id_ not in own:
                # As production answers (connect-php-sdk#2): nothing tells a stranger's location from none at all.
                raise ApiError(403, "FORBIDDEN", "You have insufficient permissions to perform that action.")
        now = self._world.clock().timestamp()
        after = None
        last = search.last if search.last is not None else int(now * 1000)
        if search.cursor:
            cursor = self._open(search, now)
            after, last = (cursor.at, cursor.order_id), cursor.last
        size = self._page_size(search, after)
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
            sealed = self._seal(_Cursor(search.fingerprint, now, last, at, page[-1].id))
            parts.append(b'"cursor":"' + sealed.encode() + b'"')
        return b"{" + b",".join(parts) + b"}", len(page)

    def _page_size(self, search: Search, after: Entry | None) -> int:
        """Return how many orders this page holds at most: now and then fewer than asked for, as documented."""
        rng = Random(f"{self._world.options.seed}|{search.fingerprint.hex()}|{after}")  # noqa: S311
        if search.limit > 1 and rng.random() < _SHORT_PAGES:
            return rng.randrange(max(1, search.limit // 4), search.limit)
        return search.limit

    def _wanted(self, search: Search, sale: Sale) -> bool:
        if search.states and sale.state not in search.states:
            return False
        if search.sources and sale.source not in search.sources:
            return False
        if search.customers:
            return False  # the world's customers are strangers
        if search.fulfilled or search.fulfillment_states:
            state = "COMPLETED" if sale.state == "COMPLETED" else "PROPOSED"
            return (
                bool(sale.version)
                and sale.state != "CANCELED"
                and (not search.fulfilled or "PICKUP" in search.fulfilled)
                and (not search.fulfillment_states or state in search.fulfillment_states)
            )
        return True

    def _list(self, search: Search, page: list[Sale]) -> bytes:
        if not search.entries:
            return b'"orders":[' + b",".join([self._write(sale) for sale in page]) + b"]"
        entries = []
        for sale in page:
            entry: dict[str, Any] = {"order_id": sale.id}
            if sale.version:
                entry["version"] = sale.version
            entry["location_id"] = sale.location.id
            entries.append(entry)
        return b'"order_entries":' + msgspec.json.encode(entries)


def invalid_cursor() -> ApiError:
    """Return the answer to a cursor that is not, or no longer, good."""
    return invalid("INVALID_CURSOR", "The cursor is invalid or has expired.", "cursor")
