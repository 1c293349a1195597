"""The tables of the state database. `migrations/` makes them; a test holds the two equal."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant. SQLite has no zones: it holds the UTC wall clock, which also sorts as text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC on the way in; a naive datetime is a defect of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant must carry its time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give an aware UTC datetime on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: SQLite fills only an INTEGER primary key by itself.
_Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Common base of every table."""


def _owner() -> Mapped[str]:
    return mapped_column(String(96), ForeignKey("connections.key", ondelete="CASCADE"), primary_key=True)


class ConnectionRow(Base):
    """One authorised account at one provider."""

    __tablename__ = "connections"

    key: Mapped[str] = mapped_column(String(96), primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    account_id: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    status_reason: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)


class CredentialRow(Base):
    """One secret of a connection, encrypted. `key_id` names the key that encrypted it."""

    __tablename__ = "credentials"

    connection_key: Mapped[str] = _owner()
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16))
    updated_at: Mapped[datetime] = mapped_column(Instant)


class TokenLeaseRow(Base):
    """Who is refreshing a connection's token now, until when, and how the last attempt failed."""

    __tablename__ = "token_leases"

    connection_key: Mapped[str] = _owner()
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(Instant)
    failed_at: Mapped[datetime | None] = mapped_column(Instant)
    failure_kind: Mapped[str] = mapped_column(String(64))
    failure: Mapped[str] = mapped_column(Text)


class LocationRow(Base):
    """A store of a connection, as the provider last described it."""

    __tablename__ = "locations"

    connection_key: Mapped[str] = _owner()
    location_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    timezone: Mapped[str] = mapped_column(String(64))
    currency: Mapped[str] = mapped_column(String(8))
    active: Mapped[bool] = mapped_column(Boolean)
    seen_at: Mapped[datetime] = mapped_column(Instant)


class LocationCalendarRow(Base):
    """From which business date on a store has had which zone and cut-off hour."""

    __tablename__ = "location_calendars"

    connection_key: Mapped[str] = _owner()
    location_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    valid_from: Mapped[date] = mapped_column(Date, primary_key=True)
    timezone: Mapped[str] = mapped_column(String(64))
    cutoff_hour: Mapped[int] = mapped_column(Integer)


class AuditRow(Base):
    """One call to a provider."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_at", "at"), Index("ix_audit_connection_at", "connection", "at"))

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(Instant)
    provider: Mapped[str] = mapped_column(String(32))
    connection: Mapped[str] = mapped_column(String(96))
    method: Mapped[str] = mapped_column(String(8))
    url: Mapped[str] = mapped_column(Text)
    status: Mapped[int | None] = mapped_column(Integer)
    seconds: Mapped[float] = mapped_column(Float)
    attempt: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(BigInteger)
    waited: Mapped[float] = mapped_column(Float)
    error: Mapped[str | None] = mapped_column(Text)


class SecretUseRow(Base):
    """One reading of the secrets of a connection, or of an app (`apps/square`): which, for what, by whom."""

    __tablename__ = "secret_uses"
    __table_args__ = (Index("ix_secret_uses_at", "at"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(Instant)
    connection_key: Mapped[str] = mapped_column(String(96))
    names: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(Text)
    process: Mapped[str] = mapped_column(Text)


class SyncRow(Base):
    """One asked-for sync, so that the same command given again after a crash goes on where it stopped."""

    __tablename__ = "syncs"
    __table_args__ = (Index("ix_syncs_arguments", "arguments", "started_at"),)

    token: Mapped[str] = mapped_column(String(32), primary_key=True)
    arguments: Mapped[str] = mapped_column(String(64))
    provider: Mapped[str] = mapped_column(String(32))
    connections: Mapped[list[str]] = mapped_column(JSON)
    first_day: Mapped[date] = mapped_column(Date)
    last_day: Mapped[date] = mapped_column(Date)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)


class CursorRow(Base):
    """How far a sensor has read. One that belongs to a connection goes with it."""

    __tablename__ = "cursors"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    connection_key: Mapped[str | None] = mapped_column(String(96), ForeignKey("connections.key", ondelete="CASCADE"))
    value: Mapped[Any] = mapped_column(JSON)
    updated_at: Mapped[datetime] = mapped_column(Instant)


class AppRow(Base):
    """Flux's own registration at a provider or identity provider."""

    __tablename__ = "apps"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[datetime] = mapped_column(Instant)


class AppSecretRow(Base):
    """One secret of an app, encrypted."""

    __tablename__ = "app_secrets"

    app_name: Mapped[str] = mapped_column(String(64), ForeignKey("apps.name", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16))
    updated_at: Mapped[datetime] = mapped_column(Instant)


class AuthorizationRow(Base):
    """One round trip of a browser to a provider and back. Its payload is encrypted, and emptied once it was used."""

    __tablename__ = "authorizations"
    __table_args__ = (Index("ix_authorizations_expires_at", "expires_at"),)

    state_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    provider: Mapped[str] = mapped_column(String(32))
    session_hash: Mapped[str] = mapped_column(String(64))
    ciphertext: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant)
    used_at: Mapped[datetime | None] = mapped_column(Instant)


class SessionRow(Base):
    """A person who is signed in with one browser. `id` is the hash of what the browser holds."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_subject", "subject"), Index("ix_sessions_expires_at", "expires_at"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255))
    email: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    signed_in_at: Mapped[datetime] = mapped_column(Instant)
    last_seen_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant)


class ApiTokenRow(Base):
    """A machine's way in; the token itself is not kept, only its hash."""

    __tablename__ = "api_tokens"
    __table_args__ = (Index("ix_api_tokens_token_hash", "token_hash", unique=True),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(Text)
    token_hash: Mapped[str] = mapped_column(String(64))
    prefix: Mapped[str] = mapped_column(String(16))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)


