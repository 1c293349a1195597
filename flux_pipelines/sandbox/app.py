"""The sandbox as one ASGI app: its own endpoints, and every provider's under `/<provider>` and, paths allowing, at `/`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount

from flux_pipelines.providers.registry import all_providers
from flux_pipelines.sandbox.control import Control, ProviderSandbox
from flux_pipelines.sandbox.dataset import load_dataset
from flux_pipelines.sandbox.deliverer import Deliverer
from flux_pipelines.sandbox.options import SandboxOptions
from flux_pipelines.sandbox.world import World


def build_world(options: SandboxOptions) -> World:
    """Return the world that the options ask for: seeded, or replayed from a folder.

    Raises:
        ConfigurationError: an unknown fault, or a dataset that cannot be replayed.

    """
    if options.orders is None:
        return World(options)
    merchant, sales = load_dataset(options.orders, options.seed)
    return World(options, [merchant], sales)


async def _not_found(request: Request, _: Exception) -> Response:
    return JSONResponse({"error": f"The sandbox has nothing at {request.url.path}."}, 404)


def build_app(world: World) -> Starlette:
    """Return the app over a world: found by the registry, no provider is named here."""
    sandboxes: list[ProviderSandbox] = [
        provider.load(provider.sandbox)(world, world.options)
        for provider in all_providers().values()
        if provider.sandbox is not None
    ]
    routes: list[BaseRoute] = [*Control(world, sandboxes).routes]
    routes += [Mount(f"/{sandbox.name}", routes=sandbox.routes) for sandbox in sandboxes]
    # Real base URLs have no prefix: where two providers share a path, the prefix above tells them apart.
    routes += [route for sandbox in sandboxes for route in sandbox.routes]
    deliverer = Deliverer(world.outbox, world.clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(deliverer.stop)

    return Starlette(routes=routes, exception_handlers={404: _not_found}, lifespan=lifespan)
