"""The connections: which accounts are authorised, for whom, in what state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from flux_pipelines.domain.connection import Connection, Status, split_key
from flux_pipelines.domain.errors import ConfigurationError, UnknownConnectionError, did_you_mean
from flux_pipelines.state.audit.alerts import Alerts
from flux_pipelines.state.credentials.secrets import Secrets
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import ConnectionRow, InboxRow
from flux_pipelines.state.syncs.syncs import Syncs


def require(session: Session, key: str) -> ConnectionRow:
    """Return the row of a connection and keep it from being removed until the transaction ends.

    Raises:
        UnknownConnectionError: there is none of that name.

    """
    row = session.get(ConnectionRow, key, with_for_update={"read": True, "key_share": True})
    if row is None:
        raise UnknownConnectionError(f"there is no connection called {key!r}")
    return row


class Connections:
    """Adds, finds, changes and removes connections."""

    def __init__(self, database: Database, secrets: Secrets, syncs: Syncs, alerts: Alerts) -> None:
        self._database = database
        self._secrets = secrets
        self._syncs = syncs
        self._alerts = alerts

    def add(self, connection: Connection, secrets: Mapping[str, str] | None = None) -> Connection:
        """Add a connection together with its secrets: both are there, or neither.

        Args:
            connection: its settings must have been checked by the caller.
            secrets: see `Secrets.put`.

        Raises:
            ConfigurationError: the name has not the form `provider:name`, or is taken.

        """
        split_key(connection.key)
        _check_status(connection.status)
        now = datetime.now(UTC)
        row = ConnectionRow(
            key=connection.key,
            tenant=connection.tenant,
            account_id=connection.account_id,
            status=connection.status,
            status_reason=connection.status_reason,
            settings=dict(connection.settings),
            created_at=now,
            updated_at=now,
        )
        try:
            with self._database.session() as session:
                session.add(row)
                session.flush()
                if secrets:
                    self._secrets.write(session, connection.key, secrets)
        except IntegrityError:
            raise ConfigurationError(
                "a connection of that name exists already",
                connection=connection.key,
                next_step=f"Choose another name, or first run `flux connections remove {connection.key}`.",
            ) from None
        return connection

    def get(self, key: str) -> Connection:
        """Return one connection.

        Raises:
            UnknownConnectionError: there is none of that name.

        """
        with self._database.reading() as session:
            row = session.get(ConnectionRow, key)
            if row is None:
                meant = did_you_mean(key, session.scalars(select(ConnectionRow.key)))
                raise UnknownConnectionError(
                    f"there is no connection called {key!r}",
                    next_step=f"{meant}{UnknownConnectionError.default_next_step}",
                )
            return _connection(row)

    def list(self, provider: str | None = None, active_only: bool = False) -> list[Connection]:
        """Return the connections by name: all, one provider's, or those with status `active`."""
        query = select(ConnectionRow).order_by(ConnectionRow.key)
        if provider is not None:
            query = query.where(ConnectionRow.key.startswith(f"{provider}:", autoescape=True))
        if active_only:
            query = query.where(ConnectionRow.status == "active")
        with self._database.reading() as session:
            return [_connection(row) for row in session.scalars(query)]

    def set_status(self, key: str, status: Status, reason: str = "") -> Connection:
        """Change the status and its reason (one plain sentence for people).

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        _check_status(status)
        with self._database.session() as session:
            row = require(session, key)
            row.status, row.status_reason, row.updated_at = status, reason, datetime.now(UTC)
            self._alerts.follow_status(session, key, status, reason)
            return _connection(row)

    def disconnect(self, key: str, reason: str) -> Connection:
        """Forget a connection's credentials and say why it has none; its locations and history stay.

        Its unfinished syncs end too: whoever connects it again chooses anew what to fetch.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        with self._database.session() as session:
            self._secrets.hold_keys(session)
            row = require(session, key)
            row.status, row.status_reason, row.updated_at = "disconnected", reason, datetime.now(UTC)
            self._secrets.forget(session, key)
            self._syncs.abandon(session, key)
            self._alerts.follow_status(session, key, "disconnected", reason)
            return _connection(row)

    def update_settings(self, key: str, changes: Mapping[str, Any]) -> Connection:
        """Change some settings; None takes one back to its default. The caller has checked them.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        with self._database.session() as session:
            row = session.get(ConnectionRow, key, with_for_update=True)
            if row is None:
                raise UnknownConnectionError(f"there is no connection called {key!r}")
            merged = {**row.settings, **changes}
            row.settings = {name: value for name, value in merged.items() if value is not None}
            row.updated_at = datetime.now(UTC)
            return _connection(row)

    def set_account(self, key: str, account_id: str) -> Connection:
        """Record the account's id at the provider, once it is known.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        with self._database.session() as session:
            row = require(session, key)
            row.account_id, row.updated_at = account_id, datetime.now(UTC)
            return _connection(row)

    def remove(self, key: str) -> None:
        """Remove a connection with its credentials, lease, locations and cursors; what it landed stays in the lake.

        Its unfinished syncs end too, its alerts are closed and events forget whose they were: a later account of the
        same name must not go on where this one stopped.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        with self._database.session() as session:
            self._secrets.hold_keys(session)
            found = session.execute(delete(ConnectionRow).where(ConnectionRow.key == key).returning(ConnectionRow.key))
            if found.first() is None:
                raise UnknownConnectionError(f"there is no connection called {key!r}")
            self._syncs.abandon(session, key)
            self._alerts.resolve_within(session, key)
            session.execute(update(InboxRow).where(InboxRow.connection_key == key).values(connection_key=None))


def _check_status(status: str) -> None:
    if status not in get_args(Status):
        raise ConfigurationError(
            f"{status!r} is not a connection status", next_step=f"Known: {', '.join(get_args(Status))}."
        )


def _connection(row: ConnectionRow) -> Connection:
    return Connection(
        key=row.key,
        tenant=row.tenant,
        account_id=row.account_id,
        status=row.status,  # type: ignore[arg-type]  # only `_check_status`ed values are ever stored
        status_reason=row.status_reason,
        settings=dict(row.settings),
    )
