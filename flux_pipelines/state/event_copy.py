"""Webhook events in PostgreSQL's binary COPY format: the cheapest way in, for events that are all new.

COPY knows no ON CONFLICT: an event that is here already refuses the whole group, which then goes another way. The format is
described at https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING

from sqlalchemy import Connection

if TYPE_CHECKING:
    from flux_pipelines.state.events import NewEvent

_COPY = (
    "COPY inbox (provider, event_id, event_type, account_id, connection_key, occurred_at, received_at, body, "
    "status, attempts, reason) FROM STDIN (FORMAT binary)"
)
_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_END = struct.pack("!h", -1)
_FIELDS = struct.pack("!h", 11)
_length = struct.Struct("!i").pack
_instant = struct.Struct("!iq").pack
_NULL = _length(-1)
#: status, attempts, reason
_RECEIVED = _length(8) + b"received" + struct.pack("!ii", 4, 0) + _length(0)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def copied(connection: Connection, events: Sequence[NewEvent]) -> bool:
    """Store events, all or none; tell whether they are stored.

    Args:
        connection: to PostgreSQL, without a transaction around it: what fails must leave nothing behind.
        events: made storable.

    """
    driver = connection.connection
    if driver.encoding != "UTF8":  # texts are sent as they are, not converted
        return False
    try:
        with closing(driver.cursor()) as cursor:
            cursor.copy_expert(_COPY, BytesIO(binary(events)))
    except connection.dialect.loaded_dbapi.Error:
        # One is here already; or whatever else is wrong shows again on the other way, which explains it.
        return False
    return True


def binary(events: Sequence[NewEvent]) -> bytes:
    """Return the events as the server reads them."""
    rows = [_HEAD]
    for event in events:
        provider, event_id = event.provider.encode(), event.event_id.encode()
        event_type, account = event.event_type.encode(), event.account_id.encode()
        key = event.connection_key
        rows += (
            _FIELDS,
            _length(len(provider)),
            provider,
            _length(len(event_id)),
            event_id,
            _length(len(event_type)),
            event_type,
            _length(len(account)),
            account,
            _NULL if key is None else _length(len(key.encode())) + key.encode(),
            _NULL if event.occurred_at is None else _stamp(event.occurred_at),
            _stamp(event.received_at),
            _length(len(event.body)),
            event.body,
            _RECEIVED,
        )
    rows.append(_END)
    return b"".join(rows)


def _stamp(at: datetime) -> bytes:
    return _instant(8, (at - _EPOCH) // _MICROSECOND)
