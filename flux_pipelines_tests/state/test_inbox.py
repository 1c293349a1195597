from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import text
from sqlalchemy.engine import make_url

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import StateUnavailableError
from flux_pipelines.state import Database, Event, NewEvent, State, Vault
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.processes import alone, together

NOW = datetime.now(UTC)


def event(name: str, provider: str = "square", kind: str = "payment.updated", key: str | None = None) -> NewEvent:
    return NewEvent(provider, name, kind, "MLACCOUNT", NOW, f'{{"event_id": "{name}"}}'.encode(), key)


def add(state: State, *names: str, key: str | None = None) -> list[int]:
    """Store events; return their ids."""
    state.inbox.add_many([event(name, key=key) for name in names])
    ids = {found.event_id: found.id for found in everything(state)}
    return [ids[name] for name in names]


def everything(state: State) -> list[Event]:
    return state.inbox.recent(limit=100_000)


def statuses(state: State) -> dict[str, str]:
    return {found.event_id: found.status for found in everything(state)}


def names(events: list[Event]) -> list[str]:
    return [found.event_id for found in events]


# --- storing ---


def test_an_event_comes_back_byte_for_byte(state: State) -> None:
    body = bytes(range(256)) + "ñ\u2028".encode()
    moment = datetime(2026, 3, 8, 9, 30, 0, 123456, tzinfo=UTC)
    given = NewEvent("square", "e-1", "payment.created", "ML1", moment, body, "square:acme", received_at=NOW)
    assert state.inbox.add_many([given]) == [True]
    (found,) = state.inbox.pending("square")
    assert (found.event_id, found.event_type, found.account_id) == ("e-1", "payment.created", "ML1")
    assert (found.connection_key, found.occurred_at, found.received_at) == ("square:acme", moment, NOW)
    assert (found.body, found.status, found.attempts) == (body, "received", 0)
    assert "2028" not in repr(found)
    assert str(body) not in repr(found) + repr(given)


def test_an_event_is_stored_once_however_often_it_comes(state: State) -> None:
    assert state.inbox.add_many([event("a"), event("b"), event("a")]) == [True, True, False]
    assert state.inbox.add_many([event("b"), event("c")]) == [False, True]
    # Another provider may use the same id.
    assert state.inbox.add_many([event("a", provider="other")]) == [True]
    assert sorted(names(state.inbox.pending("square"))) == ["a", "b", "c"]
    assert state.inbox.add_many([]) == []


def test_a_duplicate_of_an_event_that_is_dealt_with_does_not_begin_anew(state: State) -> None:
    (found,) = add(state, "a")
    state.inbox.keep([found], "nothing to do")
    assert state.inbox.add_many([event("a")]) == [False]
    assert state.inbox.pending("square") == []


def test_many_events_at_once(state: State) -> None:
    given = [event(f"e-{n % 700}") for n in range(1000)]
    answer = state.inbox.add_many(given)
    assert answer == [True] * 700 + [False] * 300
    assert len(everything(state)) == 700


@pytest.mark.parametrize(
    "odd",
    ["", "x" * 255, "x" * 256, "x" * 100_000, "nul\0", "\ud800 half", "ñ" * 255, "line\nbreak", "\U0001f600"],
    ids=["empty", "255", "256", "huge", "nul", "surrogate", "wide", "newline", "astral"],
)
def test_no_text_that_a_provider_signed_fails_a_batch(state: State, odd: str) -> None:
    strange = NewEvent("square", odd, odd, odd, None, b"")
    assert state.inbox.add_many([event("before"), strange, event("after")]) == [True, True, True]
    assert state.inbox.add_many([strange]) == [False]
    assert len(everything(state)) == 3


def test_texts_that_cannot_be_held_stay_apart(state: State) -> None:
    odd = ["x" * 256, "x" * 257, "nul\0", "nul\0\0", "\ud800", "\ud801"]
    assert state.inbox.add_many([NewEvent("square", name, "t", "a", None, b"") for name in odd]) == [True] * 6


def test_a_batch_is_stored_whole_or_not_at_all(state: State) -> None:
    broken = NewEvent("square", "bad", "t", "a", None, None)  # type: ignore[arg-type]
    with pytest.raises(Exception):  # noqa: B017, PT011 - the database's own complaint; what counts is what is stored
        state.inbox.add_many([event(f"e-{n}") for n in range(200)] + [broken])
    assert everything(state) == []


def test_processes_that_store_the_same_events_in_any_order_store_each_once(
    state: State, database_url: str, key_file: Path
) -> None:
    outcomes = together(4, workers.add_events, database_url, key_file, 30)
    assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
    assert sum(outcomes) == 1500
    assert len({found.event_id for found in everything(state)}) == len(everything(state)) == 1500


