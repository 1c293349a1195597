"""What really is beside orders: payments, the catalog, stock, hours worked, added up from the world itself.

Amounts are integer minor units. Refunds are negative. Payments belong to the business date on which they were taken or given
back, whatever the date of their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Unpack

from flux_sandbox.payments import PaidTender
from flux_sandbox.truth import Asked, Span, product_of, spans
from flux_sandbox.world import World

Json = dict[str, Any]


@dataclass(slots=True)
class PaymentTruth:
    """The payments or refunds of one kind: store, business date, type of tender, status.

    `amount` is without `tip`; what did not complete moved no money and has zeros. `fee` is zero or negative, and only what
    is known by now.
    """

    merchant_id: str
    location_id: str
    business_date: date
    currency: str
    kind: str
    type: str
    status: str
    count: int = 0
    amount: int = 0
    tip: int = 0
    fee: int = 0

    def as_json(self) -> Json:
        """Return plain values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["business_date"] = self.business_date.isoformat()
        return values


def _paid(world: World, span: Span) -> list[tuple[int, PaidTender]]:
    """Return every payment with the instant that its business date follows from."""
    found = []
    kept = span.owner.refunds_on_source
    for _, sale in world.between([span.location.id], "created", -(2**62), span.high):
        if sale.updated < span.low or (sale.corrupt and kept):
            continue  # nothing happened since; or nobody can read what is kept on it
        for one in (sale, *(world.refunds_of(sale) if kept else ())):
            found += [(paid.at, paid) for paid in world.payments_of(one) if span.low <= paid.at <= span.high]
    return found


def payments_truth(world: World, **asked: Unpack[Asked]) -> list[PaymentTruth]:
    """Return what was paid and given back, by store, business date, kind, type of tender and status; see `truth.spans`."""
    now = world.now_ms()
    found: dict[tuple[str, date, str, str, str], PaymentTruth] = {}
    for span in spans(world, **asked):
        for at, paid in _paid(world, span):
            key = (span.location.id, span.date_of(at), paid.kind, paid.type, paid.status)
            if key not in found:
                found[key] = PaymentTruth(span.owner.id, key[0], key[1], span.location.currency, *key[2:])
            row = found[key]
            row.count += 1
            if paid.status == "completed":
                sign = 1 if paid.kind == "payment" else -1
                row.amount += sign * paid.amount
                row.tip += sign * paid.tip
                row.fee -= paid.fee_known(now)
    return [found[key] for key in sorted(found)]


def payments_total(rows: Iterable[PaymentTruth]) -> dict[str, dict[str, int]]:
    """Return the sums of completed payments and refunds, by currency."""
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        into = totals.setdefault(
            row.currency, {"payments": 0, "paid": 0, "refunds": 0, "refunded": 0, "tip": 0, "fee": 0}
        )
        if row.status == "completed":
            into[f"{row.kind}s"] += row.count
            into["paid" if row.kind == "payment" else "refunded"] += row.amount
            into["tip"] += row.tip
            into["fee"] += row.fee
    return totals


def products_truth(world: World, merchant: str | None = None) -> list[Json]:
    """Return every item as it is in its catalog now; deleted ones are not active."""
    owners = [world.merchant(merchant)] if merchant else list(world.merchants.values())
    return [
        {
            "merchant_id": owner.id,
            "product_id": product_of(item, owner),
            "item_id": item.product_id,
            "name": item.name,
            "variation": item.variation,
            "category": item.category,
            "sku": item.sku,
            "upc": item.upc,
            "price": item.price,
            "currency": owner.currency,
            "tracked": item.tracked,
            "active": not item.deleted,
            "updated_ms": item.updated,
        }
        for owner in owners
        for item in owner.items
    ]


def inventory_truth(world: World, merchant: str | None = None) -> list[Json]:
    """Return how much of every counted item each store has now; deleted items are not counted any more."""
    found = []
    for owner, location, *_ in spans(world, merchant):
        for item in owner.items:
            count = owner.counts.get((location.id, item.id))
            if count is not None and not item.deleted:
                found.append(
                    {
                        "merchant_id": owner.id,
                        "location_id": location.id,
                        "product_id": product_of(item, owner),
                        "sku": item.sku,
                        "quantity": count.quantity,
                        "updated_ms": count.updated,
                    }
                )
    return found


def labor_truth(world: World, **asked: Unpack[Asked]) -> list[Json]:
    """Return who worked when, on the business date of the begin of work; deleted entries too, which say so."""
    found = []
    for span in spans(world, **asked):
        for shift in world.shifts_between([span.location.id], "start", span.low, span.high):
            found.append(
                {
                    "merchant_id": span.owner.id,
                    "location_id": span.location.id,
                    "business_date": span.date_of(shift.start).isoformat(),
                    "time_entry_id": shift.id,
                    "employee_id": shift.employee.id,
                    "job": shift.employee.job,
                    "wage": shift.employee.wage,
                    "currency": span.location.currency,
                    "start_ms": shift.start,
                    "end_ms": shift.end,
                    "breaks": shift.breaks,
                    "tips": shift.tips,
                    "updated_ms": shift.updated,
                    "deleted": shift.deleted,
                }
            )
    return found
