"""The orders that every contender loads: Square orders of about 3 KB, three lines on average, as bytes ready to send.

An order is a head of fixed width (ids, place, times) followed by one of `TAILS` different tails (lines, discounts,
taxes, totals). Any number of orders can so be served from little memory, each with its own id and its own instant, and
a window of time that is contiguous is one slice of one buffer.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

#: How many different tails there are. They repeat 60 MB apart, far beyond zstd's window: nothing compresses better.
TAILS = 20_000
#: Up to this many orders are held as one buffer of ready bytes; beyond it a page is put together when it is asked for.
HELD = 200_000
TIMEZONE = "America/New_York"
CURRENCY = "USD"
MERCHANT = "MBENCH0000001"
#: An order closes, and is last changed, this long after it was made.
CLOSED_AFTER_MS = 42_000
UPDATED_AFTER_MS = 43_000

_MENU = [
    (f"{size} {name}", f"V{n:02d}{s}XKQZ7BPLMR4TWHY2", price + 150 * s)
    for n, (name, price) in enumerate(
        [
            ("Margherita", 1150), ("Diavola", 1325), ("Quattro Formaggi", 1450), ("Funghi e Tartufo", 1625),
            ("House Salad", 875), ("Garlic Knots", 625), ("Tiramisu", 795), ("Cold Brew", 450),
            ("San Pellegrino", 375), ("Calzone Classico", 1395),
        ]
    )
    for s, size in enumerate(("Small", "Regular", "Large"))
]  # fmt: skip
_MODIFIERS = [("Extra cheese", 200), ("No onions", 0), ("Gluten-free crust", 350), ("Chilli oil", 75)]
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def _money(amount: int) -> dict[str, object]:
    return {"amount": amount, "currency": CURRENCY}


def _uid(source: random.Random) -> str:
    return "".join(source.choices(_ALPHABET, k=22))


def _tail(source: random.Random) -> tuple[bytes, int, int]:
    """Return everything after an order's head, its number of lines and its total in cents."""
    tax_uid, discount_uid = _uid(source), _uid(source)
    discounted = source.random() < 0.15
    lines, discount_sum, tax_sum, total_sum = [], 0, 0, 0
    for _ in range(source.choices((1, 2, 3, 4, 5), weights=(12, 24, 30, 20, 14))[0]):
        name, variation, price = source.choice(_MENU)
        quantity = source.choices((1, 2, 3), weights=(80, 15, 5))[0]
        modifiers = []
        gross = price * quantity
        if source.random() < 0.12:
            label, extra = source.choice(_MODIFIERS)
            gross += extra * quantity
            modifiers.append(
                {
                    "uid": _uid(source),
                    "catalog_object_id": "MOD" + variation[3:],
                    "name": label,
                    "quantity": "1",
                    "base_price_money": _money(extra),
                    "total_price_money": _money(extra * quantity),
                }
            )
        discount = round(gross / 10) if discounted else 0
        tax = round((gross - discount) * 8875 / 100_000)
        total = gross - discount + tax
        line: dict[str, object] = {
            "uid": _uid(source),
            "catalog_object_id": variation,
            "quantity": str(quantity),
            "name": name.partition(" ")[2],
            "variation_name": name.partition(" ")[0],
            "item_type": "ITEM",
            "base_price_money": _money(price),
            "variation_total_price_money": _money(price * quantity),
            "gross_sales_money": _money(gross),
            "total_discount_money": _money(discount),
            "total_tax_money": _money(tax),
            "total_money": _money(total),
            "applied_taxes": [{"uid": _uid(source), "tax_uid": tax_uid, "applied_money": _money(tax)}],
        }
        if modifiers:
            line["modifiers"] = modifiers
        if discounted:
            line["applied_discounts"] = [
                {"uid": _uid(source), "discount_uid": discount_uid, "applied_money": _money(discount)}
            ]
        lines.append(line)
        discount_sum, tax_sum, total_sum = discount_sum + discount, tax_sum + tax, total_sum + total
    paid_by_card = source.random() < 0.75
    tip = round(total_sum * source.choice((0, 15, 18, 20)) / 100) if paid_by_card else 0
    total_sum += tip
    # The head ends inside the only tender, after its ids and its time.
    tender: dict[str, object] = {"amount_money": _money(total_sum), "tip_money": _money(tip)}
    if paid_by_card:
        tender |= {
            "type": "CARD",
            "card_details": {
                "status": "CAPTURED",
                "card": {
                    "card_brand": source.choice(("VISA", "MASTERCARD", "AMERICAN_EXPRESS")),
                    "last_4": f"{source.randrange(10_000):04d}",
                    "fingerprint": "sq-1-" + _uid(source),
                },
                "entry_method": "EMV",
            },
        }
    else:
        tender |= {
            "type": "CASH",
            "cash_details": {"buyer_tendered_money": _money(total_sum), "change_back_money": _money(0)},
        }
    amounts = {
        "total_money": _money(total_sum),
        "tax_money": _money(tax_sum),
        "discount_money": _money(discount_sum),
        "tip_money": _money(tip),
    }
    rest: dict[str, object] = {
        "source": {"name": "Square Point of Sale"},
        "customer_id": "C" + _uid(source),
        "ticket_name": f"Table {source.randrange(1, 40)}",
        "line_items": lines,
        "taxes": [
            {
                "uid": tax_uid,
                "catalog_object_id": "TAX7BPLMR4TWHY2DN6CGJ",
                "name": "Sales tax",
                "type": "ADDITIVE",
                "percentage": "8.875",
                "scope": "ORDER",
                "applied_money": _money(tax_sum),
            }
        ],
        "total_money": amounts["total_money"],
        "total_tax_money": amounts["tax_money"],
        "total_discount_money": amounts["discount_money"],
        "total_tip_money": amounts["tip_money"],
        "net_amounts": amounts,
    }
    if discounted:
        rest["discounts"] = [
            {
                "uid": discount_uid,
                "name": "Regulars",
                "percentage": "10",
                "type": "FIXED_PERCENTAGE",
                "scope": "ORDER",
                "applied_money": _money(discount_sum),
            }
        ]
    written = b"," + msgspec.json.encode(tender)[1:] + b"]," + msgspec.json.encode(rest)[1:]
    return written, len(lines), total_sum


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