def test_what_was_acknowledged_survives_the_death_of_the_process(
    state: State, database_url: str, key_file: Path, tmp_path: Path
) -> None:
    acknowledged = tmp_path / "acknowledged"
    for life in range(3):
        worker, _ = alone(workers.add_events_until_killed, database_url, key_file, acknowledged, life)
        deadline = time.monotonic() + 30
        while not acknowledged.exists() or acknowledged.read_text().count(f"e-{life}-") < 60:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.02))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10)
    promised = [line for line in acknowledged.read_text().splitlines() if line.endswith(".")]
    stored = [f"{found.event_id}." for found in everything(state)]
    assert len(stored) == len(set(stored))
    assert set(promised) <= set(stored)
    assert len(promised) >= 180


def test_a_database_that_is_locked_is_said_and_nothing_is_stored(state: State, impatient: State) -> None:
    with state.database.session() as session:
        if not state.database.is_sqlite:  # there the transaction itself is the lock
            session.execute(text("LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StateUnavailableError):
            impatient.inbox.add_many([event("a")])
    assert everything(state) == []
    assert impatient.inbox.add_many([event("a")]) == [True], "the next try is a new one"


@pytest.fixture
def impatient(state: State, database_url: str, vault: Vault) -> Iterator[State]:
    """The same database, opened by somebody who does not wait long for locks."""
    url = make_url(database_url)
    if not state.database.is_sqlite:
        url = url.update_query_dict({"options": "-c lock_timeout=200"})
    with State(Database(url.render_as_string(hide_password=False), busy_timeout=0.2), vault) as opened:
        yield opened


def test_quick_commits_do_not_soften_the_others(sqlite_url: str, vault: Vault) -> None:
    levels = []
    with State.open(sqlite_url, vault) as state:
        for n in range(3):
            state.inbox.add_many([event(f"e-{n}")])
            with state.database.session() as session:
                levels.append(session.scalar(text("PRAGMA synchronous")))
            levels.append(
                state.database.quickly(lambda connection: connection.execute(text("PRAGMA synchronous")).scalar_one())
            )
    assert levels == [2, 1] * 3


def test_a_server_that_was_started_anew_loses_no_event(state: State) -> None:
    if state.database.is_sqlite:
        pytest.skip("there is no server")
    state.inbox.add_many([event("before")])
    with state.database.session() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert state.inbox.add_many([event("after"), event("before")]) == [True, False]
    assert names(state.inbox.pending("square")) == ["before", "after"]


# --- from received to done ---


def test_events_wait_in_the_order_they_came_up_to_a_limit(state: State) -> None:
    for n in range(5):
        add(state, f"e-{n}")
    assert names(state.inbox.pending("square", limit=3)) == ["e-0", "e-1", "e-2"]
    assert state.inbox.pending("other") == []


def test_events_of_some_connections_can_be_left_out(state: State) -> None:
    add(state, "a", key="square:a")
    add(state, "b", key="square:b")
    add(state, "c")
    assert names(state.inbox.pending("square", without=["square:a"])) == ["b", "c"]
    assert names(state.inbox.pending("square", limit=1, without=["square:a", "square:b"])) == ["c"]


def test_a_batch_lives_its_life(state: State) -> None:
    first, second, third = add(state, "a", "b", "c")
    assert state.inbox.assign([first, second], "batch-1", connection_key="square:acme") == 2
    assert state.inbox.assign([second, third], "batch-2") == 1, "what is in a batch is not taken out of it"
    assert {name: batch.events for name, batch in state.inbox.batches().items()} == {"batch-1": 2, "batch-2": 1}
    assert all(abs(batch.at - datetime.now(UTC)) < timedelta(minutes=1) for batch in state.inbox.batches().values())
    assert state.inbox.pending("square") == []
    assert state.inbox.finish("batch-1") == 2
    assert state.inbox.finish("batch-1") == 0
    assert state.inbox.batches().keys() == {"batch-2"}
    assert statuses(state) == {"a": "done", "b": "done", "c": "assigned"}
    done = next(found for found in everything(state) if found.event_id == "a")
    assert done.finished_at is not None
    assert done.connection_key == "square:acme"
    assert state.inbox.counts() == {"received": 0, "assigned": 1, "done": 2, "kept": 0, "failed": 0}
    assert state.inbox.counts("other")["done"] == 0


def test_a_batch_that_fails_waits_longer_each_time_and_is_given_up(state: State) -> None:
    (found,) = add(state, "a")
    moment = datetime.now(UTC)
    for wait in (30, 120, 480, 1920):
        with time_machine.travel(moment, tick=False):
            assert state.inbox.assign([found], "batch") == 1
            assert state.inbox.release("batch", "the provider is down") == 0
        with time_machine.travel(moment + timedelta(seconds=wait - 1), tick=False):
            assert state.inbox.pending("square") == []
        moment += timedelta(seconds=wait + 1)
        with time_machine.travel(moment, tick=False):
            (waiting,) = state.inbox.pending("square")
            assert (waiting.reason, waiting.batch) == ("the provider is down", None)
    with time_machine.travel(moment, tick=False):
        state.inbox.assign([found], "batch")
        assert state.inbox.release("batch", "still down") == 1
    assert statuses(state) == {"a": "failed"}
    assert everything(state)[0].attempts == 5


def test_a_release_counts_the_attempts_of_each_event(state: State) -> None:
    (old,) = add(state, "old")
    state.inbox.assign([old], "b-1")
    state.inbox.release("b-1", "once", delay=timedelta(0))
    (new,) = add(state, "new")
    state.inbox.assign([old, new], "b-2")
    assert state.inbox.release("b-2", "twice", max_attempts=2, delay=timedelta(0)) == 1
    assert statuses(state) == {"old": "failed", "new": "received"}


def test_a_release_that_is_not_the_events_fault_is_no_attempt(state: State) -> None:
    (found,) = add(state, "a")
    for _ in range(10):
        state.inbox.assign([found], "b")
        assert state.inbox.release("b", "the run was cancelled", counted=False) == 0
    (waiting,) = state.inbox.pending("square")
    assert waiting.attempts == 0


def test_a_release_that_is_repeated_does_nothing(state: State) -> None:
    (found,) = add(state, "a")
    state.inbox.assign([found], "b")
    state.inbox.release("b", "first")
    state.inbox.release("b", "second")
    (waiting,) = everything(state)
    assert (waiting.attempts, waiting.reason) == (1, "first")


def test_what_needs_nothing_is_kept_and_what_cannot_be_read_fails(state: State) -> None:
    first, second, third = add(state, "a", "b", "c")
    assert state.inbox.keep([first], "unknown type") == 1
    assert state.inbox.fail([second], "not an order") == 1
    assert state.inbox.keep([first, second], "again") == 0
    state.inbox.assign([third], "b")
    assert state.inbox.keep([third], "in a batch") == 0
    assert [(found.status, found.reason) for found in reversed(everything(state))] == [
        ("kept", "unknown type"),
        ("failed", "not an order"),
        ("assigned", ""),
    ]


def test_failed_events_are_tried_again_all_or_those_named(state: State) -> None:
    first, second, third, fourth = add(state, "a", "b", "c", "d")
    state.inbox.fail([first, second], "x")
    state.inbox.keep([third], "y")
    assert state.inbox.retry([first, third, fourth, 12345]) == 2
    assert statuses(state) == {"a": "received", "b": "failed", "c": "received", "d": "received"}
    assert state.inbox.retry() == 1
    (one, *_) = state.inbox.pending("square")
    assert (one.attempts, one.reason, one.finished_at) == (0, "", None)
    assert state.inbox.retry([]) == 0


def test_more_ids_than_one_statement_holds(state: State) -> None:
    state.inbox.add_many([event(f"e-{n}") for n in range(6000)])
    ids = [found.id for found in state.inbox.pending("square", limit=6000)]
    assert state.inbox.assign(ids, "big") == 6000
    assert state.inbox.finish("big") == 6000
    with time_machine.travel(datetime.now(UTC) + timedelta(days=31)):
        assert state.inbox.purge() == 6000


# --- looking ---


def test_the_newest_are_looked_at_by_status_and_provider(state: State) -> None:
    first, _ = add(state, "a", "b")
    state.inbox.add_many([event("c", provider="other")])
    state.inbox.fail([first], "x")
    assert names(state.inbox.recent(limit=2)) == ["c", "b"]
    assert names(state.inbox.recent(status="failed")) == ["a"]
    assert names(state.inbox.recent(provider="other")) == ["c"]
    assert state.inbox.recent(status="failed", provider="other") == []


def test_when_each_connection_was_last_heard_of(state: State) -> None:
    early, late = NOW - timedelta(hours=1), NOW
    state.inbox.add_many(
        [
            NewEvent("square", f"{key}-{moment}", "t", "a", None, b"", key, received_at=moment)
            for key, moment in (("square:a", early), ("square:a", late), ("square:b", early))
        ]
    )
    add(state, "nobody's")
    assert state.inbox.last_received() == {"square:a": late, "square:b": early}


def test_a_removed_connection_leaves_its_events_without_its_name(state: State, acme: str) -> None:
    add(state, "a", key=acme)
    state.connections.remove(acme)
    state.connections.add(Connection(acme, "another"))
    assert state.inbox.last_received() == {}
    assert len(everything(state)) == 1


def test_what_is_dealt_with_is_deleted_in_time_and_what_is_not_stays(state: State) -> None:
    with time_machine.travel(datetime.now(UTC) - timedelta(days=40)):
        first, second, third, fourth = add(state, "done", "kept", "failed", "waiting")
        state.inbox.assign([first], "b")
        state.inbox.finish("b")
        state.inbox.keep([second], "x")
        state.inbox.fail([third], "x")
    (recent,) = add(state, "recent")
    state.inbox.keep([recent], "x")
    assert state.inbox.purge() == 2
    assert statuses(state) == {"failed": "failed", "waiting": "received", "recent": "kept"}
    assert state.inbox.purge(failed=timedelta(days=30)) == 1
    assert state.inbox.purge() == 0
    assert fourth in {found.id for found in state.inbox.pending("square")}
