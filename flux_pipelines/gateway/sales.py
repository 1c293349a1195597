"""The sales that a connection's page shows: read from the lake, straight from `transactions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake import DeltaLake
from flux_pipelines.lake.delta import Where
from flux_pipelines.lake.sql import session

_DAYS = 14
_ORDERS = 8

_BY_DAY = """
SELECT business_date, currency,
       count(DISTINCT order_id) FILTER (kind = 'sale') AS orders,
       count(DISTINCT order_id) FILTER (kind = 'return') AS returns,
       coalesce(sum(net), 0)::DECIMAL(18,4) AS net,
       coalesce(sum(total), 0)::DECIMAL(18,4) AS total
FROM transactions GROUP BY ALL ORDER BY business_date DESC, currency
"""
_LATEST = """
SELECT order_id, location_id, any_value(currency), max(occurred_at) AS occurred_at,
       string_agg(DISTINCT product_name, ', ' ORDER BY product_name) FILTER (line_type IN ('item', 'custom_amount')),
       bool_or(kind = 'sale'), bool_or(kind = 'return'), bool_or(kind = 'void'), coalesce(sum(total), 0)::DECIMAL(18,4)
FROM transactions GROUP BY order_id, location_id ORDER BY occurred_at DESC, order_id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class DayOfSales:
    """One business date in one currency. `net` is revenue after returns; `total` is what customers paid."""

    day: date
    currency: str
    orders: int
    returns: int
    net: Decimal
    total: Decimal


@dataclass(frozen=True, slots=True)
class RecentOrder:
    """One order with what it was for."""

    order_id: str
    location_id: str
    currency: str
    occurred_at: datetime
    items: str
    kind: str
    total: Decimal


@dataclass(frozen=True, slots=True)
class Sales:
    """The newest business dates and the newest orders of a connection."""

    days: Sequence[DayOfSales]
    orders: Sequence[RecentOrder]


def recent_sales(lake: DeltaLake, key: str) -> Sales | None:
    """Return the newest sales of a connection; None when the lake has none.

    Raises:
        TableDamagedError, StorageUnavailableError: the table cannot be read.

    """
    counted = lake.rows_by_partition(TRANSACTIONS.name, {"connection": key})
    days = sorted((date.fromisoformat(partition[1]) for partition, rows in counted.items() if rows), reverse=True)
    if not days:
        return None
    where: Where = {"connection": key, "business_date": days[:_DAYS]}
    with session(lake, [TRANSACTIONS.name], where=where, memory_limit="200MB", threads=1) as sql:
        by_day = [DayOfSales(*row) for row in sql.execute(_BY_DAY).fetchall()]
        latest = [
            RecentOrder(order, where_, currency, at, items or "", _kind(sold, returned, void, total), total)
            for order, where_, currency, at, items, sold, returned, void, total in sql.execute(
                _LATEST, [_ORDERS]
            ).fetchall()
        ]
    return Sales(by_day, latest)


def _kind(sold: bool, returned: bool, void: bool, left: Decimal) -> str:
    if sold and returned:  # some providers keep what was given back on the order that was sold
        return "Partly refunded" if left else "Refunded"
    if returned:
        return "Return"
    if sold:
        return "Sale"
    return "Cancelled" if void else "Paid in part"
