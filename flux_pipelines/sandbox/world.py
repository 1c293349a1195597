"""The world: merchants and everything they rang up, findable by time, and the things a test can make happen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from typing import Literal
from zoneinfo import ZoneInfo

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.sandbox.book import Book, Entry, Moment
from flux_pipelines.sandbox.businesses import businesses
from flux_pipelines.sandbox.deliveries import Outbox
from flux_pipelines.sandbox.faults import FaultInjector
from flux_pipelines.sandbox.floor import shifts, stock
from flux_pipelines.sandbox.happenings import Happening, Kind
from flux_pipelines.sandbox.ids import code, made
from flux_pipelines.sandbox.model import Item, Line, Location, Merchant, Payment, Returned, Sale, Shift, State
from flux_pipelines.sandbox.options import SandboxOptions
from flux_pipelines.sandbox.past import history
from flux_pipelines.sandbox.payments import PaidTender, payments_of
from flux_pipelines.sandbox.people import greet
from flux_pipelines.sandbox.traffic import Traffic

#: Kinds of order that no reader can use, for `World.malform`.
MALFORMED = ("types", "totals", "currency", "timestamp")


class World:
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
        self._made = 0
        self._refunds: dict[str, list[Sale]] = {}  # by the id of the sale that was given back
        seeded = merchants is None
        for merchant in businesses(options.seed) if merchants is None else merchants:
            self.merchants[merchant.id] = merchant
            for location in merchant.locations:
                self.locations[location.id] = location
                self.books[location.id] = Book()
        self.end_day: date | None = None
        if seeded:
            end = self.end_day = options.end_day or self._yesterday()
            made_up: list[Sale] = []
            for merchant in self.merchants.values():
                own = history(options.seed, merchant, end, options.history_days)
                for sale in own:
                    greet(merchant, sale)
                made_up += own
                merchant.shifts = shifts(options.seed, merchant, end, options.history_days)
                merchant.counts = stock(options.seed, merchant, int(self.clock().timestamp() * 1000))
            sales = made_up
        by_location: dict[str, list[Sale]] = {id_: [] for id_ in self.books}
        for sale in sales:
            self.sales[sale.id] = sale
            if sale.returns:
                self._remember(sale)
            if self.is_order(sale):
                by_location[sale.location.id].append(sale)
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
        """Return an order by its id.

        Raises:
            ConfigurationError: there is none.

        """
        if order_id not in self.sales:
            raise ConfigurationError(f"the sandbox has no order {order_id!r}", next_step="GET /sandbox/orders.")
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
        streams = [self.books[id_].between(moment, first, last, after, descending) for id_ in location_ids]
        for entry in merge(*streams, reverse=descending):
            yield entry, self.sales[entry[1]]

    def now_ms(self) -> int:
        """Return the present instant in UTC milliseconds."""
        return int(self.clock().timestamp() * 1000)

    # Making things happen

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
        for back in self.refunds_of(sale):
            back.priced = None

    def new_id(self, what: str, merchant: Merchant) -> str:
        """Return an id that nothing has yet, in the style of the merchant's provider."""
        self._made += 1
        return made(merchant.id_style, self.options.seed, what, self._made)

    def _tell(self, kind: Kind, sale: Sale, **details: bool) -> Sale:
        happening = Happening(kind, self.merchants[sale.location.merchant_id], sale.location, sale, **details)
        for listener in self.listeners:
            listener(happening)
        return sale

    def _tell_of(self, kind: Kind, location: Location) -> Location:
        for listener in self.listeners:
            listener(Happening(kind, self.merchants[location.merchant_id], location))
        return location

    def sell(
        self,
        location_id: str | None = None,
        *,
        created: datetime | None = None,
        corrupt: str = "",
        goods: Sequence[tuple[Item, int]] = (),
        paid_by: str = "CARD",
        online: bool = False,
    ) -> Sale:
        """Ring up an order now, or with a `created` in the past: an offline sale that arrives now.

        Args:
            location_id: where; by default at the first location.
            created: when it was rung up.
            corrupt: make it an order that no reader can use: see `MALFORMED`.
            goods: items, each with how many; by default three units of two items.
            paid_by: the type of tender.
            online: ordered through the provider's API instead of at the counter.

        """
        location = self.location(location_id)
        merchant = self.merchants[location.merchant_id]
        items = merchant.items
        now = self.now_ms()
        at = now if created is None else int(created.timestamp() * 1000)
        lines = tuple(
            Line("ITEM", item, item.name, quantity * (1000 if item.unit else 1), item.price, 3 if item.unit else 0)
            for item, quantity in goods or ((items[0], 1), (items[min(5, len(items) - 1)], 2))
        )
        sale = Sale(
            self.new_id("sale", merchant),
            location,
            at,
            max(now, at),
            at,
            lines=lines,
            payments=(Payment(paid_by),),
            source=merchant.online if online else merchant.counter,
            version=2 if online else 0,
            corrupt=corrupt,
        )
        return self._tell("sold", self.add(sale), late=created is not None)

    def sell_late(self, hours: float, location_id: str | None = None) -> Sale:
        """Let an offline sale of `hours` ago arrive now."""
        return self.sell(location_id, created=self.clock() - timedelta(hours=hours))

    def malform(self, kind: str, location_id: str | None = None) -> Sale:
        """Ring up an order that no reader can use: see `MALFORMED`.

        Raises:
            ConfigurationError: no such kind.

        """
        if kind not in MALFORMED:
            raise ConfigurationError(f"no malformation is called {kind!r}", next_step=f"Known: {', '.join(MALFORMED)}.")
        return self.sell(location_id, corrupt=kind)

    def edit(self, order_id: str, *, add_units: int = 0) -> Sale:
        """Change an order now; `add_units` more of its first line change its amounts too.

        Raises:
            ConfigurationError: no such order, or one without lines to change.

        """
        sale = self.sale(order_id)
        if add_units:
            if not sale.lines:
                raise ConfigurationError(f"the order {order_id!r} has no lines to change", next_step="Pick a sale.")
            first = sale.lines[0]
            changed = first._replace(quantity=first.quantity + add_units * 10**first.precision)
            sale.lines = (changed, *sale.lines[1:])
        else:
            sale.ticket = f"edit {sale.revision + 1}"
        self.change(sale)
        return self._tell("edited", sale, amounts=bool(add_units))

    def refund(self, order_id: str, lines: Sequence[int] | None = None) -> Sale:
        """Take an order back, now: a new sale whose returns name it.

        Where the provider keeps refunds on the order that was sold, lines given back before are not given back again, and
        the order changes with it.

        Args:
            order_id: the order that was sold.
            lines: the indexes of the lines that come back; by default everything, tip and charges included.

        Raises:
            ConfigurationError: no such order, or nothing on it to give back.

        """
        source = self.sale(order_id)
        merchant = self.owner(source)
        before = self.refunds_of(source) if merchant.refunds_on_source else []
        gone = {index for back in before for one in back.returns for index, _ in one.parts}
        bare = any(one.lines for back in before for one in back.returns)  # money alone came back: nobody knows what of
        wanted = range(len(source.lines)) if lines is None else lines
        parts = tuple((i, source.lines[i].quantity) for i in wanted if i < len(source.lines) and i not in gone)
        if source.state != "COMPLETED" or source.test or not parts or bare:
            raise ConfigurationError(f"nothing of the order {order_id!r} can be given back", next_step="Pick a sale.")
        now = max(self.now_ms(), source.updated + 1)
        whole = lines is None and not before
        returned = Returned(source, parts, tip_back=whole, charges_back=whole)
        back = Sale(
            self.new_id("refund", merchant),
            source.location,
            now,
            now,
            now,
            returns=(returned,),
            source=merchant.counter,
        )
        self.add(back)
        if merchant.refunds_on_source:
            self.change(source)
        return self._tell("refunded", back)

    def _open_order(self, order_id: str | None) -> Sale:
        if order_id is None:
            provider = next(iter(self.merchants.values())).provider
            ids = [location.id for merchant in self.merchants_of(provider) for location in merchant.locations]
            orders = self.between(ids, "created", -(2**62), 2**62)
            waiting = [(sale.created, sale.id) for _, sale in orders if sale.state == "OPEN"]
            if not waiting:
                raise ConfigurationError("the sandbox has no open order", next_step="Start it with more history.")
            order_id = waiting[0][1]
        sale = self.sale(order_id)
        if sale.state != "OPEN":
            raise ConfigurationError(f"the order {order_id!r} is {sale.state}, not OPEN", next_step="Pick an open one.")
        return sale

    def _close(self, sale: Sale, state: State) -> None:
        self.books[sale.location.id].drop(sale)
        now = max(self.now_ms(), sale.updated + 1)
        sale.state, sale.closed = state, now
        self._touch(sale, now)
        self.books[sale.location.id].add(sale)

    def complete(self, order_id: str | None = None) -> Sale:
        """Pay an open order now; without an id, the oldest one.

        Raises:
            ConfigurationError: no such order, or it is not open.

        """
        sale = self._open_order(order_id)
        sale.payments = sale.payments or (Payment("CARD"),)
        self._close(sale, "COMPLETED")
        return self._tell("paid", sale)

    def cancel(self, order_id: str | None = None) -> Sale:
        """Cancel an open order now; without an id, the oldest one.

        Raises:
            ConfigurationError: no such order, or it is not open.

        """
        sale = self._open_order(order_id)
        self._close(sale, "CANCELED")
        return self._tell("cancelled", sale)

    def open_location(self, merchant: Merchant, name: str) -> Location:
        """Let a merchant open another store, like its first one."""
        self._made += 1
        id_ = made(merchant.id_style, self.options.seed, merchant.handle, name, self._made)
        if merchant.id_style == "token":
            id_ = "L" + code(self.options.seed, merchant.handle, name, self._made, length=12)
        location = replace(merchant.locations[0], id=id_, name=name, active=True)
        merchant.locations.append(location)
        self.locations[id_] = location
        self.books[id_] = Book()
        return self._tell_of("location_opened", location)

    def report_timezone(self, location_id: str, timezone: str) -> Location:
        """Let the provider say that a store is in this time zone, right or wrong."""
        location = self.location(location_id)
        location.reported_timezone = timezone
        return self._tell_of("location_changed", location)

    def describe(self) -> list[dict[str, object]]:
        """Return the merchants and their locations, ready for JSON."""
        return [
            {
                "id": merchant.id,
                "handle": merchant.handle,
                "provider": merchant.provider,
                "tenant": merchant.tenant or merchant.handle,
                "name": merchant.name,
                "currency": merchant.currency,
                "cutoff_hour": merchant.cutoff_hour,
                "items": len(merchant.items),
                "orders": sum(len(self.books[location.id].created) for location in merchant.locations),
                "locations": [
                    {
                        "id": location.id,
                        "name": location.name,
                        "timezone": location.reported_timezone,
                        "currency": location.currency,
                        "active": location.active,
                        "orders": len(self.books[location.id].created),
                        "first_order": _when(self.books[location.id].created[:1]),
                        "last_order": _when(self.books[location.id].created[-1:]),
                    }
                    for location in merchant.locations
                ],
            }
            for merchant in self.merchants.values()
        ]


def _when(entries: list[Entry]) -> str | None:
    return datetime.fromtimestamp(entries[0][0] / 1000, UTC).isoformat() if entries else None
