"""Runs the syncs that people ask for in the gateway."""

# No `from __future__ import annotations` here: Dagster reads the annotations of sensor functions as objects.

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.domain.errors import UnknownConnectionError
from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.automation import sync_request
from flux_pipelines.pipelines.partitions import business_days, connections_of, each_day
from flux_pipelines.pipelines.resources import FluxResource
from flux_pipelines.pipelines.runs import follow, why_failed
from flux_pipelines.pipelines.touched import DAYS_A_RUN
from flux_pipelines.settings import settings

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.state import SyncRequest


def requested_syncs_sensor(jobs: Sequence["UnresolvedAssetJobDefinition"]) -> dg.SensorDefinition:
    """Return the sensor that runs what people have asked for, and tells them how it went.

    Args:
        jobs: every provider's sync.

    """

    @dg.sensor(
        name="requested_syncs",
        jobs=list(jobs),
        description=(
            "Runs the syncs and first backfills that people ask for in the gateway, at most 31 business dates in a run, "
            "and tells the gateway how they went."
        ),
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def requested_syncs(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult | dg.SkipReason:
        state = flux.hurried_runtime.state
        requests: list[dg.RunRequest] = []
        additions: list[Any] = []
        waiting = state.requests.open()
        for request in waiting:
            tag = {names.REQUEST_TAG: str(request.id)}
            runs = follow(context.instance, tag, datetime.now(UTC))
            wanted = _runs(request)
            if runs.asked < len(wanted):
                try:
                    connection = state.connections.get(request.connection_key)
                except UnknownConnectionError:
                    state.requests.finish(request.id, ok=False, detail="the connection was removed")
                    continue
                why = _refusal(connection, request)
                if why:
                    state.requests.finish(request.id, ok=False, detail=why)
                    continue
                partitions = connections_of(connection.provider)
                if connection.key not in context.instance.get_dynamic_partitions(str(partitions.name)):
                    additions.append(partitions.build_add_request([connection.key]))
                # The run key keeps what was asked for before from being made twice.
                requests += [
                    sync_request(
                        connection.provider,
                        connection.key,
                        first,
                        last,
                        run_key=f"request-{request.id}|{first}",
                        tags=tag,
                    )
                    for first, last in wanted
                ]
            elif runs.outcome == "under way":
                state.requests.start(request.id, f"request-{request.id}")
            elif runs.failed is not None:
                state.requests.finish(request.id, ok=False, detail=why_failed(context.instance, runs.failed))
            else:
                days = (request.last_day - request.first_day).days + 1
                state.requests.finish(request.id, ok=True, detail=f"{days} business dates were fetched")
        if not requests:
            return dg.SkipReason(f"{len(waiting)} asked-for syncs are under way.")
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=additions)

    return requested_syncs


def _refusal(connection: "Connection", request: "SyncRequest") -> str:
    """Say why a request cannot be run; empty when it can."""
    if connection.status != "active":
        return f"the connection is {connection.status}"
    first, newest = settings().start_date, date.fromisoformat(str(business_days().get_last_partition_key()))
    if request.first_day < first or request.last_day > newest:
        return f"there are business dates from {first} (FLUX_START_DATE) to {newest} only"
    return ""


def _runs(request: "SyncRequest") -> list[tuple[date, date]]:
    """Cut what was asked for into runs."""
    starts = each_day(request.first_day, request.last_day)[::DAYS_A_RUN]
    return [(start, min(start + timedelta(days=DAYS_A_RUN - 1), request.last_day)) for start in starts]
