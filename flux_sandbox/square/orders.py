"""A sale of the sandbox's world as the Order object that Square would show of it.

Field names and conventions: specs/square OpenAPI 2025-08-20 and real orders quoted in Square's developer forum. In the
United States, Canada and Japan `gross_sales_money` leaves included tax out, elsewhere it does not;
`gross_return_money` never does. A return's order has a `total_money` of 0; a refund of money alone has none at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.ids import stem
from flux_sandbox.model import PricedCharge, PricedLine, PricedReturn, PricedTender
from flux_sandbox.pricing import price
from flux_sandbox.square.people import recipient, tender_card

if TYPE_CHECKING:
    from flux_sandbox.model import Discount, Line, Sale, Tax

Json = dict[str, Any]

_GROSS_WITHOUT_TAX = frozenset({"US", "CA", "JP"})
_CACHE_BYTES = 512 * 1024 * 1024
_WEIGHTS = frozenset({"IMPERIAL_POUND", "METRIC_GRAM", "METRIC_KILOGRAM"})


def stamp(ms: int) -> str:
    """Return an instant as Square writes it: `2020-05-18T16:30:49.614Z`."""
    seconds, rest = divmod(ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"


@lru_cache(maxsize=100_000)
def _money(amount: int, currency: str) -> msgspec.Raw:
    # An order holds some forty amounts, few of them new: written once, they are copied from then on.
    return msgspec.Raw(b'{"amount":%d,"currency":"%s"}' % (amount, currency.encode()))


@lru_cache(maxsize=10_000)
def _suffix(kind: str, parts: tuple[int, ...]) -> str:
    return kind + "".join(f"{part:02d}" for part in parts)


def _quantity(quantity: int, precision: int) -> str:
    if precision == 0:
        return str(quantity)
    whole, part = divmod(quantity, 10**precision)
    return f"{whole}.{part:0{precision}d}"


class _Writer:
    """Writes one order; holds its currency and the stem of its uids."""

    def __init__(self, sale: Sale) -> None:
        self.sale = sale
        self.currency = sale.location.currency
        self.stem = stem(sale.id)

    def money(self, amount: int) -> msgspec.Raw:
        return _money(amount, self.currency)

    def uid(self, kind: str, *parts: int) -> str:
        return self.stem + _suffix(kind, parts)

    def amounts(self, total: int, tax: int, discount: int, tip: int, charge: int) -> Json:
        return {
            "total_money": self.money(total),
            "tax_money": self.money(tax),
            "discount_money": self.money(discount),
            "tip_money": self.money(tip),
            "service_charge_money": self.money(charge),
        }

    def _unit(self, line: Line) -> Json | None:
        if line.item is not None and line.item.unit in _WEIGHTS:
            unit = {"type": "TYPE_WEIGHT", "weight_unit": line.item.unit}
        elif line.precision:
            unit = {"type": "TYPE_GENERIC", "generic_unit": "UNIT"}
        else:
            return None
        return {"measurement_unit": unit, "precision": line.precision}

    def line(self, index: int, figures: PricedLine, *, returning: bool, source_uid: str = "") -> Json:
        """Write a sold or returned line; `uid`s of a return are its own."""
        line = figures.line
        kind = "r" if returning else "l"
        result: Json = {"uid": self.uid(kind, index)}
        if source_uid:
            result["source_line_item_uid"] = source_uid
        if line.item is not None:
            result["catalog_object_id"] = line.item.id
            result["catalog_version"] = 1_700_000_000_000
        result["quantity"] = _quantity(figures.quantity, line.precision)
        if unit := self._unit(line):
            result["quantity_unit"] = unit
        if line.name:
            result["name"] = line.name
        if line.item is not None and line.item.variation:
            result["variation_name"] = line.item.variation
        result["item_type"] = line.kind
        result["base_price_money"] = self.money(line.unit_price)
        if line.modifiers:
            result["return_modifiers" if returning else "modifiers"] = [
                {
                    "uid": self.uid(kind + "m", index, i),
                    "catalog_object_id": chosen.modifier.id,
                    "name": chosen.modifier.name,
                    "quantity": str(chosen.quantity),
                    "base_price_money": self.money(chosen.modifier.price),
                    "total_price_money": self.money(figures.modifier_totals[i]),
                }
                for i, chosen in enumerate(line.modifiers)
            ]
        prefix = "r" if returning else ""
        if figures.discounts:
            result["applied_discounts"] = [
                {
                    "uid": self.uid(kind + "d", index, i),
                    "discount_uid": self.uid(prefix + "d", i),
                    "applied_money": self.money(amount),
                }
                for i, amount in figures.discounts
            ]
        if figures.taxes:
            result["applied_taxes"] = self._applied_taxes(kind, index, figures.taxes, prefix)
        gross = figures.gross if self.sale.location.country in _GROSS_WITHOUT_TAX else figures.value
        result["variation_total_price_money"] = self.money(figures.variation_total)
        result["gross_return_money" if returning else "gross_sales_money"] = self.money(
            figures.value if returning else gross
        )
        result["total_tax_money"] = self.money(figures.tax)
        result["total_discount_money"] = self.money(figures.discount)
        if figures.spread:
            result["applied_service_charges"] = [
                {
                    "uid": self.uid(kind + "c", index, i),
                    "service_charge_uid": self.uid(prefix + "c", i),
                    "applied_money": self.money(amount),
                }
                for i, amount in figures.spread
            ]
        result["total_service_charge_money"] = self.money(figures.charged)
        result["total_money"] = self.money(figures.total)
        return result

    def _applied_taxes(self, kind: str, index: int, taxes: Iterable[tuple[int, int]], prefix: str) -> list[Json]:
        return [
            {
                "uid": self.uid(kind + "t", index, i),
                "tax_uid": self.uid(prefix + "t", i),
                "applied_money": self.money(amount),
            }
            for i, amount in taxes
        ]

    def taxes(self, figures: Iterable[PricedLine | PricedCharge], source: _Writer | None = None) -> list[Json]:
        """Write the order's taxes with what each came to."""
        sums: dict[int, int] = {}
        for one in figures:
            for i, amount in one.taxes:
                sums[i] = sums.get(i, 0) + amount
        prefix = "r" if source else ""
        result = []
        for i, amount in sorted(sums.items()):
            tax = self.sale.location.taxes[i]
            entry: Json = {"uid": self.uid(prefix + "t", i)}
            if source:
                entry["source_tax_uid"] = source.uid("t", i)
            entry.update(
                name=tax.name,
                percentage=tax.percent,
                type="INCLUSIVE" if tax.inclusive else "ADDITIVE",
                scope=_tax_scope(tax),
                applied_money=self.money(amount),
            )
            result.append(entry)
        return result

    def discounts(
        self, discounts: tuple[Discount, ...], figures: Iterable[PricedLine], source: _Writer | None = None
    ) -> list[Json]:
        """Write the order's discounts with what each took off."""
        sums: dict[int, int] = {}
        for line in figures:
            for i, amount in line.discounts:
                sums[i] = sums.get(i, 0) + amount
        prefix = "r" if source else ""
        result = []
        for i, amount in sorted(sums.items()):
            discount = discounts[i]
            entry: Json = {"uid": self.uid(prefix + "d", i)}
            if source:
                entry["source_discount_uid"] = source.uid("d", i)
            entry["name"] = discount.name
            if discount.amount:
                entry["type"] = "FIXED_AMOUNT"
                entry["amount_money"] = self.money(discount.amount)
            else:
                entry["type"] = "FIXED_PERCENTAGE"
                entry["percentage"] = discount.percent
            entry["scope"] = "ORDER" if discount.line is None else "LINE_ITEM"
            entry["applied_money"] = self.money(amount)
            result.append(entry)
        return result

    def charge(self, index: int, figures: PricedCharge, source: _Writer | None = None) -> Json:
        """Write a service charge."""
        charge = figures.charge
        kind = "rc" if source else "c"
        result: Json = {"uid": self.uid(kind, index)}
        if source:
            result["source_service_charge_uid"] = source.uid("c", index)
        result["name"] = charge.name
        if charge.rate:
            result["percentage"] = charge.percent
        else:
            result["amount_money"] = self.money(charge.amount)
        result["applied_money"] = self.money(figures.applied)
        result["total_money"] = self.money(figures.total)
        result["total_tax_money"] = self.money(figures.tax)
        late = "TOTAL_PHASE" if charge.after_tax else "SUBTOTAL_PHASE"
        result["calculation_phase"] = "APPORTIONED_PERCENTAGE_PHASE" if charge.apportioned else late
        result["taxable"] = charge.taxable
        if figures.taxes:
            result["applied_taxes"] = self._applied_taxes(kind, index, figures.taxes, "r" if source else "")
        result["treatment_type"] = "APPORTIONED_TREATMENT" if charge.apportioned else "LINE_ITEM_TREATMENT"
        result["scope"] = "ORDER"
        if not source:
            result["type"] = "AUTO_GRATUITY" if charge.auto_gratuity else "CUSTOM"
        return result

    def rounding(self, amount: int) -> Json:
        return {"uid": self.uid("round"), "name": "Cash rounding", "amount_money": self.money(amount)}

    def tender_id(self, index: int) -> str:
        return f"{self.stem}tnd{index}ZY"

    def tender(self, index: int, tender: PricedTender) -> Json:
        """Write a payment; `amount_money` includes the tip."""
        sale, type_, amount, tip = self.sale, tender.type, tender.amount, tender.tip
        id_ = self.tender_id(index)
        result: Json = {
            "id": id_,
            "location_id": sale.location.id,
            "transaction_id": sale.id,
            "created_at": stamp(tender.at or sale.closed or sale.created),
            "amount_money": self.money(amount),
        }
        if tip:
            result["tip_money"] = self.money(tip)
        result["type"] = "SQUARE_GIFT_CARD" if type_ == "GIFT_CARD" else type_
        if type_ == "CARD":
            card = tender_card(sale, id_)
            result["card_details"] = {"status": "CAPTURED", "card": card, "entry_method": "CONTACTLESS"}
        elif type_ == "CASH":
            step = 500 if self.currency != "JPY" else 1000
            given = -(-amount // step) * step
            result["cash_details"] = {
                "buyer_tendered_money": self.money(given),
                "change_back_money": self.money(given - amount),
            }
        if sale.customer:
            result["customer_id"] = sale.customer.id
        if amount:
            result["payment_id"] = id_
        return result

    def returned(self, index: int, figures: PricedReturn) -> Json:
        """Write what came back from one source order."""
        returned = figures.returned
        source = _Writer(returned.source) if returned.source is not None else None
        lines = [line for _, line in figures.lines]
        result: Json = {"uid": self.uid("ret", index)}
        if source:
            result["source_order_id"] = source.sale.id
        result["return_line_items"] = [
            self.line(i, line, returning=True, source_uid=source.uid("l", link) if source and link >= 0 else "")
            for i, (link, line) in enumerate(figures.lines)
        ]
        if figures.charges and source:
            result["return_service_charges"] = [self.charge(i, c, source) for i, c in figures.charges]
        if taxes := self.taxes((*lines, *(charge for _, charge in figures.charges)), source or self):
            result["return_taxes"] = taxes
        if source and not returned.lines and (found := self.discounts(source.sale.discounts, lines, source)):
            result["return_discounts"] = found
        if figures.tip and source:
            result["return_tips"] = [
                {
                    "uid": self.uid("rtip", index),
                    "applied_money": self.money(figures.tip),
                    "source_tender_id": source.tender_id(len(price(source.sale).tenders) - 1),
                }
            ]
        if figures.rounding:
            result["rounding_adjustment"] = self.rounding(figures.rounding)
        result["return_amounts"] = self.amounts(*_return_sums(figures))
        return result


def _tax_scope(tax: Tax) -> str:
    return "ORDER" if {"food", "drink", "goods"} <= tax.covers else "LINE_ITEM"


def _return_sums(figures: PricedReturn) -> tuple[int, int, int, int, int]:
    lines = [line for _, line in figures.lines]
    return (
        figures.total,
        sum(x.tax for x in lines) + sum(x.tax for _, x in figures.charges),
        sum(x.discount for x in lines),
        figures.tip,
        sum(x.applied for _, x in figures.charges),
    )


def order(sale: Sale) -> Json:
    """Return the Order object of a sale."""
    if sale.document is not None:
        return dict(sale.document)
    write = _Writer(sale)
    money = write.money
    figures = price(sale)
    result: Json = {"id": sale.id, "location_id": sale.location.id}
    if figures.lines:
        result["line_items"] = [write.line(i, line, returning=False) for i, line in enumerate(figures.lines)]
    taxed: list[PricedLine | PricedCharge] = [*figures.lines, *figures.charges]
    if taxes := write.taxes(taxed):
        result["taxes"] = taxes
    if sale.discounts and (discounts := write.discounts(sale.discounts, figures.lines)):
        result["discounts"] = discounts
    if figures.charges:
        result["service_charges"] = [write.charge(i, charge) for i, charge in enumerate(figures.charges)]
    if sale.version and sale.state != "CANCELED":
        state = "COMPLETED" if sale.state == "COMPLETED" else "PROPOSED"
        fulfillment: Json = {"uid": write.uid("f"), "type": "PICKUP", "state": state}
        if sale.customer:
            fulfillment["pickup_details"] = {"recipient": recipient(sale.customer), "schedule_type": "ASAP"}
        result["fulfillments"] = [fulfillment]
    if sale.customer:
        result["customer_id"] = sale.customer.id
    result["created_at"] = stamp(sale.created)
    result["updated_at"] = stamp(sale.updated)
    if sale.closed is not None:
        result["closed_at"] = stamp(sale.closed)
    result["state"] = sale.state
    if sale.version:
        result["version"] = sale.version
    tax = sum(one.tax for one in taxed)
    discount = sum(line.discount for line in figures.lines)
    charge = sum(one.applied for one in figures.charges)
    alone = any(not one.returned.itemised for one in figures.returns)
    if not alone:
        result["total_money"] = money(figures.total)
    result["total_tax_money"] = money(tax)
    result["total_discount_money"] = money(discount)
    result["total_tip_money"] = money(figures.tip)
    result["total_service_charge_money"] = money(charge)
    back = [_return_sums(one) for one in figures.returns]
    back_sums = [sum(column) for column in zip(*back, strict=True)] if back else [0] * 5
    if figures.returns:
        result["returns"] = [write.returned(i, one) for i, one in enumerate(figures.returns)]
        result["return_amounts"] = write.amounts(*back_sums)
    sold = (figures.total, tax, discount, figures.tip, charge)
    result["net_amounts"] = write.amounts(*(s - b for s, b in zip(sold, back_sums, strict=True)))
    if figures.rounding:
        result["rounding_adjustment"] = write.rounding(figures.rounding)
    if figures.tenders:
        result["tenders"] = [write.tender(i, tender) for i, tender in enumerate(figures.tenders)]
    if figures.refund:
        result["refunds"] = [_refund(write, one.returned.source, figures.refund) for one in figures.returns[:1]]
    due = figures.total - sum(tender.amount for tender in figures.tenders) if sale.state == "OPEN" else 0
    result["net_amount_due_money"] = money(due)
    result["source"] = {"name": sale.source} if sale.source else {}
    if sale.ticket:
        result["ticket_name"] = sale.ticket
    if sale.reference:
        result["reference_id"] = sale.reference
    if sale.corrupt:
        result = msgspec.json.decode(msgspec.json.encode(result))
        _corrupt(result, sale.corrupt)
    return result


def _refund(write: _Writer, source: Sale | None, amount: int) -> Json:
    sale = write.sale
    tender = _Writer(source).tender_id(0) if source is not None else write.tender_id(0)
    return {
        "id": f"{tender}_{write.stem[:16]}",
        "location_id": sale.location.id,
        "transaction_id": source.id if source is not None else sale.id,
        "tender_id": tender,
        "created_at": stamp(sale.closed or sale.created),
        "reason": sale.returns[0].reason,
        "amount_money": write.money(amount),
        "status": "APPROVED",
    }


def _corrupt(result: Json, kind: str) -> None:
    """Spoil an order on purpose: see `world.MALFORMED`."""
    if kind == "types":
        result["line_items"] = "not a list"
        result["total_money"] = {"amount": "twelve", "currency": 840}
    elif kind == "totals":
        result["total_money"]["amount"] += 1
        result["net_amounts"]["total_money"]["amount"] += 1
    elif kind == "currency":
        text = msgspec.json.encode(result).replace(f'"{result["total_money"]["currency"]}"'.encode(), b'"XQX"')
        result.update(msgspec.json.decode(text))
    elif kind == "timestamp":
        result["created_at"] = "yesterday"


class OrderWriter:
    """Serialises orders, each once: a sale that has not changed is answered from memory."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._kept: dict[str, tuple[int, bytes]] = {}
        self._bytes = 0

    def __call__(self, sale: Sale) -> bytes:
        """Return the order's JSON."""
        kept = self._kept.get(sale.id)
        if kept is not None and kept[0] == sale.revision:
            return kept[1]
        body = self._encode(order(sale))
        # Beyond this much memory the rest is written anew each time: slower, but the world stays servable.
        if kept is not None or self._bytes + len(body) <= _CACHE_BYTES:
            self._bytes += len(body) - (len(kept[1]) if kept is not None else 0)
            self._kept[sale.id] = (sale.revision, body)
        return body
