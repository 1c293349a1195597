"""How a connection's calls to its provider went last, and the verdict on them, in words for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_PERMISSION = ("Permission lost", "Grant the missing permission at the provider, then test the connection.")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a connection is not in touch with its provider.

    Args:
        grave: whether nothing gets through: else a part of it, or only for now.
        word: the verdict in two words.
        why: what happened and since when, and whether it mends itself, in sentences.
        next_step: what to do; empty when nothing.

    """

    grave: bool
    word: str
    why: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The last test, or the last sync of orders or of a stream, when it failed and nothing has settled it since.

    Args:
        what: `test`, `sync of orders`, `sync of payments` ...
        at: when it ended (UTC).
        error: the class of its error.
        why: what happened.
        next_step: what to do.
        passing: whether the next good call settles it: the provider was away. Else the next one that succeeds does.
        again: whether trying again, as the schedules do, can settle it.

    """

    what: str
    at: datetime
    error: str
    why: str
    next_step: str
    passing: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Contact:
    """The last calls of a connection, over all processes. Instants are UTC, None for `never`.

    Args:
        good_at: when a call was last answered well.
        failing_since: the first of the calls that have failed since; None when the last one went well.
        failures: how many those are.
        error: the class of the last one's error.
        status: the last one's HTTP status, where there was an answer.
        held: whether the circuit breaker holds calls back.
        held_until: when the next call is let through to try, while that lies ahead.
        failed: tests and syncs that ended in a failure which is not settled yet, the gravest first.

    """

    good_at: datetime | None = None
    failing_since: datetime | None = None
    failures: int = 0
    error: str = ""
    status: int | None = None
    held: bool = False
    held_until: datetime | None = None
    failed: tuple[Failed, ...] = ()

    def trouble(self) -> Trouble | None:
        """Return the verdict, the gravest first; None when the provider answers."""
        since = f"since {_at(self.failing_since)}" if self.failing_since else "for some time"
        seen = f"; the last good answer came {_at(self.good_at)}" if self.good_at else ""
        if self.held:
            wait = (
                f"until {self.held_until:%H:%M:%S} UTC, then one tries" if self.held_until else "but for one that tries"
            )
            return Trouble(
                True,
                "Provider down",
                f"The provider has failed every call {since} ({self._last()}){seen}. Calls are held back {wait}. It mends "
                "itself: with the first good answer everything goes on, and what was missed is fetched.",
                "If it lasts for hours, see the provider's own status page.",
            )
        if self.failing_since is not None:
            return self._failing(since, seen)
        if not self.failed:
            return None
        last = self.failed[0]
        lost = last.error == "PermissionLostError"
        word = _PERMISSION[0] if lost else f"{last.what.partition(' ')[0].title()} failed"
        if last.passing:
            mends = "The next good answer settles it."
        elif last.again:
            mends = "It is tried again by itself for the last days, and the first time that goes well settles it."
        else:
            mends = "It does not mend itself."
        why = f"The last {last.what} failed, {_at(last.at)}: {last.why.rstrip('.')}. {mends}"
        return Trouble(not last.passing, word, why, last.next_step)

    def _failing(self, since: str, seen: str) -> Trouble:
        told = f"{since} ({self._last()}){seen}."
        match self.error:
            case "PermissionLostError":
                why = f"The provider does not let it read what is asked for {told} This does not mend itself."
                return Trouble(True, _PERMISSION[0], why, _PERMISSION[1])
            case "RateLimitedError":
                why = f"The provider refuses calls as too many {told} They are tried again, and it mends itself."
                return Trouble(False, "Rate limited", why, "If it lasts, lower the connection's `requests_per_minute`.")
            case "ProviderUnavailableError" | "BadResponseError" | "AmbiguousSendError":
                why = f"The provider has given no good answer {told} It is tried again, and the next good answer mends it."
                return Trouble(False, "No answer", why, "If it lasts for hours, see the provider's own status page.")
            case _:
                why = f"Calls fail {told} This does not mend itself."
                return Trouble(True, "Calls fail", why, "Test the connection: the answer says what is wrong.")

    def _last(self) -> str:
        if not self.failures:
            return "other processes saw it"
        how = f"status {self.status}" if self.status is not None else "no answer"
        return f"one call, with {how}" if self.failures == 1 else f"{self.failures:,} calls, the last with {how}"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
