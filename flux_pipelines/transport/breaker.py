"""The circuit breaker of a connection, shared by all of its processes.

After enough consecutive failures calls are refused here at once instead of being sent to a provider that is down. Later
one call, holding a lease, is let through to try; its success closes the breaker for everybody, its failure opens
it for longer.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from flux_pipelines.domain.errors import CircuitOpenError
from flux_pipelines.transport.shared_state import StateStore

_LAYOUT = struct.Struct("<5d")


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    Args:
        failures: consecutive failed attempts, over all processes, that open it.
        open_seconds: how long it stays open the first time; doubled each time the trial fails.
        longest_seconds: where doubling ends.
        probe_seconds: how long the one that tries has; then another may.
        cache_seconds: how long a process may rely on what it last read.

    """

    failures: int = 10
    open_seconds: float = 30.0
    longest_seconds: float = 300.0
    probe_seconds: float = 120.0
    cache_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class BreakerState:
    """What is stored: all times by the store's clock."""

    at: float = 0.0
    failures: float = 0.0
    open_until: float = 0.0
    probe_until: float = 0.0
    openings: float = 0.0

    @classmethod
    def load(cls, value: bytes, now: float) -> BreakerState:
        """Read a state from its bytes as of `now`."""
        if not value:
            return cls(at=now)
        state = cls(*_LAYOUT.unpack(value))
        # A clock that began anew (a reboot) says nothing about times before it: begin anew as well.
        return cls(at=now) if now < state.at else replace(state, at=now)

    def dump(self) -> bytes:
        """Return the state as bytes."""
        return _LAYOUT.pack(self.at, self.failures, self.open_until, self.probe_until, self.openings)

    def failed(self, policy: BreakerPolicy) -> BreakerState:
        """Return the state after one more failure."""
        failures = self.failures + 1
        trial_failed = self.openings > 0 and self.at >= self.open_until
        if failures < policy.failures or (self.openings > 0 and not trial_failed):
            return replace(self, failures=failures)
        seconds = min(policy.longest_seconds, policy.open_seconds * 2**self.openings)
        return replace(
            self, failures=failures, openings=self.openings + 1, open_until=self.at + seconds, probe_until=0.0
        )


def held_back(store: StateStore, names: Sequence[str]) -> dict[str, float]:
    """Return which breakers are open, each with the seconds until a call is let through to try (0: the next one is)."""

    def look(now: float, values: list[bytes]) -> tuple[None, dict[str, float]]:
        states = {name: BreakerState.load(value, now) for name, value in zip(names, values, strict=True)}
        return None, {
            name: max(0.0, state.open_until - now, state.probe_until - now)
            for name, state in states.items()
            if state.openings > 0
        }

    return store.update([f"breaker/{name}" for name in names], look) if names else {}


class Breaker:
    """The breaker of one connection.

    Args:
        store: where its state is kept.
        name: names the breaker in the store.
        connection: named in errors.
        policy: when it opens.
        clock: seconds, for what this process remembers.

    """

    def __init__(
        self,
        store: StateStore,
        name: str,
        *,
        connection: str | None = None,
        policy: BreakerPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._name = f"breaker/{name}"
        self._connection = connection
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._mutex = threading.Lock()
        self._healthy_until = float("-inf")  # until then this process takes the breaker for closed, without failures

    def check(self) -> None:
        """Let a call through, or refuse it.

        Raises:
            CircuitOpenError: the provider failed repeatedly and it is not yet time, or not this call's turn, to try.

        """
        if self._clock() < self._healthy_until:
            return

        def change(now: float, values: list[bytes]) -> tuple[list[bytes] | None, tuple[float, bool, bool]]:
            state = BreakerState.load(values[0], now)
            if state.openings == 0:
                return None, (0.0, False, state.failures == 0)
            closed_for = max(state.open_until, state.probe_until) - now
            if closed_for > 0:
                return None, (closed_for, state.open_until <= now, False)
            state = replace(state, probe_until=now + self._policy.probe_seconds)
            return [state.dump()], (0.0, False, False)

        closed_for, being_tried, healthy = self._store.update([self._name], change)
        if closed_for > 0:
            until = datetime.now(UTC) + timedelta(seconds=closed_for)
            why = "another call is trying whether it is back" if being_tried else "the provider failed repeatedly"
            raise CircuitOpenError(
                f"calls are paused until {until:%Y-%m-%d %H:%M:%S} UTC (circuit open), because {why}",
                connection=self._connection,
                next_step=f"Run the failed partitions again after {until:%H:%M:%S} UTC.",
            )
        self._remember(healthy)

    def succeeded(self) -> None:
        """Record that the provider answered: the breaker closes and counts from zero."""
        if self._clock() < self._healthy_until:
            return

        def change(now: float, values: list[bytes]) -> tuple[list[bytes] | None, None]:
            state = BreakerState.load(values[0], now)
            return (None if state.failures == 0 and state.openings == 0 else [BreakerState(at=now).dump()]), None

        self._store.update([self._name], change)
        self._remember(healthy=True)

    def failed(self) -> None:
        """Record that the provider failed; enough of it opens the breaker."""
        self._remember(healthy=False)
        self._store.update(
            [self._name],
            lambda now, values: ([BreakerState.load(values[0], now).failed(self._policy).dump()], None),
        )
        self._remember(healthy=False)

    def _remember(self, healthy: bool) -> None:
        with self._mutex:
            self._healthy_until = self._clock() + self._policy.cache_seconds if healthy else float("-inf")
