"""A sandbox that was started again, on whatever port: its accounts are connected again, and nothing else is touched."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from flux_pipelines.cli.demo import ACCOUNTS, connect_accounts
from flux_pipelines.connections import add_with_secrets, connect_to_sandbox, lifecycle, reconnect_to_sandbox
from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_pipelines.providers.base import Location
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.transport.server import Reply, Seen, serve
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

SETTINGS: dict[str, dict[str, Any]] = {"toast": {"history_pause_seconds": 0}, "shopify": {"bulk_days": 7}}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(Settings(home=tmp_path / "home"), patient=False) as opened:
        yield opened


def test_an_app_is_known_before_its_webhooks_can_come(runtime: Runtime) -> None:
    """Where a subscription is verified, the provider asks the gateway while it is being made."""
    known: list[bool] = []

    def script(seen: Seen) -> Reply:
        if seen.method == "POST":
            known.append(runtime.state.apps.get("square") is not None)
            return Reply()
        secrets = {"client_secret": "s", "webhook_signature_key": "k"}
        return Reply(
            body=json.dumps({"apps": {"square": {"settings": {"client_id": "c"}, "secrets": secrets}}}).encode()
        )

    with serve(script) as server:
        assert register_at_sandbox(runtime, server.url, "http://127.0.0.1:1") == []
    assert known == [True]


def sandbox(port: int = 0, seed: int = 1) -> RunningSandbox:
    return RunningSandbox(SandboxOptions(history_days=2, seed=seed), port=port)


def merchants(at: RunningSandbox) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = httpx.get(f"{at.url}/sandbox/merchants").json()["merchants"]
    return told


def connect_all(runtime: Runtime, at: RunningSandbox) -> list[str]:
    """Connect every merchant of every provider, each under a name that is not its own; return the keys."""
    keys = []
    for merchant in merchants(at):
        key = f"{merchant['provider']}:my-{merchant['handle']}"
        own = {"cutoff_hour": 5, **SETTINGS.get(merchant["provider"], {})}
        connect_to_sandbox(runtime, key, tenant="t", url=at.url, merchant=merchant["handle"], settings=own)
        keys.append(key)
    return keys


def kept(runtime: Runtime, key: str) -> tuple[Connection, dict[str, str]]:
    return runtime.state.connections.get(key), runtime.state.secrets.get(key, purpose="test")


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def test_every_providers_accounts_are_connected_again_on_the_same_port_and_on_another(runtime: Runtime) -> None:
    with sandbox() as first:
        keys = connect_all(runtime, first)
        paused, given_up, refused, failing = (
            "square:my-sakura",
            "shopify:my-fjord-shop",
            "square:my-fjord",
            "toast:my-harbor-kitchen",
        )
        lifecycle.disconnect(runtime, given_up, by="ada")
        httpx.post(f"{first.url}/sandbox/tokens/revoke", json={"merchant": "fjord"}).raise_for_status()
        with pytest.raises(FluxError):
            lifecycle.test_connection(runtime, refused)
    assert runtime.state.connections.get(refused).status == "needs_reauth"
    for _ in range(5):  # nobody answers, until the breaker lets nobody try any more
        with pytest.raises(FluxError):
            lifecycle.test_connection(runtime, failing)
    with pytest.raises(FluxError, match="calls are paused until"):
        lifecycle.test_connection(runtime, failing)
    lifecycle.pause(runtime, paused, by="ada")
    disconnected = kept(runtime, given_up)

    port = 0
    for _ in range(2):  # elsewhere, and then there again
        with sandbox(port) as later:
            assert later.url != first.url
            assert reconnect_to_sandbox(runtime, later.url) == []
            for key in keys:
                connection = runtime.state.connections.get(key)
                if key == given_up:
                    assert kept(runtime, key) == disconnected
                    continue
                assert (connection.status, connection.status_reason) == (
                    ("paused", "paused by ada") if key == paused else ("active", "")
                )
                assert port_of(connection.settings["base_url"]) == port_of(later.url)
                own = {"cutoff_hour": 5, **SETTINGS.get(connection.provider, {})}
                assert own.items() <= connection.settings.items()
                if key != paused:
                    assert lifecycle.test_connection(runtime, key)
            lifecycle.resume(runtime, paused)
            assert lifecycle.test_connection(runtime, paused)
            lifecycle.pause(runtime, paused, by="ada")
            port = port_of(later.url)
    assert [alert for alert in runtime.state.alerts.open() if alert.kind == "needs_reauth"] == []


def test_an_account_connected_with_secrets_that_people_had_is_connected_again(runtime: Runtime) -> None:
    with sandbox() as first:
        for merchant in merchants(first):
            provider, handle = merchant["provider"], merchant["handle"]
            given = httpx.post(f"{first.url}/sandbox/tokens", json={"merchant": handle}).json()
            base_url = f"{first.url}/{provider}"
            settings = {"base_url": base_url}
            if provider == "shopify":
                settings = {"base_url": f"{base_url}/shops/{{shop}}", "shop": handle}
            secrets = {"access_token": given["access_token"]}
            if provider == "toast":
                secrets = {name: given[name] for name in ("client_id", "client_secret")}
                settings["restaurants"] = merchant["locations"][1]["id"]
            add_with_secrets(runtime, f"{provider}:{handle}", tenant="t", settings=settings, secrets=secrets)
    before = {one.key: runtime.state.locations.list(one.key) for one in runtime.state.connections.list()}
    with sandbox() as later:
        assert reconnect_to_sandbox(runtime, later.url) == []
        after = {
            one.key: lifecycle.test_connection(runtime, one.key)
            for one in runtime.state.connections.list(active_only=True)
        }
    ids = [{key: {one.location_id for one in found} for key, found in of.items()} for of in (before, after)]
    assert ids[0] == ids[1]
    assert len(ids[1]["toast:harbor-kitchen"]) == 1


class Foreign:
    """A server on this machine that is no sandbox, and remembers what it was asked."""

    def __init__(self) -> None:
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_POST = do_GET

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Foreign:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def add(runtime: Runtime, key: str, status: Any = "active", **settings: str) -> None:
    """Add a connection to another system than a sandbox, with one location."""
    connection = Connection(key, "acme", "ACCOUNT", status, "a reason" if status != "active" else "", settings)
    runtime.state.connections.add(connection, {"client_id": "geheim", "client_secret": "geheim"})
    runtime.state.locations.replace(key, [Location("OTHER", "Acme", "UTC", "USD")])


def test_real_providers_and_other_systems_and_other_worlds_are_not_touched(runtime: Runtime) -> None:
    with sandbox(seed=2) as other:
        strangers = connect_all(runtime, other)
    # At the address where the sandbox is now, too: it is not where they were connected that tells.
    with sandbox(port_of(other.url)) as now, Foreign() as foreign:
        keys = [f"square:{handle}" for handle in ("harbor", "sakura")]
        for key in keys:
            connect_to_sandbox(runtime, key, tenant="t", url=now.url)
        add(runtime, "square:real")
        add(runtime, "toast:real", "needs_reauth")
        add(runtime, "shopify:mock", "needs_reauth", base_url=foreign.url)
        add(runtime, "square:mock", base_url=f"{foreign.url}/v2")
        add(runtime, "toast:gone", base_url="http://127.0.0.1:1")
        others = ["square:real", "toast:real", "shopify:mock", "square:mock", "toast:gone", *strangers]
        before = {key: kept(runtime, key) for key in others}

        problems = reconnect_to_sandbox(runtime, now.url)

        assert {key: kept(runtime, key) for key in others} == before
        assert foreign.asked == []
        assert {runtime.state.connections.get(key).status for key in keys} == {"active"}
        # What cannot work any more is named; a mock that answers, and what is no concern of a sandbox, is not.
        assert sorted(str(problem.connection) for problem in problems) == sorted(["toast:gone", *strangers])
        for problem in problems:
            assert "stays as it is" in problem.what
            assert f"flux connections remove {problem.connection}" in problem.next_step

        # Nor does a name take them over: the demo's, for example.
        for key in ("toast:real", "shopify:mock", "square:real"):
            with pytest.raises(ConfigurationError, match="not an account of the sandbox"):
                connect_to_sandbox(runtime, key, tenant="t", url=now.url, merchant="harbor-kitchen", again=True)
        assert {key: kept(runtime, key) for key in others} == before
        assert foreign.asked == []


def test_one_that_cannot_be_connected_again_is_named_and_the_others_go_on(runtime: Runtime) -> None:
    with sandbox() as one, sandbox() as two:
        connect_to_sandbox(runtime, "square:a", tenant="t", url=one.url, merchant="harbor")
        connect_to_sandbox(runtime, "square:b", tenant="t", url=two.url, merchant="harbor")
        connect_to_sandbox(runtime, "square:sakura", tenant="t", url=two.url)
    with sandbox() as now:
        (problem,) = reconnect_to_sandbox(runtime, now.url)
        assert problem.connection == "square:b"
        assert "connected already, as square:a" in str(problem)
        assert "flux connections remove square:b" in problem.next_step
        assert lifecycle.test_connection(runtime, "square:a")
        assert lifecycle.test_connection(runtime, "square:sakura")
    left = runtime.state.connections.get("square:b")
    assert left.status == "needs_reauth"
    assert "connected already, as square:a" in left.status_reason
    assert "square:b" in [alert.connection_key for alert in runtime.state.alerts.open()]


def test_apps_follow_the_sandbox_and_those_of_other_systems_stay(runtime: Runtime) -> None:
    gateway = "http://127.0.0.1:{}"
    with sandbox() as first:
        assert register_at_sandbox(runtime, first.url, gateway.format(8410)) == []
    mock = {"base_url": "http://127.0.0.1:9", "notification_url": "http://127.0.0.1:8/webhooks"}
    runtime.state.apps.put("square", mock, {"client_id": "mine", "client_secret": "geheim"})
    with sandbox() as later:
        assert register_at_sandbox(runtime, later.url, gateway.format(18410)) == ["square"]
        told = httpx.get(f"{later.url}/sandbox/webhooks").json()["subscriptions"]
    others = {name for name, spec in all_providers().items() if spec.webhooks} - {"square"}
    assert {"shopify", "toast"} <= {one["provider"] for one in told} == others
    assert {one["notification_url"] for one in told} == {f"http://127.0.0.1:18410/webhooks/{name}" for name in others}
    for name, setting in (("shopify", "base_url"), ("toast", "base_url"), ("google", "issuer"), ("github", "base_url")):
        assert port_of(str(runtime.app(name).settings[setting]).replace("{shop}", "x")) == port_of(later.url)
    assert runtime.app("square").settings == mock


def test_the_demo_connects_its_accounts_in_whatever_state_a_home_has_them(runtime: Runtime) -> None:
    with sandbox() as first:  # what a person has connected in the gateway, before any demo
        connect_to_sandbox(runtime, "square:mine", tenant="t", url=first.url, merchant="harbor")
        connect_to_sandbox(runtime, "square:sakura", tenant="t", url=first.url)
        connect_to_sandbox(runtime, "toast:harbor-kitchen", tenant="t", url=first.url)
        lifecycle.disconnect(runtime, "square:sakura", by="ada")
        lifecycle.pause(runtime, "toast:harbor-kitchen", by="ada")
    for _ in range(2):
        with sandbox() as later:
            assert reconnect_to_sandbox(runtime, later.url) == []
            keys = connect_accounts(runtime, later.url)
            assert keys == ["square:mine", *(key for key, _ in ACCOUNTS[1:])]
            assert {one.key: one.status for one in runtime.state.connections.list()} == dict.fromkeys(keys, "active")
            for key in keys:
                assert lifecycle.test_connection(runtime, key)


def test_the_demo_leaves_a_real_account_of_its_accounts_names_alone(runtime: Runtime) -> None:
    add(runtime, "square:harbor")
    before = kept(runtime, "square:harbor")
    with sandbox() as running, pytest.raises(ConfigurationError, match="FLUX_HOME"):
        connect_accounts(runtime, running.url)
    assert kept(runtime, "square:harbor") == before
