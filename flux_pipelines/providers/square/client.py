"""Square's Orders and Locations APIs: pages of orders exactly as received, with the few fields that landing needs.

What there is beside orders is in `streams.py`. Sources of every fact here are in README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import PermissionLostError
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import (
    Location,
    Order,
    OrderHeader,
    Page,
    RateLimit,
    Record,
    SourceContext,
    TimeField,
    Window,
)
from flux_pipelines.providers.square.paging import follow, orders_by_id, stamp
from flux_pipelines.providers.square.reports import PERMISSION, SquareReports
from flux_pipelines.providers.square.streams import SquareStreams

if TYPE_CHECKING:
    from flux_pipelines.transport import Stats

_SEARCH = "/v2/orders/search"
_PAGE_SIZE = 1000  # the most that SearchOrders accepts; its default is 500
_ALL_STATES = ("OPEN", "COMPLETED", "CANCELED", "DRAFT")
_TERMINAL_STATES = ("COMPLETED", "CANCELED")  # only these may be filtered by closed_at
_READING = ("MERCHANT_PROFILE_READ", "ORDERS_READ")  # the scopes without which nothing can be read


class _Money(msgspec.Struct, gc=False):
    amount: int = 0
    currency: str = ""


_NOTHING = _Money()


class _Amounts(msgspec.Struct, gc=False):
    total_money: _Money | None = None


class _Return(msgspec.Struct, gc=False):
    return_amounts: _Amounts | None = None


class _CardDetails(msgspec.Struct, gc=False):
    status: str | None = None


class _Tender(msgspec.Struct, gc=False):
    amount_money: _Money | None = None
    card_details: _CardDetails | None = None


class _Header(msgspec.Struct, gc=False):
    id: str
    location_id: str
    created_at: datetime
    state: str
    updated_at: datetime | None = None
    closed_at: datetime | None = None
    total_money: _Money | None = None
    net_amounts: _Amounts | None = None
    return_amounts: _Amounts | None = None
    net_amount_due_money: _Money | None = None
    returns: list[_Return] | None = None
    tenders: msgspec.Raw = msgspec.Raw()  # decoded of open orders alone


class _Headers(msgspec.Struct, gc=False):
    orders: list[_Header] = []


class _RawPage(msgspec.Struct):
    orders: list[msgspec.Raw] = []
    cursor: str = ""
    errors: list[msgspec.Raw] | None = None
    order_entries: msgspec.Raw = msgspec.Raw()


class _Location(msgspec.Struct):
    id: str
    timezone: str = ""
    currency: str = ""
    name: str = ""
    status: str = "ACTIVE"


class _Locations(msgspec.Struct):
    locations: list[_Location]


class _TokenStatus(msgspec.Struct):
    scopes: list[str]
    merchant_id: str = ""


class _DecodedPage(msgspec.Struct):
    orders: list[Order]
    cursor: str

    @property
    def found(self) -> list[Order]:
        """The orders, as every list of Square's calls what it holds."""
        return self.orders


_decode_raw_page = decoder(_RawPage)
_decode_headers = decoder(_Headers)
_decode_header = decoder(_Header)
_decode_tenders = decoder(list[_Tender] | None)
_decode_locations = decoder(_Locations)
_decode_token_status = decoder(_TokenStatus)


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("a timestamp has no offset from UTC")
    return instant.astimezone(UTC)


def _money(found: _Header) -> _Money | None:
    """Return what the customer owes in the end: the net amount, or else the sale less what was returned.

    A return has no `total_money`. None: the order does not say what it comes to.
    """
    net, returned, total = found.net_amounts, found.return_amounts, found.total_money
    if net is not None and net.total_money is not None:
        return net.total_money
    if returned is not None and returned.total_money is not None:
        back = returned.total_money
        sold = total or _NOTHING
        return _Money(sold.amount - back.amount, sold.currency or back.currency)
    for one in found.returns or ():
        if one.return_amounts is not None and one.return_amounts.total_money is not None:
            back = one.return_amounts.total_money
            sold = total or _NOTHING
            total = _Money(sold.amount - back.amount, sold.currency or back.currency)
    return total


