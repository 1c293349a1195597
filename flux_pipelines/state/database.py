"""The state database itself: SQLite in one file by default, PostgreSQL by URL. Its own errors become ours here."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from flux_pipelines.domain.errors import (
    ConfigurationError,
    StateUnavailableError,
)
from flux_pipelines.sqlite import keep_write_ahead_log
from flux_pipelines.state.db_errors import translate_db_error, translate_os_error
from flux_pipelines.state.migrations import HEAD, VERSION_TABLE
from flux_pipelines.state.models import Base

T = TypeVar("T")

_WRITES = "flux_writes"
_URL_STEP = "Write FLUX_DATABASE_URL as sqlite:////path/state.db or postgresql://user:password@host/database."


def parse_url(url: str) -> URL:
    """Return the SQLAlchemy URL with the driver Flux is tested with.

    The driver is always written out: a bare `postgresql://` means psycopg 3 since SQLAlchemy 2.1.

    Raises:
        ConfigurationError: not a URL, not SQLite or PostgreSQL, or an in-memory SQLite database.

    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without `from`: the cause would repeat the URL, password and all.
        raise ConfigurationError("the database URL cannot be read", next_step=_URL_STEP) from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg2")
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:") or "mode=memory" in str(parsed.query):
            raise ConfigurationError("the state database must be a file: processes share it", next_step=_URL_STEP)
        return parsed.set(drivername="sqlite+pysqlite")
    raise ConfigurationError(f"the state database cannot be {backend!r}", next_step=_URL_STEP)


