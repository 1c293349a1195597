from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import delete, event, func, select

from flux_pipelines.domain.errors import StateUnavailableError
from flux_pipelines.state import AuditLog, Database, State, Vault
from flux_pipelines.state.models import AuditRow
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.calls import call
from flux_pipelines_tests.state.processes import together


def written(state: State) -> int:
    with state.database.reading() as session:
        return session.scalar(select(func.count()).select_from(AuditRow)) or 0


@pytest.fixture
def statements(state: State) -> Iterator[list[int]]:
    """How many rows each INSERT into the audit carried."""
    seen: list[int] = []

    def watch(_connection: object, _cursor: object, statement: str, parameters: object, *_rest: object) -> None:
        if statement.startswith("INSERT INTO audit"):
            seen.append(statement.count("(") - 1 if isinstance(parameters, dict) else len(parameters))  # type: ignore[arg-type]

    event.listen(state.database._writer, "before_cursor_execute", watch)
    yield seen
    event.remove(state.database._writer, "before_cursor_execute", watch)


def test_a_call_comes_back_as_it_was_recorded(state: State) -> None:
    moment = datetime.now(timezone(timedelta(hours=9))).replace(microsecond=123456)
    good = call(at=moment, bytes=3_000_000_000, waited=1.5)
    bad = call(status=None, error="ProviderUnavailableError", attempt=3, connection="square:other")
    state.audit.record(good)
    state.audit.record(bad)
    newest, oldest = state.audit.recent()
    assert dataclasses.asdict(newest) == dataclasses.asdict(bad)
    assert dataclasses.asdict(oldest) == dataclasses.asdict(good)
    assert [entry.error for entry in state.audit.recent("square:other")] == ["ProviderUnavailableError"]
    assert len(state.audit.recent(limit=1)) == 1


def test_calls_are_written_two_hundred_at_a_time(state: State, statements: list[int]) -> None:
    log = AuditLog(state.database, every=3600)
    for _ in range(450):
        log.record(call())
    assert written(state) == 400
    assert len(statements) == 2
    log.close()
    assert written(state) == 450


def test_calls_are_written_within_a_second_also_when_no_other_comes(state: State, statements: list[int]) -> None:
    log = AuditLog(state.database, every=0.3)
    for _ in range(2):
        log.record(call())
        log.record(call())
        before = len(statements)
        deadline = time.monotonic() + 30
        while len(statements) == before and time.monotonic() < deadline:
            time.sleep(0.02)
    log.close()
    assert (len(statements), written(state)) == (2, 4)


def test_what_a_connections_last_calls_say(state: State) -> None:
    now = datetime.now(UTC)

    def contact(*calls: tuple[float, str | None]) -> tuple[str, float | None, int]:
        """What is said after calls so many minutes ago: the error, for how many minutes, and how many."""
        with state.database.session() as session:
            session.execute(delete(AuditRow))
        for minutes, error in calls:
            state.audit.record(call(at=now - timedelta(minutes=minutes), status=None, error=error))
        found = state.audit.contact("square:acme")
        since = found.failing_since
        return found.error, None if since is None else (now - since) / timedelta(minutes=1), found.failures

    down, refused = "ProviderUnavailableError", "RefusedError"
    good = ("", None, 0)
    assert contact() == contact((1, None)) == contact((3, down), (2, None)) == good
    assert contact((9, None), (3, down), (2, "BadResponseError")) == ("BadResponseError", 3, 2)
    assert contact((9, None), (3, refused)) == good, "clients put up with a refusal"
    assert contact((90, None), (60, down), (9, refused), (8, refused)) == good, "and it is an answer"
    assert contact((90, None), (60, refused), (30, refused), (1, refused)) == (refused, 60, 3)
    assert contact((90, None), (60, refused), (9, down)) == (down, 9, 1)
    assert contact((9, down), (-60, None)) == (down, 9, 1), "the clock was set back since"
    assert state.audit.contact("square:other").failing_since is None


