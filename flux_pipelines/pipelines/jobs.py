"""Jobs: the selections that people, schedules and the command line run together. Each run is one process.

A run costs about 3 CPU seconds before it does anything and a step in a process of its own 6 more, so steps share the
run's process and the parallelism is inside the assets.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.watch import NO_OPEN_ALERTS, YESTERDAY_COMPLETE

_WATCHED = (YESTERDAY_COMPLETE, NO_OPEN_ALERTS)


def jobs() -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs, those of every provider first."""
    core = [names.TRANSACTIONS, names.DAILY_SALES, names.DAILY_ITEM_DEMAND]
    return [
        *(
            dg.define_asset_job(
                names.sync_job(provider.name),
                # Without the watch, which has a sensor of its own.
                selection=dg.AssetSelection.assets(
                    names.raw_orders(provider.name), names.provider_transactions(provider.name)
                )
                - dg.AssetSelection.checks(
                    *(dg.AssetCheckKey(names.raw_orders(provider.name), watched) for watched in _WATCHED)
                ),
                description=f"Fetch {provider.title} orders of some connections and business dates, and normalise them.",
                executor_def=dg.in_process_executor,
            )
            for provider in names.sources()
        ),
        dg.define_asset_job(
            names.REFRESH_CORE_JOB,
            selection=core,
            description="Bring the core tables of some business dates up to date from what has been fetched.",
            executor_def=dg.in_process_executor,
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
