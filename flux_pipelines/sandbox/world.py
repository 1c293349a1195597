"""The world: merchants and everything they rang up, findable by time, and the things a test can make happen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from zoneinfo import ZoneInfo

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.sandbox.book import Book, Entry, Moment
from flux_pipelines.sandbox.businesses import businesses
from flux_pipelines.sandbox.deliveries import Outbox
from flux_pipelines.sandbox.faults import FaultInjector
from flux_pipelines.sandbox.happenings import Happening, Kind
from flux_pipelines.sandbox.history import history
from flux_pipelines.sandbox.ids import code, token
from flux_pipelines.sandbox.model import Item, Line, Location, Merchant, Payment, Returned, Sale, State
from flux_pipelines.sandbox.options import SandboxOptions
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
        seeded = merchants is None
        for merchant in businesses(options.seed) if merchants is None else merchants:
            self.merchants[merchant.id] = merchant
            for location in merchant.locations:
                self.locations[location.id] = location
                self.books[location.id] = Book()
        self.end_day: date | None = None
        if seeded:
            end = self.end_day = options.end_day or self._yesterday()
            sales = [s for m in self.merchants.values() for s in history(options.seed, m, end, options.history_days)]
        by_location: dict[str, list[Sale]] = {id_: [] for id_ in self.books}
        for sale in sales:
            self.sales[sale.id] = sale
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

    def add(self, sale: Sale) -> Sale:
        """Put a new order into the world."""
        self.sales[sale.id] = sale
        self.books[sale.location.id].add(sale)
        return sale

    def _touch(self, sale: Sale, updated: int) -> None:
        sale.updated = max(updated, sale.updated + 1)
        sale.version += bool(sale.version)
        sale.revision += 1
        sale.priced = None

    def _new_id(self, what: str) -> str:
        self._made += 1
        return token(self.options.seed, what, self._made)

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
        items = self.merchants[location.merchant_id].items
        now = self.now_ms()
        at = now if created is None else int(created.timestamp() * 1000)
        lines = tuple(
            Line("ITEM", item, item.name, quantity * (1000 if item.unit else 1), item.price, 3 if item.unit else 0)
            for item, quantity in goods or ((items[0], 1), (items[min(5, len(items) - 1)], 2))
        )
        sale = Sale(
            self._new_id("sale"),
            location,
            at,
            max(now, at),
            at,
            lines=lines,
            payments=(Payment(paid_by),),
            source="Online" if online else "Square Point of Sale",
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
        self.books[sale.location.id].drop(sale)
        self._touch(sale, self.now_ms())
        self.books[sale.location.id].add(sale)
        return self._tell("edited", sale, amounts=bool(add_units))

    def refund(self, order_id: str) -> Sale:
        """Take a whole order back, now: a new order whose returns name it.

        Raises:
            ConfigurationError: no such order, or nothing on it to give back.

        """
        source = self.sale(order_id)
        if source.state != "COMPLETED" or not source.lines:
            raise ConfigurationError(f"nothing of the order {order_id!r} can be given back", next_step="Pick a sale.")
        now = max(self.now_ms(), source.updated + 1)
        parts = tuple((i, line.quantity) for i, line in enumerate(source.lines))
        returned = Returned(source, parts, tip_back=True, charges_back=True)
        back = Sale(
            self._new_id("refund"), source.location, now, now, now, returns=(returned,), source="Square Point of Sale"
        )
        return self._tell("refunded", self.add(back))

    def _open_order(self, order_id: str | None) -> Sale:
        if order_id is None:
            waiting = sorted((s.created, s.id) for s in self.sales.values() if s.state == "OPEN")
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
