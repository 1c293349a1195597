"""The shape of webhook events, and how many of them are stored at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, cast

import msgspec
from sqlalchemy import Connection, Row, Table, TextClause, bindparam, text

from flux_pipelines.state.event_copy import copied
from flux_pipelines.state.models import InboxRow

EventStatus = Literal["received", "assigned", "done", "kept", "failed"]

TABLE = cast(Table, InboxRow.__table__)
#: Events in one INSERT of SQLite.
_MOST_ROWS = 64
_MOST_TEXT = 255
#: How what stands in the place of a body begins, and how long it is.
DIGEST_BEGINS = b'{"sha256":"'
DIGEST_BYTES = len(DIGEST_BEGINS) + 64 + 2
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


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event whose signature was found good. `body` is stored byte for byte as it is given: as it came, redacted."""

    provider: str
    event_id: str
    event_type: str
    account_id: str
    occurred_at: datetime | None
    body: bytes = field(repr=False)
    connection_key: str | None = None
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event. Its body may hold what customers bought: it never shows by itself."""

    id: int
    provider: str
    event_id: str
    event_type: str
    account_id: str
    connection_key: str | None
    occurred_at: datetime | None
    received_at: datetime
    body: bytes = field(repr=False)
    status: EventStatus
    batch: str | None
    attempts: int
    due_at: datetime | None
    reason: str
    finished_at: datetime | None


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


def made_storable(event: NewEvent) -> NewEvent:
    """Return the event with texts that a database can hold: mostly the event itself."""
    event_id, event_type, account_id = (
        storable(event.event_id),
        storable(event.event_type),
        storable(event.account_id),
    )
    if (event_id, event_type, account_id) == (event.event_id, event.event_type, event.account_id):
        return event
    return replace(event, event_id=event_id, event_type=event_type, account_id=account_id)


def storable(given: str) -> str:
    """Return the text, or its hash when a database could not hold it: too long, NUL, half a surrogate pair."""
    if len(given) <= _MOST_TEXT and given.isprintable():
        return given
    encoded = given.encode("utf-8", "surrogatepass")
    if len(given) <= _MOST_TEXT and "\0" not in given and not any("\ud800" <= c <= "\udfff" for c in given):
        return given
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def digest(body: bytes) -> bytes:
    """Return what stands in the place of a body that is not kept: JSON with its SHA-256, always `DIGEST_BYTES` long."""
    return DIGEST_BEGINS + hashlib.sha256(body).hexdigest().encode() + b'"}'


def event_of(row: Row[Any]) -> Event:
    """Return the event that a row of the whole table is."""
    return Event(**{**row._mapping, "body": bytes(row.body)})
