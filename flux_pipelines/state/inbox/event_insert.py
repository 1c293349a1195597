"""How many webhook events are stored at once: one statement for all of them, and on PostgreSQL, where all are new, COPY.

COPY in PostgreSQL's binary format is the cheapest way in, but it knows no ON CONFLICT: an event that is here already refuses the
whole group, which then goes another way. The format is described at
https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO

import msgspec
from sqlalchemy import Connection, TextClause, bindparam, text

from flux_pipelines.state.inbox.events import TABLE, NewEvent

#: Events in one INSERT of SQLite.
_MOST_ROWS = 64
#: The columns that differ from event to event when they come.
_BOUND = (
    "provider",
    "event_id",
    "event_type",
    "account_id",
    "connection_key",
    "occurred_at",
    "received_at",
    "body",
)
_NAMES = ", ".join(_BOUND)
_INSERT = f"INSERT INTO inbox ({_NAMES}, status, attempts, reason) "
#: Events that are here already are left alone. Text, because SQLAlchemy compiles its own ON CONFLICT anew each time,
#: which takes longer than the database needs.
_ONCE = " ON CONFLICT DO NOTHING RETURNING provider, event_id"

#: For PostgreSQL, in one document: a few microseconds an event, a tenth of what binding each value takes.
_INSERT_DOCUMENT = text(
    f"{_INSERT} SELECT {_NAMES.removesuffix('body')} decode(body, 'base64'), 'received', 0, '' "
    "FROM json_to_recordset(CAST(:events AS json)) AS event(provider text, event_id text, event_type text, "
    "account_id text, connection_key text, occurred_at timestamptz, received_at timestamptz, body text)" + _ONCE
)

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


def insert(connection: Connection, events: Sequence[NewEvent], *, probably_new: bool) -> set[tuple[str, str]]:
    """Store events of different ids, already made storable; return provider and id of those that are new.

    Args:
        connection: of `Database.quickly`.
        events: which; none is stored twice.
        probably_new: whether none of them is expected to be here already: then a faster way is tried first.

    """
    if connection.dialect.name == "postgresql":
        if probably_new and copied(connection, events):
            return {(event.provider, event.event_id) for event in events}
        document = msgspec.json.encode(events).decode()
        return {(row[0], row[1]) for row in connection.execute(_INSERT_DOCUMENT, {"events": document})}
    new: set[tuple[str, str]] = set()
    for first in range(0, len(events), _MOST_ROWS):
        portion = events[first : first + _MOST_ROWS]
        values = {f"{name}_{n}": getattr(event, name) for n, event in enumerate(portion) for name in _BOUND}
        new.update((row[0], row[1]) for row in connection.execute(_insert_rows(len(portion)), values))
    return new


@lru_cache(maxsize=_MOST_ROWS)
def _insert_rows(rows: int) -> TextClause:
    values = ", ".join(f"({', '.join(f':{name}_{n}' for name in _BOUND)}, 'received', 0, '')" for n in range(rows))
    return text(f"{_INSERT} VALUES {values}{_ONCE}").bindparams(
        *(bindparam(f"{name}_{n}", type_=TABLE.c[name].type) for n in range(rows) for name in _BOUND)
    )


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
