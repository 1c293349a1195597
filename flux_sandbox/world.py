"""The world: merchants and everything they rang up, findable by time, and the things a test can make happen."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from typing import Any, Literal
from zoneinfo import ZoneInfo

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.businesses import businesses
from flux_sandbox.counting import Counted, counted
from flux_sandbox.deliveries import Outbox
from flux_sandbox.events import Kind, WorldEvent
from flux_sandbox.faults import FaultInjector
from flux_sandbox.ids import code, made, number
from flux_sandbox.labor import shifts, stock
from flux_sandbox.model import (
    Chosen,
    Count,
    Customer,
    Item,
    Line,
    Location,
    Merchant,
    Payment,
    Returned,
    Sale,
    Shift,
    State,
)
from flux_sandbox.options import SandboxOptions
from flux_sandbox.order_index import Entry, Moment, OrderIndex
from flux_sandbox.payments import PaidTender, payments_of
from flux_sandbox.people import assign_customer, settle
from flux_sandbox.pricing import price
from flux_sandbox.reporting import Reporting
from flux_sandbox.request_log import RequestLog
from flux_sandbox.seed import history

#: Kinds of order that no reader can use, for `World.malform`.
MALFORMED = ("types", "totals", "currency", "timestamp")


class World:
    """Merchants, their orders, the log of who asked for them, and the faults in the way."""

    def __init__(
        self, options: SandboxOptions, merchants: Iterable[Merchant] | None = None, sales: Iterable[Sale] = ()
    ) -> None:
        self.options = options
        self.clock = options.clock
        self.request_log = RequestLog()
        self.faults = FaultInjector(options.faults, options.seed)
        self.merchants: dict[str, Merchant] = {}
        self.locations: dict[str, Location] = {}
        self.sales: dict[str, Sale] = {}
        self.order_index: dict[str, OrderIndex] = {}
        self.listeners: list[Callable[[WorldEvent], None]] = []  # the providers, who tell their apps
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
            sales = [sale for merchant in self.merchants.values() for sale in self._seeded_history(merchant, end)]
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
            self._enter(self._seeded_history(merchant, self.end_day))

    def _house(self, merchant: Merchant) -> None:
        self.merchants[merchant.id] = merchant
        for location in merchant.locations:
            self.locations[location.id] = location
            self.order_index[location.id] = OrderIndex()

    def _seeded_history(self, merchant: Merchant, end: date) -> list[Sale]:
        """Return everything that a merchant sold until the last day; its shifts and stock are made up as well."""
        seed, days = self.options.seed, self.options.history_days
        own = history(seed, merchant, end, days)
        for sale in own:
            assign_customer(merchant, sale)
        merchant.shifts = shifts(seed, merchant, end, days)
        merchant.counts = stock(seed, merchant, self.now_ms())
        return own

    def _enter(self, sales: Iterable[Sale]) -> None:
        """Put many sales into the index at once."""
        by_location: dict[str, list[Sale]] = {}
        for sale in sales:
            self.sales[sale.id] = sale
            self._changes[sale.location.id] += 1
            if sale.returns:
                self._remember(sale)
            if self.is_order(sale):
                by_location.setdefault(sale.location.id, []).append(sale)
        for id_, those in by_location.items():
            self.order_index[id_].fill(those)

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
            self.order_index[id_].between(moment, first, last, after, descending)
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
            for _, id_ in self.order_index[location_id].created:
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
            self.order_index[sale.location.id].add(sale)
        return sale

    def change(self, sale: Sale) -> None:
        """Say that an order was changed now: its new instant is found, and nothing derived from it is kept."""
        self.order_index[sale.location.id].drop(sale)
        self._touch(sale, self.now_ms())
        self.order_index[sale.location.id].add(sale)

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

    def _emit(self, kind: Kind, sale: Sale, **details: Any) -> Sale:
        world_event = WorldEvent(kind, self.merchants[sale.location.merchant_id], sale.location, sale, **details)
        for listener in self.listeners:
            listener(world_event)
        return sale

    def _emit_of(self, kind: Kind, location: Location, **details: Any) -> None:
        world_event = WorldEvent(kind, self.merchants[location.merchant_id], location, **details)
        for listener in self.listeners:
            listener(world_event)

    # Sales

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
            online: ordered through the provider's API instead of at the counter; of a web shop the location tells.

        """
        location = self.location(location_id)
        merchant = self.merchants[location.merchant_id]
        items = [item for item in merchant.items if not item.deleted]
        if merchant.trade == "shop":
            online = location is merchant.locations[0]
        now = self.now_ms()
        at = now if created is None else int(created.timestamp() * 1000)
        lines = tuple(
            Line(
                "ITEM",
                item,
                item.name,
                quantity * (1000 if item.unit else 1),
                item.price,
                3 if item.unit else 0,
                tuple(Chosen(modifier, 1) for modifier in item.modifiers if modifier.required)[:1],
            )
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
        if created is not None:
            sale.arrived = sale.updated
        self._emit("sold", self.add(sale), late=created is not None)
        self._take(sale)
        return sale

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
            now = max(self.now_ms(), sale.created + 1)
            sale.earlier = (*sale.earlier, (now, sale.lines))
            sale.lines = (changed, *sale.lines[1:])
        else:
            sale.ticket = f"edit {sale.revision + 1}"
        self.change(sale)
        return self._emit("edited", sale, amounts=bool(add_units))

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
        return self._emit("refunded", back)

    def _open_order(self, order_id: str | None) -> Sale:
        if order_id is None:
            provider = next(iter(self.merchants.values())).provider
            ids = [location.id for merchant in self.merchants_of(provider) for location in merchant.locations]
            orders = self.between(ids, "created", -(2**62), 2**62)
            waiting = [
                (sale.created, sale.id)
                for _, sale in orders
                # What was paid ahead waits for its goods, not for its payment.
                if sale.state == "OPEN" and sale.document is None and not price(sale).tenders
            ]
            if not waiting:
                raise ConfigurationError("the sandbox has no open order", next_step="Start it with more history.")
            order_id = waiting[0][1]
        sale = self.sale(order_id)
        if sale.state != "OPEN":
            raise ConfigurationError(f"the order {order_id!r} is {sale.state}, not OPEN", next_step="Pick an open one.")
        return sale

    def _close(self, sale: Sale, state: State) -> None:
        self.order_index[sale.location.id].drop(sale)
        now = max(self.now_ms(), sale.updated + 1)
        sale.state, sale.closed = state, now
        self._touch(sale, now)
        self.order_index[sale.location.id].add(sale)

    def complete(self, order_id: str | None = None) -> Sale:
        """Pay an open order now; without an id, the oldest one.

        Raises:
            ConfigurationError: no such order, or it is not open.

        """
        sale = self._open_order(order_id)
        sale.payments = sale.payments or (Payment("CARD"),)
        self._close(sale, "COMPLETED")
        return self._emit("paid", sale)

    def cancel(self, order_id: str | None = None) -> Sale:
        """Cancel an open order now; without an id, the oldest one.

        Raises:
            ConfigurationError: no such order, or it is not open.

        """
        sale = self._open_order(order_id)
        self._close(sale, "CANCELED")
        return self._emit("cancelled", sale)

    def delete_order(self, order_id: str) -> Sale:
        """Delete an order, whatever its age: its provider gives it no more.

        Raises:
            ConfigurationError: no such order.

        """
        sale = self.sale(order_id)
        sale.deleted = True
        self.change(sale)
        return self._emit("deleted", sale)

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
                "counts_when": merchant.counts_when,
                "untold": merchant.untold,
                "items": len(merchant.items),
                "orders": sum(len(self.order_index[location.id].created) for location in merchant.locations),
                "locations": [
                    {
                        "id": location.id,
                        "name": location.name,
                        "timezone": location.reported_timezone,
                        "currency": location.currency,
                        "active": location.active,
                        "orders": len(self.order_index[location.id].created),
                        "first_order": _when(self.order_index[location.id].created[:1]),
                        "last_order": _when(self.order_index[location.id].created[-1:]),
                    }
                    for location in merchant.locations
                ],
            }
            for merchant in self.merchants.values()
        ]

    # Stores

    def open_location(self, merchant: Merchant, name: str) -> Location:
        """Let a merchant open another store, like its first one."""
        self._made += 1
        id_ = made(merchant.id_style, self.options.seed, merchant.handle, name, self._made)
        if merchant.id_style == "token":
            id_ = "L" + code(self.options.seed, merchant.handle, name, self._made, length=12)
        location = replace(merchant.locations[0], id=id_, name=name, active=True)
        merchant.locations.append(location)
        self.locations[id_] = location
        self.order_index[id_] = OrderIndex()
        self._emit_of("location_opened", location)
        return location

    def report_timezone(self, location_id: str, timezone: str) -> Location:
        """Let the provider say that a store is in this time zone, right or wrong."""
        location = self.location(location_id)
        location.reported_timezone = timezone
        self._emit_of("location_changed", location)
        return location

    # The catalog

    def withhold(self, merchant: Merchant, *, back: bool) -> None:
        """Let every answer be that nothing was ever sold or worked at a merchant's, or (`back`) what it really is."""
        own = {merchant.id, *(location.id for location in merchant.locations)}
        self.withheld = self.withheld - own if back else self.withheld | own
        if back:
            merchant.shifts = self.shifts_withheld.pop(merchant.id, merchant.shifts)
        elif merchant.id not in self.shifts_withheld:
            self.shifts_withheld[merchant.id], merchant.shifts = merchant.shifts, []

    def item(self, merchant: Merchant, name: str) -> Item:
        """Return an item of a merchant by its id or its name, deleted ones too.

        Raises:
            ConfigurationError: there is none.

        """
        for item in merchant.items:
            if name in (item.id, item.name, f"{item.name} {item.variation}".strip()):
                return item
        raise ConfigurationError(
            f"{merchant.name} has no item {name!r}", next_step="GET /sandbox/truth/products lists them."
        )

    def _now_after(self, instant: int) -> int:
        return max(self.now_ms(), instant + 1)

    def _replace(self, merchant: Merchant, old: Item, new: Item, kind: Kind) -> Item:
        place = next(i for i, item in enumerate(merchant.items) if item is old)
        merchant.items[place] = new
        merchant.published = max(merchant.published, new.updated)
        self._emit_of(kind, merchant.locations[0], item=new)
        return new

    def change_item(
        self, merchant: Merchant, name: str, *, price: int | None = None, renamed: str | None = None
    ) -> Item:
        """Change an item's price (minor units) or name, now; what was sold before keeps what it was sold as.

        A name is the product's: its other variations have it too.
        """
        old = self.item(merchant, name)
        if renamed:
            for one in [i for i in merchant.items if i.product_id == old.product_id and i is not old]:
                other = replace(one, name=renamed, updated=self._now_after(one.updated))
                self._replace(merchant, one, other, "item_changed")
        new = replace(
            old,
            price=old.price if price is None else price,
            name=renamed or old.name,
            updated=self._now_after(old.updated),
        )
        return self._replace(merchant, old, new, "item_changed")

    def delete_item(self, merchant: Merchant, name: str) -> Item:
        """Take an item out of the catalog, now."""
        old = self.item(merchant, name)
        new = replace(old, deleted=True, updated=self._now_after(old.updated))
        return self._replace(merchant, old, new, "item_deleted")

    def add_item(
        self, merchant: Merchant, name: str, price: int, *, category: str = "", variation: str = "", sku: str = ""
    ) -> Item:
        """Put a new item into the catalog, now."""
        self._made += 1
        parts = (self.options.seed, merchant.handle, name, variation, self._made)
        style = merchant.id_style
        id_ = code(*parts) if style == "token" else made(style, "item", *parts)
        product = code("item", *parts) if style == "token" else number("product", *parts)
        item = Item(
            id_,
            name,
            variation,
            category or merchant.items[0].category,
            price,
            product_id=product,
            sku=sku,
            updated=self.now_ms(),
        )
        merchant.items.append(item)
        merchant.published = max(merchant.published, item.updated)
        self._emit_of("item_created", merchant.locations[0], item=item)
        return item

    def publish(self, merchant: Merchant) -> int:
        """Publish the catalog once more, as it is; returns when, in UTC milliseconds."""
        merchant.published = self._now_after(merchant.published)
        self._emit_of("catalog_published", merchant.locations[0])
        return merchant.published

    # Stock

    def set_stock(self, location_id: str, name: str, quantity: int) -> Count:
        """Count an item's stock at a store: this many units there are now."""
        location = self.location(location_id)
        item = self.item(self.merchants[location.merchant_id], name)
        if not item.tracked:
            raise ConfigurationError(f"nobody counts the stock of {item.name!r}", next_step="Pick a counted item.")
        return self._count(location, item, quantity)

    def _count(self, location: Location, item: Item, quantity: int) -> Count:
        counts = self.merchants[location.merchant_id].counts
        before = counts.get((location.id, item.id), Count(0, 0))
        count = counts[(location.id, item.id)] = Count(quantity, self._now_after(before.updated))
        self._emit_of("stock_changed", location, item=item, count=count, count_before=before.quantity)
        return count

    def _take(self, sale: Sale) -> None:
        """Let the stock go down by what was sold."""
        counts = self.owner(sale).counts
        for line in sale.lines:
            if line.item is not None and (sale.location.id, line.item.id) in counts and not line.precision:
                left = counts[(sale.location.id, line.item.id)].quantity - line.quantity
                self._count(sale.location, line.item, left)

    # Who works when

    def shift(self, shift_id: str) -> Shift:
        """Return a shift by its id.

        Raises:
            ConfigurationError: there is none.

        """
        for merchant in self.merchants.values():
            for shift in merchant.shifts:
                if shift.id == shift_id:
                    return shift
        raise ConfigurationError(f"the sandbox has no shift {shift_id!r}", next_step="GET /sandbox/truth/labor.")

    def clock_in(self, location_id: str, employee_id: str | None = None) -> Shift:
        """Let somebody begin to work at a store, now; by default the merchant's first employee."""
        location = self.location(location_id)
        merchant = self.merchants[location.merchant_id]
        for employee in merchant.employees:
            if employee_id in (None, employee.id):
                break
        else:
            raise ConfigurationError(
                f"{merchant.name} has no employee {employee_id!r}", next_step="GET /sandbox/truth/labor."
            )
        now = self.now_ms()
        shift = Shift(self.new_id("shift", merchant), employee, location, now, None, updated=now)
        merchant.shifts.append(shift)
        return self._shift_changed(shift)

    def clock_out(self, shift_id: str, *, breaks: int = 0, tips: int = 0) -> Shift:
        """Let somebody end their work, now; unpaid minutes and cash tips (minor units) as declared."""
        shift = self.shift(shift_id)
        if shift.end is not None or shift.deleted:
            raise ConfigurationError(f"the shift {shift_id!r} is not going on", next_step="Pick one that is.")
        shift.end, shift.breaks, shift.tips = max(self.now_ms(), shift.start + 1), breaks, tips
        shift.updated = self._now_after(shift.updated)
        return self._shift_changed(shift)

    def edit_shift(
        self,
        shift_id: str,
        *,
        start: int | None = None,
        end: int | None = None,
        breaks: int | None = None,
        deleted: bool = False,
    ) -> Shift:
        """Correct a shift now, however long ago it was, or delete it; instants are UTC milliseconds."""
        shift = self.shift(shift_id)
        begins = shift.start if start is None else start
        ends = shift.end if end is None else end
        if ends is not None and ends < begins:
            raise ConfigurationError(f"the shift {shift_id!r} would end before it begins")
        shift.start, shift.end = begins, ends
        shift.breaks = shift.breaks if breaks is None else breaks
        shift.deleted = shift.deleted or deleted
        shift.updated = self._now_after(shift.updated)
        return self._shift_changed(shift)

    def _shift_changed(self, shift: Shift) -> Shift:
        self._emit_of("shift_changed", shift.location, shift=shift)
        return shift

    # People and the app

    def customer(self, merchant: Merchant, name: str) -> Customer:
        """Return a customer of a merchant by id or e-mail address.

        Raises:
            ConfigurationError: there is none.

        """
        for customer in merchant.customers:
            if name in (customer.id, customer.email):
                return customer
        raise ConfigurationError(f"{merchant.name} has no such customer", next_step="GET /sandbox/customers.")

    def set_customer(self, order_id: str, name: str | None) -> Sale:
        """Say now whose order it is; nobody's, without a name."""
        sale = self.sale(order_id)
        sale.customer = self.customer(self.owner(sale), name) if name else None
        self.change(sale)
        return self._emit("edited", sale)

    def ask_for_erasure(self, merchant: Merchant, name: str) -> Customer:
        """Let a customer ask to be forgotten: providers tell their apps."""
        customer = self.customer(merchant, name)
        self._emit_of("erasure_requested", merchant.locations[0], customer=customer)
        return customer

    def uninstall(self, merchant: Merchant) -> None:
        """Let a merchant remove the app: its provider ends the authorisation and says so."""
        self._emit_of("uninstalled", merchant.locations[0])


def _at(one: Counted) -> int:
    return one.at


def _when(entries: list[Entry]) -> str | None:
    return datetime.fromtimestamp(entries[0][0] / 1000, UTC).isoformat() if entries else None
