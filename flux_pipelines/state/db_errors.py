"""Errors of database drivers and files, as ours: what happened, whether a rerun helps, what to do. Never a password."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from flux_pipelines.domain.errors import (
    ConfigurationError,
    FluxError,
    StateUnavailableError,
    StorageFullError,
    TableDamagedError,
)

_BACKUP_STEP = "Restore it from a backup, or move it away and connect the accounts again."


def translate_db_error(error: DBAPIError, url: URL, place: str) -> FluxError:
    """Return our error for one of the driver's; `place` is where the database is, fit for a message."""
    reason = _reason(error, url)
    if url.get_backend_name() == "sqlite":
        match _sqlite_code(error):
            case sqlite3.SQLITE_FULL:
                return StorageFullError(f"no space left for the state database {place}")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return TableDamagedError(f"the state database {place} is damaged ({reason})", next_step=_BACKUP_STEP)
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return ConfigurationError(
                    f"the state database {place} cannot be opened for writing ({reason})",
                    next_step="Give this user the right to write the file and its folder.",
                )
        return StateUnavailableError(f"the state database {place} cannot be used now ({reason})")
    code = str(getattr(error.orig, "pgcode", None) or "")
    if code == "53100":  # disk_full
        return StorageFullError(f"no space left for the state database {place}")
    if code in ("XX001", "XX002"):  # data_corrupted, index_corrupted
        return TableDamagedError(f"the state database {place} is damaged ({reason})", next_step=_BACKUP_STEP)
    refused = ("password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
    if code.startswith(("28", "3D", "42501")) or (not error.statement and any(r in reason for r in refused)):
        return ConfigurationError(
            f"the state database {place} refuses this user ({reason})",
            next_step="Correct user, password and database in FLUX_DATABASE_URL.",
        )
    return StateUnavailableError(f"the state database {place} cannot be used now ({reason})")


def _reason(error: DBAPIError, url: URL) -> str:
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    secrets = [url.password, *(v for k, v in url.query.items() if "pass" in k)]
    reason = lines[0]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            reason = reason.replace(secret, "***")
    return reason


def translate_os_error(error: OSError, what: str) -> FluxError:
    """Return our error for a file that cannot be read or written; `what` names it (`the key file ...`)."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(f"no space left for {what}")
    return ConfigurationError(
        f"{what} cannot be used ({error.strerror or error})",
        next_step="Give this user the right to read and write it, or set FLUX_HOME elsewhere.",
    )


def _sqlite_code(error: DBAPIError) -> int | None:
    # The low byte is the primary code; the rest refines it.
    code = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF
