"""Tables that a provider's SQL makes of its streams: `<provider>/payments`, `<provider>/products` and so on."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.raw import (
    RECORDS_USABLE,
    key_of,
    partitions_for,
    partitions_of,
    quarantine_check,
    replace_quarantined,
)
from flux_pipelines.defs.changed_dates import ChangedDates, older_to_make
from flux_pipelines.defs.checks import (
    CHECK_MEMORY,
    ONE_PERIOD_AT_A_TIME,
    TABLE_RULES,
    Check,
    Everything,
    Findings,
    Rows,
    Scope,
    contract,
    no_duplicate_lines,
)
from flux_pipelines.defs.conditions import when_upstream_changes
from flux_pipelines.defs.failures import OF_ITS_PARTITION, PartitionsFailed, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.metadata import table_metadata
from flux_pipelines.defs.partition_alerts import follow_damage, follow_refusals
from flux_pipelines.defs.partition_stats import stats_of
from flux_pipelines.defs.partitions import BACKFILL, keys_of
from flux_pipelines.defs.publishing import failures, publish, refused_of
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain import tables
from flux_pipelines.domain.errors import FluxError, TableDamagedError, UnknownConnectionError
from flux_pipelines.domain.tables import Table
from flux_pipelines.lake import CURRENT, hour_of
from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.providers.base import Grain, Location, Provider, StreamTable

if TYPE_CHECKING:
    import pyarrow as pa

    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake import RawManifest
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.sync.records import BadRecord

ORDERS = "orders"
#: Raw bytes that the SQL is run over at once.
_TOGETHER = 32 * 1024 * 1024


def grain_of(provider: Provider, spec: StreamTable) -> Grain:
    """Return the grain of the stream that a table is made of."""
    return "day" if spec.stream == ORDERS else provider.stream(spec.stream).grain


def table_assets(provider: Provider) -> list[dg.AssetsDefinition]:
    """Return the assets of the tables that are made of a provider's streams."""
    return [stream_table(provider, spec) for spec in provider.tables]


def checks_of(table: Table) -> tuple[Check, ...]:
    """Return what must hold of a table that is made of a stream."""
    base = table.name.rpartition("/")[2]
    history = (ONE_PERIOD_AT_A_TIME,) if base == tables.PRODUCTS.name else ()
    return (no_duplicate_lines(table), contract(table, TABLE_RULES.get(base, {})), *history)


