"""How the providers' own sales reports behave, whatever they say: what a test can make of them.

`POST /sandbox/reports` changes it: `waits` answers that say that the report is computed still (-1: for ever), `conflicts` that
say that it must be asked for anew, `empty`, `denied`, `absent` reports, and `lag_minutes` by which they are behind.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from flux_pipelines.domain.errors import ConfigurationError

MINUTE = 60_000


@dataclass(slots=True)
class Reporting:
    """How reports are given.

    Args:
        waits: how often each question is answered that the report is computed still; -1: for ever.
        conflicts: how often each question is answered that it must be asked anew.
        empty: whether they hold nothing.
        denied: whether nobody may read them.
        absent: whether there are none, as in Square's own sandbox.
        lag_minutes: how far they are behind: what happened since is not in them.
        asked: how often each question was asked.

    """

    waits: int = 0
    conflicts: int = 0
    empty: bool = False
    denied: bool = False
    absent: bool = False
    lag_minutes: int = 0
    asked: Counter[str] = field(default_factory=Counter)

    def change(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Change how reports are given; what is not named becomes as at the beginning.

        Raises:
            ConfigurationError: a name or a value that there is not.

        """
        known = {one.name: type(one.default) for one in fields(self) if one.name != "asked"}
        for name, value in wanted.items():
            if type(value) is not known.get(name):
                raise ConfigurationError(
                    f"reports have no {name!r} of {value!r}", next_step=f"Known: {', '.join(known)}."
                )
        fresh = Reporting(**wanted)
        for name in known:
            setattr(self, name, getattr(fresh, name))
        self.asked.clear()
        return {name: value for name, value in asdict(self).items() if name in known}

    def waiting(self, question: str) -> bool:
        """Tell whether a question is still being worked at, and count it."""
        self.asked[question] += 1
        return self.waits < 0 or self.asked[question] <= self.waits

    def conflicting(self, question: str) -> bool:
        """Tell whether a question must be asked anew, and count it."""
        self.asked[f"409 {question}"] += 1
        return self.asked[f"409 {question}"] <= self.conflicts

    def until(self, high: int, now_ms: int) -> int:
        """Return up to which instant a report knows what happened."""
        return min(high, now_ms - self.lag_minutes * MINUTE)
