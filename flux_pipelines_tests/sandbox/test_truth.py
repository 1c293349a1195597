"""The truth is added up from intent; here it meets figures read from the JSON alone, by other arithmetic."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_sandbox.options import SandboxOptions
from flux_sandbox.square.orders import OrderWriter
from flux_sandbox.truth import total_of, truth
from flux_sandbox.world import World


def amount(money: dict[str, Any] | None) -> int:
    return money["amount"] if money else 0


def read_order(order: dict[str, Any], into: Counter[str], units: dict[str, Decimal]) -> None:
    """Add an order up as a careful reader of Square's documentation would."""
    goods = [(line, 1) for line in order.get("line_items", [])]
    charges = [(charge, 1) for charge in order.get("service_charges", [])]
    into["tips"] += amount(order.get("total_tip_money"))
    into["rounding"] += amount(order.get("rounding_adjustment", {}).get("amount_money"))
    for back in order.get("returns", []):
        goods += [(line, -1) for line in back["return_line_items"]]
        charges += [(charge, -1) for charge in back.get("return_service_charges", [])]
        into["tips"] -= sum(amount(tip["applied_money"]) for tip in back.get("return_tips", []))
        into["rounding"] -= amount(back.get("rounding_adjustment", {}).get("amount_money"))
    for line, sign in goods:
        total, tax = amount(line["total_money"]), amount(line["total_tax_money"])
        within, discount = amount(line["total_service_charge_money"]), amount(line["total_discount_money"])
        if line["item_type"] == "GIFT_CARD":
            into["gift_cards"] += sign * total
            continue
        key = line.get("catalog_object_id") or f"name:{line.get('name', '')}"
        units[key] += sign * Decimal(line["quantity"])
        into["net"] += sign * (total - tax - within)
        into["discount"] += sign * discount
        into["tax"] += sign * tax
    for charge, sign in charges:
        revenue = amount(charge["total_money"]) - amount(charge["total_tax_money"])
        into["service_charges"] += sign * revenue
        into["net"] += sign * revenue
        into["tax"] += sign * amount(charge["total_tax_money"])
    into["total"] += amount(order["net_amounts"]["total_money"])
    for tender in order.get("tenders", []):
        into[f"tender {tender['type'].removeprefix('SQUARE_')}"] += amount(tender["amount_money"])  # the world's word
    into["tender REFUND"] -= sum(amount(refund["amount_money"]) for refund in order.get("refunds", []))


@pytest.fixture(scope="module")
def world() -> World:
    return World(SandboxOptions(history_days=12, end_day=date(2026, 11, 5)))


