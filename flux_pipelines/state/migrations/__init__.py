"""Schema changes of the state database, in order. `Database.migrate()` runs them; nobody runs Alembic by hand."""

#: The newest revision: a database that has it needs no migration, and Alembic is not even imported.
HEAD = "0007"

#: A name of our own: Dagster keeps its `alembic_version` in the same database when the two share one.
VERSION_TABLE = "flux_state_version"
