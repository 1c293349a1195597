"""What Dagster loads. Loading reads no secret, calls nobody and writes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from flux_pipelines.pipelines import automation, demand, ingest, jobs, names, sales
from flux_pipelines.pipelines.resources import FluxResource


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
    providers = names.sources()
    watches = [automation.watch(provider) for provider in providers]
    return dg.Definitions(
        assets=[
            *(asset for provider in providers for asset in ingest.provider_assets(provider)),
            *sales.marts(),
            *demand.demand_assets(),
        ],
        asset_checks=[check for check, _ in watches],
        jobs=jobs.jobs(),
        schedules=[automation.daily_schedule(provider) for provider in providers],
        sensors=[
            automation.automation_sensor(),
            *(automation.connection_partitions_sensor(provider) for provider in providers),
            *(automation.change_sensor(provider) for provider in providers),
            *(sensor for _, sensor in watches),
        ],
        resources={"flux": FluxResource(), **overrides},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
