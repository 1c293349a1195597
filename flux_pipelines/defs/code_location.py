"""Puts the code location together: every asset, check, job, schedule, sensor and resource."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from flux_pipelines import providers
from flux_pipelines.defs import erasures, freshness, jobs, maintenance, names, reconciliation, schedules, token_refresh
from flux_pipelines.defs.assets import core, forecasts, mapping, normalized, raw, union
from flux_pipelines.defs.assets.finance import agreement, restatements, tie_out
from flux_pipelines.defs.resources import FluxResource, SageMakerResource
from flux_pipelines.defs.sensors import automation, changes, closed_dates, connections, inbox, sync_requests
from flux_pipelines.providers.base import Provider
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.providers.resource import ProviderResource

# Dagster makes our sensors anew whenever it puts the code location together, and would warn of their owners each time.
warnings.filterwarnings("ignore", r"Parameter `owners` of initializer `SensorDefinition", dg.BetaWarning)


def build_definitions(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the whole code location: the only way to build it, also in tests.

    Args:
        overrides: resources to use in place of the default ones, by key (`flux`).

    """
    with warnings.catch_warnings():
        # Beta in Dagster 1.13, used on purpose and pinned: backfill policies, partition mappings of one dimension.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _definitions(overrides or {})


def _definitions(overrides: Mapping[str, Any]) -> dg.Definitions:
    sources = names.sources()
    looking_after, comparing, keeping = (
        maintenance.upkeep_job(),
        reconciliation.reconcile_job(),
        token_refresh.refresh_tokens_job(),
    )
    deciding = mapping.mapping_job()
    asked = {job.name: job for job in jobs.jobs()}
    forgetting = erasures.forget_job(build_definitions)
    watches = [freshness.watch(provider) for provider in sources]
    return dg.Definitions(
        assets=[
            *(asset for provider in sources for asset in raw.raw_assets(provider)),
            *(asset for provider in sources for asset in normalized.normalized_assets(provider)),
            *core.marts(),
            agreement.daily_sales().asset(),
            *union.union_assets(),
            tie_out.open_items().asset(),
            tie_out.tie_out().asset(),
            restatements.restatements(),
            *mapping.mapping_assets(),
            *forecasts.demand_assets(),
        ],
        asset_checks=[check for checks, _ in watches for check in checks],
        jobs=[*asked.values(), looking_after, comparing, keeping, deciding],
        schedules=[
            *(schedule for provider in sources for schedule in schedules.schedules(provider)),
            maintenance.upkeep_schedule(looking_after),
            reconciliation.reconcile_schedule(comparing),
            token_refresh.refresh_tokens_schedule(keeping),
        ],
        sensors=[
            *automation.automation_sensors(),
            *(connections.connection_partitions_sensor(provider) for provider in sources),
            *(sensor for provider in sources for sensor in changes.change_sensors(provider)),
            *(
                inbox.inbox_sensor(provider, [*_announced(provider, asked), forgetting])
                for provider in sources
                if provider.webhooks is not None
            ),
            sync_requests.requested_syncs_sensor(
                [
                    *(asked[names.sync_job(provider.name)] for provider in sources),
                    *(asked[names.stream_job(p.name, "daily")] for p in sources if p.streams_by("daily")),
                ]
            ),
            closed_dates.closed_days_sensor(asked[names.CLOSED_DAYS_JOB]),
            mapping.decisions_sensor(deciding),
            *(sensor for _, sensor in watches),
        ],
        resources={"flux": FluxResource(), "sagemaker": SageMakerResource(), **_provider_resources(), **overrides},
        executor=dg.in_process_executor,
    )


def _announced(provider: Provider, asked: Mapping[str, Any]) -> list[Any]:
    """Return the jobs that a provider's webhooks may ask for."""
    wanted = dict.fromkeys(names.stream_job(provider.name, stream.strategy) for stream in provider.streams)
    return [asked[name] for name in (*wanted, names.REFRESH_CORE_JOB)]


def _provider_resources() -> dict[str, Any]:
    """Return each provider's API as a resource, under its name; as its own folder types it, if it does."""
    found = {}
    for name in all_providers():
        module = f"{providers.__name__}.{name}.resource"
        typed = importlib.util.find_spec(module) is not None
        found[name] = importlib.import_module(module).RESOURCE if typed else ProviderResource()
    return found
