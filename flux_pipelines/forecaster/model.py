"""The demand model: the mean of three forecasts of a daily series with a weekly season.

Importing this module imports numpy and statsforecast, which takes seconds: only the server's worker processes do.

Components: AutoETS (season 7, additive errors and season, no trend), dynamic optimised Theta (season 7), and a level
(exponentially weighted mean of the de-seasonalised series) times a weekday index. On real sales this mean has about a
quarter less RMSE than seasonal naive, and adding seasonal naive or Croston's method to it makes it worse.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
from numpy.typing import NDArray
from statsforecast.models import AutoETS, DynamicOptimizedTheta

from flux_pipelines.forecaster.items import QUANTITY_STEP

MODEL_TYPE = "ENSEMBLE"
SEASON = 7
#: Fewer known dates than this say nothing about a week.
MINIMUM_DATES = 7
#: From two full weeks on a season can be told from noise; statsforecast fits ETS and Theta on it.
MINIMUM_DAYS_FOR_SEASONAL_MODELS = 2 * SEASON
#: A gap is filled with the mean of this many known values of the same weekday before it.
FILL_WEEKS = 4
#: The weekday index is taken over this many weeks, the level forgets a tenth a day.
INDEX_WEEKS = 12
LEVEL_ALPHA = 0.1

Floats = NDArray[np.float64]


class ModelInputError(ValueError):
    """The history cannot be forecast; the message says why, for the caller of the endpoint."""


def forecast(history: Iterable[tuple[date, Decimal | float]], horizon: int) -> list[tuple[date, Decimal]]:
    """Forecast the `horizon` days after the last date of the history.

    Args:
        history: quantity by date, in any order. Zeros are given; a date that is missing between the first and the last
            is unknown (the store was closed, say) and never taken for zero: see `fill_gaps`.
        horizon: number of days, at least 1.

    Returns:
        Date and quantity, never negative, rounded to five decimal places. The same history gives the same forecast.

    Raises:
        ModelInputError: there are fewer than seven known dates, or a date is given twice.

    """
    known = sorted((day, float(quantity)) for day, quantity in history)
    if len(known) < MINIMUM_DATES:
        raise ModelInputError(
            f"too little history: {len(known)} dates are known, at least {MINIMUM_DATES} are needed to forecast"
        )
    series, weekday = _daily(known)
    mean = _ensemble(series, weekday, horizon)
    last = known[-1][0]
    return [(last + timedelta(days=ahead + 1), _quantity(float(value))) for ahead, value in enumerate(mean)]


def fill_gaps(series: Floats) -> Floats:
    """Replace unknown days (NaN) by the mean of the last four known values of the same weekday before them.

    Where that weekday is not known before, its next four known values serve; where it is never known (closed every
    Monday), the mean of everything known. Filled values are not used to fill others.
    """
    filled = series.copy()
    overall = float(np.nanmean(series))
    for first in range(SEASON):
        column = series[first::SEASON]
        unknown = np.flatnonzero(np.isnan(column))
        if unknown.size == 0:
            continue
        at = np.flatnonzero(~np.isnan(column))
        for week in unknown:
            before = at[at < week][-FILL_WEEKS:]
            nearest = before if before.size else at[:FILL_WEEKS]
            filled[first + week * SEASON] = column[nearest].mean() if nearest.size else overall
    return filled


def warm_up() -> None:
    """Fit every component once, so that the first request does not pay for what loads lazily."""
    monday = date(2024, 1, 1)
    forecast([(monday + timedelta(days=n), float(n % SEASON + n % 3)) for n in range(8 * SEASON)], SEASON)


def _daily(known: list[tuple[date, float]]) -> tuple[Floats, int]:
    start = known[0][0]
    series = np.full((known[-1][0] - start).days + 1, np.nan)
    for day, quantity in known:
        position = (day - start).days
        if not math.isnan(series[position]):
            raise ModelInputError(f"the date {day.isoformat()} is given twice")
        series[position] = quantity
    return fill_gaps(series), start.weekday()


def _ensemble(series: Floats, first_weekday: int, horizon: int) -> Floats:
    if np.ptp(series) == 0.0:
        # Every component would give the constant; Theta divides by the zero variance on the way.
        return np.full(horizon, max(series[0], 0.0))
    parts = [_level_times_weekday(series, first_weekday, horizon)]
    if len(series) >= MINIMUM_DAYS_FOR_SEASONAL_MODELS:
        for model in (AutoETS(season_length=SEASON, model="ANA"), DynamicOptimizedTheta(season_length=SEASON)):
            part = _fit(model, series, horizon)
            if part is not None:
                parts.append(part)
    mean: Floats = np.mean(parts, axis=0)
    return np.maximum(mean, 0.0)


def _fit(model: AutoETS | DynamicOptimizedTheta, series: Floats, horizon: int) -> Floats | None:
    """Return the component's forecast, or None when this series cannot be fitted by it."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            values = np.asarray(model.forecast(series, horizon)["mean"], dtype=np.float64)
    except Exception:  # noqa: BLE001 - statsforecast raises plain Exception("no model able to be fitted")
        return None
    return values if np.isfinite(values).all() else None


def _level_times_weekday(series: Floats, first_weekday: int, horizon: int) -> Floats:
    weekdays = (np.arange(len(series) + horizon) + first_weekday) % SEASON
    past, future = weekdays[: len(series)], weekdays[len(series) :]
    recent = slice(max(0, len(series) - INDEX_WEEKS * SEASON), None)
    mean = float(series[recent].mean())
    if mean <= 0.0:
        return np.zeros(horizon)
    index = np.ones(SEASON)
    for weekday in range(SEASON):
        values = series[recent][past[recent] == weekday]
        if values.size:
            index[weekday] = max(float(values.mean()) / mean, 0.0)
    # A weekday that never sells says nothing about the level.
    usable = index[past] > 0.0
    deseasonalised = series[usable] / index[past][usable]
    ages = np.arange(len(deseasonalised) - 1, -1, -1)
    weights = (1.0 - LEVEL_ALPHA) ** ages
    level = float(np.dot(weights, deseasonalised) / weights.sum())
    return np.asarray(level * index[future], dtype=np.float64)


def _quantity(value: float) -> Decimal:
    return Decimal(repr(value)).quantize(QUANTITY_STEP, rounding=ROUND_HALF_EVEN) + Decimal(0)
