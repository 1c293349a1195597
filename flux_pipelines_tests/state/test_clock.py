"""A clock that was wrong by two hours and is set back: nothing waits until it has caught up."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy import update

from flux_pipelines.domain.errors import FluxError, ProviderUnavailableError
from flux_pipelines.state import State, TokenManager
from flux_pipelines.state.credentials.token_leases import TokenLease
from flux_pipelines.state.models import TokenLeaseRow
from flux_pipelines_tests.state.endpoint import TokenEndpoint, refresher
from flux_pipelines_tests.state.test_inbox import add, names
from flux_pipelines_tests.state.test_locations import Store

AHEAD = timedelta(hours=2)


def lease_of(state: State, key: str) -> TokenLease:
    return TokenLease(state.database, key, timedelta(seconds=2), timedelta(seconds=1))


def take(state: State, key: str) -> str:
    """Take the lease by the clock that is wrong (on PostgreSQL it is the server's, which nobody here can set)."""
    with state.database.session() as session:
        holder = lease_of(state, key).take(session, waited=False)
        assert isinstance(holder, str)
    if not state.database.is_sqlite:
        write(state, expires_at=datetime.now(UTC) + AHEAD)
    return holder


def write(state: State, **values: object) -> None:
    with state.database.session() as session:
        session.execute(update(TokenLeaseRow).values(**values))


@pytest.fixture
def expired(state: State, acme: str) -> str:
    past = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    state.secrets.put(acme, {"access_token": "access-0", "refresh_token": "refresh-0", "expires_at": past})
    return acme


def test_a_refresher_that_died_before_the_clock_was_set_back_is_taken_over(
    state: State, expired: str, endpoint: TokenEndpoint
) -> None:
    with time_machine.travel(datetime.now(UTC) + (AHEAD if state.database.is_sqlite else timedelta(0))):
        take(state, expired)
    began = time.monotonic()
    assert TokenManager(state, expired, refresher(endpoint.url), lease=2.0, patience=30).token() == "access-1"
    assert time.monotonic() - began < 20
    assert endpoint.asked == 1


def test_a_refresher_that_lives_on_is_not_taken_over(state: State, expired: str, endpoint: TokenEndpoint) -> None:
    with time_machine.travel(datetime.now(UTC) + (AHEAD if state.database.is_sqlite else timedelta(0))):
        holder = take(state, expired)
    manager = TokenManager(state, expired, refresher(endpoint.url), lease=2.0, patience=5)
    with lease_of(state, expired).prolonged(holder), pytest.raises(ProviderUnavailableError, match="another process"):
        manager.token()
    assert endpoint.asked == 0


def test_a_refresh_that_failed_before_the_clock_was_set_back_is_tried_again(
    state: State, expired: str, endpoint: TokenEndpoint
) -> None:
    endpoint.failures = 1
    manager = TokenManager(state, expired, refresher(endpoint.url))
    with time_machine.travel(datetime.now(UTC) + AHEAD), pytest.raises(FluxError):
        manager.token()
    write(state, failed_at=datetime.now(UTC) + AHEAD)
    assert manager.token() == "access-1"


def test_events_that_were_put_off_before_the_clock_was_set_back_wait_no_longer(state: State) -> None:
    with time_machine.travel(datetime.now(UTC) + AHEAD):
        state.inbox.assign(add(state, "e-1"), "b-1")
        state.inbox.release("b-1", "once")
        assert state.inbox.pending("square") == []
    assert names(state.inbox.pending("square")) == ["e-1"]
    state.inbox.assign([one.id for one in state.inbox.pending("square")], "b-2")
    state.inbox.release("b-2", "twice")
    assert state.inbox.pending("square") == [], "what is put off by the present clock waits"


def test_stores_that_were_seen_in_the_future_are_asked_for_again(state: State, acme: str) -> None:
    with time_machine.travel(datetime.now(UTC) + AHEAD):
        state.locations.replace(acme, [Store("L1")])
    assert state.locations.list(acme, max_age=timedelta(days=1)) == []
    assert state.locations.list(acme) != []
