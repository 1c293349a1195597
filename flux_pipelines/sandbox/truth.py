"""What really happened, added up from the sales themselves: no order JSON is read, nobody's SQL is run.

Definitions are those of the `daily_sales` table, in integer minor units: goods and service charges are revenue (`gross`,
`discount`, `net`, before tax), gift cards, tips and cash rounding are not; returns are counted, negative, on the day
they were made; cancelled and open orders, and ones no reader can use, count for nothing but their number. Where the
provider keeps refunds on the order that was sold, they are counted on that order's day and are no orders of their own.
Tests of the till, and orders that a merge has emptied, count for nothing at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.sandbox.book import Moment
from flux_pipelines.sandbox.model import Item, Line, Merchant, Sale
from flux_pipelines.sandbox.pricing import Priced, PricedCharge, price
from flux_pipelines.sandbox.world import World


@dataclass(slots=True)
class DayTruth:
    """One store's business date.

    `lines` are goods and gift cards, sold or given back. `returns` and `service_charges` are parts of `net`. `total` is
    what customers paid in all, after what they got back. Item quantities are by variation id, or `name:...`.
    """

    merchant_id: str
    location_id: str
    business_date: date
    currency: str
    orders: int = 0
    return_orders: int = 0
    voids: int = 0
    open_orders: int = 0
    malformed: int = 0
    lines: int = 0
    units: Decimal = Decimal(0)
    gross: int = 0
    discount: int = 0
    net: int = 0
    tax: int = 0
    tips: int = 0
    service_charges: int = 0
    gift_cards: int = 0
    returns: int = 0
    rounding: int = 0
    total: int = 0
    tenders: Counter[str] = field(default_factory=Counter)
    item_quantities: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def as_json(self) -> dict[str, Any]:
        """Return plain values; quantities as text."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["business_date"] = self.business_date.isoformat()
        values["units"] = str(self.units)
        values["tenders"] = dict(self.tenders)
        values["item_quantities"] = {key: str(quantity) for key, quantity in self.item_quantities.items()}
        return values


def product_of(item: Item, owner: Merchant) -> str:
    """Return the id that an item has in every table."""
    return item.product_id if owner.goods_by_product else item.id


def product_key(line: Line, owner: Merchant) -> str:
    """Return what identifies the product of a line: its item's id, or its name when rung up by hand."""
    return product_of(line.item, owner) if line.item is not None else f"name:{line.name}"


def _add_goods(
    day: DayTruth, owner: Merchant, line: Line, quantity: int, gross: int, discount: int, tax: int, sign: int
) -> None:
    units = sign * Decimal(quantity).scaleb(-line.precision)
    day.lines += 1
    if line.kind == "GIFT_CARD":
        day.gift_cards += sign * (gross - discount + tax)
        return
    if units:
        day.units += units
        day.item_quantities[product_key(line, owner)] += units
    day.gross += sign * gross
    day.discount += sign * discount
    day.net += sign * (gross - discount)
    day.tax += sign * tax
    if sign < 0:
        day.returns -= gross - discount


def _add(day: DayTruth, sale: Sale, owner: Merchant, refunds: Sequence[Sale]) -> None:
    if sale.test or sale.deleted:
        return
    if sale.corrupt:
        day.malformed += 1
        return
    if sale.state != "COMPLETED":
        day.open_orders += sale.state == "OPEN"
        day.voids += sale.state == "CANCELED"
        return
    day.orders += bool(sale.lines)
    day.return_orders += bool(sale.returns)
    _add_figures(day, price(sale), owner)
    for back in refunds:
        _add_figures(day, price(back), owner)


def _add_figures(day: DayTruth, figures: Priced, owner: Merchant) -> None:
    for line in figures.lines:
        _add_goods(day, owner, line.line, line.quantity, line.gross, line.discount, line.tax, 1)
    day.tips += figures.tip
    day.rounding += figures.rounding
    day.total += figures.total
    signed = [(charge, 1) for charge in figures.charges]
    for back in figures.returns:
        for _, line in back.lines:
            # What names no goods takes no units back, where a refund is but an amount on the order.
            units = 0 if owner.refunds_on_source and not back.returned.itemised else line.quantity
            _add_goods(day, owner, line.line, units, line.gross, line.discount, line.tax, -1)
        signed += [(charge, -1) for _, charge in back.charges]
        day.returns -= sum(charge.total - charge.tax for _, charge in back.charges if not _is_tip(charge, owner))
        day.tips -= back.tip
        day.rounding -= back.rounding
        day.total -= back.total
    for charge, sign in signed:
        revenue = sign * (charge.total - charge.tax)
        day.tax += sign * charge.tax
        if _is_tip(charge, owner):
            day.tips += revenue
            continue
        day.service_charges += revenue
        day.gross += revenue
        day.net += revenue
    for tender in figures.tenders:
        day.tenders[tender.type] += tender.amount
    if figures.refund:
        day.tenders["REFUND"] -= figures.refund


def _is_tip(charge: PricedCharge, owner: Merchant) -> bool:
    return owner.gratuity_is_tip and charge.charge.auto_gratuity


def truth(
    world: World,
    *,
    merchant: str | None = None,
    location_ids: Iterable[str] | None = None,
    first: date | None = None,
    last: date | None = None,
    cutoff_hour: int | None = None,
    basis: Moment = "created",
) -> list[DayTruth]:
    """Return the truth about each store and business date, in order; dates are inclusive.

    An order belongs to the business date of the instant that `basis` names; without it (an open order has no closing)
    it belongs to none. Business dates end at `cutoff_hour`; by default at each merchant's own.
    """
    wanted = set(location_ids) if location_ids is not None else set(world.locations)
    merchants = [world.merchant(merchant)] if merchant else list(world.merchants.values())
    days: dict[tuple[str, date], DayTruth] = {}
    for owner in merchants:
        for location in owner.locations:
            if location.id not in wanted:
                continue
            calendar = BusinessCalendar(location.timezone, owner.cutoff_hour if cutoff_hour is None else cutoff_hour)
            low = int(calendar.start(first).timestamp() * 1000) if first else -(2**62)
            high = int(calendar.window(last)[1].timestamp() * 1000) - 1 if last else 2**62
            for (at, _), sale in list(world.between([location.id], basis, low, high)):
                if sale.document is not None:
                    continue
                day = calendar.date_of(datetime.fromtimestamp(at / 1000, UTC))
                key = (location.id, day)
                if key not in days:
                    days[key] = DayTruth(owner.id, location.id, day, location.currency)
                refunds = world.refunds_of(sale) if owner.refunds_on_source else ()
                _add(days[key], sale, owner, refunds)
    return [days[key] for key in sorted(days)]


def total_of(days: Iterable[DayTruth]) -> dict[str, dict[str, Any]]:
    """Return the sums of many days, by currency."""
    totals: dict[str, dict[str, Any]] = {}
    for day in days:
        into = totals.setdefault(day.currency, {"units": Decimal(0), "tenders": Counter()})
        for name, value in day.as_json().items():
            if isinstance(value, int):
                into[name] = into.get(name, 0) + value
        into["units"] += day.units
        into["tenders"].update(day.tenders)
    for into in totals.values():
        into["units"] = str(into["units"])
        into["tenders"] = dict(into["tenders"])
    return totals
