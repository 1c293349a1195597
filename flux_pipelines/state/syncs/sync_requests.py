"""Syncs that people ask for; a sensor runs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, cast

from sqlalchemy import ColumnElement, delete, func, select, true
from sqlalchemy.orm import Session

from flux_pipelines.domain.errors import ConfigurationError, TooManyWaitingError, UnknownConnectionError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import ConnectionRow, SyncRequestRow

RequestStatus = Literal["waiting", "started", "done", "failed"]
_OPEN = ("waiting", "started")
#: Each may be a run for every month of the history, of orders and of every stream beside them.
MOST_OF_A_CONNECTION = 3
MOST_IN_ALL = 300


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One asked-for sync of these business dates, both included."""

    id: int
    connection_key: str
    first_day: date
    last_day: date
    asked_by: str
    reason: str
    status: RequestStatus
    run_key: str
    detail: str
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class SyncRequests:
    """Takes requests and follows them to their end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        connection_key: str,
        first_day: date,
        last_day: date,
        asked_by: str,
        reason: str,
        *,
        capped: bool = False,
    ) -> int:
        """Ask for a sync and return the request's id. The same one asked for twice while it waits is one.

        Args:
            connection_key: the connection.
            first_day: the first business date.
            last_day: the last one, included.
            asked_by: who asks.
            reason: why, for people.
            capped: take no more than `MOST_OF_A_CONNECTION` and `MOST_IN_ALL` that wait or are under way.

        Raises:
            UnknownConnectionError: there is no such connection.
            ConfigurationError: the first day comes after the last.
            TooManyWaitingError: `capped`, and there are so many already.

        """
        if first_day > last_day:
            raise ConfigurationError("the first day comes after the last", connection=connection_key)
        with self._database.session() as session:
            # Locked, so that two clicks at once find each other.
            if session.get(ConnectionRow, connection_key, with_for_update=True) is None:
                raise UnknownConnectionError(f"there is no connection called {connection_key!r}")
            same = session.scalars(
                select(SyncRequestRow.id).where(
                    SyncRequestRow.connection_key == connection_key,
                    SyncRequestRow.status == "waiting",
                    SyncRequestRow.first_day == first_day,
                    SyncRequestRow.last_day == last_day,
                )
            ).first()
            if same is not None:
                return same
            if capped:
                _require_room(session, connection_key)
            row = SyncRequestRow(
                connection_key=connection_key,
                first_day=first_day,
                last_day=last_day,
                asked_by=asked_by,
                reason=reason,
                status="waiting",
                run_key="",
                detail="",
                asked_at=datetime.now(UTC),
                started_at=None,
                finished_at=None,
            )
            session.add(row)
            session.flush()
            return row.id

    def open(self) -> list[SyncRequest]:
        """Return those that wait or were started, oldest first."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(SyncRequestRow).where(SyncRequestRow.status.in_(_OPEN)).order_by(SyncRequestRow.id)
            )
            return [_request(row) for row in rows]

    def start(self, request_id: int, run_key: str) -> bool:
        """Say that a run was asked for; False when it does not wait any more (somebody else was quicker)."""
        with self._database.session() as session:
            row = session.get(SyncRequestRow, request_id, with_for_update=True)
            if row is None or row.status != "waiting":
                return False
            row.status, row.run_key, row.started_at = "started", run_key, datetime.now(UTC)
            return True

    def finish(self, request_id: int, ok: bool, detail: str = "") -> None:
        """Say how it ended. One that has ended, or whose connection was removed, stays as it is."""
        with self._database.session() as session:
            row = session.get(SyncRequestRow, request_id, with_for_update=True)
            if row is not None and row.status in _OPEN:
                row.status, row.detail, row.finished_at = "done" if ok else "failed", detail, datetime.now(UTC)

    def get(self, request_id: int) -> SyncRequest | None:
        """Return one request, or None."""
        with self._database.reading() as session:
            row = session.get(SyncRequestRow, request_id)
            return None if row is None else _request(row)

    def latest(self, connection_key: str) -> SyncRequest | None:
        """Return the newest request of a connection."""
        with self._database.reading() as session:
            row = session.scalars(
                select(SyncRequestRow)
                .where(SyncRequestRow.connection_key == connection_key)
                .order_by(SyncRequestRow.id.desc())
                .limit(1)
            ).first()
            return None if row is None else _request(row)

    def purge(self, older_than: timedelta = timedelta(days=366)) -> int:
        """Delete those that ended longer ago than that; return how many."""
        cutoff = datetime.now(UTC) - older_than
        with self._database.session() as session:
            gone = session.execute(
                delete(SyncRequestRow)
                .where(SyncRequestRow.status.not_in(_OPEN), SyncRequestRow.finished_at < cutoff)
                .returning(SyncRequestRow.id)
            )
            return len(gone.all())


def _require_room(session: Session, connection_key: str) -> None:
    def count(which: ColumnElement[bool]) -> int:
        query = select(func.count()).select_from(SyncRequestRow).where(SyncRequestRow.status.in_(_OPEN), which)
        return session.scalar(query) or 0

    mine = count(SyncRequestRow.connection_key == connection_key)
    if mine >= MOST_OF_A_CONNECTION:
        raise TooManyWaitingError(f"{mine} syncs of it wait or are under way", connection=connection_key)
    every = count(true())
    if every >= MOST_IN_ALL:
        raise TooManyWaitingError(f"{every} syncs wait or are under way", connection=connection_key)


def _request(row: SyncRequestRow) -> SyncRequest:
    return SyncRequest(
        id=row.id,
        connection_key=row.connection_key,
        first_day=row.first_day,
        last_day=row.last_day,
        asked_by=row.asked_by,
        reason=row.reason,
        status=cast(RequestStatus, row.status),
        run_key=row.run_key,
        detail=row.detail,
        asked_at=row.asked_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
