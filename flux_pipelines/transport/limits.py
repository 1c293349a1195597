"""The rate limit of an account, held by all of its processes together.

A request first reserves an instant, in one transaction for every limit it falls under, and then sleeps until that instant:
nobody polls, nobody starves, and a process that dies leaves at most an unused slot behind. Each key keeps the instants
granted within its longest window, so a limit of N requests is exact, with no averaging and no bucket edges.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from flux_pipelines.domain.errors import RateLimitedError
from flux_pipelines.transport.shared_state import StateStore

_NO_CAP = float("inf")
_MOST_SLOTS = 10


class Limit(Protocol):
    """At most `requests` in any window of `seconds`; `providers.base.RateLimit` is one."""

    @property
    def requests(self) -> int:
        """How many requests."""

    @property
    def seconds(self) -> float:
        """In how many seconds."""

    @property
    def per(self) -> str:
        """What is counted together: a `location` of a connection, a `connection`, or the `app`."""


class Concurrent(Protocol):
    """At most so many requests under way at a time; `providers.base.Concurrency` is one."""

    @property
    def requests(self) -> int:
        """How many requests."""

    @property
    def per(self) -> str:
        """Whose: a `connection`'s, or all of the `app`'s."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit as it is applied: its window already padded."""

    requests: int
    span: float


@dataclass(slots=True)
class Ring:
    """What is known of one key: the instants granted, sorted, and what the provider's headers last allowed.

    Args:
        at: the store's clock when this was last changed.
        left: how many more may be granted before `until` (infinite without such a cap).
        until: when the cap ends.
        times: the granted instants, past and to come, in order.

    """

    at: float
    left: float
    until: float
    times: array[float]

    @classmethod
    def load(cls, value: bytes, now: float) -> Ring:
        """Read a ring from its bytes as of `now`."""
        stored = array("d")
        stored.frombytes(value)
        if not stored:
            return cls(now, _NO_CAP, now, stored)
        ring = cls(stored[0], stored[1], stored[2], stored[3:])
        if now < ring.at:
            # The clock began anew (a reboot, a server's clock set back). How long ago that was cannot be known: keep the
            # distances, as if no time had passed, which can only make a request wait.
            shift = now - ring.at
            ring.until += shift
            ring.times = array("d", (instant + shift for instant in ring.times))
        ring.at = now
        if now >= ring.until:
            ring.left = _NO_CAP
        return ring

    def dump(self) -> bytes:
        """Return the ring as bytes."""
        return (array("d", (self.at, self.left, self.until)) + self.times).tobytes()

    def earliest(self, instant: float, rules: Sequence[Rule]) -> float:
        """Return the first instant from `instant` on at which no window would hold more than it may.

        Any `requests` consecutive grants within one window forbid a further one from their last less a window to their first
        plus a window. Those intervals are ordered, so one pass over them is enough for a rule. What one rule puts off can
        fall into an interval of another, so they are gone through until none puts it off any further.
        """
        if self.left <= 0:
            instant = max(instant, self.until)
        times = self.times
        moved = True
        while moved:
            before = instant
            for rule in rules:
                first = bisect_right(times, instant - rule.span)
                for start in range(first, len(times) - rule.requests + 1):
                    opens, closes = times[start + rule.requests - 1] - rule.span, times[start] + rule.span
                    if opens >= instant:
                        break
                    if opens < times[start]:
                        instant = max(instant, closes)
            moved = instant > before and len(rules) > 1
        return instant

    def add(self, instant: float) -> None:
        """Grant an instant."""
        insort(self.times, instant)
        if instant < self.until:
            self.left -= 1

    def remove(self, instant: float) -> bool:
        """Take back a grant and return True, if it is still known."""
        index = bisect_left(self.times, instant)
        if index < len(self.times) and self.times[index] == instant:
            self.times.pop(index)
            if instant < self.until:
                self.left += 1
            return True
        return False

    def forget_before(self, instant: float) -> None:
        """Drop grants that no window can hold any more."""
        del self.times[: bisect_right(self.times, instant)]


