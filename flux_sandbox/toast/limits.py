"""Toast's rate limits: fixed slices of time, per client and restaurant, told in headers on every answer.

Documented (devguide, "Rate limiting"): 20 requests a second and 10,000 in 15 minutes for everything, 5 a second for
ordersBulk and 1 a second for menus. The option `rate_limit` scales them all: at its default of 500 they are exactly these.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_DEFAULT = 500
_SECOND, _QUARTER = 1, 900


class Allowance(NamedTuple):
    """A limit: whose it is, how many requests, in slices of how many seconds."""

    by: str
    requests: int
    seconds: int


def allowances(rate_limit: int, endpoint: str) -> tuple[Allowance, ...]:
    """Return the limits of an endpoint."""

    def scaled(requests: int) -> int:
        return max(1, requests * rate_limit // _DEFAULT)

    found = [Allowance("GLOBAL", scaled(20), _SECOND), Allowance("GLOBAL", scaled(10_000), _QUARTER)]
    if endpoint == "orders_bulk":
        found.append(Allowance("ENDPOINT", scaled(5), _SECOND))
    if endpoint == "menus":
        found.append(Allowance("ENDPOINT", scaled(1), _SECOND))
    return tuple(found)


class Limiter:
    """Counts requests in fixed slices of the clock."""

    def __init__(self, rate_limit: int) -> None:
        self._rate_limit = rate_limit
        self._counted: dict[tuple[str, str, int], tuple[int, int]] = {}  # (key, whose, seconds) -> (slice, requests)

    def arrive(self, key: str, endpoint: str, now: float) -> tuple[bool, dict[str, str]]:
        """Count a request, and return whether it is within every limit, and the headers that say so.

        Args:
            key: the client and the restaurant.
            endpoint: the endpoint's name.
            now: Unix seconds of the real clock: `X-Toast-RateLimit-Reset` is on it.

        """
        tightest: tuple[int, float, Allowance] | None = None
        within = True
        for allowance in allowances(self._rate_limit, endpoint):
            slot = (key, allowance.by + (endpoint if allowance.by == "ENDPOINT" else ""), allowance.seconds)
            part = int(now // allowance.seconds)
            counted = self._counted.get(slot, (part, 0))
            used = counted[1] + 1 if counted[0] == part else 1
            self._counted[slot] = (part, used)
            within = within and used <= allowance.requests
            told = (allowance.requests - used, -float((part + 1) * allowance.seconds), allowance)
            if tightest is None or told[:2] < tightest[:2]:
                tightest = told
        assert tightest is not None  # noqa: S101 (there is always a limit)
        remaining, ends, allowance = tightest
        headers = {
            "X-Toast-RateLimit-By": allowance.by,
            "X-Toast-RateLimit-Remaining": str(max(0, remaining)),
            "X-Toast-RateLimit-Reset": str(math.ceil(-ends)),
        }
        if not within:
            headers["Retry-After"] = str(max(1, math.ceil(-ends - now)))
        return within, headers
