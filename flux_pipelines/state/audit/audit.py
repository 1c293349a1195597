"""The record of every call to a provider: method, URL without secrets, outcome, cost. Written in batches."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import ColumnElement, and_, delete, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute

from flux_pipelines.domain.contact import Contact
from flux_pipelines.domain.errors import FluxError, StateUnavailableError, StorageFullError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import AuditRow, SecretUseRow, SyncRow

_log = logging.getLogger(__name__)

#: Calls held in memory at most while the database cannot take them; then recording fails.
_MOST_HELD = 10_000
_PRUNE_EVERY = 3600.0
_PRUNE_BATCH = 5_000
#: How long readings of secrets and entries of the sync ledger are kept.
_KEEP_OTHERS = timedelta(days=366)
#: The error of a call that was refused as it is, and how long nothing but that may come.
_REFUSED = "RefusedError"
_REFUSED_FOR = timedelta(minutes=10)


class Call(Protocol):
    """One attempt of a request, as the transport tells it. The URL carries no secrets; `seconds` includes no waiting."""

    @property
    def provider(self) -> str:
        """The provider's name."""

    @property
    def connection(self) -> str:
        """The connection's key."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def url(self) -> str:
        """The URL, redacted."""

    @property
    def status(self) -> int | None:
        """The HTTP status; None when no answer came."""

    @property
    def seconds(self) -> float:
        """How long the attempt took."""

    @property
    def attempt(self) -> int:
        """1 for the first."""

    @property
    def bytes(self) -> int:
        """Size of the answer's body."""

    @property
    def waited(self) -> float:
        """Seconds waited for the rate limit before it."""

    @property
    def error(self) -> str | None:
        """The class of the error; None when it went well."""

    @property
    def at(self) -> datetime:
        """When it was sent."""


@dataclass(frozen=True, slots=True)
class CallEntry:
    """One recorded call; the fields are those of `Call`."""

    provider: str
    connection: str
    method: str
    url: str
    status: int | None
    seconds: float
    attempt: int
    bytes: int
    waited: float
    error: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class CallTotals:
    """Sums over recorded calls: attempts sent, those that were retries, those that failed, seconds, bytes."""

    requests: int
    retries: int
    failures: int
    seconds: float
    waited: float
    bytes: int


