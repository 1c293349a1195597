"""An order's sales agreements as Shopify's Admin API has them, made from what happened to the order in the world.

One for its being placed, one for every edit, refund and cancellation, each with a sale for every line that it changed. Amounts
are after discounts and with tax; what comes back is negative (`SalesAgreement`, `Sale` in the schema). A refund of more than its
goods, or of money alone, is a sale of its own: an adjustment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from flux_sandbox.counting import states_of
from flux_sandbox.model import Priced, PricedCharge, PricedLine
from flux_sandbox.pricing import price
from flux_sandbox.shopify.ids import Json, Money, gid, legacy, stamp
from flux_sandbox.shopify.values import Nodes

if TYPE_CHECKING:
    from flux_sandbox.model import Sale

#: The type of a sale by the type of its line.
SALES = {
    "PRODUCT": "ProductSale",
    "GIFT_CARD": "GiftCardSale",
    "TIP": "TipSale",
    "SHIPPING": "ShippingLineSale",
    "FEE": "FeeSale",
    "ADDITIONAL_FEE": "AdditionalFeeSale",
    "DUTY": "DutySale",
    "ADJUSTMENT": "AdjustmentSale",
}
#: The type of an agreement by its reason.
AGREEMENTS = {
    "ORDER": "OrderAgreement",
    "ORDER_EDIT": "OrderEditAgreement",
    "REFUND": "RefundAgreement",
    "RETURN": "ReturnAgreement",
}


class _Figures(NamedTuple):
    """What a line comes to, or is changed by."""

    quantity: int
    total: int
    tax: int
    discount: int
    taxes: tuple[tuple[int, int], ...]

    def less(self, other: _Figures) -> _Figures:
        """Return the difference."""
        before = dict(other.taxes)
        after = dict(self.taxes)
        return _Figures(
            self.quantity - other.quantity,
            self.total - other.total,
            self.tax - other.tax,
            self.discount - other.discount,
            tuple((n, after.get(n, 0) - before.get(n, 0)) for n in sorted({*before, *after})),
        )


_NOTHING = _Figures(0, 0, 0, 0, ())
#: The lines of an order by their type and their place among those of it.
_Lines = dict[tuple[str, int], _Figures]


def agreement(reason: str, number: int, at: str, sales: Sequence[Json]) -> Json:
    """Return a SalesAgreement."""
    kind = AGREEMENTS[reason]
    return {"__typename": kind, "id": gid(kind, number), "happenedAt": at, "reason": reason, "sales": Nodes(sales)}


class AgreementWriter:
    """Writes the agreements of one order.

    Args:
        sale: what was sold.
        lines: its LineItems, the tip's last.
        shipping: its ShippingLines.
        money: writes amounts.

    """

    def __init__(self, sale: Sale, lines: Sequence[Json], shipping: Sequence[Json], money: Money) -> None:
        self._sale = sale
        self._items = lines
        self._shipping = shipping
        self._money = money

    def write(self, backs: Sequence[Sale]) -> list[Json]:
        """Return the agreements, oldest first; `backs` are the returns of the order."""
        sale = self._sale
        states = [(at, price(state)) for at, state in states_of(sale)]
        found = [(sale.created, "ORDER", sale.id, self._changes(_NOTHING_SOLD, _lines(states[0][1])))]
        for n, ((_, before), (at, after)) in enumerate(pairwise(states)):
            found.append((at, "ORDER_EDIT", f"{sale.id}|{n}", self._changes(_lines(before), _lines(after))))
        for back in backs:
            at = back.closed if back.closed is not None else back.created
            found.append((at, "REFUND", back.id, self._given_back(back)))
        found.sort(key=lambda one: one[0])
        made = []
        for at, reason, key, changes in found:
            sales = [self._made(key, n, *change) for n, change in enumerate(changes)]
            made.append(agreement(reason, legacy("Agreement", f"{reason}|{key}"), stamp(at), sales))
        return made

    def _changes(self, before: _Lines, after: _Lines) -> list[tuple[str, str, int, _Figures]]:
        found = []
        for kind, index in sorted({*before, *after}, key=_place):
            change = after.get((kind, index), _NOTHING).less(before.get((kind, index), _NOTHING))
            if not any(change[:4]):
                continue
            action = "ORDER" if change.quantity > 0 or (kind, index) not in before else "UPDATE"
            found.append(("RETURN" if change.quantity < 0 else action, kind, index, change))
        return found

    def _given_back(self, back: Sale) -> list[tuple[str, str, int, _Figures]]:
        (gone,) = price(back).returns
        found = []
        for index, line in gone.lines:
            figures = _NOTHING.less(_of_line(line))
            if index < 0:
                found.append(("RETURN", "ADJUSTMENT", -1, figures._replace(quantity=0)))
            else:
                found.append(("RETURN", _kind(line), index, figures))
        found += [("RETURN", "SHIPPING", index, _NOTHING.less(_of_charge(charge))) for index, charge in gone.charges]
        if gone.tip:
            found.append(("RETURN", "TIP", len(self._items) - 1, _Figures(-1, -gone.tip, 0, 0, ())))
        return found

    def _made(self, key: str, n: int, action: str, kind: str, index: int, figures: _Figures) -> Json:
        bag = self._money.bag
        number = legacy("Sale", f"{key}|{n}")
        of: Json = {}
        if kind in ("PRODUCT", "GIFT_CARD", "TIP"):
            of["lineItem"] = self._items[index]
        elif kind == "SHIPPING":
            of["shippingLine"] = None if action == "RETURN" else self._shipping[index]
        return {
            "__typename": SALES[kind],
            "id": gid(SALES[kind], number),
            "actionType": action,
            "lineType": kind,
            "quantity": figures.quantity if kind in ("PRODUCT", "GIFT_CARD", "TIP") else None,
            "taxes": [{"amount": bag(amount), "taxLine": {"channelLiable": False}} for _, amount in figures.taxes],
            "totalAmount": bag(figures.total),
            "totalDiscountAmountAfterTaxes": bag(0),
            "totalDiscountAmountBeforeTaxes": bag(figures.discount),
            "totalTaxAmount": bag(figures.tax),
            **of,
        }


_NOTHING_SOLD: _Lines = {}


def _place(key: tuple[str, int]) -> tuple[bool, int]:
    """Sort goods by their place on the order, then charges."""
    kind, index = key
    return kind == "SHIPPING", index


def _kind(line: PricedLine) -> str:
    return "GIFT_CARD" if line.line.kind == "GIFT_CARD" else "PRODUCT"


def _of_line(line: PricedLine) -> _Figures:
    total = line.value - line.discount + line.tax - line.included
    return _Figures(line.quantity, total, line.tax, line.discount, line.taxes)


def _of_charge(charge: PricedCharge) -> _Figures:
    return _Figures(0, charge.total, charge.tax, 0, charge.taxes)


def _lines(figures: Priced) -> _Lines:
    found: _Lines = {(_kind(line), n): _of_line(line) for n, line in enumerate(figures.lines)}
    if figures.tip:
        found["TIP", len(figures.lines)] = _Figures(1, figures.tip, 0, 0, ())
    return found | {("SHIPPING", n): _of_charge(charge) for n, charge in enumerate(figures.charges)}
