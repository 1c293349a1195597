from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime

import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.options import SandboxOptions
from flux_sandbox.pricing import price
from flux_sandbox.square.orders import OrderWriter
from flux_sandbox.world import World

HOUR = 3_600_000
MONTH = SandboxOptions(history_days=45, end_day=date(2026, 11, 20))


@pytest.fixture(scope="module")
def month() -> World:
    return World(MONTH)


def test_the_same_seed_makes_the_same_world_to_the_byte() -> None:
    options = SandboxOptions(history_days=3, end_day=date(2026, 11, 2))
    one, two = World(options), World(options)
    write_one, write_two = OrderWriter(), OrderWriter()
    assert [write_one(s) for s in one.sales.values()] == [write_two(s) for s in two.sales.values()]
    other = World(SandboxOptions(seed=2, history_days=3, end_day=date(2026, 11, 2)))
    assert not set(other.sales) & set(one.sales)


def test_has_the_merchants_that_a_demonstration_needs(month: World) -> None:
    shape = [(m.handle, m.currency, len(m.locations)) for m in month.merchants.values()]
    assert shape == [
        ("harbor", "USD", 12),
        ("sakura", "JPY", 1),
        ("fjord", "EUR", 1),
        ("harbor-kitchen", "USD", 3),
        ("harbor-shop", "USD", 2),
        ("fjord-shop", "EUR", 2),
    ]
    harbor = month.merchant("Harbor Coffee")
    zones = Counter(location.timezone for location in harbor.locations)
    assert set(zones) == {"America/New_York", "America/Chicago", "America/Los_Angeles"}
    assert all(len({item.name for item in m.items}) >= 25 for m in month.merchants_of("square"))


def test_history_ends_yesterday_and_nothing_is_in_the_future() -> None:
    options = SandboxOptions(history_days=2)
    world = World(options)
    now = world.now_ms()
    assert all(sale.updated <= now and sale.created <= now for sale in world.sales.values())
    newest = max(sale.created for sale in world.sales.values())
    assert now - newest < 72 * HOUR


def test_everything_that_trips_up_a_reader_happens(month: World) -> None:
    sales = list(month.sales.values())
    seen: Counter[str] = Counter()
    for sale in sales:
        figures = price(sale)
        seen[sale.state] += 1
        seen["late"] += sale.updated - sale.created > 24 * HOUR
        seen["overnight"] += sale.closed is not None and sale.created // (24 * HOUR) != sale.closed // (24 * HOUR)
        seen["exchange"] += bool(sale.lines) and bool(sale.returns)
        seen["tip"] += bool(figures.tip)
        seen["rounding up"] += figures.rounding > 0
        seen["rounding down"] += figures.rounding < 0
        for line in sale.lines:
            seen[line.kind] += 1
            seen["fraction"] += bool(line.precision)
            seen["modifier"] += bool(line.modifiers)
            seen["several of a modifier"] += any(chosen.quantity > 1 for chosen in line.modifiers)
        for discount in sale.discounts:
            kind = "amount" if discount.amount else "rate"
            seen[f"{kind} off {'order' if discount.line is None else 'line'}"] += 1
        for charge in figures.charges:
            seen["charge taxed"] += bool(charge.tax) and not charge.included
            seen["charge with tax inside"] += bool(charge.included)
            seen["charge untaxed"] += not charge.tax
            seen["charge apportioned"] += charge.charge.apportioned
        for tender in figures.tenders:
            seen[f"paid by {tender.type}"] += 1
        for back in sale.returns:
            linked = "linked" if back.source else "unlinked"
            seen[f"return {linked}"] += 1
            seen["refund of money alone"] += not back.itemised
            seen["part of a line given back"] += any(
                back.source is not None and quantity < back.source.lines[index].quantity
                for index, quantity in back.parts
            )
    wanted = [
        "OPEN",
        "COMPLETED",
        "CANCELED",
        "late",
        "overnight",
        "exchange",
        "tip",
        "ITEM",
        "CUSTOM_AMOUNT",
        "GIFT_CARD",
        "fraction",
        "modifier",
        *(f"paid by {kind}" for kind in ("CARD", "CASH", "GIFT_CARD", "WALLET", "OTHER", "NO_SALE")),
    ]
    wanted += ["several of a modifier", "amount off order", "amount off line", "rate off order", "rate off line"]
    wanted += ["charge taxed", "charge with tax inside", "charge untaxed", "charge apportioned"]
    wanted += ["return linked", "return unlinked", "refund of money alone", "part of a line given back"]
    wanted += ["rounding up", "rounding down"]
    assert [what for what in wanted if not seen[what]] == []


def test_late_arrivals_stay_within_their_bounds(month: World) -> None:
    for sale in month.sales.values():
        assert sale.updated >= (sale.closed or sale.created) >= sale.created
        if not month.owner(sale).refunds_on_source:  # a refund changes the order that was sold
            assert sale.updated - (sale.closed or sale.created) <= 97 * HOUR


def test_demand_follows_the_week(month: World) -> None:
    harbor = month.merchant("harbor").locations[0]
    by_weekday: Counter[int] = Counter()
    for _, sale in month.between([harbor.id], "created", 0, 2**60):
        by_weekday[datetime.fromtimestamp(sale.created / 1000, UTC).weekday()] += 1
    assert by_weekday[5] > 1.15 * by_weekday[0]


def test_books_are_found_by_each_instant_in_both_directions(month: World) -> None:
    ids = [location.id for location in month.merchant("harbor").locations][:3]
    up = [sale.id for _, sale in month.between(ids, "updated", 0, 2**60)]
    down = [sale.id for _, sale in month.between(ids, "updated", 0, 2**60, descending=True)]
    assert up == down[::-1]
    entries = list(month.between(ids, "updated", 0, 2**60))
    middle = entries[len(entries) // 2][0]
    rest = [entry for entry, _ in month.between(ids, "updated", 0, 2**60, after=middle)]
    assert rest == [entry for entry, _ in entries if entry > middle]
    before = [entry for entry, _ in month.between(ids, "updated", 0, 2**60, after=middle, descending=True)]
    assert before == [entry for entry, _ in reversed(entries) if entry < middle]


def test_names_what_is_known_when_something_is_not(month: World) -> None:
    with pytest.raises(ConfigurationError, match="harbor, sakura, fjord"):
        month.merchant("nobody")
    with pytest.raises(ConfigurationError, match="no order 'x'"):
        month.edit("x")
    with pytest.raises(ConfigurationError, match="types, totals"):
        month.malform("colour")
