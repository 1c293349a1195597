"""The core tables of sales: `transactions` over every provider, then `daily_item_demand`; `daily_sales` is in `agreement`."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.checks import (
    CHECK_MEMORY,
    DEMAND_TIES_TO_TRANSACTIONS,
    TRANSACTION_RULES,
    Check,
    Findings,
    Scope,
    contract,
    equals_its_sources,
    no_duplicate_lines,
)
from flux_pipelines.defs.conditions import when_upstream_changes
from flux_pipelines.defs.failures import explained
from flux_pipelines.defs.metadata import table_metadata
from flux_pipelines.defs.partition_stats import Figures
from flux_pipelines.defs.partitions import BACKFILL, DAY, business_days, each_day, keys_of
from flux_pipelines.defs.publishing import Refused, concluded, damaged_units, leaving_out, publish, unit_at
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain import tables
from flux_pipelines.domain.errors import ContractBrokenError, FluxError, TableDamagedError
from flux_pipelines.domain.partition import Partition, Unit
from flux_pipelines.domain.tables import SQL_TYPES, Table
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    import duckdb

    from flux_pipelines.lake import DeltaLake, Draft
    from flux_pipelines.lake.parquet import Part
    from flux_pipelines.runtime import Runtime

SQL = Path(__file__).with_name("sql")
PLOT_DAYS = 30
_ROWS_A_BATCH = 65_536

Extra = Callable[["duckdb.DuckDBPyConnection", Scope], Mapping[str, Mapping[str, Any]]]
Without = Mapping[str, Collection["Part"]]
#: Stages business dates. Units that are refused stay as they are; partitions of what is read are left out.
Writer = Callable[["Runtime", Sequence[date], Collection[Unit], Without], AbstractContextManager["Draft"]]


@dataclass(frozen=True, slots=True)
class Written:
    """What a step has made of its partitions, and of others that had to be made again with them.

    Args:
        done: each one's metadata.
        findings: what the checks found.
        refused: units that could not be had from upstream, each with why.

    """

    done: Mapping[str, Mapping[str, Any]]
    findings: Findings
    refused: Refused


@dataclass(frozen=True, slots=True)
class Mart:
    """A core table that is written a business date at a time.

    Args:
        table: its contract.
        write: stages the business dates.
        sources: the tables that it reads.
        deps: what it is made of, for Dagster.
        group: where it stands in the UI.
        checks: what must hold of what was written.
        figures: what is told of each partition.
        more: further metadata by partition, such as plots.
        reach: how many days before and after its own a date's rows are made of.
        written_alone: whether no run can write its upstream while another writes it.
        code_version: to be raised when what `write` makes of the same input changes.

    """

    table: Table
    write: Writer
    sources: tuple[str, ...]
    deps: tuple[dg.AssetDep, ...]
    group: str
    checks: tuple[Check, ...]
    figures: Figures
    more: Extra | None = None
    reach: int = 0
    written_alone: bool = True
    code_version: str = "1"

    def asset(self) -> dg.AssetsDefinition:
        """Return the Dagster asset."""
        key = dg.AssetKey(self.table.name)

        @dg.asset(
            key=key,
            deps=self.deps,
            partitions_def=business_days(),
            backfill_policy=BACKFILL,
            automation_condition=when_upstream_changes(written_alone=self.written_alone),
            check_specs=[check.spec(key) for check in self.checks],
            group_name=self.group,
            description=self.table.description,
            owners=[names.CORE_OWNER],
            kinds={"deltalake", "duckdb"},
            tags={"stage": "core"},
            metadata=table_metadata(self.table),
            code_version=self.code_version,
        )
        def mart(
            context: dg.AssetExecutionContext, flux: FluxResource
        ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
            keys = keys_of(context)
            with explained(context):
                written = self.replace(flux.runtime, sorted(map(date.fromisoformat, keys)))
            mine = {key: entries for key, entries in written.done.items() if key in keys}
            for partition, entries in written.done.items():
                if partition not in mine:
                    context.log_event(dg.AssetMaterialization(key, partition=partition, metadata=entries))
            yield from concluded(context, flux.runtime, mine, written.findings, written.refused)

        return mart

    def replace(self, runtime: "Runtime", days: Sequence[date]) -> Written:
        """Write business dates, whichever, in one commit, and describe what was written.

        What the checks refuse, and what cannot be read, is left as it was: of a connection and date, not of the others.
        """
        try:
            return self._replace(runtime, days, {})
        except TableDamagedError:
            refused = self._unreadable(runtime.lake, days)
            if not refused:
                raise
        except ContractBrokenError:
            refused = self._misfits(runtime, days)
            if not refused:
                raise
        return self._replace(runtime, days, refused)

    def _unreadable(self, lake: "DeltaLake", days: Sequence[date]) -> dict[Unit, FluxError]:
        """Return the units that cannot be made, because something that they are made of cannot be read."""
        reach = timedelta(days=self.reach)
        around = Scope(days).around(self.reach, self.reach).days
        damaged = damaged_units(lake, self._parts(), {"business_date": around})
        return {
            Partition(unit.connection, near): error
            for unit, error in damaged.items()
            if isinstance(unit, Partition)
            for near in each_day(unit.business_date - reach, unit.business_date + reach)
        }

    def _misfits(self, runtime: "Runtime", days: Sequence[date]) -> dict[Unit, FluxError]:
        """Return the units whose rows do not fit the contract, found by making each of them alone."""
        units = {
            unit
            for part in self._parts()
            for one in runtime.lake.rows_by_partition(part.name, {"business_date": days})
            if isinstance(unit := unit_at(part, one), Partition)
        }
        found: dict[Unit, FluxError] = {}
        for unit in sorted(units):
            day, others = [unit.business_date], units - {unit}
            try:
                with self.write(runtime, day, others, self._without(runtime, day, others)):
                    pass
            except ContractBrokenError as error:
                found[unit] = ContractBrokenError(error.what, connection=unit.connection)
        return found

    def _without(self, runtime: "Runtime", days: Sequence[date], refused: Collection[Unit]) -> dict[str, set["Part"]]:
        """Return what is left out of the tables that are read: what is refused, and dates that nobody has asked for yet.

        Orders of a date that was fetched may count on one that was not. Until that is fetched too, its figures would be
        those of a few orders, and look like all of them.
        """
        without = leaving_out(self.sources, refused)
        for part in self._parts():
            if part.landed_by == part.partition_by:
                without[part.name] = without.get(part.name, set()) | unfetched(runtime, part, days)
        return without

    def _parts(self) -> list[Table]:
        return [tables.named(name.rpartition("/")[2]).named(name) for name in self.sources]

    def _replace(self, runtime: "Runtime", days: Sequence[date], refused: Refused) -> Written:
        lake, key = runtime.lake, dg.AssetKey(self.table.name)
        without = self._without(runtime, days, refused)
        findings = Findings(self.checks, key)
        scope = Scope(days)
        since = scope.around(PLOT_DAYS - 1)
        told: dict[str, dict[str, Any]] = {}

        def describe(database: "duckdb.DuckDBPyConnection") -> None:
            places = runtime.places()
            figures = self.figures.of(database, scope, [day.isoformat() for day in days], places=places)
            more = self.more(database, scope) if self.more else {}
            told.update({key: {**more.get(key, {}), **entries} for key, entries in figures.items()})

        commit = publish(
            lake,
            self.write(runtime, days, refused, without),
            findings,
            scope,
            reads=set[str]().union(*(check.reads for check in self.checks)),
            where={"business_date": since.days},
            held=since.where("business_date"),
            refused=refused,
            without=without,
            describe=describe,
        )
        done = {key: {**entries, "Delta table version": commit.version} for key, entries in told.items()}
        mine = {unit: why for unit, why in refused.items() if isinstance(unit, str) or unit.business_date in days}
        return Written(done, findings, mine)


def by_query(table: Table, query: str) -> Writer:
    """Return the writer that replaces business dates with what a query over `transactions` says."""
    sources = [tables.TRANSACTIONS.name]

    @contextmanager
    def write(runtime: "Runtime", days: Sequence[date], _: Collection[Unit], without: Without) -> Iterator["Draft"]:
        from flux_pipelines.lake import session

        with session(
            runtime.lake, sources, where={"business_date": days}, memory_limit=CHECK_MEMORY, without=without
        ) as database:
            scoped = query.replace("{scope}", Scope(days).where("business_date"))
            rows = database.sql(conform(table, scoped)).to_arrow_reader(_ROWS_A_BATCH)
            with runtime.lake.draft(table, rows, [{"business_date": day} for day in days]) as draft:
                yield draft

    return write


def union_of_providers(table: Table) -> Writer:
    """Return the writer that replaces business dates with the providers' rows, streamed: they have one contract already."""

    def write(
        runtime: "Runtime", days: Sequence[date], refused: Collection[Unit], without: Without
    ) -> AbstractContextManager["Draft"]:
        return union_draft(runtime.lake, table, {"business_date": days}, refused, without)

    return write


