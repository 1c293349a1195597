"""`flux apps`, `flux tokens`, `flux inbox` and `flux connections refresh`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state import NewEvent
from flux_pipelines_tests.integration.conftest import Flux
from flux_sandbox.server import RunningSandbox

SECRETS = json.dumps({"client_id": "geheim-id", "client_secret": "geheim-secret"})


class Registering(Flux):
    """Runs `flux` beside the open rooms of its home."""

    def __init__(self, home: Path, runtime: Runtime) -> None:
        super().__init__(home)
        self.runtime = runtime

    def fails(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must fail; return all that it said."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def flux(tmp_path: Path) -> Iterator[Registering]:
    """The command in a home of its own, and the installation beside it."""
    with Runtime(Settings(home=tmp_path / "home")) as runtime:
        yield Registering(tmp_path / "home", runtime)


def test_a_registration_is_stored_listed_and_removed(flux: Registering) -> None:
    assert "not registered anywhere" in flux("apps", "list")
    assert "geheim" not in flux("apps", "set", "google", "--secrets", "-", stdin=SECRETS)
    flux("apps", "set", "google", "--secrets", "-", "--settings", '{"hosted_domain": "x.test"}', stdin=SECRETS)
    (listed,) = json.loads(flux("apps", "list", "--json"))
    assert (listed["name"], listed["settings"]) == ("google", {"hosted_domain": "x.test"})
    assert listed["secrets"] == ["client_id", "client_secret"]
    shown = flux("apps", "list")
    assert "client_secret" in shown
    assert "geheim" not in shown
    assert flux.runtime.state.apps.secrets("google", purpose="test") == json.loads(SECRETS)
    flux("apps", "remove", "google", "--yes")
    assert "flux apps list" in flux.fails("apps", "remove", "google", "--yes")


def test_secrets_of_an_app_come_from_standard_input_and_are_not_repeated(flux: Registering) -> None:
    assert "standard input" in flux.fails("apps", "set", "google", "--secrets", SECRETS)
    for chosen, secrets, message in (
        ("{}", "geheim is no json", "not valid JSON"),
        ("{}", '{"client_id": "geheim"}', "client_secret"),
        ('{"issuer": "http://x.test"}', SECRETS, "https://"),
    ):
        said = flux.fails("apps", "set", "google", "--settings", chosen, "--secrets", "-", stdin=secrets)
        assert message in said
        assert "geheim" not in said
    assert json.loads(flux("apps", "list", "--json")) == []


def test_a_token_is_printed_once_alone_and_works_until_it_is_revoked(flux: Registering) -> None:
    done = flux.run("tokens", "create", "nightly export", "--expires-days", "30", "--read-only")
    assert done.returncode == 0
    plaintext = done.stdout.strip()
    assert done.stdout == f"{plaintext}\n"
    assert plaintext not in done.stderr
    tokens = flux.runtime.state.api_tokens
    token = tokens.find(plaintext)
    assert token is not None
    assert token.scopes == ("read",)
    assert token.expires_at is not None
    assert abs(token.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    listed = flux("tokens", "list")
    assert "nightly export" in listed
    assert "works" in listed
    assert plaintext not in listed
    flux("tokens", "revoke", str(token.id))
    assert tokens.find(plaintext) is None
    assert "revoked" in flux("tokens", "list")
    assert "flux tokens list" in flux.fails("tokens", "revoke", "999")


def test_events_that_failed_are_seen_and_tried_again(flux: Registering) -> None:
    inbox = flux.runtime.state.inbox
    inbox.add_many([NewEvent("square", f"e-{n}", "payment.updated", "ML1", None, b"geheim") for n in range(3)])
    ids = [event.id for event in inbox.pending("square")]
    inbox.fail(ids[:2], "not an order")
    listed = json.loads(flux("inbox", "list", "--status", "failed", "--json"))
    assert [(event["id"], event["reason"]) for event in listed] == [(n, "not an order") for n in (ids[1], ids[0])]
    shown = flux("inbox", "list")
    assert "1 received, 0 assigned, 0 done, 0 kept, 2 failed" in shown
    assert "geheim" not in shown
    assert "received, assigned" in flux.fails("inbox", "list", "--status", "lost")
    assert "1 events wait" in flux("inbox", "retry", str(ids[0]))
    assert "neither failed nor kept" in flux.fails("inbox", "retry", str(ids[0]))
    assert "1 events wait" in flux("inbox", "retry")
    assert inbox.counts()["received"] == 3


def test_the_doctor_looks_at_apps_and_events(flux: Registering) -> None:
    # Nobody forecasts there, which the doctor says as well.
    flux.environment["FLUX_FORECAST_URL"] = "http://127.0.0.1:1"
    state = flux.runtime.state
    state.apps.put("google", {}, json.loads(SECRETS))
    said = flux.fails("doctor")
    assert "registered at google; their secrets can be decrypted" in said
    assert "0 pending, 0 processed" in said
    state.apps.put("google", {}, {"client_id": "x"})
    state.inbox.add_many([NewEvent("square", "e", "t", "a", None, b"")])
    state.inbox.fail([event.id for event in state.inbox.pending("square")], "x")
    said = flux.fails("doctor")
    assert "are not those of an app at Google" in said
    assert "1 webhook events could not be dealt with" in said


def test_a_token_is_refreshed_on_demand(flux: Registering, world: RunningSandbox) -> None:
    flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
    secrets = flux.runtime.state.secrets
    before = secrets.get("square:sakura", purpose="test")["access_token"]
    said = flux("connections", "refresh", "square:sakura")
    after = secrets.get("square:sakura", purpose="test")["access_token"]
    assert after != before
    assert "good until" in said
    assert after not in said
    secrets.put("square:sakura", {"access_token": after})
    assert "no refresh token" in flux.fails("connections", "refresh", "square:sakura")
    assert "flux connections list" in flux.fails("connections", "refresh", "square:nobody")
