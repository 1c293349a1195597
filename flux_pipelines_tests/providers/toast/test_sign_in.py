"""Connecting Toast with a client id and secret: proved against the sandbox, through the real state and vault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flux_pipelines.connections import add_with_secrets, disconnect, reconfigure
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, PermissionLostError, ReauthorizationNeededError
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE, toast_sandbox
from flux_sandbox.server import RunningSandbox

KEY = "toast:kitchen"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with toast_sandbox(history_days=2) as running:
        yield running


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(Settings(home=tmp_path / "home"), patient=False) as opened:
        yield opened


def credentials(sandbox: RunningSandbox) -> dict[str, str]:
    issued = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"provider": "toast", "merchant": HANDLE}).json()
    return {name: issued[name] for name in ("client_id", "client_secret")}


def add(runtime: Runtime, sandbox: RunningSandbox, key: str = KEY, **settings: str) -> Connection:
    given = {"base_url": f"{sandbox.url}/toast", **settings}
    connection, _ = add_with_secrets(runtime, key, tenant="harbor", settings=given, secrets=credentials(sandbox))
    return connection


def test_a_client_id_and_secret_make_a_connection_of_every_restaurant(
    runtime: Runtime, sandbox: RunningSandbox
) -> None:
    connection = add(runtime, sandbox)
    assert (connection.status, connection.tenant) == ("active", "harbor")
    assert connection.account_id
    assert connection.cutoff_hour == 4, "Toast's day ends at four unless a restaurant says otherwise"
    places = {place.location_id: place for place in runtime.state.locations.list(KEY)}
    merchant = sandbox.world.merchant(HANDLE)
    assert {key: place.timezone for key, place in places.items()} == {
        one.id: one.timezone for one in merchant.locations
    }
    assert sandbox.world.request_log.counts["token_refreshes"] == 1
    with pytest.raises(ConfigurationError, match="connected already"):
        add(runtime, sandbox, "toast:again")
    assert [one.key for one in runtime.state.connections.list("toast")] == [KEY]


def test_connections_share_a_client_but_no_restaurant(runtime: Runtime, sandbox: RunningSandbox) -> None:
    first, second, _ = [location.id for location in sandbox.world.merchant(HANDLE).locations]
    one = add(runtime, sandbox, "toast:one", restaurants=first)
    assert [place.location_id for place in runtime.state.locations.list("toast:one")] == [first]
    assert one.account_id == "", "the client's account is not the connection's"
    with pytest.raises(ConfigurationError, match="connected already, as toast:one"):
        add(runtime, sandbox, "toast:both", restaurants=f"{second}, {first}")
    with pytest.raises(ConfigurationError, match="connected already, as toast:one"):
        add(runtime, sandbox, "toast:all")
    assert [one.key for one in runtime.state.connections.list("toast")] == ["toast:one"]
    add(runtime, sandbox, "toast:two", restaurants=second)
    disconnect(runtime, "toast:one", by="a person")
    add(runtime, sandbox, "toast:again", restaurants=first)


def test_a_wrong_secret_leaves_nothing_behind_and_is_never_shown(runtime: Runtime, sandbox: RunningSandbox) -> None:
    wrong = {**credentials(sandbox), "client_secret": "not-the-secret-at-all"}
    with pytest.raises(ReauthorizationNeededError) as refused:
        add_with_secrets(runtime, KEY, tenant="harbor", settings={"base_url": f"{sandbox.url}/toast"}, secrets=wrong)
    assert "not-the-secret-at-all" not in f"{refused.value}{refused.value!r}{refused.value.__cause__}"
    assert runtime.state.connections.list("toast") == []
    with pytest.raises(ConfigurationError, match="complete way"):
        add_with_secrets(runtime, KEY, tenant="harbor", settings={}, secrets={"client_id": "only"})
    with pytest.raises(PermissionLostError):
        add(runtime, sandbox, restaurants="11111111-2222-4333-8444-555555555555")
    assert runtime.state.connections.list("toast") == []


def test_an_ended_token_is_replaced_once_and_lost_credentials_ask_for_new_ones(
    runtime: Runtime, sandbox: RunningSandbox
) -> None:
    connection = add(runtime, sandbox)
    post = httpx.Client(base_url=sandbox.url)
    assert post.post("/sandbox/tokens/expire", json={"provider": "toast", "merchant": HANDLE}).json()
    source = runtime.source(connection)
    assert len(source.locations()) == 3
    assert sandbox.world.request_log.counts["token_refreshes"] == 2
    answer = post.post("/sandbox/tokens/revoke", json={"provider": "toast", "merchant": HANDLE})
    assert answer.status_code == 200, answer.text
    with pytest.raises(ReauthorizationNeededError):
        source.locations()
    source.close()
    assert runtime.state.connections.get(KEY).status == "needs_reauth"
    secrets = credentials(sandbox)  # made again by the restaurant
    reconfigured, _ = add_with_secrets(
        runtime, KEY, tenant="harbor", settings={"base_url": f"{sandbox.url}/toast"}, secrets=secrets
    )
    assert reconfigured.status == "active"
    changes = {"requests_per_hour": 1000, "cutoff_hour": 6}
    changed, _ = reconfigure(runtime, KEY, settings=changes, secrets=secrets)
    assert (changed.settings["requests_per_hour"], changed.cutoff_hour) == (1000, 6)
    back, _ = reconfigure(runtime, KEY, settings=dict.fromkeys(changes), secrets=None)
    assert ("requests_per_hour" in back.settings, back.cutoff_hour) == (False, 4)


def test_disconnecting_forgets_the_credentials_and_has_nothing_to_revoke(
    runtime: Runtime, sandbox: RunningSandbox
) -> None:
    add(runtime, sandbox)
    assert disconnect(runtime, KEY, by="a person") is False
    assert runtime.state.connections.get(KEY).status == "disconnected"
    assert "client_secret" not in runtime.state.secrets.get(KEY, purpose="test")