@dataclass(frozen=True)
class Orders:
    """`count` orders, evenly over `days` business dates from `first_day` (07:00 to 23:00) and over the locations.

    Order `i` is the `i`-th oldest. `times[i]` is when it was made, in milliseconds since 1970.
    """

    count: int
    days: int
    first_day: date
    locations: tuple[str, ...]
    times: array[int]
    buffer: bytearray  # the first `held` orders, each followed by a comma
    offsets: array[int]
    _tails: Sequence[bytes] = field(repr=False)
    _lines: Sequence[int] = field(repr=False)
    _totals: Sequence[int] = field(repr=False)

    @classmethod
    def make(cls, count: int, *, days: int = 1, first_day: date = date(2026, 2, 2), locations: int = 1) -> Orders:
        """Make the orders; the same arguments give the same bytes."""
        source = random.Random(20260302)
        tails, lines, totals = zip(*(_tail(source) for _ in range(min(count, TAILS))), strict=True)
        zone = ZoneInfo(TIMEZONE)
        times: array[int] = array("q")
        for day in range(days):
            here = count // days + (day < count % days)
            opening = datetime.combine(first_day + timedelta(days=day), time(7), zone)
            first = round(opening.timestamp() * 1000)
            times.extend(first + n * 57_600_000 // here for n in range(here))
        places = tuple(f"LBENCH{n:07d}" for n in range(locations))
        made = cls(count, days, first_day, places, times, bytearray(), array("q"), tails, lines, totals)
        if count <= HELD:
            for i in range(count):
                made.offsets.append(len(made.buffer))
                made.buffer.extend(made._build(i))
                made.buffer.extend(b",")
            made.offsets.append(len(made.buffer))
        return made

    @property
    def lines(self) -> int:
        """How many lines the orders have in all."""
        return sum(self._lines[i % len(self._lines)] for i in range(self.count))

    @property
    def total(self) -> int:
        """What the orders come to in all, tax and tips included, in cents."""
        return sum(self._totals[i % len(self._totals)] for i in range(self.count))

    @property
    def bytes(self) -> int:
        """How many bytes the orders are, as JSON."""
        sizes = [len(tail) for tail in self._tails]
        return sum(sizes[i % len(sizes)] for i in range(self.count)) + self.count * (len(self._build(0)) - sizes[0])

    def index_of(self, order_id: str) -> int | None:
        """Return which order has that id."""
        try:
            index = int(order_id[5:], 16)
        except ValueError:
            return None
        return index if index < self.count and order_id == _order_id(index) else None

    def between(self, start_ms: float, end_ms: float, shift_ms: int) -> tuple[int, int]:
        """Return first and past-last index of the orders with `start <= time + shift <= end`."""
        return bisect_left(self.times, start_ms - shift_ms), bisect_right(self.times, end_ms - shift_ms)

    def of_locations(self, first: int, last: int, wanted: frozenset[str]) -> Iterator[int]:
        """Yield, oldest first, the indices in `[first, last)` of orders of those locations."""
        places = len(self.locations)
        chosen = [place for place in range(places) if self.locations[place] in wanted]
        for start in range(first - first % places, last, places):
            for place in chosen:
                if first <= start + place < last:
                    yield start + place

    def slice(self, first: int, last: int) -> memoryview | bytes:
        """Return the orders `[first, last)`, joined by commas."""
        if first >= last:
            return b""
        if self.offsets:
            return memoryview(self.buffer)[self.offsets[first] : self.offsets[last] - 1]
        return b",".join(self._build(i) for i in range(first, last))

    def joined(self, indices: Sequence[int]) -> memoryview | bytes:
        """Return those orders, joined by commas."""
        if indices and indices[-1] - indices[0] == len(indices) - 1:
            return self.slice(indices[0], indices[-1] + 1)
        return b",".join(self.slice(i, i + 1) for i in indices)

    def _build(self, i: int) -> bytes:
        order_id, place = _order_id(i), self.locations[i % len(self.locations)]
        made = self.times[i]
        created, closed = _instant(made), _instant(made + CLOSED_AFTER_MS)
        head = (
            f'{{"id":"{order_id}","location_id":"{place}","created_at":"{created}",'
            f'"updated_at":"{_instant(made + UPDATED_AFTER_MS)}","closed_at":"{closed}","state":"COMPLETED","version":4,'
            f'"tenders":[{{"id":"P{order_id}","location_id":"{place}","transaction_id":"{order_id}","created_at":"{closed}"'
        )
        return head.encode() + self._tails[i % len(self._tails)]


def _order_id(i: int) -> str:
    return f"BENCH{i:022X}"
