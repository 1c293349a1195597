"""Jobs: the selections that people, schedules and the command line run together. Each run is one process.

A run costs about 3 CPU seconds before it does anything and a step in a process of its own 6 more, so steps share the
run's process and the parallelism is inside the assets.
"""

from __future__ import annotations

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.normalized import ORDERS
from flux_pipelines.defs.assets.union import AS_A_WHOLE, BY_DAY
from flux_pipelines.defs.freshness import NO_OPEN_ALERTS, PROVIDER_ANSWERS, VERSION_SUPPORTED, YESTERDAY_COMPLETE
from flux_pipelines.defs.internals import UnresolvedAssetJobDefinition
from flux_pipelines.domain.tables import (
    INVENTORY_LEVELS,
    OPEN_ITEMS,
    REPORTED_SALES,
    RESTATEMENTS,
    SETTLED_ORDERS,
    TIE_OUT,
)
from flux_pipelines.providers.base import Grain, Provider, Stream


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
    catalogue = [dg.AssetKey(table.name) for table, _ in AS_A_WHOLE if names.with_table(table.name)]
    return [
        *(
            dg.define_asset_job(
                names.sync_job(provider.name),
                # Without the watch, which has a sensor of its own.
                selection=dg.AssetSelection.assets(
                    names.raw_orders(provider.name), names.provider_transactions(provider.name)
                )
                - dg.AssetSelection.checks(
                    *(dg.AssetCheckKey(names.raw_orders(provider.name), watched) for watched in _watched(provider))
                ),
                description=f"Fetch {provider.title} orders of some connections and business dates, and normalise them.",
                executor_def=dg.in_process_executor,
            )
            for provider in names.sources()
        ),
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
                    names.REFRESH_CATALOGUE_JOB,
                    catalogue,
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


def _watched(provider: Provider) -> tuple[str, ...]:
    """Return the checks that the watch evaluates, not a sync."""
    version = (VERSION_SUPPORTED,) if provider.sunset is not None else ()
    return (YESTERDAY_COMPLETE, NO_OPEN_ALERTS, PROVIDER_ANSWERS, *version)


_COLLECTS: dict[Grain, str] = {
    "day": "Fetch {streams} of {title} for some connections and business dates, and make their tables.",
    "hour": "Take this hour's snapshot of {streams} of {title} for some connections, and make its table.",
    "current": "Fetch {streams} of {title} as they are now for some connections, and make their tables.",
}


def streams_of(provider: Provider, grain: Grain) -> list[Stream]:
    """Return a provider's streams of a grain."""
    return [stream for stream in provider.streams if stream.grain == grain]


def stream_jobs(provider: Provider) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs of a provider's streams: one a grain, and one for the tables that it keeps inside its orders."""
    found = []
    for grain, description in _COLLECTS.items():
        streams = {stream.name: stream.title for stream in streams_of(provider, grain)}
        if streams:
            tables = [spec.table for spec in provider.tables if spec.stream in streams]
            found.append(
                dg.define_asset_job(
                    names.stream_job(provider.name, grain),
                    selection=[
                        *(names.raw_stream(provider.name, stream) for stream in streams),
                        *(names.provider_table(provider.name, table) for table in tables),
                    ],
                    description=description.format(streams=" and ".join(streams.values()), title=provider.title),
                    executor_def=dg.in_process_executor,
                )
            )
    inside = [names.provider_table(provider.name, spec.table) for spec in provider.tables if spec.stream == ORDERS]
    if inside:
        found.append(
            dg.define_asset_job(
                names.derive_job(provider.name),
                selection=inside,
                description=f"Make the tables that {provider.title} keeps inside its orders, from orders fetched before.",
                executor_def=dg.in_process_executor,
            )
        )
    return found
