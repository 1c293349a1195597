"""How a contender measures its own load: the seconds and CPU seconds between two points, after its imports."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def cpu_seconds() -> float:
    """Return the CPU seconds of this process so far, and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@contextmanager
def load() -> Iterator[dict[str, Any]]:
    """Time a `with` block; `seconds` and `cpu_seconds` are in the yielded mapping when it ends."""
    facts: dict[str, Any] = {}
    seconds, cpu = time.perf_counter(), cpu_seconds()
    yield facts
    facts |= {"seconds": time.perf_counter() - seconds, "cpu_seconds": cpu_seconds() - cpu}


def tell(facts: Mapping[str, Any]) -> None:
    """Hand the facts to the harness: one line of JSON."""
    print(json.dumps(facts), flush=True)