def parts_of(table: Table) -> list[Table]:
    """Return the providers' own parts of a core table."""
    return [table.named(f"{provider.name}/{table.name}") for provider in names.with_table(table.name)]


def unfetched(runtime: "Runtime", part: Table, days: Sequence[date]) -> set["Part"]:
    """Return the partitions of a provider's part of a table whose business date its connection has not been asked for."""
    provider, _, base = part.name.partition("/")
    raw = runtime.raw.of(stream_of(provider, base))
    touched: dict[str, set[date]] = {}
    for connection, _, day in runtime.lake.rows_by_partition(part.name, {"business_date": days}):
        touched.setdefault(connection, set()).add(date.fromisoformat(day))
    return {
        (connection, None, day.isoformat())
        for connection, dates in touched.items()
        for day in dates - raw.landed(connection, dates)
    }


def stream_of(provider: str, table: str) -> str:
    """Return which of a provider's raw records a table is made of."""
    return provider_named(provider).table(table).stream


def union_draft(
    lake: "DeltaLake",
    table: Table,
    where: Mapping[str, Sequence[date]],
    refused: Collection[Unit],
    without: Without,
) -> AbstractContextManager["Draft"]:
    """Stage partitions of a core table with the rows that the providers' own parts of it have.

    Args:
        lake: where the tables are.
        table: the core table.
        where: which partitions; all of them if empty.
        refused: units that are left as they are.
        without: partitions of the providers' own parts that are left out.

    """
    import pyarrow as pa

    sources = parts_of(table)
    # Also what is there now: a connection that has no rows left must lose its old ones.
    present = {
        tuple(values[name] for name in table.partition_by)
        for one in (*sources, table)
        for key in lake.rows_by_partition(one.name, where)
        if (values := dict(zip(one.partition_by, key, strict=True)))
    } - leaving_out([table.name], refused).get(table.name, set())
    rows = (
        batch for source in sources for batch in lake.read(source, where=where, without=without.get(source.name, ()))
    )
    return lake.draft(
        table,
        pa.RecordBatchReader.from_batches(table.arrow_schema(), rows),
        [dict(zip(table.partition_by, key, strict=True)) for key in sorted(present)],
    )


