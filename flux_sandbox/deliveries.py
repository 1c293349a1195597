"""Webhooks on their way: what waits, in order of when it is due, under which conditions, and what became of it.

Nothing here sends anything (that is `deliverer.py`), so that everything but the sending can be reasoned about: memory is
bounded, a notice is given up only after the provider's last retry, and an event that was acknowledged is remembered.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from heapq import heappop, heappush
from random import Random
from typing import Any, Literal

from flux_pipelines.domain.errors import ConfigurationError

Failure = Literal["", "timeout", "status", "tls", "connection"]
#: Makes the headers of an attempt: its number (0 is the first), why the one before failed, when the first one was made.
Headers = Callable[[int, Failure, str], Mapping[str, str]]
#: Says how many minutes to wait after an attempt (0 is the first) that failed so, with this status; None: no more.
Retries = Callable[[int, Failure, int], float | None]

#: Deliveries that may wait at a time, of some two kilobytes each. What is beyond is refused and counted.
MOST_WAITING = 100_000
_ACKNOWLEDGED_KEPT = 200_000
#: Seconds for which an event is held back so that later ones overtake it.
_HELD_BACK = (0.2, 2.0)
#: A second copy comes up to this many seconds after the first.
_SECOND_COPY = 1.0
# Minutes between attempts, then every hour up to a day after the event (developer.squareup.com/docs/webhooks-api).
_FIRST_RETRIES = (1, 2, 4, 8, 16, 32)
_LAST_RETRY = 29


class Delivery:
    """One notice to one address; a duplicate is another one with the same event."""

    __slots__ = ("attempt", "body", "event_id", "event_type", "failure", "first_at", "headers", "retries", "url")

    def __init__(
        self,
        url: str,
        event_id: str,
        event_type: str,
        body: bytes,
        headers: Headers,
        retries: Retries | None = None,
    ) -> None:
        self.url = url
        self.event_id = event_id
        self.event_type = event_type
        self.body = body
        self.headers = headers
        self.retries = retries  # None: Square's
        self.attempt = 0
        self.failure: Failure = ""
        self.first_at = ""

    def copy(self) -> Delivery:
        """Return a second delivery of the same event."""
        return Delivery(self.url, self.event_id, self.event_type, self.body, self.headers, self.retries)


@dataclass(frozen=True, slots=True)
class Conditions:
    """How well the post works.

    Args:
        duplicates: share of events that are delivered twice.
        disorder: share of events that are held back for up to two seconds, so that later ones overtake them.
        delay: fewest and most seconds between an event and its first delivery.
        retry_factor: of the documented minutes between attempts; 0.001 makes a minute 60 ms.
        timeout: seconds the receiver has to answer.
        concurrency: deliveries under way at a time; 1 keeps strictly to the order.

    """

    duplicates: float = 0.0
    disorder: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)
    retry_factor: float = 1.0
    timeout: float = 10.0
    concurrency: int = 32


def retry_minutes(attempt: int) -> float | None:
    """Return the minutes to wait after a failed attempt (0 is the first), or None: it is given up."""
    if attempt >= _LAST_RETRY:
        return None
    return _FIRST_RETRIES[attempt] if attempt < len(_FIRST_RETRIES) else 60


class Outbox:
    """The deliveries that wait. Safe to use from any thread: the world changes in one, deliveries are made in another."""

    def __init__(self, seed: int, *, most: int = MOST_WAITING, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.conditions = Conditions()
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.acknowledged: dict[str, int] = {}
        self.arrived: Callable[[], None] = lambda: None  # called when there is something new to send
        self._random = Random(f"{seed}|webhooks")  # noqa: S311
        self._most = most
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Delivery]] = []
        self._serial = 0
        self._under_way = 0
        self._collecting: list[Delivery] | None = None

    def change(self, **conditions: Any) -> None:
        """Change some of the conditions; they hold for what is sent from now on."""
        self.conditions = replace(self.conditions, **conditions)

    # Putting in

    def send(self, deliveries: Sequence[Delivery]) -> None:
        """Let these events go their way, as the conditions have it."""
        if self._collecting is not None:
            self._collecting += deliveries
            return
        now, random, conditions = self._monotonic(), self._random, self.conditions
        for delivery in deliveries:
            due = now + random.uniform(*conditions.delay)
            if random.random() < conditions.disorder:
                due += random.uniform(*_HELD_BACK)
            self.put(delivery, due)
            if random.random() < conditions.duplicates:
                self.put(delivery.copy(), due + random.uniform(0, _SECOND_COPY), duplicate=True)
        self.arrived()

    def put(self, delivery: Delivery, due: float, *, duplicate: bool = False) -> None:
        """Put one delivery in, due at a `time.monotonic()`; when there is no room it is counted and forgotten."""
        with self._lock:
            self.counts["duplicates" if duplicate else "events"] += 1
            if len(self._heap) >= self._most:
                self.counts["dropped"] += 1
                return
            self._push(delivery, due)

    def room(self, deliveries: int) -> None:
        """Make sure that so many more fit.

        Raises:
            ConfigurationError: they do not.

        """
        with self._lock:
            if len(self._heap) + deliveries > self._most:
                raise ConfigurationError(
                    f"{len(self._heap)} webhooks wait already; {deliveries} more are too many",
                    next_step=f"Wait for them, or ask for fewer: {self._most} may wait at a time.",
                )

    @contextmanager
    def collect(self) -> Iterator[list[Delivery]]:
        """Give what is sent in the block to the caller instead of sending it."""
        collected: list[Delivery] = []
        self._collecting = collected
        try:
            yield collected
        finally:
            self._collecting = None

    def _push(self, delivery: Delivery, due: float) -> None:
        self._serial += 1
        heappush(self._heap, (due, self._serial, delivery))

    # Taking out

    def take(self) -> Delivery | None:
        """Return the delivery that has been due longest, if one is."""
        with self._lock:
            if not self._heap or self._heap[0][0] > self._monotonic():
                return None
            self._under_way += 1
            return heappop(self._heap)[2]

    def wait(self) -> float | None:
        """Return the seconds until one is due; None: nothing waits."""
        with self._lock:
            return max(0.0, self._heap[0][0] - self._monotonic()) if self._heap else None

    def done(self, delivery: Delivery, status: int) -> None:
        """Record that a receiver took a delivery."""
        with self._lock:
            self._under_way -= 1
            self.counts["delivered"] += 1
            self.counts["retried"] += delivery.attempt > 0
            self.statuses[str(status)] += 1
            times = self.acknowledged.pop(delivery.event_id, 0)
            self.acknowledged[delivery.event_id] = times + 1
            if len(self.acknowledged) > _ACKNOWLEDGED_KEPT:
                del self.acknowledged[next(iter(self.acknowledged))]

    def failed(self, delivery: Delivery, failure: Failure, status: int) -> None:
        """Record a failed attempt, and put the delivery back for its next one."""
        with self._lock:
            self._under_way -= 1
            self.counts["failed"] += 1
            self.statuses[str(status) if status else failure] += 1
            again = delivery.retries
            minutes = again(delivery.attempt, failure, status) if again else retry_minutes(delivery.attempt)
            if minutes is None:
                self.counts["given_up"] += 1
                return
            delivery.attempt += 1
            delivery.failure = failure
            # Whatever has been promised is kept: a retry finds room even when new events do not.
            self._push(delivery, self._monotonic() + minutes * 60 * self.conditions.retry_factor)

    def clear(self) -> None:
        """Forget everything that waits, and everything counted."""
        with self._lock:
            self._heap.clear()
            self.counts.clear()
            self.statuses.clear()
            self.acknowledged.clear()

    def acknowledgements(self) -> dict[str, int]:
        """Return how often each event was taken; the oldest are forgotten after 200,000."""
        with self._lock:
            return dict(self.acknowledged)

    def snapshot(self) -> dict[str, Any]:
        """Return the counts and conditions, ready for JSON."""
        with self._lock:
            names = ("events", "duplicates", "delivered", "retried", "failed", "given_up", "dropped")
            return {
                **{name: self.counts[name] for name in names},
                "pending": len(self._heap) + self._under_way,
                "acknowledged": len(self.acknowledged),
                "statuses": dict(self.statuses),
                "conditions": asdict(self.conditions),
            }
