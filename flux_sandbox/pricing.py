"""What an order comes to: the published arithmetic of a point of sale, in integers only.

Rates are rounded half to even on the whole order, then shared over its lines by largest remainder; discounts apply one
after the other, each to what the earlier ones left; taxes apply to what the discounts left. Checked against the worked
examples in Square's own OpenAPI document (`order_create.json`) by test_pricing.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from flux_sandbox.model import (
    Charge,
    Payment,
    Priced,
    PricedCharge,
    PricedLine,
    PricedReturn,
    PricedTender,
    Returned,
    Sale,
    Tax,
)

MILLION = 1_000_000


def half_even(numerator: int, denominator: int) -> int:
    """Return numerator / denominator (not negative) rounded half to even."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient & 1))


def share(total: int, numerators: Sequence[int], denominator: int) -> list[int]:
    """Split `total` over exact shares `n / denominator` by largest remainder; ties go to the earlier line."""
    shares = [n // denominator for n in numerators]
    missing = total - sum(shares)
    if missing:
        order = sorted(range(len(shares)), key=lambda i: (-(numerators[i] % denominator), i))
        for i in order[:missing]:
            shares[i] += 1
    return shares


def _at_rate(bases: Sequence[int], rate: int, denominator: int = MILLION) -> list[int]:
    numerators = [base * rate for base in bases]
    return share(half_even(sum(numerators), denominator), numerators, denominator)


def _discounts(sale: Sale, values: list[int]) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """Return what each discount takes off each line, and what is left of the lines."""
    taken: list[list[tuple[int, int]]] = [[] for _ in values]
    left = values[:]
    # The documented order: percentages before amounts, and a line's own before the order's.
    order = sorted(enumerate(sale.discounts), key=lambda d: (bool(d[1].amount), d[1].line is None, d[0]))
    for index, discount in order:
        if discount.line is None:
            targets = [i for i, line in enumerate(sale.lines) if line.kind != "GIFT_CARD"]
        else:
            targets = [discount.line]
        bases = [left[i] for i in targets]
        if discount.amount:
            whole = sum(bases)
            amount = min(discount.amount, whole)
            parts = share(amount, [base * amount for base in bases], whole) if whole else [0] * len(bases)
        else:
            parts = _at_rate(bases, discount.rate)
        for i, part in zip(targets, parts, strict=True):
            taken[i].append((index, part))
            left[i] -= part
    return taken, left


def _taxes(taxes: Sequence[Tax], bases: Sequence[int], classes: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return each tax's amount on each base (lines, then taxable charges)."""
    result: list[list[tuple[int, int]]] = [[] for _ in bases]
    for index, tax in enumerate(taxes):
        targets = [i for i, tax_class in enumerate(classes) if tax_class in tax.covers]
        if not targets:
            continue
        denominator = MILLION + tax.rate if tax.inclusive else MILLION
        for i, amount in zip(targets, _at_rate([bases[i] for i in targets], tax.rate, denominator), strict=True):
            result[i].append((index, amount))
    return result


def _tax_sums(taxes: Sequence[Tax], applied: Sequence[tuple[int, int]]) -> tuple[int, int]:
    included = sum(amount for index, amount in applied if taxes[index].inclusive)
    return sum(amount for _, amount in applied), included


def _tenders(payments: Sequence[Payment], due: int, tip: int) -> tuple[PricedTender, ...]:
    """Share what is due over the payments; the tip goes on the last one, which pays the rest."""
    tenders = []
    for payment in payments:
        last = payment is payments[-1]
        amount = due if last or payment.limit is None else min(payment.limit, due)
        due -= amount
        if last:
            amount += tip
        if amount or len(payments) == 1:
            tenders.append(PricedTender(payment.type, amount, tip if last else 0, payment.at))
    return tuple(tenders)


def _rounded(amount: int, step: int) -> int:
    """Return the cash rounding that brings `amount` to the nearest multiple of `step`."""
    return half_even(amount, step) * step - amount


def price(sale: Sale) -> Priced:
    """Return what an order comes to, computed once per revision of the order."""
    if sale.priced is None:
        sale.priced = _price(sale)
    return sale.priced


def _price(sale: Sale) -> Priced:
    taxes = sale.location.taxes
    variation_totals: list[int] = []
    modifier_totals: list[tuple[int, ...]] = []
    values: list[int] = []
    for line in sale.lines:
        scale = 10**line.precision
        variation_total = half_even(line.unit_price * line.quantity, scale)
        modifiers = tuple(half_even(m.price * n * line.quantity, scale) for m, n in line.modifiers)
        variation_totals.append(variation_total)
        modifier_totals.append(modifiers)
        values.append(variation_total + sum(modifiers))
    if sale.discounts:
        taken, left = _discounts(sale, values)
    else:
        taken, left = [[] for _ in values], values
    sold = [i for i, line in enumerate(sale.lines) if line.kind != "GIFT_CARD"]
    goods = sum(left[i] for i in sold)
    spread: list[list[tuple[int, int]]] = [[] for _ in values]
    beside: list[tuple[int, Charge, int]] = []  # charges before tax: index, charge, amount
    priced: dict[int, PricedCharge] = {}
    for index, charge in enumerate(sale.charges):
        if charge.apportioned:
            parts = _at_rate([left[i] for i in sold], charge.rate)
            for i, part in zip(sold, parts, strict=True):
                spread[i].append((index, part))
            priced[index] = PricedCharge(charge, sum(parts), (), 0, 0)
        elif not charge.after_tax:
            beside.append((index, charge, half_even(goods * charge.rate, MILLION) if charge.rate else charge.amount))
    classes = [line.tax_class for line in sale.lines] + ["food" if c.taxable else "none" for _, c, _ in beside]
    bases = [base + sum(part for _, part in spread[i]) for i, base in enumerate(left)]
    applied = _taxes(taxes, bases + [amount for _, _, amount in beside], classes)
    lines = tuple(
        PricedLine(
            line,
            line.quantity,
            variation_totals[i],
            modifier_totals[i],
            values[i],
            tuple(taken[i]),
            tuple(applied[i]),
            values[i] - left[i],
            *_tax_sums(taxes, applied[i]),
            tuple(spread[i]),
        )
        for i, line in enumerate(sale.lines)
    )
    for n, (index, charge, amount) in enumerate(beside, start=len(lines)):
        priced[index] = PricedCharge(charge, amount, tuple(applied[n]), *_tax_sums(taxes, applied[n]))
    due = sum(line.total for line in lines) + sum(charge.beside for charge in priced.values())
    for index, charge in enumerate(sale.charges):
        if charge.after_tax:
            amount = half_even(due * charge.rate, MILLION) if charge.rate else charge.amount
            priced[index] = PricedCharge(charge, amount, (), 0, 0)
    charges = tuple(priced[index] for index in range(len(sale.charges)))
    due = sum(line.total for line in lines) + sum(charge.beside for charge in charges)
    returns = tuple(_price_return(sale, returned) for returned in sale.returns)
    back = sum(one.total for one in returns)
    tip = sale.tip or half_even(goods * sale.tip_rate, MILLION)
    cash = bool(sale.payments) and all(payment.type == "CASH" for payment in sale.payments)
    rounding = _rounded(due, sale.location.cash_step) if cash and due and not tip else 0
    total = due + rounding + tip
    to_pay = max(0, due + rounding - back) if returns else due + rounding
    tenders = _tenders(sale.payments, to_pay, tip) if sale.state != "CANCELED" else ()
    if sale.state == "OPEN":
        tenders = tuple(tender for tender in tenders if tender.at is not None)  # the others are still to come
    return Priced(lines, charges, returns, tenders, tip, rounding, total, max(0, back - total))


def _price_return(sale: Sale, returned: Returned) -> PricedReturn:
    if returned.source is None or returned.lines:
        # Nothing to copy from: the goods (or a bare amount) are taken back at today's price, with today's taxes.
        alone = Sale("", sale.location, 0, 0, None, "OPEN", lines=returned.lines)
        links = returned.links or (-1,) * len(returned.lines)
        return PricedReturn(returned, tuple(zip(links, _price(alone).lines, strict=True)), (), 0, 0)
    source = price(returned.source)
    lines = tuple((index, _part(source.lines[index], quantity)) for index, quantity in returned.parts)
    charges = []
    for index, charge in enumerate(source.charges):
        if charge.charge.apportioned:
            part = sum(amount for _, line in lines for i, amount in line.spread if i == index)
            charges.append((index, charge._replace(applied=part)))
        elif returned.charges_back:
            charges.append((index, charge))
    tip = source.tip if returned.tip_back else 0
    everything = returned.charges_back and sum(line.total for _, line in lines) == sum(x.total for x in source.lines)
    return PricedReturn(returned, lines, tuple(charges), tip, source.rounding if everything else 0)


def _part(line: PricedLine, quantity: int) -> PricedLine:
    """Return the figures of `quantity` out of a sold line: all of them, or in proportion.

    A line's taxes are either all added to its price or all included in it.
    """
    if quantity == line.quantity:
        return line

    def cut(amount: int) -> int:
        return half_even(amount * quantity, line.quantity)

    variation_total = cut(line.variation_total)
    modifiers = tuple(cut(amount) for amount in line.modifier_totals)
    discounts = tuple((index, cut(amount)) for index, amount in line.discounts)
    taxes = tuple((index, cut(amount)) for index, amount in line.taxes)
    tax = sum(amount for _, amount in taxes)
    return PricedLine(
        line.line,
        quantity,
        variation_total,
        modifiers,
        variation_total + sum(modifiers),
        discounts,
        taxes,
        sum(amount for _, amount in discounts),
        tax,
        tax if line.included else 0,
        tuple((index, cut(amount)) for index, amount in line.spread),
    )
