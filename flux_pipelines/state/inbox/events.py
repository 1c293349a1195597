"""The shape of webhook events, and what of them a database can hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlalchemy import Row, Table

from flux_pipelines.state.models import InboxRow

EventStatus = Literal["received", "assigned", "done", "kept", "failed"]

TABLE = cast(Table, InboxRow.__table__)
_MOST_TEXT = 255
#: How what stands in the place of a body begins, and how long it is.
DIGEST_BEGINS = b'{"sha256":"'
DIGEST_BYTES = len(DIGEST_BEGINS) + 64 + 2


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
    assigned_at: datetime | None
    attempts: int
    due_at: datetime | None
    reason: str
    finished_at: datetime | None


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
