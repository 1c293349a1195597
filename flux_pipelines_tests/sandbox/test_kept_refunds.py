"""Restaurants and web shops: refunds stay on the order that was sold, and whatever was paid is what was owed."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.options import SandboxOptions
from flux_sandbox.pricing import half_even, price
from flux_sandbox.truth import total_of, truth
from flux_sandbox.truth_feeds import payments_total, payments_truth
from flux_sandbox.world import World

HOUR = 3_600_000
END = date(2026, 11, 20)
KEPT = ("harbor-kitchen", "harbor-shop", "fjord-shop")


@pytest.fixture(scope="module")
def month() -> World:
    return World(SandboxOptions(history_days=45, end_day=END))


@pytest.mark.parametrize("handle", KEPT)
def test_returns_are_no_orders_and_change_the_order_that_was_sold(month: World, handle: str) -> None:
    merchant = month.merchant(handle)
    ids = [location.id for location in merchant.locations]
    orders = {sale.id: sale for _, sale in month.between(ids, "updated", 0, 2**60)}
    backs = [sale for sale in month.sales.values() if month.owner(sale) is merchant and sale.returns]
    assert len(backs) > 20
    assert not orders.keys() & {back.id for back in backs}
    for back in backs:
        source = back.returns[0].source
        assert source is not None
        assert source.id in orders
        assert month.refunds_of(source) == [back]
        assert source.closed is not None
        assert back.created > source.closed
        assert source.updated >= back.created
    assert any(b.created - (b.returns[0].source.closed or 0) > 24 * HOUR for b in backs if b.returns[0].source)


def test_everything_that_restaurants_and_shops_must_show_happens(month: World) -> None:
    seen: Counter[str] = Counter()
    for handle in KEPT:
        merchant = month.merchant(handle)
        trade = merchant.trade
        for sale in month.sales.values():
            if month.owner(sale) is not merchant:
                continue
            seen[f"{trade} {sale.state}"] += 1
            seen[f"{trade} test"] += sale.test
            seen[f"{trade} deleted"] += sale.deleted
            seen[f"{trade} late"] += sale.arrived is not None and sale.arrived - sale.created > 12 * HOUR
            seen[f"{trade} {sale.source}"] += 1
            seen[f"{trade} gift card sold"] += any(line.kind == "GIFT_CARD" for line in sale.lines)
            seen[f"{trade} discount"] += bool(sale.discounts)
            seen[f"{trade} tip"] += bool(price(sale).tip)
            seen[f"{trade} customer"] += sale.customer is not None
            seen["presentment"] += sale.presentment is not None
            seen["gratuity"] += any(charge.auto_gratuity for charge in sale.charges)
            seen["taxed charge"] += any(charge.tax for charge in price(sale).charges)
            for line in sale.lines:
                chosen = [one.modifier for one in line.modifiers]
                seen["size"] += any(modifier.required for modifier in chosen)
                seen["double"] += any(one.quantity == 2 for one in line.modifiers)
                seen["weighed"] += bool(line.precision)
                if line.item is not None:
                    required = {m.group for m in line.item.modifiers if m.required}
                    assert sorted(m.group for m in chosen if m.required) == sorted(required)
            for back in sale.returns:
                seen[f"{trade} money alone"] += not back.itemised
                seen[f"{trade} whole"] += back.charges_back
                assert back.source is not None
                part = any(n < back.source.lines[i].quantity for i, n in back.parts)
                seen[f"{trade} part of a line"] += part
            for paid in month.payments_of(sale):
                seen[f"{trade} {paid.kind} {paid.type}"] += 1
                seen[f"{trade} payment {paid.status}"] += 1
                seen[f"{trade} late fee"] += paid.fee_at > paid.at
            seen[f"{trade} split"] += len(price(sale).tenders) > 1
    both = ["OPEN", "COMPLETED", "CANCELED", "test", "late", "gift card sold", "discount", "tip", "customer", "whole"]
    both += ["money alone", "payment CARD", "payment CASH", "payment GIFT_CARD", "payment OTHER", "refund CARD"]
    both += ["payment canceled", "payment failed", "late fee", "split"]
    wanted = [f"{trade} {what}" for trade in ("restaurant", "shop") for what in both]
    wanted += ["restaurant deleted", "restaurant In Store", "restaurant Online", "shop web", "shop pos"]
    wanted += ["shop part of a line", "presentment", "gratuity", "taxed charge", "size", "double", "weighed"]
    assert [what for what in wanted if not seen[what]] == []
    # What came back in a restaurant is noted on the line, which has no room for a quantity.
    assert not seen["restaurant part of a line"]


def test_ids_look_like_the_providers_own(month: World) -> None:
    forms = {"guid": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")}
    forms["number"] = re.compile(r"[4-8]\d{12}")
    for handle in KEPT:
        merchant = month.merchant(handle)
        form = forms[merchant.id_style]
        sales = [sale for sale in month.sales.values() if month.owner(sale) is merchant]
        ids = [merchant.locations[0].id, merchant.id, *(item.id for item in merchant.items)]
        ids += [customer.id for customer in merchant.customers] + [shift.id for shift in merchant.shifts]
        ids += [sale.id for sale in sales] + [one.id for sale in sales[:500] for one in month.payments_of(sale)]
        assert [id_ for id_ in ids if not form.fullmatch(id_)] == []
    every = [sale.id for sale in month.sales.values()]
    assert len(every) == len(set(every))
    shop = month.merchant("harbor-shop")
    assert shop.id == shop.locations[0].id
    online = {sale.location.id for sale in month.sales.values() if sale.source == "web"}
    assert online == {month.merchant(handle).locations[0].id for handle in KEPT[1:]}


def test_a_night_until_two_belongs_to_the_evening_before(month: World) -> None:
    (late,) = [x for x in month.merchant("harbor-kitchen").locations if x.opens + x.hours > 24]
    zone = ZoneInfo(late.timezone)
    hours: Counter[int] = Counter()
    for _, sale in month.between([late.id], "created", 0, 2**60):
        hours[datetime.fromtimestamp(sale.created / 1000, UTC).astimezone(zone).hour] += 1
    assert hours[0] > 10
    assert hours[1] > 10
    assert not any(hours[hour] for hour in range(3, 11))
    own = {day.business_date: day.orders for day in truth(month, location_ids=[late.id])}
    assert own == {day.business_date: day.orders for day in truth(month, location_ids=[late.id], cutoff_hour=4)}
    plain = {day.business_date: day.orders for day in truth(month, location_ids=[late.id], cutoff_hour=0)}
    assert max(own) == END
    assert plain != own
    assert sum(plain.values()) == sum(own.values())


def test_truth_counts_a_refund_on_its_own_day_and_as_no_order() -> None:
    now = datetime(2026, 11, 24, 15, tzinfo=UTC)
    world = World(SandboxOptions(history_days=3, end_day=END, clock=lambda: now))
    shop = world.merchant("harbor-shop")
    sold_at = datetime(2026, 11, 19, 15, tzinfo=UTC)
    sale = world.sell(shop.locations[1].id, created=sold_at, goods=[(shop.items[0], 2), (shop.items[5], 1)])

    def figures() -> dict[date, tuple[int, ...]]:
        days = truth(world, location_ids=[shop.locations[1].id])
        return {d.business_date: (d.orders, d.return_orders, d.net, d.tax, d.total, d.returns) for d in days}

    before = figures()
    back = world.refund(sale.id, lines=[0])
    line = price(sale).lines[0]
    changed = {day: row for day, row in figures().items() if row != before.get(day)}
    worth = line.total - line.tax
    assert changed == {now.date(): (0, 1, -worth, -line.tax, -line.total, -worth)}
    assert world.refunds_of(sale) == [back]
    # The rest can be given back once, what came back before cannot be again.
    world.refund(sale.id)
    with pytest.raises(ConfigurationError, match="nothing of the order"):
        world.refund(sale.id)
    assert figures()[sold_at.date()] == before[sold_at.date()]
    assert figures()[now.date()][:2] == (0, 1)  # two refunds, of one order
    (day,) = truth(world, location_ids=[shop.locations[1].id], first=now.date(), last=now.date())
    paid = payments_truth(world, location_ids=[shop.locations[1].id], first=now.date(), last=now.date())
    assert day.total == sum(row.amount + row.tip for row in paid) == -price(sale).total
    left = next(one.amount for one in world.payments_of(sale)) - sum(
        refund.amount for back in world.refunds_of(sale) for refund in world.payments_of(back)
    )
    assert left == 0


def test_an_automatic_gratuity_is_a_tip_where_the_provider_says_so(month: World) -> None:
    kitchen = month.merchant("harbor-kitchen")
    party = next(
        sale
        for sale in month.sales.values()
        if month.owner(sale) is kitchen
        and sale.state == "COMPLETED"
        and any(c.auto_gratuity for c in sale.charges)
        and not month.refunds_of(sale)
    )
    lone = World(SandboxOptions(), [kitchen], [party])
    (day,) = truth(lone)
    gratuity = sum(c.total for c in price(party).charges if c.charge.auto_gratuity)
    assert gratuity > 0
    assert day.tips == price(party).tip + gratuity
    assert day.service_charges == sum(c.total - c.tax for c in price(party).charges if not c.charge.auto_gratuity)
    assert day.net + day.tax + day.tips + day.gift_cards + day.rounding == day.total


@pytest.mark.parametrize("handle", ["harbor", "sakura", "fjord", *KEPT])
def test_what_was_paid_is_what_was_owed(month: World, handle: str) -> None:
    days = truth(month, merchant=handle)
    for day in days:
        assert day.net + day.tax + day.tips + day.gift_cards + day.rounding == day.total
        if handle not in KEPT:  # elsewhere what was not paid counts too
            assert sum(day.tenders.values()) == day.total
    unpaid = [
        price(sale).total - price(sale).rounding
        for sale in month.sales.values()
        if month.owner(sale).handle == handle and sale.state == "OPEN" and not (sale.test or sale.is_paid)
    ]
    owed = {currency: figures["total"] for currency, figures in total_of(days).items()}
    rows = payments_truth(month, merchant=handle)
    totals = payments_total(rows)
    # What was paid of an invoice that is not paid in full yet is owed by no sale so far.
    deposits = sum(
        sum(tender.amount for tender in price(sale).tenders)
        for sale in month.sales.values()
        if month.owner(sale).handle == handle and sale.state == "OPEN" and not sale.is_paid
    )
    waiting = (sum(unpaid) if handle in KEPT else 0) - deposits
    assert owed == {currency: t["paid"] + t["refunded"] + t["tip"] + waiting for currency, t in totals.items()}
    assert unpaid or handle not in KEPT
    assert all(t["refunded"] < 0 and t["fee"] < 0 for t in totals.values())
    assert all(row.amount == row.tip == row.fee == 0 for row in rows if row.status != "completed")


@pytest.mark.parametrize("handle", KEPT)
def test_no_payment_is_given_back_more_than_once_and_fees_come_later(month: World, handle: str) -> None:
    merchant = month.merchant(handle)
    ids = [location.id for location in merchant.locations]
    now, unknown = month.now_ms(), 0
    for _, sale in month.between(ids, "created", 0, 2**60):
        paid = {one.id: one for one in month.payments_of(sale) if one.status == "completed"}
        assert sum(one.amount + one.tip for one in paid.values()) == (
            price(sale).total if sale.state == "COMPLETED" and not sale.test else 0
        )
        back: Counter[str] = Counter()
        tips: Counter[str] = Counter()
        for refund in (one for back in month.refunds_of(sale) for one in month.payments_of(back)):
            back[refund.source_id] += refund.amount
            tips[refund.source_id] += refund.tip
        assert all(back[id_] <= paid[id_].amount and tips[id_] <= paid[id_].tip for id_ in back)
        for one in paid.values():
            if one.type == "CARD":
                assert one.fee == half_even((one.amount + one.tip) * 26, 1000) + 10
                assert one.fee_known(one.fee_at) == one.fee
                unknown += one.fee_at > one.at and one.fee_known(one.at) == 0
            else:
                assert one.fee == 0
            assert one.updated(now) >= one.at
    assert unknown > 10
