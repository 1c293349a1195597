"""The tables beside sales, compared with the truth: payments, the catalog, stock, hours worked.

What a provider does not tell (`Merchant.untold`) is not asked of its rows, and neither are working times that were deleted.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from flux_pipelines_tests.integration.truths import Ask, Findings, Merchant, Row, tender_of

_MINUTE = 60_000
_ROUNDED = Decimal("0.0001")  # to so many hours do providers give them


def payments(findings: Findings, merchant: Merchant, ask: Ask) -> None:
    """Compare payments and refunds: how many, how much, tips and fees."""
    apart = not merchant.untold("refund_tips")
    found: dict[Any, tuple[Any, ...]] = {}
    for place, day, kind, tender, status, count, both, tip, fee in ask(
        "select location_id, business_date, kind, tender, status, count(*), sum(amount + tip), sum(tip), sum(fee) "
        f"from payments where {merchant.mine} group by all"
    ):
        told = apart or kind == "payment"
        found[place, day, kind, tender, status] = (count, both, tip if told else None, fee)
    sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in merchant.true("/payments")["payments"]:
        key = (
            row["location_id"],
            date.fromisoformat(row["business_date"]),
            row["kind"],
            tender_of(row["type"]),
            row["status"],
        )
        for index, value in enumerate((row["count"], row["amount"] + row["tip"], row["tip"], row["fee"])):
            sums[key][index] += value
    money = merchant.money
    true = {
        key: (
            count,
            money(both, key[0]),
            money(tip, key[0]) if apart or key[2] == "payment" else None,
            money(fee, key[0]),
        )
        for key, (count, both, tip, fee) in sums.items()
    }
    findings.compare("payments", merchant.handle, found, true)


def goods(findings: Findings, merchant: Merchant, ask: Ask) -> None:
    """Compare what can be bought now."""
    told = merchant.true("/products")["products"]
    true = {
        one["product_id"]: (
            one["name"], one["variation"] or None, one["category"], one["sku"] or None, one["upc"] or None,
            merchant.money(one["price"]), one["currency"],
        )
        for one in told
        if one["active"]
    }  # fmt: skip
    found = {
        id_: tuple(row)
        for id_, *row in ask(
            "select product_id, product_name, variation, category, sku, upc, price, currency from products "
            f"where connection = '{merchant.key}' and valid_to is null and active"
        )
    }
    if merchant.untold("modifiers_apart"):
        known = {one["product_id"] for one in told}
        found = {id_: row for id_, row in found.items() if id_ in known}
    findings.compare("products", merchant.handle, found, true)


def stores(findings: Findings, merchant: Merchant, ask: Ask) -> None:
    """Compare where things are sold."""
    findings.compare(
        "locations",
        merchant.handle,
        {
            id_: tuple(row)
            for id_, *row in ask(
                "select location_id, timezone, currency, cutoff_hour, active from locations "
                f"where connection = '{merchant.key}'"
            )
        },
        {
            one["id"]: (one["timezone"], one["currency"], merchant.told["cutoff_hour"], one["active"])
            for one in merchant.told["locations"]
        },
    )


def stock(findings: Findings, merchant: Merchant, ask: Ask) -> None:
    """Compare the newest snapshot with what there is."""
    mine = f"connection = '{merchant.key}'"
    rows = ask(
        f"select location_id, product_id, quantity, availability from inventory_levels where {mine} "
        f"and snapshot_at = (select max(snapshot_at) from inventory_levels where {mine})"
    )
    counted = {
        (one["location_id"], one["product_id"]): Decimal(one["quantity"])
        for one in merchant.true("/inventory")["counts"]
    }
    if not merchant.untold("whole_stock"):
        levels = {(place, product): quantity for place, product, quantity, _ in rows if quantity is not None}
        findings.compare("inventory_levels", merchant.handle, levels, counted)
        return
    # What is left is counted down, and of the rest there is some or none.
    said = {(place, product): (quantity, availability) for place, product, quantity, availability in rows}
    true: dict[Any, Any] = {
        (place["id"], one["product_id"]): (None, "in_stock")
        for place in merchant.told["locations"]
        for one in merchant.true("/products")["products"]
        if one["active"]
    }
    true |= {key: (n, "limited") if n > 0 else (None, "out_of_stock") for key, n in counted.items()}
    findings.compare("inventory_levels", merchant.handle, said, true)


def labor(findings: Findings, merchant: Merchant, ask: Ask) -> None:
    """Compare who worked when, for how long and for what."""
    unit = _MINUTE if merchant.untold("seconds_of_work") else 1
    true = {
        one["time_entry_id"]: _worked(merchant, one, unit)
        for one in merchant.true("/labor")["time_entries"]
        if not one["deleted"]
    }
    found = {}
    for id_, place, day, who, job, begin, end, breaks, hours, wage, tips, status in ask(
        "select time_entry_id, location_id, business_date, employee_id, job_title, clock_in, clock_out, "
        "unpaid_break_minutes, paid_hours, hourly_wage, declared_cash_tips, status "
        f"from time_entries where {merchant.mine} and status <> 'deleted'"
    ):
        span = (_ms(begin), _ms(end))
        closed = None
        if end is not None:
            exact = true[id_][-3][1] if id_ in true and true[id_][-3] else hours
            closed = (breaks, exact if abs(hours - exact) <= _ROUNDED else hours, tips)
        found[id_] = (place, day, who, job, span, closed, wage, status)
    findings.compare("time_entries", merchant.handle, found, true)


def _worked(merchant: Merchant, one: Row, unit: int) -> tuple[Any, ...]:
    begin, end = one["start_ms"] // unit * unit, None if one["end_ms"] is None else one["end_ms"] // unit * unit
    closed = None
    if end is not None:
        hours = Decimal(end - begin - one["breaks"] * _MINUTE) / 3_600_000
        closed = (Decimal(one["breaks"]), hours, merchant.money(one["tips"], one["location_id"]))
    day = date.fromisoformat(one["business_date"])
    wage = merchant.money(one["wage"], one["location_id"])
    status = "open" if end is None else "closed"
    return one["location_id"], day, one["employee_id"], one["job"], (begin, end), closed, wage, status


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
