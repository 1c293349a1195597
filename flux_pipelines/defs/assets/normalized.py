"""Tables that a provider's SQL makes of its streams: `<provider>/transactions`, `<provider>/payments` and so on.

One asset a table, the same for every provider. A step gathers the raw partitions and replaces the table's, connection by
connection, or where one is damaged partition by partition; `transactions` is made by an engine of its own, which streams.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.raw import (
    NOTHING_QUARANTINED,
    partitions_of,
    quarantine_check,
    replace_quarantined,
    stream_partitions,
)
from flux_pipelines.defs.changed_dates import ChangedDates, older_made, older_to_make
from flux_pipelines.defs.checks import (
    CHECK_MEMORY,
    ONE_PERIOD_AT_A_TIME,
    TABLE_RULES,
    TRANSACTION_RULES,
    Check,
    Everything,
    Findings,
    Rows,
    Scope,
    contract,
    no_duplicate_lines,
)
from flux_pipelines.defs.completeness import was_over
from flux_pipelines.defs.conditions import when_upstream_changes
from flux_pipelines.defs.failures import OF_ITS_PARTITION, PartitionsFailed, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.metadata import PREVIEW_ROWS, amounts, preview, rows, table_metadata
from flux_pipelines.defs.partition_alerts import follow_damage, follow_refusals
from flux_pipelines.defs.partition_stats import stats_of
from flux_pipelines.defs.partitions import BACKFILL, keys_of, unit_by_grain
from flux_pipelines.defs.publishing import failures, publish, refused_of
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain import tables
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.errors import FluxError, TableDamagedError, UnknownConnectionError
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.partition import Partition, Unit
from flux_pipelines.domain.tables import Table
from flux_pipelines.lake import CURRENT, hour_of
from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.providers.base import ORDERS, Grain, Location, Provider, StreamTable

if TYPE_CHECKING:
    import pyarrow as pa

    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake import Commit, Draft, RawManifest
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.sync.normalise import Normalisation
    from flux_pipelines.sync.records import BadRecord

Metadata = dict[str, Any]
#: What a step makes: connections, each with its raw partitions by business date.
Found = Sequence[tuple["Connection", Mapping[date, Sequence["RawManifest"]]]]

ORDER_TOTALS = Check(
    "order_totals",
    "Lines plus order-level charges add up to the provider's own order totals, to the cent. Each order is judged when it "
    "is normalised, and goes to quarantine if it does not; here the sums of each partition are compared with those "
    "counted when it was landed. Partitions with quarantined orders differ by those and are left out.",
    "",
)
#: Raw bytes that the SQL is run over at once.
_TOGETHER = 32 * 1024 * 1024


def grain_of(provider: Provider, spec: StreamTable) -> Grain:
    """Return the grain of the stream that a table is made of."""
    return provider.stream(spec.stream).grain


def checks_of(table: Table) -> tuple[Check, ...]:
    """Return what must hold of a provider's table."""
    base = table.name.rpartition("/")[2]
    if base == tables.TRANSACTIONS.name:
        return no_duplicate_lines(table), contract(table, TRANSACTION_RULES, large=True), ORDER_TOTALS
    history = (ONE_PERIOD_AT_A_TIME,) if base == tables.PRODUCTS.name else ()
    return (no_duplicate_lines(table), contract(table, TABLE_RULES.get(base, {})), *history)


def normalized_assets(provider: Provider) -> list[dg.AssetsDefinition]:
    """Return the assets of the tables that are made of a provider's streams."""
    return [normalized_asset(provider, spec) for spec in provider.tables]


