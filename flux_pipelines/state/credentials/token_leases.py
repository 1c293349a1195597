"""Who refreshes a connection's token: a row that expires by itself, so that a refresher that dies is taken over."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from flux_pipelines.domain import errors
from flux_pipelines.domain.errors import (
    FluxError,
    ProviderUnavailableError,
    StateUnavailableError,
    StorageFullError,
)
from flux_pipelines.state.database import Database
from flux_pipelines.state.heartbeat import heartbeat
from flux_pipelines.state.models import TokenLeaseRow

_log = logging.getLogger(__name__)

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class TokenLease:
    """The lease of one connection's token.

    Args:
        database: where.
        connection_key: whose.
        length: how long it lasts unless it is prolonged.
        cool_off: for how long nobody tries a failed refresh again.

    """

    def __init__(self, database: Database, connection_key: str, length: timedelta, cool_off: timedelta) -> None:
        self._database = database
        self._key = connection_key
        self._length = length
        self._cool_off = cool_off
        #: A lease that cannot be right by the clock: its holder and end, and when this process saw it first.
        self._odd: tuple[str, datetime, float] = ("", _LONG_AGO, 0.0)

    def held(self, session: Session) -> bool:
        """Whether somebody has it, at a look without any lock."""
        lease = session.get(TokenLeaseRow, self._key)
        return lease is not None and self._runs(lease, self._database.now(session))

    def take(self, session: Session, *, waited: bool) -> str | FluxError | None:
        """Take the lease (its holder's name), or say why not (an error), or that somebody else has it (None).

        Args:
            session: the transaction in which the connection's row is locked.
            waited: whether the caller has been waiting for another one's refresh: it shares that one's failure.

        """
        now = self._database.now(session)
        lease = session.get(TokenLeaseRow, self._key, with_for_update=True)
        if lease is not None:
            if self._runs(lease, now):
                return None
            # Whoever takes the lease clears the failure: one that a waiter finds happened while it waited.
            # One that lies ahead is of a clock that was set back since.
            if lease.failed_at is not None and (waited or abs(now - lease.failed_at) < self._cool_off):
                return _shared_failure(lease)
        holder = uuid.uuid4().hex
        values = {"connection_key": self._key, "holder": holder, "expires_at": now + self._length}
        empty = {"failed_at": None, "failure_kind": "", "failure": ""}
        self._database.upsert(session, TokenLeaseRow, [{**values, **empty}])
        if lease is not None and lease.holder:
            _log.warning("%s: the process that was refreshing the token has died; taking over", self._key)
        return holder

    def _runs(self, lease: TokenLeaseRow, now: datetime) -> bool:
        """Tell whether a lease has not ended, also when the clock was set back since it was written.

        Then it ends later than any lease can. A living holder writes it anew every third of its length, by the clock of
        today; one that is still the same after half of its length, measured without the clock, has no holder any more.
        """
        if lease.expires_at <= now or lease.expires_at - now <= self._length:
            return lease.expires_at > now
        if self._odd[:2] != (lease.holder, lease.expires_at):
            self._odd = (lease.holder, lease.expires_at, time.monotonic())
        return time.monotonic() - self._odd[2] < self._length.total_seconds() / 2

    def free(self, session: Session, holder: str, **values: object) -> None:
        """Give it back, inside the caller's transaction; nothing happens when somebody else has it by now."""
        session.execute(
            update(TokenLeaseRow)
            .where(TokenLeaseRow.connection_key == self._key, TokenLeaseRow.holder == holder)
            .values(holder="", expires_at=_LONG_AGO, **values)
        )

    def fail(self, holder: str, error: BaseException) -> None:
        """Give it back with the failure, which those who wait share."""
        # An interrupt, or trouble with our own database, says nothing about the provider: others try for themselves.
        shared = isinstance(error, Exception) and not isinstance(error, StateUnavailableError | StorageFullError)
        with self._database.session() as session:
            self.free(
                session,
                holder,
                failed_at=self._database.now(session) if shared else None,
                failure_kind=type(error).__name__[:64],
                # The message of a foreign exception may hold anything, a token too: only its class is kept.
                failure=error.what if isinstance(error, FluxError) else "",
            )

    @contextmanager
    def prolonged(self, holder: str) -> Iterator[None]:
        """Prolong the lease while the provider is being asked: retries may take longer than the lease."""

        def prolong() -> None:
            with self._database.session() as session:
                session.execute(
                    update(TokenLeaseRow)
                    .where(TokenLeaseRow.connection_key == self._key, TokenLeaseRow.holder == holder)
                    .values(expires_at=self._database.now(session) + self._length)
                )

        with heartbeat(prolong, self._length, f"{self._key}: the token lease"):
            yield


def _shared_failure(lease: TokenLeaseRow) -> FluxError:
    kind = getattr(errors, lease.failure_kind, None)
    if not (isinstance(kind, type) and issubclass(kind, FluxError)):
        kind = ProviderUnavailableError
    what = lease.failure or lease.failure_kind
    return kind(f"refreshing the token failed a moment ago ({what})", connection=lease.connection_key)
