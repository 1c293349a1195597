"""The past where refunds stay on the order that was sold: restaurants and web shops.

Returns are no orders of their own here; they change the order that was sold, days later. Tills are tried out now and then,
orders are merged away, buyers of some web orders see another currency.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import accumulate
from random import Random

from flux_sandbox.history import HOUR, MINUTE, StoreHistory, discounts, line_of, local_ms, pick
from flux_sandbox.ids import guid, number
from flux_sandbox.model import (
    Charge,
    Chosen,
    Discount,
    Item,
    Line,
    Location,
    Merchant,
    Modifier,
    Payment,
    Returned,
    Sale,
)
from flux_sandbox.pricing import price
from flux_sandbox.shapes import cancel_later, leave_unpaid

_RECENT = 60  # orders that may still come back
_COVERS = tuple(accumulate((18, 32, 24, 14, 8, 4)))
_ITEMS = tuple(accumulate((58, 27, 10, 5)))
_TABLE_TENDERS = (("CARD", "CASH", "GIFT", "OTHER", "SPLIT"), tuple(accumulate((72, 12, 4, 4, 8))))
_WEB_TENDERS = (("CARD", "OTHER", "GIFT"), tuple(accumulate((84, 11, 5))))
_POS_TENDERS = (("CARD", "CASH", "GIFT"), tuple(accumulate((76, 20, 4))))
_TIPS = (150_000, 180_000, 200_000, 220_000)
#: What buyers abroad see, and how many millionths of it one of the shop's currency is.
_ABROAD = (("SEK", 11_245_300), ("USD", 1_087_650))


class KeptHistory(StoreHistory, ABC):
    """Makes the sales of one store whose provider keeps refunds on the order that was sold."""

    refunds = 0.03
    whole_lines = False  # whether only whole lines come back

    def __init__(self, seed: int, merchant: Merchant, location: Location) -> None:
        super().__init__(seed, merchant, location)
        self.merchant = merchant

    def new_id(self, what: str, day: date) -> str:
        """Return the next id."""
        self.serial += 1
        make = guid if self.merchant.id_style == "guid" else number
        return make(self.seed, what, self.location.id, day, self.serial)

    def day(self, day: date, last_ms: int, *, still_open: bool) -> list[Sale]:
        """Return the orders and returns of one business day; nothing is updated after `last_ms`."""
        rng = Random(f"{self.seed}|kept|{self.location.id}|{day}")  # noqa: S311
        starts = self._starts(rng, day)
        picks = self._picks(rng, day, len(starts))
        sales: list[Sale] = []
        returned = list(self.recent)
        for created in starts:
            chance = rng.random()
            if chance < self.refunds and (back := self._back(rng, created, returned, day, last_ms)):
                sales.append(back)
            sale = self.order(rng, created, picks, day, may_stay_open=still_open)
            if sale.closed is not None and sale.closed > max(last_ms, created + 3 * HOUR):
                _leave_open(sale, created + rng.randrange(MINUTE))
            self._later(rng, sale, last_ms)
            sales.append(sale)
        shaping = Random(f"{self.seed}|unpaid|{self.location.id}|{day}")  # noqa: S311
        leave_unpaid(shaping, sales)
        if self.merchant.counts_when == "placed":
            cancel_later(shaping, sales, last_ms)
        good = [sale for sale in sales if sale.state == "COMPLETED" and not sale.test and not sale.returns]
        self.recent = (returned + good)[-_RECENT:]
        sales += self._long_after(day, starts, last_ms)
        return sales

    def _weeks_later(self, rng: Random, source: Sale, at: int, day: date, last_ms: int) -> Sale | None:
        return self._back(rng, at, [source], day, last_ms)

    @abstractmethod
    def order(self, rng: Random, created: int, picks: Iterator[Item], day: date, *, may_stay_open: bool) -> Sale:
        """Return one order that was begun at `created`."""

    def _back(self, rng: Random, at: int, returned: list[Sale], day: date, last_ms: int) -> Sale | None:
        """Return a refund made at an instant: of everything, of a line, or of money alone."""
        if not returned:
            return None
        source = returned.pop(rng.randrange(len(returned)))
        figures = price(source)
        goods = [i for i, line in enumerate(source.lines) if line.kind != "GIFT_CARD" and figures.lines[i].total]
        at = max(at, (source.closed or source.created) + MINUTE)
        if not goods or at > last_ms:
            return None
        kind = rng.random()
        if kind < 0.4:
            parts = tuple((i, line.quantity) for i, line in enumerate(source.lines))
            one = Returned(source, parts, tip_back=True, charges_back=True, reason="Everything came back")
        elif kind < 0.85:
            index = rng.choice(goods)
            line = source.lines[index]
            quantity = line.quantity if self.whole_lines or line.precision else rng.randint(1, line.quantity)
            one = Returned(source, ((index, quantity),), reason="Not as ordered")
        else:
            most = sum(figures.lines[i].total for i in goods)
            money = Line("CUSTOM_AMOUNT", None, "", 1, max(1, most // rng.randrange(2, 5)), tax_class="none")
            one = Returned(source, lines=(money,), reason="Goodwill", itemised=False)
        source.updated = max(source.updated, at)
        return Sale(self.new_id("refund", day), self.location, at, at, at, returns=(one,), source=source.source)

    def _pay(
        self,
        rng: Random,
        tenders: tuple[tuple[str, ...], tuple[int, ...]],
    ) -> tuple[Payment, ...]:
        names, weights = tenders
        kind = pick(rng, names, weights)
        if kind == "GIFT":
            return (Payment("GIFT_CARD", rng.randrange(5, 40) * 100), Payment("CARD"))
        if kind == "SPLIT":
            first = "CARD" if rng.random() < 0.6 else "CASH"
            return (Payment(first, rng.randrange(800, 3000)), Payment("CARD"))
        return (Payment(kind),)


class RestaurantHistory(KeptHistory):
    """A restaurant: tables, gratuities, a close-out in the night that touches many orders once more."""

    refunds = 0.028
    whole_lines = True  # what came back is noted on the line, without a quantity

    def __init__(self, seed: int, merchant: Merchant, location: Location) -> None:
        super().__init__(seed, merchant, location)
        self._choices = {
            item.id: ([m for m in item.modifiers if m.required], [m for m in item.modifiers if not m.required])
            for item in merchant.items
        }

    def _dish(self, rng: Random, item: Item) -> Line:
        return _dish(rng, item, *self._choices[item.id])

    def order(self, rng: Random, created: int, picks: Iterator[Item], day: date, *, may_stay_open: bool) -> Sale:
        """Return one order."""
        id_, chance = self.new_id("order", day), rng.random()
        online = rng.random() < 0.15
        closed = created + rng.randrange(8 * MINUTE, (35 if online else 95) * MINUTE)
        if chance < 0.006:
            # Its checks were moved to another order: what is left is empty, and marked deleted.
            gone = Sale(id_, self.location, created, closed, closed, "CANCELED", source=self.merchant.counter)
            gone.deleted = True
            return gone
        lines = [self._dish(rng, next(picks)) for _ in range(1 + bisect_right(_COVERS, rng.random() * 100))]
        extra = rng.random()
        if extra < 0.02:
            lines.append(Line("CUSTOM_AMOUNT", None, "Chef's special", 1, rng.randrange(12, 48) * 100))
        elif extra < 0.035:
            amount = rng.choice((2500, 5000, 10_000))
            lines.append(Line("GIFT_CARD", None, "Gift Card", 1, amount, tax_class="none"))
        charges = []
        party = len(lines) >= 5 and not online
        if party:
            charges.append(Charge("Party gratuity", percent="18", rate=180_000, auto_gratuity=True))
        if online:
            charges.append(Charge("Delivery fee", amount=499))
        if self.location.region == "CA":
            charges.append(Charge("SF Mandates", percent="4", rate=40_000, taxable=True))
        payments = self._pay(rng, _TABLE_TENDERS)
        tipped = not party and payments[-1].type == "CARD" and rng.random() < 0.62
        sale = Sale(
            id_,
            self.location,
            created,
            closed + rng.randrange(20_000),
            closed,
            "CANCELED" if 0.01 <= chance < 0.028 else "COMPLETED",
            lines=tuple(lines),
            discounts=discounts(rng, lines, 100, small=False),
            charges=tuple(charges),
            payments=payments,
            tip_rate=rng.choice(_TIPS) if tipped else 0,
            source=self.merchant.online if online else self.merchant.counter,
            ticket=f"{self.serial % 1000}",
            test=0.006 <= chance < 0.01,
        )
        if may_stay_open and chance > 0.97:
            _leave_open(sale, created + rng.randrange(5 * MINUTE))
        elif sale.state == "CANCELED":
            sale.tip_rate = 0
        elif rng.random() < 0.3:
            zone = self.location.timezone
            sale.updated = local_ms(day + timedelta(days=1), self.merchant.cutoff_hour, zone) + rng.randrange(MINUTE)
        return sale


class ShopHistory(KeptHistory):
    """A web shop's location: what it sends, or what its counter sells."""

    refunds = 0.045

    def order(self, rng: Random, created: int, picks: Iterator[Item], day: date, *, may_stay_open: bool) -> Sale:
        """Return one order."""
        id_, chance = self.new_id("order", day), rng.random()
        web = self.location is self.merchant.locations[0]
        wanted = {next(picks).id: 0 for _ in range(1 + bisect_right(_ITEMS, rng.random() * 100))}
        lines = [_goods(rng, item) for item in self.items if item.id in wanted]
        if rng.random() < 0.02:
            lines.append(Line("GIFT_CARD", None, "Gift Card", 1, rng.choice((2500, 5000)), tax_class="none"))
        charges: tuple[Charge, ...] = ()
        if web:
            euro = self.currency == "EUR"
            fee = (590 if euro else 695) if rng.random() < 0.8 else (1290 if euro else 1495)
            charges = (Charge("Standard" if fee < 1000 else "Express", amount=fee, taxable=euro),)
        payments = self._pay(rng, _WEB_TENDERS if web else _POS_TENDERS)
        # Some wait until the goods are sent; the others are paid at once.
        closed = created + (
            rng.randrange(2_000, 40_000) if not web or chance < 0.8 else rng.randrange(3 * HOUR, 30 * HOUR)
        )
        abroad = web and self.currency == "EUR" and rng.random() < 0.3
        cancelled = 0.01 <= chance < 0.026
        sale = Sale(
            id_,
            self.location,
            created,
            closed + rng.randrange(5_000),
            closed,
            "CANCELED" if cancelled else "COMPLETED",
            lines=tuple(lines),
            discounts=_codes(rng, lines),
            charges=charges,
            payments=payments,
            tip_rate=100_000 if not web and not cancelled and payments[-1].type == "CARD" and rng.random() < 0.2 else 0,
            source=self.merchant.online if web else self.merchant.counter,
            ticket=f"#{day:%j}{self.serial % 10_000:04d}",
            presentment=rng.choice(_ABROAD) if abroad else None,
            test=chance < 0.008,
        )
        if may_stay_open and chance > 0.95:
            _leave_open(sale, created + rng.randrange(MINUTE))
        return sale


