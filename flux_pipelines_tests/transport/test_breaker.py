from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_pipelines.domain.errors import CircuitOpenError
from flux_pipelines.transport.breaker import Breaker, BreakerPolicy, BreakerState
from flux_pipelines.transport.shared_state import PostgresLimitStore, SqliteLimitStore, StateStore

PROJECT_ROOT = Path(__file__).resolve().parents[2]
POLICY = BreakerPolicy(failures=3, open_seconds=30.0, longest_seconds=100.0, probe_seconds=20.0, cache_seconds=1.0)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def make(tmp_path: Path, clock: Time) -> Callable[[], Breaker]:
    """Breakers of one connection as different processes have them: each with a store and a memory of its own."""

    def breaker() -> Breaker:
        store = SqliteLimitStore(tmp_path / "limits.db", clock=clock)
        return Breaker(store, "square/square:acme", connection="square:acme", policy=POLICY, clock=clock)

    return breaker


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_consecutive_failures_of_all_processes_open_it(make: Callable[[], Breaker]) -> None:
    one, other = make(), make()
    fail(one, 2)
    other.check()
    other.failed()
    with pytest.raises(CircuitOpenError, match=r"square:acme: calls are paused until \d{4}-.* UTC") as caught:
        one.check()
    assert caught.value.rerun_helps


def test_a_success_begins_the_count_anew(make: Callable[[], Breaker]) -> None:
    breaker = make()
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    breaker.check()


def test_one_probe_at_a_time_is_let_through(make: Callable[[], Breaker], clock: Time) -> None:
    one, other = make(), make()
    fail(one, 3)
    clock.now += 30.1
    other.check()
    with pytest.raises(CircuitOpenError, match="another call is trying"):
        one.check()
    other.succeeded()
    one.check()
    one.check()


def test_a_probe_that_never_ends_loses_its_lease(make: Callable[[], Breaker], clock: Time) -> None:
    one, other = make(), make()
    fail(one, 3)
    clock.now += 30.1
    other.check()
    clock.now += 20.1
    one.check()


def test_a_failed_probe_opens_it_for_longer_up_to_a_bound(make: Callable[[], Breaker], clock: Time) -> None:
    breaker = make()
    fail(breaker, 3)
    for seconds in (30.0, 60.0, 100.0, 100.0):
        clock.now += seconds - 0.1
        with pytest.raises(CircuitOpenError):
            breaker.check()
        clock.now += 0.2
        breaker.check()
        breaker.failed()


def test_failures_of_calls_under_way_do_not_lengthen_it(make: Callable[[], Breaker], clock: Time) -> None:
    breaker = make()
    fail(breaker, 3)
    clock.now += 10.0
    fail(breaker, 5)
    clock.now += 20.1
    breaker.check()


def test_a_success_of_a_call_under_way_closes_it(make: Callable[[], Breaker]) -> None:
    one, other = make(), make()
    fail(one, 3)
    other.succeeded()
    one.check()


def test_a_healthy_breaker_is_asked_of_the_store_once_a_second_only(tmp_path: Path, clock: Time) -> None:
    class Counting:
        def __init__(self, store: StateStore) -> None:
            self.store, self.updates = store, 0

        def update(self, names, change):  # type: ignore[no-untyped-def]
            self.updates += 1
            return self.store.update(names, change)

        def close(self) -> None:
            self.store.close()

    store = Counting(SqliteLimitStore(tmp_path / "limits.db", clock=clock))
    breaker = Breaker(store, "x", policy=POLICY, clock=clock)
    for _ in range(100):
        breaker.check()
        breaker.succeeded()
    assert store.updates == 1
    clock.now += 1.1
    breaker.check()
    assert store.updates == 2


def test_a_reboot_closes_it() -> None:
    state = BreakerState(at=1000.0)
    for _ in range(3):
        state = state.failed(POLICY)
    assert BreakerState.load(state.dump(), 1001.0).openings == 1
    assert BreakerState.load(state.dump(), 5.0) == BreakerState(at=5.0)


_OTHER_PROCESS = """
import sys
from pathlib import Path
from flux_pipelines.transport.breaker import Breaker, BreakerPolicy
from flux_pipelines.transport.shared_state import PostgresLimitStore, SqliteLimitStore
kind, where = sys.argv[1:]
store = SqliteLimitStore(Path(where)) if kind == "sqlite" else PostgresLimitStore(where)
for _ in range(3):
    Breaker(store, "square/square:acme", policy=BreakerPolicy(failures=3)).failed()
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_one_process_learns_the_others_know(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    where = str(tmp_path / "limits.db") if kind == "sqlite" else request.getfixturevalue("postgres_url")
    store: StateStore = SqliteLimitStore(Path(where)) if kind == "sqlite" else PostgresLimitStore(where)
    breaker = Breaker(store, "square/square:acme", policy=BreakerPolicy(failures=3))
    breaker.check()
    subprocess.run([sys.executable, "-c", _OTHER_PROCESS, kind, where], check=True, cwd=PROJECT_ROOT)
    fresh = Breaker(store, "square/square:acme", policy=BreakerPolicy(failures=3))
    with pytest.raises(CircuitOpenError):
        fresh.check()
    Breaker(store, "square/square:other", policy=BreakerPolicy(failures=3)).check()
    store.close()
