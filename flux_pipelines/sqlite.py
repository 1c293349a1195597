"""What every SQLite file of the project needs that several processes write to."""

from __future__ import annotations

import sqlite3
import time


def keep_write_ahead_log(connection: sqlite3.Connection, *, wait: float) -> None:
    """Let readers go on while one process writes: the file keeps a write-ahead log from then on.

    Args:
        connection: an open file, outside any transaction.
        wait: seconds in which others that switch the same file have to be done.

    Raises:
        sqlite3.OperationalError: they were not, or the file cannot be written.

    """
    deadline = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Another one is switching the same new file: SQLite answers `locked` at once, whatever its busy timeout.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
