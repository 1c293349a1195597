"""Connections, credentials, leases, locations, audit, syncs and cursors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def owner() -> sa.Column[str]:
    return sa.Column(
        "connection_key", sa.String(96), sa.ForeignKey("connections.key", ondelete="CASCADE"), primary_key=True
    )


def upgrade() -> None:
    op.create_table(
        "connections",
        sa.Column("key", sa.String(96), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )
    op.create_table(
        "credentials",
        owner(),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )
    op.create_table(
        "token_leases",
        owner(),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("failed_at", INSTANT),
        sa.Column("failure_kind", sa.String(64), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
    )
    op.create_table(
        "locations",
        owner(),
        sa.Column("location_id", sa.String(128), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("connection", sa.String(96), nullable=False),
        sa.Column("method", sa.String(8), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("waited", sa.Float(), nullable=False),
        sa.Column("error", sa.Text()),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_connection_at", "audit", ["connection", "at"])
    op.create_table(
        "secret_uses",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("connection_key", sa.String(96), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
    )
    op.create_index("ix_secret_uses_at", "secret_uses", ["at"])
    op.create_table(
        "syncs",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("arguments", sa.String(64), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("connections", sa.JSON(), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
    )
    op.create_index("ix_syncs_arguments", "syncs", ["arguments", "started_at"])
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("connection_key", sa.String(96), sa.ForeignKey("connections.key", ondelete="CASCADE")),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )
