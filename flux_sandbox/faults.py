"""Failures on request, at a given rate, seeded and counted.

They hit provider endpoints only: never /healthz, the sandbox's own /sandbox/*, the page a person sees to authorise, or
the exchange of an authorization code (a code can be used once, so that a person would have to begin again). Of a token
refresh only the request fails, never the answer: a rotated token that nobody received cannot be had again.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from flux_pipelines.domain.errors import ConfigurationError

#: Every fault by name, and what it does. All are rates from 0 to 1, but for `latency`.
FAULTS = {
    "error500": "answers 500, 502, 503 or 504 in the provider's own error form",
    "error429": "answers 429 although the limit was kept",
    "html": "answers with a proxy's HTML or plain text, sometimes with status 200",
    "truncate": "answers 200 with a body that is cut off",
    "empty": "answers 200 with no body",
    "disconnect": "closes the connection in the middle of the body",
    "cursor": "declares the request's page cursor dead",
    "slow": "answers half a second late",
    "latency": "seconds added to every answer",
}
#: Faults that leave what was asked undone.
BEFORE = ("error500", "error429", "html")
#: Faults that damage the answer.
AFTER = ("truncate", "empty", "disconnect")


def parse_faults(text: str) -> dict[str, float]:
    """Read `error500=0.05,truncate=0.02`.

    Raises:
        ConfigurationError: an unknown fault, or a rate that is not one.

    """
    rates: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in FAULTS:
            raise ConfigurationError(f"no fault is called {name!r}", next_step=f"Known faults: {', '.join(FAULTS)}.")
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        highest = 60.0 if name == "latency" else 1.0
        if not equals or not 0.0 <= rate <= highest:
            unit = "seconds" if name == "latency" else "a rate"
            raise ConfigurationError(
                f"the fault {part!r} needs {unit} from 0 to {highest:g}", next_step=f"Write for example {name}=0.05."
            )
        rates[name] = rate
    return rates


class FaultInjector:
    """Decides, request by request, what goes wrong."""

    def __init__(self, text: str = "", seed: int = 1) -> None:
        self.rates = parse_faults(text)
        self.random = Random(f"{seed}|faults")  # noqa: S311
        self.injected: Counter[str] = Counter()

    def change(self, text: str) -> None:
        """Replace the rates; the counts stay."""
        self.rates = parse_faults(text)

    def draw(self, *, cursor: bool = False, answer: bool = True) -> str:
        """Return the fault of this request, or nothing.

        Args:
            cursor: the request carries a page cursor, so that it can be declared dead.
            answer: the answer may be damaged; not where it cannot be asked for again.

        """
        if not self.rates:
            return ""
        for name in (*BEFORE, "cursor", *AFTER):
            rate = self.rates.get(name, 0.0)
            if not rate or (name == "cursor" and not cursor) or (name in AFTER and not answer):
                continue
            if self.random.random() < rate:
                self.injected[name] += 1
                return name
        return ""

    def delay(self) -> float:
        """Return the seconds to wait before answering."""
        seconds = self.rates.get("latency", 0.0)
        if self.random.random() < self.rates.get("slow", 0.0):
            self.injected["slow"] += 1
            seconds += 0.5
        return seconds
