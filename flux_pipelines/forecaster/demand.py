"""From daily demand to histories to ask about, and from answers to rows of `demand_forecasts`. Arrow and DuckDB only.

Which dates a history has: every date since the product's first sale on which its location traded (sold or took back
anything at all). A date on which the location traded without the product is an explicit zero; a date on which it did not
trade is left out, because nobody knows what would have been sold. Quantities are summed over currencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.tables import DEMAND_FORECASTS
from flux_pipelines.forecaster.items import Item, ItemForecast, ItemHistory, SkippedItem

if TYPE_CHECKING:
    import pyarrow as pa

#: Histories reach back this many days at most: a year, and what is needed to see it whole with gaps.
HISTORY_DAYS = 400
#: A product must have been on sale this many calendar days: four weeks show each weekday four times.
MINIMUM_DAYS_ON_SALE = 28
#: ... and have sold on this many dates: with fewer, a forecast would be a guess at the next of a handful of sales.
MINIMUM_DAYS_SOLD = 8
#: A product not sold for longer than this is off the menu, for all anybody knows.
STALE_AFTER_DAYS = 28


@dataclass(frozen=True, slots=True)
class DemandPlan:
    """What is asked of the endpoint as of a date, and what is not, in the order of connection, location, product."""

    as_of: date
    histories: tuple[ItemHistory, ...]
    skipped: tuple[SkippedItem, ...]


def demand_window(as_of: date) -> tuple[date, date]:
    """Return the first and the last business date of `daily_item_demand` that `plan_demand` reads."""
    return as_of - timedelta(days=HISTORY_DAYS - 1), as_of


def plan_demand(demand: pa.Table, as_of: date) -> DemandPlan:
    """Build the histories of every product sold in the last 400 days, and say which are not asked about.

    Args:
        demand: rows of `daily_item_demand`; those outside `demand_window(as_of)` are ignored.
        as_of: the last business date whose sales may be seen.

    """
    first, last = demand_window(as_of)
    import duckdb

    with duckdb.connect(":memory:", config={"threads": "2"}) as sql:
        sql.register("demand", demand)
        rows = sql.execute(_HISTORIES, {"first": first, "last": last}).fetchall()
    histories: list[ItemHistory] = []
    skipped: list[SkippedItem] = []
    for *names, first_sold, last_sold, days_sold, dates, quantities in rows:
        item = Item(*names)
        reason = _stale(as_of, last_sold)
        if reason is not None:
            skipped.append(SkippedItem(item, "stale_history", reason))
            continue
        reason = _too_little(as_of, first_sold, days_sold)
        if reason is not None:
            skipped.append(SkippedItem(item, "too_little_history", reason))
            continue
        histories.append(ItemHistory(item, as_of, tuple(zip(dates, quantities, strict=True))))
    return DemandPlan(as_of, tuple(histories), tuple(skipped))


def forecast_rows(
    as_of: date, endpoint: str, skipped: Iterable[SkippedItem], forecasts: Iterable[ItemForecast]
) -> pa.Table:
    """Turn answers, failures and skipped items into rows of `demand_forecasts`, sorted by the table's key.

    Args:
        as_of: the last business date whose sales the forecasts have seen.
        endpoint: the name of the endpoint that was asked.
        skipped: items that were not asked about: one row each with `horizon` 0.
        forecasts: answers (a row a day ahead) and failed items (one row with `horizon` 0).

    """
    import pyarrow as pa

    rows: list[dict[str, Any]] = [_status_row(as_of, endpoint, s.item, s.status, s.reason) for s in skipped]
    for answer in forecasts:
        if answer.failure is not None:
            rows.append(_status_row(as_of, endpoint, answer.item, "failed", answer.failure))
            continue
        common = _item_columns(answer.item) | {
            "as_of": as_of,
            "endpoint": endpoint,
            "status": "forecast",
            "reason": None,
        }
        rows.extend(
            common
            | {
                "horizon": (day - as_of).days,
                "target_date": day,
                "predicted_quantity": quantity,
                "model_type": answer.model_type,
            }
            for day, quantity in answer.predictions
        )
    table = pa.Table.from_pylist(rows, schema=DEMAND_FORECASTS.arrow_schema())
    return table.sort_by([(name, "ascending") for name in DEMAND_FORECASTS.key])


def _status_row(as_of: date, endpoint: str, item: Item, status: str, reason: str) -> dict[str, Any]:
    return _item_columns(item) | {
        "as_of": as_of,
        "horizon": 0,
        "target_date": as_of,
        "predicted_quantity": None,
        "status": status,
        "reason": reason,
        "model_type": None,
        "endpoint": endpoint,
    }


def _item_columns(item: Item) -> dict[str, Any]:
    return {
        "connection": item.connection,
        "tenant": item.tenant,
        "location_id": item.location_id,
        "product_id": item.product_id,
        "product_name": item.product_name,
        "variation": item.variation,
    }


def _stale(as_of: date, last_sold: date | None) -> str | None:
    if last_sold is None or (as_of - last_sold).days < STALE_AFTER_DAYS:
        return None
    return (
        f"last sold on {last_sold.isoformat()}, {(as_of - last_sold).days} days before {as_of.isoformat()}; "
        f"products not sold for {STALE_AFTER_DAYS} days are not forecast"
    )


def _too_little(as_of: date, first_sold: date | None, days_sold: int) -> str | None:
    if first_sold is None:
        return f"never sold in the {HISTORY_DAYS} days up to {as_of.isoformat()}, only returned"
    on_sale = (as_of - first_sold).days + 1
    if on_sale >= MINIMUM_DAYS_ON_SALE and days_sold >= MINIMUM_DAYS_SOLD:
        return None
    return (
        f"sold on {days_sold} dates since {first_sold.isoformat()} ({on_sale} days up to {as_of.isoformat()}); "
        f"a forecast needs sales on {MINIMUM_DAYS_SOLD} dates and {MINIMUM_DAYS_ON_SALE} days on sale"
    )


# `name` columns are those of the latest date; ties (two currencies on one date) are broken by the currency, so that the
# same rows always give the same names. A product starts with its first positive quantity: what was only returned before
# says nothing about demand.
_HISTORIES = """
with seen as (
    select * from demand where business_date between $first and $last
),
sold as (
    select connection, location_id, product_id, business_date, sum(quantity) as quantity
    from seen group by all
),
products as (
    select connection, location_id, product_id,
        arg_max(tenant, (business_date, currency)) as tenant,
        arg_max(product_name, (business_date, currency)) as product_name,
        arg_max({'v': variation}, (business_date, currency)).v as variation
    from seen group by all
),
spans as (
    select connection, location_id, product_id,
        min(business_date) filter (quantity > 0) as first_sold,
        max(business_date) filter (quantity > 0) as last_sold,
        count(*) filter (quantity > 0) as days_sold
    from sold group by all
),
traded as (
    select distinct connection, location_id, business_date from seen
),
days as (
    select s.connection, s.location_id, s.product_id, t.business_date,
        coalesce(d.quantity, 0::decimal(38, 5)) as quantity
    from spans s
    join traded t using (connection, location_id)
    left join sold d using (connection, location_id, product_id, business_date)
    where t.business_date >= s.first_sold
),
series as (
    select connection, location_id, product_id,
        list(business_date order by business_date) as dates,
        list(quantity order by business_date) as quantities
    from days group by all
)
select p.connection, p.tenant, p.location_id, p.product_id, p.product_name, p.variation,
    s.first_sold, s.last_sold, s.days_sold, coalesce(h.dates, []), coalesce(h.quantities, [])
from products p
join spans s using (connection, location_id, product_id)
left join series h using (connection, location_id, product_id)
order by p.connection, p.location_id, p.product_id
"""
