"""A bound on what one stranger may make the gateway store."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from flux_pipelines.domain.addresses import subscriber_of


class Throttle:
    """Counts by address in windows of a minute, in this process; the addresses of an IPv6 /64 are one.

    Args:
        most: how often one address may pass in a minute.
        most_addresses: those remembered; beyond it the oldest are forgotten, so that memory stays flat.

    """

    def __init__(self, most: int, *, most_addresses: int = 10_000) -> None:
        self._most = most
        self._most_addresses = most_addresses
        self._mutex = threading.Lock()
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def passes(self, host: str) -> bool:
        """Count one attempt from an address; tell whether it may pass."""
        key = subscriber_of(host)
        window = int(time.time() // 60)
        with self._mutex:
            began, count = self._seen.pop(key, (window, 0))
            count = count + 1 if began == window else 1
            self._seen[key] = (window, count)
            while len(self._seen) > self._most_addresses:
                self._seen.popitem(last=False)
            return count <= self._most
