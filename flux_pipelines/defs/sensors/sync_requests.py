"""Runs the syncs that people ask for in the gateway."""

# No `from __future__ import annotations` here: Dagster reads the annotations of sensor functions as objects.

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.completeness import collected_until
from flux_pipelines.defs.jobs import stream_request
from flux_pipelines.defs.partitions import business_days, connections_of, each_day
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.defs.runs import Followed, follow, why_failed
from flux_pipelines.defs.staleness import MAX_DAYS_PER_EVENT_RUN, Run
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import UnknownConnectionError
from flux_pipelines.providers.base import ORDERS
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.settings import settings

if TYPE_CHECKING:
    from flux_pipelines.defs.internals import UnresolvedAssetJobDefinition
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.state import SyncRequest


def requested_syncs_sensor(jobs: Sequence["UnresolvedAssetJobDefinition"]) -> dg.SensorDefinition:
    """Return the sensor that runs what people have asked for, and tells them how it went.

    Args:
        jobs: every provider's sync, and those that collect daily streams.

    """

    @dg.sensor(
        name="requested_syncs",
        jobs=list(jobs),
        description=(
            "Runs the syncs and first backfills that people ask for in the gateway, at most 31 business dates in a run: "
            "orders, and what is kept by the day beside them (payments, hours worked). Tells the gateway how they went."
        ),
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def requested_syncs(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult | dg.SkipReason:
        state = flux.sensor_runtime.state
        requests: list[dg.RunRequest] = []
        additions: list[Any] = []
        waiting = state.sync_requests.open()
        for request in waiting:
            tag = {names.REQUEST_TAG: str(request.id)}
            runs = follow(context.instance, tag, datetime.now(UTC))
            wanted = _runs(request)
            if runs.asked < len(wanted):
                try:
                    connection = state.connections.get(request.connection_key)
                except UnknownConnectionError:
                    state.sync_requests.finish(request.id, ok=False, detail="the connection was removed")
                    continue
                why = _refusal(connection, request)
                if why:
                    state.sync_requests.finish(request.id, ok=False, detail=why)
                    continue
                partitions = connections_of(connection.provider)
                if connection.key not in context.instance.get_dynamic_partitions(str(partitions.name)):
                    additions.append(partitions.build_add_request([connection.key]))
                requests += [_run_request(run, request, tag) for run in wanted]
            elif runs.outcome == "under way":
                state.sync_requests.start(request.id, f"request-{request.id}")
            else:
                detail = _outcome(context.instance, request, runs)
                state.sync_requests.finish(request.id, ok=runs.failed is None, detail=detail)
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


def _runs(request: "SyncRequest") -> list[Run]:
    """Cut what was asked for into runs: the orders, and each stream by day."""
    spec = provider_named(split_key(request.connection_key)[0])
    # As of when it was asked for, so that every look cuts it in the same way.
    until = collected_until(request.last_day, request.asked_at)
    wanted = [(ORDERS, request.last_day), *((stream.name, until) for stream in spec.streams_by("daily"))]
    return [
        Run(request.connection_key, what, start, min(start + timedelta(days=MAX_DAYS_PER_EVENT_RUN - 1), last))
        for what, last in wanted
        for start in each_day(request.first_day, last)[::MAX_DAYS_PER_EVENT_RUN]
    ]


def _run_request(run: Run, request: "SyncRequest", tags: dict[str, str]) -> dg.RunRequest:
    spec = provider_named(split_key(run.connection)[0])
    # The run key keeps what was asked for before from being made twice.
    key = f"request-{request.id}|{run.what}|{run.first}"
    return stream_request(spec, spec.stream(run.what), run.connection, run.first, run.last, run_key=key, tags=tags)


def _outcome(instance: dg.DagsterInstance, request: "SyncRequest", runs: Followed) -> str:
    """Tell what was fetched, and what was not and why: payments that may not be read do not hide that orders are there."""
    spec = provider_named(split_key(request.connection_key)[0])
    titles = {stream.name: stream.title for stream in spec.streams if stream.grain == "day"}
    failed: dict[str, dg.DagsterRun] = {}
    for record in runs.records:
        if record.dagster_run.status != dg.DagsterRunStatus.SUCCESS:
            failed.setdefault(record.dagster_run.tags.get(names.STREAM_TAG, ORDERS), record.dagster_run)
    days = (request.last_day - request.first_day).days + 1
    fetched = ", ".join(title for what, title in titles.items() if what not in failed)
    told = [f"{days} business date{' was' if days == 1 else 's were'} fetched: {fetched}."] if fetched else []
    told += [
        f"{title.capitalize()} could not all be fetched: {why_failed(instance, failed[what])}"
        for what, title in titles.items()
        if what in failed
    ]
    return " ".join([*told, "Then ask for these days again."] if failed else told)
