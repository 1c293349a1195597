"""What every attempt leaves behind: one record for the audit, and figures that add up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt at a call to another system.

    Args:
        provider: the provider's name.
        connection: the connection's key.
        method: the HTTP method.
        url: the URL without query values.
        status: the answer's status; None when there was no answer.
        seconds: from sending to the last byte of the answer.
        attempt: 1 for the first.
        bytes: size of the answer's body.
        waited: seconds spent waiting for the rate limit before it.
        error: class name of what was wrong with it; None when it went well.
        at: when it was sent (UTC).

    """

    provider: str
    connection: str
    method: str
    url: str
    status: int | None
    seconds: float
    attempt: int
    bytes: int
    waited: float
    error: str | None
    at: datetime
    keys: tuple[str, ...]


class AuditSink(Protocol):
    """Where records go. Called from many threads, at every attempt: keep it quick."""

    def record(self, call: CallRecord) -> None:
        """Take one record."""


@dataclass(slots=True)
class Stats:
    """What was spent: attempts sent, how many of them were repeats, seconds waited for limits, bytes received.

    `by_key` counts the attempts by what they were counted against: `square/square:acme/L1` for a location's limit.
    """

    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0
    bytes: int = 0
    by_key: Counter[str] = field(default_factory=Counter)
    _mutex: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, call: CallRecord) -> None:
        """Count one attempt."""
        with self._mutex:
            self.requests += 1
            self.retries += call.attempt > 1
            self.waited_seconds += call.waited
            self.bytes += call.bytes
            self.by_key.update(call.keys)

    def snapshot(self) -> Stats:
        """Return the present figures."""
        with self._mutex:
            return replace(self, by_key=self.by_key.copy(), _mutex=threading.Lock())


_meters: ContextVar[tuple[Stats, ...]] = ContextVar("flux_transport_meters", default=())


@contextmanager
def metered() -> Iterator[Stats]:
    """Measure what the calls made inside this block, in this thread, spend: the cost of one page, window or partition."""
    stats = Stats()
    token = _meters.set((*_meters.get(), stats))
    try:
        yield stats
    finally:
        _meters.reset(token)


def count(call: CallRecord) -> None:
    """Add an attempt to every measurement that is under way in this thread."""
    for stats in _meters.get():
        stats.add(call)
