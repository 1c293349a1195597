"""The seeded past: what each store sold, day by day, with weekday, season and weather-like noise that can be forecast.

Every day of every store has its own random stream, so that a day is the same whatever else is asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import accumulate
from random import Random
from zoneinfo import ZoneInfo

from flux_sandbox.ids import token
from flux_sandbox.model import (
    Charge,
    Chosen,
    Discount,
    Item,
    Line,
    Location,
    Merchant,
    Payment,
    Returned,
    Sale,
    State,
)
from flux_sandbox.pricing import price
from flux_sandbox.shapes import pay_apart

HOUR = 3_600_000
MINUTE = 60_000
CLOSED_DOWN_DAYS = 30  # an inactive store sold nothing in the last days of history

_WEEKDAYS = (0.86, 0.90, 0.95, 1.00, 1.16, 1.28, 1.08)
_LEANINGS = {"Bakery": 5, "Kitchen": 6, "Leivonnaiset": 5, "デザート": 6, "Retail": 5, "Baari": 4}
_LINES = tuple(accumulate((46, 30, 14, 7, 3)))
_SLOT = 10 * MINUTE
_KEPT = 20  # days for which an order is kept before it comes back

# US card and cash habits differ from Japan's and Finland's.
_TENDERS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "USD": (("CARD", "CASH", "WALLET", "OTHER", "GIFT", "SPLIT"), tuple(accumulate((66, 16, 9, 3, 4, 2)))),
    "JPY": (("CARD", "CASH", "WALLET", "OTHER", "GIFT", "SPLIT"), tuple(accumulate((30, 44, 12, 11, 2, 1)))),
    "EUR": (("CARD", "CASH", "WALLET", "OTHER", "GIFT", "SPLIT"), tuple(accumulate((74, 14, 8, 1, 2, 1)))),
}
_TIPS = (150_000, 180_000, 200_000, 250_000)
# What is round in a currency: a small note, in minor units.
_UNIT = {"USD": 100, "JPY": 100, "EUR": 100}


def local_ms(day: date, hour: float, zone: str) -> int:
    """Return the UTC millisecond of a local wall time; an hour of 24 or more is the next day's."""
    whole = datetime.combine(day, time(), ZoneInfo(zone))
    wall = whole.replace(tzinfo=None) + timedelta(hours=hour)
    return round(wall.replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def pick(rng: Random, names: Sequence[str], weights: Sequence[int]) -> str:
    """Return one of the names by cumulative weights, as `Random.choices` does, at a third of its time."""
    return names[bisect_right(weights, rng.random() * weights[-1], 0, len(names) - 1)]


class StoreHistory:
    """Makes the sales of one store."""

    def __init__(self, seed: int, merchant: Merchant, location: Location) -> None:
        self.seed = seed
        self.location = location
        self.currency = location.currency
        taste = Random(f"{seed}|taste|{location.id}")  # noqa: S311
        self.items = merchant.items
        self.counter = merchant.counter
        self.weights: list[list[float]] = []
        base = [0.25 + taste.random() ** 2 * 2.0 for _ in self.items]
        for weekday in range(7):
            row = []
            for item, weight in zip(self.items, base, strict=True):
                leaning = _LEANINGS.get(item.category)
                lift = 1.0 + (0.5 if leaning is not None and weekday >= leaning else 0.0)
                row.append(weight * lift * (0.25 if item.unit else 1.0))
            self.weights.append(list(accumulate(row)))
        slots = int(location.hours * HOUR / _SLOT)
        shape = []
        for slot in range(slots):
            hour = (location.opens + slot * _SLOT / HOUR) % 24
            morning = math.exp(-(((hour - 8.5) / 1.8) ** 2))
            noon = 0.8 * math.exp(-(((hour - 12.7) / 1.5) ** 2))
            evening = 0.5 * math.exp(-(((hour - 19.0) / 3.0) ** 2))
            shape.append(0.08 + morning + noon + evening)
        self.slots = range(slots)
        self.shape = list(accumulate(shape))
        self.recent: list[Sale] = []
        self.kept: list[Sale] = []  # for what comes back weeks later
        self.serial = 0

    def day(self, day: date, last_ms: int, *, still_open: bool) -> list[Sale]:
        """Return the orders of one business day, oldest first; nothing is updated after `last_ms`."""
        rng = Random(f"{self.seed}|{self.location.id}|{day}")  # noqa: S311
        starts = self._starts(rng, day)
        picks = self._picks(rng, day, len(starts))
        sales: list[Sale] = []
        returned = list(self.recent)
        for created in starts:
            self.serial += 1
            id_ = token(self.seed, self.location.id, day, self.serial)
            chance = rng.random()
            sale: Sale | None = None
            if chance < 0.022 and returned:
                sale = self._return(rng, id_, created, returned)
            elif chance < 0.025:
                sale = self._unlinked(rng, id_, created, next(picks))
            elif chance < 0.029:
                # The drawer was opened without a sale: the point of sale records an order with nothing on it.
                payments = (Payment("NO_SALE"),)
                sale = Sale(id_, self.location, created, created, created, payments=payments, source=self.counter)
            if sale is None:
                exchange = chance > 0.997 and bool(returned)
                sale = self._sale(rng, id_, created, picks, returned if exchange else None)
                if still_open and chance > 0.985 and not exchange:
                    sale.state, sale.closed, sale.tip_rate = "OPEN", None, 0
                    sale.updated = created + rng.randrange(5 * MINUTE)
            self._later(rng, sale, last_ms)
            sales.append(sale)
        pay_apart(Random(f"{self.seed}|apart|{self.location.id}|{day}"), sales, last_ms)  # noqa: S311
        self.recent = (returned + [sale for sale in sales if _returnable(sale)])[-150:]
        sales += self._long_after(day, starts, last_ms)
        return sales

    def _long_after(self, day: date, starts: Sequence[int], last_ms: int) -> list[Sale]:
        """Return what comes back weeks after it was sold; every day keeps an order for it."""
        rng = Random(f"{self.seed}|weeks|{self.location.id}|{day}")  # noqa: S311
        if self.recent:
            self.kept.append(self.recent.pop(rng.randrange(len(self.recent))))
        if len(self.kept) < _KEPT or rng.random() > 0.4:
            return []
        at = starts[rng.randrange(len(starts))]
        back = self._weeks_later(rng, self.kept.pop(0), at, day, last_ms)
        return [back] if back is not None else []

    def _weeks_later(self, rng: Random, source: Sale, at: int, day: date, last_ms: int) -> Sale | None:
        """Return the return of an order of weeks ago."""
        one = _give_back(rng, [source], whole=rng.random() < 0.5)
        closed = at + 30_000
        if one is None or closed > last_ms:
            return None
        id_ = token(self.seed, self.location.id, day, "weeks")
        return Sale(id_, self.location, at, closed, closed, returns=(one,), source=self.counter)

    def _starts(self, rng: Random, day: date) -> list[int]:
        """Return when the day's orders begin, oldest first: a matter of weekday, season and chance."""
        season = 1.0 + 0.10 * math.sin(2 * math.pi * (day.timetuple().tm_yday - 30) / 365.25)
        expected = self.location.busy * _WEEKDAYS[day.weekday()] * season
        count = max(3, round(rng.gauss(expected, math.sqrt(expected))))
        opening = local_ms(day, self.location.opens, self.location.timezone)
        # A store that never closes trades the day's real length: 23, 24 or 25 hours.
        closing = local_ms(day, self.location.opens + self.location.hours, self.location.timezone)
        stretch = (closing - opening) / (len(self.slots) * _SLOT)
        return sorted(
            opening + int((slot * _SLOT + rng.randrange(_SLOT)) * stretch)
            for slot in rng.choices(self.slots, cum_weights=self.shape, k=count)
        )

    def _picks(self, rng: Random, day: date, count: int) -> Iterator[Item]:
        """Return the items that people ask for, more than `count` orders need."""
        return iter(rng.choices(self.items, cum_weights=self.weights[day.weekday()], k=count * 6))

    def _later(self, rng: Random, sale: Sale, last_ms: int) -> None:
        """Make some orders arrive late (offline tills, up to 72 hours) or be edited afterwards."""
        if sale.state == "OPEN":
            return
        chance = rng.random()
        if chance < 0.012:
            sale.updated = sale.arrived = sale.created + int(rng.uniform(0.5, 72.0) * HOUR)
        elif chance < 0.024:
            sale.updated += int(rng.uniform(0.5, 96.0) * HOUR)
            sale.version += bool(sale.version)
        floor = sale.closed if sale.closed is not None else sale.created
        sale.updated = max(floor, min(sale.updated, last_ms))
        if sale.arrived is not None:
            sale.arrived = sale.updated

    def _sale(self, rng: Random, id_: str, created: int, picks: Iterator[Item], returned: list[Sale] | None) -> Sale:
        unit = _UNIT[self.currency]
        small = self.currency == "JPY"
        lines = []
        for _ in range(1 + bisect_right(_LINES, rng.random() * 100)):
            lines.append(line_of(rng, next(picks)))
        extra = rng.random()
        if extra < 0.03:
            amount = rng.randrange(3, 40) * (50 if not small else 100)
            lines.append(Line("CUSTOM_AMOUNT", None, "" if extra < 0.02 else "Catering", 1, amount))
        elif extra < 0.045:
            amount = (25 if extra < 0.04 else 50) * unit
            name = "eGift Card" if extra < 0.035 else "Gift Card"
            lines.append(Line("GIFT_CARD", None, name, 1, amount * (2 if small else 1), tax_class="none"))
        state: State = "CANCELED" if rng.random() < 0.02 else "COMPLETED"
        online = rng.random() < 0.12
        stay = rng.randrange(20_000, 25 * MINUTE) if not online else rng.randrange(15 * MINUTE, 70 * MINUTE)
        if "Late" in self.location.name:
            stay *= 4
        closed = created + stay
        source = ("Harbor Online", "DoorDash")[rng.random() < 0.3] if self.currency == "USD" else "Verkkokauppa"
        charges = self._charges(rng, len(lines), online)
        payments, tip_rate = self._payments(rng, gratuity=any(c.auto_gratuity for c in charges))
        back: tuple[Returned, ...] = ()
        if returned is not None and (one := _give_back(rng, returned, whole=False)) is not None:
            back, tip_rate, state = (one,), 0, "COMPLETED"
        return Sale(
            id_,
            self.location,
            created,
            closed + rng.randrange(12_000),
            closed,
            state,
            lines=tuple(lines),
            discounts=discounts(rng, lines, unit, small=small),
            charges=charges,
            payments=payments,
            returns=back,
            tip_rate=tip_rate if state == "COMPLETED" else 0,
            source=source if online and not small else self.counter,
            ticket=f"#{self.serial % 1000}" if rng.random() < 0.3 else "",
            version=rng.randrange(2, 6) if online and not small else 0,
        )

    def _charges(self, rng: Random, lines: int, online: bool) -> tuple[Charge, ...]:
        if self.currency == "JPY":
            # お通し: a seating charge whose price includes the tax.
            return (Charge("お通し", amount=300, taxable=True),) if rng.random() < 0.08 else ()
        if self.currency == "EUR":
            return (Charge("Toimitusmaksu", amount=350, after_tax=True),) if online else ()
        charges = []
        if lines >= 4:
            charges.append(
                Charge(
                    "Auto gratuity",
                    percent="18",
                    rate=180_000,
                    auto_gratuity=True,
                    taxable=self.location.region in {"IL", "NY"},
                )
            )
        if online:
            charges.append(Charge("Delivery fee", amount=399, taxable=self.location.region == "WA"))
        if self.location.region == "MA" and rng.random() < 0.25:
            charges.append(Charge("Kitchen fee", percent="3", rate=30_000, apportioned=True))
        if self.location.region == "MD":
            charges.append(Charge("Processing surcharge", percent="1.5", rate=15_000, after_tax=True))
        return tuple(charges)

    def _payments(self, rng: Random, *, gratuity: bool) -> tuple[tuple[Payment, ...], int]:
        names, weights = _TENDERS[self.currency]
        kind = pick(rng, names, weights)
        tip = 0
        if self.currency == "USD" and not gratuity and kind in {"CARD", "WALLET", "GIFT"} and rng.random() < 0.45:
            tip = rng.choice(_TIPS)
        if kind == "GIFT":
            limit = rng.randrange(3, 25) * _UNIT[self.currency]
            return (Payment("GIFT_CARD", limit), Payment("CARD")), tip
        if kind == "SPLIT":
            limit = rng.randrange(200, 900)
            return (Payment("CASH", limit), Payment("CARD")), tip
        return (Payment(kind),), tip

    def _return(self, rng: Random, id_: str, created: int, returned: list[Sale]) -> Sale | None:
        one = _give_back(rng, returned, whole=rng.random() < 0.5)
        if one is None or one.source is None or (one.source.closed or 0) >= created:
            return None
        closed = created + rng.randrange(5_000, 60_000)
        return Sale(id_, self.location, created, closed, closed, returns=(one,), source=self.counter)

    def _unlinked(self, rng: Random, id_: str, created: int, item: Item) -> Sale:
        line = line_of(rng, item)
        closed = created + rng.randrange(5_000, 60_000)
        one = Returned(None, lines=(line,), reason="Returned without a receipt")
        return Sale(id_, self.location, created, closed, closed, returns=(one,), source=self.counter)


def _returnable(sale: Sale) -> bool:
    return sale.state == "COMPLETED" and bool(sale.lines) and not sale.returns


def _give_back(rng: Random, returned: list[Sale], *, whole: bool) -> Returned | None:
    source = returned.pop(rng.randrange(len(returned)))
    goods = [(i, line) for i, line in enumerate(source.lines) if line.kind != "GIFT_CARD"]
    if not goods or price(source).total == 0:
        return None
    if whole:
        if rng.random() < 0.15:
            # A refund of money alone, by the Refunds API: one custom amount, no goods named.
            refund = Line("CUSTOM_AMOUNT", None, "", 1, price(source).total, tax_class="none")
            return Returned(source, lines=(refund,), reason="Goodwill", itemised=False)
        parts = tuple((i, line.quantity) for i, line in enumerate(source.lines))
        return Returned(source, parts, tip_back=True, charges_back=True, reason="Accidental charge")
    index, line = goods[rng.randrange(len(goods))]
    quantity = 1 if line.precision == 0 else line.quantity
    if price(source).lines[index].total == 0:
        return None
    return Returned(source, ((index, quantity),))


def line_of(rng: Random, item: Item) -> Line:
    """Return a line of an item: how many or how much, and with what."""
    modifiers: tuple[Chosen, ...] = ()
    if item.unit:
        precision = 1 if item.unit == "METRIC_GRAM" else 3
        quantity = rng.randrange(300, 2500) if precision == 1 else rng.randrange(120, 1500)
        return Line("ITEM", item, item.name, quantity, item.price, precision, tax_class=item.tax_class)
    if item.modifiers and rng.random() < 0.28:
        chosen = item.modifiers[rng.randrange(len(item.modifiers))]
        modifiers = (Chosen(chosen, 2 if rng.random() < 0.15 else 1),)
        if rng.random() < 0.2 and item.modifiers[0] is not chosen:
            modifiers += (Chosen(item.modifiers[0], 1),)
    chance = rng.random()
    quantity = 1 if chance < 0.85 else 2 if chance < 0.96 else 3
    return Line("ITEM", item, item.name, quantity, item.price, 0, modifiers, item.tax_class)


def discounts(rng: Random, lines: Sequence[Line], unit: int, *, small: bool) -> tuple[Discount, ...]:
    """Return the discounts of one order, none for most; `unit` is what is round in its currency."""
    chance = rng.random()
    if chance > 0.16:
        return ()
    goods = [i for i, line in enumerate(lines) if line.kind == "ITEM"]
    one = goods[rng.randrange(len(goods))]
    amount = 100 if small else unit
    found = []
    if chance < 0.06:
        found.append(Discount("Loyalty 10%", "10", 100_000))
    elif chance < 0.08:
        found.append(Discount("Neighbours 12.5%", "12.5", 125_000))
    elif chance < 0.10:
        found.append(Discount("Happy hour", "33.33", 333_300, line=one))
    elif chance < 0.12:
        found.append(Discount("One off", amount=amount, line=one))
    elif chance < 0.14:
        found.append(Discount("Voucher", amount=3 * amount))
    elif chance < 0.15:
        found.append(Discount("Comp", "100", 1_000_000, line=one))
    else:
        found += [
            Discount("Staff", "25", 250_000),
            Discount("Voucher", amount=amount),
            Discount("Bakery", "5", 50_000, line=one),
        ]
    return tuple(found)


def store_days(store: StoreHistory, end_day: date, days: int, last_ms: int) -> Iterator[list[Sale]]:
    """Yield what a store rang up on each of the `days` business days that end with `end_day`."""
    for back in range(days - 1, -1, -1):
        if not store.location.active and back < CLOSED_DOWN_DAYS:
            return
        yield store.day(end_day - timedelta(days=back), last_ms, still_open=back < 2)


def end_of(location: Location, end_day: date) -> int:
    """Return the last UTC millisecond of a store's history: nothing is updated after it."""
    return local_ms(end_day, 24.0, location.timezone) - 1
