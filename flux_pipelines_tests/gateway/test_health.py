"""What is said of a connection's health while its provider is down, frozen, refuses, and when it is back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from flux_pipelines.connections import lifecycle
from flux_pipelines.domain.errors import FluxError, PermissionLostError
from flux_pipelines.gateway.overview import summaries
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines.transport import RetryPolicy, SqliteLimitStore, Transport
from flux_pipelines.transport.client import Timeout
from flux_pipelines_tests.gateway.consent import KEY, connect, register
from flux_pipelines_tests.gateway.lakefill import land
from flux_pipelines_tests.gateway.people import Browser
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

END_DAY = datetime.now(UTC).date() - timedelta(days=2)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=2, end_day=END_DAY, rate_limit=1_000_000)) as running:
        yield running


@pytest.fixture
def harbor(ada: Browser, runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox) -> Iterator[str]:
    """A healthy connection: its newest day has just been fetched."""
    register(runtime, gateway, sandbox)
    assert connect(ada).status_code == 303
    land(runtime, KEY, [END_DAY])
    assert "Healthy" in ada.get(f"/connections/{KEY}").text
    yield KEY
    fault(sandbox, "")
    runtime.state.connections.remove(KEY)


def fault(sandbox: RunningSandbox, faults: str) -> None:
    httpx.post(f"{sandbox.url}/sandbox/faults", json={"faults": faults}, timeout=30).raise_for_status()


class Daemon:
    """Another process of the same home, as the daemon's runs are; its minutes pass as they are told to."""

    def __init__(self, runtime: Runtime, *, later: float = 0.0, read: float = 10.0) -> None:
        self.runtime = Runtime(runtime.settings)
        self.runtime.transport = Transport(
            SqliteLimitStore(runtime.settings.home / "limits.db", clock=lambda: time.monotonic() + later),
            self.runtime.state.audit,
            user_agent="test",
            retry_policy=RetryPolicy(attempts=2, waiting=False),
            timeout=Timeout(read=read, total=read),
        )

    def calls(self, key: str = KEY) -> None:
        """Call the provider, whatever comes of it, and end."""
        connection = self.runtime.state.connections.get(key)
        with self.runtime:
            source = self.runtime.source(connection)
            try:
                source.verify_access()
                source.locations()
            except FluxError:
                return
            finally:
                source.close()


def told(browser: Browser, key: str = KEY) -> str:
    """What both pages say in place of `Healthy`."""
    listed, page = browser.get("/connections").text, browser.get(f"/connections/{key}").text
    assert "Healthy" not in listed
    assert "Healthy" not in page
    assert "Sales arrive" not in page
    return page


def test_a_provider_that_is_down_is_not_healthy_until_it_answers_again(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, harbor: str
) -> None:
    fault(sandbox, "error500=1")
    assert ada.submit(f"/connections/{harbor}/test").status_code == 409
    page = told(ada)
    assert "No answer" in page
    assert "since 20" in page
    assert "the next good answer mends it" in page

    for _ in range(5):  # the breaker opens after ten failed calls, whoever makes them
        Daemon(runtime).calls()
    page = told(ada)
    assert "Provider down" in page
    assert "Calls are held back until" in page
    assert "It mends itself" in page
    before = httpx.get(f"{sandbox.url}/sandbox/stats", timeout=30).json()["endpoints"]
    assert ada.submit(f"/connections/{harbor}/test").status_code == 409
    assert httpx.get(f"{sandbox.url}/sandbox/stats", timeout=30).json()["endpoints"] == before, "it is held back"
    (row,) = commands(runtime, "connections", "list", "--json")
    assert (row["status"], row["contact"]) == ("active", "Provider down")

    fault(sandbox, "")
    assert "Provider down" in told(ada), "nobody has asked it since"
    Daemon(runtime, later=60).calls()
    for path in ("/connections", f"/connections/{harbor}"):
        assert "Healthy" in ada.get(path).text
    (row,) = commands(runtime, "connections", "list", "--json")
    assert row["contact"] == "good"


def test_a_provider_that_hangs_is_not_healthy(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, harbor: str
) -> None:
    fault(sandbox, "latency=2")
    Daemon(runtime, read=0.3).calls()
    page = told(ada)
    assert "No answer" in page
    assert "with no answer" in page
    fault(sandbox, "")
    Daemon(runtime).calls()
    assert "Healthy" in ada.get(f"/connections/{harbor}").text


def test_a_permission_that_is_lost_is_not_healthy_and_says_what_to_do(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, harbor: str
) -> None:
    change = {"merchant": "harbor", "remove": ["ORDERS_READ"]}
    httpx.post(f"{sandbox.url}/sandbox/tokens/scopes", json=change, timeout=30).raise_for_status()
    assert ada.submit(f"/connections/{harbor}/test").status_code == 409
    Daemon(runtime).calls()
    page = told(ada)
    assert "Permission lost" in page, "calls that need other permissions settle nothing"
    assert "Grant the missing permission" in page
    assert "does not mend itself" in page
    runtime.remember(harbor, "sync of payments", PermissionLostError("payments may not be read"))
    assert connect(ada, again="yes").status_code == 303, "a new consent, with every permission"
    assert "Healthy" in ada.get(f"/connections/{harbor}").text


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:9", "{sandbox}/nowhere"])
def test_a_test_that_failed_is_told_until_one_goes_well(
    ada: Browser, runtime: Runtime, sandbox: RunningSandbox, harbor: str, elsewhere: str
) -> None:
    place = elsewhere.format(sandbox=sandbox.url)
    runtime.state.connections.update_settings(harbor, {"base_url": place})
    with pytest.raises(FluxError):
        lifecycle.test_connection(runtime, harbor)
    page = told(ada)
    assert "No answer" in page or "Test failed" in page
    assert ("answered 404" in page) == ("nowhere" in place)
    runtime.state.connections.update_settings(harbor, {"base_url": sandbox.url})
    assert ada.submit(f"/connections/{harbor}/test").status_code == 200
    assert "Healthy" in ada.get(f"/connections/{harbor}").text


def test_a_sync_that_failed_is_told_until_something_is_fetched(ada: Browser, runtime: Runtime, harbor: str) -> None:
    asked = runtime.state.sync_requests.add(harbor, END_DAY, END_DAY, "ada@example.com", "test")
    runtime.state.sync_requests.finish(asked, ok=False, detail="the lake cannot be written")
    page = told(ada)
    assert "Sync failed" in page
    assert "The lake cannot be written." in page
    land(runtime, harbor, [END_DAY])
    assert "Healthy" in ada.get(f"/connections/{harbor}").text


def test_one_that_is_in_trouble_stands_before_the_healthy_ones(
    runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox, ada: Browser, harbor: str
) -> None:
    assert connect(ada, "sakura", "sakura").status_code == 303
    fault(sandbox, "error500=1")
    Daemon(runtime).calls("square:sakura")
    found = [(one.connection.key, one.health.word) for one in summaries(runtime)]
    runtime.state.connections.remove("square:sakura")
    assert found == [("square:sakura", "No answer"), (harbor, "Healthy")]


def commands(runtime: Runtime, *arguments: str) -> list[dict[str, str]]:
    environment = {**os.environ, "FLUX_HOME": str(runtime.settings.home)}
    command = [sys.executable, "-m", "flux_pipelines.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found
