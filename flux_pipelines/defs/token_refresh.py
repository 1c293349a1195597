"""Once an hour: tokens that expire soon are refreshed, also of connections that nothing syncs, and people are warned."""

# No `from __future__ import annotations` here: Dagster reads the annotations of op and schedule functions as objects.

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.providers.registry import all_providers

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime

#: What expires within this time is refreshed if it can be, and warned of if it cannot.
AHEAD = timedelta(days=7)
#: The names under which credentials are stored that only a person can renew.
_CONSENTS = {"consent_expires_at": "the account's consent", "refresh_token_expires_at": "the refresh token"}


@dg.op(name="refresh_tokens_due", description="Refreshes tokens that expire soon, and warns of consents that do.")
def _keep(context: dg.OpExecutionContext, flux: FluxResource) -> None:
    runtime = flux.runtime
    rows: list[tuple[str, str]] = []
    failures: list[str] = []
    for connection in _looked_after(runtime):
        try:
            what = _refresh(runtime, connection)
        except FluxError as error:
            # One that must be authorised again has its alert by now and is left alone from here on. What may pass is
            # tried again in an hour, and by whoever uses the token before.
            what = str(error)
            failures.append(what)
        rows.append((connection.key, what))
        context.log.info(f"{connection.key}: {what}")
    _warn(runtime)
    context.add_output_metadata({"connections": len(rows), "tokens": preview(("connection", "what was done"), rows)})
    if failures:
        raise dg.Failure("Some tokens could not be refreshed.\n" + "\n".join(failures))


def _looked_after(runtime: "Runtime") -> list["Connection"]:
    """Return the connections whose tokens are kept alive: paused ones too, so that they can be resumed."""
    return [c for c in runtime.connections() if c.status in ("active", "paused")]


def _refresh(runtime: "Runtime", connection: "Connection") -> str:
    return "refreshed" if runtime.token_manager(connection).refresh_if_due(AHEAD) else "good"


def _warn(runtime: "Runtime") -> None:
    """Raise alerts for what only a person can renew and must within a week."""
    alerts, expiries = runtime.state.alerts, runtime.state.secrets.expiries()
    renewed = runtime.renewed_by_itself()
    soon = datetime.now(UTC) + AHEAD
    for connection in runtime.connections():
        if connection.status not in ("active", "paused"):
            alerts.resolve("consent_expiring", connection.key)  # what it warned of has happened, and is told as that
            continue
        mine = expiries.get(connection.key, {})
        ending = {what: mine[name] for name, what in _CONSENTS.items() if name in mine and mine[name] < soon}
        if mine.get("expires_at", soon) < soon and connection.key not in renewed:
            ending["the access token, which cannot be refreshed,"] = mine["expires_at"]
        if not ending:
            alerts.resolve("consent_expiring", connection.key)
            continue
        what, at = min(ending.items(), key=lambda item: item[1])
        alerts.raise_(
            "consent_expiring",
            connection.key,
            f"{what} expires on {at:%Y-%m-%d %H:%M} UTC. Connect the account again before; its history and settings stay.",
        )


def refresh_tokens_job() -> dg.JobDefinition:
    """Return the job that keeps tokens alive."""

    @dg.job(
        name=names.TOKENS_JOB,
        description=(
            f"Refresh the access tokens that expire within {AHEAD.days} days and in the last quarter of their life, and raise "
            "an alert a week before a consent ends that only a person can renew."
        ),
        executor_def=dg.in_process_executor,
    )
    def refresh_tokens() -> None:
        _keep()

    return refresh_tokens


def refresh_tokens_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the hourly schedule, which makes a run only if something expires soon."""

    @dg.schedule(
        name=f"{names.TOKENS_JOB}_hourly",
        job=job,
        cron_schedule="35 * * * *",
        execution_timezone="UTC",
        description=(
            f"Looks every hour whether a connection's token or consent expires within {AHEAD.days} days, and then runs "
            f"{names.TOKENS_JOB}."
        ),
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def hourly(context: dg.ScheduleEvaluationContext, flux: FluxResource) -> dg.RunRequest | dg.SkipReason:
        runtime = flux.sensor_runtime
        soon = context.scheduled_execution_time.astimezone(UTC) + AHEAD
        expiries, renewed = runtime.state.secrets.expiries(), runtime.renewed_by_itself()
        for connection in runtime.connections():
            mine = dict(expiries.get(connection.key, {}))
            spec = all_providers().get(connection.provider)
            if connection.key in renewed and spec is not None and spec.login is not None:
                mine.pop("expires_at", None)  # it signs in when it is used, and never ahead
            if connection.status in ("active", "paused") and min(mine.values(), default=soon) < soon:
                return dg.RunRequest()
        if any(alert.kind == "consent_expiring" for alert in runtime.state.alerts.open()):
            return dg.RunRequest()  # which may be settled by now
        return dg.SkipReason(f"Nothing expires within {AHEAD.days} days, and no alert says so.")

    return hourly
