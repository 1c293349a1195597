"""The shape of webhook events, and the one statement that stores many of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, cast

from sqlalchemy import Row, Table, TextClause, bindparam, text

from flux_pipelines.state.models import InboxRow

EventStatus = Literal["received", "assigned", "done", "kept", "failed"]

TABLE = cast(Table, InboxRow.__table__)
#: Events in one INSERT.
MOST_ROWS = 64
_MOST_TEXT = 255
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
    """An event whose signature was found good. `body` is stored byte for byte as it came."""

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


@lru_cache(maxsize=MOST_ROWS)
def insert_statement(rows: int) -> TextClause:
    """Return the INSERT of so many events that leaves alone those that are here already.

    Text, because SQLAlchemy compiles its own ON CONFLICT anew each time, which takes longer than the database needs.
    """
    names = ", ".join(_BOUND)
    values = ", ".join(f"({', '.join(f':{name}_{n}' for name in _BOUND)}, 'received', 0, '')" for n in range(rows))
    return text(
        f"INSERT INTO inbox ({names}, status, attempts, reason) VALUES {values} "
        "ON CONFLICT DO NOTHING RETURNING provider, event_id"
    ).bindparams(*(bindparam(f"{name}_{n}", type_=TABLE.c[name].type) for n in range(rows) for name in _BOUND))


def bind(values: dict[str, object], n: int, event: NewEvent, event_id: str) -> None:
    """Put the values of the n-th event among those of an INSERT."""
    values[f"provider_{n}"] = event.provider
    values[f"event_id_{n}"] = event_id
    values[f"event_type_{n}"] = storable(event.event_type)
    values[f"account_id_{n}"] = storable(event.account_id)
    values[f"connection_key_{n}"] = event.connection_key
    values[f"occurred_at_{n}"] = event.occurred_at
    values[f"received_at_{n}"] = event.received_at
    values[f"body_{n}"] = event.body


def storable(given: str) -> str:
    """Return the text, or its hash when a database could not hold it: too long, NUL, half a surrogate pair."""
    if len(given) <= _MOST_TEXT and given.isprintable():
        return given
    encoded = given.encode("utf-8", "surrogatepass")
    if len(given) <= _MOST_TEXT and "\0" not in given and not any("\ud800" <= c <= "\udfff" for c in given):
        return given
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def event_of(row: Row[Any]) -> Event:
    """Return the event that a row of the whole table is."""
    return Event(**{**row._mapping, "body": bytes(row.body)})
