"""Makes tables again from the raw records: those that an earlier version of Flux made and that no longer fit their contract.

No provider is asked. What was made before is set aside, not deleted. Of connections that have been removed since, rows are
taken over as they were: their raw records can be read, but nobody knows any more whose they were.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.normalized import grain_of
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.driver import driving
from flux_pipelines.domain import tables
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.tables import Table
from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    import pyarrow as pa

    from flux_pipelines.defs.driver import Driver
    from flux_pipelines.lake import DeltaLake
    from flux_pipelines.runtime import Runtime


#: The tables that a rebuild has set aside and has not made again yet, with the folders where they are.
_UNFINISHED = "rebuild"


def unfinished(runtime: Runtime) -> dict[str, str]:
    """Return the tables that a rebuild which was cut short has still to make, each with the folder it was set aside in."""
    return dict(runtime.state.cursors.get(_UNFINISHED) or {})


def rebuild(runtime: Runtime) -> tuple[list[str], list[date], list[str]]:
    """Make outdated tables, and everything that is made of them, again; go on with what was not finished.

    Returns:
        The names of the tables, the business dates that were made, and what failed, each with what to do.

    """
    lake = runtime.lake
    outdated = {table.name for table in lake.outdated()}
    before = unfinished(runtime)
    at = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    before |= {name: f"superseded/{name}-{at}" for name in outdated}
    if not before:
        return [], [], []
    # Written down before anything is moved: a rebuild that is cut short is not finished because nothing is outdated any more.
    runtime.state.cursors.set(_UNFINISHED, before)
    for name in sorted(outdated):
        lake.set_aside(name, before[name])
    old = [tables.named(name.rpartition("/")[2]).named(name) for name in sorted(before)]
    known = {connection.key for connection in runtime.connections()}
    days: set[date] = set()
    with driving(runtime, build_definitions) as driver:
        for key in runtime.raw.connections():
            if key in known and split_key(key)[0] in {one.name for one in names.sources()}:
                days |= _again(runtime, driver, key, {table.name for table in old})
        for table in old:
            if "/" in table.name:
                days |= _taken_over(lake, table, before[table.name], known)
        wanted = sorted(day for day in days if day >= runtime.settings.start_date)
        driver.materialise_core(wanted)
        driver.refresh_books(wanted)
        # What failed is told, and is made like any other partition that failed.
        runtime.state.cursors.delete(_UNFINISHED)
        return sorted(before), wanted, driver.failures


def _again(runtime: Runtime, driver: Driver, key: str, old: set[str]) -> set[date]:
    """Make a connection's own tables again, of every date that has been fetched."""
    spec = provider_named(split_key(key)[0])
    done: set[date] = set()
    again = [table for table in spec.tables if f"{spec.name}/{table.table}" in old]
    for table in again:
        runtime.raw.of(OLDER).unmake(key, table.table)
    for table in again:
        if grain_of(spec, table) == "day":
            raw = runtime.raw.of(table.stream)
            done |= driver.make(spec, table, key, sorted(raw.landed(key, raw.days(key))))
    return done


def _taken_over(lake: DeltaLake, table: Table, before: str, known: set[str]) -> set[date]:
    """Take over the rows of connections that have been removed; return their business dates."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = lake.read_elsewhere(before)
    if rows is None:
        return set()
    rows = rows.filter(pc.invert(pc.is_in(rows["connection"], pa.array(sorted(known), pa.string()))))
    if not rows.num_rows or table.day is None:
        return set()
    rows = _fitted(rows, table)
    pairs = {(one["connection"], one[table.day]) for one in rows.select(["connection", table.day]).to_pylist()}
    lake.replace(table, rows, [{"connection": key, table.day: day} for key, day in sorted(pairs)])
    return set(rows["business_date"].unique().to_pylist())


def _fitted(rows: pa.Table, table: Table) -> pa.Table:
    """Return rows with the columns of a contract: one that they lack is as it was understood before, or zero, or empty."""
    import pyarrow as pa

    there = set(rows.column_names)
    columns: list[Any] = []
    for column, field in zip(table, table.arrow_schema(), strict=True):
        if column.name in there:
            columns.append(rows[column.name].cast(field.type))
        elif column.name == "raw_date":
            columns.append(rows["business_date"].cast(field.type))
        else:
            nothing = pa.scalar(0 if column.required else None, field.type)
            columns.append(pa.repeat(nothing, rows.num_rows))
    return pa.table(columns, schema=table.arrow_schema())
