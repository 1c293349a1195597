from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pyarrow as pa

from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import DAILY_ITEM_DEMAND, DEMAND_FORECASTS, FORECAST_ACCURACY
from flux_pipelines.forecaster.accuracy import NAIVE_REACH_DAYS, accuracy, accuracy_window
from flux_pipelines.forecaster.demand import forecast_rows
from flux_pipelines.forecaster.items import Item, ItemForecast, SkippedItem
from flux_pipelines_tests.forecaster.test_demand import row

TARGET = date(2025, 6, 30)


def before(days: int) -> date:
    return TARGET - timedelta(days=days)


def item(product: str, location: str = "L1") -> Item:
    return Item("square:acme", "acme", location, product, product.title())


def forecast(product: str, as_of: date, quantity: str, location: str = "L1") -> pa.Table:
    days = [(as_of + timedelta(days=n), Decimal(quantity).quantize(Decimal("0.00001"))) for n in range(1, 15)]
    answers = [ItemForecast(item(product, location), as_of, days, "ENSEMBLE")]
    return forecast_rows(as_of, "e", [], answers)


def evaluate(forecasts: Iterable[pa.Table], *demand: dict[str, Any]) -> list[dict[str, Any]]:
    asked = pa.concat_tables([DEMAND_FORECASTS.arrow_schema().empty_table(), *forecasts])
    table = accuracy(asked, pa.Table.from_pylist(list(demand), schema=DAILY_ITEM_DEMAND.arrow_schema()), [TARGET])
    table.validate(full=True)
    assert table.schema.equals(FORECAST_ACCURACY.arrow_schema())
    return list(table.to_pylist())


def test_one_pair_in_figures() -> None:
    [got] = evaluate([forecast("latte", before(3), "9")], row(TARGET, "latte", 12), row(before(7), "latte", 8))
    assert got == {
        "connection": "square:acme",
        "tenant": "acme",
        "as_of": before(3),
        "horizon": 3,
        "target_date": TARGET,
        "items": 1,
        "actual_quantity": Decimal(12),
        "predicted_quantity": Decimal(9),
        "naive_quantity": Decimal(8),
        "absolute_error": Decimal(3),
        "naive_absolute_error": Decimal(4),
        "wape": Decimal("0.250000"),
        "naive_wape": Decimal("0.333333"),
        "wape_ratio": Decimal("0.750000"),
        "bias": Decimal("-0.250000"),
    }


def test_naive_never_looks_after_as_of_and_skips_days_the_location_was_closed() -> None:
    sold = [
        row(TARGET, "latte", 10),
        row(before(7), "latte", 7),
        row(before(14), "latte", 14),
        row(before(28), "latte", 28),
    ]
    naive = {
        r["as_of"]: r["naive_quantity"]
        for r in evaluate([forecast("latte", before(h), "1") for h in (1, 7, 8, 14)], *sold)
    }
    assert naive == {before(1): 7, before(7): 7, before(8): 14, before(14): 14}
    closed_twice = [r for r in sold if r["business_date"] not in {before(7), before(14)}]
    [got] = evaluate([forecast("latte", before(1), "1")], *closed_twice)
    assert got["naive_quantity"] == 28


def test_a_product_that_did_not_sell_sold_zero_if_the_location_traded() -> None:
    others = [row(TARGET, "tea", 5), row(before(7), "tea", 5)]
    [got] = evaluate([forecast("latte", before(1), "2")], *others)
    assert (got["items"], got["actual_quantity"], got["naive_quantity"], got["absolute_error"]) == (1, 0, 0, 2)
    assert got["wape"] is got["naive_wape"] is got["wape_ratio"] is got["bias"] is None


def test_pairs_without_a_trading_day_to_compare_are_left_out() -> None:
    here = [row(TARGET, "latte", 5), row(before(7), "latte", 5)]
    closed_today = [row(before(7), "latte", 9, location_id="L2")]
    never_on_mondays = [row(TARGET, "latte", 9, location_id="L3"), row(before(6), "latte", 9, location_id="L3")]
    too_long_ago = [row(d, "latte", 9, location_id="L4") for d in (TARGET, before(1 + NAIVE_REACH_DAYS + 6))]
    forecasts = [forecast("latte", before(1), "5", location) for location in ("L1", "L2", "L3", "L4")]
    [got] = evaluate(forecasts, *here, *closed_today, *never_on_mondays, *too_long_ago)
    assert (got["items"], got["actual_quantity"], got["wape"], got["wape_ratio"]) == (1, 5, 0, None)
    assert evaluate(forecasts[1:2], *closed_today) == []


def test_items_that_were_not_forecast_and_other_dates_do_not_count() -> None:
    skipped = forecast_rows(TARGET, "e", [SkippedItem(item("latte"), "stale_history", "x")], [])
    failed = forecast_rows(TARGET, "e", [], [ItemForecast(item("tea"), TARGET, failure="x")])
    passed = forecast("latte", before(20), "5")
    assert evaluate([skipped, failed, passed], row(TARGET, "latte", 5), row(before(7), "latte", 5)) == []
    assert evaluate([]) == []


