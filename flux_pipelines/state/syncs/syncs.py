"""The ledger of syncs: the same command given again after a crash or a failure goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import SyncRow

#: An unfinished sync older than this is not resumed: what it fetched may be stale by then.
RESUMABLE_FOR = timedelta(days=7)
_OPEN = ("running", "failed")


@dataclass(frozen=True, slots=True)
class SyncTicket:
    """The name of a sync, which partitions carry in their manifest, and whether it goes on with an earlier one."""

    token: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class SyncRecord:
    """One sync as recorded: `running`, `failed` (both resumable), `finished` or `abandoned`. Instants are UTC."""

    token: str
    provider: str
    connections: tuple[str, ...]
    first_day: date
    last_day: date
    state: str
    attempts: int
    started_at: datetime
    finished_at: datetime | None


class Syncs:
    """Begins, resumes and finishes syncs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, provider: str, connections: Sequence[str], first_day: date, last_day: date, *, again: bool = False
    ) -> SyncTicket:
        """Begin a sync, or resume the unfinished one of the same arguments that was started less than 7 days ago.

        Two processes that begin the same sync at once share one ticket. The order of `connections` does not matter.
        With `again` none is resumed, now or later: what it has fetched is fetched anew.
        """
        names = sorted(set(connections))
        arguments = hashlib.sha256(
            json.dumps([provider, names, first_day.isoformat(), last_day.isoformat()]).encode()
        ).hexdigest()
        with self._database.session() as session:
            self._database.lock(session, f"sync/{arguments}")
            now = self._database.now(session)
            row = session.scalars(
                select(SyncRow)
                .where(
                    SyncRow.arguments == arguments,
                    SyncRow.state.in_(_OPEN),
                    SyncRow.started_at > now - RESUMABLE_FOR,
                )
                .order_by(SyncRow.started_at.desc())
                .limit(1)
            ).first()
            if row is not None and again:
                row.state = "abandoned"
            elif row is not None:
                row.state, row.attempts, row.finished_at = "running", row.attempts + 1, None
                return SyncTicket(row.token, resumed=True)
            token = uuid.uuid4().hex
            session.add(
                SyncRow(
                    token=token,
                    arguments=arguments,
                    provider=provider,
                    connections=names,
                    first_day=first_day,
                    last_day=last_day,
                    state="running",
                    attempts=1,
                    started_at=now,
                    finished_at=None,
                )
            )
            return SyncTicket(token, resumed=False)

    def finish(self, token: str, ok: bool) -> None:
        """End a sync for good (`ok`), or leave it to be resumed. A sync that is finished stays finished.

        Raises:
            ConfigurationError: no sync has that token.

        """
        with self._database.session() as session:
            row = session.get(SyncRow, token, with_for_update=True)
            if row is None:
                raise ConfigurationError(f"no sync is called {token!r}")
            if row.state in _OPEN:
                row.state = "finished" if ok else "failed"
                row.finished_at = self._database.now(session)

    def recent(self, limit: int = 20) -> list[SyncRecord]:
        """Return the latest syncs, newest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(SyncRow).order_by(SyncRow.started_at.desc()).limit(limit))
            return [
                SyncRecord(
                    token=row.token,
                    provider=row.provider,
                    connections=tuple(row.connections),
                    first_day=row.first_day,
                    last_day=row.last_day,
                    state=row.state,
                    attempts=row.attempts,
                    started_at=row.started_at,
                    finished_at=row.finished_at,
                )
                for row in rows
            ]

    def abandon(self, session: Session, connection_key: str) -> None:
        """Let no unfinished sync of this connection be resumed, inside the caller's transaction."""
        rows = session.execute(select(SyncRow.token, SyncRow.connections).where(SyncRow.state.in_(_OPEN)))
        tokens = [token for token, connections in rows if connection_key in connections]
        if tokens:
            session.execute(update(SyncRow).where(SyncRow.token.in_(tokens)).values(state="abandoned"))
