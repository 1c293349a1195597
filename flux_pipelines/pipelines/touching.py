"""Rows of one raw partition count on several business dates: what a landing changes is told to the dates it touches.

Dagster knows of a provider's table one partition for each connection and date, and core tables follow the date of the
same name. A step that has made rows of one date's raw partition tells the other dates that their rows have changed; then
whatever is made of these dates is made again, and of no others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.pipelines.partitions import partition_key

if TYPE_CHECKING:
    from flux_pipelines.domain.tables import Table
    from flux_pipelines.lake import Commit, RawManifest, RawStore

#: Dates that are named in the metadata of one that they have touched.
_NAMED = 10


def touched(table: Table, commit: Commit) -> dict[tuple[str, date], set[date]]:
    """Return the connections and business dates whose rows a commit has changed, each with the raw dates they are of."""
    found: dict[tuple[str, date], set[date]] = {}
    if table.partition_by == table.landed_by:
        for connection, raw_date, day in commit.changed:
            found.setdefault((connection, date.fromisoformat(day)), set()).add(date.fromisoformat(raw_date))
    return found


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
