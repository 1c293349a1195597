"""The sandbox as one ASGI app: its own endpoints, and every provider's under `/<provider>` and, paths allowing, at `/`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from flux_sandbox import registry
from flux_sandbox.control import Control
from flux_sandbox.dataset import load_dataset
from flux_sandbox.deliverer import Deliverer
from flux_sandbox.options import SandboxOptions
from flux_sandbox.provider import ProviderSandbox
from flux_sandbox.world import World


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


def _clash(one: BaseRoute, other: BaseRoute) -> bool:
    """Tell whether two routes could be asked for by the same path."""
    if not isinstance(one, Route) or not isinstance(other, Route):
        return True  # a mount takes every path below it: nobody can say
    return bool(one.path_regex.match(other.path) or other.path_regex.match(one.path))


def build_app(world: World) -> Starlette:
    """Return the app over a world: found by the registry, no provider is named here."""
    # Whose merchants come first in the world comes first here, then by name.
    rank = {merchant.provider: place for place, merchant in reversed([*enumerate(world.merchants.values())])}
    sandboxes: list[ProviderSandbox] = [
        registry.build(name, world) for name in sorted(registry.simulated(), key=lambda name: rank.get(name, len(rank)))
    ]
    control = Control(world, sandboxes).routes
    routes: list[BaseRoute] = [*control]
    routes += [Mount(f"/{sandbox.name}", routes=sandbox.routes) for sandbox in sandboxes]
    # Real base URLs have no prefix. Who shares a path with an earlier one is found under the prefix alone.
    at_root: list[BaseRoute] = [*control]
    for sandbox in sandboxes:
        if not any(_clash(one, other) for one in sandbox.routes for other in at_root):
            at_root += sandbox.routes
    routes += at_root[len(control) :]
    deliverer = Deliverer(world.outbox, world.clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(deliverer.stop)

    return Starlette(routes=routes, exception_handlers={404: _not_found}, lifespan=lifespan)
