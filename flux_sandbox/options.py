"""What a sandbox is started with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

Clock = Callable[[], datetime]

#: The app that every sandbox knows. It is published at /sandbox/app: it guards nothing.
CLIENT_ID = "sandbox-demo-application"
CLIENT_SECRET = "sandbox-demo-application-secret"  # noqa: S105
#: Signs webhooks, unless a subscription is given another key.
WEBHOOK_SIGNATURE_KEY = "sandbox-demo-webhook-signature-key"

DAY = 86_400.0


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How a sandbox behaves. The world is the same for the same `seed`, `end_day` and `history_days`.

    Args:
        seed: of the world, of short pages and of faults.
        orders: folder of order data to replay instead of the seeded world.
        faults: what goes wrong how often, `error500=0.05,truncate=0.02`; see `faults.FAULTS`.
        token_lifetime: seconds an access token lives.
        cursor_lifetime: seconds a page cursor lives.
        rate_limit: requests accepted per location in any 60 seconds; one more is answered 429.
        code_lifetime: seconds an authorization code lives.
        refresh_grace: seconds for which a refresh token that was rotated away still works; 0: it works once.
        history_days: business days of history in the seeded world.
        end_day: the last of them; default: yesterday, wherever in the world that is earliest.
        most_a_page: most orders, or records of any other list, on a page, whatever is asked for; default: each provider's own most.
        clock: gives the present instant.

    """

    seed: int = 1
    orders: Path | None = None
    faults: str = ""
    token_lifetime: float = 30 * DAY
    cursor_lifetime: float = 300.0
    rate_limit: int = 500
    code_lifetime: float = 300.0
    refresh_grace: float = 0.0
    history_days: int = 75
    end_day: date | None = None
    most_a_page: int | None = None
    clock: Clock = utc_now

    def page(self, size: int) -> int:
        """Return how much a page holds for which so much was asked."""
        return size if self.most_a_page is None else min(size, self.most_a_page)
