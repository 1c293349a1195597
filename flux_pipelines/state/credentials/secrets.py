"""The secrets of connections: encrypted at rest, and every reading leaves a trace."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from flux_pipelines.domain.errors import UnknownConnectionError
from flux_pipelines.state.audit.alerts import Alerts
from flux_pipelines.state.credentials.vault import Vault
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import (
    AppSecretRow,
    AuthorizationRow,
    ConnectionRow,
    CredentialRow,
    InstallationSecretRow,
    SecretUseRow,
)

#: The named lock between writing credentials (shared) and rotating keys (exclusive).
_KEYS_LOCK = "keys"

#: Every table that holds what the vault encrypted, and how an error names the owner of a row.
_ENCRYPTED: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (CredentialRow, lambda row: str(row.connection_key)),
    (AppSecretRow, lambda row: f"apps/{row.app_name}"),
    (AuthorizationRow, lambda row: f"authorizations/{row.provider}"),
    (InstallationSecretRow, lambda _: "installation"),
)


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One reading of secrets: which (names only), for what, by which process (`host:pid`), when (UTC).

    `connection` is whose: a connection's key, or `apps/<name>` for those of Flux's own registrations.
    """

    at: datetime
    connection: str
    names: tuple[str, ...]
    purpose: str
    process: str


