"""When each part of an order counts in the merchant's own report: see `model.CountsWhen`. No provider is named here."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Literal, NamedTuple

from flux_sandbox.model import CountsWhen, Sale
from flux_sandbox.pricing import price

What = Literal["sale", "edit", "return", "cancellation", "void", "open", "malformed"]


class Counted(NamedTuple):
    """A part of an order, at the instant (UTC milliseconds) that its business date follows from.

    `parts` are what it comes to: what was sold, the order before and after an edit, what came back. `open`, `void` and
    `malformed` have none. `sale` is the order, also where a refund is kept on it.
    """

    at: int
    what: What
    sale: Sale
    parts: tuple[Sale, ...] = ()


def paid_at(sale: Sale) -> int:
    """Return when an order was paid in full, or else closed, or else made."""
    closed = sale.closed if sale.closed is not None else sale.created
    if all(payment.at is None for payment in sale.payments):
        return closed
    return max((closed if tender.at is None else tender.at for tender in price(sale).tenders), default=closed)


def states_of(sale: Sale) -> list[tuple[int, Sale]]:
    """Return an order as it was made and after each edit, each with the instant from which it was so."""
    begins = [sale.created, *(until for until, _ in sale.earlier)]
    states = []
    for _, lines in sale.earlier:
        before = copy(sale)
        before.lines, before.earlier, before.priced = lines, (), None
        states.append(before)
    return list(zip(begins, [*states, sale], strict=True))


def counted(sale: Sale, when: CountsWhen, refunds: Sequence[Sale] = ()) -> list[Counted]:
    """Return the parts of an order that count.

    Args:
        sale: the order.
        when: the rule of the account that it is of.
        refunds: what came back of it, where the provider keeps that on the order.

    """
    if sale.document is not None or sale.test or sale.deleted:
        return []
    if sale.corrupt:
        return [Counted(sale.created, "malformed", sale)]
    if when == "paid":
        if sale.state == "CANCELED":
            return [Counted(sale.created, "void", sale)]
        return [Counted(paid_at(sale), "sale", sale, (sale,)) if sale.is_paid else Counted(sale.created, "open", sale)]
    found = [Counted(back.created if back.closed is None else back.closed, "return", sale, (back,)) for back in refunds]
    if sale.state == "OPEN":
        found.append(Counted(sale.created, "open", sale))
    if when == "dated":
        if sale.state == "CANCELED":
            return [Counted(sale.created, "void", sale)]
        return [Counted(sale.created, "sale", sale, (sale,)), *found]
    states = states_of(sale)
    found.append(Counted(sale.created, "sale", sale, (states[0][1],)))
    for (_, before), (at, after) in pairwise(states):
        found.append(Counted(at, "edit", sale, (before, after)))
    if sale.state == "CANCELED":
        found.append(Counted(sale.updated if sale.closed is None else sale.closed, "cancellation", sale, (sale,)))
    return found
