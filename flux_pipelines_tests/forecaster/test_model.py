from __future__ import annotations

import csv
import random
from datetime import date, timedelta
from decimal import Decimal
from types import ModuleType

import pytest

from flux_pipelines.settings import PROJECT_ROOT

PIZZA = PROJECT_ROOT.parent / "shared" / "data" / "pizza"
MONDAY = date(2024, 1, 1)
Series = list[tuple[date, float]]


@pytest.fixture(scope="session")
def model() -> ModuleType:
    from flux_pipelines.forecaster import model

    return model


def daily(values: list[float], first: date = MONDAY) -> Series:
    return [(first + timedelta(days=n), value) for n, value in enumerate(values)]


def errors(model: ModuleType, series: Series, *, origins: int, horizon: int = 14) -> tuple[float, float]:
    """Absolute errors of the model and of seasonal naive over several origins at the end of a daily series."""
    ours = naive = 0.0
    for origin in range(origins):
        cut = len(series) - horizon * (origin + 1)
        past, future = series[:cut], series[cut : cut + horizon]
        predicted = model.forecast(past, horizon)
        assert [day for day, _ in predicted] == [day for day, _ in future]
        for ahead, ((_, guess), (_, real)) in enumerate(zip(predicted, future, strict=True)):
            ours += abs(float(guess) - real)
            naive += abs(past[cut - 7 + ahead % 7][1] - real)
    return ours, naive


def test_it_beats_seasonal_naive_on_noisy_weekly_sales(model: ModuleType) -> None:
    chance = random.Random(20)
    week = [0.8, 0.8, 0.9, 1.0, 1.4, 1.6, 0.5]
    sold = [max(0.0, round(chance.gauss(40 * week[n % 7], 7))) for n in range(250)]
    ours, naive = errors(model, daily(sold), origins=5)
    assert ours < 0.8 * naive


@pytest.mark.parametrize("product", ["big_meat_s", "thai_ckn_l"])
def test_it_beats_seasonal_naive_on_real_pizzas(model: ModuleType, product: str) -> None:
    if not PIZZA.is_dir():
        pytest.skip("the pizza data set is not beside the project")
    with (PIZZA / "orders.csv").open(newline="") as file:
        days = {row["order_id"]: date.fromisoformat(row["ordered_at"][:10]) for row in csv.DictReader(file)}
    sold = dict.fromkeys((MONDAY.replace(year=2015) + timedelta(days=n) for n in range(365)), 0.0)
    with (PIZZA / "lines.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["item_id"] == product:
                sold[days[row["order_id"]]] += float(row["quantity"])
    ours, naive = errors(model, list(sold.items()), origins=4)
    assert ours < naive


def test_the_same_history_gives_the_same_forecast_whatever_its_order(model: ModuleType) -> None:
    chance = random.Random(1)
    series = daily([chance.randrange(20) for _ in range(120)])
    shuffled = chance.sample(series, len(series))
    first = model.forecast(series, 14)
    assert first == model.forecast(shuffled, 14)
    assert first == model.forecast([(day, Decimal(str(q))) for day, q in series], 14)
    assert all(quantity == quantity.quantize(Decimal("0.00001")) and quantity >= 0 for _, quantity in first)
    assert first[0][0] == series[-1][0] + timedelta(days=1)


def test_days_the_store_was_closed_are_not_taken_for_zero_sales(model: ModuleType) -> None:
    sold = daily([20.0 + 2 * (n % 7) for n in range(140)])
    # Closed for two weeks and on three single days: a forecast from zeros would be far too low.
    gaps = [point for n, point in enumerate(sold) if not 110 <= n < 124 and n not in {30, 61, 92}]
    for (_, guess), (_, real) in zip(model.forecast(gaps, 14), model.forecast(sold, 14), strict=True):
        assert abs(guess - real) < Decimal("0.1")
    zeros = [(day, 0.0 if 110 <= n < 124 else q) for n, (day, q) in enumerate(sold)]
    assert sum(q for _, q in model.forecast(zeros, 14)) < sum(q for _, q in model.forecast(gaps, 14)) - 5


def test_gaps_are_filled_with_the_recent_mean_of_their_weekday(model: ModuleType) -> None:
    import numpy as np

    series = np.array([float(n) for n in range(49)])
    series[[2, 35, 42]] = np.nan
    filled = model.fill_gaps(series)
    assert filled[35] == (28 + 21 + 14 + 7) / 4
    assert filled[42] == (28 + 21 + 14 + 7) / 4  # not the filled value of day 35
    assert filled[2] == (9 + 16 + 23 + 30) / 4  # nothing before: what follows
    series[3::7] = np.nan
    assert model.fill_gaps(series)[10] == np.nanmean(series)  # a weekday that is never open


def test_a_store_closed_every_monday_is_forecast(model: ModuleType) -> None:
    open_days = [point for point in daily([30.0 + n % 7 for n in range(140)]) if point[0].weekday() != 0]
    assert all(25 < quantity < 45 for _, quantity in model.forecast(open_days, 14))


@pytest.mark.parametrize("count", [7, 8, 10, 13, 14, 15, 21])
def test_short_histories_use_the_components_that_can_be_fitted(model: ModuleType, count: int) -> None:
    predicted = model.forecast(daily([5.0 + n % 3 for n in range(count)]), 14)
    assert all(4 < quantity < 9 for _, quantity in predicted)


def test_a_history_below_the_minimum_is_refused_with_the_reason(model: ModuleType) -> None:
    with pytest.raises(model.ModelInputError, match="6 dates are known, at least 7"):
        model.forecast(daily([1.0] * 6), 14)
    with pytest.raises(model.ModelInputError, match="2024-01-03 is given twice"):
        model.forecast([*daily([1.0] * 9), (date(2024, 1, 3), 2.0)], 14)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.0] * 90, 0, 0),
        ([3.0] * 90, 3, 3),
        ([-2.0] * 90, 0, 0),
        ([0.0] * 89 + [5.0], 0, 5),
        ([10.0 if n % 7 == 0 else 0.0 for n in range(90)], 0, 11),
        ([5.0] * 60 + [0.0] * 60, 0, 1),
        ([(-1.0) ** n for n in range(90)], 0, 1),
    ],
)
def test_odd_series_give_finite_forecasts_that_are_never_negative(
    model: ModuleType, values: list[float], low: int, high: int
) -> None:
    for _, quantity in model.forecast(daily(values), 30):
        assert quantity.is_finite()
        assert low <= quantity <= high
        assert not quantity.is_signed()
