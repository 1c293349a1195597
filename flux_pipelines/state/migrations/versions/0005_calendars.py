"""From which business date on a store has had which zone and cut-off hour; until now each had but one."""

from __future__ import annotations

import json
from datetime import date

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    made = op.create_table(
        "location_calendars",
        sa.Column(
            "connection_key", sa.String(96), sa.ForeignKey("connections.key", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("location_id", sa.String(128), primary_key=True),
        sa.Column("valid_from", sa.Date(), primary_key=True),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("cutoff_hour", sa.Integer(), nullable=False),
    )
    stores = sa.text(
        "SELECT l.connection_key, l.location_id, l.timezone, c.settings FROM locations AS l "
        "JOIN connections AS c ON c.key = l.connection_key"
    )
    rows = [
        {
            "connection_key": key,
            "location_id": location,
            "valid_from": date.min,
            "timezone": zone,
            "cutoff_hour": int((json.loads(settings) if isinstance(settings, str) else settings).get("cutoff_hour", 0)),
        }
        for key, location, zone, settings in op.get_bind().execute(stores).all()
    ]
    if rows:
        op.bulk_insert(made, rows)