def conform(table: Table, query: str) -> str:
    """Wrap a query so that its columns have the contract's order and types."""
    columns = ", ".join(f"{column.name}::{SQL_TYPES[column.type]} as {column.name}" for column in table)
    return f"select {columns} from ({query})"


def marts() -> list[dg.AssetsDefinition]:
    """Return the core assets of sales, but for `daily_sales` (`agreement`)."""
    return [mart.asset() for mart in (transactions(), daily_item_demand())]


def transactions() -> Mart:
    """Return the union of every provider's transactions."""
    sources = [f"{provider.name}/{tables.TRANSACTIONS.name}" for provider in names.sources()]
    by_day = dg.MultiToSingleDimensionPartitionMapping(DAY)
    return Mart(
        tables.TRANSACTIONS,
        union_of_providers(tables.TRANSACTIONS),
        tuple(sources),
        tuple(dg.AssetDep(names.provider_transactions(p.name), partition_mapping=by_day) for p in names.sources()),
        names.SALES_GROUP,
        (
            no_duplicate_lines(tables.TRANSACTIONS),
            contract(tables.TRANSACTIONS, TRANSACTION_RULES, large=True),
            equals_its_sources(sources),
        ),
        transaction_figures("transactions", by=("business_date",)),
        written_alone=False,  # a sync of one connection may land while another's rows are being read
    )


def transaction_figures(view: str, by: tuple[str, ...]) -> Figures:
    """Return what is told of a partition of transactions, a provider's or the core's."""
    return Figures(
        view,
        day="business_date",
        by=by,
        counts=(
            ("orders", "count(distinct (connection, order_id)) filter (kind in ('sale', 'return'))"),
            ("returns", "count(*) filter (kind = 'return')"),
            ("voids", "count(distinct (connection, order_id)) filter (kind = 'void')"),
        ),
        money=(("net", "net"), ("total", "total")),
        shown=("location_id", "order_id", "kind", "line_type", "product_name", "quantity", "net", "tax", "total"),
        order=("connection", "order_id", "line_id"),
    )


def daily_item_demand() -> Mart:
    """Return how many of each product each store sold on each business date."""
    return Mart(
        tables.DAILY_ITEM_DEMAND,
        by_query(tables.DAILY_ITEM_DEMAND, (SQL / "daily_item_demand.sql").read_text()),
        (tables.TRANSACTIONS.name,),
        (dg.AssetDep(names.TRANSACTIONS),),
        names.DEMAND_GROUP,
        (
            no_duplicate_lines(tables.DAILY_ITEM_DEMAND),
            contract(tables.DAILY_ITEM_DEMAND, {}),
            DEMAND_TIES_TO_TRANSACTIONS,
        ),
        Figures(
            "daily_item_demand",
            day="business_date",
            by=("business_date",),
            counts=(("products", "count(distinct (connection, product_id))"),),
            money=(("net", "net"),),
            shown=("connection", "location_id", "product_name", "variation", "quantity", "net", "currency"),
            order=("-quantity", "connection", "location_id", "product_id", "currency"),
        ),
    )
