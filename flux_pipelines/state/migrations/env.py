"""Run by Alembic, on the connection and inside the transaction that `Database.migrate()` holds."""

from alembic import context

from flux_pipelines.state.migrations import VERSION_TABLE
from flux_pipelines.state.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # Both databases roll DDL back: a migration that dies half-way leaves nothing.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
