"""Small shared state with a clock: what limiter and breaker keep so that all processes of an account act as one.

A store holds named byte strings and changes several of them in one transaction, against one clock that every process
sees alike. What the bytes mean is the business of `limits.py` and `breaker.py`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from flux_pipelines.domain.errors import ConfigurationError, StorageFullError
from flux_pipelines.sqlite import keep_write_ahead_log

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

Change = Callable[[float, list[bytes]], tuple[list[bytes] | None, T]]
"""Given the store's clock in seconds and the present values (b"" when new), return the new values or None, and a result.

The clock may start anew after a reboot; it never runs fast. A change is called again when its transaction is repeated.
"""


class StateStore(Protocol):
    """Named values that all processes change together.

    `clock_is_remote` tells that the clock is another machine's: by the time it is known here, some time has passed.
    """

    clock_is_remote: bool

    def update(self, names: Sequence[str], change: Change[T]) -> T:
        """Apply `change` to the named values in one transaction and return its result. Names must be distinct."""

    def close(self) -> None:
        """Release connections. The store may be used again; it then reconnects."""


class SqliteLimitStore:
    """A store in one SQLite file, for all processes of one machine.

    The clock is the machine's monotonic one: shared by its processes and never set back by time synchronisation.

    Args:
        path: the file, made when missing. Keep it apart from the state database: it is written at every request.
        clock: seconds, the same for every process that uses the file.

    """

    clock_is_remote = False
    _BUSY_SECONDS = 60.0

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        # SQLite wakes waiting writers in no order, so threads of one process would starve those of another: a
        # process therefore sends one writer at a time.
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0

    def update(self, names: Sequence[str], change: Change[T]) -> T:
        """Apply `change` to the named values in one transaction and return its result.

        Raises:
            StorageFullError: the disk is full.
            ConfigurationError: the file is damaged or cannot be written.

        """
        try:
            with self._mutex:
                return self._update(self._connect(), names, change)
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    def _update(self, connection: sqlite3.Connection, names: Sequence[str], change: Change[T]) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            marks = ",".join("?" * len(names))
            found = dict(connection.execute(f"SELECT name, value FROM state WHERE name IN ({marks})", names).fetchall())
            # Read after the lock is held: a time from before waiting for it would lie in the past.
            values, result = change(self._clock(), [found.get(name, b"") for name in names])
            if values is not None:
                connection.executemany(
                    "INSERT INTO state (name, value) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    zip(names, values, strict=True),
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _connect(self) -> sqlite3.Connection:
        # A connection must not cross a fork: SQLite's file locks belong to the process that took them.
        if self._connection is None or self._owner != os.getpid():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path, timeout=self._BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            keep_write_ahead_log(connection, wait=self._BUSY_SECONDS)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL)")
            self._connection, self._owner = connection, os.getpid()
        return self._connection

    def _explain(self, error: sqlite3.Error) -> StorageFullError | ConfigurationError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return StorageFullError(f"no space left for the rate limiter's file {self._path.name}")
        return ConfigurationError(
            f"the rate limiter's file {self._path} cannot be used: {error}",
            next_step="Make its folder writable; if the file is damaged, delete it: it holds nothing older than a "
            "rate limit's window.",
        )


class PostgresLimitStore:
    """A store in a PostgreSQL table, for processes on many hosts. The clock is the server's.

    Args:
        url: an SQLAlchemy URL; the table `flux_transport_state` is made when missing.

    """

    clock_is_remote = True
    _LOCK = 0x666C7578  # an advisory lock of ours, so that two processes do not create the table at once

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None
        self._owner = 0
        self._mutex = threading.Lock()

    def update(self, names: Sequence[str], change: Change[T]) -> T:
        """Apply `change` to the named values in one transaction and return its result.

        Raises:
            ConfigurationError: the database cannot be used.

        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            engine = self._connect()
            while True:
                with engine.begin() as connection:
                    done, result = self._update(connection, names, change)
                if done:
                    return result[0]
                # Made in a transaction of its own: inserting while holding locks would take them out of order, and
                # two processes could wait for each other.
                with engine.begin() as connection:
                    self._create(connection, names)
        except SQLAlchemyError as error:
            raise ConfigurationError(
                f"the rate limiter's database cannot be used: {type(getattr(error, 'orig', None) or error).__name__}",
                next_step="Check that the database in FLUX_DATABASE_URL is up and may be written to.",
                rerun_helps=True,
            ) from None

    def close(self) -> None:
        """Close the connections."""
        with self._mutex:
            if self._engine is not None and self._owner == os.getpid():
                self._engine.dispose()
            self._engine = None

    @staticmethod
    def _update(connection: Connection, names: Sequence[str], change: Change[T]) -> tuple[bool, list[T]]:
        from sqlalchemy import text

        # Rows are locked in the order of their names, whatever order the caller has them in: no deadlocks. The clock is
        # outside the locking subquery, so that it is read after the locks are held.
        rows = connection.execute(
            text(
                "SELECT name, value, extract(epoch FROM clock_timestamp())::float8 FROM ("
                "SELECT name, value FROM flux_transport_state WHERE name = ANY(:names) ORDER BY name FOR UPDATE) locked"
            ),
            {"names": list(names)},
        ).all()
        if len(rows) < len(names):
            return False, []
        found = {name: bytes(value) for name, value, _ in rows}
        values, result = change(max(now for *_, now in rows), [found[name] for name in names])
        if values is not None:
            connection.execute(
                text("UPDATE flux_transport_state SET value = :value WHERE name = :name"),
                [{"name": name, "value": value} for name, value in zip(names, values, strict=True)],
            )
        return True, [result]

    @staticmethod
    def _create(connection: Connection, names: Sequence[str]) -> None:
        from sqlalchemy import text

        connection.execute(
            text("INSERT INTO flux_transport_state (name, value) VALUES (:name, '') ON CONFLICT (name) DO NOTHING"),
            [{"name": name} for name in sorted(names)],
        )

    def _connect(self) -> Engine:
        with self._mutex:
            if self._engine is None or self._owner != os.getpid():
                from sqlalchemy import create_engine, text

                engine = create_engine(
                    self._url,
                    pool_size=4,
                    max_overflow=12,
                    pool_pre_ping=True,
                    # Losing the last half second of grants in a crash of the database is no harm; waiting for its
                    # disk at every request would be.
                    connect_args={"options": "-c synchronous_commit=off"},
                )
                with engine.begin() as connection:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": self._LOCK})
                    connection.execute(
                        text(
                            "CREATE TABLE IF NOT EXISTS flux_transport_state "
                            "(name text PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 50)"
                        )
                    )
                self._engine, self._owner = engine, os.getpid()
            return self._engine
