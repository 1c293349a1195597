"""What a provider's own sales report says: the truth of an interval, store by store or order by order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from flux_sandbox.truth import DayKey, DayTruth, add

if TYPE_CHECKING:
    from flux_sandbox.counting import Counted
    from flux_sandbox.model import Merchant
    from flux_sandbox.world import World

#: A report is of an interval, not of a date; what it is made of wants one.
_NO_DATE = date.min
_HOUR = 3_600_000


def order_id(one: Counted) -> str:
    """Tell orders apart."""
    return one.sale.id


def hour(one: Counted) -> str:
    """Tell hours apart, in UTC and without an offset."""
    return datetime.fromtimestamp(one.at // _HOUR * _HOUR / 1000, UTC).strftime("%Y-%m-%dT%H:00:00.000")


def reported(
    world: World,
    owner: Merchant,
    location_ids: Iterable[str],
    low: int,
    high: int,
    *,
    apart: Callable[[Counted], str] | None = None,
) -> dict[tuple[str, str], DayTruth]:
    """Return what counts from one instant to another (UTC milliseconds, both included), by location and what tells it apart.

    That is an order's id or an hour, for example; empty without it. Where nothing counts, there is no entry.
    """
    found: dict[tuple[str, str], DayTruth] = {}
    if world.reporting.empty:
        return found
    given_back: set[tuple[DayKey, str]] = set()
    currencies = {location.id: location.currency for location in owner.locations}
    for location_id in location_ids:
        for one in world.counting(location_id, low, world.reporting.until(high, world.now_ms())):
            if one.what in ("malformed", "open", "void"):
                continue
            key = (location_id, apart(one) if apart is not None else "")
            if key not in found:
                found[key] = DayTruth(owner.id, location_id, _NO_DATE, currencies[location_id])
            add(found[key], one, owner, given_back)
    return found
