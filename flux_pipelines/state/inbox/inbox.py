"""Verified webhook events, stored once each before they are acknowledged, until a run has dealt with them.

An event goes `received` -> `assigned` to a batch -> `done`; or it is `kept` (nothing is to be done for it), or `failed`
(its batch failed too often, or nobody can read it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

from flux_pipelines.state.database import Database
from flux_pipelines.state.inbox.event_insert import insert
from flux_pipelines.state.inbox.events import (
    DIGEST_BEGINS,
    DIGEST_BYTES,
    TABLE,
    Event,
    EventStatus,
    NewEvent,
    digest,
    event_of,
    made_storable,
)

_T = TypeVar("_T")

#: Runs of one batch before its events are given up.
MAX_ATTEMPTS = 5
#: The longest wait of an event that is put off.
LONGEST_DELAY = timedelta(hours=1)
_C = TABLE.c
#: Ids in one statement, and events deleted in one transaction.
_MOST_IDS = 5_000
#: Bodies looked at together.
_BODIES = 500


class Assigned(NamedTuple):
    """A batch under way: how many events it has, and when they were put into it."""

    events: int
    at: datetime


class Inbox:
    """Stores events and follows them to their end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Whether the last events were all new. What is delivered twice comes in bursts, after an outage.
        self._all_new = True

    def add_many(self, events: Sequence[NewEvent]) -> list[bool]:
        """Store events in one transaction; return for each whether it is new (False: it was here already).

        When this returns they survive the death of the process. On SQLite a power cut may take those of the last
        moments: hardening each commit costs a disk flush, and the polling of changes covers what is missed. On
        PostgreSQL they are as durable as the server commits.

        Nothing that a provider signed makes it fail: a text that the database could not hold is changed so that it
        can, always in the same way, and the body keeps what was given.
        """
        told = [made_storable(event) for event in events]
        keys = [(event.provider, event.event_id) for event in told]
        first = dict(zip(reversed(keys), reversed(told), strict=True))
        fresh: set[tuple[str, str]] = set()
        if first:
            # Always in the same order: PostgreSQL would else find two that store the same events waiting for each other.
            distinct = [first[key] for key in sorted(first)]
            expected = self._all_new
            fresh = self._database.quickly(lambda connection: insert(connection, distinct, probably_new=expected))
            self._all_new = len(fresh) == len(distinct)
        answer = []
        for key in keys:
            answer.append(key in fresh)
            fresh.discard(key)
        return answer

    def pending(
        self,
        provider: str,
        limit: int = 1000,
        *,
        without: Collection[str] = (),
        only: Collection[str] | None = None,
        after: int = 0,
    ) -> list[Event]:
        """Return events that wait to be dealt with, in the order they came; not those that wait to be tried again.

        Args:
            provider: whose.
            limit: how many at most.
            without: keys of connections whose events are left out, however many stand before the others.
            only: keys of the connections whose events are wanted alone.
            after: only events of higher ids, and those that have been tried before.

        """
        now = datetime.now(UTC)
        # What is put off for longer than anything is was put off before the clock was set back.
        due = or_(_C.due_at.is_(None), _C.due_at <= now, _C.due_at > now + LONGEST_DELAY)
        theirs = or_(_C.connection_key.is_(None), _C.connection_key.not_in(sorted(without)))
        if only is not None:
            theirs = and_(theirs, _C.connection_key.in_(sorted(only)))
        new = or_(_C.id > after, _C.attempts > 0)
        return self._select(and_(_C.provider == provider, _C.status == "received", due, theirs, new), limit)

    def assign(
        self, ids: Iterable[int], batch: str, *, connection_key: str | None = None, at: datetime | None = None
    ) -> int:
        """Put waiting events into a batch; return how many were still waiting.

        Args:
            ids: which.
            batch: the name of the batch, at most 64 characters.
            connection_key: whose they turned out to be.
            at: the instant from which on they count as looked at; now by default.

        """
        values: dict[str, Any] = {"status": "assigned", "batch": batch, "assigned_at": at or datetime.now(UTC)}
        if connection_key is not None:
            values["connection_key"] = connection_key
        return self._change(ids, ("received",), values)

    def finish(self, batch: str) -> int:
        """Mark the events of a batch done: the run that covers them has succeeded. Return how many."""
        return self._execute(
            update(TABLE)
            .where(_C.batch == batch, _C.status == "assigned")
            .values(status="done", finished_at=datetime.now(UTC), reason="")
        )

    def release(
        self,
        batch: str,
        reason: str,
        max_attempts: int = MAX_ATTEMPTS,
        *,
        delay: timedelta | None = None,
        counted: bool = True,
    ) -> int:
        """Let the events of a batch wait again, or give up those that have failed too often.

        Args:
            batch: which.
            reason: why, for people.
            max_attempts: how often an event may be tried in all.
            delay: how long they wait before they are pending again, at most an hour; by default 30 s after the first
                time, then four times as long each time, so that an hour without the provider is survived.
            counted: False for what is not the events' fault: it is no attempt, and they are pending again at once or
                after the delay.

        Returns:
            How many were given up.

        """
        now = datetime.now(UTC)
        delay = None if delay is None else min(delay, LONGEST_DELAY)
        mine = and_(_C.batch == batch, _C.status == "assigned")
        if not counted:
            due_at = None if delay is None else now + delay
            waiting = {"status": "received", "batch": None, "reason": reason, "due_at": due_at}
            self._execute(update(TABLE).where(mine).values(waiting))
            return 0
        tries = _C.attempts + 1
        waits = [
            (tries == n, now + (timedelta(seconds=30 * 4 ** (n - 1)) if delay is None else delay))
            for n in range(1, max_attempts)
        ]
        with self._database.writing() as connection:
            lost = connection.execute(
                update(TABLE)
                .where(mine, tries >= max_attempts)
                .values(status="failed", attempts=tries, reason=reason, finished_at=now)
            ).rowcount
            if waits:
                due = case(*waits, else_=waits[-1][1])
                connection.execute(
                    update(TABLE)
                    .where(mine)
                    .values(status="received", batch=None, attempts=tries, reason=reason, due_at=due)
                )
        return int(lost)

    def keep(self, ids: Iterable[int], reason: str) -> int:
        """Keep waiting events for which nothing is to be done, with the reason; return how many."""
        values = {"status": "kept", "reason": reason, "finished_at": datetime.now(UTC)}
        return self._change(ids, ("received",), values)

    def fail(self, ids: Iterable[int], reason: str) -> int:
        """Give up events, with the reason; return how many."""
        values = {"status": "failed", "reason": reason, "finished_at": datetime.now(UTC)}
        return self._change(ids, ("received", "assigned"), values)

    def retry(self, ids: Iterable[int] | None = None) -> int:
        """Let events wait again as if they had just come: all failed ones, or these, failed or kept. Return how many."""
        values = {
            "status": "received",
            "batch": None,
            "attempts": 0,
            "due_at": None,
            "reason": "",
            "finished_at": None,
        }
        if ids is None:
            return self._execute(update(TABLE).where(_C.status == "failed").values(values))
        return self._change(ids, ("failed", "kept"), values)

    def in_batch(self, batch: str) -> list[Event]:
        """Return the events of a batch that is under way, in the order they came."""
        return self._select(and_(_C.batch == batch, _C.status == "assigned"), _MOST_IDS)

    def batches(self) -> dict[str, Assigned]:
        """Return the batches that are under way: how many events each has, and when they were put into it."""
        # Of those of a home of before it is not known: they had been received.
        at = func.max(func.coalesce(_C.assigned_at, _C.received_at))
        query = select(_C.batch, func.count(), at).where(_C.status == "assigned").group_by(_C.batch).order_by(_C.batch)
        with self._database.reading() as session:
            return {
                batch: Assigned(count, moment) for batch, count, moment in session.execute(query) if batch is not None
            }

    def counts(self, provider: str | None = None) -> dict[EventStatus, int]:
        """Return how many events there are of each status, zeros too."""
        query = select(_C.status, func.count()).group_by(_C.status)
        if provider is not None:
            query = query.where(_C.provider == provider)
        totals: dict[EventStatus, int] = {"received": 0, "assigned": 0, "done": 0, "kept": 0, "failed": 0}
        with self._database.reading() as session:
            for status, count in session.execute(query):
                totals[cast(EventStatus, status)] = count
        return totals

    def last_received(self) -> dict[str, datetime]:
        """Return when each connection's last event came."""
        query = (
            select(_C.connection_key, func.max(_C.received_at))
            .where(_C.connection_key.is_not(None))
            .group_by(_C.connection_key)
        )
        with self._database.reading() as session:
            return {key: moment for key, moment in session.execute(query) if key is not None}

    def recent(
        self, *, status: EventStatus | None = None, provider: str | None = None, limit: int = 100
    ) -> list[Event]:
        """Return the newest events, newest first."""
        conditions = [_C.status == status] if status else []
        conditions += [_C.provider == provider] if provider else []
        return self._select(and_(True, *conditions), limit, newest_first=True)

    def purge(self, older_than: timedelta = timedelta(days=30), *, failed: timedelta = timedelta(days=366)) -> int:
        """Delete what ended longer ago than that, in portions that hold nobody up; return how many.

        Args:
            older_than: for events that are done or kept.
            failed: for those that failed: people may still want to try them again.

        """
        now = datetime.now(UTC)
        old = or_(
            and_(_C.status.in_(("done", "kept")), _C.finished_at < now - older_than),
            and_(_C.status == "failed", _C.finished_at < now - failed),
        )
        total = 0
        while True:
            portion = select(_C.id).where(old).order_by(_C.id).limit(_MOST_IDS)
            gone = self._execute(delete(TABLE).where(_C.id.in_(portion)))
            total += gone
            if gone < _MOST_IDS:
                return total

    def rewrite(
        self, provider: str, key: str, account_id: str, change: Callable[[Sequence[bytes]], Sequence[bytes]]
    ) -> int:
        """Replace bodies of a connection's events, whatever their status, so that the old bytes are gone; return how many.

        Args:
            provider: the connection's provider.
            key: the connection; events that came before it was known are found by its account.
            account_id: the account; may be empty.
            change: given some bodies, returns those that shall stand in their places.

        """
        mine = _C.connection_key == key
        if account_id:
            mine = or_(mine, and_(_C.provider == provider, _C.account_id == account_id))
        return self._rewrite(mine, change)

    def forget_bodies(self, provider: str, used: Callable[[str], bool]) -> int:
        """Put hashes in the places of bodies of events whose types are not used, so that the bytes are gone; return how many."""
        theirs = _C.provider == provider
        with self._database.reading() as session:
            types = session.scalars(select(_C.event_type).where(theirs).distinct()).all()
        unused = [one for one in types if not used(one)]
        if not unused:
            return 0
        begins = func.substr(_C.body, 1, len(DIGEST_BEGINS))
        whole = or_(func.length(_C.body) != DIGEST_BYTES, begins != DIGEST_BEGINS)
        wanted = and_(theirs, _C.event_type.in_(unused), whole)
        return self._rewrite(wanted, lambda bodies: [digest(body) for body in bodies])

    def _rewrite(self, which: ColumnElement[bool], change: Callable[[Sequence[bytes]], Sequence[bytes]]) -> int:
        count, after = 0, 0
        while True:
            query = select(_C.id, _C.body).where(which, _C.id > after).order_by(_C.id).limit(_BODIES)
            with self._database.reading() as session:
                found = [(row.id, bytes(row.body)) for row in session.execute(query)]
            if not found:
                break
            after = found[-1][0]
            changed = [
                (number, new)
                for (number, old), new in zip(found, change([body for _, body in found]), strict=True)
                if new != old
            ]
            if changed:
                with self._database.erasing() as connection:
                    for number, new in changed:
                        connection.execute(update(TABLE).where(_C.id == number).values(body=new))
            count += len(changed)
        self._database.forget_erased()
        return count

    # --- statements ---

    def _select(self, condition: ColumnElement[bool], limit: int, *, newest_first: bool = False) -> list[Event]:
        query = select(TABLE).where(condition).order_by(_C.id.desc() if newest_first else _C.id).limit(limit)
        with self._database.reading() as session:
            return [event_of(row) for row in session.execute(query)]

    def _change(self, ids: Iterable[int], of: tuple[EventStatus, ...], values: Mapping[str, Any]) -> int:
        with self._database.writing() as connection:
            return sum(
                connection.execute(
                    update(TABLE).where(_C.id.in_(portion), _C.status.in_(of)).values(dict(values))
                ).rowcount
                for portion in _portions(sorted(set(ids)), _MOST_IDS)
            )

    def _execute(self, statement: Any) -> int:
        with self._database.writing() as connection:
            return int(connection.execute(statement).rowcount)


def _portions(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
