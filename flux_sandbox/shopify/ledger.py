"""The sales agreements that Shopify would have of an order that was taken in without them, worked out from the order itself.

What an order was placed with is one agreement, each of its refunds another, what an edit took out of it a third. What the order
does not tell (when it was edited) is taken to be when it last changed. Amounts are in the shop's currency.

Facts: the schema's `SalesAgreement`, `Sale`, `SaleLineType` (adjustments) and shopify.dev/api/examples/order-sales-data. "The
remaining currency units that couldn't be divided evenly are allocated one at a time, starting with the first": so are discounts
and taxes over the units of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from flux_sandbox.shopify.agreements import SALES, agreement
from flux_sandbox.shopify.ids import Json, exponent, gid, legacy, read_gid

_NONE = Decimal(0)
_Record = Mapping[str, Any]


class _Sum(NamedTuple):
    """What a line comes to, or comes back with: with its tax and after its discount."""

    quantity: int
    total: Decimal
    tax: Decimal
    discount: Decimal

    def plus(self, other: _Sum) -> _Sum:
        """Return both."""
        total, tax, discount = self.total + other.total, self.tax + other.tax, self.discount + other.discount
        return _Sum(self.quantity + other.quantity, total, tax, discount)

    def back(self) -> _Sum:
        """Return it as it comes back: negative."""
        return _Sum(-self.quantity, -self.total, -self.tax, -self.discount)


@dataclass(slots=True)
class _Line:
    """A line of an order: goods, a gift card, a tip, shipping, a fee or duties. `left` is what has not come back of it."""

    kind: str
    item: _Record
    taxes: Sequence[_Record]
    sold: _Sum
    left: _Sum = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.sold


class _Back(NamedTuple):
    """A record of something that came back."""

    kind: str
    line: _Line | None
    item: _Record
    sum: _Sum


def agreements_of(order: _Record) -> list[Json]:
    """Return an order's agreements, oldest first.

    Raises:
        ArithmeticError, KeyError, TypeError, ValueError, AttributeError: the order is not one that Shopify could have.

    """
    return _Ledger(order).agreements()


class _Ledger:
    def __init__(self, order: _Record) -> None:
        self._order = order
        self._number = legacy("Order", str(order.get("legacyResourceId") or (read_gid(order["id"]) or ("", 0))[1]))
        self._currency = str(order.get("currencyCode") or "USD")
        self._included = bool(order.get("taxesIncluded"))
        self._lines = self._ordered()
        self._by_id = {line.item["id"]: line for line in self._lines if "id" in line.item}
        self._made = 0

    def agreements(self) -> list[Json]:
        order = self._order
        placed = str(order["processedAt"])
        found = [(placed, "ORDER", [self._sale("ORDER", line, line.sold) for line in self._lines])]
        refunds = [(self._when(refund), refund) for refund in order.get("refunds") or ()]
        backs = self._refunded([refund for _, refund in refunds])
        for (at, _), back in zip(refunds, backs, strict=True):
            found.append((at, "REFUND", [self._returned(one) for one in back]))
        rest = self._rest()
        if rest and refunds and all(one.kind in ("ADDITIONAL_FEE", "DUTY") for one in rest):
            found[-1][2].extend(map(self._returned, rest))
        elif rest:
            cancelled = order.get("cancelledAt")
            found.append(
                (
                    str(cancelled or order["updatedAt"]),
                    "REFUND" if cancelled else "ORDER_EDIT",
                    [*map(self._returned, rest)],
                )
            )
        return [
            agreement(reason, legacy("Agreement", f"{self._number}|{n}"), at, sales)
            for n, (at, reason, sales) in enumerate(found)
            if sales
        ]

    # What was ordered

    def _ordered(self) -> list[_Line]:
        order = self._order
        found = [self._item(item) for item in _nodes(order.get("lineItems"))]
        tip = _amount(order.get("totalTipReceivedSet"))
        if tip:
            # A tip is a line without a product, of that amount; what it is called depends on the shop's language.
            mine = next((one for one in found if one.sold.total == tip and _is_bare(one.item)), None)
            if mine is None:
                mine = _Line("TIP", {"id": gid("LineItem", legacy("LineItem", f"{self._number}|tip"))}, (), _one(tip))
                found.append(mine)
            mine.kind = "TIP"
        for item in _nodes(order.get("shippingLines")):
            price, paid = _amount(item["originalPriceSet"]), _amount(item["discountedPriceSet"])
            found.append(self._charge("SHIPPING", item, paid, price - paid))
        found += [
            self._charge("ADDITIONAL_FEE", item, _amount(item["price"]), _NONE, beside=True)
            for item in order.get("additionalFees") or ()
        ]
        duties = _amount(order.get("originalTotalDutiesSet"))
        if duties and not order.get("dutiesIncluded"):
            found.append(_Line("DUTY", {}, (), _one(duties)))
        return found

    def _item(self, item: _Record) -> _Line:
        quantity = int(item["quantity"])
        taxes = item.get("taxLines") or ()
        tax = _added(one["priceSet"] for one in taxes)
        discount = _added(one["allocatedAmountSet"] for one in item.get("discountAllocations") or ())
        total = _amount(item["originalUnitPriceSet"]) * quantity - discount + (_NONE if self._included else tax)
        kind = "GIFT_CARD" if item.get("isGiftCard") else "PRODUCT"
        return _Line(kind, item, taxes, _Sum(quantity, total, tax, discount))

    def _charge(self, kind: str, item: _Record, paid: Decimal, discount: Decimal, *, beside: bool = False) -> _Line:
        taxes = item.get("taxLines") or ()
        tax = _added(one["priceSet"] for one in taxes)
        total = paid if self._included and not beside else paid + tax
        return _Line(kind, item, taxes, _Sum(1, total, tax, discount))

    # What came back

    def _when(self, refund: _Record) -> str:
        """Return when a refund was made: never before its order was placed."""
        placed, at = str(self._order["processedAt"]), str(refund.get("processedAt") or refund["createdAt"])
        return at if at >= placed else str(self._order.get("cancelledAt") or placed)

    def _refunded(self, refunds: Sequence[_Record]) -> list[list[_Back]]:
        """Return what each refund gives back.

        Whether the subtotals of lines and of shipping hold their tax, where prices do, is not documented: the order's total
        tells. Where several would do, lines do and shipping does not.
        """
        ways = [(True, False), (True, True), (False, False), (False, True)] if self._included else [(False, False)]
        owed = _amount(self._order["currentTotalPriceSet"])
        ordered = sum((line.sold.total for line in self._lines), _NONE)
        rest = sum((one.sum.total for one in self._gone(refunds)), _NONE)
        chosen = None
        for lines_hold, shipping_holds in ways:
            backs = [self._back(refund, lines_hold, shipping_holds) for refund in refunds]
            totals = [(one.kind == "ADJUSTMENT", one.sum.total) for back in backs for one in back]
            left = ordered + rest + sum((total for is_adjustment, total in totals if not is_adjustment), _NONE)
            adjusted = sum((total for is_adjustment, total in totals if is_adjustment), _NONE)
            chosen = backs if chosen is None else chosen
            if owed in (left, left + adjusted):
                chosen = backs
                break
        for one in (one for back in chosen or () for one in back):
            if one.line is not None:
                one.line.left = one.line.left.plus(one.sum)
        return chosen or []

    def _back(self, refund: _Record, lines_hold: bool, shipping_holds: bool) -> list[_Back]:
        found = []
        for one in _nodes(refund.get("refundLineItems")):
            line = self._by_id.get(one["lineItem"]["id"])
            quantity, tax = int(one["quantity"]), _amount(one["totalTaxSet"])
            total = _amount(one["subtotalSet"]) + (_NONE if lines_hold else tax)
            paid = total if self._included else total - tax
            price = (
                _amount(line.item.get("originalUnitPriceSet")) * quantity
                if line is not None and line.kind != "TIP"
                else paid
            )
            back = _Sum(-quantity, -total, -tax, paid - price)
            found.append(_Back(line.kind if line is not None else "PRODUCT", line, one["lineItem"], back))
        for one in _nodes(refund.get("refundShippingLines")):
            line = self._by_id.get((one.get("shippingLine") or {}).get("id"))
            tax = _amount(one["taxAmountSet"])
            total = _amount(one["subtotalAmountSet"]) + (_NONE if shipping_holds else tax)
            found.append(_Back("SHIPPING", line, {}, _Sum(-1, -total, -tax, _NONE)))
        for one in _nodes(refund.get("orderAdjustments")):
            tax = _amount(one["taxAmountSet"])
            found.append(_Back("ADJUSTMENT", None, {}, _Sum(0, _amount(one["amountSet"]) + tax, tax, _NONE)))
        return found

    def _gone(self, refunds: Iterable[_Record]) -> list[_Back]:
        """Return what is on the order no more though no refund says so: units that an edit took out, fees, duties."""
        back: dict[str, int] = {}
        for one in (one for refund in refunds for one in _nodes(refund.get("refundLineItems"))):
            id_ = one["lineItem"]["id"]
            back[id_] = back.get(id_, 0) + int(one["quantity"])
        found = []
        for line in self._lines:
            if line.kind in ("PRODUCT", "GIFT_CARD", "TIP") and "currentQuantity" in line.item:
                removed = line.sold.quantity - int(line.item["currentQuantity"]) - back.get(line.item["id"], 0)
                if removed > 0:
                    found.append(_Back(line.kind, line, line.item, self._last(line, removed)))
        for kind, now, before in (
            ("ADDITIONAL_FEE", "currentTotalAdditionalFeesSet", "originalTotalAdditionalFeesSet"),
            ("DUTY", "currentTotalDutiesSet", "originalTotalDutiesSet"),
        ):
            lines = [line for line in self._lines if line.kind == kind]
            if lines and self._order.get(now) is not None and self._order.get(before) is not None:
                gone = _amount(self._order[before]) - _amount(self._order[now])
                whole = sum((line.sold.total for line in lines), _NONE)
                if gone and gone in (whole, whole - sum((line.sold.tax for line in lines), _NONE)):
                    found += [_Back(kind, line, line.item, line.sold.back()) for line in lines]
                elif gone:
                    found.append(_Back(kind, lines[-1], lines[-1].item, _Sum(-1, -gone, _NONE, _NONE)))
        return found

    def _rest(self) -> list[_Back]:
        """Return what no refund has given back: of a cancelled order that comes to nothing, everything that is left."""
        if self._order.get("cancelledAt") and not _amount(self._order["currentTotalPriceSet"]):
            return [
                _Back(line.kind, line, line.item, line.left.back())
                for line in self._lines
                if any(line.left[:2]) and line.left.total
            ]
        return self._gone(self._order.get("refunds") or ())

    def _last(self, line: _Line, units: int) -> _Sum:
        """Return the last units of a line, negative: the first have what could not be divided evenly."""
        kept = line.sold.quantity - units
        discount = line.sold.discount - self._first(line.sold.discount, kept, line.sold.quantity)
        tax = line.sold.tax - self._first(line.sold.tax, kept, line.sold.quantity)
        price = _amount(line.item["originalUnitPriceSet"]) * units
        return _Sum(units, price - discount + (_NONE if self._included else tax), tax, discount).back()

    def _first(self, amount: Decimal, units: int, of: int) -> Decimal:
        minor = int(amount.scaleb(exponent(self._currency)))
        each, over = divmod(minor, of)
        return Decimal(each * units + min(units, over)).scaleb(-exponent(self._currency))

    # Sales

    def _sale(self, action: str, line: _Line, amounts: _Sum) -> Json:
        return self._record(action, line.kind, line.item, line.taxes, line.sold.tax, amounts)

    def _returned(self, back: _Back) -> Json:
        line = back.line
        return self._record(
            "RETURN", back.kind, back.item, line.taxes if line else (), line.sold.tax if line else _NONE, back.sum
        )

    def _record(
        self, action: str, kind: str, item: _Record, taxes: Sequence[_Record], taxed: Decimal, amounts: _Sum
    ) -> Json:
        self._made += 1
        number = legacy("Sale", f"{self._number}|{self._made}")
        of: Json = {}
        if kind in ("PRODUCT", "GIFT_CARD", "TIP"):
            of["lineItem"] = item
        elif kind == "SHIPPING":
            of["shippingLine"] = item if action == "ORDER" else None
        elif kind == "ADDITIONAL_FEE":
            of["additionalFee"] = {**item, "id": item["id"].replace("/AdditionalFee/", "/SaleAdditionalFee/")}
        elif kind == "DUTY":
            of["duty"] = {"id": gid("Duty", number)}
        return {
            "__typename": SALES[kind],
            "id": gid(SALES[kind], number),
            "actionType": action,
            "lineType": kind,
            "quantity": amounts.quantity if kind in ("PRODUCT", "GIFT_CARD", "TIP") else None,
            "taxes": [*self._taxes(number, taxes, taxed, amounts.tax)],
            "totalAmount": self._bag(amounts.total),
            "totalDiscountAmountAfterTaxes": self._bag(_NONE),
            "totalDiscountAmountBeforeTaxes": self._bag(amounts.discount),
            "totalTaxAmount": self._bag(amounts.tax),
            **of,
        }

    def _taxes(self, number: int, lines: Sequence[_Record], taxed: Decimal, tax: Decimal) -> Iterable[Json]:
        """Share a sale's tax over the line's taxes as the line shared it; the last has the rest."""
        left = tax
        for n, line in enumerate(lines):
            part = left
            if n < len(lines) - 1:
                unit = Decimal(1).scaleb(-exponent(self._currency))
                part = (tax * _amount(line["priceSet"]) / taxed).quantize(unit) if taxed else _NONE
            left -= part
            yield {"id": gid("SaleTax", legacy("SaleTax", f"{number}|{n}")), "amount": self._bag(part), "taxLine": line}

    def _bag(self, amount: Decimal) -> Json:
        text = f"{amount.normalize():f}"
        return {"shopMoney": {"amount": text if "." in text else f"{text}.0", "currencyCode": self._currency}}


def _nodes(connection: Any) -> list[Any]:
    """Return the nodes of a connection: as an answer has it, or as the sandbox holds it."""
    if connection is None:
        return []
    if not isinstance(connection, Mapping):
        return list(connection.items)
    if "nodes" in connection:
        return list(connection["nodes"])
    return [edge["node"] for edge in connection.get("edges") or ()]


def _is_bare(item: _Record) -> bool:
    return not any(item.get(name) for name in ("variant", "product", "isGiftCard", "taxable"))


def _one(amount: Decimal) -> _Sum:
    return _Sum(1, amount, _NONE, _NONE)


def _amount(bag: Any) -> Decimal:
    return _NONE if bag is None else Decimal(bag["shopMoney"]["amount"])


def _added(bags: Iterable[Any]) -> Decimal:
    return sum(map(_amount, bags), _NONE)
