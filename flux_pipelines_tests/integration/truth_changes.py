"""What happens at a merchant after its days were fetched: everything that providers let people do to the past."""

from __future__ import annotations

from datetime import date, timedelta

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_sandbox.model import Location, Merchant, Sale
from flux_sandbox.world import World

_HOUR = 3_600_000


class Changes:
    """Changes a merchant of a world after the fact.

    Args:
        world: the world.
        handle: the merchant.
        days: the business dates that were fetched.
        refunds: whether orders are given back too. Where a return is an order of its own, it is one of today.

    """

    def __init__(self, world: World, handle: str, days: list[date], *, refunds: bool = True) -> None:
        self.world = world
        self.merchant: Merchant = world.merchant(handle)
        self.days = days
        self.refunds = refunds
        self._taken: set[str] = set()

    def make(self) -> None:
        """Let everything happen once, at every open store."""
        for location in self.merchant.locations:
            if location.active:
                self._at(location)
        self._goods()

    def _at(self, location: Location) -> None:
        world = self.world
        calendar = BusinessCalendar(location.timezone, self.merchant.cutoff_hour)
        for number, day in enumerate(self.days):
            sales = [sale for sale in self._sales(location, calendar, day) if _plain(world, sale)]
            if number % 3 == 0:
                # In the last hour of the date: where it ends at four, in the night; on two of the dates after the
                # clocks have changed.
                world.sell(location.id, created=calendar.window(day)[1] - timedelta(minutes=20))
            if number % 3 == 1 and sales:
                world.edit(sales[0].id, add_units=2)
            if number % 3 == 2 and self.refunds and len(sales) > 2:
                world.refund(sales[1].id)
                many = [sale for sale in sales[2:] if len(sale.lines) > 1]
                if many:
                    world.refund(many[0].id, [0])
        waiting = [sale for day in self.days for sale in self._sales(location, calendar, day) if sale.state == "OPEN"]
        for sale, what in zip(waiting, (world.cancel, world.complete), strict=False):
            what(sale.id)
        worked = [
            shift
            for shift in self.merchant.shifts
            if shift.location is location and shift.end is not None and not shift.deleted
        ]
        if len(worked) > 2:
            first, second, third = worked[:3]
            world.edit_shift(first.id, end=(first.end or 0) + _HOUR, breaks=15)
            world.edit_shift(second.id, start=second.start - 7 * 60_000)
            world.edit_shift(third.id, deleted=True)
        counted = [item for item in self.merchant.items if item.tracked]
        if counted:
            world.set_stock(location.id, counted[-1].id, 0)
        if self.refunds:
            world.sell(location.id)

    def _goods(self) -> None:
        items = self.merchant.items
        self.world.change_item(self.merchant, items[1].id, price=items[1].price + 30)
        self.world.change_item(self.merchant, items[-1].id, renamed=f"{items[-1].name} (new)")
        self.world.delete_item(self.merchant, items[2].id)
        self.world.add_item(self.merchant, "Something new", 1234, sku="NEW-1")

    def _sales(self, location: Location, calendar: BusinessCalendar, day: date) -> list[Sale]:
        begin, end = calendar.window(day)
        low, high = int(begin.timestamp() * 1000), int(end.timestamp() * 1000) - 1
        return [sale for _, sale in self.world.between([location.id], "created", low, high)]


def _plain(world: World, sale: Sale) -> bool:
    """Whether anybody would change or take back such an order."""
    return (
        sale.state == "COMPLETED"
        and bool(sale.lines)
        and all(line.kind == "ITEM" and not line.precision for line in sale.lines)
        and not (sale.returns or sale.test or sale.deleted or sale.corrupt or world.refunds_of(sale))
    )
