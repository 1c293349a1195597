"""`flux apps`, `flux tokens`, `flux inbox` and `flux connections refresh`: the command's own entry, in this process."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_pipelines.cli import main
from flux_pipelines.runtime import Runtime
from flux_pipelines.sandbox.server import RunningSandbox
from flux_pipelines.settings import settings
from flux_pipelines.state import NewEvent

SECRETS = json.dumps({"client_id": "geheim-id", "client_secret": "geheim-secret"})


class Flux:
    """Runs `flux` in this process, and gives what it printed: starting Python takes longer than these commands."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], runtime: Runtime) -> None:
        self._patch = patch
        self._capture = capture
        self.runtime = runtime

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        self._patch.setattr(sys, "argv", ["flux", *arguments])
        self._patch.setattr(sys, "stdin", io.StringIO(stdin))
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capture.readouterr()
        return int(ended.value.code or 0), out, err

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        code, out, err = self.run(*arguments, stdin=stdin)
        assert code == 0, out + err
        return out

    def fails(self, *arguments: str, stdin: str = "") -> str:
        code, out, err = self.run(*arguments, stdin=stdin)
        assert code == 1, out + err
        return out + err


@pytest.fixture
def flux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Flux]:
    """The command in a home of its own, and the installation beside it."""
    for name in [name for name in os.environ if name.startswith("FLUX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    with Runtime() as runtime:
        yield Flux(monkeypatch, capsys, runtime)
    settings.cache_clear()


def test_a_registration_is_stored_listed_and_removed(flux: Flux) -> None:
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


def test_secrets_of_an_app_come_from_standard_input_and_are_not_repeated(flux: Flux) -> None:
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


def test_a_token_is_printed_once_alone_and_works_until_it_is_revoked(flux: Flux) -> None:
    code, out, err = flux.run("tokens", "create", "nightly export", "--expires-days", "30", "--read-only")
    assert code == 0
    plaintext = out.strip()
    assert out == f"{plaintext}\n"
    assert plaintext not in err
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


def test_events_that_failed_are_seen_and_tried_again(flux: Flux) -> None:
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


def test_the_doctor_looks_at_apps_and_events(flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody forecasts there, which the doctor says as well; starting the embedded one would take longer than the rest.
    monkeypatch.setenv("FLUX_FORECAST_URL", "http://127.0.0.1:1")
    settings.cache_clear()
    state = flux.runtime.state
    state.apps.put("google", {}, json.loads(SECRETS))
    said = flux.fails("doctor")
    assert "registered at google; their secrets can be decrypted" in said
    assert "0 wait, 0 are dealt with" in said
    state.apps.put("google", {}, {"client_id": "x"})
    state.inbox.add_many([NewEvent("square", "e", "t", "a", None, b"")])
    state.inbox.fail([event.id for event in state.inbox.pending("square")], "x")
    said = flux.fails("doctor")
    assert "are not those of an app at Google" in said
    assert "1 webhook events could not be dealt with" in said


def test_a_token_is_refreshed_on_demand(flux: Flux, world: RunningSandbox) -> None:
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
