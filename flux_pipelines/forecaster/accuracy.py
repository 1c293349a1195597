"""How good the forecasts of a business date turned out to be, beside seasonal naive. Sums in DuckDB, exact throughout.

A forecast pair (location, product) is evaluated when its location traded on the date; a product that then did not sell
sold zero. The seasonal naive forecast is what the product sold on the latest same weekday, at or before `as_of`, on which
the location traded; pairs whose location traded on no such weekday in eight weeks are left out of both sides.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING

from flux_pipelines.domain.tables import FORECAST_ACCURACY

if TYPE_CHECKING:
    import pyarrow as pa

#: The seasonal naive forecast looks back at most this many days from `as_of`.
NAIVE_REACH_DAYS = 56
_RATIO_STEP = Decimal("0.000001")


def accuracy_window(target: date, longest_horizon: int = 14) -> tuple[date, date]:
    """Return the first and the last business date of `daily_item_demand` that `accuracy` needs."""
    return target - timedelta(days=longest_horizon + NAIVE_REACH_DAYS), target


def accuracy(forecasts: pa.Table, demand: pa.Table, target: date) -> pa.Table:
    """Evaluate the forecasts of one business date.

    Args:
        forecasts: rows of `demand_forecasts`; only forecasts with `target_date` equal to `target` are used.
        demand: rows of `daily_item_demand` in `accuracy_window(target)`; others are ignored or do no harm.
        target: the business date.

    Returns:
        Rows of `forecast_accuracy`: one per connection and `as_of`, none where nothing could be evaluated.

    """
    import duckdb
    import pyarrow as pa

    with duckdb.connect(":memory:", config={"threads": "2"}) as sql:
        sql.register("forecasts", forecasts)
        sql.register("demand", demand)
        sums = sql.execute(_SUMS, {"target": target, "reach": NAIVE_REACH_DAYS}).fetchall()
    names = FORECAST_ACCURACY.column_names
    rows = []
    for connection, tenant, as_of, horizon, items, actual, predicted, naive, error, naive_error in sums:
        wape, naive_wape = _ratio(error, actual), _ratio(naive_error, actual)
        values = (connection, tenant, as_of, horizon, target, items, actual, predicted, naive, error, naive_error)
        rows.append(
            dict(
                zip(
                    names,
                    # The ratio of the two WAPEs is that of the two errors: no rounding in between.
                    (*values, wape, naive_wape, _ratio(error, naive_error), _ratio(predicted - actual, actual)),
                    strict=True,
                )
            )
        )
    return pa.Table.from_pylist(rows, schema=FORECAST_ACCURACY.arrow_schema())


def _ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    """Return part / whole to six places; None when there is no whole (nothing sold, or returns outweighed sales)."""
    if whole <= 0:
        return None
    return (part / whole).quantize(_RATIO_STEP, rounding=ROUND_HALF_EVEN)


_SUMS = """
with sold as (
    select connection, location_id, product_id, business_date, sum(quantity) as quantity
    from demand group by all
),
traded as (
    select distinct connection, location_id, business_date from demand
),
asked as (
    select connection, tenant, location_id, product_id, as_of, horizon, predicted_quantity
    from forecasts
    where status = 'forecast' and target_date = $target
),
naive_days as (
    select a.connection, a.location_id, a.as_of, max(t.business_date) as naive_date
    from (select distinct connection, location_id, as_of from asked) a
    join traded t using (connection, location_id)
    where t.business_date <= a.as_of
        and t.business_date > a.as_of - $reach::integer
        and isodow(t.business_date) = isodow($target::date)
    group by all
),
pairs as (
    select a.*,
        coalesce(today.quantity, 0::decimal(38, 5)) as actual,
        coalesce(before.quantity, 0::decimal(38, 5)) as naive
    from asked a
    join traded t on t.connection = a.connection and t.location_id = a.location_id and t.business_date = $target
    join naive_days n
        on n.connection = a.connection and n.location_id = a.location_id and n.as_of = a.as_of
    left join sold today
        on today.connection = a.connection and today.location_id = a.location_id
        and today.product_id = a.product_id and today.business_date = $target
    left join sold before
        on before.connection = a.connection and before.location_id = a.location_id
        and before.product_id = a.product_id and before.business_date = n.naive_date
)
select connection, max(tenant), as_of, horizon, count(*), sum(actual), sum(predicted_quantity), sum(naive),
    sum(abs(predicted_quantity - actual)), sum(abs(naive - actual))
from pairs
group by connection, as_of, horizon
order by connection, as_of, horizon
"""
