"""Rotating refresh tokens: what a crash leaves, refreshing ahead of time and on demand, and the alert at the end."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import time_machine
from pydantic import SecretStr

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.domain.errors import ConfigurationError, ProviderUnavailableError, ReauthorizationNeededError
from flux_pipelines.providers.registry import provider
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state import State, TokenManager
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.endpoint import TokenEndpoint, TokenSet, refresher
from flux_pipelines_tests.state.processes import alone, together
from flux_sandbox.options import CLIENT_ID, SandboxOptions
from flux_sandbox.server import RunningSandbox


def store(state: State, key: str, *, expires_in: float = -1, **more: str) -> None:
    """Store tokens as the endpoint's first generation."""
    expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
    first = {"access_token": "access-0", "refresh_token": "refresh-0", "expires_at": expires_at.isoformat()}
    state.secrets.put(key, {**first, **more})


def secrets(state: State, key: str) -> dict[str, str]:
    return state.secrets.get(key, purpose="test")


class Provider:
    """A token endpoint in this process that accepts what it is told to."""

    def __init__(self, *accepted: str, rotates: bool = True) -> None:
        self.accepted = set(accepted)
        self.rotates = rotates
        self.asked: list[str] = []

    def __call__(self, token: str) -> TokenSet:
        self.asked.append(token)
        if token not in self.accepted:
            raise ReauthorizationNeededError("the refresh token was refused (invalid_grant)")
        n = len(self.asked)
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        return TokenSet(f"access-{n}", f"rotated-{n}" if self.rotates else token, expires_at)


# --- two steps ---


def test_the_token_before_is_kept_until_the_new_one_has_been_used(state: State, acme: str) -> None:
    store(state, acme)
    provider = Provider("refresh-0", "rotated-1")
    manager = TokenManager(state, acme, provider, grace=True)
    assert manager.token() == "access-1"
    found = secrets(state, acme)
    assert (found["refresh_token"], found["previous_refresh_token"]) == ("rotated-1", "refresh-0")
    manager.refresh()
    found = secrets(state, acme)
    assert (found["refresh_token"], found["previous_refresh_token"]) == ("rotated-2", "rotated-1")


def test_a_refused_new_token_is_followed_by_the_one_before_once(state: State, acme: str) -> None:
    store(state, acme, previous_refresh_token="before")
    provider = Provider("before")
    assert TokenManager(state, acme, provider, grace=True).token() == "access-2"
    assert provider.asked == ["refresh-0", "before"]
    found = secrets(state, acme)
    assert (found["access_token"], found["refresh_token"]) == ("access-2", "rotated-2")
    assert found["previous_refresh_token"] == "before"
    assert state.connections.get(acme).status == "active"
    assert state.alerts.open() == []


def test_one_that_is_proved_by_use_needs_none_before_it(state: State, acme: str) -> None:
    store(state, acme, previous_refresh_token="before")
    TokenManager(state, acme, Provider("refresh-0", rotates=False), grace=True).token()
    found = secrets(state, acme)
    assert found["refresh_token"] == "refresh-0"
    assert "previous_refresh_token" not in found


def test_when_both_are_refused_the_connection_waits_and_none_is_shown_again(state: State, acme: str) -> None:
    store(state, acme, previous_refresh_token="before")
    provider = Provider()
    for _ in range(3):
        with pytest.raises(ReauthorizationNeededError):
            TokenManager(state, acme, provider, grace=True).token()
    assert provider.asked == ["refresh-0", "before"]
    assert "previous_refresh_token" not in secrets(state, acme)
    assert state.connections.get(acme).status == "needs_reauth"
    (alert,) = state.alerts.open()
    assert (alert.kind, alert.connection_key) == ("needs_reauth", acme)
    assert "invalid_grant" in alert.message


def test_a_provider_without_a_grace_is_never_shown_an_old_token(state: State, acme: str) -> None:
    store(state, acme, previous_refresh_token="before")
    provider = Provider("before")
    with pytest.raises(ReauthorizationNeededError):
        TokenManager(state, acme, provider).token()
    assert provider.asked == ["refresh-0"]
    store(state, acme)
    TokenManager(state, acme, Provider("refresh-0")).token()
    assert "previous_refresh_token" not in secrets(state, acme)


def test_an_old_token_is_not_shown_when_newer_ones_were_stored_meanwhile(state: State, acme: str) -> None:
    store(state, acme, previous_refresh_token="before")
    asked: list[str] = []

    def refused(token: str) -> TokenSet:
        asked.append(token)
        store(state, acme, expires_in=3600, access_token="by-hand", refresh_token="newer")
        raise ReauthorizationNeededError("refused")

    assert TokenManager(state, acme, refused, grace=True).token() == "by-hand"
    assert asked == ["refresh-0"]


