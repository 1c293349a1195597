"""Jobs: the selections that people, schedules and the command line run together. Each run is one process.

A run costs about 3 CPU seconds before it does anything and a step in a process of its own 6 more, so steps share the
run's process and the parallelism is inside the assets.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.union import AS_A_WHOLE, BY_DAY
from flux_pipelines.defs.freshness import NO_OPEN_ALERTS, PROVIDER_ANSWERS, VERSION_SUPPORTED, YESTERDAY_COMPLETE
from flux_pipelines.defs.internals import UnresolvedAssetJobDefinition
from flux_pipelines.defs.tags import connection_tags
from flux_pipelines.domain.tables import (
    INVENTORY_LEVELS,
    OPEN_ITEMS,
    REPORTED_SALES,
    RESTATEMENTS,
    SETTLED_ORDERS,
    TIE_OUT,
)
from flux_pipelines.providers.base import ORDERS, TRANSACTIONS, Provider, Strategy, Stream, StreamTable


def jobs() -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs, those of every provider first."""
    core = [names.TRANSACTIONS, names.DAILY_SALES, names.DAILY_ITEM_DEMAND]
    books = [
        *(
            dg.AssetKey(table.name)
            for table, *_ in BY_DAY
            if table is not INVENTORY_LEVELS and names.with_table(table.name)
        ),
        *(dg.AssetKey(table.name) for table in (OPEN_ITEMS, TIE_OUT, RESTATEMENTS, SETTLED_ORDERS)),
        *((names.DAILY_SALES,) if names.with_table(REPORTED_SALES.name) else ()),  # compared with what was collected
    ]
    # Apart: of days without snapshots there is nothing, and a partition without rows would say that there was no stock.
    stock = [names.INVENTORY_LEVELS] if names.with_table(INVENTORY_LEVELS.name) else []
    catalog = [dg.AssetKey(table.name) for table, _ in AS_A_WHOLE if names.with_table(table.name)]
    return [
        *(job for provider in names.sources() for job in stream_jobs(provider)),
        dg.define_asset_job(
            names.REFRESH_CORE_JOB,
            selection=core,
            description="Bring the core tables of some business dates up to date from what has been fetched.",
            executor_def=dg.in_process_executor,
        ),
        *(
            dg.define_asset_job(name, selection=selection, description=description, executor_def=dg.in_process_executor)
            for name, selection, description in (
                (
                    names.REFRESH_BOOKS_JOB,
                    books,
                    "Bring payments and hours worked of some business dates up to date from what has been fetched, "
                    "and see whether the days tie out and what has been restated.",
                ),
                (
                    names.REFRESH_STOCK_JOB,
                    stock,
                    "Bring the stock of some dates up to date from the snapshots that were taken.",
                ),
                (
                    names.REFRESH_CATALOG_JOB,
                    catalog,
                    "Bring products and locations up to date from what has been fetched.",
                ),
            )
            if selection
        ),
        dg.define_asset_job(
            names.FORECAST_JOB,
            selection=[names.DEMAND_FORECASTS],
            description="Forecast demand as of some business dates.",
            executor_def=dg.in_process_executor,
        ),
        dg.define_asset_job(
            names.ACCURACY_JOB,
            selection=[names.FORECAST_ACCURACY],
            description="Evaluate what had been forecast for some business dates.",
            executor_def=dg.in_process_executor,
        ),
        dg.define_asset_job(
            names.CLOSED_DAYS_JOB,
            selection=[names.DEMAND_FORECASTS, names.FORECAST_ACCURACY],
            description="Forecast demand as of business dates that have closed, and evaluate what had been forecast for "
            "them.",
            executor_def=dg.in_process_executor,
        ),
    ]


def _watched(provider: Provider) -> dg.AssetSelection:
    """Return the checks that the watch evaluates, not a sync."""
    version = (VERSION_SUPPORTED,) if provider.sunset is not None else ()
    checks = (YESTERDAY_COMPLETE, NO_OPEN_ALERTS, PROVIDER_ANSWERS, *version)
    return dg.AssetSelection.checks(*(dg.AssetCheckKey(names.raw_orders(provider.name), name) for name in checks))


_READS: dict[Strategy, str] = {
    "windowed": "Fetch {streams} of {title} of some connections and business dates, and normalise them.",
    "daily": "Fetch {streams} of {title} for some connections and business dates, and make their tables.",
    "hourly": "Take this hour's snapshot of {streams} of {title} for some connections, and make its table.",
    "current": "Fetch {streams} of {title} as they are now for some connections, and make their tables.",
}


def stream_jobs(provider: Provider) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs of a provider's streams: one a strategy, and one for the tables that it keeps inside its orders."""
    found = []
    for strategy, description in _READS.items():
        streams = provider.streams_by(strategy)
        if streams:
            selection = dg.AssetSelection.assets(
                *(asset for stream in streams for asset in assets_of(provider, stream))
            )
            found.append(
                dg.define_asset_job(
                    names.stream_job(provider.name, strategy),
                    # Without the watch, which has a sensor of its own.
                    selection=selection - _watched(provider) if strategy == "windowed" else selection,
                    description=description.format(
                        streams=" and ".join(stream.title for stream in streams), title=provider.title
                    ),
                    executor_def=dg.in_process_executor,
                )
            )
    inside = inside_orders(provider)
    if inside:
        found.append(
            dg.define_asset_job(
                names.derive_job(provider.name),
                selection=[names.provider_table(provider.name, spec.table) for spec in inside],
                description=f"Make the tables that {provider.title} keeps inside its orders, from orders fetched before.",
                executor_def=dg.in_process_executor,
            )
        )
    return found


def inside_orders(provider: Provider) -> list[StreamTable]:
    """Return the tables beside `transactions` that are made of a provider's orders. A job of their own makes them."""
    return [spec for spec in provider.tables if spec.stream == ORDERS and spec.table != TRANSACTIONS]


def assets_of(provider: Provider, stream: Stream) -> list[dg.AssetKey]:
    """Return what the job of a stream makes of it: its raw records, then its tables."""
    apart = inside_orders(provider)
    made = [spec.table for spec in provider.tables if spec.stream == stream.name and spec not in apart]
    return [
        names.raw_stream(provider.name, stream.name),
        *(names.provider_table(provider.name, table) for table in made),
    ]


def stream_request(
    provider: Provider,
    stream: Stream,
    connection: str,
    first: date,
    last: date,
    *,
    run_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.RunRequest:
    """Return the request to read one stream of a connection and make its tables, in one run.

    Args:
        provider: whose.
        stream: which stream.
        connection: the connection's key.
        first: first day; for what there is now, today.
        last: last day, included.
        run_key: keeps Dagster from making the same run twice.
        tags: further tags.

    """
    orders = stream.strategy == "windowed"
    return dg.RunRequest(
        run_key=run_key,
        job_name=names.stream_job(provider.name, stream.strategy),
        asset_selection=None if orders else assets_of(provider, stream),
        tags={
            **connection_tags(connection, first, last, stream.grain),
            # Apart from the orders' queue: what has just been sold does not wait for the other streams.
            names.QUEUE_TAG: connection if orders else f"{connection}/streams",
            names.STREAM_TAG: stream.name,
            **(tags or {}),
        },
    )
