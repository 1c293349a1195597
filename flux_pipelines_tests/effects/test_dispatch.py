"""Each effect stands at the other system once, whoever dies and whatever answer is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from flux_pipelines.domain.errors import (
    AmbiguousSendError,
    BadRequestError,
    FluxError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
)
from flux_pipelines.effects import Dispatched, Found, Sent, dispatch
from flux_pipelines.state import Effect, NewEffect, State
from flux_pipelines.state.models import OutboxSenderRow
from flux_pipelines_tests.effects.remote import KEY, POINTS, Point, Remote, opened, send
from flux_pipelines_tests.state.processes import alone, together
from flux_pipelines_tests.transport.server import serve

KEYS = ("honoured", "ignored", "forgotten")


def effects(count: int, amount: int = 1) -> list[NewEffect]:
    return [NewEffect(f"{KEY}:{n}", KEY, "entry", {"amount": str(amount * n)}) for n in range(count)]


def payloads(count: int, amount: int = 1) -> dict[str, dict[str, str]]:
    return {f"{KEY}:{n}": {"amount": str(amount * n)} for n in range(count)}


@pytest.fixture
def state(database_url: str, tmp_path: Path) -> Iterator[State]:
    with opened(database_url, tmp_path) as made:
        yield made


def run(
    database_url: str, folder: Path, url: str, *, die_at: Point | None = None, deaths: float = 0.0, seed: int = 0
) -> bool:
    """Send in a process of its own; return whether it has lived to the end."""
    process, results = alone(send, database_url, folder, url, die_at, deaths, seed)
    process.join(60)
    if process.exitcode == -signal.SIGKILL:
        return False
    _, outcome = results.get(timeout=10)
    assert outcome is None, outcome
    return True


def leases_end(state: State) -> None:
    """Let the time pass after which a sender is known to be dead."""
    with state.database.session() as session:
        session.execute(update(OutboxSenderRow).values(expires_at=datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("point", POINTS)
def test_a_sender_that_dies_at_any_point_leaves_nothing_undone_and_nothing_done_twice(
    state: State, database_url: str, tmp_path: Path, point: Point, keys: str
) -> None:
    remote = Remote(keys=keys)  # type: ignore[arg-type]
    state.outbox.put(effects(10))
    with serve(remote) as server:
        if point == "committed":
            process, _ = alone(_send_when_told, database_url, tmp_path, server.url)
            remote.kills = process.pid
            (tmp_path / "go").touch()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
        else:
            assert not run(database_url, tmp_path, server.url, die_at=point)
        left = state.outbox.counts()["sending"]
        assert left == (0 if point == "recorded" else 7), "those of one request"
        leases_end(state)
        while state.outbox.connections():
            assert run(database_url, tmp_path, server.url)
    assert remote.stands() == payloads(10)
    assert state.outbox.counts()["sent"] == 10


def _send_when_told(url: str, folder: Path, remote: str, ready: object) -> None:
    def wait() -> int:
        while not (folder / "go").exists():
            time.sleep(0.01)
        return 0

    send(url, folder, remote, None, 0.0, 0, wait)


@pytest.mark.parametrize(
    ("keys", "count", "deaths"),
    [
        *((keys, 60, 0.02) for keys in KEYS),
        pytest.param("ignored", 2_000, 0.002, marks=pytest.mark.long, id="two-thousand"),
    ],
)
def test_answers_that_are_lost_refusals_and_kills_all_at_once(
    state: State, database_url: str, tmp_path: Path, keys: str, count: int, deaths: float
) -> None:
    remote = Remote(keys=keys, hang_up=0.05, fail=0.05, busy=0.05)  # type: ignore[arg-type]
    state.outbox.put(effects(count))
    state.outbox.put(effects(count // 2, 3))
    lived = []
    with serve(remote) as server:
        while state.outbox.connections():
            lived.append(run(database_url, tmp_path, server.url, deaths=deaths, seed=len(lived)))
            if not lived[-1]:
                state.outbox.put(effects(count // 2, 5))  # what is being sent changes meanwhile
                leases_end(state)
        state.outbox.put(effects(count // 2, 5))
        while state.outbox.connections():
            assert run(database_url, tmp_path, server.url)
    assert False in lived, "nobody was killed: this has tested less than it says"
    assert remote.stands() == {**payloads(count), **payloads(count // 2, 5)}
    assert state.outbox.counts() == {"held": 0, "pending": 0, "sending": 0, "ambiguous": 0, "sent": count, "failed": 0}


def test_of_four_processes_one_sends(state: State, database_url: str, tmp_path: Path) -> None:
    remote = Remote()
    state.outbox.put(effects(60))
    with serve(remote) as server:
        assert together(4, _send_calmly, database_url, tmp_path, server.url) == [None] * 4
    assert remote.stands() == payloads(60)
    assert remote.writes == 60


def _send_calmly(url: str, folder: Path, remote: str, ready: object) -> None:
    send(url, folder, remote, None, 0.0, 0, ready)  # type: ignore[arg-type]


# What comes of each answer


class Scripted:
    """A sink that does as it is told."""

    batch = 10
    settles_after = timedelta(0)

    def __init__(
        self, result: Sent | FluxError | None = None, there: Mapping[str, Found] | FluxError | None = None
    ) -> None:
        self.result = result
        self.there = there or {}
        self.sent: list[Effect] = []

    def look(self, effects: Sequence[Effect]) -> Mapping[str, Found]:
        if isinstance(self.there, FluxError):
            raise self.there
        return self.there

    def send(self, effects: Sequence[Effect]) -> Mapping[str, Sent | FluxError]:
        self.sent += effects
        return {one.key: self.result for one in effects if self.result is not None}


@contextmanager
def one(state: State) -> Iterator[str]:
    state.outbox.put(effects(1))
    yield f"{KEY}:0"


@pytest.mark.parametrize(
    ("result", "status", "waiting", "failed"),
    [
        (AmbiguousSendError("no answer came"), "ambiguous", 1, 0),
        (None, "ambiguous", 1, 0),
        (ProviderUnavailableError("not now"), "pending", 1, 0),
        (ReauthorizationNeededError("refused"), "pending", 1, 0),
        (BadRequestError("no such account"), "failed", 0, 1),
    ],
)
def test_what_comes_of_an_error(state: State, result: FluxError | None, status: str, waiting: int, failed: int) -> None:
    with one(state) as key:
        report = dispatch(state.outbox, KEY, Scripted(result))
        assert (report.created, report.waiting, report.failed) == (0, waiting, failed)
        assert sum(report.errors.values()) == 1
        effect = state.outbox.get(key)
        assert effect is not None
        assert effect.status == status
        assert effect.reason in report.errors
        assert effect.attempts == (0 if isinstance(result, ReauthorizationNeededError) else 1)


def test_an_answer_that_is_lost_is_looked_for_and_not_sent_again(state: State) -> None:
    with one(state) as key:
        dispatch(state.outbox, KEY, Scripted(AmbiguousSendError("no answer came")))
        sink = Scripted(there={key: Found("17", "a", 1)})
        assert dispatch(state.outbox, KEY, sink) == Dispatched(found=1)
        assert sink.sent == []
        effect = state.outbox.get(key)
        assert effect is not None
        assert (effect.status, effect.remote_id, effect.remote_version, effect.sent_version) == ("sent", "17", "a", 1)


def test_while_it_cannot_be_looked_for_nothing_is_sent(state: State) -> None:
    with one(state) as key:
        dispatch(state.outbox, KEY, Scripted(AmbiguousSendError("no answer came")))
        state.outbox.put([NewEffect(f"{KEY}:other", KEY, "entry", {})])
        sink = Scripted(Sent("1"), there=ProviderUnavailableError("not now"))
        report = dispatch(state.outbox, KEY, sink)
        assert (report.waiting, sink.sent) == (1, [])
        effect = state.outbox.get(key)
        assert effect is not None
        assert (effect.status, effect.reason) == ("ambiguous", str(sink.there))


def test_what_may_still_be_under_way_is_not_looked_for_yet(state: State) -> None:
    with one(state):
        sink = Scripted(AmbiguousSendError("no answer came"))
        sink.settles_after = timedelta(minutes=1)
        dispatch(state.outbox, KEY, sink)
        assert dispatch(state.outbox, KEY, Scripted(Sent("1"))) == Dispatched()
        assert state.outbox.counts()["ambiguous"] == 1


def test_what_a_database_that_was_restored_has_forgotten_is_written_over(state: State) -> None:
    with one(state) as key:
        sink = Scripted(Sent("17", "c"), there={key: Found("17", "b", 4)})
        assert dispatch(state.outbox, KEY, sink) == Dispatched(updated=1)
        assert [(one.remote_id, one.remote_version) for one in sink.sent] == [("17", "b")]


def test_what_never_gets_there_is_given_up(state: State) -> None:
    with one(state) as key:
        for _ in range(20):
            dispatch(state.outbox, KEY, Scripted(AmbiguousSendError("no answer came")))
        effect = state.outbox.get(key)
        assert effect is not None
        assert (effect.status, effect.attempts) == ("failed", 8)
        assert "it is not there" in effect.reason
        state.outbox.retry()
        assert dispatch(state.outbox, KEY, Scripted(Sent("1"))).created == 1