@pytest.mark.parametrize("cutoff", [0, 4])
@pytest.mark.parametrize("handle", ["harbor", "sakura", "fjord"])
def test_truth_is_what_the_orders_say(world: World, handle: str, cutoff: int) -> None:
    merchant = world.merchant(handle)
    write = OrderWriter()
    read: dict[tuple[str, date], Counter[str]] = defaultdict(Counter)
    units: dict[tuple[str, date], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    calendars = {x.id: BusinessCalendar(x.timezone, cutoff) for x in merchant.locations}
    for sale in world.sales.values():
        order = msgspec.json.decode(write(sale))
        # "Fully paid", open ones too, on the date of the final payment: developer.squareup.com/docs/reporting-api.
        paid = order["state"] in ("OPEN", "COMPLETED") and not amount(order["net_amount_due_money"])
        if order["location_id"] not in calendars or not paid:
            continue
        instants = [tender["created_at"] for tender in order.get("tenders", [])]
        last = datetime.fromisoformat(max(instants) if instants else order["closed_at"]).astimezone(UTC)
        key = (order["location_id"], calendars[order["location_id"]].date_of(last))
        read_order(order, read[key], units[key])
    told = {(day.location_id, day.business_date): day for day in truth(world, merchant=handle, cutoff_hour=cutoff)}
    assert set(read) <= set(told)
    assert len(told) >= 10
    for key, day in told.items():
        figures = read[key]
        for name in ("tips", "rounding", "gift_cards", "net", "discount", "tax", "service_charges", "total"):
            assert figures[name] == getattr(day, name), (key, name)
        assert day.gross - day.discount == day.net
        assert day.net + day.tax + day.tips + day.gift_cards + day.rounding == day.total
        tenders = {name[7:]: value for name, value in figures.items() if name.startswith("tender ") and value}
        assert tenders == {name: value for name, value in day.tenders.items() if value}
        assert sum(day.tenders.values()) == day.total
        assert dict(units[key]) == day.item_quantities
        assert sum(day.item_quantities.values()) == day.units


def test_every_order_adds_up_by_itself(world: World) -> None:
    write = OrderWriter()
    for sale in world.sales.values():
        order = msgspec.json.decode(write(sale))
        lines = sum(amount(line["total_money"]) for line in order.get("line_items", []))
        charges = sum(
            amount(charge["total_money"])
            for charge in order.get("service_charges", [])
            if charge["treatment_type"] != "APPORTIONED_TREATMENT"
        )
        rounding = amount(order.get("rounding_adjustment", {}).get("amount_money"))
        total = lines + charges + amount(order["total_tip_money"]) + rounding
        assert total == amount(order.get("total_money")), order
        back = amount(order.get("return_amounts", {}).get("total_money"))
        assert amount(order["net_amounts"]["total_money"]) == total - back
        for line in order.get("line_items", []):
            assert sum(amount(t["applied_money"]) for t in line.get("applied_taxes", [])) == amount(
                line["total_tax_money"]
            )
            assert sum(amount(d["applied_money"]) for d in line.get("applied_discounts", [])) == amount(
                line["total_discount_money"]
            )
        for kind, uid in (("taxes", "tax_uid"), ("discounts", "discount_uid")):
            known = {entry["uid"]: amount(entry["applied_money"]) for entry in order.get(kind, [])}
            sums: Counter[str] = Counter()
            holders = order.get("line_items", []) + order.get("service_charges", [])
            for holder in holders:
                for applied in holder.get(f"applied_{kind}", []):
                    sums[applied[uid]] += amount(applied["applied_money"])
            assert dict(sums) == known


def test_days_of_25_hours_and_cutoffs_move_orders_between_dates(world: World) -> None:
    jfk = next(x for x in world.merchant("harbor").locations if x.name.startswith("JFK"))
    plain = {d.business_date: d.orders for d in truth(world, location_ids=[jfk.id])}
    night = {d.business_date: d.orders for d in truth(world, location_ids=[jfk.id], cutoff_hour=4)}
    assert sum(plain.values()) == sum(night.values())
    assert plain != night


def test_totals_are_sums_of_days(world: World) -> None:
    days = truth(world, first=date(2026, 10, 30), last=date(2026, 11, 1))
    assert {day.business_date for day in days} == {date(2026, 10, 30), date(2026, 10, 31), date(2026, 11, 1)}
    totals = total_of(days)
    assert set(totals) == {"USD", "JPY", "EUR"}
    assert totals["JPY"]["net"] == sum(day.net for day in days if day.currency == "JPY")


def test_an_edit_a_refund_and_a_bad_order_change_the_truth() -> None:
    options = SandboxOptions(history_days=2, end_day=date(2026, 11, 5))
    world = World(options)
    before = total_of(truth(world, merchant="fjord"))["EUR"]
    sale = world.sell(world.merchant("fjord").locations[0].id)
    after = total_of(truth(world, merchant="fjord"))["EUR"]
    assert after["orders"] == before["orders"] + 1
    world.edit(sale.id, add_units=1)
    edited = total_of(truth(world, merchant="fjord"))["EUR"]
    assert edited["total"] > after["total"]
    world.refund(sale.id)
    refunded = total_of(truth(world, merchant="fjord"))["EUR"]
    assert refunded["total"] == before["total"]
    assert refunded["return_orders"] == before["return_orders"] + 1
    world.malform("totals", world.merchant("fjord").locations[0].id)
    spoilt = total_of(truth(world, merchant="fjord"))["EUR"]
    assert spoilt["malformed"] == 1
    assert spoilt["total"] == before["total"]