class AuditLog:
    """Takes calls from any thread and writes them to the database together.

    Calls are written when `batch` of them are held or the oldest is `every` seconds old, and on `flush` and `close`. A
    process that is killed loses at most those.

    Args:
        database: where.
        batch: most calls in one write.
        every: seconds.
        keep: calls older than this are deleted, a portion an hour; so are other traces after a year.

    """

    def __init__(
        self, database: Database, *, batch: int = 200, every: float = 1.0, keep: timedelta = timedelta(days=30)
    ) -> None:
        self._database = database
        self._batch = batch
        self._every = every
        self._keep = keep
        self._held: list[dict[str, Any]] = []
        self._mutex = threading.Lock()
        self._writing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._prune_at = 0.0
        self._pid = os.getpid()

    def record(self, call: Call) -> None:
        """Take one call. A database that is busy or full does not fail it: the calls are held for later.

        Raises:
            StateUnavailableError, StorageFullError: the database has taken nothing for 10,000 calls.

        """
        row = {
            "at": call.at,
            "provider": call.provider,
            "connection": call.connection,
            "method": call.method,
            "url": call.url,
            "status": call.status,
            "seconds": call.seconds,
            "attempt": call.attempt,
            "bytes": call.bytes,
            "waited": call.waited,
            "error": call.error,
        }
        self._forget_parents()
        with self._mutex:
            self._held.append(row)
            self._set_timer()
            ready = len(self._held) % self._batch == 0
        # Whoever finds another thread writing goes on with its own work: that thread's next round takes this call.
        if ready and self._writing.acquire(blocking=False):
            try:
                self._write()
            except (StateUnavailableError, StorageFullError) as error:
                if len(self._held) >= _MOST_HELD:
                    raise
                _log.warning("The audit of %d calls is held in memory for now: %s", len(self._held), error.what)
            finally:
                self._writing.release()

    def flush(self) -> None:
        """Write what is held.

        Raises:
            FluxError: the database cannot take it; it is still held.

        """
        self._forget_parents()
        with self._writing:
            self._write()

    def close(self) -> None:
        """Write what is held; see `flush`."""
        self.flush()
        with self._mutex:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def contact(self, connection: str) -> Contact:
        """Return how a connection's last calls went, those of every process.

        A refusal (404, a query that costs too much) is an answer: clients put up with some. It counts as a failure when
        nothing but refusals has come for ten minutes. Calls that lie ahead are of a clock that was set back since.
        """
        self.flush()
        mine = and_(AuditRow.connection == connection, AuditRow.at <= datetime.now(UTC))
        with self._database.reading() as session:

            def newest(*conditions: ColumnElement[bool]) -> AuditRow | None:
                query = select(AuditRow).where(mine, *conditions).order_by(AuditRow.at.desc(), AuditRow.id.desc())
                return session.scalars(query.limit(1)).first()

            good = newest(AuditRow.error.is_(None))
            after = AuditRow.error.is_not(None) if good is None else AuditRow.at > good.at
            # From the last answer on: a refusal too says that the provider is there.
            answered = newest(after, AuditRow.error == _REFUSED)
            failing = after if answered is None else AuditRow.at > answered.at
            last = newest(failing, AuditRow.error.is_not(None))
            if last is None and answered is not None:
                last, failing = answered, and_(after, AuditRow.error == _REFUSED)
            if last is None:
                return Contact(good_at=good.at if good else None)
            first, count = session.execute(
                select(func.min(AuditRow.at), func.count()).where(mine, failing, AuditRow.error.is_not(None))
            ).one()
        if last.error == _REFUSED and last.at - first < _REFUSED_FOR:
            return Contact(good_at=last.at)
        good_at = good.at if good else None
        return Contact(good_at, first, int(count), str(last.error), last.status)

    def recent(self, connection: str | None = None, limit: int = 100) -> list[CallEntry]:
        """Return the latest calls, newest first, those still held by this process included."""
        self.flush()
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if connection is not None:
            query = query.where(AuditRow.connection == connection)
        with self._database.reading() as session:
            return [
                CallEntry(
                    provider=row.provider,
                    connection=row.connection,
                    method=row.method,
                    url=row.url,
                    status=row.status,
                    seconds=row.seconds,
                    attempt=row.attempt,
                    bytes=row.bytes,
                    waited=row.waited,
                    error=row.error,
                    at=row.at,
                )
                for row in session.scalars(query)
            ]

    def totals(self, connection: str | None = None, since: datetime | None = None) -> CallTotals:
        """Return sums over the recorded calls, of one connection and since an instant when given."""
        self.flush()
        query = select(
            func.count(),
            func.count().filter(AuditRow.attempt > 1),
            func.count().filter(AuditRow.error.is_not(None)),
            func.coalesce(func.sum(AuditRow.seconds), 0.0),
            func.coalesce(func.sum(AuditRow.waited), 0.0),
            func.coalesce(func.sum(AuditRow.bytes), 0),
        )
        if connection is not None:
            query = query.where(AuditRow.connection == connection)
        if since is not None:
            query = query.where(AuditRow.at >= since)
        with self._database.reading() as session:
            requests, retries, failures, seconds, waited, size = session.execute(query).one()
        return CallTotals(requests, retries, failures, float(seconds), float(waited), int(size))

    def prune(self, keep: timedelta | None = None) -> int:
        """Delete calls older than `keep`, in portions that do not hold others up; return how many."""
        cutoff = datetime.now(UTC) - (self._keep if keep is None else keep)
        total = 0
        while True:
            gone = self._prune_portion(AuditRow.id, AuditRow.at, cutoff)
            total += gone
            if gone < _PRUNE_BATCH:
                return total

    def _prune_portion(
        self, key: InstrumentedAttribute[Any], moment: InstrumentedAttribute[datetime], cutoff: datetime
    ) -> int:
        oldest = select(key).where(moment < cutoff).order_by(moment).limit(_PRUNE_BATCH)
        with self._database.session() as session:
            return len(session.execute(delete(key.class_).where(key.in_(oldest)).returning(key)).all())

    def _prune_now_and_then(self) -> None:
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + _PRUNE_EVERY
        now = datetime.now(UTC)
        try:
            self._prune_portion(AuditRow.id, AuditRow.at, now - self._keep)
            self._prune_portion(SecretUseRow.id, SecretUseRow.at, now - _KEEP_OTHERS)
            self._prune_portion(SyncRow.token, SyncRow.started_at, now - _KEEP_OTHERS)
        except FluxError as error:
            _log.warning("Old records could not be deleted now: %s", error.what)

    def _write(self) -> None:
        # The caller holds `_writing`, so nobody else removes from the front of the list.
        with self._mutex:
            rows = list(self._held)
        if rows:
            with self._database.session() as session:
                session.connection().execute(insert(AuditRow.__table__), rows)  # type: ignore[arg-type]
            with self._mutex:
                del self._held[: len(rows)]
        self._prune_now_and_then()

    def _set_timer(self) -> None:
        """See that what is held is written soon, whether another call comes or not. The caller holds the mutex."""
        if self._timer is None:
            self._timer = threading.Timer(self._every, self._write_late)
            self._timer.daemon = True
            self._timer.start()

    def _write_late(self) -> None:
        with self._mutex:
            self._timer = None
        try:
            self.flush()
        except FluxError as error:
            with self._mutex:
                _log.warning("The audit of %d calls is held in memory for now: %s", len(self._held), error.what)
                self._set_timer()

    def _forget_parents(self) -> None:
        # A forked child holds a copy of what its parent will write, and of locks that nobody there will let go of.
        if self._pid != os.getpid():
            self._mutex, self._writing = threading.Lock(), threading.Lock()
            self._held.clear()
            self._timer = None
            self._pid = os.getpid()