class InboxRow(Base):
    """One verified event of a provider. No reference to a connection: an event must never be refused for one."""

    __tablename__ = "inbox"
    __table_args__ = (
        Index("ix_inbox_event", "provider", "event_id", unique=True),
        Index("ix_inbox_status", "status", "provider", "id"),
        Index(
            "ix_inbox_batch",
            "batch",
            sqlite_where=text("batch IS NOT NULL"),
            postgresql_where=text("batch IS NOT NULL"),
        ),
        Index(
            "ix_inbox_connection",
            "connection_key",
            "received_at",
            sqlite_where=text("connection_key IS NOT NULL"),
            postgresql_where=text("connection_key IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    provider: Mapped[str] = mapped_column(String(32))
    event_id: Mapped[str] = mapped_column(String(255))
    event_type: Mapped[str] = mapped_column(String(255))
    account_id: Mapped[str] = mapped_column(String(255))
    connection_key: Mapped[str | None] = mapped_column(String(96))
    occurred_at: Mapped[datetime | None] = mapped_column(Instant)
    received_at: Mapped[datetime] = mapped_column(Instant)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[str] = mapped_column(String(16))
    batch: Mapped[str | None] = mapped_column(String(64))
    assigned_at: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    reason: Mapped[str] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)


class SyncRequestRow(Base):
    """A sync that a person asked for."""

    __tablename__ = "sync_requests"
    __table_args__ = (
        Index("ix_sync_requests_status", "status", "id"),
        Index("ix_sync_requests_connection", "connection_key", "id"),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    connection_key: Mapped[str] = mapped_column(String(96), ForeignKey("connections.key", ondelete="CASCADE"))
    first_day: Mapped[date] = mapped_column(Date)
    last_day: Mapped[date] = mapped_column(Date)
    asked_by: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    run_key: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    asked_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)


class OutboxRow(Base):
    """An effect on another system: what is to stand there, what stands there, and what is being done about it.

    `version`, `sending_version` and `sent_version` (0: none) are those of `outbox_payloads`. `hold` is why the newest one
    must wait, whatever is being done about the one before.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_key", "key", unique=True),
        Index("ix_outbox_status", "connection_key", "status", "id"),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(255))
    # No foreign key: what was written elsewhere stays known when its connection is removed.
    connection_key: Mapped[str] = mapped_column(String(96))
    kind: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    hold: Mapped[str] = mapped_column(Text)
    held_by: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    sending_version: Mapped[int] = mapped_column(Integer)
    sent_version: Mapped[int] = mapped_column(Integer)
    holder: Mapped[str] = mapped_column(String(64))
    remote_id: Mapped[str] = mapped_column(Text)
    remote_version: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    sent_at: Mapped[datetime | None] = mapped_column(Instant)


class OutboxPayloadRow(Base):
    """One version of what an effect is to write. It never changes."""

    __tablename__ = "outbox_payloads"

    outbox_id: Mapped[int] = mapped_column(_Id, ForeignKey("outbox.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    payload: Mapped[str] = mapped_column(Text)
    payload_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Instant)


class OutboxSenderRow(Base):
    """Who sends a connection's effects now, and until when."""

    __tablename__ = "outbox_senders"

    connection_key: Mapped[str] = mapped_column(String(96), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(Instant)


class AlertRow(Base):
    """Something that people should see. At most one of a kind and connection is open."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "ix_alerts_open",
            "kind",
            "connection_key",
            unique=True,
            sqlite_where=text("resolved_at IS NULL"),
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("ix_alerts_resolved_at", "resolved_at"),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(32))
    connection_key: Mapped[str] = mapped_column(String(96))  # empty: of no connection
    message: Mapped[str] = mapped_column(Text)
    raised_at: Mapped[datetime] = mapped_column(Instant)
    acknowledged_at: Mapped[datetime | None] = mapped_column(Instant)
    acknowledged_by: Mapped[str] = mapped_column(Text)
    resolved_at: Mapped[datetime | None] = mapped_column(Instant)


class MappingRow(Base):
    """What a person has said about a product or a location: that it is the thing of that name, or that it is not."""

    __tablename__ = "mapping_decisions"
    __table_args__ = (
        Index("ix_mapping_decisions_thing", "kind", "connection_key", "external_id", "name", unique=True),
        Index("ix_mapping_decisions_decided_at", "decided_at"),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(16))  # product or store
    connection_key: Mapped[str] = mapped_column(String(96))  # also of connections that are no more: their history stays
    external_id: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(255))
    verdict: Mapped[str] = mapped_column(String(16))  # same, different or undone
    decided_by: Mapped[str] = mapped_column(Text)
    decided_at: Mapped[datetime] = mapped_column(Instant)


class InstallationSecretRow(Base):
    """One secret of the installation itself, encrypted. Made once, and never replaced."""

    __tablename__ = "installation_secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(Instant)


class ErasureRow(Base):
    """One request to forget somebody, and what was done. It says nothing of who that was.

    No reference to a connection: the proof outlives it.
    """

    __tablename__ = "erasures"
    __table_args__ = (Index("ix_erasures_connection", "connection_key", "id"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    connection_key: Mapped[str] = mapped_column(String(96))
    asked_by: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
    everything: Mapped[bool] = mapped_column(Boolean)
    customers: Mapped[int] = mapped_column(Integer)
    orders: Mapped[int] = mapped_column(Integer)
    texts: Mapped[int] = mapped_column(Integer)
    began_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    partitions: Mapped[int] = mapped_column(Integer)
    records: Mapped[int] = mapped_column(Integer)
    quarantined: Mapped[int] = mapped_column(Integer)
    events: Mapped[int] = mapped_column(Integer)
