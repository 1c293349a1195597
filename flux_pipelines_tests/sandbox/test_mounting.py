"""Where providers that share paths are found: under their own prefix each, at `/` whoever's merchants come first."""

from __future__ import annotations

from datetime import date

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flux_sandbox import registry
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.world import World


async def _here(request: Request) -> Response:
    return PlainTextResponse(f"twin {request.url.path}")


class Twin:
    """A provider of which one path is somebody else's too."""

    name = "a_twin"

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self.routes = [Route("/v2/locations", _here), Route("/twin/only", _here)]

    def authorised(self) -> set[str]:
        return set()


class Lone(Twin):
    """A provider that shares no path."""

    name = "lone"

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self.routes = [Route("/single/{rest:path}", _here)]


def test_who_shares_a_path_is_found_under_its_prefix_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, real = {"a_twin": Twin, "lone": Lone}, registry.build
    # First by name, and yet Square keeps `/`: its merchants are the world's first.
    monkeypatch.setattr(registry, "simulated", lambda: [*ours, "square"])
    monkeypatch.setattr(
        registry,
        "build",
        lambda name, world: ours[name](world, world.options) if name in ours else real(name, world),
    )
    with (
        RunningSandbox(SandboxOptions(history_days=1, end_day=date(2026, 11, 2))) as sandbox,
        httpx.Client(base_url=sandbox.url, timeout=30) as client,
    ):
        assert client.get("/v2/locations").status_code == 401  # Square's, which wants a token
        assert client.get("/square/v2/locations").status_code == 401
        assert client.get("/a_twin/v2/locations").text == "twin /a_twin/v2/locations"
        assert client.get("/a_twin/twin/only").status_code == 200
        assert client.get("/twin/only").status_code == 404
        assert client.get("/single/anything").text == "twin /single/anything"
        assert client.get("/lone/single/anything").status_code == 200
