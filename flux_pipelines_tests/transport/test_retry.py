from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from flux_pipelines.transport.retry import RetryPolicy, quota, retry_after

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@dataclass
class Attempt:
    again: bool = True
    retry_after: float | None = None
    waited: float = 0.0


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def test_waits_grow_with_full_jitter_and_attempts_are_bounded() -> None:
    every: list[list[float]] = []
    for _ in range(200):
        clock = Time()
        count = 0

        def attempt() -> Attempt:
            nonlocal count
            count += 1
            return Attempt()

        assert RetryPolicy().run(attempt, sleep=clock.sleep, clock=clock).again
        assert count == 8
        every.append(clock.sleeps)
    for waits, longest in zip(zip(*every, strict=True), [0.5, 1, 2, 4, 8, 16, 30], strict=True):
        assert 0 <= min(waits) < 0.1 * longest
        assert 0.9 * longest < max(waits) <= longest


def test_stops_at_the_first_that_needs_no_other() -> None:
    left = [Attempt(), Attempt(), Attempt(again=False), Attempt()]
    clock = Time()
    assert not RetryPolicy().run(lambda: left.pop(0), sleep=clock.sleep, clock=clock).again
    assert len(left) == 1


def test_total_time_is_bounded_but_waiting_for_the_limit_does_not_count() -> None:
    def spend(seconds: float, waited: float) -> int:
        clock, count = Time(), 0

        def attempt() -> Attempt:
            nonlocal count
            count += 1
            clock.now += seconds + waited
            return Attempt(waited=waited)

        RetryPolicy(attempts=100).run(attempt, sleep=clock.sleep, clock=clock)
        return count

    assert spend(100.0, 0.0) in (2, 3)
    assert spend(0.0, 1000.0) > 10


def test_retry_after_is_waited_for_in_full_and_never_beyond_the_total() -> None:
    clock = Time()
    left = [Attempt(retry_after=17.0), Attempt(again=False)]
    RetryPolicy().run(lambda: left.pop(0), sleep=clock.sleep, clock=clock)
    assert 17.0 <= clock.sleeps[0] <= 18.0

    clock = Time()
    assert RetryPolicy().run(lambda: Attempt(retry_after=301.0), sleep=clock.sleep, clock=clock).again
    assert clock.sleeps == []


def test_one_switch_collapses_all_waiting() -> None:
    clock = Time()
    RetryPolicy(waiting=False).run(Attempt, sleep=clock.sleep, clock=clock)
    assert clock.sleeps == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": " 2.0 "}, 2.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        # The provider's clock is an hour ahead: its own Date tells.
        (
            {
                "retry-after": format_datetime(NOW + timedelta(seconds=3630), usegmt=True),
                "date": format_datetime(NOW + timedelta(seconds=3600), usegmt=True),
            },
            30.0,
        ),
    ],
)
def test_retry_after_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-ratelimit-remaining": "3"}, None),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "20"}, (3, NOW + timedelta(seconds=20))),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "1.5"}, (0, NOW + timedelta(seconds=1.5))),
        (
            {"x-vendor-ratelimit-remaining": "7", "x-vendor-ratelimit-reset": str(int(NOW.timestamp()) + 5)},
            (7, NOW + timedelta(seconds=5)),
        ),
        (
            # Our clock is two hours slow: the wait is what the provider's own clock says.
            {
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": str(int(NOW.timestamp()) + 7205),
                "date": format_datetime(NOW + timedelta(hours=2), usegmt=True),
            },
            (0, NOW + timedelta(seconds=5)),
        ),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "20"}, None),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "1e300"}, None),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "nan"}, None),
    ],
)
def test_quota_headers(headers: dict[str, str], expected: tuple[int, datetime] | None) -> None:
    assert quota(headers, NOW) == expected
