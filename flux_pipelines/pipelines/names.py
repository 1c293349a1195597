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

#: Dagster's own run tags for a range of partitions, both ends included.
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
#: Hidden run tag that names the sync a run belongs to: partitions that this sync has landed already are not fetched again.
SYNC_TAG = f"{HIDDEN_TAG_PREFIX}flux_sync"
#: Run tag that names the connection of a run, for people who filter runs in the UI.
CONNECTION_TAG = "flux/connection"
#: Hidden run tag by which the run queue lets the syncs of one connection follow each other. Not `flux/connection`, which
#: runs outside the queue have too: one that was killed would hold the others up until it is found dead.
QUEUE_TAG = f"{HIDDEN_TAG_PREFIX}flux_connection"
#: Hidden run tag of the process that drives a run itself (`host:pid:start`), so that a dead process's runs can be closed.
DRIVER_TAG = f"{HIDDEN_TAG_PREFIX}flux_driver"

#: Run tag of the runs that automation asks for: the run queue lets those of one value follow each other.
AUTOMATION_TAG = "flux/automation"
#: Run tag that names the batch of webhook events that a run brings in, and into how many runs the batch was cut.
BATCH_TAG = "flux/batch"
BATCH_RUNS_TAG = "flux/batch-runs"
#: Run tag of a run that brings the core tables up to date for a batch, because automation did not.
CORE_TAG = "flux/batch-core"
#: Run tag that names the sync request of the gateway that a run belongs to.
REQUEST_TAG = "flux/request"
#: Metadata of a partition of a provider's transactions that sensors read: when its orders were fetched, and whether
#: its day was over then.
FETCHED_AT = "fetched at"
DAY_STATE = "day"
OVER, OPEN = "over", "open"
#: Runs of higher priority leave the queue first: what has just been sold before years of history.
PRIORITY_TAG = "dagster/priority"
FRESH = "10"

REFRESH_CORE_JOB = "refresh_core"
FORECAST_JOB = "forecast_demand"
ACCURACY_JOB = "evaluate_forecasts"
CLOSED_DAYS_JOB = "forecast_closed_days"
UPKEEP_JOB = "maintain_lake"
TOKENS_JOB = "keep_tokens"
RECONCILE_JOB = "reconcile"


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