def _leave_open(sale: Sale, updated: int) -> None:
    sale.state, sale.closed, sale.tip_rate, sale.updated = "OPEN", None, 0, updated


def _dish(rng: Random, item: Item, sizes: Sequence[Modifier], extras: Sequence[Modifier]) -> Line:
    """Return a line with its size and perhaps extras; a double extra is one chosen twice."""
    if item.unit:
        return line_of(rng, item)
    chosen = [Chosen(rng.choice(sizes), 1)] if sizes else []
    if extras and rng.random() < 0.4:
        chosen.append(Chosen(rng.choice(extras), 2 if rng.random() < 0.12 else 1))
    chance = rng.random()
    quantity = 1 if chance < 0.82 else 2 if chance < 0.96 else 4
    return Line("ITEM", item, item.name, quantity, item.price, 0, tuple(chosen), item.tax_class)


def _goods(rng: Random, item: Item) -> Line:
    chance = rng.random()
    quantity = 1 if chance < 0.78 else 2 if chance < 0.94 else 3
    return Line("ITEM", item, item.name, quantity, item.price, tax_class=item.tax_class)


def _codes(rng: Random, lines: list[Line]) -> tuple[Discount, ...]:
    chance = rng.random()
    if chance < 0.10:
        return (Discount("WELCOME10", "10", 100_000),)
    if chance < 0.15:
        return (Discount("FIVER", amount=500),)
    if chance < 0.20:
        return (Discount("Last season", "20", 200_000, line=rng.randrange(sum(x.kind == "ITEM" for x in lines))),)
    return ()
