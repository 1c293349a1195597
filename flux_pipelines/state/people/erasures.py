"""The record of what was erased: the proof that a request was honoured, without the person it was about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from flux_pipelines.state.database import Database
from flux_pipelines.state.models import ErasureRow


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """One request and what was done.

    Args:
        id: its number.
        connection: whose data was searched.
        asked_by: who passed it on (`command line (ada)`, `webhook`).
        fingerprint: a keyed hash of the request: it tells whether two were the same one, not who was meant.
        everything: whether all of the connection was erased.
        customers: how many customer ids were asked for.
        orders: how many order ids.
        texts: how many e-mail addresses, phone numbers and the like.
        began_at: when it was begun (UTC).
        finished_at: when it was done; None while it is under way, or when it failed.
        partitions: raw partitions that were written anew.
        records: records in them that held what was asked for.
        quarantined: records in quarantine that did.
        events: webhook events that did.

    """

    id: int
    connection: str
    asked_by: str
    fingerprint: str
    everything: bool
    customers: int
    orders: int
    texts: int
    began_at: datetime
    finished_at: datetime | None
    partitions: int = 0
    records: int = 0
    quarantined: int = 0
    events: int = 0


class Erasures:
    """Keeps the record. Rows are never deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self,
        connection: str,
        asked_by: str,
        fingerprint: str,
        *,
        everything: bool,
        customers: int,
        orders: int,
        texts: int,
    ) -> int:
        """Write down that a request came; return its number."""
        row = ErasureRow(
            connection_key=connection,
            asked_by=asked_by,
            fingerprint=fingerprint,
            everything=everything,
            customers=customers,
            orders=orders,
            texts=texts,
            began_at=datetime.now(UTC),
            finished_at=None,
            partitions=0,
            records=0,
            quarantined=0,
            events=0,
        )
        with self._database.session() as session:
            session.add(row)
            session.flush()
            return row.id

    def finish(self, number: int, *, partitions: int, records: int, quarantined: int, events: int) -> ErasureReport:
        """Write down that it was done, and what that was."""
        with self._database.session() as session:
            row = session.get_one(ErasureRow, number)
            row.partitions, row.records, row.quarantined, row.events = partitions, records, quarantined, events
            row.finished_at = datetime.now(UTC)
            return _report(row)

    def list(self, connection: str | None = None) -> list[ErasureReport]:
        """Return the requests, newest first."""
        query = select(ErasureRow).order_by(ErasureRow.id.desc())
        if connection is not None:
            query = query.where(ErasureRow.connection_key == connection)
        with self._database.reading() as session:
            return [_report(row) for row in session.scalars(query)]


def _report(row: ErasureRow) -> ErasureReport:
    return ErasureReport(
        row.id,
        row.connection_key,
        row.asked_by,
        row.fingerprint,
        row.everything,
        row.customers,
        row.orders,
        row.texts,
        row.began_at,
        row.finished_at,
        row.partitions,
        row.records,
        row.quarantined,
        row.events,
    )
