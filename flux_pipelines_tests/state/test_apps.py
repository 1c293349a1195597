from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from flux_pipelines.domain.errors import ConfigurationError, DecryptionError
from flux_pipelines.providers.apps import app_kinds, check_app
from flux_pipelines.state import State, Vault, generate_key

SECRETS = {"client_id": "geheim-id", "client_secret": "geheim-secret"}


def test_a_registration_comes_back_without_its_secrets(state: State) -> None:
    assert state.apps.get("square") is None
    assert state.apps.list() == []
    state.apps.put("square", {"base_url": "https://x.test"}, {**SECRETS, "webhook_signature_key": "geheim-key"})
    app = state.apps.get("square")
    assert app is not None
    assert (app.name, dict(app.settings)) == ("square", {"base_url": "https://x.test"})
    assert app.secret_names == ("client_id", "client_secret", "webhook_signature_key")
    assert abs(app.updated_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert "geheim" not in repr(app) + repr(state.apps.list())
    assert state.apps.secrets("square", purpose="test")["webhook_signature_key"] == "geheim-key"


def test_a_registration_is_replaced_whole_and_its_change_can_be_seen(state: State) -> None:
    first = state.apps.put("google", {"issuer": "https://a.test"}, {**SECRETS, "extra": "x"})
    second = state.apps.put("google", {}, SECRETS)
    assert second.updated_at > first.updated_at
    assert state.apps.secrets("google", purpose="test") == SECRETS
    (app,) = state.apps.list()
    assert (app.settings, app.secret_names) == ({}, ("client_id", "client_secret"))


def test_registrations_do_not_mix(state: State) -> None:
    state.apps.put("square", {}, {"client_id": "s"})
    state.apps.put("github", {}, {"client_id": "g"})
    assert [app.name for app in state.apps.list()] == ["github", "square"]
    state.apps.remove("square")
    assert state.apps.get("square") is None
    assert state.apps.secrets("github", purpose="test") == {"client_id": "g"}


def test_every_reading_of_an_apps_secrets_leaves_a_trace(state: State) -> None:
    state.apps.put("square", {}, SECRETS)
    state.apps.secrets("square", purpose="verify webhooks")
    (use,) = state.secrets.uses("apps/square")
    assert (use.names, use.purpose) == (("client_id", "client_secret"), "verify webhooks")
    assert use.process.endswith(f":{os.getpid()}")


def test_a_registration_that_is_not_there_is_said(state: State) -> None:
    with pytest.raises(ConfigurationError, match="flux apps set square"):
        state.apps.secrets("square", purpose="test")
    with pytest.raises(ConfigurationError, match="flux apps list"):
        state.apps.remove("square")


def test_a_wrong_key_names_the_app_and_nothing_is_in_the_file_in_clear(sqlite_url: str, vault: Vault) -> None:
    with State.open(sqlite_url, vault) as state:
        state.apps.put("square", {}, SECRETS)
        state.authorizations.begin("connect", "square", session="s", payload={"code_verifier": "geheim-verifier"})
        state.api_tokens.create("ci", "ada")
        folder = Path(str(make_url(sqlite_url).database)).parent
        assert b"geheim" not in b"".join(path.read_bytes() for path in folder.iterdir() if path.name != "keys")
    with (
        State.open(sqlite_url, Vault([generate_key()])) as state,
        pytest.raises(DecryptionError, match="apps/square"),
    ):
        state.apps.secrets("square", purpose="test")


# --- what a registration must have ---


def test_every_provider_that_connects_by_oauth_can_be_registered() -> None:
    assert {"square", "google", "github"} <= set(app_kinds())
    for kind in app_kinds().values():
        check_app(kind.name, {s.name: s.default for s in kind.settings if s.default}, dict.fromkeys(kind.secrets, "x"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8411", "http://localhost:1/x", "http://[::1]/", "https://x.test"])
def test_addresses_are_encrypted_or_on_this_machine(url: str) -> None:
    check_app("google", {"issuer": url}, SECRETS)


@pytest.mark.parametrize(
    ("name", "settings", "secrets", "message"),
    [
        ("nobody", {}, SECRETS, "Known: github, google"),
        ("google", {"isuer": "https://x.test"}, SECRETS, "no setting 'isuer'"),
        ("google", {"issuer": 5}, SECRETS, "must be a text"),
        ("google", {"issuer": "http://x.test"}, SECRETS, "https://"),
        ("google", {"issuer": "http://127.0.0.1.evil.test"}, SECRETS, "https://"),
        ("google", {"issuer": "https://user:pw@x.test"}, SECRETS, "without user"),
        ("google", {"issuer": "https://[x"}, SECRETS, "not a URL"),
        ("google", {"issuer": "javascript:alert(1)"}, SECRETS, "https://"),
        ("google", {}, {"client_id": "geheim"}, "client_secret"),
        ("google", {}, {**SECRETS, "webhook_signature_key": "geheim"}, "not those of an app at Google"),
        ("google", {}, {**SECRETS, "client_id": " "}, "not empty"),
        ("google", {}, {**SECRETS, "client_id": 5}, "must be a text"),
    ],
)
def test_what_is_wrong_with_a_registration_is_said_without_its_secrets(
    name: str, settings: dict[str, object], secrets: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_app(name, settings, secrets)
    assert "geheim" not in str(caught.value)
