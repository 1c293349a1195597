from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flux_pipelines.domain.errors import ConfigurationError, RateLimitedError
from flux_pipelines.providers.base import RateLimit
from flux_pipelines.transport.limits import RateBudget, Ring, Rule, reserve
from flux_pipelines.transport.shared_state import PostgresLimitStore, SqliteLimitStore, StateStore
from flux_pipelines_tests.transport.server import Reply, serve

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def most_in_a_window(times: Sequence[float], span: float) -> int:
    ordered = sorted(times)
    return max((index + 1 - bisect_left(ordered, t - span + 1e-9) for index, t in enumerate(ordered)), default=0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def budget(folder: Path, clock: Time, pad: float | None = 0.0) -> RateBudget:
    return RateBudget(SqliteLimitStore(folder / "limits.db", clock=clock), pad, sleep=clock.sleep, clock=clock)


def acquire(shared: RateBudget, keys: Sequence[str], limits: Sequence[RateLimit], **options: Any) -> float:
    return shared.acquire(keys, limits, **options).waited


# ── the ring ────────────────────────────────────────────────────────────────────────────────────────────────────────────


rules_of = st.lists(
    st.builds(Rule, st.integers(1, 5), st.floats(0.5, 20.0).map(lambda x: round(x, 2))), min_size=1, max_size=3
)
steps_of = st.lists(
    st.tuples(st.floats(0.0, 5.0).map(lambda x: round(x, 2)), st.sets(st.sampled_from("abc"), min_size=1)), max_size=60
)


@given(st.fixed_dictionaries(dict.fromkeys("abc", rules_of)), steps_of)
def test_no_window_ever_holds_more_than_its_limit_whatever_keys_are_combined(
    rules: dict[str, list[Rule]], steps: list[tuple[float, set[str]]]
) -> None:
    now, values = 0.0, dict.fromkeys("abc", b"")
    granted: dict[str, list[float]] = {key: [] for key in "abc"}
    for pause, keys in steps:
        now += pause
        rings = [Ring.load(values[key], now) for key in sorted(keys)]
        instant = reserve(rings, [rules[key] for key in sorted(keys)], now, None)
        assert instant is not None
        assert instant >= now
        for key, ring in zip(sorted(keys), rings, strict=True):
            values[key] = ring.dump()
            granted[key].append(instant)
    for key, times in granted.items():
        for rule in rules[key]:
            assert most_in_a_window(times, rule.span) <= rule.requests


@settings(max_examples=500)
@given(
    rules_of,
    st.lists(st.integers(0, 60).map(float), max_size=12),
    st.integers(0, 60).map(float),
)
# What the second rule puts off falls into what the first forbids.
@example([Rule(1, 2.0), Rule(3, 8.0)], [0.0, 0.0, 7.0], 0.0)
def test_a_slot_is_the_earliest_possible(rules: list[Rule], arrivals: list[float], now: float) -> None:
    ring = Ring(0.0, float("inf"), 0.0, array("d"))
    for arrival in sorted(arrivals):
        reserve([ring], [rules], arrival, None)
    before = list(ring.times)
    instant = ring.earliest(now, rules)

    def allowed(candidate: float) -> bool:
        return all(most_in_a_window([*before, candidate], rule.span) <= rule.requests for rule in rules)

    assert allowed(instant)
    # Every earlier moment at which something changes is forbidden.
    edges = [now, *(t + rule.span for t in before for rule in rules)]
    assert not any(allowed(edge) for edge in edges if now <= edge < instant - 1e-6)


@given(rules_of, st.integers(0, 30))
def test_at_saturation_nothing_is_left_unused(rules: list[Rule], count: int) -> None:
    ring = Ring(0.0, float("inf"), 0.0, array("d"))
    rule = rules[0]
    slots = [reserve([ring], [[rule]], 0.0, None) for _ in range(count)]
    assert slots == pytest.approx([rule.span * (index // rule.requests) for index in range(count)])


def test_a_slot_given_back_is_used_by_another() -> None:
    ring = Ring(0.0, float("inf"), 0.0, array("d"))
    rules = [Rule(2, 10.0)]
    assert [reserve([ring], [rules], 0.0, None) for _ in range(3)] == [0.0, 0.0, 10.0]
    ring.remove(0.0)
    assert reserve([ring], [rules], 1.0, None) == 1.0
    assert reserve([ring], [rules], 1.0, None) == 11.0


def test_a_ring_survives_its_bytes_and_forgets_what_no_window_holds() -> None:
    ring = Ring(5.0, 3.0, 9.0, array("d", [1.0, 4.0, 5.0]))
    assert Ring.load(ring.dump(), 5.0) == ring
    later = Ring.load(ring.dump(), 9.5)
    assert later.left == float("inf")
    reserve([later], [[Rule(10, 5.0)]], 9.5, None)
    assert list(later.times) == [5.0, 9.5]


def test_a_clock_that_begins_anew_never_lets_more_through() -> None:
    ring = Ring(5000.0, float("inf"), 0.0, array("d"))
    rules = [Rule(2, 60.0)]
    reserve([ring], [rules], 5000.0, None)
    reserve([ring], [rules], 5010.0, None)
    ring.at = 5010.0
    after_reboot = Ring.load(ring.dump(), 3.0)
    assert reserve([after_reboot], [rules], 3.0, None) == pytest.approx(3.0 + 50.0)


# ── the budget over SQLite ──────────────────────────────────────────────────────────────────────────────────────────────


def test_waits_for_the_window_and_says_how_long(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock)
    waits = [acquire(shared, ["a"], [RateLimit(3, 60.0)]) for _ in range(7)]
    assert waits == pytest.approx([0, 0, 0, 60, 0, 0, 60])


def test_windows_are_padded(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock, pad=None)
    assert acquire(shared, ["a"], [RateLimit(1, 60.0)]) == 0
    assert acquire(shared, ["a"], [RateLimit(1, 60.0)]) == pytest.approx(60.6)
    assert acquire(shared, ["b"], [RateLimit(1, 2.0)]) == 0
    assert acquire(shared, ["b"], [RateLimit(1, 2.0)]) == pytest.approx(2.1)


def test_all_keys_and_all_limits_hold_at_once(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock)
    limits = [RateLimit(2, 1.0), RateLimit(5, 60.0)]
    sent = []
    for _ in range(6):
        acquire(shared, ["a", "b"], limits)
        sent.append(clock.now - 1000.0)
    assert sent == pytest.approx([0, 0, 1, 1, 2, 60])
    assert acquire(shared, ["c"], limits) == 0


def test_a_key_does_not_wait_behind_a_request_that_waits_for_another_key(tmp_path: Path) -> None:
    clock = Time()
    waiting = RateBudget(
        SqliteLimitStore(tmp_path / "limits.db", clock=clock), 0.0, sleep=lambda _: None, clock=Time(0.0)
    )
    acquire(waiting, ["busy"], [RateLimit(1, 60.0)])
    acquire(waiting, ["busy", "free"], [RateLimit(1, 60.0)])  # its slot lies a minute ahead
    assert acquire(budget(tmp_path, clock), ["free"], [RateLimit(2, 60.0)]) == 0


def test_gives_up_without_taking_a_slot(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock)
    acquire(shared, ["a"], [RateLimit(1, 60.0)])
    with pytest.raises(RateLimitedError, match=r"square:acme: .* no room within 10 s"):
        acquire(shared, ["a"], [RateLimit(1, 60.0)], give_up_after=10.0, connection="square:acme")
    assert acquire(shared, ["a"], [RateLimit(1, 60.0)], give_up_after=60.0) == pytest.approx(60.0)


def test_a_slot_that_went_stale_is_changed_for_a_fresh_one(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock, pad=0.5)
    delays = [30.0, 0.0]
    assert acquire(shared, ["a"], [RateLimit(1, 60.0)], prepare=lambda: clock.sleep(delays.pop(0))) == 0
    assert not delays
    # What was used is the instant thirty seconds later, and the first slot is not lost besides.
    assert acquire(shared, ["a"], [RateLimit(1, 60.0)]) == pytest.approx(60.5)


def test_a_request_that_was_long_on_its_way_counts_from_when_it_can_have_arrived(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock, pad=0.5)
    quick, slow = (shared.acquire(["a", "b"], [RateLimit(2, 60.0)]) for _ in range(2))
    clock.now += 5.0
    shared.confirm(quick, 0.4)
    shared.confirm(slow, 5.0)
    assert acquire(shared, ["a"], [RateLimit(2, 60.0)]) == pytest.approx(55.5)
    assert acquire(shared, ["a"], [RateLimit(2, 60.0)]) == pytest.approx(4.5)  # 60 s after the answer, no pad besides
    assert clock.now == pytest.approx(1065.0)
    shared.confirm(shared.acquire(["a"], []), 100.0)


def test_who_sleeps_for_a_slot_learns_that_a_request_before_it_arrived_late(tmp_path: Path) -> None:
    clock = Time()
    limits = [RateLimit(1, 60.0)]
    shared = budget(tmp_path, clock, pad=0.5)
    slow = shared.acquire(["a"], limits)

    def sleep(seconds: float) -> None:
        if clock.now < 1005.0:  # the answer comes while the other sleeps: the request may have arrived just before it
            clock.now = 1005.0
            shared.confirm(slow, 5.0)
            seconds -= 5.0
        clock.now += seconds

    other = RateBudget(SqliteLimitStore(tmp_path / "limits.db", clock=clock), 0.5, sleep=sleep, clock=clock)
    grant = other.acquire(["a"], limits)
    assert (grant.waited, clock.now) == pytest.approx((65.0, 1065.0))


def test_headers_lower_the_limit_until_their_reset(tmp_path: Path) -> None:
    clock = Time()
    shared = budget(tmp_path, clock)
    limits = [RateLimit(100, 60.0)]
    acquire(shared, ["a"], limits)
    shared.adapt("a", 2, datetime.now(UTC) + timedelta(seconds=30))
    shared.adapt("a", 50, datetime.now(UTC) + timedelta(seconds=30))  # never raised
    waits = [acquire(shared, ["a"], limits) for _ in range(4)]
    assert waits == pytest.approx([0, 0, 30, 0], abs=1.0)
    shared.adapt("a", 0, datetime.now(UTC) - timedelta(seconds=1))
    assert acquire(shared, ["a"], limits) == 0


def test_without_limits_nothing_waits(tmp_path: Path) -> None:
    assert acquire(budget(tmp_path, Time()), ["a"], []) == 0


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "limits.db").write_bytes(b"not a database" * 500)
    with pytest.raises(ConfigurationError, match=r"limits\.db cannot be used.*delete it"):
        acquire(budget(tmp_path, Time()), ["a"], [RateLimit(1, 1.0)])


def test_acquiring_is_quick(tmp_path: Path) -> None:
    shared = RateBudget(SqliteLimitStore(tmp_path / "limits.db"))
    limits = [RateLimit(5000, 60.0)]
    acquire(shared, ["a"], limits)
    started = time.process_time()
    for _ in range(500):
        acquire(shared, ["a"], limits)
    assert (time.process_time() - started) / 500 < 0.001


# ── many processes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_processes_together_never_pass_the_limit_and_use_it_fairly(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    requests, seconds, rounds = 60, 4.0, 2
    store = str(tmp_path / "limits.db") if kind == "sqlite" else request.getfixturevalue("postgres_url")
    with serve(lambda _: Reply()) as server:
        arguments = [store, server.url, "NAME", str(requests), str(seconds), str(seconds * rounds + 2.5), "4"]
        workers = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "flux_pipelines_tests.transport.worker",
                    *(name if a == "NAME" else a for a in arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=PROJECT_ROOT,
                text=True,
            )
            for name in ("one", "two")
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            assert worker.wait(60) == 0
            worker.stdout.close()  # type: ignore[union-attr]
            worker.stdin.close()  # type: ignore[union-attr]
        arrivals = sorted(seen.at for seen in server.seen)
        assert most_in_a_window(arrivals, seconds) <= requests
        used = seconds * rounds / (arrivals[requests * rounds] - arrivals[0])
        assert used >= 0.95
        shares = Counter(seen.headers["user-agent"] for seen in server.seen)
        assert min(shares.values()) >= 0.35 * len(arrivals), shares


@pytest.fixture(params=["sqlite", "postgres"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StateStore]:
    if request.param == "sqlite":
        return lambda: SqliteLimitStore(tmp_path / "limits.db")
    url = request.getfixturevalue("postgres_url")
    return lambda: PostgresLimitStore(url)


def test_keys_in_any_order_from_many_threads_do_not_deadlock(new_store: Callable[[], StateStore]) -> None:
    # Two stores, as two processes have; keys that neither has seen, in opposite orders.
    stores = [new_store(), new_store()]
    limits = [RateLimit(10_000, 60.0)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        shared = RateBudget(stores[number % 2])
        keys = [f"k{index}" for index in range(number % 3, 8)]
        try:
            for _ in range(10):
                shared.acquire(keys if number % 2 else keys[::-1], limits)
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []

    def count(_: float, values: list[bytes]) -> tuple[None, int]:
        return None, len(Ring.load(values[0], time.time() + 1e6).times)

    assert stores[0].update(["limit/k7"], count) == 60
    for store in stores:
        store.close()


def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "limits.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # as one that is about to switch the file to a write-ahead log
    threading.Timer(0.3, other.execute, ["COMMIT"]).start()
    store = SqliteLimitStore(tmp_path / "limits.db")
    assert store.update(["a"], lambda _, values: (None, values)) == [b""]
    store.close()
    other.close()


def test_a_change_that_fails_changes_nothing(new_store: Callable[[], StateStore]) -> None:
    store = new_store()

    def broken(_: float, __: list[bytes]) -> tuple[list[bytes], None]:
        raise RuntimeError("no")

    store.update(["a", "b"], lambda _, __: ([b"1", b"2"], None))
    with pytest.raises(RuntimeError, match="no"):
        store.update(["b", "a"], broken)
    assert store.update(["b", "a"], lambda _, values: (None, values)) == [b"2", b"1"]
    store.close()
    assert store.update(["a"], lambda _, values: (None, values)) == [b"1"]
    store.close()


def test_a_postgres_that_is_gone_is_named_without_its_password(tmp_path: Path) -> None:
    store = PostgresLimitStore(f"postgresql+psycopg2://flux:hunter2hunter2@/flux?host={tmp_path}")
    with pytest.raises(ConfigurationError, match="database cannot be used") as caught:
        store.update(["a"], lambda _, __: (None, None))
    assert "hunter2" not in str(caught.value)
    assert caught.value.rerun_helps


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    store = SqliteLimitStore(tmp_path / "limits.db")
    store.update(["a"], lambda _, __: ([b"parent"], None))
    child = os.fork()
    if child == 0:
        store.update(["a"], lambda _, __: ([b"child"], None))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.update(["a"], lambda _, values: (None, values)) == [b"child"]
