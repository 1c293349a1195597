"""What changed on business dates that had been settled: `restatements`, beside `settled_orders`, which it compares with.

A business date of a store is settled once its orders have been fetched after it had ended. What each order came to then
is kept; whenever the date is looked at again and comes to something else, the difference is written down with the orders
that explain it, and the new figures are kept.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.core import conform
from flux_pipelines.defs.checks import CHECK_MEMORY, SAMPLE, Check, Scope, result
from flux_pipelines.defs.completeness import was_over
from flux_pipelines.defs.conditions import when_upstream_changes
from flux_pipelines.defs.failures import explained, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.metadata import PREVIEW_ROWS, preview, rows, table_metadata
from flux_pipelines.defs.partition_alerts import follow_refusals
from flux_pipelines.defs.partitions import BACKFILL, business_days, keys_of
from flux_pipelines.defs.publishing import Refused, damaged_units, failures, leaving_out
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain import tables
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.partition import Partition, Unit

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from flux_pipelines.runtime import Runtime

SETTLED = dg.AssetKey(tables.SETTLED_ORDERS.name)
RESTATEMENTS = dg.AssetKey(tables.RESTATEMENTS.name)
_SQL = Path(__file__).parent.with_name("sql")
# Whose a connection was that has been removed since, the lake says.
_TENANTS = f"""
update settled set tenant = known.tenant
from (
    select connection, any_value(tenant) as tenant
    from (
        select connection, tenant from {tables.TRANSACTIONS.name}
        union all select connection, tenant from {tables.SETTLED_ORDERS.name}
    ) group by connection
) known
where settled.tenant is null and settled.connection = known.connection;
delete from settled where tenant is null
"""
_SHOWN = ("connection", "location_id", "figure", "amount_before", "amount_after", "currency", "reason")

NOTHING_RESTATED = Check(
    "nothing_restated",
    "No business date that was settled has come to something else in this run. If it fails, the rows say from what to what "
    "and because of which orders: tell whoever has closed the books of these dates.",
    "",
    blocking=False,
)


def restatements() -> dg.AssetsDefinition:
    """Return the two assets, written by one step."""

    def spec(table: tables.Table) -> dg.AssetSpec:
        return dg.AssetSpec(
            dg.AssetKey(table.name),
            deps=[names.TRANSACTIONS],
            partitions_def=business_days(),
            automation_condition=when_upstream_changes(),
            group_name=names.SALES_GROUP,
            description=table.description,
            owners=[names.CORE_OWNER],
            kinds={"deltalake", "duckdb"},
            tags={"stage": "core"},
            metadata=table_metadata(table),
            code_version="1",
        )

    @dg.multi_asset(
        name="restatements",
        specs=[spec(tables.RESTATEMENTS), spec(tables.SETTLED_ORDERS)],
        check_specs=[NOTHING_RESTATED.spec(RESTATEMENTS)],
        backfill_policy=BACKFILL,
        can_subset=False,
    )
    def restatements(
        context: dg.AssetExecutionContext, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        days = sorted(date.fromisoformat(key) for key in keys_of(context))
        refused: Refused = {}
        with explained(context):
            try:
                fresh, versions = _compare(flux.runtime, days, refused)
            except TableDamagedError:
                refused = damaged_units(flux.runtime.lake, [tables.TRANSACTIONS], {"business_date": days})
                if not refused:
                    raise
                fresh, versions = _compare(flux.runtime, days, refused)
        told = _told(flux.runtime, days, versions)
        sample = [(f"{row[3]}", f"{row[0]} / {row[2]}", f"{row[5]}: {row[6]} -> {row[7]} {row[4]}") for row in fresh]
        check = result(NOTHING_RESTATED, RESTATEMENTS, len(fresh), sample[:SAMPLE])
        follow_refusals(
            flux.runtime, tables.SETTLED_ORDERS.name, {unit: error.what for unit, error in refused.items()}, days=days
        )
        if refused:
            for key, metadata in told.items():
                for partition, entries in metadata.items():
                    context.log_event(dg.AssetMaterialization(key, partition=partition, metadata=entries))
            yield check
            raise retry_or_fail(context, {}, failures({}, refused), in_part=True)
        for key, metadata in told.items():
            attach(context, metadata, key)
        yield dg.MaterializeResult(asset_key=RESTATEMENTS, check_results=[check])
        yield dg.MaterializeResult(asset_key=SETTLED)

    return restatements


def _compare(
    runtime: "Runtime", days: Sequence[date], refused: Collection[Unit]
) -> tuple[list[tuple[Any, ...]], tuple[int, int]]:
    """Write what changed, then what is settled now; return the new restatements and the tables' versions.

    Of units that are refused nothing is known: they stay as they were settled.
    """
    from flux_pipelines.lake import session

    lake = runtime.lake
    settled = [row for row in _settled(runtime, days) if Partition(row[0], row[3]) not in refused]
    scope = Scope(days).where("t.business_date")
    names_read = [tables.TRANSACTIONS.name, tables.SETTLED_ORDERS.name, tables.RESTATEMENTS.name]
    without = leaving_out([tables.TRANSACTIONS.name], refused)
    with session(
        lake, names_read, where={"business_date": days}, memory_limit=CHECK_MEMORY, without=without
    ) as database:
        database.execute(
            "create temp table settled (connection varchar, tenant varchar, location_id varchar, business_date date, "
            "settled_at timestamp with time zone)"
        )
        if settled:
            database.executemany("insert into settled values (?, ?, ?, ?, ?)", settled)
        database.execute(_TENANTS)
        now = conform(tables.SETTLED_ORDERS, (_SQL / "settled_orders.sql").read_text().replace("{scope}", scope))
        database.execute(f"create temp table now_settled as {now}")
        database.execute(f"create temp table before_settled as from {tables.SETTLED_ORDERS.name}")
        found = conform(tables.RESTATEMENTS, (_SQL / "restatements.sql").read_text())
        database.execute(f"create temp table found as {found}")
        # What was written just before this step died is not written twice.
        key = ", ".join(tables.RESTATEMENTS.key)
        database.execute(
            f"create temp table fresh as from found where ({key}) not in (select ({key}) from {tables.RESTATEMENTS.name})"
        )
        every = f"(from {tables.RESTATEMENTS.name} union all by name from fresh)"
        written = lake.replace(
            tables.RESTATEMENTS,
            _reader(database, f"from {every} order by business_date, restated_at, {key}"),
            [{"business_date": day} for day in days],
        )
        # What is as it was keeps its instant: fetched once more, the same orders leave the table as it is.
        same = ", ".join(column.name for column in tables.SETTLED_ORDERS.columns if column.name != "settled_at")
        unchanged = (
            "select n.* replace (coalesce(b.settled_at, n.settled_at) as settled_at) "
            f"from now_settled n left join before_settled b using ({same}) "
        )
        kept = lake.replace(
            tables.SETTLED_ORDERS,
            _reader(database, f"{unchanged} order by {', '.join(f'n.{name}' for name in tables.SETTLED_ORDERS.key)}"),
            [{"business_date": day, "connection": key} for key, day in sorted({(row[0], row[3]) for row in settled})],
        )
        return database.execute("from fresh order by abs(amount_after - amount_before) desc").fetchall(), (
            written.version,
            kept.version,
        )


def _reader(database: "duckdb.DuckDBPyConnection", query: str) -> "pa.RecordBatchReader":
    return database.sql(query).to_arrow_reader(65_536)


def _settled(runtime: "Runtime", days: Sequence[date]) -> list[tuple[Any, ...]]:
    """Return the stores' dates that were fetched after they had ended: connection, tenant, location, date, when.

    Of every connection that has ever landed something; one that was removed since has no tenant here. Dates that
    `transactions` has not taken as they were fetched last are left out: what is settled of them would be of before.
    """
    wanted = set(days)
    alerted = {alert.connection_key for alert in runtime.state.alerts.open() if alert.kind == "data_refused"}
    lacking = {key: runtime.state.alerts.parts("data_refused", key) for key in alerted}

    def taken(key: str, day: date) -> bool:
        made_of = (names.provider_transactions(split_key(key)[0]), names.TRANSACTIONS)
        return not any(f"{asset.to_user_string()}|{day}" in lacking.get(key, ()) for asset in made_of)

    tenants = {connection.key: connection.tenant for connection in runtime.connections()}
    return [
        (key, tenants.get(key), location, day, manifest.fetched_at)
        for key in runtime.raw.connections()
        for day, manifest in runtime.raw.manifests(key, days[0], days[-1]).items()
        if day in wanted and was_over(manifest) and taken(key, day)
        for location in manifest.locations
    ]


def _told(
    runtime: "Runtime", days: Sequence[date], versions: tuple[int, int]
) -> Mapping[dg.AssetKey, dict[str, dict[str, Any]]]:
    """Return what is told of each partition of the two assets."""
    from flux_pipelines.lake import session

    read = [tables.RESTATEMENTS.name, tables.SETTLED_ORDERS.name]
    found: dict[dg.AssetKey, dict[str, dict[str, Any]]] = {RESTATEMENTS: {}, SETTLED: {}}
    with session(runtime.lake, read, where={"business_date": days}, memory_limit=CHECK_MEMORY) as database:
        changes: dict[date, list[tuple[Any, ...]]] = {}
        for day, *row in database.execute(
            f"select business_date, {', '.join(_SHOWN)} from {tables.RESTATEMENTS.name} order by restated_at desc, "
            "abs(amount_after - amount_before) desc"
        ).fetchall():
            changes.setdefault(day, []).append(tuple(row))
        stores = {
            day: (stores, orders)
            for day, stores, orders in database.execute(
                "select business_date, count(*) filter (order_id = ''), count(*) filter (order_id <> '') "
                f"from {tables.SETTLED_ORDERS.name} group by 1"
            ).fetchall()
        }
    places = runtime.places()
    for day in days:
        mine = changes.get(day, [])
        found[RESTATEMENTS][day.isoformat()] = {
            **rows(len(mine)),
            "Delta table version": versions[0],
            "preview": preview(_SHOWN, mine[:PREVIEW_ROWS], places=places),
        }
        settled, orders = stores.get(day, (0, 0))
        found[SETTLED][day.isoformat()] = {
            **rows(settled + orders),
            "stores settled": settled,
            "orders": orders,
            "Delta table version": versions[1],
        }
    return found
