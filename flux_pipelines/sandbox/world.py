"""The world: merchants and everything they rang up, findable by time, and the things a test can make happen."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from typing import Literal
from zoneinfo import ZoneInfo

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.sandbox.businesses import businesses
from flux_pipelines.sandbox.faults import FaultInjector
from flux_pipelines.sandbox.history import history
from flux_pipelines.sandbox.ids import token
from flux_pipelines.sandbox.model import Line, Location, Merchant, Payment, Returned, Sale
from flux_pipelines.sandbox.options import SandboxOptions
from flux_pipelines.sandbox.traffic import Traffic

Moment = Literal["created", "updated", "closed"]
Entry = tuple[int, str]

#: Kinds of order that no reader can use, for `World.malform`.
MALFORMED = ("types", "totals", "currency", "timestamp")


class Book:
    """The orders of one store, in order of each of their instants (UTC milliseconds)."""

    def __init__(self) -> None:
        self.created: list[Entry] = []
        self.updated: list[Entry] = []
        self.closed: list[Entry] = []

    def fill(self, sales: Iterable[Sale]) -> None:
        """Add many orders at once."""
        for sale in sales:
            self.created.append((sale.created, sale.id))
            self.updated.append((sale.updated, sale.id))
            if sale.closed is not None:
                self.closed.append((sale.closed, sale.id))
        for entries in (self.created, self.updated, self.closed):
            entries.sort()

    def add(self, sale: Sale) -> None:
        """Add one order."""
        insort(self.created, (sale.created, sale.id))
        insort(self.updated, (sale.updated, sale.id))
        if sale.closed is not None:
            insort(self.closed, (sale.closed, sale.id))

    def drop(self, sale: Sale) -> None:
        """Take one order out, before its instants change."""
        for entries, at in ((self.created, sale.created), (self.updated, sale.updated), (self.closed, sale.closed)):
            if at is not None:
                entries.pop(bisect_left(entries, (at, sale.id)))

    def between(self, moment: Moment, first: int, last: int, after: Entry | None, descending: bool) -> Iterator[Entry]:
        """Yield the entries from `first` to `last`, both included, beyond `after` in the direction of travel."""
        entries: list[Entry] = getattr(self, moment)
        low = bisect_left(entries, (first, ""))
        high = bisect_right(entries, (last, "\U0010ffff"))
        if after is not None and descending:
            high = min(high, bisect_left(entries, after))
        elif after is not None:
            low = max(low, bisect_right(entries, after))
        positions = range(high - 1, low - 1, -1) if descending else range(low, high)
        return (entries[i] for i in positions)


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

    def sell(self, location_id: str | None = None, *, created: datetime | None = None, corrupt: str = "") -> Sale:
        """Ring up an order of two items, now, or with a `created` in the past: an offline sale that arrives now."""
        location = self.location(location_id)
        items = self.merchants[location.merchant_id].items
        now = self.now_ms()
        at = now if created is None else int(created.timestamp() * 1000)
        lines = tuple(
            Line("ITEM", item, item.name, quantity * (1000 if item.unit else 1), item.price, 3 if item.unit else 0)
            for item, quantity in ((items[0], 1), (items[min(5, len(items) - 1)], 2))
        )
        return self.add(
            Sale(
                self._new_id("sale"),
                location,
                at,
                max(now, at),
                at,
                lines=lines,
                payments=(Payment("CARD"),),
                source="Square Point of Sale",
                corrupt=corrupt,
            )
        )

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
        return sale

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
        return self.add(
            Sale(
                self._new_id("refund"),
                source.location,
                now,
                now,
                now,
                returns=(returned,),
                source="Square Point of Sale",
            )
        )

    def complete(self, order_id: str | None = None) -> Sale:
        """Pay an open order now; without an id, the oldest one.

        Raises:
            ConfigurationError: no such order, or it is not open.

        """
        if order_id is None:
            waiting = sorted((s.created, s.id) for s in self.sales.values() if s.state == "OPEN")
            if not waiting:
                raise ConfigurationError("the sandbox has no open order", next_step="Start it with more history.")
            order_id = waiting[0][1]
        sale = self.sale(order_id)
        if sale.state != "OPEN":
            raise ConfigurationError(f"the order {order_id!r} is {sale.state}, not OPEN", next_step="Pick an open one.")
        self.books[sale.location.id].drop(sale)
        now = max(self.now_ms(), sale.updated + 1)
        sale.state, sale.closed = "COMPLETED", now
        sale.payments = sale.payments or (Payment("CARD"),)
        self._touch(sale, now)
        self.books[sale.location.id].add(sale)
        return sale

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
