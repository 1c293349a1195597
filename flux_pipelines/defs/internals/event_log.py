"""Rewrites what Dagster's event log has recorded: for people who ask to be forgotten, whose names may stand in previews."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import dagster as dg

#: Events read at once.
_EVENTS = 2_000


def rewrite(instance: dg.DagsterInstance, change: Callable[[str], str | None]) -> int:
    """Write recorded events anew, and leave nothing of what they were in the database's files.

    Args:
        instance: whose events.
        change: given an event as recorded (JSON); returns what it shall be, or None if it may stay.

    Returns:
        how many were changed.

    """
    import sqlalchemy as sa
    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetKeyTable,
        SqlEventLogStorageTable,
    )

    storage = cast(SqlEventLogStorage, instance.event_log_storage)
    count = 0
    kept = (
        (SqlEventLogStorageTable, "event"),
        (AssetKeyTable, "last_materialization"),
        (AssetCheckExecutionsTable, "evaluation_event"),
    )
    for table, column in kept:
        after = 0
        while True:
            query = sa.select(table.c.id, table.c[column]).where(table.c.id > after).order_by(table.c.id).limit(_EVENTS)
            with storage.index_connection() as database:
                rows = database.execute(query).all()
            if not rows:
                break
            after = rows[-1][0]
            # Written by itself: the log has one writer at a time, and others wait for it.
            changed = [
                {"of": number, "new": new} for number, text in rows if text and (new := change(text)) is not None
            ]
            if changed:
                statement = (
                    sa.update(table).where(table.c.id == sa.bindparam("of")).values({column: sa.bindparam("new")})
                )
                with storage.index_connection() as database:
                    if database.dialect.name == "sqlite":
                        database.exec_driver_sql("PRAGMA secure_delete=ON")
                    database.execute(statement, changed)
            count += len(changed)
    with storage.index_connection() as database:
        if database.dialect.name == "sqlite":
            driver = database.connection.driver_connection
            assert driver is not None  # noqa: S101 - it was just opened
            driver.commit()
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return count