def normalized_asset(provider: Provider, spec: StreamTable) -> dg.AssetsDefinition:
    """Return the asset that makes a table of a stream through the provider's SQL."""
    base = tables.named(spec.table)
    table = base.named(f"{provider.name}/{base.name}")
    key = names.provider_table(provider.name, base.name)
    source = names.raw_stream(provider.name, spec.stream)
    grain = grain_of(provider, spec)

    @dg.asset(
        key=key,
        deps=[source],
        partitions_def=stream_partitions(provider, grain),
        backfill_policy=BACKFILL,
        automation_condition=when_upstream_changes(),
        check_specs=[check.spec(key) for check in (*checks_of(table), NOTHING_QUARANTINED)],
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
        step = normalizing(flux.runtime, provider, spec, context.run.run_id)
        partitions = partitions_of(grain, keys_of(context))
        step.run(partitions)
        step.changed_dates.report(context, flux.runtime.raw.of(spec.stream), list(partitions), step.done)
        step.describe(partitions)
        done = {str(unit): told for unit, told in step.done.items()}
        results = [*step.findings.results(), quarantine_check(key, step.bad)]
        if step.failed:
            yield from results
            raise retry_or_fail(context, done, step.failed)
        attach(context, done)
        yield dg.MaterializeResult(asset_key=key, check_results=results)

    return made


def normalizing(
    runtime: "Runtime", provider: Provider, spec: StreamTable, run: str, *, checked: bool = True
) -> "Normalizing":
    """Return a step that makes a provider's table.

    Args:
        runtime: the rooms.
        provider: whose.
        spec: the table and its SQL.
        run: names the step's run.
        checked: whether rows become part of the table only if they pass its blocking checks.

    """
    kind = _Transactions if spec.table == tables.TRANSACTIONS.name else _Transformed
    return kind(runtime, provider, spec, run, checked=checked)


class Normalizing(ABC):
    """One step of a provider's table: what was made, what failed. How rows are made is the subclasses'."""

    #: Whether all connections are written in one commit.
    together: ClassVar[bool]

    def __init__(self, runtime: "Runtime", provider: Provider, spec: StreamTable, run: str, *, checked: bool) -> None:
        self._runtime = runtime
        self._provider = provider
        self._spec = spec
        self._table = tables.named(spec.table).named(f"{provider.name}/{spec.table}")
        self._grain = grain_of(provider, spec)
        self._raw = runtime.raw.of(spec.stream)
        asset = names.provider_table(provider.name, spec.table)
        self._asset = asset.to_user_string()
        self.findings = Findings(checks_of(self._table) if checked else (), asset)
        self.done: dict[Unit, Metadata] = {}
        self.failed: list[PartitionsFailed] = []
        self.bad: list[BadRecord] = []
        self.changed_dates = ChangedDates(runtime, self._table, run)

    def run(self, partitions: Mapping[str, Sequence[date]]) -> None:
        """Make every partition that has raw records; if that cannot be in one commit, each by itself."""
        todo = []
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
            if found:
                todo.append((connection, found))
        for some in [todo] if self.together and todo else [[one] for one in todo]:
            try:
                self._replace(some)
            except OF_ITS_PARTITION:
                for connection, found in some:
                    for day, manifests in found.items():  # one of them is damaged: the others must not suffer for it
                        try:
                            self._replace([(connection, {day: manifests})])
                        except OF_ITS_PARTITION as error:
                            self._damaged(connection.key, day, error)
        self.failed += failures(self.findings.refused)
        refused = refused_of(self.findings, self.failed, lambda one: unit_by_grain(self._grain, one))
        follow_refusals(self._runtime, self._asset, refused, list(self.done))

    @abstractmethod
    def describe(self, partitions: Mapping[str, Sequence[date]]) -> None:
        """Add what is told of each partition's rows."""

    @abstractmethod
    def _replace(self, todo: Found) -> None:
        """Make and commit partitions of connections."""

    def _publish(self, drafting: AbstractContextManager["Draft"], todo: Found) -> "Commit":
        keys = [connection.key for connection, _ in todo]
        where, scope = _rows_of(self._table, keys, sorted({day for _, found in todo for day in found}))
        lake = self._runtime.lake
        commit = publish(lake, self.changed_dates.recording(drafting), self.findings, scope, where=where)
        self.changed_dates.committed(commit)
        return commit

    def _partitions(self, todo: Found) -> list[dict[str, str | date]]:
        of = self._table.day
        if of is None:
            return [{"connection": connection.key} for connection, _ in todo]
        return [{"connection": connection.key, of: day} for connection, found in todo for day in found]

    def _told(self, manifest: "RawManifest", version: int) -> Metadata:
        """Return what is told of every partition that was made."""
        return {
            f"{self._provider.title} API version": manifest.api_version,
            "fetched at": dg.MetadataValue.timestamp(manifest.fetched_at),
            "Delta table version": version,
            names.FETCHED_AT: manifest.fetched_at.timestamp(),
        }

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
                f"{raw} has never been landed for these partitions",
                connection=key,
                next_step=f"Materialise `{raw}` for them first.",
            )
            self._fail(key, never, missing)
        return found

    def _stored(self, key: str, day: date) -> list["RawManifest"]:
        manifest = self._raw.current(key) if self._grain == "current" else self._raw.read_manifest(key, day)
        return [] if manifest is None else [manifest]


def _rows_of(
    table: Table, connections: Sequence[str], days: Sequence[date]
) -> tuple[dict[str, Sequence[str | date]], Rows]:
    """Return the partitions of some connections and days, and the condition that selects their rows."""
    if table.day is None:
        return {"connection": connections}, Everything(tuple(connections))
    return {"connection": connections, table.day: days}, Scope(days, tuple(connections))


