"""Effects are sent from SQLite and from PostgreSQL: what must not be sent twice is a matter of their locks."""

from flux_pipelines_tests.state.conftest import (  # noqa: F401 - fixtures
    database_url,
    migrated_postgres,
    migrated_sqlite,
    sqlite_url,
)