def test_calls_of_many_threads_are_all_there_once(state: State) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: state.audit.record(call(url=f"https://api.test/{n}")), range(3000)))
    state.audit.close()
    with state.database.reading() as session:
        urls = list(session.scalars(select(AuditRow.url)))
    assert len(urls) == len(set(urls)) == 3000


def test_calls_of_many_processes_are_all_there_once(state: State, database_url: str, key_file: Path) -> None:
    together(6, workers.record_calls, database_url, key_file, 500)
    assert state.audit.totals().requests == 3000


def test_a_forked_child_does_not_write_what_its_parent_holds(state: State) -> None:
    state.audit.record(call())
    child = os.fork()
    if child == 0:
        state.audit.record(call(url="https://child.test"))
        state.audit.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(entry.url for entry in state.audit.recent()) == [
        "https://child.test",
        "https://connect.squareup.com/v2/orders/search",
    ]


def test_totals_by_connection_and_time(state: State) -> None:
    now = datetime.now(UTC)
    for n in range(4):
        state.audit.record(call(at=now - timedelta(hours=n), attempt=1 + n % 2, waited=0.25, bytes=10, seconds=0.5))
    state.audit.record(call(connection="square:other", status=500, error="ProviderUnavailableError"))
    acme = state.audit.totals("square:acme")
    assert (acme.requests, acme.retries, acme.failures) == (4, 2, 0)
    assert (acme.seconds, acme.waited, acme.bytes) == (2.0, 1.0, 40)
    assert state.audit.totals(since=now - timedelta(minutes=90)).requests == 3
    assert state.audit.totals("square:other").failures == 1
    assert state.audit.totals("square:nobody").requests == 0


def test_old_calls_are_deleted(state: State) -> None:
    now = datetime.now(UTC)
    for days in (0, 10, 29, 31, 400):
        state.audit.record(call(at=now - timedelta(days=days)))
    # The first write of a process also deletes what is past keeping.
    state.audit.flush()
    assert written(state) == 3
    assert state.audit.prune(timedelta(days=5)) == 2
    assert state.audit.totals().requests == 1


def test_other_traces_are_kept_for_a_year(state: State, acme: str) -> None:
    for days in (400, 300):
        with time_machine.travel(datetime.now(UTC) - timedelta(days=days)):
            state.secrets.put(acme, {"access_token": "a"})
            state.secrets.get(acme, purpose=f"{days} days ago")
    token = state.syncs.begin("square", [acme], date(2026, 1, 1), date(2026, 1, 2)).token
    AuditLog(state.database).close()
    assert [use.purpose for use in state.secrets.uses()] == ["300 days ago"]
    assert [sync.token for sync in state.syncs.recent()] == [token]


def test_a_busy_database_does_not_fail_a_call_until_ten_thousand_are_held(sqlite_url: str, vault: Vault) -> None:
    import sqlite3

    State.open(sqlite_url, vault).close()
    database = Database(sqlite_url, busy_timeout=0.01)
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    log = AuditLog(database, every=3600)
    for _ in range(9_999):
        log.record(call())
    with pytest.raises(StateUnavailableError):
        log.record(call())
    blocker.execute("ROLLBACK")
    blocker.close()
    log.close()
    assert log.totals().requests == 10_000
    database.close()


def test_two_hundred_calls_are_written_in_less_than_20_ms_on_sqlite(sqlite_url: str, vault: Vault) -> None:
    state = State.open(sqlite_url, vault)
    log = AuditLog(state.database, every=3600)
    took = []
    for _ in range(12):
        for _ in range(199):
            log.record(call())
        began = time.perf_counter()
        log.record(call())
        took.append(time.perf_counter() - began)
    assert written(state) == 2400
    state.close()
    # The best of a few: a shared machine may be busy with something else at any one of them.
    assert min(took) < 0.020, statistics.median(took)
