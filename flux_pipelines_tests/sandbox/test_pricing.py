from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json as msgjson

from flux_sandbox.businesses import tax
from flux_sandbox.model import (
    Charge,
    Chosen,
    Discount,
    Line,
    Location,
    Modifier,
    Payment,
    Returned,
    Sale,
)
from flux_sandbox.pricing import half_even, price, share
from flux_sandbox.square.orders import order


def store(*taxes: object, currency: str = "USD", country: str = "US", cash_step: int = 1) -> Location:
    return Location(
        "L1", "M1", "Here", "America/New_York", currency, country, "Town", "NY", "1", tuple(taxes), cash_step
    )


def sale(location: Location, *lines: Line, **rest: object) -> Sale:
    return Sale("O1", location, 0, 0, 0, lines=lines, **rest)  # type: ignore[arg-type]


def line(price_: int, quantity: int = 1, **rest: object) -> Line:
    return Line("ITEM", None, "Thing", quantity, price_, **rest)  # type: ignore[arg-type]


def written(one: Sale) -> dict[str, object]:
    decoded: dict[str, object] = msgjson.decode(msgjson.encode(order(one)))
    return decoded


FOOD_TAX = tax("State Sales Tax", 90_000, {"food", "drink", "goods"})


def test_comes_to_what_square_prints_in_its_own_worked_example(shared: Path) -> None:
    example = json.loads((shared / "examples/square/order_create.json").read_text())["order"]
    ours = sale(
        store(FOOD_TAX),
        line(1599),
        line(2200, 2, modifiers=(Chosen(Modifier("m", "Well", 50), 1),)),
        discounts=(
            Discount("Membership Discount", "0.5", 5_000),
            Discount("Labor Day Sale", "5", 50_000),
            Discount("Sale - $1.00 off", amount=100, line=1),
        ),
    )
    ours.state = "OPEN"
    result = written(ours)
    for name in ("total_money", "total_tax_money", "total_discount_money", "net_amounts"):
        assert result[name] == example[name]
    for mine, theirs in zip(result["line_items"], example["line_items"], strict=True):
        for name in ("gross_sales_money", "variation_total_price_money", "total_discount_money", "total_tax_money"):
            assert mine[name] == theirs[name]
        assert mine["total_money"] == theirs["total_money"]
        applied = [entry["applied_money"]["amount"] for entry in mine["applied_discounts"]]
        assert applied == [entry["applied_money"]["amount"] for entry in theirs["applied_discounts"]]
        taxes = [entry["applied_money"]["amount"] for entry in mine["applied_taxes"]]
        assert taxes == [entry["applied_money"]["amount"] for entry in theirs["applied_taxes"]]
    assert [d["applied_money"] for d in result["discounts"]] == [d["applied_money"] for d in example["discounts"]]
    assert [t["applied_money"] for t in result["taxes"]] == [t["applied_money"] for t in example["taxes"]]


def test_comes_to_what_square_prints_for_half_off(shared: Path) -> None:
    example = json.loads((shared / "examples/square/order_retrieve.json").read_text())["order"]
    ours = sale(store(), line(500), line(300, 2), discounts=(Discount("50% Off", "50", 500_000),))
    ours.state = "OPEN"
    result = written(ours)
    for name in ("total_money", "total_discount_money", "net_amounts"):
        assert result[name] == example[name]


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=12), st.integers(0, 999_999))
def test_a_rate_shared_over_lines_loses_nothing(bases: list[int], rate: int) -> None:
    numerators = [base * rate for base in bases]
    total = half_even(sum(numerators), 1_000_000)
    parts = share(total, numerators, 1_000_000)
    assert sum(parts) == total
    assert all(abs(part * 1_000_000 - exact) < 1_000_000 for part, exact in zip(parts, numerators, strict=True))


