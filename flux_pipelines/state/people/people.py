"""People who are signed in: sessions live here, the browser holds only a random token."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, or_, update

from flux_pipelines.state.credentials.digests import derived, digest, new_token
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import SessionRow

#: Without a request for this long, a person is signed out.
IDLE = timedelta(hours=12)
#: Signed out after this long in any case.
ABSOLUTE = timedelta(days=7)
#: Being seen is written down this often at most.
_SEEN_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in: `subject` is the identity provider's (`google:1234`). `session_id` is no secret."""

    subject: str
    email: str
    name: str
    csrf: str = field(repr=False)
    session_id: str
    signed_in_at: datetime
    expires_at: datetime


def csrf_of(token: str) -> str:
    """Return the token that forms of this session carry. Nobody without the session's own token can know it."""
    return derived(token, "csrf")


class People:
    """Signs people in and out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def anonymous(self) -> str:
        """Return a token for a browser that nobody has signed in with yet: a round trip can be bound to it.

        Nothing is stored, so that strangers cannot fill the database.
        """
        return new_token()

    def sign_in(self, subject: str, email: str, name: str) -> str:
        """Begin a session and return its token, always a new one: what the browser held before is worth nothing."""
        token = new_token()
        now = datetime.now(UTC)
        with self._database.session() as session:
            session.add(
                SessionRow(
                    id=digest(token),
                    subject=subject,
                    email=email,
                    name=name,
                    signed_in_at=now,
                    last_seen_at=now,
                    expires_at=now + ABSOLUTE,
                )
            )
        return token

    def find(self, token: str, *, idle: timedelta = IDLE) -> Person | None:
        """Return who is signed in with this token; None when nobody is, or not any more."""
        key = digest(token)
        now = datetime.now(UTC)
        with self._database.reading() as session:
            row = session.get(SessionRow, key)
        if row is None or now >= row.expires_at or now - row.last_seen_at >= idle:
            return None
        if now - row.last_seen_at >= _SEEN_EVERY:
            with self._database.session() as session:
                session.execute(
                    update(SessionRow)
                    .where(SessionRow.id == key, SessionRow.last_seen_at < now)
                    .values(last_seen_at=now)
                )
        return Person(
            subject=row.subject,
            email=row.email,
            name=row.name,
            csrf=csrf_of(token),
            session_id=row.id,
            signed_in_at=row.signed_in_at,
            expires_at=row.expires_at,
        )

    def sign_out(self, token: str) -> None:
        """End the session; nothing happens when there is none."""
        with self._database.session() as session:
            session.execute(delete(SessionRow).where(SessionRow.id == digest(token)))

    def sign_out_everywhere(self, subject: str) -> int:
        """End every session of a person; return how many there were."""
        with self._database.session() as session:
            gone = session.execute(delete(SessionRow).where(SessionRow.subject == subject).returning(SessionRow.id))
            return len(gone.all())

    def purge(self, idle: timedelta = IDLE) -> int:
        """Delete the sessions that are over; return how many."""
        now = datetime.now(UTC)
        with self._database.session() as session:
            gone = session.execute(
                delete(SessionRow)
                .where(or_(SessionRow.expires_at <= now, SessionRow.last_seen_at <= now - idle))
                .returning(SessionRow.id)
            )
            return len(gone.all())
