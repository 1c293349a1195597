"""A small world over real HTTP for the streams: shared by a file's tests, and one that a test may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.providers.base import Location, Record, Window
from flux_pipelines.providers.square.client import SquareClient
from flux_pipelines_tests.providers.squarewire import square
from flux_pipelines_tests.sandbox.conftest import VERSION, Clock, shared, validate
from flux_sandbox.model import Merchant
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.world import World

__all__ = ["shared", "validate"]

#: Clocks went back on the 1st in New York.
FIRST, LAST = date(2026, 10, 24), date(2026, 11, 2)


class House:
    """A sandbox and one of its merchants, as a client with a token sees it."""

    def __init__(self, sandbox: RunningSandbox, handle: str, folder: Path, clock: Clock) -> None:
        self.sandbox, self.clock, self._folder = sandbox, clock, folder
        self.world: World = sandbox.world
        self.merchant: Merchant = self.world.merchant(handle)
        self.token = self.post("tokens", merchant=handle)["access_token"]
        self.http = httpx.Client(
            base_url=sandbox.url, headers={**VERSION, "Authorization": f"Bearer {self.token}"}, timeout=30
        )
        self.locations = [
            Location(one.id, one.name, one.timezone, one.currency, one.active) for one in self.merchant.locations
        ]

    def post(self, what: str, **body: Any) -> Any:
        """Pull a string of the sandbox."""
        answer = httpx.post(f"{self.sandbox.url}/sandbox/{what}", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def truth(self, what: str, **query: Any) -> Any:
        """What really is, of this merchant."""
        params = {"merchant": self.merchant.handle, **query}
        return httpx.get(f"{self.sandbox.url}/sandbox/truth/{what}", params=params, timeout=30).json()

    def client(self) -> AbstractContextManager[SquareClient]:
        return square(self.sandbox.url, self._folder, self.token, requests_per_minute=100_000)

    def read(self, stream: str, window: Window) -> list[Record]:
        with self.client() as client:
            return [one for page in client.read(stream, window) for one in page]

    def now(self) -> Window:
        """A question about what there is now, everywhere."""
        at = self.clock.now
        return Window(tuple(one.location_id for one in self.locations), at, at, at.date())


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], House]]:
    """Merchants of a world of ten days that nobody changes."""
    clock = Clock()
    options = SandboxOptions(history_days=10, end_day=LAST, clock=clock)
    with RunningSandbox(options) as sandbox:
        yield lambda handle: House(sandbox, handle, tmp_path_factory.mktemp(handle), clock)


@pytest.fixture
def lively(tmp_path: Path) -> Iterator[House]:
    """A teahouse whose world a test may change."""
    clock = Clock()
    with RunningSandbox(SandboxOptions(history_days=3, end_day=LAST, clock=clock)) as sandbox:
        yield House(sandbox, "sakura", tmp_path, clock)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
