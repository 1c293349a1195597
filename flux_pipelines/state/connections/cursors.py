"""How far each sensor has read: a name and any JSON value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select

from flux_pipelines.domain.errors import UnknownConnectionError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import ConnectionRow, CursorRow


class Cursors:
    """Reads and stores cursors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> Any | None:
        """Return the cursor's value, or None when it was never set."""
        with self._database.reading() as session:
            row = session.get(CursorRow, name)
            return None if row is None else row.value

    def of(self, connection: str) -> dict[str, Any]:
        """Return the cursors that belong to a connection."""
        with self._database.reading() as session:
            rows = session.scalars(select(CursorRow).where(CursorRow.connection_key == connection))
            return {row.name: row.value for row in rows}

    def set(self, name: str, value: Any, *, connection: str | None = None) -> None:
        """Store a value (JSON: no instants, no decimals).

        Args:
            name: any name, at most 255 characters.
            value: what `get` returns from now on; not None.
            connection: the connection the cursor belongs to: it is removed with it, so that another account under
                the same name begins anew.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        with self._database.session() as session:
            # The row is kept from being removed before the cursor that refers to it is committed.
            lock = {"read": True, "key_share": True}
            if connection is not None and session.get(ConnectionRow, connection, with_for_update=lock) is None:
                raise UnknownConnectionError(f"there is no connection called {connection!r}")
            row = {"name": name, "connection_key": connection, "value": value, "updated_at": datetime.now(UTC)}
            self._database.upsert(session, CursorRow, [row])

    def delete(self, name: str) -> None:
        """Forget a cursor; nothing happens when there is none."""
        with self._database.session() as session:
            session.execute(delete(CursorRow).where(CursorRow.name == name))
