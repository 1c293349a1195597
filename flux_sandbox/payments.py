"""What was really paid and given back: every payment and refund of a sale, with what the processor keeps of it.

Card payments cost 2.6 % of what was paid plus ten minor units, rounded half to even on the whole. For some of them the
fee is known only days later: until `fee_at` nobody can tell it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flux_sandbox.ids import guid, number, stem
from flux_sandbox.model import IdStyle, Sale
from flux_sandbox.pricing import half_even, price

_DAY = 86_400_000
_FEE_RATE, _FEE_FIXED = 26, 10
_CARDS = frozenset({"CARD", "WALLET"})

Kind = Literal["payment", "refund"]
Status = Literal["completed", "canceled", "failed"]


@dataclass(frozen=True, slots=True)
class PaidTender:
    """One payment of a sale, or one refund, in positive minor units of the store's currency.

    Args:
        id: the provider's id.
        kind: `payment` or `refund`.
        index: of the tender on its sale; of a refund: of the payment it gives back.
        type: CARD, CASH, WALLET, OTHER, or a gift card's.
        amount: without the tip; of a canceled or failed payment what was asked for and never paid.
        tip: paid, or given back.
        fee: what the processor keeps, once it is known; zero for refunds and for what moved no money.
        at: when it was taken or given back, UTC milliseconds.
        fee_at: when the fee becomes known; the same as `at` for most.
        status: only `completed` moved money.
        source_id: of a refund: the payment given back; empty without one.
        sale: the order it was made on; of a refund: the return.

    """

    id: str
    kind: Kind
    index: int
    type: str
    amount: int
    tip: int
    fee: int
    at: int
    fee_at: int
    status: Status
    source_id: str
    sale: Sale

    def fee_known(self, now_ms: int) -> int:
        """Return the fee as far as it is known at an instant: zero before."""
        return self.fee if self.fee_at <= now_ms else 0

    def updated(self, now_ms: int) -> int:
        """Return when the payment last changed, as seen at an instant: its sale's changes and its fee change it."""
        known = self.fee_at if self.fee_at <= now_ms else self.at
        return max(self.at, known, self.sale.updated if self.sale.updated <= now_ms else self.at)


def payment_id(sale: Sale, style: IdStyle, index: int) -> str:
    """Return the id of a sale's payment: one and the same on the order and wherever payments are listed."""
    if style == "guid":
        return guid(sale.id, "payment", index)
    if style == "number":
        return number(sale.id, "payment", index)
    return f"{stem(sale.id)}tnd{index}ZY"


def _refund_id(sale: Sale, source: Sale | None, style: IdStyle, index: int) -> str:
    if style == "guid":
        return guid(sale.id, "refund", index)
    if style == "number":
        return number(sale.id, "refund", index)
    return f"{payment_id(source or sale, style, index)}_{stem(sale.id)[:16]}"


def fee_of(amount: int) -> int:
    """Return what a card payment costs, of all that was paid, in minor units."""
    return half_even(amount * _FEE_RATE, 1000) + _FEE_FIXED


def payments_of(sale: Sale, style: IdStyle, returns_before: Sequence[Sale] = ()) -> list[PaidTender]:
    """Return what was paid on a sale, or given back by a return, in the order of the tenders.

    Tenders of nothing are no payments. A cancelled sale that was to be paid by card has its authorisation, cancelled; some
    card payments were declined once before (status `failed`; the index follows the real ones).

    Args:
        sale: the sale or return.
        style: of the ids.
        returns_before: earlier returns of the same source: what they gave back cannot be given back again.

    """
    if sale.test or sale.deleted:
        return []
    found: list[PaidTender] = []
    figures = price(sale)
    closed = sale.closed if sale.closed is not None else sale.created
    for index, tender in enumerate(figures.tenders):
        if tender.type == "NO_SALE" or not tender.amount:
            continue
        at = closed if tender.at is None else tender.at
        id_ = payment_id(sale, style, index)
        fee = fee_of(tender.amount) if tender.type in _CARDS else 0
        late = zlib.crc32(id_.encode()) % 100
        fee_at = at + (1 + late % 3) * _DAY if fee and late < 20 else at
        net = tender.amount - tender.tip
        found.append(
            PaidTender(id_, "payment", index, tender.type, net, tender.tip, fee, at, fee_at, "completed", "", sale)
        )
    chance = zlib.crc32(b"declined" + sale.id.encode()) % 1000
    count = len(figures.tenders)
    if found and found[-1].type == "CARD" and chance < 6:
        tried = found[-1]
        id_ = payment_id(sale, style, count)
        found.append(replace(tried, id=id_, index=count, tip=0, fee=0, fee_at=tried.at, status="failed"))
    if sale.state == "CANCELED" and figures.total and sale.payments and sale.payments[-1].type == "CARD":
        id_ = payment_id(sale, style, 0)
        found.append(PaidTender(id_, "payment", 0, "CARD", figures.total, 0, 0, closed, closed, "canceled", "", sale))
    if figures.refund:
        found += _refunds(sale, style, figures.refund, returns_before)
    return found


def _refunds(sale: Sale, style: IdStyle, amount: int, before: Sequence[Sale]) -> list[PaidTender]:
    at = sale.closed if sale.closed is not None else sale.created
    source = sale.returns[0].source
    if source is None:
        id_ = _refund_id(sale, None, style, 0)
        return [PaidTender(id_, "refund", 0, "OTHER", amount, 0, 0, at, at, "completed", "", sale)]
    paid = [one for one in payments_of(source, style) if one.status == "completed"]
    if style == "token":
        # One refund, which names the first payment, whatever was split.
        first = paid[0] if paid else None
        id_ = _refund_id(sale, source, style, 0)
        tip = min(sum(one.tip for one in price(sale).returns), amount)
        kind = first.type if first else "OTHER"
        name = first.id if first else ""
        return [PaidTender(id_, "refund", 0, kind, amount - tip, tip, 0, at, at, "completed", name, sale)]
    left = {one.index: [one.amount, one.tip] for one in paid}
    for earlier in before:
        for refund in _refunds(earlier, style, price(earlier).refund, ()):
            if refund.index in left:
                left[refund.index][0] -= refund.amount
                left[refund.index][1] -= refund.tip
    tip = min(sum(one.tip for one in price(sale).returns), amount)
    rest = amount - tip
    found = []
    for one in reversed(paid):
        part = min(rest, left[one.index][0]) if one is not paid[0] else rest
        part_tip = min(tip, left[one.index][1])
        rest, tip = rest - part, tip - part_tip
        if part or part_tip:
            id_ = _refund_id(sale, source, style, one.index)
            found.append(
                PaidTender(id_, "refund", one.index, one.type, part, part_tip, 0, at, at, "completed", one.id, sale)
            )
    return found
