"""The shop floor before anybody asks: who worked when, and how much of everything there is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from random import Random

from flux_sandbox.history import CLOSED_DOWN_DAYS, HOUR, end_of, local_ms
from flux_sandbox.ids import made
from flux_sandbox.model import Count, Employee, Location, Merchant, Shift

_DAY = 24 * HOUR
_FLOATERS = 3
_EARLIEST = 6  # the hour at which the first shift begins where it is always open
_LATE = 8  # hours after the first shift at which the second may begin at the latest
_BREAKS = (0, 0, 15, 30, 30, 45)


def shifts(seed: int, merchant: Merchant, end_day: date, days: int) -> list[Shift]:
    """Return who worked when, oldest first within a location, in the `days` business dates that end with `end_day`.

    Some forgot to clock out, some entries were corrected days later or deleted, and late ones cross midnight. A web shop
    keeps no hours.
    """
    found: list[Shift] = []
    if merchant.trade == "shop":
        return found
    places = len(merchant.locations)
    for place, location in enumerate(merchant.locations):
        last_ms = end_of(location, end_day)
        for back in range(days - 1, -1, -1):
            if not location.active and back < CLOSED_DOWN_DAYS:
                break
            day = end_day - timedelta(days=back)
            # The first ones work somewhere else every day: nobody is at two places at once.
            turn = day.toordinal() if places > 1 else 0
            staff = [
                employee
                for index, employee in enumerate(merchant.employees)
                if (index + (turn if index < _FLOATERS else 0)) % places == place
            ]
            found += _day(seed, merchant, location, day, staff, last_ms)
    return found


def _day(
    seed: int, merchant: Merchant, location: Location, day: date, staff: Sequence[Employee], last_ms: int
) -> list[Shift]:
    rng = Random(f"{seed}|shifts|{location.id}|{day}")  # noqa: S311
    found = []
    opening = local_ms(day, max(location.opens, _EARLIEST), location.timezone)
    for employee in staff:
        chance = rng.random()
        late = rng.random() < 0.5
        start = opening + int((rng.random() - 0.5) * HOUR)
        start += int(min(max(0.0, location.hours - 7), _LATE) * HOUR) if late else 0
        end = start + int((4.0 + 4.5 * rng.random()) * HOUR)
        breaks = rng.choice(_BREAKS)
        tips = rng.randrange(60) * 25
        edited = int((2 + 94 * rng.random()) * HOUR)
        if chance > 0.8 or start > last_ms:
            continue
        id_ = made(merchant.id_style, seed, "shift", location.id, day, employee.id)
        if chance < 0.01 or end > last_ms:
            # Still at work, or never clocked out.
            found.append(Shift(id_, employee, location, start, None, updated=start))
            continue
        shift = Shift(id_, employee, location, start, end, breaks, updated=end + 1000)
        if employee.job == "Server" and merchant.currency == "USD":
            shift.tips = tips
        if chance < 0.05:
            shift.updated = min(last_ms, end + edited)
            shift.deleted = chance < 0.02
        found.append(shift)
    return found


def stock(seed: int, merchant: Merchant, now_ms: int) -> dict[tuple[str, str], Count]:
    """Return how much of everything counted there is, at every open location; some is oversold."""
    counts: dict[tuple[str, str], Count] = {}
    for location in merchant.locations:
        rng = Random(f"{seed}|stock|{location.id}")  # noqa: S311
        for item in merchant.items:
            if item.tracked and location.active:
                chance = rng.random()
                quantity = 0 if chance < 0.08 else -rng.randrange(1, 4) if chance < 0.1 else rng.randrange(2, 90)
                counts[(location.id, item.id)] = Count(quantity, now_ms - rng.randrange(_DAY, 4 * _DAY))
    return counts
