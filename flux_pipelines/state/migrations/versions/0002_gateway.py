"""The gateway's tables: apps, authorizations, sessions, API tokens, inbox, asked-for syncs, alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )
    op.create_table(
        "app_secrets",
        sa.Column("app_name", sa.String(64), sa.ForeignKey("apps.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )
    op.create_table(
        "authorizations",
        sa.Column("state_hash", sa.String(64), primary_key=True),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("session_hash", sa.String(64), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("used_at", INSTANT),
    )
    op.create_index("ix_authorizations_expires_at", "authorizations", ["expires_at"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("signed_in_at", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
    )
    op.create_index("ix_sessions_subject", "sessions", ["subject"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "api_tokens",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("last_used_at", INSTANT),
        sa.Column("revoked_at", INSTANT),
    )
    op.create_index("ix_api_tokens_token_hash", "api_tokens", ["token_hash"], unique=True)
    _inbox()
    op.create_table(
        "sync_requests",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column(
            "connection_key", sa.String(96), sa.ForeignKey("connections.key", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("run_key", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
    )
    op.create_index("ix_sync_requests_status", "sync_requests", ["status", "id"])
    op.create_index("ix_sync_requests_connection", "sync_requests", ["connection_key", "id"])
    op.create_table(
        "alerts",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("connection_key", sa.String(96), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("raised_at", INSTANT, nullable=False),
        sa.Column("acknowledged_at", INSTANT),
        sa.Column("acknowledged_by", sa.Text(), nullable=False),
        sa.Column("resolved_at", INSTANT),
    )
    open_ = sa.text("resolved_at IS NULL")
    op.create_index(
        "ix_alerts_open",
        "alerts",
        ["kind", "connection_key"],
        unique=True,
        sqlite_where=open_,
        postgresql_where=open_,
    )
    op.create_index("ix_alerts_resolved_at", "alerts", ["resolved_at"])
    # From now on an alert is opened by the change of status; these lost their authorisation before there were any.
    op.execute(
        "INSERT INTO alerts (kind, connection_key, message, raised_at, acknowledged_by) "
        "SELECT 'needs_reauth', key, "
        "'It is not read any more until somebody reconnects the account: ' || status_reason || '.', updated_at, '' "
        "FROM connections WHERE status = 'needs_reauth'"
    )


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("event_id", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("account_id", sa.String(255), nullable=False),
        sa.Column("connection_key", sa.String(96)),
        sa.Column("occurred_at", INSTANT),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("batch", sa.String(64)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", INSTANT),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("finished_at", INSTANT),
    )
    op.create_index("ix_inbox_event", "inbox", ["provider", "event_id"], unique=True)
    op.create_index("ix_inbox_status", "inbox", ["status", "provider", "id"])
    # Partial: an event costs these only once it is in a batch, or known to be a connection's.
    batched, connected = sa.text("batch IS NOT NULL"), sa.text("connection_key IS NOT NULL")
    op.create_index("ix_inbox_batch", "inbox", ["batch"], sqlite_where=batched, postgresql_where=batched)
    op.create_index(
        "ix_inbox_connection",
        "inbox",
        ["connection_key", "received_at"],
        sqlite_where=connected,
        postgresql_where=connected,
    )
