"""The world: merchants and everything they rang up, findable by time, and the things a test can make happen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.model import Chosen, Item, Line, Payment, Returned, Sale, State
from flux_sandbox.order_index import Entry
from flux_sandbox.pricing import price
from flux_sandbox.world_upkeep import Upkeep

#: Kinds of order that no reader can use, for `World.malform`.
MALFORMED = ("types", "totals", "currency", "timestamp")


class World(Upkeep):
    """Merchants, their orders, the log of who asked for them, and the faults in the way."""

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
        self._tell("sold", self.add(sale), late=created is not None)
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

    def delete_order(self, order_id: str) -> Sale:
        """Delete an order, whatever its age: its provider gives it no more.

        Raises:
            ConfigurationError: no such order.

        """
        sale = self.sale(order_id)
        sale.deleted = True
        self.change(sale)
        return self._tell("deleted", sale)

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
