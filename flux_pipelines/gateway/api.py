"""The machine endpoints: connections, syncs, inbox, alerts. Described by `/api/openapi.json`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import JSONResponse, Response

from flux_pipelines.connections import lifecycle
from flux_pipelines.connections.lifecycle import pause, resume, test_connection
from flux_pipelines.domain.business_day import newest_begun
from flux_pipelines.domain.connection import Connection, Status
from flux_pipelines.gateway.problems import Problem
from flux_pipelines.gateway.sessions import Caller, Writer, runtime_of
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.audit.alerts import Alert, Kind
from flux_pipelines.state.inbox.events import EventStatus
from flux_pipelines.state.syncs.sync_requests import RequestStatus, SyncRequest

router = APIRouter()

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be read."},
    401: {"model": Problem, "description": "No valid API token or session."},
    403: {"model": Problem, "description": "The caller may not do this."},
    404: {"model": Problem, "description": "There is no such thing."},
    409: {"model": Problem, "description": "Not possible in the present state."},
    413: {"model": Problem, "description": "The request is too large."},
    422: {"model": Problem, "description": "The request is not of the right form."},
    429: {"model": Problem, "description": "Too much waits already; Retry-After says when to ask again."},
    502: {"model": Problem, "description": "The provider does not answer as it should."},
    503: {"model": Problem, "description": "The state database does not answer."},
}
v1 = APIRouter(prefix="/api/v1", responses=_PROBLEMS)

Key = Annotated[
    str,
    Path(description="The connection, `provider:name`.", pattern=r"^[a-z][a-z0-9_]{0,31}:[a-z0-9][a-z0-9_-]{0,62}$"),
]
Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Filter(BaseModel):
    """Which part of a list; a name that is not known is refused, so that a typing error does not return everything."""

    model_config = ConfigDict(extra="forbid")

    provider: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = None


class Me(BaseModel):
    """Who calls."""

    kind: str = Field(description="`person` or `token`.")
    name: str
    scopes: list[str]


class ConnectionView(BaseModel):
    """One connection, without anything secret."""

    key: str
    provider: str
    tenant: str
    account_id: str
    status: Status
    status_reason: str
    settings: dict[str, Any]
    locations: int = Field(description="How many locations the provider named when last asked.")
    last_webhook_at: datetime | None


class Tried(BaseModel):
    """A connection works."""

    locations: int


class SyncOrder(BaseModel):
    """Business dates to fetch, both included."""

    model_config = ConfigDict(extra="forbid")

    first_day: date
    last_day: date
    reason: Line = "asked for through the API"


class SyncView(BaseModel):
    """A sync that was asked for."""

    id: int
    connection: str
    first_day: date
    last_day: date
    status: RequestStatus
    detail: str
    asked_by: str
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class AlertView(BaseModel):
    """Something that a person should see and act on."""

    id: int
    kind: Kind
    connection: str = Field(description="Empty when it is of no connection.")
    message: str
    raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str


@router.get("/api/openapi.json", include_in_schema=False)
def openapi(request: Request, _: Caller) -> Response:
    """Describe the machine endpoints."""
    return JSONResponse(request.app.openapi())


@v1.get("/me")
def me(principal: Caller) -> Me:
    """Tell who calls."""
    return Me(kind=principal.kind, name=principal.name, scopes=sorted(principal.scopes))


@v1.get("/connections")
def connections(request: Request, _: Caller, only: Annotated[Filter, Query()]) -> list[ConnectionView]:
    """List the connections."""
    runtime = runtime_of(request)
    webhooks = runtime.state.inbox.last_received()
    return [_connection(runtime, found, webhooks) for found in runtime.state.connections.list(only.provider)]


@v1.get("/connections/{key}")
def connection(request: Request, _: Caller, key: Key) -> ConnectionView:
    """Return one connection."""
    runtime = runtime_of(request)
    return _connection(runtime, runtime.state.connections.get(key), runtime.state.inbox.last_received())


@v1.post("/connections/{key}/test")
def test(request: Request, _: Writer, key: Key) -> Tried:
    """Call the provider with the connection's credentials."""
    return Tried(locations=len(test_connection(runtime_of(request), key)))


