"""What the businesses of the seeded world are put together from."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from flux_sandbox.model import Tax

_IN_2025 = 1_735_689_600_000


def _percent(rate: int) -> str:
    return f"{rate / 10_000:.4f}".rstrip("0").rstrip(".")


def tax(name: str, rate: int, covers: Iterable[str], *, inclusive: bool = False) -> Tax:
    """Return a tax from its rate in millionths."""
    return Tax(name, _percent(rate), rate, frozenset(covers), inclusive)


def changed(seed: int, *parts: str) -> int:
    """Return when something of a catalog was last changed: some time in 2025, UTC milliseconds."""
    return _IN_2025 + Random(f"{seed}|changed|{'|'.join(parts)}").randrange(300 * 86_400_000)  # noqa: S311
