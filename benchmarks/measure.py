"""How a contender measures its own load: the seconds and CPU seconds between two points, after its imports."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def cpu_seconds() -> float:
    """Return the CPU seconds of this process so far, and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@contextmanager
def load(**facts: Any) -> Iterator[dict[str, Any]]:
    """Time a `with` block and print it, with the facts put into the yielded mapping, as the last line of output."""
    seconds, cpu = time.perf_counter(), cpu_seconds()
    yield facts
    facts |= {"seconds": time.perf_counter() - seconds, "cpu_seconds": cpu_seconds() - cpu}
    print(json.dumps(facts), flush=True)