@v1.post("/connections/{key}/pause")
def pause_connection(request: Request, principal: Writer, key: Key) -> ConnectionView:
    """Stop syncing a connection; its credentials and history stay."""
    runtime = runtime_of(request)
    return _connection(runtime, pause(runtime, key, by=principal.name), runtime.state.inbox.last_received())


@v1.post("/connections/{key}/resume")
def resume_connection(request: Request, _: Writer, key: Key) -> ConnectionView:
    """Sync a paused connection again."""
    runtime = runtime_of(request)
    return _connection(runtime, resume(runtime, key), runtime.state.inbox.last_received())


@v1.post("/connections/{key}/syncs", status_code=202)
def request_sync(request: Request, principal: Writer, key: Key, order: SyncOrder) -> SyncView:
    """Ask for a sync of orders and of what is kept by the day beside them; `latest` follows it. Begins within a minute.

    The same one asked for again while it waits is answered with the one that waits.
    """
    runtime = runtime_of(request)
    first = runtime.settings.start_date
    last = newest_begun(datetime.now(UTC))
    if not first <= order.first_day <= order.last_day <= last:
        raise HTTPException(409, f"The days must be in order, from {first} to {last}.")
    asked = lifecycle.request_sync(
        runtime, key, order.first_day, order.last_day, by=principal.name, reason=order.reason
    )
    return _sync(runtime.state.sync_requests.get(asked))


@v1.get("/connections/{key}/syncs/latest")
def latest_sync(request: Request, _: Caller, key: Key) -> SyncView:
    """Return the sync that was asked for last."""
    runtime = runtime_of(request)
    runtime.state.connections.get(key)
    return _sync(runtime.state.sync_requests.latest(key))


@v1.get("/inbox")
def inbox(request: Request, _: Caller, only: Annotated[Filter, Query()]) -> dict[EventStatus, int]:
    """Count the webhook events by status."""
    return runtime_of(request).state.inbox.counts(only.provider)


@v1.get("/alerts")
def alerts(request: Request, _: Caller) -> list[AlertView]:
    """List the open alerts, newest first."""
    return [_alert(found) for found in runtime_of(request).state.alerts.open()]


@v1.post("/alerts/{alert_id}/acknowledge")
def acknowledge(request: Request, principal: Writer, alert_id: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> AlertView:
    """Record that somebody has seen an alert. It stays open until its cause is gone."""
    alerts = runtime_of(request).state.alerts
    if all(found.id != alert_id for found in alerts.open()):
        raise HTTPException(404)
    alerts.acknowledge(alert_id, principal.name)
    return next(_alert(found) for found in alerts.open() if found.id == alert_id)


router.include_router(v1)


def _connection(runtime: Runtime, found: Connection, webhooks: dict[str, datetime]) -> ConnectionView:
    return ConnectionView(
        key=found.key,
        provider=found.provider,
        tenant=found.tenant,
        account_id=found.account_id,
        status=found.status,
        status_reason=found.status_reason,
        settings=dict(found.settings),
        locations=len(runtime.state.locations.list(found.key)),
        last_webhook_at=webhooks.get(found.key),
    )


def _sync(found: SyncRequest | None) -> SyncView:
    if found is None:
        raise HTTPException(404)
    return SyncView(
        id=found.id,
        connection=found.connection_key,
        first_day=found.first_day,
        last_day=found.last_day,
        status=found.status,
        detail=found.detail,
        asked_by=found.asked_by,
        asked_at=found.asked_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
    )


def _alert(found: Alert) -> AlertView:
    return AlertView(
        id=found.id,
        kind=found.kind,
        connection=found.connection_key,
        message=found.message,
        raised_at=found.raised_at,
        acknowledged_at=found.acknowledged_at,
        acknowledged_by=found.acknowledged_by,
    )
