from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state import State, SyncTicket
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.processes import together

JANUARY = (date(2026, 1, 1), date(2026, 1, 31))


def begin(state: State, *connections: str) -> SyncTicket:
    return state.syncs.begin("square", connections or ("square:a",), *JANUARY)


def test_an_unfinished_sync_is_resumed_under_its_own_token(state: State) -> None:
    first = begin(state)
    assert not first.resumed
    assert begin(state) == SyncTicket(first.token, resumed=True)
    state.syncs.finish(first.token, ok=False)
    assert begin(state) == SyncTicket(first.token, resumed=True)
    (record,) = state.syncs.recent()
    assert (record.state, record.attempts, record.connections) == ("running", 3, ("square:a",))
    assert (record.first_day, record.last_day) == JANUARY


def test_a_finished_sync_is_not_resumed(state: State) -> None:
    first = begin(state)
    state.syncs.finish(first.token, ok=True)
    state.syncs.finish(first.token, ok=False)
    assert state.syncs.recent()[0].state == "finished"
    second = begin(state)
    assert second.token != first.token
    assert not second.resumed


def test_one_that_is_asked_for_again_resumes_nothing_now_or_later(state: State) -> None:
    first = begin(state)
    again = state.syncs.begin("square", ("square:a",), *JANUARY, again=True)
    assert not again.resumed
    assert again.token != first.token
    assert begin(state) == SyncTicket(again.token, resumed=True)
    state.syncs.finish(first.token, ok=True)
    assert {record.token: record.state for record in state.syncs.recent()}[first.token] == "abandoned"


def test_only_the_same_arguments_are_the_same_sync(state: State) -> None:
    first = begin(state, "square:a", "square:b")
    assert begin(state, "square:b", "square:a").token == first.token
    assert begin(state, "square:a").token != first.token
    assert state.syncs.begin("toast", ("square:a", "square:b"), *JANUARY).token != first.token
    assert state.syncs.begin("square", ("square:a", "square:b"), JANUARY[0], JANUARY[0]).token != first.token


def test_after_a_week_a_sync_begins_anew(state: State) -> None:
    # The age is read from the clock that all share, so the start is what is moved here.
    from sqlalchemy import text

    first = begin(state)
    for days, same in ((6.9, True), (7.1, False)):
        moved = datetime.now(UTC) - timedelta(days=days)
        with state.database.session() as session:
            bound = moved.replace(tzinfo=None) if state.database.is_sqlite else moved
            session.execute(text("UPDATE syncs SET started_at = :moved"), {"moved": str(bound)})
        assert (begin(state).token == first.token) is same


def test_processes_that_begin_the_same_sync_at_once_share_one_ticket(
    state: State, database_url: str, key_file: Path
) -> None:
    outcomes = together(8, workers.begin_sync, database_url, key_file)
    assert len({token for token, _ in outcomes}) == 1
    assert sorted(resumed for _, resumed in outcomes) == [False] + [True] * 7


def test_an_unknown_token_is_refused(state: State) -> None:
    with pytest.raises(ConfigurationError, match="'nonsense'"):
        state.syncs.finish("nonsense", ok=True)


def test_instants_are_utc_whatever_the_zone_of_the_process(state: State) -> None:
    moment = datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
    with time_machine.travel(moment, tick=False):
        begin(state)
    if state.database.is_sqlite:
        assert state.syncs.recent()[0].started_at == moment
    assert state.syncs.recent()[0].started_at.utcoffset() == timedelta(0)