def stream_table(provider: Provider, spec: StreamTable) -> dg.AssetsDefinition:
    """Return the asset that makes a table of a stream through the provider's SQL."""
    base = tables.named(spec.table)
    table = base.named(f"{provider.name}/{base.name}")
    key = names.provider_table(provider.name, base.name)
    source = names.raw_stream(provider.name, spec.stream)
    grain = grain_of(provider, spec)
    checks = checks_of(table)

    @dg.asset(
        key=key,
        deps=[source],
        partitions_def=partitions_for(provider, grain),
        backfill_policy=BACKFILL,
        automation_condition=when_upstream_changes(),
        check_specs=[check.spec(key) for check in (*checks, RECORDS_USABLE)],
        group_name=provider.name,
        description=(
            f"{base.description}\n\nMade from `{source.to_user_string()}` by `{spec.sql.name}` in its folder."
        ),
        owners=[provider.owner],
        kinds={"deltalake", "duckdb"},
        tags={"stage": "normalised", "provider": provider.name},
        metadata=table_metadata(table),
        code_version="1",
    )
    def made(
        context: dg.AssetExecutionContext, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        from flux_pipelines.lake import session

        runtime = flux.runtime
        step = _Deriving(runtime, provider, spec, table, grain, Findings(checks, key), context.run_id)
        partitions = partitions_of(grain, keys_of(context))
        step.run(partitions)
        step.changed_dates.tell(context, runtime.raw.of(spec.stream), list(partitions), step.done)
        if step.done:
            days = sorted({day for of_one in partitions.values() for day in of_one})
            where, scope = _rows_of(table, list(partitions), days)
            with session(runtime.lake, [table.name], where=where, memory_limit=CHECK_MEMORY) as database:
                places, told = runtime.places(), stats_of(table)
                step.describe(told.of(database, scope, list(step.done), places=places))
        results = [*step.findings.results(), quarantine_check(key, step.bad)]
        if step.failed:
            yield from results
            raise retry_or_fail(context, step.done, step.failed)
        attach(context, step.done)
        yield dg.MaterializeResult(asset_key=key, check_results=results)

    return made


def _rows_of(
    table: Table, connections: Sequence[str], days: Sequence[date]
) -> tuple[dict[str, Sequence[str | date]], Rows]:
    """Return the partitions of some connections and days, and the condition that selects their rows."""
    if table.day is None:
        return {"connection": connections}, Everything(tuple(connections))
    return {"connection": connections, table.day: days}, Scope(days, tuple(connections))


class _Deriving:
    """One step of a table that is made of a stream."""

    def __init__(
        self,
        runtime: "Runtime",
        provider: Provider,
        spec: StreamTable,
        table: Table,
        grain: Grain,
        findings: Findings,
        run: str,
    ) -> None:
        self._runtime = runtime
        self._provider = provider
        self._spec = spec
        self._table = table
        self._grain = grain
        self.findings = findings
        self._raw = runtime.raw.of(spec.stream)
        self._asset = names.provider_table(provider.name, spec.table).to_user_string()
        self.done: dict[str, dict[str, Any]] = {}
        self.failed: list[PartitionsFailed] = []
        self.bad: list[BadRecord] = []
        self.changed_dates = ChangedDates(runtime, table, run)
        self._unread: dict[tuple[str, date], list[datetime]] = {}

    def run(self, partitions: Mapping[str, Sequence[date]]) -> None:
        """Make every partition that has raw records; connection by connection."""
        for key, days in partitions.items():
            try:
                connection = self._runtime.state.connections.get(key)
            except UnknownConnectionError as error:  # it was removed since
                self._fail(key, days, error)
                continue
            found = self._manifests(key, days)
            if self._spec.stream == ORDERS:
                older = older_to_make(self._raw, key, self._spec.table)
                found |= {manifest.business_date: [manifest] for manifest in older}
            if not found:
                continue
            try:
                self._replace(connection, found)
            except OF_ITS_PARTITION:
                for day, manifests in found.items():  # one of them is damaged: the others must not suffer for it
                    try:
                        self._replace(connection, {day: manifests})
                    except OF_ITS_PARTITION as error:
                        self._damaged(key, day, error)
        self.failed += failures(self.findings.refused)
        refused = refused_of(self.findings, self.failed, lambda key, day: key_of(self._grain, key, day))
        follow_refusals(self._runtime, self._asset, refused, list(self.done))

    def describe(self, figures: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what is told of each partition's rows."""
        for key, entries in figures.items():
            self.done[key] = {**entries, **self.done[key]}

    def _fail(self, key: str, days: Sequence[date], error: FluxError) -> None:
        self.failed.append(PartitionsFailed(key, tuple(days), error))

    def _damaged(self, key: str, day: date, error: FluxError) -> None:
        self._fail(key, [day], error)
        # Of snapshots it has been told, each by its hour.
        if isinstance(error, TableDamagedError) and self._grain != "hour":
            slot = CURRENT if self._grain == "current" else day.isoformat()
            follow_damage(self._runtime, key, self._raw, {slot: error})

    def _manifests(self, key: str, days: Sequence[date]) -> dict[date, list["RawManifest"]]:
        found: dict[date, list[RawManifest]] = {}
        never: list[date] = []
        for day in days:
            try:
                stored = self._stored(key, day)
            except TableDamagedError as error:
                self._damaged(key, day, error)
                continue
            if stored:
                found[day] = stored
            else:
                never.append(day)
        if never:
            raw = names.raw_stream(self._provider.name, self._spec.stream).to_user_string()
            missing = TableDamagedError(
                f"there is nothing of {raw} for these partitions",
                connection=key,
                next_step=f"Materialise `{raw}` for them first.",
            )
            self._fail(key, never, missing)
        return found

    def _stored(self, key: str, day: date) -> list["RawManifest"]:
        if self._grain == "hour":
            return self._snapshots(key, day)
        manifest = self._raw.current(key) if self._grain == "current" else self._raw.read_manifest(key, day)
        return [] if manifest is None else [manifest]

    def _snapshots(self, key: str, day: date) -> list["RawManifest"]:
        """Return the day's snapshots that can be read; of the others, which cannot be had again, the table's rows stay."""
        stored = self._raw.hours(key, day, files=True)
        follow_damage(self._runtime, key, self._raw, stored.damaged)
        if stored.damaged and not stored.readable:
            raise next(iter(stored.damaged.values()))
        self._unread[key, day] = [hour_of(slot) for slot in stored.damaged]
        return stored.readable

    def _kept(self, connection: str, day: date) -> Iterator["pa.RecordBatch"]:
        """Yield the rows that the table has of snapshots which cannot be read any more."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if hours := self._unread.get((connection, day)):
            rows = self._runtime.lake.read(
                self._table, where={"connection": connection, "business_date": day}
            ).read_all()
            yield from rows.filter(
                pc.is_in(rows["snapshot_at"], pa.array(hours, rows["snapshot_at"].type))
            ).to_batches()

    def _replace(self, connection: "Connection", found: Mapping[date, Sequence["RawManifest"]]) -> None:
        import pyarrow as pa

        bad: dict[date, list[BadRecord]] = {m.business_date: [] for manifests in found.values() for m in manifests}

        def batches() -> Iterator[pa.RecordBatch]:
            for manifests in _chunks(list(found.values())):
                yield from self._derived(connection, manifests, bad).to_batches()
            for day in found:
                yield from self._kept(connection.key, day)

        of = self._table.day
        partitions: list[dict[str, str | date]] = (
            [{"connection": connection.key}]
            if of is None
            else [{"connection": connection.key, of: day} for day in found]
        )
        rows = pa.RecordBatchReader.from_batches(self._table.arrow_schema(), batches())
        lake = self._runtime.lake
        where, scope = _rows_of(self._table, [connection.key], sorted(found))
        drafting = self.changed_dates.recording(lake.draft(self._table, rows, partitions))
        commit = publish(lake, drafting, self.findings, scope, where=where)
        self.changed_dates.committed(commit)
        if self._spec.table == tables.PAYMENTS.name:  # of a day without any, `tie_out` must know that it was looked at
            there = Counter[str]()
            for (_, of_raw, *_), number in lake.rows_by_partition(
                self._table.name, {"connection": connection.key}
            ).items():
                there[of_raw] += number
            for day, manifests in found.items():
                if key_of(self._grain, connection.key, day) not in self.findings.refused:
                    newest = manifests[-1]
                    self._raw.of(newest.stream).set_made(newest, self._spec.table, there[day.isoformat()])
        kept = replace_quarantined(self._runtime, self._asset, self._grain, connection.key, bad)
        self.bad += [record for of_day in bad.values() for record in of_day]
        for day, manifests in found.items():
            newest = manifests[-1]
            if key_of(self._grain, connection.key, day) in self.findings.refused or newest.stream == OLDER:
                continue
            self.done[key_of(self._grain, connection.key, day)] = {
                "records": sum(manifest.orders for manifest in manifests),
                "quarantined": kept[newest.business_date],
                f"{self._provider.title} API version": newest.api_version,
                names.FETCHED_AT: dg.MetadataValue.timestamp(newest.fetched_at),
                "Delta table version": commit.version,
            }

    def _derived(
        self, connection: "Connection", manifests: Sequence["RawManifest"], bad: dict[date, list["BadRecord"]]
    ) -> "pa.Table":
        """Return the rows of some partitions; what cannot be used is put to `bad`."""
        from flux_pipelines.sync.scd2 import merge
        from flux_pipelines.sync.transform import derive, has_history

        locations = [
            Location(one.location_id, one.name, one.timezone, one.currency, one.active, one.earlier)
            for one in self._runtime.state.locations.list(connection.key)
        ]
        made = derive(self._provider, self._spec, connection, locations, self._raw, manifests)
        for record in made.bad:
            bad[record.business_date].append(record)
        if not has_history(self._table):
            return made.rows
        known = self._runtime.lake.read(self._table, where={"connection": connection.key}).read_all()
        return merge(self._table, known, made.rows, manifests[-1].fetched_at)


def _chunks(partitions: Sequence[Sequence["RawManifest"]]) -> Iterator[list["RawManifest"]]:
    """Give whole partitions together, up to so many bytes."""
    chunk: list[RawManifest] = []
    size = 0
    for manifests in partitions:
        more = sum(manifest.bytes for manifest in manifests)
        if chunk and size + more > _TOGETHER:
            yield chunk
            chunk, size = [], 0
        chunk += manifests
        size += more
    if chunk:
        yield chunk
