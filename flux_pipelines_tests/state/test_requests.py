from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from flux_pipelines.domain.errors import ConfigurationError, UnknownConnectionError
from flux_pipelines.state import State
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.processes import together

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)


def ask(state: State, key: str, last: date = LAST) -> int:
    return state.sync_requests.add(key, FIRST, last, "google:1234", "first backfill")


def test_a_request_lives_its_life(state: State, acme: str) -> None:
    number = ask(state, acme)
    (waiting,) = state.sync_requests.open()
    assert (waiting.id, waiting.connection_key, waiting.first_day, waiting.last_day) == (number, acme, FIRST, LAST)
    assert (waiting.asked_by, waiting.reason, waiting.status) == ("google:1234", "first backfill", "waiting")
    assert state.sync_requests.start(number, "run-1")
    assert not state.sync_requests.start(number, "run-2")
    (started,) = state.sync_requests.open()
    assert (started.status, started.run_key) == ("started", "run-1")
    state.sync_requests.finish(number, ok=True, detail="31 days")
    state.sync_requests.finish(number, ok=False, detail="too late")
    assert state.sync_requests.open() == []
    latest = state.sync_requests.latest(acme)
    assert latest is not None
    assert (latest.status, latest.detail) == ("done", "31 days")
    assert latest.finished_at is not None


def test_one_that_failed_says_why_and_may_be_asked_for_again(state: State, acme: str) -> None:
    first = ask(state, acme)
    state.sync_requests.start(first, "run-1")
    state.sync_requests.finish(first, ok=False, detail="the provider is down")
    second = ask(state, acme)
    assert second != first
    latest = state.sync_requests.latest(acme)
    assert latest is not None
    assert latest.id == second
    assert state.sync_requests.latest("square:nobody") is None


def test_two_clicks_are_one_request_until_it_starts(state: State, acme: str) -> None:
    number = ask(state, acme)
    assert ask(state, acme) == number
    assert ask(state, acme, date(2026, 2, 1)) != number
    state.sync_requests.start(number, "run-1")
    assert ask(state, acme) != number
    assert [request.status for request in state.sync_requests.open()] == ["started", "waiting", "waiting"]


def test_clicks_in_many_processes_are_one_request_that_one_of_them_starts(
    state: State, acme: str, database_url: str, key_file: Path
) -> None:
    assert len(set(together(6, workers.request_sync, database_url, key_file))) == 1
    (request,) = state.sync_requests.open()
    assert sum(together(6, workers.start_request, database_url, key_file, request.id)) == 1


def test_what_cannot_be_asked_for(state: State, acme: str) -> None:
    with pytest.raises(UnknownConnectionError):
        ask(state, "square:nobody")
    with pytest.raises(ConfigurationError, match="first day"):
        state.sync_requests.add(acme, LAST, FIRST, "ada", "")
    assert state.sync_requests.open() == []
    assert not state.sync_requests.start(12345, "run")
    state.sync_requests.finish(12345, ok=True)


def test_a_removed_connection_takes_its_requests_with_it(state: State, acme: str) -> None:
    number = ask(state, acme)
    state.connections.remove(acme)
    assert state.sync_requests.open() == []
    assert not state.sync_requests.start(number, "run")


def test_requests_that_ended_long_ago_are_deleted(state: State, acme: str) -> None:
    with time_machine.travel(datetime.now(UTC) - timedelta(days=400)):
        ended = ask(state, acme)
        state.sync_requests.finish(ended, ok=True)
        waiting = ask(state, acme)
    assert state.sync_requests.purge() == 1
    assert [request.id for request in state.sync_requests.open()] == [waiting]
