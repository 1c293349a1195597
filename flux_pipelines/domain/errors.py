"""Every error a user can meet: what happened, to which connection, whether a rerun helps, what to do next.

A permanent error (`rerun_helps=False`) stops Dagster's retries; a transient one lets them happen.
Messages never contain secrets: they are built from names and identifiers only.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches

from flux_pipelines.domain.inert import plain

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: The last two: a file stands where a folder should be.
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})
#: Advice for whoever looks at a run.
_PARTITIONS_AGAIN = re.compile("(r)un the failed partitions again", re.IGNORECASE)


class FluxError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what happened, in one plain sentence; words of a provider in it are made inert.
        connection: the connection it happened to (`square:acme`), when there is one.
        next_step: what the reader should do now; each class has a default.
        rerun_helps: whether trying again can help, if otherwise than the class says.
        attempts: how often it was tried.

    """

    rerun_helps: bool = False
    default_next_step: str = ""
    #: Whether it is worth saying that a rerun does not help: of a wrong name or argument everybody knows.
    tells_of_reruns: bool = True

    def __init__(
        self,
        what: str,
        *,
        connection: str | None = None,
        next_step: str | None = None,
        rerun_helps: bool | None = None,
        attempts: int = 1,
    ) -> None:
        self.what = what = plain(what)
        self.attempts = attempts
        self.connection = connection
        self.next_step = self.default_next_step if next_step is None else plain(next_step)
        if rerun_helps is not None:
            self.rerun_helps = rerun_helps
        super().__init__(what)

    def __str__(self) -> str:
        subject = f"{self.connection}: " if self.connection else ""
        # Beside what happened, not in it: the same fault is the same, however often each of its dates was tried.
        what = f"{self.what}, attempt {self.attempts}" if self.attempts > 1 else self.what
        stop = "" if what.endswith((".", "!", "?")) else "."
        rerun = "Running it again will not help by itself." if self.tells_of_reruns else ""
        rerun = "Running it again can help." if self.rerun_helps else rerun
        return " ".join(part for part in (f"{subject}{what}{stop}", rerun, self.next_step) if part)

    def outside_a_run(self) -> str:
        """Return the message for a command that runs nothing: of a test of a connection there are no partitions."""
        return _PARTITIONS_AGAIN.sub(lambda found: "Try again" if found[1] == "R" else "try again", str(self))

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (multiprocess executors, pools); keyword-only arguments need this.
        return (type(self), (self.what,), self.__dict__)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return a question after the name that was probably meant, with a space behind it; empty when none is like it."""
    found = get_close_matches(given, list(known), n=1)
    return f"Did you mean {found[0]}? " if found else ""


class ConfigurationError(FluxError):
    """A setting, argument or file the user gave is wrong or missing."""

    tells_of_reruns = False


class UnknownConnectionError(ConfigurationError):
    """No such connection."""

    default_next_step = "See `flux connections list`."


class AuthorizationRefusedError(FluxError):
    """A browser came back from a provider with a `state` that is not good.

    Its message is the same whatever was wrong: what it was is in `reason`, which is for the log and not for the browser.

    Args:
        reason: `unknown`, `used`, `expired`, `other_session` or `wrong_provider`.

    """

    default_next_step = "Start again from the page you came from."

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__("this sign-in or connection cannot be completed: it was not begun here, or not just now")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.reason,))


class SignInRefusedError(FluxError):
    """Somebody could not be signed in: the identity provider's word is missing or not good, or they are not admitted."""

    default_next_step = "Start again from the sign-in page; if it stays so, ask whoever runs this Flux."


class UnknownCurrencyError(FluxError):
    """A currency code that ISO 4217 does not know, or that has no minor unit."""


class UnknownZoneError(FluxError):
    """A time zone name that the IANA database does not know."""


class DayNotReadyError(FluxError):
    """A business date that has not begun anywhere yet, or lies before the first partition."""


class HistoryUnavailableError(FluxError):
    """The provider does not give what lies that far back: it cannot be had, which is not the same as empty."""


class ReauthorizationNeededError(FluxError):
    """The provider no longer accepts this connection's credentials."""

    default_next_step = "Reconnect the account, then run the failed partitions again."


class WebhookRefusedError(FluxError):
    """A delivery that cannot be shown to come from the provider, or that is not an event. Nothing of it is kept."""

    default_next_step = "See that the app's signature key and notification URL are the provider's: `flux apps list`."


class PermissionLostError(FluxError):
    """The credentials are valid but may no longer read what is asked for (403). Never the same as `no data`."""

    default_next_step = "Grant the missing permission at the provider, then run the failed partitions again."


