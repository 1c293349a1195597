"""Jobs: the selections that people, schedules and the command line run together. Each run is one process.

A run costs about 3 CPU seconds before it does anything and a step in a process of its own 6 more, so steps share the
run's process and the parallelism is inside the assets.
"""

from __future__ import annotations

import dagster as dg

from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.automation import YESTERDAY_COMPLETE


def jobs() -> list[dg.UnresolvedAssetJobDefinition]:
    """Return the jobs, those of every provider first."""
    core = [names.TRANSACTIONS, names.DAILY_SALES, names.DAILY_ITEM_DEMAND]
    return [
        *(
            dg.define_asset_job(
                names.sync_job(provider.name),
                # Without the watch over yesterday, which has a sensor of its own.
                selection=dg.AssetSelection.assets(
                    names.raw_orders(provider.name), names.provider_transactions(provider.name)
                )
                - dg.AssetSelection.checks(dg.AssetCheckKey(names.raw_orders(provider.name), YESTERDAY_COMPLETE)),
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
    ]