class Database:
    """A database and its schema.

    Args:
        url: `sqlite:///path` or `postgresql://...`.
        busy_timeout: seconds to wait for SQLite's write lock before giving up.

    Raises:
        ConfigurationError: see `parse_url`.

    """

    def __init__(self, url: str, *, busy_timeout: float = 30.0) -> None:
        self._url = parse_url(url)
        self._busy_timeout = busy_timeout
        self._pid = os.getpid()
        self._fork_guard = threading.Lock()
        self._reader = self._make_engine()
        self._writer = self._reader.execution_options(**{_WRITES: True})
        self._quick = self._make_engine(quick=True)
        self._quick_writer = self._quick.execution_options(**{_WRITES: True})

    def __repr__(self) -> str:
        return f"Database({self.place!r})"

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a SQLite file (one machine, one writer at a time)."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def place(self) -> str:
        """Where the database is, fit for a message: never user, password or query."""
        if self.is_sqlite:
            return str(self._url.database)
        port = f":{self._url.port}" if self._url.port else ""
        return f"postgresql://{self._url.host or ''}{port}/{self._url.database or ''}"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction that may write; it commits at the end of the block and rolls back on any exception.

        On SQLite it holds the one write lock from the start, so whatever it reads stays true until it commits.

        Raises:
            StateUnavailableError, StorageFullError, TableDamagedError, ConfigurationError: see `FluxError`.

        """
        self._after_fork()
        with self._translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            session.connection()
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that only reads; on SQLite it never waits for writers. Raises what `session` does."""
        self._after_fork()
        with self._translated(), Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction as `session` does, for statements without objects. Raises what `session` does."""
        self._after_fork()
        with self._translated(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def erasing(self) -> Iterator[Connection]:
        """Open a transaction as `writing` does; on SQLite the bytes that it replaces or deletes are overwritten."""
        with self.writing() as connection:
            if not self.is_sqlite:
                yield connection
                return
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("PRAGMA secure_delete=OFF")

    def forget_erased(self) -> None:
        """See that bytes which were overwritten are not in the write-ahead log either, where nobody is reading it.

        Else they go with the next checkpoint. PostgreSQL drops them with its own vacuum.
        """
        if self.is_sqlite:
            with self._translated(), self._reader.connect() as connection:
                driver = connection.connection.driver_connection
                assert driver is not None  # noqa: S101 - it was just opened
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def quickly(self, run: Callable[[Connection], T]) -> T:
        """Run one statement that may be run twice, at the least cost, and return what it gives. Raises what `session` does.

        On SQLite its commit survives the death of the process but does not wait for the disk: a power cut may undo it.
        On PostgreSQL it is as durable as any other, and one journey to the server: no transaction around it, and that
        the connection is still good shows when it is used.
        """
        self._after_fork()
        with self._translated():
            try:
                with self._quick_writer.begin() as connection:
                    return run(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            # The server was started anew since this connection was last used; the pool has let go of it.
            with self._quick_writer.begin() as connection:
                return run(connection)

    def now(self, session: Session) -> datetime:
        """Return the time by the clock that everybody who shares this database shares."""
        if self.is_sqlite:
            return datetime.now(UTC)
        moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def lock(self, session: Session, name: str, *, shared: bool = False) -> None:
        """Hold a named lock until the transaction ends. On SQLite the transaction's write lock is that lock."""
        if not self.is_sqlite:
            _advisory_lock(session.connection(), name, shared=shared)

    def upsert(self, session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or overwrite the non-key columns of those that exist already."""
        if not rows:
            return
        table = model.__table__
        key = [column.name for column in table.primary_key]
        names = [name for name in rows[0] if name not in key]
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            lite = sqlite_insert(model)
            session.execute(
                lite.on_conflict_do_update(index_elements=key, set_={n: lite.excluded[n] for n in names}), list(rows)
            )
        else:
            from sqlalchemy.dialects.postgresql import insert as postgres_insert

            pg = postgres_insert(model)
            session.execute(
                pg.on_conflict_do_update(index_elements=key, set_={n: pg.excluded[n] for n in names}), list(rows)
            )

    def migrate(self) -> None:
        """Bring the schema up to date; cheap when it is. Safe when several processes do it at once.

        Raises:
            ConfigurationError: the database was written by a newer Flux, cannot be opened, or is not ours.
            StateUnavailableError, StorageFullError, TableDamagedError: as their names say.

        """
        self._after_fork()
        with self._translated():
            if self.is_sqlite:
                self._prepare_file()
            with self._reader.begin() as connection:
                if self._revision(connection) == HEAD:
                    return
            with self._writer.begin() as connection:
                if not self.is_sqlite:
                    _advisory_lock(connection, "migrations")
                self._upgrade(connection)

    def close(self) -> None:
        """Close every pooled connection. The database may be used again afterwards."""
        self._reader.dispose()
        self._quick.dispose()

    # --- schema ---

    def _revision(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()

    def _upgrade(self, connection: Connection) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", "flux_pipelines.state:migrations")
        config.attributes["connection"] = connection
        current = self._revision(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise ConfigurationError(
                f"the state database at {self.place} was written by a newer version of Flux (schema {current})",
                next_step="Use that version, or point FLUX_DATABASE_URL (or FLUX_HOME) elsewhere.",
            )
        if current is None:
            foreign = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
            if foreign:
                raise ConfigurationError(
                    f"the database at {self.place} holds tables that Flux did not make: {', '.join(sorted(foreign))}",
                    next_step="Give Flux a database or a schema of its own in FLUX_DATABASE_URL.",
                )
        command.upgrade(config, "head")

    # --- SQLite's file ---

    def _prepare_file(self) -> None:
        path = Path(str(self._url.database))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made here and not by SQLite, so that it is never readable by others, not even for a moment. The
            # write-ahead log takes over the mode of the file.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise translate_os_error(error, f"the state database {path}") from error

    # --- engine ---

    def _make_engine(self, *, quick: bool = False) -> Engine:
        if self.is_sqlite:
            engine = create_engine(
                self._url,
                connect_args={"timeout": self._busy_timeout},
                hide_parameters=True,
                pool_size=5,
                max_overflow=45,
            )
            event.listen(engine, "connect", self._configure_sqlite)
            if quick:
                event.listen(engine, "connect", _do_not_wait_for_the_disk)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        defaults = {"connect_timeout": 10, "application_name": "flux"}
        return create_engine(
            self._url,
            connect_args={name: value for name, value in defaults.items() if name not in self._url.query},
            hide_parameters=True,
            pool_pre_ping=not quick,
            isolation_level="AUTOCOMMIT" if quick else None,
            pool_size=5,
            max_overflow=45,
        )

    def _configure_sqlite(self, connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not open transactions by itself: `_begin_sqlite` says which kind.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        # A rotated refresh token must survive a power cut from the moment it is committed.
        connection.execute("PRAGMA synchronous=FULL")
        keep_write_ahead_log(connection, wait=self._busy_timeout)

    def _after_fork(self) -> None:
        # A forked child must not talk over its parent's sockets and file locks; it lets go of them without closing.
        if self._pid != os.getpid():
            with self._fork_guard:
                if self._pid != os.getpid():
                    self._reader.dispose(close=False)
                    self._quick.dispose(close=False)
                    self._pid = os.getpid()

    # --- errors ---

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            # An error of connecting has no statement; its cause may repeat what the URL held.
            raise translate_db_error(error, self._url, self.place) from (error if error.statement else None)
        except PoolTimeoutError as error:
            raise StateUnavailableError(f"too many threads use the state database {self.place} at once") from error


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _do_not_wait_for_the_disk(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _advisory_lock(connection: Connection, name: str, *, shared: bool = False) -> None:
    number = int.from_bytes(hashlib.sha256(f"flux/{name}".encode()).digest()[:8], "big", signed=True)
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    connection.execute(text(f"SELECT {function}(:number)"), {"number": number})
