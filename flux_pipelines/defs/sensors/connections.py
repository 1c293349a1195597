"""Partitions that follow connections."""

# No `from __future__ import annotations` here: Dagster reads the annotations of sensor functions as objects.

from typing import Any

import dagster as dg

from flux_pipelines.defs.internals import FINISHED_STATUSES
from flux_pipelines.defs.partitions import connections_of
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.providers.base import Provider


def connection_partitions_sensor(provider: Provider) -> dg.SensorDefinition:
    """Return the sensor that keeps the dynamic partitions in step with the connections."""
    partitions = connections_of(provider.name)

    @dg.sensor(
        name=f"{provider.name}_connections",
        description=(
            f"Adds a partition for each new {provider.title} connection and takes those of removed ones away. A paused "
            "connection keeps its partitions."
        ),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def follow_connections(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult | dg.SkipReason:
        known = set(context.instance.get_dynamic_partitions(str(partitions.name)))
        wanted = {connection.key for connection in flux.sensor_runtime.connections(provider.name)}
        # A run that is under way needs its partition to the end; the next look takes it away.
        gone = known - wanted - _in_use(context.instance, known - wanted)
        requests: list[Any] = []
        if wanted - known:
            requests.append(partitions.build_add_request(sorted(wanted - known)))
        if gone:
            requests.append(partitions.build_delete_request(sorted(gone)))
        if not requests:
            return dg.SkipReason(f"{len(wanted)} connections, all in step.")
        return dg.SensorResult(dynamic_partitions_requests=requests)

    return follow_connections


def _in_use(instance: dg.DagsterInstance, connections: set[str]) -> set[str]:
    """Return which of the connections a run that is not over has to do with, by its tags (backfills included)."""
    if not connections:
        return set()
    under_way = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    values = {tag for run in instance.get_runs(dg.RunsFilter(statuses=under_way)) for tag in run.tags.values()}
    return {key for key in connections if any(tag == key or tag.startswith(f"{key}|") for tag in values)}
