"""What people have decided about products and locations of different providers being the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from sqlalchemy import delete, func, select, update

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import MappingRow

Kind = Literal["product", "store"]
Verdict = Literal["same", "different", "undone"]

LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Decision:
    """That a thing (`connection_key`, `external_id`) is, or is not, what the books call `name`."""

    kind: Kind
    connection_key: str
    external_id: str
    name: str
    verdict: Verdict
    decided_by: str
    decided_at: datetime


class Mappings:
    """Records decisions. A thing has one name at most; a new one takes the place of the old."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decide(
        self, kind: Kind, decisions: Iterable[tuple[str, str, str]], *, by: str, verdict: Verdict = "same"
    ) -> int:
        """Record that things are, or are not, what the books call by a name; all of them or none.

        Args:
            kind: of what.
            decisions: connection, the provider's id, and the name.
            by: who decided.
            verdict: `same`, `different`, or `undone` to take back what was said of that name.

        Returns:
            How many were recorded.

        Raises:
            ConfigurationError: an empty name, or one that is too long.

        """
        now = datetime.now(UTC)
        rows = []
        for connection, external_id, name in decisions:
            if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
                raise ConfigurationError(f"a name must have 1 to {LONGEST_NAME} printable characters")
            rows.append(
                {
                    "kind": kind,
                    "connection_key": connection,
                    "external_id": external_id,
                    "name": name.strip(),
                    "verdict": verdict,
                    "decided_by": by,
                    "decided_at": now,
                }
            )
        with self._database.session() as session:
            for row in rows:
                thing = (
                    MappingRow.kind == kind,
                    MappingRow.connection_key == row["connection_key"],
                    MappingRow.external_id == row["external_id"],
                )
                if verdict == "same":
                    session.execute(
                        update(MappingRow)
                        .where(*thing, MappingRow.verdict == "same", MappingRow.name != row["name"])
                        .values(verdict="undone", decided_by=by, decided_at=now)
                    )
                changed = session.execute(
                    update(MappingRow)
                    .where(*thing, MappingRow.name == row["name"])
                    .values(verdict=verdict, decided_by=by, decided_at=now)
                    .returning(MappingRow.id)
                )
                if changed.first() is None:
                    session.add(MappingRow(**row))
                    session.flush()
        return len(rows)

    def all(self, kind: Kind) -> list[Decision]:
        """Return what holds now: `same` and `different`, by thing."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(MappingRow)
                .where(MappingRow.kind == kind, MappingRow.verdict != "undone")
                .order_by(MappingRow.connection_key, MappingRow.external_id, MappingRow.id)
            )
            return [
                Decision(
                    kind,
                    row.connection_key,
                    row.external_id,
                    row.name,
                    cast(Verdict, row.verdict),
                    row.decided_by,
                    row.decided_at,
                )
                for row in rows
            ]

    def forget(self, names: Callable[[str], bool]) -> int:
        """Delete the decisions about things that name somebody, so that the bytes are gone; return how many."""
        with self._database.reading() as session:
            rows = session.execute(select(MappingRow.id, MappingRow.external_id, MappingRow.name)).all()
        gone = [number for number, external_id, name in rows if names(external_id) or names(name)]
        if gone:
            with self._database.erasing() as connection:
                connection.execute(delete(MappingRow).where(MappingRow.id.in_(gone)))
        self._database.forget_erased()
        return len(gone)

    def last_decided(self) -> datetime | None:
        """Return when somebody last decided anything."""
        with self._database.reading() as session:
            return session.scalar(select(func.max(MappingRow.decided_at)))
