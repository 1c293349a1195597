"""What really happened, added up from the sales themselves: no order JSON is read, nobody's SQL is run.

Definitions are those of the `daily_sales` table, in integer minor units: goods and service charges are revenue (`gross`,
`discount`, `net`, before tax), gift cards, tips and cash rounding are not; returns are counted, negative, on the day
they were made. Which orders are sales, and on which day, is as in the merchant's own report at its provider
(`model.CountsWhen`); an order counts on several days, where its parts do. Orders that no reader can use count for nothing
but their number; tests of the till, and orders that a merge has emptied, for nothing at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict, Unpack

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_sandbox.counting import Counted
from flux_sandbox.model import Item, Line, Location, Merchant, Priced, PricedCharge, PricedLine
from flux_sandbox.pricing import price
from flux_sandbox.world import World

DayKey = tuple[str, date]


@dataclass(slots=True)
class DayTruth:
    """One store's business date.

    `lines` are goods and gift cards, sold or given back. `returns` and `service_charges` are parts of `net`. `total` is
    what customers owe in all, after what they get back. `tenders` are those of the orders that count as sold on this date,
    whenever they were paid, and what was given back on it. `return_orders` are orders that gave something back, or of which
    something came back, on this date. Item quantities are by variation id, or `name:...`.
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


def _add_goods(day: DayTruth, owner: Merchant, line: PricedLine, sign: int, *, back: bool, units: bool = True) -> None:
    quantity = sign * Decimal(line.quantity if units else 0).scaleb(-line.line.precision)
    day.lines += 1
    if line.line.kind == "GIFT_CARD":
        day.gift_cards += sign * (line.gross - line.discount + line.tax)
        return
    if quantity:
        day.units += quantity
        day.item_quantities[product_key(line.line, owner)] += quantity
    day.gross += sign * line.gross
    day.discount += sign * line.discount
    day.net += sign * (line.gross - line.discount)
    day.tax += sign * line.tax
    if back:
        day.returns += sign * (line.gross - line.discount)


def _add_charge(day: DayTruth, owner: Merchant, charge: PricedCharge, sign: int, *, back: bool) -> None:
    revenue = sign * (charge.total - charge.tax)
    day.tax += sign * charge.tax
    if owner.gratuity_is_tip and charge.charge.auto_gratuity:
        day.tips += revenue
        return
    day.service_charges += revenue
    day.gross += revenue
    day.net += revenue
    if back:
        day.returns += revenue


def add(day: DayTruth, one: Counted, owner: Merchant, given_back: set[tuple[DayKey, str]]) -> None:
    """Add a part of an order to a day; `given_back` knows of which orders something has come back already."""
    if one.what == "malformed":
        day.malformed += 1
    elif one.what == "void":
        day.voids += 1
    elif one.what == "open":
        day.open_orders += 1
    elif one.what == "sale":
        day.orders += bool(one.sale.lines)
        _add_sold(day, price(one.parts[0]), owner, paid=one.sale.is_paid)
        for tender in price(one.sale).tenders:
            day.tenders[tender.type] += tender.amount
    elif one.what == "edit":
        before, after = one.parts
        _add_edit(day, price(before), price(after), owner)
    elif one.what == "cancellation":
        _add_cancelled(day, price(one.parts[0]), owner)
    figures = price(one.parts[0]) if one.what in ("sale", "return") else None
    if figures is not None:
        _add_returns(day, figures, owner)
    if (figures is not None and figures.returns) or one.what == "cancellation":
        key = ((day.location_id, day.business_date), one.sale.id)
        day.return_orders += key not in given_back
        given_back.add(key)


def _add_sold(day: DayTruth, figures: Priced, owner: Merchant, *, paid: bool) -> None:
    for line in figures.lines:
        _add_goods(day, owner, line, 1, back=False)
    for charge in figures.charges:
        _add_charge(day, owner, charge, 1, back=False)
    rounding = figures.rounding if paid else 0  # cash that was not paid is not rounded
    day.tips += figures.tip
    day.rounding += rounding
    day.total += figures.total - figures.rounding + rounding


