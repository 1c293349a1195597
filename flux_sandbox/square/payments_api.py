"""`GET /v2/payments`, `GET /v2/refunds` and `GET /v2/payments/{id}` with the rules of Square's documentation, over what was paid in the world.

At most 100 a page, and a larger limit counts as 100; both ends of an interval belong to it; without an end it is the time of the
first request, without a begin a year before. As Flux asks: of one location, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from heapq import merge
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_sandbox.documents import documents
from flux_sandbox.square.cursors import Cursors, Position, fingerprint
from flux_sandbox.square.documents import PAYMENTS, REFUNDS, newest, when
from flux_sandbox.square.errors import ApiError, invalid
from flux_sandbox.square.params import a_number, a_query, between, forbidden, one_of
from flux_sandbox.square.payments import Paid, payment, refund, refund_updated

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Merchant, Sale
    from flux_sandbox.order_index import Moment
    from flux_sandbox.payments import PaidTender
    from flux_sandbox.world import World

Json = dict[str, Any]

_PAGE = 100
_HOUR = 3_600_000
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY
#: Until when after a payment what Square keeps of it can become known.
_FEES_WITHIN = 4 * _DAY
_COMMON = frozenset(
    {
        *("begin_time", "end_time", "updated_at_begin_time", "updated_at_end_time"),
        *("sort_order", "sort_field", "cursor", "location_id", "limit"),
    }
)
_OFFLINE = ("is_offline_payment", "offline_begin_time", "offline_end_time")
_TILLS_TIME = ("offline_payment_details", "client_created_at")


class _Entry(NamedTuple):
    """One object of a list, by what it is sorted by."""

    at: int
    id: str
    write: Callable[[], Json]
    created: int
    updated: int


class _Ask(NamedTuple):
    """A checked query; intervals are UTC milliseconds with both ends."""

    location_id: str
    sort_field: str
    limit: int
    created: tuple[int, int]
    updated: tuple[int, int] | None
    cursor: str
    fingerprint: bytes


class PaymentsApi:
    """What was paid and given back at Square's merchants: found by time, listed a page at a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cursors = Cursors(world)
        #: By location: what was paid at another instant than that of closing: offline, ahead, in instalments.
        self._apart: dict[str, dict[str, Sale]] | None = None
        self._given_back: dict[str, str] = {}  # payments that were given back, and the sales they are of
        self._looked_through = 0
        world.listeners.append(self._hear)

    # What was paid

    def _hear(self, world_event: WorldEvent) -> None:
        sale = world_event.sale
        if sale is not None and self._apart is not None and (world_event.late or _is_apart(sale)):
            self._apart.setdefault(world_event.location.id, {})[sale.id] = sale

    def _apart_at(self, location_id: str) -> dict[str, Sale]:
        """Return a store's sales that were paid apart. Looked for once, as there are few among many."""
        if self._apart is None:
            self._apart = {}
            for sale in self._world.sales.values():
                if _is_apart(sale):
                    self._apart.setdefault(sale.location.id, {})[sale.id] = sale
        return self._apart.get(location_id, {})

    def _sold_with(self, payment_id: str) -> Sale | None:
        """Return the sale that a payment is of which was given back. Returns are only ever added: each is looked at once."""
        for sale in islice(self._world.sales.values(), self._looked_through, None):
            self._looked_through += 1
            for back in sale.returns:
                if back.source is not None:
                    of = self._world.payments_of(back.source)
                    self._given_back |= {one.id: back.source.id for one in of if one.kind == "payment"}
        return self._world.sales.get(self._given_back.get(payment_id, ""))

    def paid(self, sale: Sale) -> list[Paid]:
        """Return the payments of an order, with what came of them."""
        found = [one for one in self._world.payments_of(sale) if one.kind == "payment"]
        backs = self._world.refunds_of(sale) if found else []
        refunds = [one for back in backs for one in self.given_back(back)]
        return [Paid(one, _arrived(sale), tuple(r for r in refunds if r.source_id == one.id)) for one in found]

    def given_back(self, sale: Sale) -> list[PaidTender]:
        """Return the refunds that were made with a return."""
        return [one for one in self._world.payments_of(sale) if one.kind == "refund"] if sale.returns else []

    # The lists

    def payments(self, merchant: Merchant, params: QueryParams) -> Json:
        """Answer `GET /v2/payments`: by creation, by the last change, or those that tills took offline by the tills' time."""
        query = a_query(params, _COMMON | {*_OFFLINE})
        ask = self._ask(merchant, query, ("CREATED_AT", "OFFLINE_CREATED_AT", "UPDATED_AT"))
        now = self._world.now_ms()
        offline = None
        if ask.sort_field == "OFFLINE_CREATED_AT":
            one_of(query.get("is_offline_payment"), "is_offline_payment", ("true",))
            first, last = between(query.get(_OFFLINE[1]), query.get(_OFFLINE[2]), *_OFFLINE[1:])
            offline = (first, now if last is None else last)

        def wanted(shown: Json) -> bool:
            taken = when(shown, *_TILLS_TIME)
            return offline is None or (taken is not None and offline[0] <= taken <= offline[1])

        def entries(first: int, last: int) -> Iterator[_Entry]:
            for paid in self._payments(ask, first, last):
                if offline is not None and not wanted(payment(paid, now)):
                    continue
                updated = paid.updated(now)
                at = {"CREATED_AT": paid.created, "UPDATED_AT": updated}.get(ask.sort_field, paid.tender.at)
                yield _Entry(at, paid.tender.id, partial(payment, paid, now), paid.created, updated)

        taken_in = _taken_in(merchant, PAYMENTS, ask, wanted)
        return self._page("payments", ask, entries, taken_in, now, sorted_already=ask.sort_field == "CREATED_AT")

    def refunds(self, merchant: Merchant, params: QueryParams) -> Json:
        """Answer `GET /v2/refunds`."""
        ask = self._ask(merchant, a_query(params, _COMMON), ("CREATED_AT", "UPDATED_AT"))

        def entries(first: int, last: int) -> Iterator[_Entry]:
            moment: Moment = "updated" if ask.sort_field == "UPDATED_AT" else "closed"
            # A refund's last change is a moment after its return's.
            for _, sale in self._world.between([ask.location_id], moment, first - _HOUR, last + _HOUR):
                for one in self.given_back(sale):
                    updated = refund_updated(one)
                    yield _Entry(
                        updated if moment == "updated" else one.at, one.id, partial(refund, one), one.at, updated
                    )

        taken_in = _taken_in(merchant, REFUNDS, ask, lambda _: True)
        return self._page("refunds", ask, entries, taken_in, self._world.now_ms(), sorted_already=False)

    def payment(self, merchant: Merchant, payment_id: str) -> Json:
        """Answer `GET /v2/payments/{payment_id}`."""
        for id_, document in newest(documents(merchant, PAYMENTS)):
            if id_ == payment_id:
                return {"payment": dict(document)}
        sale = self._sold_with(payment_id)
        if sale is not None and sale.location.merchant_id == merchant.id:
            (paid,) = (one for one in self.paid(sale) if one.tender.id == payment_id)
            return {"payment": payment(paid, self._world.now_ms())}
        raise ApiError(404, "NOT_FOUND", f"Could not find payment with id: {payment_id}", "payment_id")

    def _ask(self, merchant: Merchant, query: Mapping[str, str], fields: tuple[str, ...]) -> _Ask:
        location_id = query.get("location_id")
        if location_id is None:
            raise invalid("MISSING_REQUIRED_PARAMETER", "The sandbox lists one location at a time.", "location_id")
        if location_id not in [location.id for location in merchant.locations]:
            raise forbidden()
        one_of(query.get("sort_order"), "sort_order", ("ASC",))
        size = a_number(query, "limit")
        now = self._world.now_ms()
        created = between(query.get("begin_time"), query.get("end_time"), "begin_time", "end_time")
        names = ("updated_at_begin_time", "updated_at_end_time")
        updated = between(query.get(names[0]), query.get(names[1]), *names)
        return _Ask(
            location_id,
            one_of(query.get("sort_field"), "sort_field", fields),
            _PAGE if size is None or size > _PAGE else max(1, size),
            (created[0] if "begin_time" in query else now - _YEAR, now if created[1] is None else created[1]),
            (updated[0], now if updated[1] is None else updated[1]) if set(names) & query.keys() else None,
            query.get("cursor", ""),
            fingerprint({name: text for name, text in query.items() if name not in ("cursor", "limit")}),
        )

    def _payments(self, ask: _Ask, first: int, last: int) -> Iterator[Paid]:
        """Yield payments of a store whose instant of the sort may lie in an interval, by creation in its order."""
        apart = self._apart_at(ask.location_id)
        if ask.sort_field == "CREATED_AT":
            closed = self._world.between([ask.location_id], "closed", first, last)
            at_closing = ((at, sale.id, self.paid(sale)) for (at, _), sale in closed if sale.id not in apart)
            every = ((paid.created, sale.id, [paid]) for sale in apart.values() for paid in self.paid(sale))
            others = sorted((one for one in every if first <= one[0] <= last), key=lambda one: one[:2])
            for _, _, found in merge(at_closing, others, key=lambda one: one[:2]):
                yield from found
            return
        offline = [sale for sale in apart.values() if _arrived(sale) is not None]
        for sale in self._changed(ask.location_id, first, last) if ask.sort_field == "UPDATED_AT" else offline:
            yield from self.paid(sale)

    def _changed(self, location_id: str, first: int, last: int) -> Iterable[Sale]:
        """Return the sales whose payments may have changed in an interval: sold, edited, charged for, given back."""
        found: dict[str, Sale] = dict(self._apart_at(location_id))
        for _, sale in self._world.between([location_id], "closed", first - _FEES_WITHIN, last):
            found[sale.id] = sale
        for _, sale in self._world.between([location_id], "updated", first - _HOUR, last):
            found[sale.id] = sale
            for returned in sale.returns:
                if returned.source is not None:
                    found[returned.source.id] = returned.source
        return found.values()

    def _page(
        self,
        member: str,
        ask: _Ask,
        entries: Callable[[int, int], Iterator[_Entry]],
        taken_in: list[_Entry],
        now: int,
        *,
        sorted_already: bool,
    ) -> Json:
        issued = now / 1000
        first, last = ask.created
        if ask.sort_field == "UPDATED_AT":
            first, last = ask.updated or (first, now)  # nothing changes before it is made
        created_last = ask.created[1]
        after: tuple[int, str] | None = None
        if ask.cursor:
            position = self._cursors.open(ask.cursor, ask.fingerprint, issued)
            after, created_last = (position.at, position.id), position.last
            if ask.sort_field != "OFFLINE_CREATED_AT":
                first = max(first, position.at)
        size = self._cursors.page_size(ask.limit, ask.fingerprint, after)
        page: list[_Entry] = []
        more = False
        found = entries(first, last)
        made = _within_instants(found) if sorted_already else sorted(found, key=lambda entry: entry[:2])
        for one in merge(made, sorted(taken_in, key=lambda entry: entry[:2]), key=lambda entry: entry[:2]):
            if (after is not None and one[:2] <= after) or not ask.created[0] <= one.created <= created_last:
                continue
            if ask.updated and not ask.updated[0] <= one.updated <= ask.updated[1]:
                continue
            if len(page) == size:
                more = True
                break
            page.append(one)
        answer: Json = {member: [one.write() for one in page]} if page else {}
        if more:
            end = page[-1]
            answer["cursor"] = self._cursors.seal(Position(ask.fingerprint, issued, created_last, end.at, end.id))
        return answer