@pytest.mark.parametrize(("n", "d", "expected"), [(5, 10, 0), (15, 10, 2), (25, 10, 2), (26, 10, 3), (0, 7, 0)])
def test_rounds_half_to_even(n: int, d: int, expected: int) -> None:
    assert half_even(n, d) == expected


def test_included_tax_leaves_gross_in_the_united_states_and_not_elsewhere() -> None:
    included = tax("ALV", 255_000, {"food"}, inclusive=True)
    american = written(sale(store(included), line(1255)))["line_items"][0]
    finnish = written(sale(store(included, currency="EUR", country="FI"), line(1255)))["line_items"][0]
    assert american["gross_sales_money"]["amount"] == 1000
    assert finnish["gross_sales_money"]["amount"] == 1255
    for shown in (american, finnish):
        assert shown["total_tax_money"]["amount"] == 255
        assert shown["total_money"]["amount"] == 1255


def test_weighed_goods_round_half_to_even_on_the_price() -> None:
    figures = price(sale(store(), line(333, 1500, precision=3)))
    assert figures.lines[0].value == 500  # 499.5


def test_cash_is_rounded_to_the_smallest_coin_and_cards_are_not() -> None:
    cash = price(sale(store(cash_step=5), line(333), payments=(Payment("CASH"),)))
    card = price(sale(store(cash_step=5), line(333), payments=(Payment("CARD"),)))
    assert (cash.rounding, cash.total, cash.tenders[0].amount) == (2, 335, 335)
    assert (card.rounding, card.total) == (0, 333)


def test_a_taxed_gratuity_an_apportioned_fee_and_a_surcharge_after_tax() -> None:
    charges = (
        Charge("Gratuity", "18", 180_000, auto_gratuity=True, taxable=True),
        Charge("Fee", "3", 30_000, apportioned=True),
        Charge("Surcharge", "1", 10_000, after_tax=True),
    )
    figures = price(sale(store(FOOD_TAX), line(1000), line(500), charges=charges, payments=(Payment("CARD"),)))
    gratuity, fee, surcharge = figures.charges
    assert (gratuity.applied, gratuity.tax, gratuity.total) == (270, 24, 294)
    assert (fee.applied, fee.beside) == (45, 0)
    assert [one.charged for one in figures.lines] == [30, 15]
    lines = sum(one.total for one in figures.lines)
    assert surcharge.applied == half_even((lines + 294) * 10_000, 1_000_000)
    assert figures.total == lines + 294 + surcharge.total
    assert figures.tenders[0].amount == figures.total


def test_what_is_sold_and_given_back_whole_comes_to_nothing() -> None:
    source = sale(
        store(FOOD_TAX, cash_step=5),
        line(1599),
        line(2200, 3),
        discounts=(Discount("Third off", "33.33", 333_300),),
        charges=(Charge("Fee", "3", 30_000, apportioned=True), Charge("Gratuity", "18", 180_000, taxable=True)),
        payments=(Payment("CASH"),),
    )
    whole = Returned(source, ((0, 1), (1, 3)), tip_back=True, charges_back=True)
    back = price(Sale("O2", source.location, 1, 1, 1, returns=(whole,)))
    assert back.refund == price(source).total
    assert back.returns[0].total == back.refund


def test_parts_given_back_one_by_one_stay_within_a_cent_each() -> None:
    source = sale(store(FOOD_TAX), line(1000, 3), discounts=(Discount("Tenth", "10", 100_000),))
    one = price(Sale("O2", source.location, 1, 1, 1, returns=(Returned(source, ((0, 1),)),)))
    assert abs(3 * one.refund - price(source).total) <= 3
    shown = written(Sale("O3", source.location, 1, 1, 1, returns=(Returned(source, ((0, 1),)),)))
    assert shown["total_money"]["amount"] == 0
    assert shown["net_amounts"]["total_money"]["amount"] == -one.refund
    assert shown["refunds"][0]["amount_money"]["amount"] == one.refund
