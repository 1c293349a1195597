"""The gateway as one ASGI application: routers, error pages, and the guard around all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from flux_pipelines import __version__
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.gateway import api, connect, health, pages, problems, signin, webhooks
from flux_pipelines.gateway.guard import Guard
from flux_pipelines.gateway.identity_registry import Identities
from flux_pipelines.gateway.options import GatewayOptions
from flux_pipelines.gateway.sessions import SignInNeededError, sign_in_url
from flux_pipelines.gateway.throttle import Throttle
from flux_pipelines.gateway.views import STATIC
from flux_pipelines.runtime import Runtime

#: Everything that answers, beside the static files.
ROUTERS = (webhooks.router, health.router, signin.router, connect.router, pages.router, api.router)
#: From one address: an office behind one address signs in at nine o'clock.
SIGN_INS_A_MINUTE = 60


def build_app(runtime: Runtime, options: GatewayOptions, *, closes_runtime: bool = False) -> FastAPI:
    """Build a gateway over opened rooms.

    Args:
        runtime: the rooms; opened for answers within seconds (`patient=False`).
        options: how it is reached, with the public URL that it really has.
        closes_runtime: close the rooms when the application ends; else whoever opened them does.

    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        identities.close()
        if getattr(app.state, "deliveries", None) is not None:
            await run_in_threadpool(app.state.deliveries.close)
        if closes_runtime:
            await run_in_threadpool(runtime.close)

    # The documentation pages would load scripts from elsewhere; the schema itself is behind sign-in (`api.py`).
    app = FastAPI(
        title="Flux gateway",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    # Opened here and not with the first request: threads would open them twice.
    identities = Identities(runtime)
    _ = runtime.state, runtime.transport
    app.state.runtime = runtime
    app.state.options = options
    app.state.identities = identities
    app.state.sign_ins = Throttle(SIGN_INS_A_MINUTE)
    app.add_middleware(Guard, options=options)
    app.add_exception_handler(SignInNeededError, _to_sign_in)
    app.add_exception_handler(FluxError, problems.of_flux)
    app.add_exception_handler(HTTPException, problems.of_http)
    app.add_exception_handler(RequestValidationError, problems.of_validation)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


async def _to_sign_in(request: Request, _: Exception) -> Response:
    return RedirectResponse(sign_in_url(request), status_code=303)
