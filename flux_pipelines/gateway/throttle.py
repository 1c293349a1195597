"""A bound on what one stranger may make the gateway store."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict


class Throttle:
    """Counts by key in windows of a minute, in this process.

    Args:
        most: how often one key may pass in a minute.
        most_keys: keys remembered; beyond it the oldest are forgotten, so that memory stays flat.

    """

    def __init__(self, most: int, *, most_keys: int = 10_000) -> None:
        self._most = most
        self._most_keys = most_keys
        self._mutex = threading.Lock()
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def passes(self, key: str) -> bool:
        """Count one attempt; tell whether it may pass."""
        window = int(time.time() // 60)
        with self._mutex:
            began, count = self._seen.pop(key, (window, 0))
            count = count + 1 if began == window else 1
            self._seen[key] = (window, count)
            while len(self._seen) > self._most_keys:
                self._seen.popitem(last=False)
            return count <= self._most
