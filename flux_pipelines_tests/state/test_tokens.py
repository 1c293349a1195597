from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import (
    ConfigurationError,
    FluxError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
    UnknownConnectionError,
)
from flux_pipelines.state import State, TokenManager
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.endpoint import TokenEndpoint, TokenSet, refresher
from flux_pipelines_tests.state.processes import alone, together


def store(state: State, key: str, *, expires_in: float, access: str = "access-0", refresh: str = "refresh-0") -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
    state.secrets.put(
        key, {"access_token": access, "refresh_token": refresh, "expires_at": expires_at.isoformat(), "client_id": "me"}
    )


def secrets(state: State, key: str) -> dict[str, str]:
    return state.secrets.get(key, purpose="test")


def never(_token: str) -> TokenSet:
    raise AssertionError("nothing should be refreshed")


def test_a_fresh_token_is_given_as_it_is_and_without_asking_the_database_each_time(state: State, acme: str) -> None:
    store(state, acme, expires_in=3600)
    manager = TokenManager(state, acme, never)
    assert [manager.token() for _ in range(50)] == ["access-0"] * 50
    assert len(state.secrets.uses(acme)) == 1


def test_an_expired_token_is_refreshed_and_stored_with_its_refresh_token(
    state: State, acme: str, endpoint: TokenEndpoint
) -> None:
    store(state, acme, expires_in=-5)
    assert TokenManager(state, acme, refresher(endpoint.url)).token() == "access-1"
    found = secrets(state, acme)
    assert (found["access_token"], found["refresh_token"], found["client_id"]) == ("access-1", "refresh-1", "me")
    assert datetime.fromisoformat(found["expires_at"]) > datetime.now(UTC) + timedelta(minutes=59)