def _within_instants(entries: Iterator[_Entry]) -> Iterator[_Entry]:
    """Put the payments of one instant in the order of their ids; the instants are in order already."""
    for _, those in groupby(entries, key=lambda entry: entry.at):
        yield from sorted(those, key=lambda entry: entry.id)


def _taken_in(merchant: Merchant, kind: str, ask: _Ask, wanted: Callable[[Json], bool]) -> list[_Entry]:
    """Return what is asked for of the records that are not made up, wherever in time it lies."""
    found = []
    for id_, document in newest(documents(merchant, kind, ask.location_id)):
        shown = dict(document)
        if wanted(shown):
            created = when(shown, "created_at") or 0
            updated = when(shown, "updated_at") or created
            instants = {"CREATED_AT": created, "UPDATED_AT": updated}
            at = instants.get(ask.sort_field, when(shown, *_TILLS_TIME) or 0)
            found.append(_Entry(at, id_, partial(dict, shown), created, updated))
    return found


def _arrived(sale: Sale) -> int | None:
    """Return when a sale arrived that a till took offline; what was ordered online cannot be."""
    return None if sale.version else sale.arrived


def _is_apart(sale: Sale) -> bool:
    """Tell whether something of a sale was paid, or arrived, at another instant than that of closing."""
    return _arrived(sale) is not None or any(payment.at is not None for payment in sale.payments)
