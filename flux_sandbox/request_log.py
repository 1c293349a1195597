"""Who asked what and when: the evidence that limits were kept and nothing was fetched twice."""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

WINDOW = 60.0
_SEARCHES_KEPT = 200_000


def max_in_window(arrivals: Iterable[float], seconds: float = WINDOW) -> int:
    """Return the most arrivals in any half-open window of `seconds`; `arrivals` are in ascending order."""
    most = 0
    recent: deque[float] = deque()
    for at in arrivals:
        recent.append(at)
        while recent[0] <= at - seconds:
            recent.popleft()
        most = max(most, len(recent))
    return most


class RequestLog:
    """Counts requests and keeps every arrival, to the microsecond, per rate-limit key (usually a location id)."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far, the arrivals that limits look at included."""
        self.began = time.time()
        self.counts: Counter[str] = Counter()
        self.endpoints: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.arrivals: dict[str, array[float]] = {}
        self.searches: deque[dict[str, Any]] = deque(maxlen=_SEARCHES_KEPT)
        self._recent: dict[str, deque[float]] = {}

    def arrive(self, keys: Iterable[str], at: float, limit: int) -> bool:
        """Record a request that arrived at `at` (`time.monotonic()`) and tell whether every key is within its limit."""
        within = True
        for key in keys:
            log = self.arrivals.get(key)
            if log is None:
                log = self.arrivals[key] = array("d")
                self._recent[key] = deque()
            log.append(at)
            recent = self._recent[key]
            recent.append(at)
            while recent[0] <= at - WINDOW:
                recent.popleft()
            within = within and len(recent) <= limit
        return within

    def snapshot(self, *, arrivals: bool = False) -> dict[str, Any]:
        """Return everything counted, ready for JSON."""
        now_monotonic, now = time.monotonic(), time.time()
        keys: dict[str, Any] = {}
        for key, log in self.arrivals.items():
            entry: dict[str, Any] = {"requests": len(log), "max_in_window": max_in_window(sorted(log))}
            if log:
                entry["first"] = now - (now_monotonic - log[0])
                entry["last"] = now - (now_monotonic - log[-1])
            if arrivals:
                entry["arrivals"] = [round(now - (now_monotonic - at), 6) for at in log]
                entry["per_second"] = dict(Counter(str(int(now - (now_monotonic - at))) for at in log))
            keys[key] = entry
        return {
            "since": self.began,
            "requests": sum(self.endpoints.values()),
            "endpoints": dict(self.endpoints),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "rate_limited": self.counts["rate_limited"],
            "token_refreshes": self.counts["token_refreshes"],
            "tokens_issued": self.counts["tokens_issued"],
            "keys": keys,
            "searches": list(self.searches),
        }
