"""Secrets of the installation itself, which nobody chose: each is made when first asked for, and stays what it is."""

from __future__ import annotations

import base64
import secrets as randomness
import threading
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from flux_pipelines.state.credentials.secrets import Secrets
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import InstallationSecretRow

_BYTES = 32
#: The key of pseudonyms (`privacy.Pseudonyms`): equal persons have equal pseudonyms in everything stored under one key.
PSEUDONYMS = "pseudonyms"


class Installation:
    """Makes and keeps the installation's secrets. They are encrypted like all others, and rotating keys leaves them."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets
        self._known: dict[str, bytes] = {}
        self._mutex = threading.Lock()

    def secret(self, name: str, *, purpose: str) -> bytes:
        """Return a secret of 32 bytes; all processes get the same one, whoever made it.

        It is read once a process, and that reading is recorded (`Secrets.uses("installation")`).

        Raises:
            DecryptionError: it was encrypted with a key that is not configured. It is never made anew then.

        """
        with self._mutex:
            if name not in self._known:
                self._known[name] = self._read(name, purpose)
            return self._known[name]

    def _read(self, name: str, purpose: str) -> bytes:
        with self._database.session() as session:
            self._secrets.hold_keys(session)
            row = session.get(InstallationSecretRow, name)
            if row is None:
                self._make(session, name)
                row = session.execute(
                    select(InstallationSecretRow).where(InstallationSecretRow.name == name)
                ).scalar_one()
            self._secrets.trace(session, "installation", [name], purpose)
            return base64.b64decode(self._secrets.vault.decrypt(row.ciphertext, connection="installation"))

    def _make(self, session: Session, name: str) -> None:
        """Insert a new secret, unless another process was faster: then its secret stands."""
        ciphertext, key_id = self._secrets.vault.encrypt(base64.b64encode(randomness.token_bytes(_BYTES)).decode())
        values = {"name": name, "ciphertext": ciphertext, "key_id": key_id, "created_at": datetime.now(UTC)}
        table = cast(Table, InstallationSecretRow.__table__)
        statement: Any
        if self._database.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            statement = sqlite_insert(table).values(values).on_conflict_do_nothing()
        else:
            from sqlalchemy.dialects.postgresql import insert as postgres_insert

            statement = postgres_insert(table).values(values).on_conflict_do_nothing()
        session.execute(statement)
