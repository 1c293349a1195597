"""Rare shapes that real merchants' orders have, put upon a store's past after it was made up.

They come from a random stream of their own, so that what was sold stays as it is: only when and how it was paid differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from flux_sandbox.model import Payment, Sale
from flux_sandbox.pricing import price

_HOUR = 3_600_000
_DAY = 24 * _HOUR


def pay_apart(rng: Random, sales: Sequence[Sale], last_ms: int) -> None:
    """Let some orders be paid ahead and stay open, and some be invoices that are paid in instalments, days apart."""
    for sale in sales:
        ahead, billed = rng.random() < 0.02, rng.random() < 0.005
        if not _is_plain(sale):
            continue
        closed = sale.closed or sale.created
        if ahead and sale.version:
            # A pre-order: paid in full when it was ordered, and nobody has ticked it off since.
            sale.payments = tuple(payment._replace(at=sale.created + 20_000) for payment in sale.payments)
            sale.state, sale.closed = "OPEN", None
            sale.updated = min(max(sale.updated, sale.created + 20_000), max(last_ms, sale.created + 20_000))
            sale.priced = None
        elif billed:
            _bill(rng, sale, closed, last_ms)
            sale.priced = None


def _bill(rng: Random, sale: Sale, closed: int, last_ms: int) -> None:
    sale.tip_rate = 0
    sale.priced = None
    part = max(1, price(sale).total // rng.randrange(2, 5))
    last = closed + int(rng.uniform(1.0, 20.0) * _DAY)
    if last <= last_ms:
        sale.payments = (Payment("CARD", part, closed), Payment("CARD", None, last))
        sale.closed, sale.updated = last, last
    else:  # the rest is still to come
        sale.payments = (Payment("CARD", part, closed), Payment("CARD"))
        sale.state, sale.closed, sale.updated = "OPEN", None, min(closed, max(last_ms, sale.created))


def leave_unpaid(rng: Random, sales: Sequence[Sale]) -> None:
    """Let some checks stay open for good: the guests have gone."""
    for sale in sales:
        if rng.random() < 0.003 and _is_plain(sale) and not sale.test:
            sale.state, sale.closed, sale.tip_rate = "OPEN", None, 0
            sale.updated = sale.created + rng.randrange(_HOUR)
            sale.priced = None


def cancel_later(rng: Random, sales: Sequence[Sale], last_ms: int) -> None:
    """Let some orders be cancelled days after they were placed, not at once."""
    for sale in sales:
        later = int(rng.uniform(1.0, 6.0) * _DAY)
        if sale.state == "CANCELED" and not sale.deleted and rng.random() < 0.5 and sale.closed is not None:
            if sale.closed + later <= last_ms:
                sale.closed += later
                sale.updated = max(sale.updated, sale.closed)
            sale.priced = None


def _is_plain(sale: Sale) -> bool:
    """Tell whether an order was sold and paid at once, and nothing else has happened to it."""
    return (
        sale.state == "COMPLETED"
        and bool(sale.lines)
        and bool(sale.payments)
        and not sale.returns
        and sale.arrived is None
        and not sale.test
        and not sale.deleted
    )