class Secrets:
    """Stores and reads the secrets of connections."""

    def __init__(self, database: Database, vault: Vault, alerts: Alerts) -> None:
        self._database = database
        self.vault = vault
        self._alerts = alerts

    def put(self, connection_key: str, secrets: Mapping[str, str]) -> None:
        """Replace all secrets of a connection. One that needed to be reconnected is active again.

        Raises:
            UnknownConnectionError: there is no such connection.

        """
        with self._database.session() as session:
            self.hold_keys(session)
            row = session.get(ConnectionRow, connection_key, with_for_update=True)
            if row is None:
                raise UnknownConnectionError(f"there is no connection called {connection_key!r}")
            session.execute(delete(CredentialRow).where(CredentialRow.connection_key == connection_key))
            self.write(session, connection_key, secrets)
            if row.status == "needs_reauth":
                row.status, row.status_reason, row.updated_at = "active", "", datetime.now(UTC)
            self._alerts.resolve_within(session, connection_key, "needs_reauth", "consent_expiring")

    def get(self, connection_key: str, *, purpose: str) -> dict[str, str]:
        """Return the secrets of a connection (empty when it has none) and record the reading.

        Args:
            connection_key: whose.
            purpose: what they are read for, for the record (`refresh the token`).

        Raises:
            UnknownConnectionError: there is no such connection.
            DecryptionError: they were encrypted with a key that is not configured.

        """
        with self._database.session() as session:
            return self.read(session, connection_key, purpose)

    def delete(self, connection_key: str) -> None:
        """Delete all secrets of a connection; nothing happens when it has none."""
        with self._database.session() as session:
            self.hold_keys(session)
            self.forget(session, connection_key)

    def uses(self, connection_key: str | None = None, limit: int = 100) -> list[SecretUse]:
        """Return the latest readings, newest first."""
        query = select(SecretUseRow).order_by(SecretUseRow.id.desc()).limit(limit)
        if connection_key is not None:
            query = query.where(SecretUseRow.connection_key == connection_key)
        with self._database.reading() as session:
            return [
                SecretUse(row.at, row.connection_key, tuple(row.names.split(",")), row.purpose, row.process)
                for row in session.scalars(query)
            ]

    def expiries(self) -> dict[str, dict[str, datetime]]:
        """Return when what is stored expires, by connection and name (`expires_at`, `refresh_token_expires_at` ...).

        A connection whose credentials do not expire has none. No secret is read for it, so that nothing is recorded.

        Raises:
            DecryptionError: it was encrypted with a key that is not configured.

        """
        query = select(CredentialRow.connection_key, CredentialRow.name, CredentialRow.ciphertext).where(
            CredentialRow.name.endswith("expires_at")
        )
        with self._database.reading() as session:
            rows = session.execute(query).all()
        found: dict[str, dict[str, datetime]] = {}
        for key, name, ciphertext in rows:
            with suppress(ValueError):  # one that is not an instant is the token manager's to complain about
                moment = datetime.fromisoformat(self.vault.decrypt(ciphertext, connection=key))
                if moment.tzinfo is not None:
                    found.setdefault(key, {})[name] = moment
        return found

    def names(self) -> dict[str, frozenset[str]]:
        """Return the names of what is stored for each connection. No secret is read for it."""
        found: dict[str, set[str]] = {}
        with self._database.reading() as session:
            for key, name in session.execute(select(CredentialRow.connection_key, CredentialRow.name)):
                found.setdefault(key, set()).add(name)
        return {key: frozenset(names) for key, names in found.items()}

    def read(self, session: Session, connection_key: str, purpose: str) -> dict[str, str]:
        """Do what `get` does, inside the caller's transaction."""
        if session.get(ConnectionRow, connection_key) is None:
            raise UnknownConnectionError(f"there is no connection called {connection_key!r}")
        rows = session.execute(
            select(CredentialRow.name, CredentialRow.ciphertext)
            .where(CredentialRow.connection_key == connection_key)
            .order_by(CredentialRow.name)
        ).all()
        if rows:
            self.trace(session, connection_key, [name for name, _ in rows], purpose)
        return {name: self.vault.decrypt(ciphertext, connection=connection_key) for name, ciphertext in rows}

    def trace(self, session: Session, owner: str, names: Sequence[str], purpose: str) -> None:
        """Record a reading of secrets, inside the caller's transaction. `owner` is a connection, or `apps/<name>`."""
        session.add(
            SecretUseRow(
                at=datetime.now(UTC),
                connection_key=owner,
                names=",".join(names),
                purpose=purpose,
                process=f"{socket.gethostname()}:{os.getpid()}",
            )
        )

    def write(self, session: Session, connection_key: str, changes: Mapping[str, str | None]) -> datetime:
        """Store some secrets beside the others, inside the caller's transaction; None deletes one.

        Returns:
            The instant recorded as their `updated_at`.

        """
        # Encrypted inside the transaction and under the lock: a key cannot be dropped between the two.
        self.hold_keys(session)
        now = datetime.now(UTC)
        gone = [name for name, value in changes.items() if value is None]
        if gone:
            session.execute(
                delete(CredentialRow).where(
                    CredentialRow.connection_key == connection_key, CredentialRow.name.in_(gone)
                )
            )
        rows = []
        for name, value in changes.items():
            if value is not None:
                ciphertext, key_id = self.vault.encrypt(value)
                rows.append(
                    {
                        "connection_key": connection_key,
                        "name": name,
                        "ciphertext": ciphertext,
                        "key_id": key_id,
                        "updated_at": now,
                    }
                )
        self._database.upsert(session, CredentialRow, rows)
        return now

    def forget(self, session: Session, connection_key: str) -> None:
        """Do what `delete` does, inside the caller's transaction."""
        session.execute(delete(CredentialRow).where(CredentialRow.connection_key == connection_key))

    def hold_keys(self, session: Session) -> None:
        """Keep keys from being rotated until the transaction ends.

        A transaction that locks other rows too does this first: a rotation may be waiting for those rows.
        """
        self._database.lock(session, _KEYS_LOCK, shared=True)

    # --- key rotation ---

    def add_key(self) -> None:
        """Put a new key in front of the key file, if the keys come from one."""
        if self.vault.key_file is not None:
            with self._database.session() as session:
                self._database.lock(session, _KEYS_LOCK)
                self.vault.add_key()

    def reencrypt(self) -> int:
        """Encrypt with the newest key every secret that is not yet; return how many. All or none.

        Raises:
            DecryptionError: one cannot be decrypted; it names the connection, and nothing is changed.

        """
        with self._database.session() as session:
            self._database.lock(session, _KEYS_LOCK)
            newest = self.vault.key_ids[0]
            # The payload of a round trip that is over is of no use to anybody.
            session.execute(
                update(AuthorizationRow)
                .where(AuthorizationRow.expires_at < datetime.now(UTC), AuthorizationRow.ciphertext != "")
                .values(ciphertext="")
            )
            count = 0
            for model, owner in _ENCRYPTED:
                old = select(model).where(model.key_id != newest, model.ciphertext != "").with_for_update()
                for row in session.scalars(old):
                    plain = self.vault.decrypt(row.ciphertext, connection=owner(row))
                    row.ciphertext, row.key_id = self.vault.encrypt(plain)
                    count += 1
            return count

    def drop_old_keys(self) -> int:
        """Leave only the newest key in the key file, once nothing needs the others; return how many were dropped.

        Raises:
            ConfigurationError: the keys come from the environment.
            DecryptionError: a secret cannot be decrypted with any key; nothing is dropped.

        """
        # Two transactions: what was encrypted anew must be committed before the old key is gone.
        self.reencrypt()
        with self._database.session() as session:
            self._database.lock(session, _KEYS_LOCK)
            newest = self.vault.key_ids[0]
            left = [
                session.scalars(
                    select(model.key_id).where(model.key_id != newest, model.ciphertext != "").limit(1)
                ).first()
                for model, _ in _ENCRYPTED
            ]
            if left == [None] * len(_ENCRYPTED):
                return self.vault.keep_only_newest()
        # A writer slipped in between with an older key: once more.
        return self.drop_old_keys()
