"""Effects on other systems, kept until each of them stands there once.

An effect goes `pending` -> `sending` -> `sent`. A sender that dies leaves it `sending`, an answer that never came
`ambiguous`: whoever sends next looks at the other system before it does anything about those. What is put here again with
another payload is a new version of the same effect, and becomes an update of the same object.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import OutboxPayloadRow, OutboxRow
from flux_pipelines.state.outbox.effect import KEY_LENGTH, STATUSES, Effect, EffectStatus, NewEffect, Put, written
from flux_pipelines.state.outbox.lease import SenderLease

#: How long a sender is believed to live without a sign. What it sent may still be under way elsewhere for that long.
LEASE = timedelta(seconds=90)
#: Tries of one version before it is given up.
MAX_ATTEMPTS = 8
#: The longest wait between two tries.
LONGEST_DELAY = timedelta(hours=1)

_UNDER_WAY: tuple[EffectStatus, ...] = ("sending", "ambiguous")
#: Which effects a sender may take, by the time and its name.
_Which = Callable[[datetime, str], ColumnElement[bool]]
#: Writes down what has become of an effect.
_Settle = Callable[[OutboxRow, datetime], None]


class Outbox:
    """Takes effects and tells what has become of them. Who sends them asks for a `Sender`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, effects: Sequence[NewEffect]) -> list[Put]:
        """Take effects, all of them or none; return for each whether it is new, says something new, or neither.

        What is being sent is not disturbed: its next version waits. What a person holds stays held.

        Raises:
            TypeError: a payload holds a float.
            ConfigurationError: a key is too long, or stands twice among these, or is another connection's or kind's.

        """
        prepared = {one.key: (one, *written(one.payload)) for one in effects}
        if len(prepared) < len(effects) or any(len(key) > KEY_LENGTH for key in prepared):
            raise ConfigurationError(f"each effect needs a key of its own, of at most {KEY_LENGTH} characters")
        told: dict[str, Put] = {}
        with self._database.session() as session:
            now = self._database.now(session)
            for key in sorted(prepared):  # always in one order, so that two who put the same do not wait for each other
                new, payload, payload_hash = prepared[key]
                self._database.lock(session, f"outbox {key}")
                row = session.scalar(select(OutboxRow).where(OutboxRow.key == key).with_for_update())
                if row is None:
                    row = _new_row(new, now)
                    session.add(row)
                    session.flush()
                    _add_version(session, row, payload, payload_hash, now)
                    told[key] = "created"
                    continue
                if (row.connection_key, row.kind) != (new.connection_key, new.kind):
                    raise ConfigurationError(
                        f"the effect {key!r} is there already, as {row.kind} of {row.connection_key}",
                        connection=new.connection_key,
                    )
                newest = session.get_one(OutboxPayloadRow, (row.id, row.version))
                changed = newest.payload_hash != payload_hash
                if changed:
                    row.version += 1
                    row.attempts, row.due_at, row.updated_at = 0, None, now
                    _add_version(session, row, payload, payload_hash, now)
                _follow(row, new.hold, changed=changed)
                told[key] = "updated" if changed else "unchanged"
        return [told[one.key] for one in effects]

    @contextmanager
    def sender(self, connection_key: str, *, lease: timedelta = LEASE) -> Iterator[Sender | None]:
        """Be the one that sends a connection's effects, for a `with` block; None: somebody else is.

        Args:
            connection_key: whose effects.
            lease: for how long others wait for a sign of this one; longer than any request to the other system takes.

        """
        mine = SenderLease(self._database, connection_key, uuid.uuid4().hex, lease)
        if not mine.take():
            yield None
            return
        with mine.prolonged():
            yield Sender(self._database, mine)

    def connections(self) -> list[str]:
        """Return the connections for which there is something to send or to look at now."""
        with self._database.reading() as session:
            now = self._database.now(session)
            due = or_(_sendable(now, ""), _unresolved(now, ""))
            query = select(OutboxRow.connection_key).where(due).distinct().order_by(OutboxRow.connection_key)
            return list(session.scalars(query))

    def get(self, key: str) -> Effect | None:
        """Return an effect by its key, with its newest version."""
        found = self._select(OutboxRow.key == key, 1)
        return found[0] if found else None

    def recent(
        self, *, status: EffectStatus | None = None, connection_key: str | None = None, limit: int = 100
    ) -> list[Effect]:
        """Return the effects that changed last, the newest first."""
        conditions = [OutboxRow.status == status] if status else []
        conditions += [OutboxRow.connection_key == connection_key] if connection_key else []
        return self._select(and_(True, *conditions), limit, newest_first=True)

    def counts(self, connection_key: str | None = None) -> dict[EffectStatus, int]:
        """Return how many effects there are of each status, zeros too."""
        query = select(OutboxRow.status, func.count()).group_by(OutboxRow.status)
        if connection_key is not None:
            query = query.where(OutboxRow.connection_key == connection_key)
        totals: dict[EffectStatus, int] = dict.fromkeys(STATUSES, 0)
        with self._database.reading() as session:
            for status, count in session.execute(query):
                totals[cast(EffectStatus, status)] = count
        return totals

    def hold(self, keys: Collection[str], who: str, reason: str) -> int:
        """Let a person hold effects that are not being sent; return how many."""
        values = {"status": "held", "held_by": who, "reason": reason}
        return self._change(keys, ("pending", "failed", "held"), values)

    def retry(self, keys: Collection[str] | None = None) -> int:
        """Let effects be sent that failed, or these, failed or held; return how many."""
        values = {"status": "pending", "hold": "", "held_by": "", "reason": "", "attempts": 0, "due_at": None}
        return self._change(keys, ("failed",) if keys is None else ("failed", "held"), values)

    def resolve(self, key: str, remote_id: str | None) -> bool:
        """Say what a person has seen of an effect of which nobody knows whether it was written.

        Args:
            key: the effect's.
            remote_id: what the other system calls it; None: it is not there, and is sent again.

        Returns:
            Whether it was ambiguous.

        """
        with self._database.session() as session:
            row = session.scalar(select(OutboxRow).where(OutboxRow.key == key).with_for_update())
            if row is None or row.status != "ambiguous":
                return False
            if remote_id is None:
                _wait(row, self._database.now(session))
            else:
                _sent(row, remote_id, "", self._database.now(session))
            return True

    # --- statements ---

    def _select(self, condition: ColumnElement[bool], limit: int, *, newest_first: bool = False) -> list[Effect]:
        order = (OutboxRow.updated_at.desc(), OutboxRow.id.desc()) if newest_first else (OutboxRow.id,)
        with self._database.reading() as session:
            return [_effect(row) for row in session.execute(_effects().where(condition).order_by(*order).limit(limit))]

    def _change(self, keys: Iterable[str] | None, of: tuple[EffectStatus, ...], values: dict[str, Any]) -> int:
        with self._database.session() as session:
            statement = update(OutboxRow).where(OutboxRow.status.in_(of))
            if keys is not None:
                statement = statement.where(OutboxRow.key.in_(sorted(keys)))
            changed = session.execute(statement.values(**values, updated_at=self._database.now(session)))
            return int(changed.rowcount)  # type: ignore[attr-defined]


