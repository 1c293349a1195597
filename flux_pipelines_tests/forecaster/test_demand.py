from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from flux_pipelines.domain.tables import DAILY_ITEM_DEMAND, DEMAND_FORECASTS
from flux_pipelines.forecaster.demand import DemandPlan, demand_window, forecast_rows, plan_demand
from flux_pipelines.forecaster.items import ItemForecast, SkippedItem

AS_OF = date(2025, 6, 30)


def row(day: date, product: str, quantity: Any, **other: Any) -> dict[str, Any]:
    given = {
        "connection": "square:acme",
        "tenant": "acme",
        "location_id": "L1",
        "business_date": day,
        "product_id": product,
        "product_name": product.title(),
        "variation": None,
        "category": None,
        "currency": "USD",
        "quantity": Decimal(quantity).quantize(Decimal("0.00001")),
        "net": Decimal("1.0000"),
    }
    return given | other


def ago(days: int) -> date:
    return AS_OF - timedelta(days=days)


def daily(product: str, first: int = 59, last: int = 0, quantity: Any = 2, **other: Any) -> list[dict[str, Any]]:
    return [row(ago(n), product, quantity, **other) for n in range(first, last - 1, -1)]


def plan(*rows: dict[str, Any], as_of: date = AS_OF) -> DemandPlan:
    return plan_demand(pa.Table.from_pylist(list(rows), schema=DAILY_ITEM_DEMAND.arrow_schema()), as_of)


def test_a_day_the_location_traded_without_the_product_is_an_explicit_zero() -> None:
    sold = [r for r in daily("latte") if r["business_date"] != ago(10)]
    made = plan(*sold, *daily("tea"))
    latte, tea = made.histories
    assert (latte.item.product_id, tea.item.product_id) == ("latte", "tea")
    assert dict(latte.points)[ago(10)] == 0
    assert len(latte.points) == len(tea.points) == 60
    assert [day for day, _ in latte.points] == sorted(day for day, _ in latte.points)
    assert all(isinstance(quantity, Decimal) for _, quantity in latte.points)


def test_a_day_the_location_was_closed_is_left_out() -> None:
    closed = {ago(0), ago(20), ago(21)}
    here = [r for p in ("latte", "tea") for r in daily(p) if r["business_date"] not in closed]
    # Another location, and another connection's location of the same id, were open.
    made = plan(*here, *daily("latte", location_id="L2"), *daily("latte", connection="square:bravo", tenant="bravo"))
    dates = {(h.item.connection, h.item.location_id): {d for d, _ in h.points} for h in made.histories}
    everyday = {ago(n) for n in range(60)}
    assert dates["square:acme", "L1"] == everyday - closed
    assert dates["square:acme", "L2"] == dates["square:bravo", "L1"] == everyday


def test_a_history_begins_with_the_first_sale_and_reaches_back_400_days() -> None:
    returned_before = row(ago(45), "new", -1)
    made = plan(*daily("old", first=500), returned_before, *daily("new", first=30))
    new, old = made.histories
    assert new.points[0] == (ago(30), Decimal(2))
    assert (old.points[0][0], len(old.points)) == (ago(399), 400)
    assert demand_window(AS_OF) == (ago(399), AS_OF)


def test_nothing_after_as_of_is_seen() -> None:
    made = plan(*daily("latte"), *daily("tea", first=9), as_of=ago(10))
    [latte] = made.histories
    assert latte.points[-1][0] == latte.as_of == ago(10)
    assert made.skipped == ()


def test_quantities_are_summed_over_currencies_and_returns_taken_off() -> None:
    both = [*daily("latte", quantity="1.25"), *daily("latte", quantity="0.5", currency="CAD"), row(ago(3), "tea", 1)]
    back = [row(ago(0), "latte", "-3", currency="EUR")]
    [latte] = plan(*both, *back).histories
    assert latte.points[0][1] == Decimal("1.75")
    assert latte.points[-1][1] == Decimal("-1.25")


def test_names_are_those_of_the_latest_date() -> None:
    rows = daily("p", last=5, product_name="Coffee", variation="Small", tenant="old")
    rows += daily("p", first=4, product_name="Kaffee", tenant="new")
    [history] = plan(*reversed(rows)).histories
    assert (history.item.product_name, history.item.variation, history.item.tenant) == ("Kaffee", None, "new")


@pytest.mark.parametrize(
    ("rows", "status", "told"),
    [
        (daily("p", first=26), "too_little_history", "sold on 27 dates since 2025-06-04 (27 days up to 2025-06-30)"),
        (daily("p", first=27), None, ""),
        ([row(ago(7 * n), "p", 1) for n in range(7)], "too_little_history", "sold on 7 dates since"),
        ([row(ago(7 * n), "p", 1) for n in range(8)], None, ""),
        (daily("p", last=28), "stale_history", "last sold on 2025-06-02, 28 days before 2025-06-30"),
        (daily("p", last=27), None, ""),
        ([row(ago(30), "p", -1)], "too_little_history", "only returned"),
        # Rung up and voided every day since is not sold.
        ([*daily("p", last=28), *daily("p", first=27, quantity=0)], "stale_history", "last sold on 2025-06-02"),
    ],
)
def test_too_little_and_stale_histories_say_so(rows: list[dict[str, Any]], status: str | None, told: str) -> None:
    made = plan(*rows, *daily("other"))
    skipped = {s.item.product_id: s for s in made.skipped}
    if status is None:
        assert skipped == {}
        assert len(made.histories) == 2
    else:
        assert skipped["p"].status == status
        assert told in skipped["p"].reason
        assert [h.item.product_id for h in made.histories] == ["other"]


def test_no_rows_make_an_empty_plan() -> None:
    assert plan() == DemandPlan(AS_OF, (), ())
    empty = forecast_rows(AS_OF, "e", [], [])
    assert empty.schema.equals(DEMAND_FORECASTS.arrow_schema())
    assert empty.num_rows == 0


def test_answers_failures_and_skipped_items_become_rows() -> None:
    made = plan(*daily("latte"), *daily("tea"), *daily("new", first=3))
    latte, tea = (h.item for h in made.histories)
    days = [(AS_OF + timedelta(days=n), Decimal(f"{n}.00001")) for n in (1, 2, 3)]
    answers = [ItemForecast(tea, AS_OF, failure="boom"), ItemForecast(latte, AS_OF, days, "ENSEMBLE")]
    table = forecast_rows(AS_OF, "flux-demand", made.skipped, answers)
    table.validate(full=True)
    assert table.schema.equals(DEMAND_FORECASTS.arrow_schema())
    rows = table.to_pylist()
    assert [(r["product_id"], r["horizon"], r["status"]) for r in rows] == [
        ("latte", 1, "forecast"),
        ("latte", 2, "forecast"),
        ("latte", 3, "forecast"),
        ("new", 0, "too_little_history"),
        ("tea", 0, "failed"),
    ]
    assert rows[2] == {
        "connection": "square:acme",
        "tenant": "acme",
        "location_id": "L1",
        "as_of": AS_OF,
        "product_id": "latte",
        "product_name": "Latte",
        "variation": None,
        "horizon": 3,
        "target_date": AS_OF + timedelta(days=3),
        "predicted_quantity": Decimal("3.00001"),
        "status": "forecast",
        "reason": None,
        "model_type": "ENSEMBLE",
        "endpoint": "flux-demand",
    }
    assert rows[4]["reason"] == "boom"
    assert (rows[4]["target_date"], rows[4]["predicted_quantity"], rows[4]["model_type"]) == (AS_OF, None, None)
    assert isinstance(made.skipped[0], SkippedItem)
