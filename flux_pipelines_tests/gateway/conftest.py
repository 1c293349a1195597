"""A gateway on a real port over a real state database, and browsers that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.gateway.people import Browser

ALLOWED = "ada@example.com, grace@example.com, @example.org"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), allowed_people=ALLOWED)
    with Runtime(settings, patient=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def gateway(runtime: Runtime) -> Iterator[RunningGateway]:
    with RunningGateway(runtime) as running:
        yield running


@pytest.fixture
def browser(gateway: RunningGateway) -> Iterator[Browser]:
    """A browser that nobody has signed in with."""
    with Browser(gateway) as opened:
        yield opened


@pytest.fixture
def ada(gateway: RunningGateway, runtime: Runtime) -> Iterator[Browser]:
    """Ada's browser, signed in."""
    with Browser(gateway) as opened:
        opened.sign_in_as("google:ada", "ada@example.com", "Ada")
        yield opened


@pytest.fixture
def machine(gateway: RunningGateway, runtime: Runtime) -> Iterator[Callable[..., httpx.Client]]:
    """A function that makes a client with an API token of its own."""
    clients: list[httpx.Client] = []

    def make(*scopes: str) -> httpx.Client:
        _, plaintext = runtime.state.api_tokens.create("machine", "ada@example.com", scopes=scopes or ("read", "write"))  # type: ignore[arg-type]
        client = httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {plaintext}"}, trust_env=False)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