class Sender:
    """The one that sends a connection's effects, as long as its lease lasts. What it is told after that changes nothing."""

    def __init__(self, database: Database, lease: SenderLease) -> None:
        self._database = database
        self._lease = lease

    def unresolved(self, limit: int) -> list[Effect]:
        """Take over effects of which it is not known whether they were written, in the version that was being sent.

        They are `sending` of a sender that has died, or `ambiguous` for long enough to be looked at.
        """
        return self._take(_unresolved, limit)

    def claim(self, limit: int) -> list[Effect]:
        """Take effects that may be sent, the oldest first; they are `sending` when this returns."""
        return self._take(_sendable, limit)

    def sent(self, effect: Effect, remote_id: str, remote_version: str = "") -> bool:
        """Note that an effect was written, or was found to be; return whether this is still the sender."""
        return self._settle(effect, lambda row, now: _sent(row, remote_id, remote_version, now))

    def not_sent(self, effect: Effect, reason: str) -> bool:
        """Let an effect wait that was surely not written, and not for a fault of its own: it is no try."""

        def settle(row: OutboxRow, now: datetime) -> None:
            _wait(row, now, reason)
            row.attempts = max(row.attempts - 1, 0)

        return self._settle(effect, settle)

    def not_there(self, effect: Effect) -> bool:
        """Let an effect be written again that was looked for and is not there, or give it up after so many tries."""

        def settle(row: OutboxRow, now: datetime) -> None:
            _wait(row, now, "it was sent, no answer came, and it is not there")
            _give_up(row)

        return self._settle(effect, settle)

    def adopt(self, effect: Effect, remote_id: str, remote_version: str) -> bool:
        """Let an effect wait to be written over an object of ours that stands there in another version."""

        def settle(row: OutboxRow, now: datetime) -> None:
            _wait(row, now)
            row.remote_id, row.remote_version = remote_id, remote_version

        return self._settle(effect, settle)

    def put_off(self, effect: Effect, reason: str) -> bool:
        """Let an effect wait that failed and was surely not written, longer each time, or give it up."""

        def settle(row: OutboxRow, now: datetime) -> None:
            _wait(row, now, reason)
            row.due_at = now + min(timedelta(seconds=15 * 2**row.attempts), LONGEST_DELAY)
            _give_up(row)

        return self._settle(effect, settle)

    def refused(self, effect: Effect, reason: str) -> bool:
        """Give an effect up that the other system will not take as it is."""

        def settle(row: OutboxRow, now: datetime) -> None:
            _wait(row, now, reason)
            if row.version == effect.version:  # what has changed meanwhile may be taken
                row.status, row.reason = "failed", reason

        return self._settle(effect, settle)

    def ambiguous(self, effect: Effect, reason: str, *, look_after: timedelta) -> bool:
        """Note that nobody knows whether an effect was written.

        Args:
            effect: which.
            reason: why, for people.
            look_after: how long what was sent may still be under way; a look before then could miss it.

        """

        def settle(row: OutboxRow, now: datetime) -> None:
            row.status, row.reason, row.due_at, row.updated_at = "ambiguous", reason, now + look_after, now
            row.holder = ""

        return self._settle(effect, settle)

    def lasts(self) -> bool:
        """Tell whether this is still the sender; to be asked right before something is written."""
        with self._database.session() as session:
            return self._lease.mine(session)

    def _take(self, which: _Which, limit: int) -> list[Effect]:
        with self._database.session() as session:
            if not self._lease.mine(session):
                return []
            now = self._database.now(session)
            where = which(now, self._lease.holder)
            mine = OutboxRow.connection_key == self._lease.connection_key
            # What is being put anew at this moment comes next time: waiting for each other, two would wait for ever.
            rows = session.scalars(
                select(OutboxRow)
                .where(mine, where)
                .order_by(OutboxRow.id)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                if row.status == "pending":
                    row.sending_version = row.version
                    row.attempts += 1
                row.status, row.holder, row.updated_at = "sending", self._lease.holder, now
            session.flush()
            query = _effects(OutboxRow.sending_version).where(OutboxRow.id.in_([row.id for row in rows]))
            return [_effect(row) for row in session.execute(query.order_by(OutboxRow.id))]

    def _settle(self, effect: Effect, settle: _Settle) -> bool:
        with self._database.session() as session:
            row = session.scalar(select(OutboxRow).where(OutboxRow.id == effect.id).with_for_update())
            if row is None or (row.status, row.holder) != ("sending", self._lease.holder):
                return False
            settle(row, self._database.now(session))
            return True


def _new_row(new: NewEffect, now: datetime) -> OutboxRow:
    return OutboxRow(
        key=new.key,
        connection_key=new.connection_key,
        kind=new.kind,
        status="held" if new.hold else "pending",
        reason=new.hold,
        hold=new.hold,
        held_by="",
        version=1,
        sending_version=0,
        sent_version=0,
        holder="",
        remote_id="",
        remote_version="",
        attempts=0,
        due_at=None,
        created_at=now,
        updated_at=now,
        sent_at=None,
    )


def _add_version(session: Session, row: OutboxRow, payload: str, payload_hash: str, now: datetime) -> None:
    session.add(
        OutboxPayloadRow(
            outbox_id=row.id, version=row.version, payload=payload, payload_hash=payload_hash, created_at=now
        )
    )


def _follow(row: OutboxRow, hold: str, *, changed: bool) -> None:
    """Let an effect that was put here again wait, or be held, if nobody has decided about it and nobody is sending it."""
    row.hold = hold
    if row.status in _UNDER_WAY or row.held_by:
        return
    if hold:
        if changed or row.status in ("pending", "held"):
            row.status, row.reason = "held", hold
    elif changed or row.status == "held":
        row.status, row.reason = "pending", ""


def _sent(row: OutboxRow, remote_id: str, remote_version: str, now: datetime) -> None:
    row.sent_version, row.sent_at, row.updated_at = row.sending_version, now, now
    row.remote_id, row.remote_version = remote_id, remote_version
    if row.version == row.sent_version:
        row.status, row.holder, row.reason, row.due_at = "sent", "", "", None
    else:
        _wait(row, now)


def _wait(row: OutboxRow, now: datetime, reason: str = "") -> None:
    row.status = "held" if row.hold else "pending"
    row.holder, row.reason, row.due_at, row.updated_at = "", row.hold or reason, None, now


def _give_up(row: OutboxRow) -> None:
    if row.attempts >= MAX_ATTEMPTS and row.status == "pending":
        row.status = "failed"


def _effects(version: ColumnElement[int] | Any = OutboxRow.version) -> Select[Any]:
    """Return a query of effects with the payload of a version, and the hash of what stands at the other system."""
    shown, stands = aliased(OutboxPayloadRow), aliased(OutboxPayloadRow)
    return (
        select(OutboxRow, shown, func.coalesce(stands.payload_hash, ""))
        .join(shown, and_(shown.outbox_id == OutboxRow.id, shown.version == version))
        .join(stands, and_(stands.outbox_id == OutboxRow.id, stands.version == OutboxRow.sent_version), isouter=True)
    )


def _effect(found: Row[Any]) -> Effect:
    row, shown, sent_hash = found
    return Effect(
        id=row.id,
        key=row.key,
        connection_key=row.connection_key,
        kind=row.kind,
        payload=json.loads(shown.payload),
        payload_hash=shown.payload_hash,
        version=shown.version,
        status=row.status,
        reason=row.reason,
        sent_version=row.sent_version,
        sent_hash=sent_hash,
        remote_id=row.remote_id,
        remote_version=row.remote_version,
        attempts=row.attempts,
        due_at=row.due_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        sent_at=row.sent_at,
    )


def _come(now: datetime) -> ColumnElement[bool]:
    # What is put off for longer than anything is was put off before the clock was set back.
    at = OutboxRow.due_at
    return or_(at.is_(None), at <= now, at > now + LONGEST_DELAY)


def _sendable(now: datetime, _holder: str) -> ColumnElement[bool]:
    return and_(OutboxRow.status == "pending", _come(now))


def _unresolved(now: datetime, holder: str) -> ColumnElement[bool]:
    of_the_dead = and_(OutboxRow.status == "sending", OutboxRow.holder != holder)
    return or_(of_the_dead, and_(OutboxRow.status == "ambiguous", _come(now)))
