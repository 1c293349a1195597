"""Is it alive, is it ready: for load balancers and supervisors, who see one word and no reason."""

from __future__ import annotations

import threading
import time

from fastapi import APIRouter, Request
from sqlalchemy import text
from starlette.responses import PlainTextResponse, Response

from flux_pipelines.domain.errors import FluxError
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.sessions import runtime_of
from flux_pipelines.runtime import Runtime

router = APIRouter(include_in_schema=False)

_REMEMBERED_SECONDS = 1.0
_asking = threading.Lock()


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def healthz() -> Response:
    """Answer while the process can answer at all."""
    return PlainTextResponse("ok\n")


@router.api_route("/readyz", methods=["GET", "HEAD"])
def readyz(request: Request) -> Response:
    """Answer whether people and providers can be served: state database, its schema, and the keys of the vault."""
    state = request.app.state
    with _asking:
        # Strangers may ask as often as they like; the database is asked once a second.
        at, ready = getattr(state, "readiness", (float("-inf"), False))
        if time.monotonic() - at > _REMEMBERED_SECONDS:
            ready = _is_ready(runtime_of(request))
            state.readiness = (time.monotonic(), ready)
    return PlainTextResponse("ready\n" if ready else "not ready\n", status_code=200 if ready else 503)


def _is_ready(runtime: Runtime) -> bool:
    try:
        with runtime.state.database.reading() as session:
            session.execute(text("SELECT 1"))
        runtime.state.database.migrate()
        vault = runtime.state.vault
        ciphertext, _ = vault.encrypt("ready")
        vault.decrypt(ciphertext)
    except FluxError as problem:
        logger.error("not ready: %s", problem)
        return False
    return True
