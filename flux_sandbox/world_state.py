"""What the world knows, findable: merchants, stores, orders by each of their instants, returns, payments, shifts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from heapq import merge
from typing import Any, Literal
from zoneinfo import ZoneInfo

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.businesses import businesses
from flux_sandbox.counting import Counted, counted
from flux_sandbox.deliveries import Outbox
from flux_sandbox.events import Happening, Kind
from flux_sandbox.faults import FaultInjector
from flux_sandbox.ids import made
from flux_sandbox.labor import shifts, stock
from flux_sandbox.model import Location, Merchant, Sale, Shift
from flux_sandbox.options import SandboxOptions
from flux_sandbox.order_index import Book, Entry, Moment
from flux_sandbox.payments import PaidTender, payments_of
from flux_sandbox.people import greet, settle
from flux_sandbox.reporting import Reporting
from flux_sandbox.request_log import Traffic
from flux_sandbox.seed import history


class WorldState:
    """Merchants, their orders, the log of who asked for them, and the faults in the way."""

    def __init__(
        self, options: SandboxOptions, merchants: Iterable[Merchant] | None = None, sales: Iterable[Sale] = ()
    ) -> None:
        self.options = options
        self.clock = options.clock
        self.traffic = Traffic()
        self.faults = FaultInjector(options.faults, options.seed)
        self.merchants: dict[str, Merchant] = {}
        self.locations: dict[str, Location] = {}
        self.sales: dict[str, Sale] = {}
        self.books: dict[str, Book] = {}
        self.listeners: list[Callable[[Happening], None]] = []  # the providers, who tell their apps
        self.outbox = Outbox(options.seed)
        self.reporting = Reporting()
        #: Merchants and stores, by id, of which every answer is that nothing was sold there; and what was worked there.
        self.withheld: frozenset[str] = frozenset()
        self.shifts_withheld: dict[str, list[Shift]] = {}
        self._made = 0
        self._changes: Counter[str] = Counter()  # of what counts, by store
        self._counting: dict[str, tuple[int, list[Counted]]] = {}
        self._refunds: dict[str, list[Sale]] = {}  # by the id of the sale that was given back
        self.end_day: date | None = None
        seeded = merchants is None
        for merchant in businesses(options.seed) if merchants is None else merchants:
            self._house(merchant)
        if seeded:
            end = self.end_day = options.end_day or self._yesterday()
            sales = [sale for merchant in self.merchants.values() for sale in self._past_of(merchant, end)]
        self._enter(sales)

    def take_in(self, merchant: Merchant) -> None:
        """Take in one merchant more, with its people and, in a seeded world, with a past of its own.

        Providers whose merchants are none of `businesses` bring them so, when their sandbox is built.
        """
        merchant.tenant = merchant.tenant or merchant.handle
        settle(self.options.seed, merchant)
        merchant.published = max((item.updated for item in merchant.items), default=0)
        self._house(merchant)
        if self.end_day is not None:
            self._enter(self._past_of(merchant, self.end_day))

    def _house(self, merchant: Merchant) -> None:
        self.merchants[merchant.id] = merchant
        for location in merchant.locations:
            self.locations[location.id] = location
            self.books[location.id] = Book()

    def _past_of(self, merchant: Merchant, end: date) -> list[Sale]:
        """Return everything that a merchant sold until the last day; its shifts and stock are made up as well."""
        seed, days = self.options.seed, self.options.history_days
        own = history(seed, merchant, end, days)
        for sale in own:
            greet(merchant, sale)
        merchant.shifts = shifts(seed, merchant, end, days)
        merchant.counts = stock(seed, merchant, self.now_ms())
        return own

    def _enter(self, sales: Iterable[Sale]) -> None:
        """Put many sales into the books at once."""
        by_location: dict[str, list[Sale]] = {}
        for sale in sales:
            self.sales[sale.id] = sale
            self._changes[sale.location.id] += 1
            if sale.returns:
                self._remember(sale)
            if self.is_order(sale):
                by_location.setdefault(sale.location.id, []).append(sale)
        for id_, those in by_location.items():
            self.books[id_].fill(those)

    def _yesterday(self) -> date:
        # Where the day is oldest. A bar's tabs of that night may close a little later than now.
        now = self.clock()
        return min(now.astimezone(ZoneInfo(loc.timezone)).date() for loc in self.locations.values()) - timedelta(days=1)

    # Looking things up

    def merchant(self, name: str) -> Merchant:
        """Return a merchant by id, handle or name.

        Raises:
            ConfigurationError: there is none.

        """
        for merchant in self.merchants.values():
            if name in (merchant.id, merchant.handle, merchant.name):
                return merchant
        known = ", ".join(merchant.handle for merchant in self.merchants.values())
        raise ConfigurationError(f"the sandbox has no merchant {name!r}", next_step=f"It has: {known}.")

    def merchants_of(self, provider: str) -> list[Merchant]:
        """Return the merchants whose account is at a provider, in their order."""
        return [merchant for merchant in self.merchants.values() if merchant.provider == provider]

    def owner(self, sale: Sale) -> Merchant:
        """Return whose sale it is."""
        return self.merchants[sale.location.merchant_id]

    def refunds_of(self, sale: Sale) -> list[Sale]:
        """Return the returns of what was sold on a sale, oldest first."""
        return self._refunds.get(sale.id, [])

    def payments_of(self, sale: Sale) -> list[PaidTender]:
        """Return what was paid on a sale, or given back by a return: see `payments.payments_of`."""
        before: list[Sale] = []
        if sale.returns and sale.returns[0].source is not None:
            every = self.refunds_of(sale.returns[0].source)
            before = every[: every.index(sale)]
        return payments_of(sale, self.owner(sale).id_style, before)

    def shifts_between(
        self, location_ids: Iterable[str], moment: Literal["start", "updated"], first: int, last: int
    ) -> Iterator[Shift]:
        """Yield what was worked at some stores by begin or last change (both ends included), oldest first; deleted too."""
        wanted = set(location_ids)
        found = [
            (getattr(shift, moment), shift.id, shift)
            for merchant in self.merchants.values()
            for shift in merchant.shifts
            if shift.location.id in wanted and first <= getattr(shift, moment) <= last
        ]
        yield from (shift for _, _, shift in sorted(found, key=lambda one: one[:2]))

    def sale(self, order_id: str) -> Sale:
        """Return an order by its id, to let something happen to it.

        Raises:
            ConfigurationError: there is none, or it is not made up.

        """
        if order_id not in self.sales:
            raise ConfigurationError(f"the sandbox has no order {order_id!r}", next_step="GET /sandbox/orders.")
        if self.sales[order_id].document is not None:
            raise ConfigurationError(
                f"the order {order_id!r} stays as it was taken in", next_step="Pick a made-up one."
            )
        return self.sales[order_id]

    def location(self, location_id: str | None) -> Location:
        """Return a location by its id; without one, the first.

        Raises:
            ConfigurationError: there is none.

        """
        if location_id is None:
            return next(iter(self.locations.values()))
        if location_id not in self.locations:
            raise ConfigurationError(
                f"the sandbox has no location {location_id!r}", next_step="GET /sandbox/merchants."
            )
        return self.locations[location_id]

    def between(
        self,
        location_ids: Iterable[str],
        moment: Moment,
        first: int,
        last: int,
        *,
        after: Entry | None = None,
        descending: bool = False,
    ) -> Iterator[tuple[Entry, Sale]]:
        """Yield orders of several stores by instant (both ends included), oldest or newest first."""
        streams = [
            self.books[id_].between(moment, first, last, after, descending)
            for id_ in location_ids
            if id_ not in self.withheld
        ]
        for entry in merge(*streams, reverse=descending):
            yield entry, self.sales[entry[1]]

    def counting(self, location_id: str, first: int, last: int) -> list[Counted]:
        """Return what counts at a store from one instant to another, both included, oldest first: see `counting`."""
        if location_id in self.withheld:
            return []
        changes, kept = self._changes[location_id], self._counting.get(location_id)
        if kept is None or kept[0] != changes:
            merchant = self.merchants[self.locations[location_id].merchant_id]
            found: list[Counted] = []
            for _, id_ in self.books[location_id].created:
                sale = self.sales[id_]
                refunds = self.refunds_of(sale) if merchant.refunds_on_source else ()
                found += counted(sale, merchant.counts_when, refunds)
            found.sort(key=_at)
            kept = self._counting[location_id] = (changes, found)
        entries = kept[1]
        return entries[bisect_left(entries, first, key=_at) : bisect_right(entries, last, key=_at)]

    def now_ms(self) -> int:
        """Return the present instant in UTC milliseconds."""
        return int(self.clock().timestamp() * 1000)

    # What every change is made of

    def is_order(self, sale: Sale) -> bool:
        """Tell whether a sale is an order of its own at its provider.

        It is not when it is a return and the provider keeps refunds on the order that was sold: see `refunds_of`.
        """
        return not (sale.returns and self.owner(sale).refunds_on_source)

    def _remember(self, back: Sale) -> None:
        for returned in back.returns:
            if returned.source is not None:
                self._refunds.setdefault(returned.source.id, []).append(back)

    def add(self, sale: Sale) -> Sale:
        """Put a new order into the world."""
        self.sales[sale.id] = sale
        self._changes[sale.location.id] += 1
        self._remember(sale)
        if self.is_order(sale):
            self.books[sale.location.id].add(sale)
        return sale

    def change(self, sale: Sale) -> None:
        """Say that an order was changed now: its new instant is found, and nothing derived from it is kept."""
        self.books[sale.location.id].drop(sale)
        self._touch(sale, self.now_ms())
        self.books[sale.location.id].add(sale)

    def _touch(self, sale: Sale, updated: int) -> None:
        sale.updated = max(updated, sale.updated + 1)
        sale.version += bool(sale.version)
        sale.revision += 1
        sale.priced = None
        self._changes[sale.location.id] += 1
        for back in self.refunds_of(sale):
            back.priced = None

    def new_id(self, what: str, merchant: Merchant) -> str:
        """Return an id that nothing has yet, in the style of the merchant's provider."""
        self._made += 1
        return made(merchant.id_style, self.options.seed, what, self._made)

    def _tell(self, kind: Kind, sale: Sale, **details: Any) -> Sale:
        happening = Happening(kind, self.merchants[sale.location.merchant_id], sale.location, sale, **details)
        for listener in self.listeners:
            listener(happening)
        return sale

    def _tell_of(self, kind: Kind, location: Location, **details: Any) -> None:
        happening = Happening(kind, self.merchants[location.merchant_id], location, **details)
        for listener in self.listeners:
            listener(happening)


def _at(one: Counted) -> int:
    return one.at
