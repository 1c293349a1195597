"""How good the forecasts of business dates turned out to be, beside seasonal naive. Sums in DuckDB, exact throughout.

A forecast pair (location, product) is evaluated when its location traded on the date; a product that then did not sell
sold zero. The seasonal naive forecast is what the product sold on the latest same weekday, at or before `as_of`, on which
the location traded; pairs whose location traded on no such weekday in eight weeks are left out of both sides.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING

from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import FORECAST_ACCURACY

if TYPE_CHECKING:
    import pyarrow as pa

#: The seasonal naive forecast looks back at most this many days from `as_of`.
NAIVE_REACH_DAYS = 56
_RATIO_STEP = Decimal("0.000001")


def accuracy_window(target: date, longest_horizon: int = 14) -> tuple[date, date]:
    """Return the first and the last business date of `daily_item_demand` that `accuracy` needs."""
    return target - timedelta(days=longest_horizon + NAIVE_REACH_DAYS), target


def accuracy(
    forecasts: pa.Table, demand: pa.Table, targets: Collection[date], *, unsettled: Collection[Partition] = ()
) -> pa.Table:
    """Evaluate the forecasts of business dates, of all of them at once.

    Args:
        forecasts: rows of `demand_forecasts`; only forecasts with a `target_date` among the targets are used.
        demand: rows of `daily_item_demand` in the `accuracy_window` of every target; others do no harm.
        targets: the business dates.
        unsettled: those that cannot be evaluated yet.

    Returns:
        Rows of `forecast_accuracy` in order of business date: one per connection and `as_of`, none where nothing could
        be evaluated.

    """
    import duckdb
    import pyarrow as pa

    with duckdb.connect(":memory:", config={"threads": "2"}) as sql:
        sql.register("forecasts", forecasts)
        sql.register("demand", demand)
        asked = {
            "targets": sorted(targets),
            "unsettled_connections": [one.connection for one in unsettled],
            "unsettled_dates": [one.business_date for one in unsettled],
            "reach": NAIVE_REACH_DAYS,
        }
        sums = sql.execute(_SUMS, asked).fetchall()
    names = FORECAST_ACCURACY.column_names
    rows = []
    for target, connection, tenant, as_of, horizon, items, actual, predicted, naive, error, naive_error in sums:
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
    select distinct connection, location_id, business_date, isodow(business_date) as weekday from demand
),
unsettled as (
    select unnest($unsettled_connections::varchar[]) as connection, unnest($unsettled_dates::date[]) as target_date
),
asked as (
    select connection, tenant, location_id, product_id, as_of, horizon, target_date, predicted_quantity
    from forecasts
    anti join unsettled using (connection, target_date)
    where status = 'forecast' and target_date in (select unnest($targets::date[]))
),
naive_days as (
    select a.connection, a.location_id, a.as_of, a.target_date, t.business_date as naive_date
    from (
        select distinct connection, location_id, as_of, target_date, isodow(target_date) as weekday from asked
    ) a
    asof join traded t
        on t.connection = a.connection and t.location_id = a.location_id and t.weekday = a.weekday
        and a.as_of >= t.business_date
    where t.business_date > a.as_of - $reach::integer
),
pairs as (
    select a.*,
        coalesce(target.quantity, 0::decimal(38, 5)) as actual,
        coalesce(before.quantity, 0::decimal(38, 5)) as naive
    from asked a
    join traded t
        on t.connection = a.connection and t.location_id = a.location_id and t.business_date = a.target_date
    join naive_days n
        on n.connection = a.connection and n.location_id = a.location_id and n.as_of = a.as_of
        and n.target_date = a.target_date
    left join sold target
        on target.connection = a.connection and target.location_id = a.location_id
        and target.product_id = a.product_id and target.business_date = a.target_date
    left join sold before
        on before.connection = a.connection and before.location_id = a.location_id
        and before.product_id = a.product_id and before.business_date = n.naive_date
)
select target_date, connection, max(tenant), as_of, horizon, count(*), sum(actual), sum(predicted_quantity), sum(naive),
    sum(abs(predicted_quantity - actual)), sum(abs(naive - actual))
from pairs
group by target_date, connection, as_of, horizon
order by target_date, connection, as_of, horizon
"""
