"""Rows become part of a table only if they pass its blocking checks; what does not pass costs a connection's date, no more.

Rows are staged, the checks look at them as the table would be, and what they refuse is left as the table has it: its last
good version, or nothing. So whatever reads the table, in whatever run, reads what has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from flux_pipelines.defs.checks import CHECK_MEMORY, Findings, Rows, hold, of_units, view_of
from flux_pipelines.defs.failures import PartitionsFailed, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.partition_alerts import follow_refusals
from flux_pipelines.domain.errors import CheckFailedError, ContractBrokenError, FluxError, TableDamagedError
from flux_pipelines.domain.partition import Partition, Unit

if TYPE_CHECKING:
    import duckdb

    from flux_pipelines.domain.tables import Table
    from flux_pipelines.lake import Commit, DeltaLake, Draft
    from flux_pipelines.lake.delta import Where
    from flux_pipelines.lake.parquet import Part
    from flux_pipelines.runtime import Runtime

#: Units that cannot be had, each with the reason.
Refused = Mapping[Unit, FluxError]
Describe = Callable[["duckdb.DuckDBPyConnection"], None]


def publish(
    lake: DeltaLake,
    drafting: AbstractContextManager[Draft],
    findings: Findings,
    scope: Rows,
    *,
    reads: Collection[str] = (),
    where: Where,
    held: str = "",
    refused: Refused | None = None,
    without: Mapping[str, Collection[Part]] | None = None,
    describe: Describe | None = None,
) -> Commit:
    """Commit what passes the checks; `findings.refused` says what does not.

    Args:
        lake: the tables.
        drafting: gives the staged rows.
        findings: the checks, and what they have found before.
        scope: the rows that are meant, of this table and of those it is compared with.
        reads: the tables that the checks read besides.
        where: the partitions of every table that are looked at.
        held: SQL condition of rows that are read once and kept in memory; empty to read files each time.
        refused: units that could not be had from upstream, and are left as they are too.
        without: partitions of the tables read that are left out.
        describe: told of a session in which the table is as it will be.

    """
    upstream = refused or {}

    @contextmanager
    def opened(draft: Draft) -> Iterator[duckdb.DuckDBPyConnection]:
        from flux_pipelines.lake import session

        tables = {draft.table.name, *reads}
        with session(lake, tables, where=where, memory_limit=CHECK_MEMORY, draft=draft, without=without) as database:
            if held:
                for name in tables:
                    rows = sum(lake.rows_by_partition(name, where).values())
                    hold(database, view_of(name), held, rows + (draft.rows if name == draft.table.name else 0))
            yield database

    with ExitStack() as stack:
        draft = stack.enter_context(drafting)
        table = draft.table
        with opened(draft) as database:
            but = of_units(table, upstream)
            findings.look(database, view_of(table.name), table.day or "", scope, but=but)
            bad = {*findings.refused, *upstream}
            if not bad and describe is not None:
                describe(database)
            if bad and not _is_own(table):
                draft = stack.enter_context(_mended(lake, draft, database, scope, bad))
        if bad:
            if _is_own(table):
                draft.leave({_partition(table, unit, table.day or "") for unit in bad})
            if describe is not None:
                with opened(draft) as database:
                    describe(database)
        return draft.commit()


@contextmanager
def _mended(
    lake: DeltaLake, draft: Draft, database: duckdb.DuckDBPyConnection, scope: Rows, bad: Collection[Unit]
) -> Iterator[Draft]:
    """Stage the rows again, of the units that are bad those that the table has now."""
    table, day = draft.table, cast(str, draft.table.day)
    partitions = [
        {name: value for name, value in zip(table.partition_by, one, strict=True) if value is not None}
        for one in draft.partitions
    ]
    days = [date.fromisoformat(one[day]) for one in partitions]
    units = of_units(table, bad)
    database.register("published_before", lake.read(table, where={day: days}).read_all())
    rows = database.sql(
        f"(select * from {view_of(table.name)} where {scope.where(day)} and not {units}) union all by name "
        f"(select * from published_before where {units}) order by {', '.join(table.key)}"
    ).to_arrow_table()
    with lake.draft(table, rows.select(table.column_names), partitions) as again:
        yield again


def failures(refused: Mapping[Unit, str], upstream: Refused | None = None) -> list[PartitionsFailed]:
    """Return what was refused as failures, each with what to do.

    Args:
        refused: units that blocking checks refused, with the reason.
        upstream: units that could not be had at all.

    """
    found: list[PartitionsFailed] = []
    whys: list[tuple[Unit, str | FluxError]] = [*refused.items(), *(upstream or {}).items()]
    for unit, why in whys:
        connection, days = (unit.connection, (unit.business_date,)) if isinstance(unit, Partition) else (unit, ())
        error = CheckFailedError(why, connection=connection) if isinstance(why, str) else why
        found.append(PartitionsFailed(connection, days, error))
    return found


def refused_of(
    findings: Findings, failed: Sequence[PartitionsFailed], unit: Callable[[Partition], Unit]
) -> dict[Unit, str]:
    """Return the units of a provider's table that are not as they came: refused by checks, or not of the contract.

    Args:
        findings: what the checks found.
        failed: what failed, for whatever reason.
        unit: says what a partition is of in the table.

    """
    misfits = {
        unit(Partition(failure.connection, day)): failure.error.what
        for failure in failed
        if isinstance(failure.error, ContractBrokenError)
        for day in failure.days
    }
    return {**findings.refused, **misfits}


def concluded(
    context: dg.AssetExecutionContext,
    runtime: Runtime,
    done: Mapping[str, Mapping[str, Any]],
    findings: Findings,
    upstream: Refused | None = None,
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
    """Yield what a step of a core table has made; raise if some of it was left as it was.

    Args:
        context: the asset's context.
        runtime: the rooms.
        done: metadata of each partition; under the empty key that of an asset without any.
        findings: what the checks found.
        upstream: units that could not be had at all.

    """
    failed = failures(findings.refused, upstream)
    refused = {**findings.refused, **{unit: error.what for unit, error in (upstream or {}).items()}}
    asset = context.asset_key.to_user_string()
    if done.keys() == {""}:
        well = [connection.key for connection in runtime.connections() if connection.key not in refused]
        follow_refusals(runtime, asset, refused, well)
    else:
        follow_refusals(runtime, asset, refused, days=[date.fromisoformat(key) for key in done])
    if failed:
        yield from findings.results()
        raise retry_or_fail(context, done, failed, in_part=True)
    alone = done.get("")
    if alone is None:
        attach(context, done)
    yield dg.MaterializeResult(metadata=alone, check_results=findings.results())


def damaged_units(lake: DeltaLake, tables: Sequence[Table], where: Where) -> dict[Unit, FluxError]:
    """Return the units of tables whose files cannot be read, each with why; to be asked once reading has failed."""
    found: dict[Unit, FluxError] = {}
    for table in tables:
        for partition in lake.rows_by_partition(table.name, where):
            values = dict(zip(table.partition_by, partition, strict=True))
            try:
                for _ in lake.read(table, where=values):
                    pass
            except TableDamagedError as error:
                found[unit_at(table, partition)] = TableDamagedError(
                    error.what, connection=values.get("connection"), next_step=error.next_step
                )
    return found


def leaving_out(names: Collection[str], units: Collection[Unit]) -> dict[str, set[Part]]:
    """Return the partitions of tables that a core table's units are made of, for sessions that are to leave them out."""
    from flux_pipelines.domain import tables

    found = {name: tables.named(name.rpartition("/")[2]).named(name) for name in names} if units else {}
    return {
        name: {_partition(table, unit, table.dated) for unit in units}
        for name, table in found.items()
        if _is_own(table)
    }


def unit_at(table: Table, part: Part) -> Unit:
    """Return the unit whose rows a partition of a table has."""
    values = dict(zip(table.partition_by, part, strict=True))
    connection, day = cast(str, values["connection"]), values.get(table.dated)
    return connection if day is None else Partition(connection, date.fromisoformat(day))


def _is_own(table: Table) -> bool:
    """Tell whether a unit of a table is a partition of its own."""
    return set(table.unit) <= set(table.partition_by)


def _partition(table: Table, unit: Unit, day: str) -> Part:
    connection, of = (unit.connection, str(unit.business_date)) if isinstance(unit, Partition) else (unit, None)
    values = {"connection": connection, day: of}
    return tuple(values.get(name) for name in table.partition_by)
