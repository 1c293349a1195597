"""Rows of one raw partition count on several business dates: what a landing changes is told to the dates it touches.

Dagster knows of a provider's table one partition for each connection and date, and core tables follow the date of the
same name. A step that has made rows of one date's raw partition tells the other dates that their rows have changed; then
whatever is made of these dates is made again, and of no others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.domain import tables
from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.pipelines.checks import CHECK_MEMORY, view_of
from flux_pipelines.pipelines.partitions import each_day, partition_key

if TYPE_CHECKING:
    from flux_pipelines.domain.tables import Table
    from flux_pipelines.lake import Commit, DeltaLake, RawManifest, RawStore

#: Dates that are named in the metadata of one that they have touched.
_NAMED = 10
#: Orders are moved to another date while they are worked on; scheduled ones when they are due.
_MOVED_AT_MOST = timedelta(days=60)


def touched(table: Table, commit: Commit) -> dict[tuple[str, date], set[date]]:
    """Return the connections and business dates whose rows a commit has changed, each with the raw dates they are of."""
    found: dict[tuple[str, date], set[date]] = {}
    if table.partition_by == table.landed_by:
        for connection, raw_date, day in commit.changed:
            found.setdefault((connection, date.fromisoformat(day)), set()).add(date.fromisoformat(raw_date))
    return found


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


def tell_touched(
    context: dg.AssetExecutionContext,
    raw: RawStore,
    changed: Mapping[tuple[str, date], Collection[date]],
    done: Collection[str],
) -> None:
    """Record that the rows of business dates have changed which are not partitions of this step.

    Dates that have not been fetched are left out: nothing is made of them until they are.

    Args:
        context: the step's context.
        raw: the raw records that the table is made of.
        changed: the connections and business dates, each with the raw dates of the rows.
        done: the partitions that the step records by itself.

    """
    for (connection, day), dates in sorted(changed.items()):
        key = partition_key(connection, day)
        if str(key) in done or not raw.landed(connection, [day]):
            continue
        named = ", ".join(map(str, sorted(dates)[:_NAMED])) + ("" if len(dates) <= _NAMED else " and others")
        context.log_event(
            dg.AssetMaterialization(
                context.asset_key, partition=key, metadata={"rows have changed of raw partitions of": named}
            )
        )
