"""Square's payments and refunds of some locations and an interval of time.

`GET /v2/payments` without a location means the main location only, so it is asked for each. Both ends of its intervals
belong to them; the end is taken off here. Payments that a till took offline are created when they arrive: those are asked
for by the till's own time as well, which is the time of the sale and decides their business date.

A refund does not say how the payment was paid that it gives back (`destination_type` is CARD for a gift card too, and may be
missing), and that payment is seldom of the same date. So the tender of the order that was paid with it comes along with the
refund, as a record of its own kind: what a partition tells of a refund then depends on nothing that is collected before or
after it. Payments are in no list by their ids, orders are: a hundred in a question. What was paid without an order that
names its tender is asked for one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from flux_pipelines.providers.base import Record, Window
from flux_pipelines.providers.square.paging import follow, orders_by_id, stamp
from flux_pipelines.providers.square.records import Found, Listed, Paid, decode_payment, lists, read_paid
from flux_pipelines.transport.errors import RefusedError

if TYPE_CHECKING:
    from msgspec import Raw

    from flux_pipelines.transport.client import ApiClient

_PAGE_SIZE = 100  # the most that both lists give
_NOT_FOUND = 404
# A till's clock may be ahead of Square's, so that a payment seems to be created before it was taken.
_CLOCKS_APART = timedelta(days=1)


class _List(NamedTuple):
    """One of the two lists."""

    path: str
    kind: str
    member: str


class _Order(NamedTuple):
    """By which time a list is asked for and sorted."""

    sort_field: str
    begin: str
    end: str
    extra: Mapping[str, str]


#: The kinds of what a refund gives back: the tender of an order, or the payment where none is found. It is no row of its
#: own partition: the payment has one where it was taken.
TENDER, PAYMENT = "refunded_tender", "refunded_payment"
_PAYMENTS = _List("/v2/payments", "payment", "payments")
_REFUNDS = _List("/v2/refunds", "refund", "refunds")
_DECODERS = {one: lists(one.member) for one in (_PAYMENTS, _REFUNDS)}
_decode_orders = lists("orders")
_CREATED = _Order("CREATED_AT", "begin_time", "end_time", {})
_UPDATED = _Order("UPDATED_AT", "updated_at_begin_time", "updated_at_end_time", {})


def _offline(window: Window) -> _Order:
    # Without begin_time only the payments of the last year are looked through.
    extra = {"is_offline_payment": "true", "begin_time": stamp(window.start - _CLOCKS_APART)}
    return _Order("OFFLINE_CREATED_AT", "offline_begin_time", "offline_end_time", extra)


def read(api: ApiClient, connection: str, window: Window) -> Iterator[list[Record]]:
    """Yield the payments and refunds of the window, a page at a time, each once; then what was paid elsewhere and given back.

    Elsewhere is another business date: what a date tells is the same whatever others it was asked for with.
    """
    taken: dict[str, date] = {}
    given_back: dict[tuple[str, date], _Back] = {}  # by the payment's id and the date of the refund
    for location_id in window.location_ids:
        seen: set[str] = set()
        for which, by in ((_PAYMENTS, _CREATED), (_PAYMENTS, _offline(window)), (_REFUNDS, _CREATED)):
            for page in _pages(api, connection, window, location_id, which, by):
                records = []
                for one in page.found:
                    happened = one.head.happened
                    # What has no readable time is kept: better in quarantine than nowhere.
                    if happened is not None and not window.start <= happened < window.end:
                        continue
                    if one.head.id:
                        if one.head.id in seen:
                            continue
                        seen.add(one.head.id)
                    place = one.head.location_id or location_id
                    records.append(Record(which.kind, place, one.raw, happened))
                    day = window.date_of(happened or window.start)
                    if which is _PAYMENTS:
                        taken[one.head.id] = day
                    elif one.head.payment_id:
                        back = _Back(place, one.head.order_id, happened)
                        given_back.setdefault((one.head.payment_id, day), back)
                if records:
                    yield records
    elsewhere: dict[str, list[_Back]] = {}
    for (payment_id, day), back in given_back.items():
        if taken.get(payment_id) != day:
            elsewhere.setdefault(payment_id, []).append(back)
    if elsewhere and (records := [*_paid_elsewhere(api, elsewhere)]):
        yield records


class _Back(NamedTuple):
    """Where and when a payment was given back, and with which order."""

    place: str
    order_id: str | None
    at: datetime | None


def _paid_elsewhere(api: ApiClient, given_back: Mapping[str, Sequence[_Back]]) -> Iterator[Record]:
    """Yield what was paid with, of each payment, as far as Square knows of it: on each date on which some was given back."""
    missing = dict(given_back)
    # The order of a refund is one of its own, which names the order that it gives back; or it is that order itself.
    asked = [back.order_id for backs in given_back.values() for back in backs if back.order_id]
    for _ in ("refunds", "sales"):
        orders = [*_orders(api, asked)]
        for one in orders:
            for payment_id, tender in one.tenders:
                for back in missing.pop(payment_id, ()):
                    yield Record(TENDER, back.place, tender, back.at)
        asked = [source for one in orders for source in one.sources] if missing else []
    for payment_id, backs in missing.items():
        if (payment := _payment(api, payment_id)) is not None:
            for back in backs:
                yield Record(PAYMENT, back.place, payment, back.at)


def _orders(api: ApiClient, order_ids: Iterable[str]) -> Iterator[Paid]:
    for page in orders_by_id(api, order_ids, _decode_orders):
        for one in page.found:
            yield read_paid(one.raw)


def _payment(api: ApiClient, payment_id: str) -> Raw | None:
    """Return a payment as it is now; None when Square has none of that id."""
    path = f"/v2/payments/{quote(payment_id, safe='')}"
    try:
        return api.request("GET", path, idempotent=True, decode=decode_payment).value
    except RefusedError as refused:
        if refused.status == _NOT_FOUND:
            return None
        raise


def changes(api: ApiClient, connection: str, window: Window) -> Iterator[tuple[str, datetime]]:
    """Yield where and when the payments and refunds happened that changed in the window.

    Square looks through what was created in the last year.
    """
    for location_id in window.location_ids:
        for which in (_PAYMENTS, _REFUNDS):
            for page in _pages(api, connection, window, location_id, which, _UPDATED):
                for one in page.found:
                    happened, at = one.head.happened, one.head.changed
                    if happened is not None and at is not None and at < window.end:
                        yield one.head.location_id or location_id, happened


def _pages(
    api: ApiClient, connection: str, window: Window, location_id: str, which: _List, by: _Order
) -> Iterator[Listed]:
    def ask(start: datetime, cursor: str) -> Listed:
        params: dict[str, str | int] = {
            by.begin: stamp(start),
            by.end: stamp(window.end),
            "sort_field": by.sort_field,
            "sort_order": "ASC",
            "location_id": location_id,
            "limit": _PAGE_SIZE,
            **by.extra,
        }
        if cursor:
            params["cursor"] = cursor
        answer = api.request(
            "GET", which.path, params=params, idempotent=True, budget=(location_id,), decode=_DECODERS[which]
        )
        return answer.value

    def latest(page: Listed) -> datetime | None:
        return max(filter(None, (_instant(one, by) for one in page.found)), default=None)

    return follow(ask, window.start, latest, connection=connection, what=which.path)


def _instant(one: Found, by: _Order) -> datetime | None:
    if by is _UPDATED:
        return one.head.changed
    if by is _CREATED:
        return one.head.created
    return one.head.happened
