"""When the events of a batch were put into it; until now only the batch's name said so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from flux_pipelines.state.models import Instant

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("inbox", sa.Column("assigned_at", Instant()))
