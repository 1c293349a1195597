"""Who sends a connection's effects: a row that expires by itself, so that a sender that dies is followed by another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import Update, exists, select, update
from sqlalchemy.orm import Session

from flux_pipelines.state.database import Database
from flux_pipelines.state.heartbeat import heartbeat
from flux_pipelines.state.models import OutboxRow, OutboxSenderRow


class SenderLease:
    """The lease of a connection's one sender.

    When the clock was set back since it was written it lasts longer, and never shorter: an effect waits, and is not sent
    by two.

    Args:
        database: where.
        connection_key: whose effects.
        holder: a name that nobody else has.
        length: how long it lasts unless it is prolonged.

    """

    def __init__(self, database: Database, connection_key: str, holder: str, length: timedelta) -> None:
        self.connection_key = connection_key
        self.holder = holder
        self._database = database
        self._length = length

    def take(self) -> bool:
        """Take it; False: somebody else has it."""
        with self._database.session() as session:
            self._database.lock(session, f"outbox sender {self.connection_key}")
            now = self._database.now(session)
            row = session.get(OutboxSenderRow, self.connection_key, with_for_update=True)
            if row is not None and row.expires_at > now:
                return False
            values = {"connection_key": self.connection_key, "holder": self.holder, "expires_at": now + self._length}
            self._database.upsert(session, OutboxSenderRow, [values])
            return True

    def mine(self, session: Session) -> bool:
        """Tell whether it lasts, and see that it does until the transaction ends."""
        row = session.get(OutboxSenderRow, self.connection_key, with_for_update=True)
        return row is not None and row.holder == self.holder and row.expires_at > self._database.now(session)

    @contextmanager
    def prolonged(self) -> Iterator[None]:
        """Keep it for a `with` block, then give it back.

        If something is left that was being sent, it expires by itself instead: that may still be under way.
        """
        try:
            with heartbeat(self._prolong, self._length, f"{self.connection_key}: the outbox sender's lease"):
                yield
        finally:
            left = exists(select(OutboxRow.id).where(OutboxRow.holder == self.holder, OutboxRow.status == "sending"))
            with self._database.session() as session:
                session.execute(self._ours(session).where(~left).values(expires_at=self._database.now(session)))

    def _prolong(self) -> None:
        with self._database.session() as session:
            until: datetime = self._database.now(session) + self._length
            session.execute(self._ours(session).values(expires_at=until))

    def _ours(self, session: Session) -> Update:
        # One that has ended is somebody else's to take, and not prolonged.
        return update(OutboxSenderRow).where(
            OutboxSenderRow.connection_key == self.connection_key,
            OutboxSenderRow.holder == self.holder,
            OutboxSenderRow.expires_at > self._database.now(session),
        )