#: What of a card's tender is not paid (TenderCardDetailsStatus): an authorisation leaves the amount due as it is.
_NOT_PAID = frozenset({"AUTHORIZED", "VOIDED", "FAILED"})


def _sold(found: _Header, money: _Money | None) -> bool:
    """Tell whether an order is a sale: fully paid, as transactions.sql has it.

    "Completed orders are fully paid" (OrderState). An open one is when nothing is due any more and something was paid: a
    cart that nobody bought has no tenders.
    """
    if found.state != "OPEN":
        return found.state == "COMPLETED"
    if money is None or not bytes(found.tenders):
        return False
    paid = [
        one.amount_money.amount if one.amount_money is not None else 0
        for one in _decode_tenders(found.tenders) or ()
        if one.card_details is None or one.card_details.status not in _NOT_PAID
    ]
    if found.net_amount_due_money is not None:
        return bool(paid) and found.net_amount_due_money.amount <= 0
    return bool(paid) and sum(paid) >= money.amount


def _header(found: _Header) -> OrderHeader:
    owed = _money(found)
    money = owed or _NOTHING
    created, updated, closed = found.created_at, found.updated_at, found.closed_at
    if updated is None:
        updated = created
    # Square's timestamps end in Z; this runs once an order, so that is looked at first.
    if not (created.tzinfo is updated.tzinfo is UTC and (closed is None or closed.tzinfo is UTC)):
        created, updated, closed = _utc(created), _utc(updated), None if closed is None else _utc(closed)
    return OrderHeader(
        found.id,
        found.location_id,
        created,
        updated,
        closed,
        found.state,
        money.amount,
        money.currency,
        sold=_sold(found, owed),
    )


def _read(raw: msgspec.Raw) -> Order:
    try:
        return Order(raw, _header(_decode_header(raw)))
    except (msgspec.DecodeError, ValueError, OverflowError) as problem:
        return Order(raw, None, f"the order's header cannot be read: {problem}")


def decode_page(body: bytes) -> _DecodedPage:
    """Split a page into orders without decoding them, and read their headers.

    An order whose header cannot be read is kept with the reason; it does not lose the page.

    Raises:
        msgspec.DecodeError: the body is cut off, or not JSON, or not a page.
        ValueError: a page with errors instead of orders, although the status was 200.

    """
    page = _decode_raw_page(body)
    if page.errors or bytes(page.order_entries):
        raise ValueError("a page of orders was asked for, but the answer holds errors or order entries")
    try:
        # Two passes in C over the page are several times faster than one call an order.
        orders = [
            Order(raw, _header(found)) for raw, found in zip(page.orders, _decode_headers(body).orders, strict=True)
        ]
    except (msgspec.DecodeError, ValueError, OverflowError):
        orders = [_read(raw) for raw in page.orders]
    return _DecodedPage(orders, page.cursor)


_INSTANTS: dict[TimeField, Callable[[OrderHeader], datetime]] = {
    "created": lambda header: header.created_at,
    "updated": lambda header: header.updated_at,
    "closed": lambda header: header.closed_at or header.updated_at,
}


