"""What really is beside orders: payments, the catalogue, stock, hours worked, added up from the world itself.

Amounts are integer minor units. Refunds are negative. Payments belong to the business date on which they were taken or given
back, whatever the date of their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_sandbox.model import Location, Merchant
from flux_sandbox.payments import PaidTender
from flux_sandbox.truth import product_of
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


class _Span:
    """The business dates asked for, at one store, as UTC milliseconds with both ends included."""

    def __init__(self, location: Location, cutoff: int, first: date | None, last: date | None) -> None:
        self.calendar = BusinessCalendar(location.timezone, cutoff)
        self.low = int(self.calendar.start(first).timestamp() * 1000) if first else -(2**62)
        self.high = int(self.calendar.window(last)[1].timestamp() * 1000) - 1 if last else 2**62

    def date_of(self, at: int) -> date:
        return self.calendar.date_of(datetime.fromtimestamp(at / 1000, UTC))


def _stores(
    world: World, merchant: str | None, location_ids: Iterable[str] | None
) -> Iterator[tuple[Merchant, Location]]:
    wanted = set(location_ids) if location_ids is not None else set(world.locations)
    for owner in [world.merchant(merchant)] if merchant else list(world.merchants.values()):
        for location in owner.locations:
            if location.id in wanted:
                yield owner, location


def _paid(world: World, owner: Merchant, location: Location, span: _Span) -> list[tuple[int, PaidTender]]:
    """Return every payment with the instant that its business date follows from."""
    found = []
    for _, sale in world.between([location.id], "created", -(2**62), span.high):
        if sale.updated < span.low or (sale.corrupt and owner.refunds_on_source):
            continue  # nothing happened since; or nobody can read what is kept on it
        for one in (sale, *(world.refunds_of(sale) if owner.refunds_on_source else ())):
            found += [(paid.at, paid) for paid in world.payments_of(one) if span.low <= paid.at <= span.high]
    return found


def payments_truth(
    world: World,
    *,
    merchant: str | None = None,
    location_ids: Iterable[str] | None = None,
    first: date | None = None,
    last: date | None = None,
    cutoff_hour: int | None = None,
) -> list[PaymentTruth]:
    """Return what was paid and given back, by store, business date, kind, type of tender and status; dates inclusive."""
    now = world.now_ms()
    found: dict[tuple[str, date, str, str, str], PaymentTruth] = {}
    for owner, location in _stores(world, merchant, location_ids):
        span = _Span(location, owner.cutoff_hour if cutoff_hour is None else cutoff_hour, first, last)
        for at, paid in _paid(world, owner, location, span):
            key = (location.id, span.date_of(at), paid.kind, paid.type, paid.status)
            if key not in found:
                found[key] = PaymentTruth(owner.id, key[0], key[1], location.currency, *key[2:])
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
    """Return every item as it is in its catalogue now; deleted ones are not active."""
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
    for owner, location in _stores(world, merchant, None):
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


def labor_truth(
    world: World,
    *,
    merchant: str | None = None,
    location_ids: Iterable[str] | None = None,
    first: date | None = None,
    last: date | None = None,
    cutoff_hour: int | None = None,
) -> list[Json]:
    """Return who worked when, on the business date of the begin of work; deleted entries too, which say so."""
    found = []
    for owner, location in _stores(world, merchant, location_ids):
        span = _Span(location, owner.cutoff_hour if cutoff_hour is None else cutoff_hour, first, last)
        for shift in world.shifts_between([location.id], "start", span.low, span.high):
            found.append(
                {
                    "merchant_id": owner.id,
                    "location_id": location.id,
                    "business_date": span.date_of(shift.start).isoformat(),
                    "time_entry_id": shift.id,
                    "employee_id": shift.employee.id,
                    "job": shift.employee.job,
                    "wage": shift.employee.wage,
                    "currency": location.currency,
                    "start_ms": shift.start,
                    "end_ms": shift.end,
                    "breaks": shift.breaks,
                    "tips": shift.tips,
                    "updated_ms": shift.updated,
                    "deleted": shift.deleted,
                }
            )
    return found
