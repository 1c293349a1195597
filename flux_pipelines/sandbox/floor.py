"""The shop floor before anybody asks: who worked when, and how much of everything there is."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from flux_pipelines.sandbox.history import HOUR, MINUTE, local_ms
from flux_pipelines.sandbox.ids import made
from flux_pipelines.sandbox.model import Count, Location, Merchant, Shift

_DAY = 24 * HOUR


def shifts(seed: int, merchant: Merchant, end_day: date, days: int) -> list[Shift]:
    """Return who worked when, oldest first within a location, in the `days` business dates that end with `end_day`.

    Some forgot to clock out, some entries were corrected days later or deleted, and late ones cross midnight.
    """
    found: list[Shift] = []
    if not merchant.employees:
        return found
    for place, location in enumerate(merchant.locations):
        staff = [e for i, e in enumerate(merchant.employees) if i % len(merchant.locations) == place or i < 3]
        last_ms = local_ms(end_day, 24.0, location.timezone) - 1
        for back in range(days - 1, -1, -1):
            if not location.active and back < 30:
                break
            day = end_day - timedelta(days=back)
            found += _day(seed, merchant, location, day, staff, last_ms)
    return found


def _day(seed: int, merchant: Merchant, location: Location, day: date, staff: list, last_ms: int) -> list[Shift]:
    rng = Random(f"{seed}|shifts|{location.id}|{day}")  # noqa: S311
    found = []
    opening = local_ms(day, location.opens, location.timezone)
    # Each of the first staff works somewhere else every day: nobody is at two places at once.
    for employee in staff:
        if rng.random() < 0.25:
            continue
        late = rng.random() < 0.5
        start = opening + int(rng.uniform(-0.5, 0.25) * HOUR)
        if late:
            start += int(max(0.0, location.hours - 7) * HOUR)
        end: int | None = start + int(rng.uniform(4.0, 8.5) * HOUR)
        breaks = rng.choice((0, 0, 15, 30, 30, 45))
        tips = rng.randrange(0, 60) * 25 if employee.job == "Server" and merchant.currency == "USD" else 0
        chance = rng.random()
        shift = Shift(
            made(merchant.id_style, seed, "shift", location.id, day, employee.id),
            employee,
            location,
            start,
            end,
            breaks,
            tips,
        )
        if start > last_ms:
            continue
        if chance < 0.012 or (end is not None and end > last_ms):
            shift.end, shift.breaks, shift.tips, shift.updated = None, 0, 0, start
        else:
            assert end is not None  # noqa: S101 (set above)
            shift.updated = end + rng.randrange(MINUTE)
            if chance < 0.05:
                shift.updated = min(last_ms, end + int(rng.uniform(2, 96) * HOUR))
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