class SquareClient:
    """One connection's orders, locations and other streams (`Source`). Safe to use from threads."""

    max_locations_per_window = 10
    by_business_date = False
    # Not "closed": a sale that was paid and not handed over yet is open, and Square gives such orders no closing time.
    verified_by: Literal["closed", "updated"] = "updated"
    verification_is_whole = True

    def __init__(self, context: SourceContext) -> None:
        settings = context.provider.settings_of(context.connection)
        self._connection = context.connection.key
        self._api = context.transport.client(
            provider=context.provider.name,
            connection=context.connection.key,
            base_url=str(settings["base_url"]),
            limits=(RateLimit(int(settings["requests_per_minute"]), 60.0),),
            credentials=context.credentials,
            headers={"Square-Version": context.provider.api_version},
        )
        self._scopes: Collection[str] | None = None
        self._streams = SquareStreams(self._api, self._connection, self._granted)
        self._reports = SquareReports(self._api, self._connection, float(settings["report_wait_seconds"]))

    @property
    def stats(self) -> Stats:
        """What this client's calls have cost so far: requests, retries, seconds waited for limits, bytes."""
        return self._api.stats

    def supports_slicing(self, _window: Window, _time_field: TimeField) -> bool:
        """Every search is sorted by the time that it asks by."""
        return True

    def history_from(self, _now: datetime) -> datetime | None:
        """Square keeps every order."""
        return None

    def locations(self) -> list[Location]:
        """Return every location of the merchant, inactive ones too, as Square describes it."""
        answer = self._api.request("GET", "/v2/locations", idempotent=True, decode=_decode_locations)
        return [
            Location(found.id, found.name or found.id, found.timezone, found.currency, found.status == "ACTIVE")
            for found in answer.value.locations
        ]

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        """Yield the window's orders, oldest first by `time_field`, following cursors to the end.

        Square's intervals include both ends, so orders at the window's end are dropped here. An order may come twice:
        pages shift while orders change, and a dead cursor makes the search start again from the last instant seen.

        Raises:
            ProviderUnavailableError: cursors die again and again without the search getting any further.

        """
        instant = _INSTANTS[time_field]

        def ask(start: datetime, cursor: str) -> _DecodedPage:
            return self._search(window, start, time_field, cursor)

        def latest(page: _DecodedPage) -> datetime | None:
            return next((instant(o.header) for o in reversed(page.orders) if o.header is not None), None)

        for page in follow(ask, window.start, latest, connection=self._connection, what=_SEARCH):
            orders = [o for o in page.orders if o.header is None or instant(o.header) < window.end]
            yield Page(orders, last=not page.cursor)

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        """Return the orders of these ids as they are now; Square leaves out those it does not know."""
        return [order for page in orders_by_id(self._api, order_ids, decode_page) for order in page.orders]

    def verify_access(self) -> str:
        """Prove that the token may read orders, so that an empty answer means that there are none.

        Returns:
            The merchant's id.

        Raises:
            PermissionLostError: a scope that reading needs is not granted (any more).

        """
        status = self._token_status()
        missing = [scope for scope in _READING if scope not in status.scopes]
        if missing:
            raise PermissionLostError(
                f"the access token no longer has the permission {' and '.join(missing)}", connection=self._connection
            )
        return status.merchant_id

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        """Yield the records of a stream, a page at a time, following cursors to the end.

        Raises:
            PermissionLostError: the permission that the stream needs has not been granted, or was taken back.

        """
        if stream == witness.STREAM:
            return witness.dated(window, self._reports.stores, PERMISSION)
        return self._streams.read(stream, window)

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:
        """Yield where and when the payments, refunds or timecards happened that changed in a window."""
        return iter(()) if stream == witness.STREAM else self._streams.changes(stream, window)

    def reported_orders(self, window: Window) -> Sequence[witness.ReportedOrder]:
        """Return what Square's own report says of each order of some stores' business date; see `ReportSource`."""
        return witness.answered(window, lambda: self._reports.orders(window), PERMISSION)

    def close(self) -> None:
        """Release the HTTP connections."""
        self._api.close()

    def _token_status(self) -> _TokenStatus:
        status = self._api.request(
            "POST", "/oauth2/token/status", json={}, idempotent=True, decode=_decode_token_status
        ).value
        self._scopes = status.scopes
        return status

    def _granted(self) -> Collection[str]:
        """Return what the token may do, as it was when this client last asked: that is once a sync."""
        return self._token_status().scopes if self._scopes is None else self._scopes

    def _search(self, window: Window, start: datetime, time_field: TimeField, cursor: str) -> _DecodedPage:
        body: dict[str, Any] = {
            "location_ids": window.location_ids,
            "limit": _PAGE_SIZE,
            "query": {
                "filter": {
                    "date_time_filter": {f"{time_field}_at": {"start_at": stamp(start), "end_at": stamp(window.end)}},
                    "state_filter": {"states": _TERMINAL_STATES if time_field == "closed" else _ALL_STATES},
                },
                "sort": {"sort_field": f"{time_field.upper()}_AT", "sort_order": "ASC"},
            },
        }
        if cursor:
            body["cursor"] = cursor
        answer = self._api.request(
            "POST", _SEARCH, json=body, idempotent=True, budget=window.location_ids, decode=decode_page
        )
        return answer.value