def _add_edit(day: DayTruth, before: Priced, after: Priced, owner: Merchant) -> None:
    """Add what an edit changed: lines that it did not touch are none of the date's."""
    for line in (new for old, new in zip(before.lines, after.lines, strict=True) if old != new):
        _add_goods(day, owner, line, 1, back=False)
    for line in (old for old, new in zip(before.lines, after.lines, strict=True) if old != new):
        _add_goods(day, owner, line, -1, back=False)
        day.lines -= 1
    for sign, figures in ((-1, before), (1, after)):
        for charge in figures.charges:
            _add_charge(day, owner, charge, sign, back=False)
        day.tips += sign * figures.tip
        day.rounding += sign * figures.rounding
        day.total += sign * figures.total


def _add_cancelled(day: DayTruth, figures: Priced, owner: Merchant) -> None:
    """Take everything back that was ordered; nobody paid for it."""
    for line in figures.lines:
        _add_goods(day, owner, line, -1, back=True)
    for charge in figures.charges:
        _add_charge(day, owner, charge, -1, back=True)
    day.tips -= figures.tip
    day.total -= figures.total - figures.rounding


def _add_returns(day: DayTruth, figures: Priced, owner: Merchant) -> None:
    for back in figures.returns:
        for _, line in back.lines:
            # What names no goods takes no units back, where a refund is but an amount on the order.
            units = not owner.refunds_on_source or back.returned.itemised
            _add_goods(day, owner, line, -1, back=True, units=units)
        for _, charge in back.charges:
            _add_charge(day, owner, charge, -1, back=True)
        day.tips -= back.tip
        day.rounding -= back.rounding
        day.total -= back.total
    if figures.refund:
        day.tenders["REFUND"] -= figures.refund


class Span(NamedTuple):
    """The business dates asked for, at one store, as UTC milliseconds with both ends included."""

    owner: Merchant
    location: Location
    calendar: BusinessCalendar
    low: int
    high: int

    def date_of(self, at: int) -> date:
        """Return the business date of an instant."""
        return self.calendar.date_of(datetime.fromtimestamp(at / 1000, UTC))


class Asked(TypedDict, total=False):
    """What the truth is asked for: everything, unless something is said. Dates are inclusive."""

    merchant: str | None
    location_ids: Iterable[str] | None
    first: date | None
    last: date | None
    cutoff_hour: int | None


def spans(
    world: World,
    merchant: str | None = None,
    location_ids: Iterable[str] | None = None,
    first: date | None = None,
    last: date | None = None,
    cutoff_hour: int | None = None,
) -> Iterator[Span]:
    """Yield what is asked for, store by store; dates are inclusive.

    Business dates end at `cutoff_hour`; by default at each merchant's own.
    """
    wanted = set(location_ids) if location_ids is not None else set(world.locations)
    for owner in [world.merchant(merchant)] if merchant else list(world.merchants.values()):
        for location in owner.locations:
            if location.id in wanted:
                calendar = BusinessCalendar(
                    location.timezone, owner.cutoff_hour if cutoff_hour is None else cutoff_hour
                )
                low = int(calendar.start(first).timestamp() * 1000) if first else -(2**62)
                high = int(calendar.window(last)[1].timestamp() * 1000) - 1 if last else 2**62
                yield Span(owner, location, calendar, low, high)


def truth(world: World, **asked: Unpack[Asked]) -> list[DayTruth]:
    """Return the truth about each store and business date, in order; see `spans` for what can be asked."""
    days: dict[DayKey, DayTruth] = {}
    given_back: set[tuple[DayKey, str]] = set()
    for span in spans(world, **asked):
        for one in world.counting(span.location.id, span.low, span.high):
            key = (span.location.id, span.date_of(one.at))
            if key not in days:
                days[key] = DayTruth(span.owner.id, *key, span.location.currency)
            add(days[key], one, span.owner, given_back)
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