def reserve(
    rings: Sequence[Ring], rules: Sequence[Sequence[Rule]], now: float, give_up_after: float | None
) -> float | None:
    """Grant the first instant that every ring allows and return it, or None if it lies too far ahead.

    Args:
        rings: the keys' rings; each gets the same instant.
        rules: what applies to each ring, in the same order.
        now: the store's clock.
        give_up_after: the longest wait in seconds that is worth it.

    """
    longest = max(rule.span for of_one in rules for rule in of_one)
    for ring in rings:
        ring.forget_before(now - longest)
    instant, moved = now, True
    while moved:
        before = instant
        for ring, of_one in zip(rings, rules, strict=True):
            instant = ring.earliest(instant, of_one)
        moved = instant > before
    if give_up_after is not None and instant - now > give_up_after:
        return None
    for ring in rings:
        ring.add(instant)
    return instant


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to send one request, now.

    Args:
        waited: seconds it took to come.
        slot: its instant by the store's clock; None when no limit applies.
        late: seconds that can have passed between the slot and its being handed out.
        slack: seconds that a request may be on its way before it could reach the server outside its slot.
        names: what it was taken from.

    """

    waited: float
    slot: float | None = None
    late: float = 0.0
    slack: float = 0.0
    names: tuple[str, ...] = ()


class RateBudget:
    """Grants requests within limits that all processes over one store share.

    Args:
        store: where the grants are kept.
        pad: seconds added to every window, because requests take unequal times to reach the server, and it is there that
            they are counted. Default: a hundredth of the window, at least 0.1 s.
        sleep: waits the given seconds.
        clock: seconds, to measure waiting with.

    """

    def __init__(
        self,
        store: StateStore,
        pad: float | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._pad = pad
        self._sleep = sleep
        self._clock = clock

    def acquire(
        self,
        keys: Sequence[str],
        limits: Sequence[Limit],
        *,
        beside: Mapping[str, Sequence[Limit]] | None = None,
        give_up_after: float | None = None,
        prepare: Callable[[], None] | None = None,
        connection: str | None = None,
    ) -> Grant:
        """Wait until one request may be sent under every key.

        A slot is good only while it is fresh: when this process was held up so long after it that the request would reach
        the server late, or a request before it turned out to have arrived late (`confirm`) while this one slept, the slot
        is given back for another.

        Args:
            keys: what the request counts against.
            limits: what applies to each key.
            beside: further keys that the request counts against, each with limits of its own.
            give_up_after: the longest wait in seconds; None waits as long as it takes.
            prepare: called when the slot has come, for what must be done last before sending (a token).
            connection: named in errors.

        Raises:
            RateLimitedError: the wait would be longer than `give_up_after`; nothing was reserved.

        """
        applied = {**(dict.fromkeys(keys, limits) if limits else {}), **(beside or {})}
        every = [limit for of_one in applied.values() for limit in of_one]
        names = sorted(f"limit/{key}" for key, of_one in applied.items() if of_one)
        rules = [
            [Rule(one.requests, one.seconds + self._pad_of(one)) for one in applied[name.removeprefix("limit/")]]
            for name in names
        ]
        slack = min((self._pad_of(limit) for limit in every), default=0.0)
        waited, slot = 0.0, None
        for trial in range(_MOST_SLOTS if names else 0):
            left = None if give_up_after is None else max(0.0, give_up_after - waited)
            before = self._clock()
            slot, due, here = self._reserve(names, rules, left, slot)
            # Of another machine's clock it is only known that it was read since `before`: the slot may be that much older.
            unsure = here - before if self._store.clock_is_remote else 0.0
            if slot is None:
                raise RateLimitedError(
                    f"the rate limit leaves no room within {give_up_after:.0f} s for {', '.join(sorted(applied))}",
                    connection=connection,
                )
            wait = due - self._clock()
            if wait > 0:
                self._sleep(wait)
                waited += wait
            if prepare is not None:
                prepare()
            late = self._clock() - due
            # On a machine that is late every time, sending late beats never sending.
            if trial == _MOST_SLOTS - 1 or (late <= slack / 2 and (wait <= 0 or self._still_holds(names, rules, slot))):
                return Grant(waited, slot, late + unsure, slack, tuple(names))
        if prepare is not None:
            prepare()
        return Grant(waited)

    def confirm(self, grant: Grant, after: float) -> None:
        """Correct a grant whose request may have reached the server later than its window allows for.

        Nobody knows when a request arrived, only that it was before the answer began. If that took longer than the pad,
        the grant counts from then on, so that no delay, however long, lets more through than the limit.

        Args:
            grant: the grant that was used.
            after: seconds from the grant to the first sign of an answer, or to giving up on one.

        """
        slot, beyond = grant.slot, grant.late + after - grant.slack
        if slot is None or beyond <= 0:
            return

        def change(now: float, values: list[bytes]) -> tuple[list[bytes], None]:
            rings = [Ring.load(value, now) for value in values]
            for ring in rings:
                if ring.remove(slot):
                    ring.add(slot + beyond)
            return [ring.dump() for ring in rings], None

        self._store.update(grant.names, change)

    def adapt(self, key: str, remaining: int, reset_at: datetime) -> None:
        """Allow no more than the provider's headers say, until they say anew.

        Args:
            key: what the answered request counted against.
            remaining: how many more requests the provider will take before `reset_at`.
            reset_at: when it will take more (aware, UTC).

        """
        seconds = (reset_at - datetime.now(UTC)).total_seconds()
        if seconds <= 0:
            return

        def change(now: float, values: list[bytes]) -> tuple[list[bytes] | None, None]:
            ring = Ring.load(values[0], now)
            # Slots already given out lie ahead: the provider has not counted them yet.
            coming = len(ring.times) - bisect_right(ring.times, now)
            left = float(remaining - coming)
            if left >= ring.left:
                return None, None
            ring.left, ring.until = left, max(now + seconds, ring.until)
            return [ring.dump()], None

        self._store.update([f"limit/{key}"], change)

    def _reserve(
        self,
        names: Sequence[str],
        rules: Sequence[Sequence[Rule]],
        give_up_after: float | None,
        instead_of: float | None,
    ) -> tuple[float | None, float, float]:
        """Return the slot by the store's clock, and by our own clock when it comes and when it was given."""

        def change(now: float, values: list[bytes]) -> tuple[list[bytes], tuple[float | None, float, float]]:
            here = self._clock()  # the store's clock may be another machine's: only differences cross over
            rings = [Ring.load(value, now) for value in values]
            if instead_of is not None:
                for ring in rings:
                    ring.remove(instead_of)
            slot = reserve(rings, rules, now, give_up_after)
            due = here if slot is None else here + (slot - now)
            return [ring.dump() for ring in rings], (slot, due, here)

        return self._store.update(names, change)

    def _still_holds(self, names: Sequence[str], rules: Sequence[Sequence[Rule]], slot: float) -> bool:
        """Tell whether no window around a slot that has come holds more than it may."""

        def look(now: float, values: list[bytes]) -> tuple[None, bool]:
            holds = True
            for value, of_one in zip(values, rules, strict=True):
                ring = Ring.load(value, now)
                # A slot that is no longer known as such (the store's clock began anew) says nothing against itself.
                if ring.remove(slot):
                    holds = holds and ring.earliest(slot, of_one) <= slot
            return None, holds

        return self._store.update(names, look)

    def _pad_of(self, limit: Limit) -> float:
        return max(0.1, limit.seconds / 100) if self._pad is None else self._pad
