"""What people should see and act on. At most one alert of a kind and connection is open at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, cast, get_args

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from flux_pipelines.domain.connection import Status
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.domain.inert import plain
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import AlertRow, ConnectionRow, CursorRow

Kind = Literal[
    "needs_reauth",
    "consent_expiring",
    "webhooks_failing",
    "inbox_failed",
    "reconcile_short",
    "on_two_dates",
    "came_back_empty",
    "records_damaged",
    "data_refused",
]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `connection_key` is empty when it is of no connection."""

    id: int
    kind: Kind
    connection_key: str
    message: str
    raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str
    resolved_at: datetime | None


class Alerts:
    """Raises and resolves alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def raise_(self, kind: Kind, connection_key: str, message: str) -> bool:
        """Open an alert, or bring the message of the open one up to date; return whether it is new.

        Args:
            kind: what it is about.
            connection_key: of which connection; empty for none.
            message: what happened and what to do, in plain words; no secrets.

        """
        with self._database.session() as session:
            return self.raise_within(session, kind, connection_key, message)

    def resolve(self, kind: Kind, connection_key: str) -> bool:
        """Close the open alert; return whether there was one."""
        with self._database.session() as session:
            return self.resolve_within(session, connection_key, kind) > 0

    def parts(self, kind: Kind, connection_key: str) -> dict[str, str]:
        """Return the broken parts that an alert of `follow` is about, and what is wrong with each; empty when it is not open."""
        with self._database.reading() as session:
            row = session.get(CursorRow, _parts(kind, connection_key))
            return {} if row is None else dict(row.value)

    def follow(
        self,
        kind: Kind,
        connection_key: str,
        broken: Mapping[str, str],
        mended: Collection[str],
        tell: Callable[[Mapping[str, str]], str],
    ) -> None:
        """Keep an alert open as long as a part of a connection (a business date of a stream, say) is broken.

        Args:
            kind: what it is about.
            connection_key: of which connection; nothing happens when it is gone.
            broken: the parts that were found broken now, each with what is wrong with it.
            mended: the parts that were found well. Those that are in neither stay what they were.
            tell: makes the message of all that is broken.

        """
        if not broken and not self.parts(kind, connection_key).keys() & set(mended):
            return
        name = _parts(kind, connection_key)
        with self._database.session() as session:
            # Two runs of a connection may end at once: neither may lose what the other has found.
            self._database.lock(session, name)
            lock = {"read": True, "key_share": True}
            if session.get(ConnectionRow, connection_key, with_for_update=lock) is None:
                return
            row = session.get(CursorRow, name)
            before: dict[str, str] = {} if row is None else row.value
            left = {part: what for part, what in before.items() if part not in set(mended)} | dict(broken)
            if left:
                value = {"name": name, "connection_key": connection_key, "value": left, "updated_at": datetime.now(UTC)}
                self._database.upsert(session, CursorRow, [value])
                self.raise_within(session, kind, connection_key, tell(left))
            else:
                session.execute(delete(CursorRow).where(CursorRow.name == name))
                self.resolve_within(session, connection_key, kind)

    def open(self) -> list[Alert]:
        """Return the open alerts, newest first; acknowledged ones too."""
        with self._database.reading() as session:
            rows = session.scalars(select(AlertRow).where(AlertRow.resolved_at.is_(None)).order_by(AlertRow.id.desc()))
            return [_alert(row) for row in rows]

    def acknowledge(self, alert_id: int, by: str) -> None:
        """Record that somebody has seen it. It stays open until it is resolved.

        Raises:
            ConfigurationError: there is none with that id.

        """
        with self._database.session() as session:
            row = session.get(AlertRow, alert_id, with_for_update=True)
            if row is None:
                raise ConfigurationError(f"there is no alert {alert_id}")
            if row.acknowledged_at is None:
                row.acknowledged_at, row.acknowledged_by = datetime.now(UTC), by

    def raise_within(self, session: Session, kind: Kind, connection_key: str, message: str) -> bool:
        """Do what `raise_` does, inside the caller's transaction."""
        if kind not in get_args(Kind):
            raise ConfigurationError(
                f"{kind!r} is not a kind of alert", next_step=f"Known: {', '.join(get_args(Kind))}."
            )
        message = plain(message)
        self._database.lock(session, f"alert/{kind}/{connection_key}")
        changed = session.execute(
            update(AlertRow)
            .where(AlertRow.kind == kind, AlertRow.connection_key == connection_key, AlertRow.resolved_at.is_(None))
            .values(message=message)
            .returning(AlertRow.id)
        )
        if changed.first() is not None:
            return False
        session.add(
            AlertRow(
                kind=kind,
                connection_key=connection_key,
                message=message,
                raised_at=datetime.now(UTC),
                acknowledged_at=None,
                acknowledged_by="",
                resolved_at=None,
            )
        )
        return True

    def resolve_within(self, session: Session, connection_key: str, *kinds: Kind) -> int:
        """Close the open alerts of a connection, of these kinds or of all, inside the caller's transaction."""
        query = update(AlertRow).where(AlertRow.connection_key == connection_key, AlertRow.resolved_at.is_(None))
        if kinds:
            query = query.where(AlertRow.kind.in_(kinds))
        return len(session.execute(query.values(resolved_at=datetime.now(UTC)).returning(AlertRow.id)).all())

    def follow_status(self, session: Session, connection_key: str, status: Status, reason: str) -> None:
        """Open or close the alert that goes with a connection's status, inside the transaction that changes it."""
        if status == "needs_reauth":
            message = f"Syncing stopped. Reconnect the account to resume: {reason}."
            self.raise_within(session, "needs_reauth", connection_key, message)
        elif status == "active":
            self.resolve_within(session, connection_key, "needs_reauth")
        elif status == "disconnected":
            self.resolve_within(session, connection_key)

    def purge(self, older_than: timedelta = timedelta(days=366)) -> int:
        """Delete those resolved longer ago than that; return how many."""
        cutoff = datetime.now(UTC) - older_than
        with self._database.session() as session:
            gone = session.execute(delete(AlertRow).where(AlertRow.resolved_at < cutoff).returning(AlertRow.id))
            return len(gone.all())


def _parts(kind: Kind, connection_key: str) -> str:
    """Return the name of the cursor that keeps what an alert is about."""
    return f"alert-parts/{kind}/{connection_key}"


def _alert(row: AlertRow) -> Alert:
    return Alert(
        id=row.id,
        kind=cast(Kind, row.kind),
        connection_key=row.connection_key,
        message=row.message,
        raised_at=row.raised_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        resolved_at=row.resolved_at,
    )
