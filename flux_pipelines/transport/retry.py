"""When an attempt is repeated: exponential waits with full jitter, Retry-After, and an end in attempts and in time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState


class Attempted(Protocol):
    """What the policy must know of an attempt."""

    @property
    def again(self) -> bool:
        """Whether another attempt may help and is safe."""

    @property
    def retry_after(self) -> float | None:
        """Seconds the provider asks to wait, if it does."""

    @property
    def waited(self) -> float:
        """Seconds this attempt spent waiting for the rate limit; they do not count against the total."""


A = TypeVar("A", bound=Attempted)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried.

    Args:
        attempts: most attempts of one request, the first included.
        total_seconds: no attempt begins later than this after the first one did, waiting for the rate limit left aside.
        base_seconds: the first wait is drawn from 0 to this; every further one from twice as much.
        cap_seconds: the longest such wait.
        waiting: False collapses every wait between attempts to nothing, for tests.

    """

    attempts: int = 8
    total_seconds: float = 300.0
    base_seconds: float = 0.5
    cap_seconds: float = 30.0
    waiting: bool = True

    def run(
        self,
        attempt: Callable[[], A],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> A:
        """Call `attempt` until it needs no other, or until attempts or time are used up; return the last one.

        A Retry-After that ends beyond the total is not waited for: coming back early would be answered the same.
        """
        from tenacity import Retrying, retry_if_result

        started = clock()
        waited = 0.0

        def stop(state: RetryCallState) -> bool:
            nonlocal waited
            waited += _result(state).waited
            spent = clock() - started - waited
            return state.attempt_number >= self.attempts or spent + state.upcoming_sleep > self.total_seconds

        def pause(seconds: float) -> None:
            if self.waiting:
                sleep(seconds)

        return Retrying(
            retry=retry_if_result(lambda result: result.again),
            wait=lambda state: self._wait(state.attempt_number, _result(state).retry_after),
            stop=stop,
            sleep=pause,
            retry_error_callback=_result,
        )(attempt)

    def _wait(self, attempt: int, retry_after: float | None) -> float:
        # Full jitter spreads clients that failed at the same moment. After a Retry-After it is added, never subtracted.
        longest = min(self.cap_seconds, self.base_seconds * 2.0 ** (attempt - 1))
        if retry_after is None:
            return random.uniform(0.0, longest)  # noqa: S311 - spreads load, keeps no secret
        return retry_after + random.uniform(0.0, min(longest, 1.0))  # noqa: S311


def _result(state: RetryCallState) -> A:  # type: ignore[type-var]  # tenacity does not carry the result's type
    assert state.outcome is not None  # noqa: S101 - tenacity sets it before it asks anything
    result: A = state.outcome.result()
    return result


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, given as seconds or as a date.

    Args:
        headers: the answer's headers. A date is measured from the answer's own Date where there is one, so that a
            wrong clock on either side does no harm.
        now: the present instant (aware).

    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value)) if float(value) < float("inf") else None
    except ValueError:
        pass
    until = _http_date(value)
    if until is None:
        return None
    return max(0.0, (until - (_http_date(headers.get("date", "")) or now)).total_seconds())


def quota(headers: Mapping[str, str], now: datetime) -> tuple[int, datetime] | None:
    """Return what rate limit headers say: how many requests remain, and when the count begins anew.

    Reads `RateLimit-Remaining` and `RateLimit-Reset` with any prefix (`X-`, a vendor's); a reset may be in seconds from
    now or an epoch second, which is measured from the answer's own Date where there is one: our clock may be wrong.
    """
    name = next((name for name in headers if name.lower().endswith("ratelimit-remaining")), None)
    if name is None:
        return None
    remaining, reset = headers[name], headers.get(name[: -len("remaining")] + "reset", "")
    try:
        left, seconds = int(remaining), float(reset)
        if seconds > 1e9:
            seconds -= (_http_date(headers.get("date", "")) or now).timestamp()
        instant = now + timedelta(seconds=seconds)
    except (ValueError, OverflowError, OSError):
        return None
    return left, instant


def _http_date(value: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