def test_trouble_with_the_token_before_leaves_both_for_the_next_try(state: State, acme: str) -> None:
    store(state, acme, previous_refresh_token="before")

    def flaky(token: str) -> TokenSet:
        if token == "before":
            raise ProviderUnavailableError("503")
        raise ReauthorizationNeededError("refused")

    with pytest.raises(ProviderUnavailableError):
        TokenManager(state, acme, flaky, grace=True, cool_off=0).token()
    assert state.connections.get(acme).status == "active"
    assert TokenManager(state, acme, Provider("before"), grace=True, cool_off=0).token() == "access-2"


def test_tokens_stored_by_a_fallback_do_not_show(state: State, acme: str, caplog: pytest.LogCaptureFixture) -> None:
    store(state, acme, previous_refresh_token="secret-before")
    manager = TokenManager(state, acme, Provider("secret-before"), grace=True)
    manager.token()
    shown = repr(manager) + repr(vars(manager)["_known"]) + caplog.text
    assert "trying the one before it" in caplog.text
    assert "secret-before" not in shown
    assert "refresh-0" not in shown


def test_when_a_refresh_token_expires_is_stored_beside_it(state: State, acme: str) -> None:
    store(state, acme)
    end = datetime.now(UTC) + timedelta(days=90)
    manager = TokenManager(state, acme, lambda _t: TokenSet("a", "rotated", None, end))
    manager.token()
    assert state.secrets.expiries()[acme] == {"refresh_token_expires_at": end}
    # A new refresh token of which nothing is said must not inherit the old one's end.
    TokenManager(state, acme, lambda _t: TokenSet("b", "other", None)).refresh()
    assert "refresh_token_expires_at" not in secrets(state, acme)


# --- ahead of time, and on demand ---


@pytest.mark.parametrize(
    ("life", "within", "due"),
    [
        (30, 7, 7),  # days before the end that it becomes due: within the week
        (8, 7, 2),  # a quarter of its life
        (1, 7, 0.25),
        (365, 7, 7),
    ],
)
def test_a_token_is_refreshed_ahead_in_the_last_quarter_of_its_life(
    state: State, acme: str, endpoint: TokenEndpoint, life: float, within: float, due: float
) -> None:
    store(state, acme, expires_in=life * 86400)
    now = datetime.now(UTC)
    endpoint.life = 400 * 86400
    manager = TokenManager(state, acme, refresher(endpoint.url))
    with time_machine.travel(now + timedelta(days=life - due, minutes=-5)):
        assert not manager.refresh_if_due(timedelta(days=within))
    with time_machine.travel(now + timedelta(days=life - due, minutes=5)):
        assert manager.refresh_if_due(timedelta(days=within))
        assert not manager.refresh_if_due(timedelta(days=within))
    assert endpoint.asked == 1


def test_a_refresh_token_that_is_about_to_expire_is_used_in_time(state: State, acme: str) -> None:
    end = datetime.now(UTC) + timedelta(days=90)
    store(state, acme, expires_in=365 * 86400, refresh_token_expires_at=end.isoformat())
    provider = Provider("refresh-0")
    manager = TokenManager(state, acme, provider)
    with time_machine.travel(end - timedelta(days=8)):
        assert not manager.refresh_if_due(timedelta(days=7))
    with time_machine.travel(end - timedelta(days=6)):
        assert manager.refresh_if_due(timedelta(days=7))
    assert provider.asked == ["refresh-0"]


def test_what_cannot_be_refreshed_is_left_alone(state: State, acme: str) -> None:
    state.secrets.put(acme, {"access_token": "static", "expires_at": "2020-01-01T00:00:00Z"})
    manager = TokenManager(state, acme, Provider())
    assert not manager.refresh_if_due(timedelta(days=7))
    assert state.connections.get(acme).status == "active"
    with pytest.raises(ConfigurationError, match="no refresh token"):
        manager.refresh()


def test_a_connection_that_waits_to_be_reconnected_is_not_asked_for_again(state: State, acme: str) -> None:
    store(state, acme)
    provider = Provider()
    manager = TokenManager(state, acme, provider)
    with pytest.raises(ReauthorizationNeededError):
        manager.refresh_if_due(timedelta(days=7))
    for _ in range(3):
        assert not manager.refresh_if_due(timedelta(days=7))
    assert provider.asked == ["refresh-0"]
    assert len(state.alerts.open()) == 1
    store(state, acme)
    assert state.alerts.open() == []
    assert state.connections.get(acme).status == "active"


