"""What is expected to be sold, and how good such expectations turned out to be."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import WHERE
from flux_pipelines.domain.tables.model import Column, Table

DEMAND_FORECASTS = Table(
    name="demand_forecasts",
    grain="as-of date x location x product x day ahead",
    description=(
        "Units each store is expected to sell of each product, as of the close of a business date. A product that "
        "could not be forecast has one row with `horizon` 0 that says why."
    ),
    columns=(
        *WHERE,
        Column("as_of", "date", "The last business date whose sales the forecast has seen."),
        Column("product_id", "text", "The product, as in `daily_item_demand`."),
        Column("product_name", "text", "The product's name when the forecast was made."),
        Column("variation", "text", "The variation's name when the forecast was made.", required=False),
        Column("horizon", "integer", "Days ahead of `as_of`: 1 to 14; 0 for a product that was not forecast."),
        Column("target_date", "date", "The business date forecast: `as_of + horizon`."),
        Column("predicted_quantity", "quantity", "Units expected; empty when not forecast.", required=False),
        Column(
            "status",
            "text",
            "`forecast`, or why there is none: `too_little_history`, `stale_history`, `failed`.",
            allowed=("forecast", "too_little_history", "stale_history", "failed"),
        ),
        Column(
            "reason", "text", "For a product that was not forecast: what was missing or what failed.", required=False
        ),
        Column("model_type", "text", "The model's name as the endpoint gave it.", required=False),
        Column("endpoint", "text", "The endpoint that was asked."),
    ),
    key=("connection", "location_id", "product_id", "as_of", "horizon"),
    partition_by=("as_of",),
)

FORECAST_ACCURACY = Table(
    name="forecast_accuracy",
    grain="connection x as-of date x day ahead (one evaluated business date each)",
    description=(
        "How good past forecasts of a business date turned out to be, beside a seasonal naive forecast (the same "
        "weekday's last known sales). Below 1, `wape_ratio` means better than naive."
    ),
    columns=(
        Column("connection", "text", "The authorised account whose products were forecast."),
        Column("tenant", "text", "The customer of Flux."),
        Column("as_of", "date", "The last business date whose sales the forecast had seen."),
        Column("horizon", "integer", "Days ahead of `as_of`."),
        Column("target_date", "date", "The business date evaluated: `as_of + horizon`."),
        Column("items", "integer", "Location-product pairs evaluated."),
        Column("actual_quantity", "quantity", "Units really sold of those products."),
        Column("predicted_quantity", "quantity", "Units that had been forecast."),
        Column("naive_quantity", "quantity", "Units the seasonal naive forecast gave."),
        Column("absolute_error", "quantity", "Sum of |forecast - actual| over the pairs."),
        Column("naive_absolute_error", "quantity", "Sum of |naive - actual| over the pairs."),
        Column("wape", "ratio", "`absolute_error / actual_quantity`; empty when nothing sold.", required=False),
        Column("naive_wape", "ratio", "The same for the seasonal naive forecast.", required=False),
        Column("wape_ratio", "ratio", "`wape / naive_wape`; empty when naive was perfect.", required=False),
        Column("bias", "ratio", "`(predicted - actual) / actual`: above 0, too much was forecast.", required=False),
    ),
    key=("connection", "as_of", "horizon"),
    partition_by=("target_date",),
)
