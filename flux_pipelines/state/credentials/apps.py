"""Flux's own registrations (client id, secret, webhook key) at providers and identity providers, encrypted at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state.credentials.secrets import Secrets
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import AppRow, AppSecretRow


@dataclass(frozen=True, slots=True)
class App:
    """One registration. Its secrets are not part of it, only their names; `updated_at` changes whenever they do."""

    name: str
    settings: Mapping[str, Any]
    updated_at: datetime
    secret_names: tuple[str, ...] = field(default=())


class Apps:
    """Stores and reads the registrations; one for each provider or identity provider."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets

    def put(self, name: str, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> App:
        """Store a registration, replacing the one of that name whole. The caller has checked what is in it."""
        now = datetime.now(UTC)
        with self._database.session() as session:
            self._secrets.hold_keys(session)
            self._database.upsert(session, AppRow, [{"name": name, "settings": dict(settings), "updated_at": now}])
            session.execute(delete(AppSecretRow).where(AppSecretRow.app_name == name))
            rows = []
            for secret, value in secrets.items():
                ciphertext, key_id = self._secrets.vault.encrypt(value)
                rows.append(
                    {
                        "app_name": name,
                        "name": secret,
                        "ciphertext": ciphertext,
                        "key_id": key_id,
                        "updated_at": now,
                    }
                )
            self._database.upsert(session, AppSecretRow, rows)
        return App(name, dict(settings), now, tuple(sorted(secrets)))

    def get(self, name: str) -> App | None:
        """Return one registration, or None."""
        found = self._select(name)
        return found[0] if found else None

    def secrets(self, name: str, *, purpose: str) -> dict[str, str]:
        """Return the secrets of a registration and record the reading (`Secrets.uses("apps/<name>")`).

        Args:
            name: whose.
            purpose: what they are read for, for the record (`exchange an authorization code`).

        Raises:
            ConfigurationError: there is none of that name.
            DecryptionError: they were encrypted with a key that is not configured.

        """
        owner = f"apps/{name}"
        with self._database.session() as session:
            if session.get(AppRow, name) is None:
                raise ConfigurationError(
                    f"Flux is not registered at {name!r}", next_step=f"Run `flux apps set {name}` with its client id."
                )
            rows = session.execute(
                select(AppSecretRow.name, AppSecretRow.ciphertext)
                .where(AppSecretRow.app_name == name)
                .order_by(AppSecretRow.name)
            ).all()
            if rows:
                self._secrets.trace(session, owner, [row.name for row in rows], purpose)
            return {secret: self._secrets.vault.decrypt(text, connection=owner) for secret, text in rows}

    def remove(self, name: str) -> None:
        """Remove a registration with its secrets.

        Raises:
            ConfigurationError: there is none of that name.

        """
        with self._database.session() as session:
            self._secrets.hold_keys(session)
            if session.execute(delete(AppRow).where(AppRow.name == name).returning(AppRow.name)).first() is None:
                raise ConfigurationError(f"Flux is not registered at {name!r}", next_step="See `flux apps list`.")

    def _select(self, name: str | None) -> list[App]:
        query = select(AppRow).order_by(AppRow.name)
        names = select(AppSecretRow.app_name, AppSecretRow.name).order_by(AppSecretRow.name)
        if name is not None:
            query, names = query.where(AppRow.name == name), names.where(AppSecretRow.app_name == name)
        with self._database.reading() as session:
            held: dict[str, list[str]] = {}
            for app, secret in session.execute(names):
                held.setdefault(app, []).append(secret)
            return [
                App(row.name, dict(row.settings), row.updated_at, tuple(held.get(row.name, ())))
                for row in session.scalars(query)
            ]

    def list(self) -> list[App]:
        """Return every registration, by name."""
        return self._select(None)
