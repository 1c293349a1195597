"""Every name that Dagster knows: asset keys, groups, pools, tags. Asset keys are `provider/noun`; core assets one noun."""

from __future__ import annotations

import dagster as dg
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX

from flux_pipelines.providers.base import Provider
from flux_pipelines.providers.registry import all_providers

CODE_LOCATION = "flux_pipelines"
CORE_OWNER = "team:data"

SALES_GROUP = "sales"
DEMAND_GROUP = "demand"

TRANSACTIONS = dg.AssetKey("transactions")
DAILY_SALES = dg.AssetKey("daily_sales")
DAILY_ITEM_DEMAND = dg.AssetKey("daily_item_demand")
DEMAND_FORECASTS = dg.AssetKey("demand_forecasts")
FORECAST_ACCURACY = dg.AssetKey("forecast_accuracy")

#: Hidden run tag that names the sync a run belongs to: partitions that this sync has landed already are not fetched again.
SYNC_TAG = f"{HIDDEN_TAG_PREFIX}flux_sync"
#: Run tag that names the connection of a run, for people who filter runs in the UI.
CONNECTION_TAG = "flux/connection"
#: Hidden run tag of the process that drives a run itself (`host:pid:start`), so that a dead process's runs can be closed.
DRIVER_TAG = f"{HIDDEN_TAG_PREFIX}flux_driver"

#: Run tag of the runs that automation asks for: the run queue lets them follow each other.
AUTOMATION_TAG = "flux/automation"

REFRESH_CORE_JOB = "refresh_core"
FORECAST_JOB = "forecast_demand"
ACCURACY_JOB = "evaluate_forecasts"
UPKEEP_JOB = "maintain_lake"


def sources() -> list[Provider]:
    """Return the providers that ring up sales."""
    return [provider for provider in all_providers().values() if provider.pos_source is not None]


def raw_orders(provider: str) -> dg.AssetKey:
    """Return the key of a provider's raw orders."""
    return dg.AssetKey([provider, "raw_orders"])


def provider_transactions(provider: str) -> dg.AssetKey:
    """Return the key of a provider's transactions."""
    return dg.AssetKey([provider, "transactions"])


def sync_job(provider: str) -> str:
    """Return the name of the job that fetches and normalises a provider's orders."""
    return f"sync_{provider}"


def pool(provider: str) -> str:
    """Return the pool that bounds how many runs fetch from a provider at once."""
    return f"{provider}_api"