def test_only_a_refresh_token_is_enough_to_begin(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    state.secrets.put(acme, {"refresh_token": "refresh-0", "client_id": "me", "client_secret": "s"})
    assert TokenManager(state, acme, refresher(endpoint.url)).token() == "access-1"


@pytest.mark.parametrize(("life", "early"), [(30 * 86400, 3 * 86400), (300, 60), (60, 30)])
def test_a_token_is_refreshed_before_it_expires_but_not_before_half_its_life(
    state: State, acme: str, endpoint: TokenEndpoint, life: int, early: int
) -> None:
    # 10 % of the life, at least 60 s, at most half of it.
    store(state, acme, expires_in=life)
    now = datetime.now(UTC)
    with time_machine.travel(now + timedelta(seconds=life - early - 3)):
        assert TokenManager(state, acme, refresher(endpoint.url)).token() == "access-0"
    with time_machine.travel(now + timedelta(seconds=life - early + 3)):
        assert TokenManager(state, acme, refresher(endpoint.url)).token() == "access-1"


def test_a_refresh_token_that_is_not_rotated_stays_good(state: State, acme: str) -> None:
    asked: list[str] = []

    def refresh(token: str) -> TokenSet:
        asked.append(token)
        return TokenSet(f"fresh-{len(asked)}", None, None)

    store(state, acme, expires_in=-5)
    manager = TokenManager(state, acme, refresh)
    assert manager.token() == "fresh-1"
    assert manager.renew("fresh-1") == "fresh-2"
    assert asked == ["refresh-0", "refresh-0"]
    # The provider named no expiry: the old one must not live on.
    assert "expires_at" not in secrets(state, acme)


def test_sixteen_processes_with_an_expired_token_refresh_once_and_all_get_the_new_one(
    state: State, acme: str, endpoint: TokenEndpoint, database_url: str, key_file: Path
) -> None:
    endpoint.delay = 0.3
    store(state, acme, expires_in=-1)
    outcomes = together(16, workers.get_token, database_url, key_file, acme, endpoint.url, 30.0)
    assert outcomes == ["access-1"] * 16
    assert endpoint.asked == 1
    assert secrets(state, acme)["refresh_token"] == "refresh-1"


def test_sixteen_processes_whose_token_was_rejected_refresh_once(
    state: State, acme: str, endpoint: TokenEndpoint, database_url: str, key_file: Path
) -> None:
    endpoint.delay = 0.2
    store(state, acme, expires_in=86400)
    outcomes = together(16, workers.renew_token, database_url, key_file, acme, endpoint.url, "access-0")
    assert outcomes == ["access-1"] * 16
    assert endpoint.asked == 1


def test_threads_and_managers_of_one_process_refresh_once(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    endpoint.delay = 0.2
    store(state, acme, expires_in=-1)
    managers = [TokenManager(state, acme, refresher(endpoint.url)) for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda n: managers[n % 4].token(), range(32)))
    assert got == ["access-1"] * 32
    assert endpoint.asked == 1


def test_a_token_that_another_process_replaced_is_read_again_not_refreshed(
    state: State, acme: str, endpoint: TokenEndpoint
) -> None:
    store(state, acme, expires_in=86400)
    slow, quick = (TokenManager(state, acme, refresher(endpoint.url)) for _ in range(2))
    assert slow.token() == quick.token() == "access-0"
    assert quick.renew("access-0") == "access-1"
    assert slow.renew("access-0") == "access-1"
    assert slow.token() == "access-1"
    assert endpoint.asked == 1


def test_a_refresher_that_is_killed_is_taken_over(
    state: State, acme: str, endpoint: TokenEndpoint, database_url: str, key_file: Path
) -> None:
    store(state, acme, expires_in=-1)
    # It dies while the provider is thinking, and the provider then drops the connection without rotating.
    endpoint.delay, endpoint.failures = 60.0, 0
    worker, _ = alone(workers.get_token, database_url, key_file, acme, endpoint.url, 1.5)
    assert endpoint.in_flight.wait(30)
    worker.kill()
    worker.join(10)
    endpoint.delay = 0.0
    began = time.monotonic()
    assert TokenManager(state, acme, refresher(endpoint.url), lease=1.5).token() == "access-1"
    assert time.monotonic() - began < 10
    assert endpoint.asked == 2


def test_a_slow_refresh_keeps_its_lease(
    state: State, acme: str, endpoint: TokenEndpoint, database_url: str, key_file: Path
) -> None:
    store(state, acme, expires_in=-1)
    endpoint.delay = 2.5
    outcomes = together(3, workers.get_token, database_url, key_file, acme, endpoint.url, 0.6)
    assert outcomes == ["access-1"] * 3
    assert endpoint.asked == 1


def test_a_refused_refresh_token_marks_the_connection_and_is_not_tried_again(
    state: State, acme: str, endpoint: TokenEndpoint
) -> None:
    store(state, acme, expires_in=-1)
    endpoint.revoked = True
    for _ in range(3):
        with pytest.raises(ReauthorizationNeededError, match="invalid_grant") as caught:
            TokenManager(state, acme, refresher(endpoint.url)).token()
    assert endpoint.asked == 1
    assert "square:acme" in str(caught.value)
    connection = state.connections.get(acme)
    assert (connection.status, connection.status_reason) == (
        "needs_reauth",
        "the refresh token was refused (invalid_grant)",
    )
    # Connecting the account anew is all it takes.
    endpoint.revoked = False
    store(state, acme, expires_in=-1)
    assert state.connections.get(acme).status == "active"
    assert TokenManager(state, acme, refresher(endpoint.url)).token() == "access-1"


def test_tokens_stored_anew_during_a_refused_refresh_win(state: State, acme: str) -> None:
    store(state, acme, expires_in=-1)

    def refused(token: str) -> TokenSet:
        store(state, acme, expires_in=3600, access="by-hand", refresh="by-hand-too")
        raise ReauthorizationNeededError("the refresh token was refused")

    assert TokenManager(state, acme, refused).token() == "by-hand"
    assert state.connections.get(acme).status == "active"


def test_tokens_stored_anew_during_a_refresh_are_not_overwritten(state: State, acme: str) -> None:
    store(state, acme, expires_in=-1)

    def refresh(token: str) -> TokenSet:
        store(state, acme, expires_in=3600, access="by-hand", refresh="by-hand-too")
        return TokenSet("stale", "stale", datetime.now(UTC) + timedelta(hours=1))

    assert TokenManager(state, acme, refresh).token() == "by-hand"
    assert secrets(state, acme)["refresh_token"] == "by-hand-too"


def test_a_passing_failure_propagates_frees_the_lease_and_is_shared_by_those_who_waited(
    state: State, acme: str, endpoint: TokenEndpoint, database_url: str, key_file: Path
) -> None:
    store(state, acme, expires_in=-1)
    endpoint.delay, endpoint.failures = 2.0, 100
    outcomes = together(8, workers.get_token, database_url, key_file, acme, endpoint.url, 30.0)
    assert {type(outcome) for outcome in outcomes} == {ProviderUnavailableError}
    assert sum("a moment ago" in str(outcome) for outcome in outcomes) == 7
    assert endpoint.asked == 1
    assert state.connections.get(acme).status == "active"
    endpoint.delay, endpoint.failures = 0.0, 0
    time.sleep(1.1)
    assert TokenManager(state, acme, refresher(endpoint.url)).token() == "access-1"


def test_threads_that_waited_share_the_failure(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    store(state, acme, expires_in=-1)
    endpoint.delay, endpoint.failures = 0.3, 100
    manager = TokenManager(state, acme, refresher(endpoint.url))

    def ask(_n: int) -> str:
        with pytest.raises(ProviderUnavailableError) as caught:
            manager.token()
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(ask, range(8)))) == 8
    assert endpoint.asked == 1


