"""When each part of an order counts: the three rules, told apart on one and the same order."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_sandbox.counting import counted, paid_at
from flux_sandbox.model import Line, Location, Payment, Sale, State
from flux_sandbox.options import SandboxOptions
from flux_sandbox.pricing import price
from flux_sandbox.truth import DayTruth, truth
from flux_sandbox.truth_feeds import payments_truth
from flux_sandbox.world import World

DAY, HOUR = 86_400_000, 3_600_000
NOON = int(datetime(2026, 11, 10, 12, tzinfo=UTC).timestamp() * 1000)


def order(state: State, closed: int | None, *payments: Payment, at: Location | None = None) -> Sale:
    place = at or Location("L1", "M1", "Store", "UTC", "USD", "US", "", "", "")
    line = Line("CUSTOM_AMOUNT", None, "Catering", 1, 20_000, tax_class="none")
    return Sale("O1", place, NOON, NOON, closed, state, lines=(line,), payments=payments)


def test_an_order_counts_once_it_is_paid_in_full_wherever_it_is_paid() -> None:
    cases = {
        "a tab that is paid after midnight": (order("COMPLETED", NOON + 13 * HOUR, Payment("CARD")), NOON + 13 * HOUR),
        "instalments": (
            order("COMPLETED", NOON + 8 * DAY, Payment("CARD", 5_000, NOON), Payment("CARD", None, NOON + 8 * DAY)),
            NOON + 8 * DAY,
        ),
        "paid ahead, picked up later": (order("OPEN", None, Payment("CARD", None, NOON + HOUR)), NOON + HOUR),
        "paid ahead, closed since": (order("COMPLETED", NOON + DAY, Payment("CARD", None, NOON)), NOON),
    }
    for name, (sale, at) in cases.items():
        assert [(one.at, one.what) for one in counted(sale, "paid")] == [(at, "sale")], name
        assert paid_at(sale) == at, name
    assert [one.what for one in counted(order("CANCELED", NOON + DAY), "paid")] == ["void"]


def test_what_is_not_paid_in_full_counts_where_the_rule_says_so() -> None:
    part = order("OPEN", None, Payment("CARD", 5_000, NOON), Payment("CARD"))
    assert [tender.amount for tender in price(part).tenders] == [5_000]
    assert [one.what for one in counted(part, "paid")] == ["open"]
    for rule in ("dated", "placed"):
        assert {(one.what, one.at) for one in counted(part, rule)} == {("sale", NOON), ("open", NOON)}  # type: ignore[arg-type]
    gone = order("CANCELED", NOON + 3 * DAY)
    assert [(one.what, one.at) for one in counted(gone, "dated")] == [("void", NOON)]
    assert {(one.what, one.at) for one in counted(gone, "placed")} == {("sale", NOON), ("cancellation", NOON + 3 * DAY)}


@pytest.fixture
def shop() -> World:
    return World(SandboxOptions(history_days=2, end_day=date(2026, 11, 9)))


def days_of(world: World, place: str) -> dict[date, DayTruth]:
    return {one.business_date: one for one in truth(world, location_ids=[place], first=date(2026, 11, 10))}


def test_a_deposit_is_a_payment_of_its_day_and_a_sale_of_none_before_the_rest_is_paid(shop: World) -> None:
    place = shop.merchant("fjord").locations[0]
    shop.add(order("COMPLETED", NOON + 8 * DAY, Payment("CARD", 5_000, NOON), Payment("CARD"), at=place))
    (day,) = days_of(shop, place.id).values()
    assert (day.business_date, day.total, day.tenders["CARD"]) == (date(2026, 11, 18), 20_000, 20_000)
    paid = payments_truth(shop, location_ids=[place.id], first=date(2026, 11, 10))
    assert [(one.business_date, one.amount) for one in paid] == [
        (date(2026, 11, 10), 5_000),
        (date(2026, 11, 18), 15_000),
    ]


def test_an_edit_and_a_cancellation_change_their_own_day_alone() -> None:
    now = datetime(2026, 11, 10, 12, tzinfo=UTC)
    world = World(SandboxOptions(history_days=2, end_day=date(2026, 11, 9), clock=lambda: now))
    owner = world.merchant("harbor-shop")
    place = owner.locations[1]
    sale = world.sell(place.id, goods=[(owner.items[0], 1)])
    (placed,) = days_of(world, place.id).values()
    now = datetime(2026, 11, 12, 12, tzinfo=UTC)
    world.edit(sale.id, add_units=2)
    edited = days_of(world, place.id)
    figures = ("orders", "lines", "units", "gross", "discount", "net", "tax", "total")
    assert [getattr(edited[date(2026, 11, 10)], name) for name in figures] == [
        getattr(placed, name) for name in figures
    ]
    more = edited[date(2026, 11, 12)]
    assert (more.orders, more.lines, more.units, more.gross) == (0, 1, 2, 2 * placed.gross)
    assert placed.total + more.total == price(sale).total

    waiting = order("OPEN", None, at=place)
    waiting.id = "8888888888888"
    world.add(waiting)
    before = days_of(world, place.id)
    now = datetime(2026, 11, 15, 12, tzinfo=UTC)
    world.cancel(waiting.id)
    after = days_of(world, place.id)
    gone = after.pop(date(2026, 11, 15))
    assert {day: one.total for day, one in after.items()} == {day: one.total for day, one in before.items()}
    assert (gone.return_orders, gone.returns, gone.total, gone.voids) == (1, -20_000, -20_000, 0)


def test_the_seeded_world_has_what_real_merchants_have() -> None:
    world = World(SandboxOptions(history_days=60, end_day=date(2026, 11, 9)))
    seen: dict[str, int] = {}

    def see(what: str) -> None:
        seen[what] = seen.get(what, 0) + 1

    for sale in world.sales.values():
        owner = world.owner(sale)
        if sale.state == "OPEN" and sale.is_paid:
            see("paid ahead, and still open")
        if sale.state == "COMPLETED" and len({payment.at for payment in sale.payments}) > 1:
            see("paid in instalments")
        if sale.state == "OPEN" and not sale.is_paid and price(sale).tenders:
            see("paid in part")
        if sale.state == "OPEN" and owner.counts_when == "dated" and NOON - sale.created > 10 * DAY:
            see("never paid")
        for returned in sale.returns:
            if returned.source is not None and sale.created - returned.source.created > 14 * DAY:
                see(f"given back weeks later, {owner.counts_when}")
        if sale.state == "CANCELED" and owner.counts_when == "placed" and (sale.closed or 0) - sale.created > 3 * HOUR:
            see("cancelled later")
        if owner.counts_when == "paid" and sale.closed is not None and "Late" in sale.location.name:
            opened, paid = (datetime.fromtimestamp(at / 1000, UTC) for at in (sale.created, paid_at(sale)))
            if BusinessCalendar(sale.location.timezone).date_of(opened) != BusinessCalendar(
                sale.location.timezone
            ).date_of(paid):
                see("a tab over midnight")
    assert seen.keys() == {
        *("paid ahead, and still open", "paid in instalments", "paid in part", "never paid", "cancelled later"),
        *(f"given back weeks later, {rule}" for rule in ("paid", "dated", "placed")),
        "a tab over midnight",
    }
    assert sum(seen.values()) < len(world.sales) / 20, "they are rare"