class ProviderUnavailableError(FluxError):
    """The provider failed after all retries (5xx, timeouts, damaged bodies)."""

    rerun_helps = True
    default_next_step = "Run the failed partitions again later."


class RateLimitedError(ProviderUnavailableError):
    """The provider kept answering 429 after all retries."""

    default_next_step = "Lower the connection's `requests_per_minute`, or run the failed partitions again later."


class CircuitOpenError(ProviderUnavailableError):
    """The provider has failed repeatedly; calls are refused locally until the time named in the message."""


class AmbiguousSendError(FluxError):
    """A request that is not safe to repeat was sent, and no answer says whether it took effect."""

    default_next_step = "Look at the provider whether it took effect before sending it again."


class BadRequestError(FluxError):
    """The provider refused the request as wrong (4xx other than 401, 403, 408, 409, 429)."""

    default_next_step = "This is a defect in Flux or in the connection's settings: report it with the message."


class BadResponseError(ProviderUnavailableError):
    """An answer that is not what the provider documents (HTML, cut-off JSON, an empty body)."""


class IncompleteError(FluxError):
    """A partition was fetched, but a second, independent query shows that something is missing."""

    rerun_helps = True
    default_next_step = "Run the partition again; if it stays short, compare with the provider's own report."


class EmptiedError(IncompleteError):
    """The provider says that there is nothing where records are stored. They are kept: that is an error until accepted."""

    default_next_step = (
        "Run it again. If it stays so, look at the provider's own report; if the records are really gone there, accept it: "
        "`flux sync` over that date with `--accept-empty`, or `accept_empty: true` in the raw asset's run config."
    )


class ContractBrokenError(FluxError):
    """Rows that do not fit the contract of the table they were made for; the table is left as it was."""

    default_next_step = "This is a defect in the asset that makes these rows: report it with the message."


class CheckFailedError(FluxError):
    """Rows that a blocking check has found wrong. They are not in the table: it is left as it was."""

    default_next_step = (
        "What the table had before stays. See the check's sample in Dagster, mend the cause at the provider or report it, "
        "and run the partition again."
    )


class TableDamagedError(FluxError):
    """A table or raw file in the lake cannot be read, or does not match its manifest."""

    default_next_step = "Run the partition's raw asset again to fetch it anew, or restore the table from a backup."


class TableOutdatedError(TableDamagedError):
    """A table was made by an earlier version of Flux, and its rows cannot be read as those of this one."""

    default_next_step = "Run `flux rebuild`: it makes the table again from what was fetched."


class StorageFullError(FluxError):
    """No space left where the lake or the state lives; nothing was half-committed."""

    rerun_helps = True
    default_next_step = "Free some space, then run the failed partitions again."


class StorageUnavailableError(FluxError):
    """The lake's storage (S3) could not be reached or failed after all retries; nothing was half-committed."""

    rerun_helps = True
    default_next_step = "Run the failed partitions again when the storage answers."


class StorageRefusedError(FluxError):
    """The lake, or the home, may not be written (or read) by the user that Flux runs as; nothing was half-committed."""

    default_next_step = (
        "Let the user that Flux runs as read and write there (its owner, its mode, a file system that is mounted "
        "read-only), or keep it elsewhere (FLUX_LAKE_URL, FLUX_HOME); then run the failed partitions again."
    )


class TooManyWaitingError(FluxError):
    """So much that was asked for waits or is under way that no more is taken."""

    rerun_helps = True
    default_next_step = "Wait until some of it has ended, then ask again."


class StateUnavailableError(FluxError):
    """The state database does not answer, or stayed locked for longer than Flux waits."""

    rerun_helps = True
    default_next_step = "See that the database is up and reachable, then run it again."


def of_disk(error: OSError, doing: str) -> FluxError | None:
    """Return the error of ours that an error of the file system amounts to, wherever it comes from; None: a defect.

    Args:
        error: what was raised by opening, writing, flushing, renaming ...
        doing: what was being done: `writing the table 'daily_sales'`.

    """
    if error.errno in _FULL:
        return StorageFullError(f"no space left while {doing}")
    if error.errno in _REFUSED:
        name = str(error.filename or "")
        where = f" ({name})" if name and name.rpartition("/")[0] not in doing else ""
        return StorageRefusedError(f"{doing} is refused: {(error.strerror or 'not permitted').lower()}{where}")
    return None


class DecryptionError(ConfigurationError):
    """A stored credential cannot be decrypted with any of the configured keys."""

    default_next_step = "Set FLUX_ENCRYPTION_KEYS to include the key it was encrypted with."
    tells_of_reruns = True


class ForecastError(FluxError):
    """The forecast endpoint could not be used at all (single items that fail are recorded, not raised)."""

    rerun_helps = True
