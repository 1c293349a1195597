"""A shop's bucket of points, as full as time and spending have left it.

Facts: https://shopify.dev/docs/apps/build/apis/graphql-admin/rate-limits. The standard plan restores 100 points a second.
"""

from __future__ import annotations

import time
from typing import Any

#: What a single query may cost.
MOST_COST = 1000
_STANDARD_RATE = 100.0
_STANDARD_LIMIT = 500  # the sandbox's rate limit that stands for the standard plan
_SECONDS_KEPT = 20.0


class Bucket:
    """A leaky bucket.

    Args:
        rate_limit: of the sandbox's options; 500 is the standard plan, 5000 ten times as much.

    """

    def __init__(self, rate_limit: int) -> None:
        self._at = time.monotonic()
        self.set_rate(_STANDARD_RATE * rate_limit / _STANDARD_LIMIT)

    def set_rate(self, rate: float) -> None:
        """Restore so many points a second from now on, and be full."""
        self.rate = rate
        self.most = max(float(MOST_COST), rate * _SECONDS_KEPT)
        self.left = self.most

    def _restore(self) -> None:
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self._at) * self.rate)
        self._at = now

    def take(self, points: float) -> bool:
        """Take points out, if they are there."""
        self._restore()
        if self.left < points:
            return False
        self.left -= points
        return True

    def give_back(self, points: float) -> None:
        """Put back what was not needed."""
        self.left = min(self.most, self.left + points)

    def status(self) -> dict[str, Any]:
        """Return the `throttleStatus`."""
        self._restore()
        return {"maximumAvailable": self.most, "currentlyAvailable": int(self.left), "restoreRate": self.rate}


def cost_of(requested: int, actual: int | None, bucket: Bucket) -> dict[str, Any]:
    """Return the `cost` of an answer."""
    return {"requestedQueryCost": requested, "actualQueryCost": actual, "throttleStatus": bucket.status()}