class _Transformed(Normalizing):
    """A table whose rows `sync.transform` makes, of any stream."""

    together = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unread: dict[Partition, list[datetime]] = {}

    def describe(self, partitions: Mapping[str, Sequence[date]]) -> None:
        """Add the figures of each partition, by one query for all of them."""
        from flux_pipelines.lake import session

        if not self.done:
            return
        days = sorted({day for of_one in partitions.values() for day in of_one})
        where, scope = _rows_of(self._table, list(partitions), days)
        lake, places = self._runtime.lake, self._runtime.places()
        with session(lake, [self._table.name], where=where, memory_limit=CHECK_MEMORY) as database:
            figures = stats_of(self._table).of(database, scope, list(map(str, self.done)), places=places)
        self.done = {unit: {**figures[str(unit)], **told} for unit, told in self.done.items()}

    def _stored(self, key: str, day: date) -> list["RawManifest"]:
        """Return the day's snapshots that can be read; of the others, which cannot be had again, the table's rows stay."""
        if self._grain != "hour":
            return super()._stored(key, day)
        stored = self._raw.hours(key, day, files=True)
        follow_damage(self._runtime, key, self._raw, stored.damaged)
        if stored.damaged and not stored.readable:
            raise next(iter(stored.damaged.values()))
        self._unread[Partition(key, day)] = [hour_of(slot) for slot in stored.damaged]
        return stored.readable

    def _kept(self, partition: Partition) -> Iterator["pa.RecordBatch"]:
        """Yield the rows that the table has of snapshots which cannot be read any more."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if hours := self._unread.get(partition):
            kept = self._runtime.lake.read(
                self._table, where={"connection": partition.connection, "business_date": partition.business_date}
            ).read_all()
            yield from kept.filter(
                pc.is_in(kept["snapshot_at"], pa.array(hours, kept["snapshot_at"].type))
            ).to_batches()

    def _replace(self, todo: Found) -> None:
        import pyarrow as pa

        ((connection, found),) = todo
        bad: dict[date, list[BadRecord]] = {m.business_date: [] for manifests in found.values() for m in manifests}

        def batches() -> Iterator[pa.RecordBatch]:
            for manifests in _chunks(list(found.values())):
                yield from self._transformed(connection, manifests, bad).to_batches()
            for day in found:
                yield from self._kept(Partition(connection.key, day))

        lake = self._runtime.lake
        made = pa.RecordBatchReader.from_batches(self._table.arrow_schema(), batches())
        commit = self._publish(lake.draft(self._table, made, self._partitions(todo)), todo)
        well = {
            unit: manifests
            for manifests in found.values()
            if (unit := unit_by_grain(self._grain, manifests[-1].partition)) not in self.findings.refused
        }
        if self._spec.table == tables.PAYMENTS.name:  # of a day without any, `tie_out` must know that it was looked at
            there = Counter[str]()
            mine = lake.rows_by_partition(self._table.name, {"connection": connection.key})
            for (_, of_raw, *_), number in mine.items():
                there[of_raw] += number
            for newest in (manifests[-1] for manifests in well.values()):
                made_of = there[newest.business_date.isoformat()]
                self._raw.of(newest.stream).set_made(newest, self._spec.table, made_of)
        kept = replace_quarantined(self._runtime, self._asset, self._grain, connection.key, bad)
        self.bad += [record for of_day in bad.values() for record in of_day]
        for unit, manifests in well.items():
            newest = manifests[-1]
            if newest.stream != OLDER:
                self.done[unit] = {
                    "records": sum(manifest.orders for manifest in manifests),
                    "quarantined": kept[newest.business_date],
                    **self._told(newest, commit.version),
                }

    def _transformed(
        self, connection: "Connection", manifests: Sequence["RawManifest"], bad: dict[date, list["BadRecord"]]
    ) -> "pa.Table":
        """Return the rows of some partitions; what cannot be used is put to `bad`."""
        from flux_pipelines.sync.scd2 import merge
        from flux_pipelines.sync.transform import has_history, transform

        locations = [
            Location(one.location_id, one.name, one.timezone, one.currency, one.active, one.earlier)
            for one in self._runtime.state.locations.list(connection.key)
        ]
        made = transform(self._provider, self._spec, connection, locations, self._raw, manifests)
        for record in made.bad:
            bad[record.partition.business_date].append(record)
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


class _Transactions(Normalizing):
    """`transactions`: rows stream from the raw orders of all connections into one commit, and are counted on the way."""

    together = True

    def describe(self, partitions: Mapping[str, Sequence[date]]) -> None:
        """Do nothing: each partition was described as its rows were counted."""

    def _replace(self, todo: Found) -> None:
        import pyarrow as pa

        from flux_pipelines.sync.normalise import Normalisation

        passes = [
            Normalisation(
                self._provider,
                self._raw,
                connection,
                [manifest for manifests in found.values() for manifest in manifests],
                known_calendars(self._runtime.state.locations.list(connection.key), connection.cutoff_hour),
            )
            for connection, found in todo
        ]
        heads: dict[Partition, pa.Table] = {}

        def batches() -> Iterator[pa.RecordBatch]:
            for normalisation in passes:
                for batch in normalisation.batches():
                    _keep_heads(heads, batch)
                    yield batch

        @contextmanager
        def normalised() -> Iterator["Draft"]:
            made = pa.RecordBatchReader.from_batches(self._table.arrow_schema(), batches())
            with self._runtime.lake.draft(self._table, made, self._partitions(todo)) as draft:
                for normalisation in passes:
                    self._compare(normalisation)
                yield draft

        commit = self._publish(normalised(), todo)
        for normalisation in passes:
            self._record(normalisation, commit.version, heads)

    def _record(self, normalisation: "Normalisation", version: int, heads: Mapping[Partition, "pa.Table"]) -> None:
        key = normalisation.connection.key
        bad = _by_day(normalisation)
        self.bad += normalisation.bad
        places = self._runtime.places()
        kept = replace_quarantined(self._runtime, self._asset, self._grain, key, bad)
        for manifest in normalisation.manifests:
            day, partition = manifest.business_date, manifest.partition
            figures = normalisation.days[day]
            if partition in self.findings.refused:
                continue
            if manifest.stream == OLDER:  # there is no partition of it: the dates that it touches are told
                older_made(self._runtime.raw, manifest, self._spec.table, figures.rows)
                continue
            head = heads.get(partition)
            self.done[partition] = {
                **rows(figures.rows),
                "orders": figures.orders,
                "lines": figures.lines,
                "units": f"{figures.units.normalize():f}",
                **amounts("net", figures.net),
                **amounts("total", figures.total),
                "quarantined": kept[day],
                **self._told(manifest, version),
                "day": "over" if was_over(manifest) else "open",
                names.DATE_WAS_OVER: was_over(manifest),
                "preview": preview(
                    _SHOWN, [] if head is None else [list(row.values()) for row in head.to_pylist()], places=places
                ),
            }

    def _compare(self, normalisation: "Normalisation") -> None:
        """See whether the rows of each partition add up to what the provider says of its orders."""
        bad = _by_day(normalisation)
        for manifest in normalisation.manifests:
            if bad[manifest.business_date] or manifest.stream == OLDER:
                continue
            written = normalisation.days[manifest.business_date].total
            unit = manifest.partition
            sample = []
            for currency in sorted({*written, *manifest.totals}):
                here, there = written.get(currency, Decimal(0)), from_minor(manifest.totals.get(currency, 0), currency)
                if here != there:
                    sample.append((str(unit), currency, f"{here} here, {there} in the raw orders"))
            if sample:
                first = f"{sample[0][1]}: {sample[0][2]}"
                self.findings.add(ORDER_TOTALS, len(sample), sample, {unit: (len(sample), first)})


def _by_day(normalisation: "Normalisation") -> dict[date, list["BadRecord"]]:
    found: dict[date, list[BadRecord]] = {manifest.business_date: [] for manifest in normalisation.manifests}
    for record in normalisation.bad:
        found[record.partition.business_date].append(record)
    return found


_SHOWN = ("location_id", "order_id", "kind", "line_type", "product_name", "quantity", "net", "tax", "total", "currency")


def _keep_heads(heads: dict[Partition, "pa.Table"], batch: "pa.RecordBatch") -> None:
    """Keep the first rows of each partition as they stream by, for the preview."""
    import pyarrow as pa
    import pyarrow.compute as pc

    connection = batch.column("connection")[0].as_py()
    days = batch.column("raw_date")
    for day in pc.unique(days):
        key = Partition(connection, day.as_py())
        head = heads.get(key)
        room = PREVIEW_ROWS - (0 if head is None else head.num_rows)
        if room > 0:
            more = pa.Table.from_batches([batch.filter(pc.equal(days, day)).slice(0, room).select(_SHOWN)])
            heads[key] = more if head is None else pa.concat_tables([head, more])
