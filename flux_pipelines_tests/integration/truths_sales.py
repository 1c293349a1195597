"""The tables of sales, compared with the truth: every order, every line, the days, what was asked for, what ties out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

from flux_pipelines_tests.integration.truths import Ask, Findings, Merchant, Row, tender_of

_AMOUNTS = ("gross", "discount", "net", "service_charges", "returns", "tax", "tips", "gift_cards", "rounding", "total")
#: What was rung up without a name is called so.
_UNNAMED = {"name:": "name:Custom amount"}
_GOODS = "line_type in ('item', 'custom_amount')"


def sales(findings: Findings, merchant: Merchant, ask: Ask) -> None:
    """Compare everything that is made of orders."""
    days = merchant.true("")["days"]
    every = merchant.orders()
    orders = [one for one in every if merchant.first <= (one["sold_on"] or one["day"]) <= merchant.last]
    _orders(findings, merchant, ask, orders)
    _lines(findings, merchant, ask, days)
    _daily_sales(findings, merchant, ask, days)
    _item_demand(findings, merchant, ask, days)
    _tie_out(findings, merchant, ask, days)


def _orders(findings: Findings, merchant: Merchant, ask: Ask, orders: Iterable[Row]) -> None:
    """Every order is there once, with its own total; every cancelled one is void."""
    found = {
        order: (place, day, total)
        for order, place, day, total in ask(
            "select order_id, location_id, min(business_date), sum(total) filter (kind = 'sale') as sold from transactions "
            f"where {merchant.mine} group by order_id, location_id having sold <> 0"
        )
    }
    true = {
        one["order_id"]: (one["location_id"], one["sold_on"], merchant.money(one["total"], one["location_id"]))
        for one in orders
        if one["sold_on"] is not None and one["total"]
    }
    findings.compare("transactions, orders", merchant.handle, found, true)
    void = ask(f"select distinct order_id, business_date from transactions where {merchant.mine} and kind = 'void'")
    cancelled = {one["order_id"]: one["day"] for one in orders if one["state"] == "CANCELED" and one["sold_on"] is None}
    findings.compare("transactions, voids", merchant.handle, dict(void), cancelled)


def _key(row: Row) -> tuple[str, date, str]:
    return row["location_id"], date.fromisoformat(row["business_date"]), row["currency"]


def _lines(findings: Findings, merchant: Merchant, ask: Ask, days: Iterable[Row]) -> None:
    """The lines themselves add up: how many there are, how many units, and every amount that a line has."""
    found = {
        (place, day, currency): tuple(figures)
        for place, day, currency, *figures in ask(
            f"select location_id, business_date, currency, count(*) filter ({_GOODS} or line_type = 'gift_card'), "
            f"coalesce(sum(quantity) filter ({_GOODS}), 0), sum(gross), sum(discount), sum(net), sum(tax), sum(total) "
            f"from transactions where {merchant.mine} and kind in ('sale', 'return') group by all"
        )
    }
    true = {
        _key(day): (
            day["lines"],
            Decimal(day["units"]),
            *(merchant.money(day[name], day["location_id"]) for name in ("gross", "discount", "net", "tax", "total")),
        )
        for day in days
        if day["orders"] or day["return_orders"]
    }
    findings.compare("transactions", merchant.handle, found, true)


def _daily_sales(findings: Findings, merchant: Merchant, ask: Ask, days: Iterable[Row]) -> None:
    names = (
        "gross, discounts, net, service_charges, refunds, tax, tips, gift_cards, rounding, total, tendered_cash, "
        "tendered_card, tendered_gift_card, tendered_other, tendered_refund"
    )
    counts = "orders, returns, voids, units"
    found = {
        (place, day, currency): dict(zip([*counts.split(", "), *names.split(", ")], figures, strict=True))
        for place, day, currency, *figures in ask(
            f"select location_id, business_date, currency, {counts}, {names} from daily_sales where {merchant.mine}"
        )
    }
    true = {}
    for day in days:
        if not (day["orders"] or day["return_orders"] or day["voids"]):
            continue
        tenders: Counter[str] = Counter()
        for type_, amount in day["tenders"].items():
            tenders[tender_of(type_)] += amount
        place, at, currency = _key(day)
        amounts = [*(day[name] for name in _AMOUNTS)]
        amounts += [tenders[name] for name in ("cash", "card", "gift_card", "other", "refund")]
        true[place, at, currency] = {
            "orders": day["orders"],
            "returns": day["return_orders"],
            "voids": day["voids"],
            "units": Decimal(day["units"]),
            **{name: merchant.money(amount, place) for name, amount in zip(names.split(", "), amounts, strict=True)},
        }
    # Of a store's date, only what is wrong is told.
    for key in found.keys() & true.keys():
        same = [name for name, value in true[key].items() if found[key][name] == value]
        for name in same:
            del found[key][name], true[key][name]
    findings.compare("daily_sales", merchant.handle, found, true)


def _item_demand(findings: Findings, merchant: Merchant, ask: Ask, days: Iterable[Row]) -> None:
    # What was deleted may be known by its name only, in old orders too.
    gone = {
        one["product_id"]: f"name:{one['name']}|{one['variation']}"
        for one in merchant.true("/products")["products"]
        if merchant.untold("deleted_goods") and not one["active"]
    }
    found: dict[Any, Decimal] = defaultdict(Decimal)
    for place, day, product, quantity in ask(
        f"select location_id, business_date, product_id, quantity from daily_item_demand where {merchant.mine}"
    ):
        name, bar, variation = product.rpartition("|")
        by_hand = product.startswith("name:") and bar and not variation
        found[place, day, name if by_hand else product] += quantity
    known = {**gone, **_UNNAMED}
    true = {
        (day["location_id"], date.fromisoformat(day["business_date"]), known.get(product, product)): Decimal(quantity)
        for day in days
        for product, quantity in day["item_quantities"].items()
    }
    findings.compare(
        "daily_item_demand",
        merchant.handle,
        {key: quantity for key, quantity in found.items() if quantity},
        {key: quantity for key, quantity in true.items() if quantity},
    )


def _tie_out(findings: Findings, merchant: Merchant, ask: Ask, days: Iterable[Row]) -> None:
    """What was owed is the truth; and that nothing is apart says that what was paid is it too."""
    found = {}
    for place, day, currency, owed, gap, orders, complete in ask(
        "select location_id, business_date, currency, owed, gap, coalesce(gap_orders, ''), payments_known "
        f"from tie_out where {merchant.mine}"
    ):
        if owed or gap:
            found[place, day, currency] = (owed, gap, orders, complete)
    true = {_key(day): (merchant.money(day["total"], day["location_id"]), 0, "", True) for day in days}
    # A date on which nothing was sold is in no table; one on which nothing was sold for money may be.
    findings.compare("tie_out", merchant.handle, found, {key: row for key, row in true.items() if row[0]})