def test_a_token_that_is_fresh_is_refreshed_when_a_person_asks(state: State, acme: str) -> None:
    store(state, acme, expires_in=86400)
    manager = TokenManager(state, acme, Provider("refresh-0"))
    assert manager.token() == "access-0"
    manager.refresh()
    assert manager.token() == "access-1"


def test_a_failed_early_refresh_is_said_and_the_present_token_stays_good(
    state: State, acme: str, endpoint: TokenEndpoint
) -> None:
    store(state, acme, expires_in=86400)
    endpoint.failures = 1
    manager = TokenManager(state, acme, refresher(endpoint.url), cool_off=0)
    with pytest.raises(ProviderUnavailableError):
        manager.refresh()
    assert manager.token() == "access-0"
    assert state.alerts.open() == []


# --- through the sandbox, as runs do ---


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """Its refresh tokens rotate for apps without a secret, and work for a minute after that."""
    options = SandboxOptions(end_day=date(2026, 3, 10), history_days=5, token_lifetime=3600, refresh_grace=60)
    with RunningSandbox(options) as running:
        yield running


def issued(sandbox: RunningSandbox) -> int:
    return sandbox.world.request_log.counts["tokens_issued"]


@pytest.fixture
def settings(tmp_path: Path, database_url: str, sandbox: RunningSandbox) -> Settings:
    """An installation with one connected merchant."""
    chosen = Settings(home=tmp_path / "home", database_url=SecretStr(database_url))
    with Runtime(chosen) as runtime:
        connect_to_sandbox(runtime, "square:sakura", tenant="kissa", url=sandbox.url, merchant="sakura")
    return chosen


def test_sixteen_processes_at_the_instant_of_expiry_refresh_once_at_the_sandbox(
    settings: Settings, sandbox: RunningSandbox
) -> None:
    with Runtime(settings) as runtime:
        old = runtime.state.secrets.get("square:sakura", purpose="test")["access_token"]
        before = issued(sandbox)
        outcomes = together(16, workers.get_token_at_expiry, settings, "square:sakura")
        assert all(isinstance(outcome, str) for outcome in outcomes), outcomes
        (fresh,) = set(outcomes)
        assert fresh != old
        assert issued(sandbox) == before + 1
        assert runtime.state.secrets.get("square:sakura", purpose="test")["access_token"] == fresh


def test_a_process_killed_between_rotation_and_storing_does_not_lose_the_connection(
    settings: Settings, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    with Runtime(settings) as runtime:
        tokens = authorise_without_secret(runtime, sandbox)
        runtime.state.secrets.put(
            "square:sakura",
            {
                "client_id": CLIENT_ID,
                "access_token": tokens.access_token,
                "refresh_token": str(tokens.refresh_token),
                "expires_at": datetime.now(UTC).isoformat(),
            },
        )
        before, rotated = issued(sandbox), tmp_path / "rotated"
        worker, _ = alone(workers.refresh_and_hang, settings, "square:sakura", rotated)
        deadline = time.monotonic() + 30
        while not rotated.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.kill()
        worker.join(10)
        assert issued(sandbox) == before + 1
        kept = runtime.state.secrets.get("square:sakura", purpose="test")
        assert kept["refresh_token"] == tokens.refresh_token, "the rotated one died with the process"
        connection = runtime.state.connections.get("square:sakura")
        assert runtime.token_manager(connection).token() != tokens.access_token
        kept = runtime.state.secrets.get("square:sakura", purpose="test")
        assert kept["refresh_token"] != tokens.refresh_token
        assert "refresh_token_expires_at" in kept
        assert runtime.state.alerts.open() == []


def authorise_without_secret(runtime: Runtime, sandbox: RunningSandbox) -> TokenSet:
    """Go through the sandbox's consent as an app that has no secret: PKCE, and refresh tokens that rotate."""
    verifier = "v" * 64
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    redirect_uri = f"{sandbox.url}/sandbox/callback"
    oauth = runtime.oauth(
        provider("square"), base_url=sandbox.url, client_id=CLIENT_ID, client_secret="", connection="square:sakura"
    )
    url = oauth.authorize_url(redirect_uri, "state", challenge) + "&merchant=sakura"
    location = httpx.get(url).headers["location"]
    return oauth.exchange(dict(parse_qsl(urlsplit(location).query)), redirect_uri, verifier)  # type: ignore[return-value]
