"""Every name that Dagster knows: asset keys, groups, pools, tags. Asset keys are `provider/noun`; core assets one noun."""

from __future__ import annotations

import dagster as dg

from flux_pipelines.defs.internals import HIDDEN_TAG_PREFIX
from flux_pipelines.providers.base import Provider, Strategy
from flux_pipelines.providers.registry import all_providers

CODE_LOCATION = "flux_pipelines"
CORE_OWNER = "team:data"

SALES_GROUP = "sales"
DEMAND_GROUP = "demand"
PAYMENTS_GROUP = "payments"
CATALOG_GROUP = "catalog"
LABOR_GROUP = "labor"
MAPPING_GROUP = "mapping"

TRANSACTIONS = dg.AssetKey("transactions")
DAILY_SALES = dg.AssetKey("daily_sales")
DAILY_ITEM_DEMAND = dg.AssetKey("daily_item_demand")
DEMAND_FORECASTS = dg.AssetKey("demand_forecasts")
FORECAST_ACCURACY = dg.AssetKey("forecast_accuracy")
PAYMENTS = dg.AssetKey("payments")
REPORTED_SALES = dg.AssetKey("reported_sales")
PRODUCTS = dg.AssetKey("products")
LOCATIONS = dg.AssetKey("locations")
INVENTORY_LEVELS = dg.AssetKey("inventory_levels")
TIME_ENTRIES = dg.AssetKey("time_entries")

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
#: Run tag that names the stream that a run collects.
STREAM_TAG = "flux/stream"
#: Run tag of a run that brings the core tables up to date for a batch, because automation did not.
CORE_TAG = "flux/batch-core"
#: Run tag that names the sync request of the gateway that a run belongs to.
REQUEST_TAG = "flux/request"
#: Facts of a provider's table's partition that sensors read back: when its raw records were fetched (seconds since 1970), and
#: whether its date was over then. Beside them is what people read, which may be worded anew.
FETCHED_AT = "flux/fetched_at"
DATE_WAS_OVER = "flux/date_was_over"
#: Runs of higher priority leave the queue first: what has just been sold before years of history.
PRIORITY_TAG = "dagster/priority"
FRESH = "10"
#: What follows from it, before years of history too.
SOON = "5"

MAPPING_JOB = "map_stores_products"
REFRESH_CORE_JOB = "refresh_core"
REFRESH_BOOKS_JOB = "refresh_books"
REFRESH_STOCK_JOB = "refresh_stock"
REFRESH_CATALOG_JOB = "refresh_catalog"
FORECAST_JOB = "forecast_demand"
ACCURACY_JOB = "evaluate_forecasts"
CLOSED_DAYS_JOB = "forecast_closed_days"
FORGET_JOB = "erase_requested"
UPKEEP_JOB = "maintain_lake"
TOKENS_JOB = "refresh_tokens"
RECONCILE_JOB = "reconcile"


def sources() -> list[Provider]:
    """Return the providers that ring up sales."""
    return [provider for provider in all_providers().values() if provider.source is not None]


def raw_orders(provider: str) -> dg.AssetKey:
    """Return the key of a provider's raw orders."""
    return dg.AssetKey([provider, "raw_orders"])


def provider_transactions(provider: str) -> dg.AssetKey:
    """Return the key of a provider's transactions."""
    return dg.AssetKey([provider, "transactions"])


def sync_job(provider: str) -> str:
    """Return the name of the job that fetches and normalises a provider's orders."""
    return stream_job(provider, "windowed")


def raw_stream(provider: str, stream: str) -> dg.AssetKey:
    """Return the key of a provider's stream as received."""
    return dg.AssetKey([provider, f"raw_{stream}"])


def provider_table(provider: str, table: str) -> dg.AssetKey:
    """Return the key of a provider's own part of a table."""
    return dg.AssetKey([provider, table])


def with_table(table: str) -> list[Provider]:
    """Return the providers that have their own part of a table."""
    return [provider for provider in sources() if any(spec.table == table for spec in provider.tables)]


#: How the job is called that reads a provider's streams of a strategy.
_READING: dict[Strategy, str] = {"windowed": "sync", "daily": "collect", "hourly": "snapshot", "current": "catalog"}


def stream_job(provider: str, strategy: Strategy) -> str:
    """Return the name of the job that reads a provider's streams of a strategy, and makes their tables."""
    return f"{_READING[strategy]}_{provider}"


def derive_job(provider: str) -> str:
    """Return the name of the job that makes the tables which a provider keeps inside its orders."""
    return f"derive_{provider}"


def pool(provider: str) -> str:
    """Return the pool that bounds how many runs fetch from a provider at once."""
    return f"{provider}_api"