def test_a_token_that_still_holds_is_used_when_refreshing_early_fails(
    state: State, acme: str, endpoint: TokenEndpoint
) -> None:
    store(state, acme, expires_in=100)
    endpoint.failures = 100
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=70)):
        manager = TokenManager(state, acme, refresher(endpoint.url))
        assert manager.token() == "access-0"
        # But not when the provider itself has rejected it.
        with pytest.raises(ProviderUnavailableError):
            manager.renew("access-0")
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=110)), pytest.raises(ProviderUnavailableError):
        TokenManager(state, acme, refresher(endpoint.url)).token()


def test_nobody_waits_for_an_early_refresh(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    store(state, acme, expires_in=100)
    endpoint.delay = 2.0
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=70)):
        first, second = (TokenManager(state, acme, refresher(endpoint.url)) for _ in range(2))
        thread = threading.Thread(target=first.token)
        thread.start()
        assert endpoint.in_flight.wait(10)
        began = time.monotonic()
        assert second.token() == "access-0"
        assert time.monotonic() - began < 1.0
        thread.join()
        assert second.renew("access-0") == "access-1"
    assert endpoint.asked == 1


@pytest.mark.parametrize("failure", [RuntimeError("secret-in-a-message"), KeyboardInterrupt()])
def test_any_way_out_frees_the_lease_and_no_foreign_message_is_kept(
    state: State, acme: str, endpoint: TokenEndpoint, failure: BaseException
) -> None:
    store(state, acme, expires_in=-1)

    def explode(_token: str) -> TokenSet:
        raise failure

    with pytest.raises(type(failure)):
        TokenManager(state, acme, explode).token()
    if isinstance(failure, Exception):
        with pytest.raises(ProviderUnavailableError, match="RuntimeError") as caught:
            TokenManager(state, acme, refresher(endpoint.url)).token()
        assert "secret-in-a-message" not in str(caught.value)
    assert TokenManager(state, acme, refresher(endpoint.url), cool_off=0).token() == "access-1"


@pytest.mark.parametrize("refresh", [None, never])
def test_a_token_that_cannot_be_refreshed(state: State, acme: str, refresh: Callable[[str], TokenSet] | None) -> None:
    state.secrets.put(acme, {"access_token": "static"})
    manager = TokenManager(state, acme, refresh)
    assert manager.token() == "static"
    with pytest.raises(ReauthorizationNeededError, match="square:acme: the provider rejected its access token"):
        manager.renew("static")
    assert state.connections.get(acme).status == "needs_reauth"
    state.secrets.put(acme, {"access_token": "another"})
    assert manager.renew("static") == "another"
    assert state.connections.get(acme).status == "active"


def test_a_static_token_that_has_expired(state: State, acme: str) -> None:
    state.secrets.put(acme, {"access_token": "static", "expires_at": "2020-01-01T00:00:00Z"})
    with pytest.raises(ReauthorizationNeededError, match="has expired"):
        TokenManager(state, acme, None).token()


def test_what_is_wrong_with_what_is_stored_is_said(state: State, acme: str) -> None:
    with pytest.raises(ConfigurationError, match="square:acme: the connection has no token stored"):
        TokenManager(state, acme, never).token()
    state.secrets.put(acme, {"access_token": "a", "expires_at": "tomorrow"})
    with pytest.raises(ConfigurationError, match="expires_at"):
        TokenManager(state, acme, never).token()
    with pytest.raises(UnknownConnectionError):
        TokenManager(state, "square:nobody", never).token()


def test_a_token_replaced_by_hand_is_seen_within_half_a_minute(
    state: State, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(state, acme, expires_in=86400)
    manager = TokenManager(state, acme, never)
    assert manager.token() == "access-0"
    store(state, acme, expires_in=86400, access="by-hand")
    assert manager.token() == "access-0"
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 31)
    assert manager.token() == "by-hand"


def test_connections_do_not_wait_for_each_other(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    state.connections.add(Connection("square:other", "other"))
    store(state, acme, expires_in=-1)
    store(state, "square:other", expires_in=-1)
    endpoint.delay = 2.0
    thread = threading.Thread(target=TokenManager(state, acme, refresher(endpoint.url)).token)
    thread.start()
    assert endpoint.in_flight.wait(10)
    began = time.monotonic()
    assert TokenManager(state, "square:other", lambda _token: TokenSet("theirs", None, None)).token() == "theirs"
    assert time.monotonic() - began < 1.0
    thread.join()


def test_waiting_has_an_end(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    store(state, acme, expires_in=-1)
    endpoint.delay = 2.0
    thread = threading.Thread(target=TokenManager(state, acme, refresher(endpoint.url)).token)
    thread.start()
    assert endpoint.in_flight.wait(10)
    with pytest.raises(FluxError, match="another process has been refreshing"):
        TokenManager(state, acme, never, patience=0.3).token()
    thread.join()


def test_tokens_do_not_show(state: State, acme: str, endpoint: TokenEndpoint) -> None:
    store(state, acme, expires_in=3600)
    manager = TokenManager(state, acme, refresher(endpoint.url))
    manager.token()
    assert "access-0" not in repr(manager) + repr(vars(manager)) + repr(state.vault) + repr(state.database)
