"""The contract of every table, once: names, types, meanings, grain.

DDL, Arrow schemas, blocking checks, the column descriptions in the Dagster UI and docs/data-dictionary.md all derive
from these declarations. Money is `decimal(18,4)` beside a `currency`; instants are UTC microseconds.
"""

from __future__ import annotations

from flux_pipelines.domain.tables.books import OPEN_ITEMS, PAYMENTS, RESTATEMENTS, SETTLED_ORDERS, TIE_OUT
from flux_pipelines.domain.tables.catalog import INVENTORY_LEVELS, LOCATIONS, PRODUCTS
from flux_pipelines.domain.tables.demand import DEMAND_FORECASTS, FORECAST_ACCURACY
from flux_pipelines.domain.tables.labor import TIME_ENTRIES
from flux_pipelines.domain.tables.mapping import PRODUCT_MAP, STORES
from flux_pipelines.domain.tables.model import SQL_TYPES, Column, Table, Type
from flux_pipelines.domain.tables.quarantine import QUARANTINE
from flux_pipelines.domain.tables.sales import DAILY_ITEM_DEMAND, DAILY_SALES, TRANSACTIONS
from flux_pipelines.domain.tables.witness import REPORTED_SALES

#: The core tables, in the order of the lineage. A provider's own tables are these under `<provider>/<name>`.
TABLES: tuple[Table, ...] = (
    TRANSACTIONS,
    DAILY_SALES,
    DAILY_ITEM_DEMAND,
    DEMAND_FORECASTS,
    FORECAST_ACCURACY,
    PAYMENTS,
    PRODUCTS,
    LOCATIONS,
    INVENTORY_LEVELS,
    TIME_ENTRIES,
    OPEN_ITEMS,
    TIE_OUT,
    REPORTED_SALES,
    RESTATEMENTS,
    SETTLED_ORDERS,
    STORES,
    PRODUCT_MAP,
    QUARANTINE,
)

__all__ = [
    "DAILY_ITEM_DEMAND",
    "DAILY_SALES",
    "DEMAND_FORECASTS",
    "FORECAST_ACCURACY",
    "INVENTORY_LEVELS",
    "LOCATIONS",
    "OPEN_ITEMS",
    "PAYMENTS",
    "PRODUCTS",
    "PRODUCT_MAP",
    "QUARANTINE",
    "REPORTED_SALES",
    "RESTATEMENTS",
    "SETTLED_ORDERS",
    "SQL_TYPES",
    "STORES",
    "TABLES",
    "TIE_OUT",
    "TIME_ENTRIES",
    "TRANSACTIONS",
    "Column",
    "Table",
    "Type",
    "named",
]


def named(name: str) -> Table:
    """Return the contract of a table, which need not be among `TABLES`.

    Raises:
        KeyError: there is none of that name.

    """
    return _BY_NAME[name]


_BY_NAME = {table.name: table for table in globals().copy().values() if isinstance(table, Table)}
