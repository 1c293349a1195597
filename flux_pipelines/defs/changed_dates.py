"""Rows of one raw partition count on several business dates: what a landing changes is told to the dates it touches.

Dagster knows of a provider's table one partition for each connection and date, and core tables follow the date of the
same name. A step that has made rows of one date's raw partition tells the other dates that their rows have changed; then
whatever is made of these dates is made again, and of no others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs.checks import CHECK_MEMORY, view_of
from flux_pipelines.defs.partitions import each_day
from flux_pipelines.domain import tables
from flux_pipelines.domain.partition import Partition
from flux_pipelines.lake.parquet import Among
from flux_pipelines.lake.raw_manifest import OLDER

if TYPE_CHECKING:
    from flux_pipelines.domain.partition import Unit
    from flux_pipelines.domain.tables import Table
    from flux_pipelines.lake import Commit, DeltaLake, Draft, RawManifest, RawStore
    from flux_pipelines.runtime import Runtime

#: Dates that are named in the metadata of one that they have touched.
_NAMED = 10
#: What a run has written down this long ago, and not told, it will not tell any more.
_DEAD_AFTER = timedelta(hours=1)
#: Orders are moved to another date while they are worked on; scheduled ones when they are due.
_MOVED_AT_MOST = timedelta(days=60)


class ChangedDates:
    """What one step of a provider's table touches: told to the dates, even if the step dies after its rows are in the table.

    Before rows are committed, their dates are written down in the state database, and taken out once they have been told. A
    step that finds dates which another one has written down tells them as well: that one may be dead.

    Args:
        runtime: the rooms.
        table: the provider's table.
        run: names the step's run.

    """

    def __init__(self, runtime: Runtime, table: Table, run: str) -> None:
        self._runtime = runtime
        self._table = table
        self._run = run
        self._name = f"touching/{table.name}/"
        self._connections: set[str] = set()
        self.changed: dict[Partition, set[date]] = {}

    @contextmanager
    def recording(self, drafting: AbstractContextManager[Draft]) -> Iterator[Draft]:
        """Write down which dates staged rows touch, or those that they replace."""
        with drafting as draft:
            if self._table.partition_by == self._table.landed_by:
                self._write_down(draft)
            yield draft

    def _write_down(self, draft: Draft) -> None:
        replaced = Among(draft.partitions)
        before = (one for one in self._runtime.lake.rows_by_partition(self._table.name) if one in replaced)
        dates: dict[str, set[str]] = {}
        for connection, raw_date, day in (*before, *(file.partition for file in draft.files)):
            if day != raw_date:
                dates.setdefault(connection, set()).add(day)
        for connection, days in dates.items():
            if connection not in self._connections:
                self._connections.add(connection)
                # Of an attempt of the same run that died.
                for day in self._own(connection):
                    self.changed.setdefault(Partition(connection, date.fromisoformat(day)), set())
            told = {"since": datetime.now(UTC).isoformat(), "dates": sorted({*days, *self._own(connection)})}
            self._runtime.state.cursors.set(self._cursor(connection), told, connection=connection)

    def committed(self, commit: Commit) -> None:
        """Remember the dates whose rows a commit has changed, each with the raw dates they are of."""
        if self._table.partition_by == self._table.landed_by:
            for connection, raw_date, day in commit.changed:
                at = Partition(connection, date.fromisoformat(day))
                self.changed.setdefault(at, set()).add(date.fromisoformat(raw_date))

    def report(
        self,
        context: dg.AssetExecutionContext,
        raw: RawStore,
        connections: Collection[str],
        done: Collection[Unit],
    ) -> None:
        """Record that the rows of business dates have changed which are not partitions of this step.

        Dates that have not been fetched are left out: nothing is made of them until they are.

        Args:
            context: the step's context.
            raw: the raw records that the table is made of.
            connections: whose rows the step has made.
            done: the partitions that the step records by itself.

        """
        forgotten: list[str] = [self._cursor(connection) for connection in self._connections]
        changed = {at: set(dates) for at, dates in self.changed.items()}
        for connection in connections:
            for name, told in self._runtime.state.cursors.of(connection).items():
                if name.startswith(self._name) and name not in forgotten:
                    for day in told["dates"]:
                        changed.setdefault(Partition(connection, date.fromisoformat(day)), set())
                    if datetime.fromisoformat(told["since"]) < datetime.now(UTC) - _DEAD_AFTER:
                        forgotten.append(name)
        for partition, dates in sorted(changed.items()):
            if partition in done or not raw.landed(partition.connection, [partition.business_date]):
                continue
            named = ", ".join(map(str, sorted(dates)[:_NAMED])) + ("" if len(dates) <= _NAMED else " and others")
            context.log_event(
                dg.AssetMaterialization(
                    context.asset_key,
                    partition=str(partition),
                    metadata={"rows have changed of raw partitions of": named or "a run that did not tell"},
                )
            )
        for name in forgotten:
            self._runtime.state.cursors.delete(name)

    def _own(self, connection: str) -> list[str]:
        told = self._runtime.state.cursors.get(self._cursor(connection)) or {"dates": []}
        return list(told["dates"])

    def _cursor(self, connection: str) -> str:
        return f"{self._name}{connection}/{self._run}"


def on_other_dates(
    lake: DeltaLake, provider: str, connection: str, orders: Collection[str], dates: Collection[date]
) -> set[date]:
    """Return the raw dates, within two months of some, on which a provider's transactions have orders that are on those too."""
    import pyarrow as pa

    from flux_pipelines.lake import session

    table = f"{provider}/{tables.TRANSACTIONS.name}"
    if not orders:
        return set()
    near = each_day(min(dates) - _MOVED_AT_MOST, max(dates) + _MOVED_AT_MOST)
    where: dict[str, Sequence[str | date]] = {
        "connection": [connection],
        "raw_date": [day for day in near if day not in dates],
    }
    with session(lake, [table], where=where, memory_limit=CHECK_MEMORY) as database:
        database.register("here", pa.table({"order_id": pa.array(sorted(orders), pa.string())}))
        found = database.execute(
            f"select distinct raw_date from {view_of(table)} where order_id in (select order_id from here)"
        ).fetchall()
    return {day for (day,) in found}


def older_to_make(raw: RawStore, connection: str, table: str) -> list[RawManifest]:
    """Return the single orders of dates that were never fetched (`OLDER`) of which a table has not been made yet.

    Those of dates that have been fetched since are deleted: the date has them.
    """
    older = raw.of(OLDER)
    kept = older.everything(connection).readable
    fetched = raw.landed(connection, [manifest.business_date for manifest in kept])
    for day in fetched:
        older.delete(connection, day)
    left = [manifest for manifest in kept if manifest.business_date not in fetched]
    made = older.made(connection, [manifest.business_date for manifest in left], table)
    return [
        manifest
        for manifest in left
        if manifest.business_date not in made or made[manifest.business_date].fetched_at != manifest.fetched_at
    ]


def older_made(raw: RawStore, manifest: RawManifest, table: str, rows: int) -> None:
    """Write down that a table has been made of single orders of a date."""
    raw.of(OLDER).set_made(manifest, table, rows)