def test_currencies_are_summed_and_connections_kept_apart() -> None:
    other = {"connection": "square:bravo", "tenant": "bravo"}
    demand = [row(d, "latte", q, currency=c) for d in (TARGET, before(7)) for q, c in (("1.5", "USD"), ("2.25", "CAD"))]
    demand += [row(d, "latte", 100, **other) for d in (TARGET, before(7))]
    bravo = forecast_rows(
        before(1),
        "e",
        [],
        [ItemForecast(Item("square:bravo", "bravo", "L1", "latte", "L"), before(1), [(TARGET, Decimal(90))], "M")],
    )
    acme, got = evaluate([forecast("latte", before(1), "4"), bravo], *demand)
    assert (acme["connection"], acme["actual_quantity"], acme["absolute_error"]) == (
        "square:acme",
        Decimal("3.75"),
        Decimal("0.25"),
    )
    assert (got["tenant"], got["actual_quantity"], got["bias"]) == ("bravo", 100, Decimal("-0.1"))


def test_it_agrees_with_a_plain_computation_on_random_rows() -> None:
    chance = random.Random(5)
    products, locations = [f"p{n}" for n in range(6)], ["L1", "L2", "L3"]
    demand = []
    for n in range(80):
        for location in locations:
            if chance.random() < 0.8:
                demand += [
                    row(before(n), p, f"{chance.randrange(-100, 9000)}e-2", location_id=location)
                    for p in products
                    if chance.random() < 0.7
                ]
    forecasts = [
        forecast(p, before(h), f"{chance.randrange(10**7)}e-5", location)
        for h in range(1, 15)
        for location in locations
        for p in products
    ]
    sold: dict[tuple[str, str, date], Decimal] = defaultdict(Decimal)
    traded = set()
    for r in demand:
        sold[r["location_id"], r["product_id"], r["business_date"]] += r["quantity"]
        traded.add((r["location_id"], r["business_date"]))
    by_horizon: dict[int, list[tuple[Decimal, Decimal, Decimal]]] = defaultdict(list)
    for r in pa.concat_tables(forecasts).to_pylist():
        place = r["location_id"]
        weeks = [
            before(7 * w)
            for w in range(1, 12)
            if r["as_of"] - timedelta(days=NAIVE_REACH_DAYS) < before(7 * w) <= r["as_of"]
        ]
        naive_day = next((d for d in weeks if (place, d) in traded), None)
        if r["target_date"] == TARGET and (place, TARGET) in traded and naive_day:
            naive = sold.get((place, r["product_id"], naive_day), Decimal(0))
            by_horizon[r["horizon"]].append(
                (sold.get((place, r["product_id"], TARGET), Decimal(0)), r["predicted_quantity"], naive)
            )
    got = {r["horizon"]: r for r in evaluate(forecasts, *demand)}
    assert got.keys() == by_horizon.keys()
    for horizon, pairs in by_horizon.items():
        actual, error, naive_error = (
            sum((f(p) for p in pairs), Decimal(0))
            for f in (lambda p: p[0], lambda p: abs(p[1] - p[0]), lambda p: abs(p[2] - p[0]))
        )
        mine = got[horizon]
        assert (mine["items"], mine["actual_quantity"]) == (len(pairs), actual)
        assert (mine["absolute_error"], mine["naive_absolute_error"]) == (error, naive_error)
        assert mine["wape"] == (error / actual).quantize(Decimal("0.000001"), rounding=ROUND_HALF_EVEN)


def test_many_dates_at_once_are_each_what_they_are_alone_and_unsettled_ones_are_left_out() -> None:
    chance = random.Random(6)
    acme, bravo = ({"connection": f"square:{name}", "tenant": name} for name in ("acme", "bravo"))
    sold = [
        row(before(n), product, chance.randrange(1, 40), **owner)
        for owner in (acme, bravo)
        for n in range(-3, 80)
        for product in ("latte", "tea")
        if chance.random() < 0.9
    ]
    predicted = [
        forecast_rows(
            before(n),
            "e",
            [],
            [
                ItemForecast(
                    Item(owner["connection"], owner["tenant"], "L1", product, product),
                    before(n),
                    [(before(n - h), Decimal(chance.randrange(40))) for h in range(1, 15)],
                    "M",
                )
                for owner in (acme, bravo)
                for product in ("latte", "tea")
            ],
        )
        for n in range(-2, 12)
    ]
    asked = pa.concat_tables(predicted)
    demand = pa.Table.from_pylist(sold, schema=DAILY_ITEM_DEMAND.arrow_schema())
    days = [before(n) for n in (2, 1, 0, -1)]
    alone = pa.concat_tables([accuracy(asked, demand, [day]) for day in days])
    assert len(alone) > 80
    assert accuracy(asked, demand, days[::-1]).equals(alone)
    settled = accuracy(
        asked, demand, days, unsettled=[Partition("square:bravo", days[1]), Partition("square:acme", days[3])]
    ).to_pylist()
    left_out = {("square:bravo", days[1]), ("square:acme", days[3])}
    assert settled == [r for r in alone.to_pylist() if (r["connection"], r["target_date"]) not in left_out]
    assert len(settled) < len(alone)


def test_the_window_covers_what_is_read() -> None:
    first, last = accuracy_window(TARGET)
    assert last == TARGET
    assert first <= before(14) - timedelta(days=NAIVE_REACH_DAYS - 1)
