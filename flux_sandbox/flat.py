"""What is on an order as one list, for providers that show it so: goods, charges, the tip, rounding, and what came back of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from flux_sandbox.model import Item, PricedCharge, PricedLine, Sale
from flux_sandbox.pricing import price

Type = Literal["ITEM", "CUSTOM_AMOUNT", "GIFT_CARD", "SERVICE_CHARGE", "TIP", "ROUNDING"]


class Entry(NamedTuple):
    """One thing on an order, in positive minor units; `total` is what it adds to the order's, or takes off it (`back`).

    `quantity` is a decimal text; `source` is the order that was sold, of what came back and is of one.
    """

    id: str
    type: Type
    name: str
    gross: int
    total: int
    tax: int = 0
    discount: int = 0
    quantity: str = "0"
    price: int = 0
    item: Item | None = None
    back: bool = False
    source: str | None = None


def entries(sale: Sale) -> list[Entry]:
    """Return everything that is on a sale."""
    priced = price(sale)
    found = [*_entries("", priced.lines, [*enumerate(priced.charges)], priced.tip, priced.rounding)]
    for n, back in enumerate(priced.returns):
        source = back.returned.source.id if back.returned.source else None
        returned = _entries(f"{n}-", [line for _, line in back.lines], back.charges, back.tip, back.rounding)
        found += [one._replace(back=True, source=source) for one in returned]
    return found


def _entries(
    prefix: str, lines: Sequence[PricedLine], charges: Sequence[tuple[int, PricedCharge]], tip: int, rounding: int
) -> Iterator[Entry]:
    for n, one in enumerate(lines):
        yield Entry(
            f"{prefix}l{n}",
            one.line.kind,
            one.line.name,
            one.gross,
            one.gross - one.discount + one.tax,
            one.tax,
            one.discount,
            f"{Decimal(one.quantity).scaleb(-one.line.precision):f}",
            one.line.unit_price,
            one.line.item,
        )
    for n, charge in charges:
        # One that is spread over the lines is told apart from them here, so that each amount stands once.
        spread = sum(amount for line in lines for which, amount in line.spread if which == n)
        total, tax = (spread, 0) if charge.charge.apportioned else (charge.total, charge.tax)
        yield Entry(f"{prefix}c{n}", "SERVICE_CHARGE", charge.charge.name, total - tax, total, tax)
    if tip:
        yield Entry(f"{prefix}tip", "TIP", "Tip", tip, tip)
    if rounding:
        yield Entry(f"{prefix}rounding", "ROUNDING", "Rounding", rounding, rounding)
