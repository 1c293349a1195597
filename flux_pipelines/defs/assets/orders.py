"""A provider's own assets, the same for every provider: `<provider>/raw_orders`, then `<provider>/transactions`.

The work is done by `flux_pipelines.sync`; here its outcomes become materialisations, metadata, checks and failures.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from flux_pipelines.defs import names
from flux_pipelines.defs.changed_dates import ChangedDates, older_made, older_to_make, on_other_dates
from flux_pipelines.defs.checks import (
    SAMPLE,
    TRANSACTION_RULES,
    Check,
    Findings,
    Scope,
    contract,
    no_duplicate_lines,
    result,
)
from flux_pipelines.defs.completeness import was_over
from flux_pipelines.defs.conditions import when_upstream_changes
from flux_pipelines.defs.deleted_orders import deleted_orders
from flux_pipelines.defs.failures import OF_ITS_PARTITION, PartitionsFailed, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.metadata import PREVIEW_ROWS, amounts, preview, rows, table_metadata
from flux_pipelines.defs.partition_alerts import follow_damage, follow_outcomes, follow_refusals
from flux_pipelines.defs.partitions import BACKFILL, by_connection, connection_days, keys_of, partition_key
from flux_pipelines.defs.publishing import failures, publish, refused_of
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.errors import EmptiedError, FluxError, TableDamagedError, UnknownConnectionError
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake.raw_manifest import OLDER
from flux_pipelines.providers.base import Provider

if TYPE_CHECKING:
    import pyarrow as pa

    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake import Draft, RawManifest
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.sync.normalise import Normalisation
    from flux_pipelines.sync.records import BadRecord, DayOutcome

Metadata = dict[str, Any]

COMPLETENESS = Check(
    "completeness",
    "A second, independent query of the provider finds the same orders and totals. `verified`: it does. `unverifiable`: "
    "it could not be asked. `short`: it finds more; run those partitions again, and if they stay short compare them "
    "with the provider's own report. A date with orders that came back empty keeps them, and fails here too.",
    "",
)
ORDER_TOTALS = Check(
    "order_totals",
    "Lines plus order-level charges add up to the provider's own order totals, to the cent. Each order is judged when it "
    "is normalised, and goes to quarantine if it does not; here the sums of each partition are compared with those "
    "counted when it was landed. Partitions with quarantined orders differ by those and are left out.",
    "",
)
NOTHING_QUARANTINED = Check(
    "nothing_quarantined",
    "Every order could be used. If it fails: `flux quarantine list` shows the records with the reason; after a fix, "
    "`flux quarantine replay` takes them in.",
    "",
    blocking=False,
)


class RawOrdersConfig(dg.Config):
    """How orders are fetched."""

    verify: bool = Field(
        default=True,
        description="Prove each partition complete by a second query. Without it half the requests are saved and "
        "partitions are `unverifiable`.",
    )
    accept_empty: bool = Field(
        default=False,
        description="Let business dates that hold orders become empty if the provider says so. Only for dates of which its "
        "own report shows that the orders are really gone.",
    )


def provider_assets(provider: Provider) -> list[dg.AssetsDefinition]:
    """Return the assets of one provider."""
    return [raw_orders(provider), transactions(provider)]


def raw_orders(provider: Provider) -> dg.AssetsDefinition:
    """Return the asset that lands a provider's orders exactly as received."""
    key = names.raw_orders(provider.name)

    @dg.asset(
        key=key,
        partitions_def=connection_days(provider.name),
        backfill_policy=BACKFILL,
        pool=names.pool(provider.name),
        check_specs=[COMPLETENESS.spec(key)],
        group_name=provider.name,
        description=(
            f"{provider.title} orders exactly as received, one file a connection and business date.\n\n"
            f"A partition is replaced whole; a day that is complete is not fetched again by the same sync. API: "
            f"[{provider.title}]({provider.docs_url}), version {provider.api_version}."
        ),
        owners=[provider.owner],
        kinds={provider.name, "json"},
        tags={"stage": "raw", "provider": provider.name},
        metadata={"api version": provider.api_version, "documentation": dg.MetadataValue.url(provider.docs_url)},
        code_version="1",
    )
    def orders(
        context: dg.AssetExecutionContext, config: RawOrdersConfig, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        landing = _Landing(context, flux, provider, config)
        for connection, days in by_connection(keys_of(context)).items():
            landing.land(connection, days)
        check = landing.completeness(key)
        if landing.failed:
            yield check
            raise retry_or_fail(context, landing.done, landing.failed)
        attach(context, landing.done)
        yield dg.MaterializeResult(asset_key=key, check_results=[check])

    return orders


class _Landing:
    """One step of `raw_orders`: what was landed, what failed."""

    def __init__(
        self, context: dg.AssetExecutionContext, flux: FluxResource, provider: Provider, config: RawOrdersConfig
    ) -> None:
        self._context = context
        self._flux = flux
        self._runtime = flux.runtime
        self._provider = provider
        self._config = config
        self.done: dict[str, Metadata] = {}
        self.failed: list[PartitionsFailed] = []
        self._manifests: list[RawManifest] = []
        self._moved_from: dict[str, date] = {}

    def land(self, key: str, days: Sequence[date]) -> None:
        """Land a connection's business dates; a failure of one connection does not touch the others.

        Dates that were fetched before orders of theirs changed, as is seen on the way, are fetched again: a refund of today
        may be of an order of last month.
        """
        asked = frozenset(days)
        stale = self._land(key, days, asked) - asked
        beside = {day for day in stale if day >= self._runtime.settings.start_date}
        if beside:
            self._context.log.info(f"{key}: orders of {len(beside)} other dates have changed since these were fetched")
            self._land(key, sorted(beside), asked)

    def _land(self, key: str, days: Sequence[date], asked: frozenset[date]) -> set[date]:
        """Land business dates; return those that are stale. Partitions that were not asked for are recorded on their own."""
        from flux_pipelines.sync.windowed import read_windowed

        stale: set[date] = set()
        left = dict.fromkeys(days)
        failures: dict[FluxError, list[date]] = {}
        outcomes: list[DayOutcome] = []
        try:
            connection = self._runtime.state.connections.get(key)
            source = self._runtime.source(connection)
            try:
                for outcome in read_windowed(
                    source,
                    connection,
                    self._runtime.refresh_locations(connection, source),
                    days,
                    self._runtime.raw,
                    provider=self._provider,
                    # What is stale has been fetched by this very sync, if by any.
                    token=sync_token(self._context.run) if asked.issuperset(days) else "",
                    verify=self._config.verify,
                    accept_empty=self._config.accept_empty,
                    redact=self._runtime.redactor(connection),
                    deleted={**deleted_orders(self._runtime, key), **self._moved_from},
                ):
                    left.pop(outcome.day, None)
                    outcomes.append(outcome)
                    stale |= outcome.stale
                    if outcome.manifest is not None:
                        self._manifests.append(outcome.manifest)
                    if outcome.error is not None or outcome.manifest is None:
                        failures.setdefault(outcome.error or _unexplained(key, outcome.day), []).append(outcome.day)
                        continue
                    self._land_day(key, outcome.manifest, outcome.bad, alone=outcome.day not in asked)
                if source.by_business_date and asked.issuperset(days):
                    stale |= self._moved(key, [one.manifest for one in outcomes if one.manifest is not None])
            finally:
                source.close()
        except FluxError as error:
            # Where every date has its outcome, it is what was to be done with all of them afterwards.
            failures.setdefault(error, []).extend(left or days)
        else:
            if left:
                failures.setdefault(_unexplained(key, *left), []).extend(left)
        self.failed += [PartitionsFailed(key, tuple(days), error) for error, days in failures.items() if days]
        self._runtime.remember(key, "sync of orders", *(error for error, days in failures.items() if days))
        follow_outcomes(self._runtime, key, self._runtime.raw.stream, outcomes)
        for outcome in outcomes:
            if isinstance(outcome.error, EmptiedError) and outcome.manifest is not None:
                # Not materialised, and still what the partition's page shall say.
                told = raw_metadata(self._provider, outcome.manifest)
                place = partition_key(key, outcome.day)
                asset = names.raw_orders(self._provider.name)
                self._context.log_event(dg.AssetObservation(asset, partition=place, metadata=told))
        return stale

    def _moved(self, key: str, landed: Sequence["RawManifest"]) -> set[date]:
        """Return other dates on which orders are kept that the provider now has on those that were just landed.

        They are deleted from there: a date that keeps nothing else is empty from now on, and that is no mistake of the
        provider's.
        """
        from flux_pipelines.sync.reading import order_lines

        raw, member = self._runtime.raw, self._provider.order_id_field
        here = set[str]().union(*(order_lines(raw, manifest, member) for manifest in landed))
        dates = {manifest.business_date for manifest in landed}
        found = on_other_dates(self._runtime.lake, self._provider.name, key, here, dates)
        for day in found:
            with suppress(TableDamagedError):  # which orders it had is not known, and it is fetched again
                manifest = raw.read_manifest(key, day)
                if manifest is not None:
                    self._moved_from |= dict.fromkeys(order_lines(raw, manifest, member).keys() & here, day)
        return found

    def _land_day(self, connection: str, manifest: "RawManifest", bad: Sequence["BadRecord"], *, alone: bool) -> None:
        day = manifest.business_date
        asset = names.raw_orders(self._provider.name)
        self._runtime.quarantine.replace(asset.to_user_string(), connection, day, bad)
        key, told = partition_key(connection, day), raw_metadata(self._provider, manifest)
        if alone:
            self._context.log_event(dg.AssetMaterialization(asset, partition=key, metadata=told))
            return
        self.done[key] = told
        self._flux.landed(connection, day)

    def completeness(self, asset: dg.AssetKey) -> dg.AssetCheckResult:
        """Return what the second queries said."""
        counts = {"verified": 0, "unverifiable": 0, "short": 0}
        short = []
        for manifest in self._manifests:
            proof = manifest.verification
            counts[proof.status] += 1
            if proof.status == "short":
                what = f"{proof.expected} orders landed, {proof.confirmed} confirmed by {proof.method}: {proof.detail}"
                where = f"{manifest.connection}|{manifest.business_date}"
                short.append((where, f"short by {proof.confirmed - proof.expected}", what))
            elif proof.emptied_at is not None:
                short.append((f"{manifest.connection}|{manifest.business_date}", "came back empty", proof.detail))
        more = {f"partitions {status}": count for status, count in counts.items()}
        return result(COMPLETENESS, asset, len(short), short[:SAMPLE], more)


def sync_token(run: dg.DagsterRun) -> str:
    """Return the name of the sync that a run belongs to: the command line's, or the first run of its retries."""
    return str(run.tags.get(names.SYNC_TAG) or run.root_run_id or run.run_id)


def _unexplained(connection: str, *days: date) -> FluxError:
    return FluxError(
        f"{len(days)} business dates have no outcome", connection=connection, next_step="Report this as a defect."
    )


def raw_metadata(provider: Provider, manifest: "RawManifest") -> Metadata:
    """Return the metadata of a partition of raw orders."""
    proof = manifest.verification
    verified = proof.status if proof.status != "short" else f"short by {proof.confirmed - proof.expected}"
    return {
        **rows(manifest.orders),
        "orders": manifest.orders,
        **amounts("total", {code: from_minor(total, code) for code, total in manifest.totals.items()}),
        "requests": manifest.requests,
        "retries": manifest.retries,
        # Floats: seconds to plot.
        "rate-limit wait (s)": round(manifest.waited_seconds, 3),
        f"{provider.title} API version": manifest.api_version,
        "verification": verified,
        "verified by": proof.method or "nothing",
        "verification detail": proof.detail,
        "quarantined": manifest.quarantined,
        "bytes": manifest.bytes,
        "bytes stored": manifest.compressed_bytes,
        "locations": len(manifest.locations),
        names.FETCHED_AT: dg.MetadataValue.timestamp(manifest.fetched_at),
        "file": manifest.file or "none (no orders)",
        "preview": preview(("state", "orders"), sorted(manifest.states.items())),
    }


def transactions(provider: Provider) -> dg.AssetsDefinition:
    """Return the asset that normalises a provider's raw orders through its SQL."""
    key = names.provider_transactions(provider.name)
    table = TRANSACTIONS.named(f"{provider.name}/{TRANSACTIONS.name}")
    checks = (no_duplicate_lines(table), contract(table, TRANSACTION_RULES, large=True))

    @dg.asset(
        key=key,
        deps=[names.raw_orders(provider.name)],
        partitions_def=connection_days(provider.name),
        backfill_policy=BACKFILL,
        automation_condition=when_upstream_changes(),
        check_specs=[check.spec(key) for check in (*checks, ORDER_TOTALS, NOTHING_QUARANTINED)],
        group_name=provider.name,
        description=f"{table.description}\n\nMade from `{provider.name}/raw_orders` by `transactions.sql` in its folder.",
        owners=[provider.owner],
        kinds={"deltalake", "duckdb"},
        tags={"stage": "normalised", "provider": provider.name},
        metadata=table_metadata(table),
        code_version="1",
    )
    def lines(
        context: dg.AssetExecutionContext, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        step = _Normalising(flux.runtime, provider, Findings((*checks, ORDER_TOTALS), key), context.run_id)
        partitions = by_connection(keys_of(context))
        step.run(partitions)
        results = [*step.findings.results(), step.nothing_quarantined(key)]
        step.changed_dates.tell(context, flux.runtime.raw, list(partitions), step.done)
        if step.failed:
            yield from results
            raise retry_or_fail(context, step.done, step.failed)
        attach(context, step.done)
        yield dg.MaterializeResult(asset_key=key, check_results=results)

    return lines


class _Normalising:
    """One step of a provider's `transactions`."""

    def __init__(self, runtime: "Runtime", provider: Provider, findings: Findings, run: str) -> None:
        self._runtime = runtime
        self._provider = provider
        self._table = TRANSACTIONS.named(f"{provider.name}/{TRANSACTIONS.name}")
        self._asset = names.provider_transactions(provider.name).to_user_string()
        self.findings = findings
        self.done: dict[str, Metadata] = {}
        self.failed: list[PartitionsFailed] = []
        self.changed_dates = ChangedDates(runtime, self._table, run)
        self._bad: list[BadRecord] = []

    def run(self, partitions: Mapping[str, Sequence[date]]) -> None:
        """Normalise everything in one commit; if that cannot be, each partition by itself."""
        todo: list[tuple[Connection, list[RawManifest]]] = []
        for key, days in partitions.items():
            try:
                connection, manifests = self._manifests(key, days)
            except UnknownConnectionError as error:  # it was removed since
                self.failed.append(PartitionsFailed(key, tuple(days), error))
                continue
            manifests += older_to_make(self._runtime.raw, key, TRANSACTIONS.name)
            if manifests:
                todo.append((connection, manifests))
        if not todo:
            return
        try:
            self._replace(todo)
        except OF_ITS_PARTITION:
            for connection, manifests in todo:
                for manifest in manifests:
                    try:
                        self._replace([(connection, [manifest])])
                    except OF_ITS_PARTITION as error:
                        self._damaged(connection.key, manifest.business_date, error)
        self.failed += failures(self.findings.refused)
        refused = refused_of(self.findings, self.failed, partition_key)
        follow_refusals(self._runtime, self._asset, refused, list(self.done))

    def _manifests(self, key: str, days: Sequence[date]) -> tuple["Connection", list["RawManifest"]]:
        connection = self._runtime.state.connections.get(key)
        present: list[RawManifest] = []
        never: list[date] = []
        for day in days:
            try:
                manifest = self._runtime.raw.read_manifest(key, day)
            except TableDamagedError as error:
                self._damaged(key, day, error)
                continue
            if manifest is None:
                never.append(day)
            else:
                present.append(manifest)
        if never:
            missing = TableDamagedError(
                "raw orders of these business dates have never been landed",
                connection=key,
                next_step=f"Materialise `{self._provider.name}/raw_orders` for them first.",
            )
            self.failed.append(PartitionsFailed(key, tuple(never), missing))
        return connection, present

    def _damaged(self, key: str, day: date, error: FluxError) -> None:
        self.failed.append(PartitionsFailed(key, (day,), error))
        if isinstance(error, TableDamagedError):
            follow_damage(self._runtime, key, self._runtime.raw, {day.isoformat(): error})

    def _replace(self, todo: Sequence[tuple["Connection", Sequence["RawManifest"]]]) -> None:
        import pyarrow as pa

        from flux_pipelines.sync.normalise import Normalisation

        passes = [
            (
                Normalisation(
                    self._provider,
                    self._runtime.raw,
                    connection,
                    manifests,
                    known_calendars(self._runtime.state.locations.list(connection.key), connection.cutoff_hour),
                ),
                manifests,
            )
            for connection, manifests in todo
        ]
        heads: dict[str, pa.Table] = {}

        def batches() -> Iterator[pa.RecordBatch]:
            for normalisation, _ in passes:
                for batch in normalisation.batches():
                    _keep_heads(heads, batch)
                    yield batch

        partitions: list[dict[str, str | date]] = [
            {"connection": c.key, "raw_date": m.business_date} for c, manifests in todo for m in manifests
        ]
        days = sorted({manifest.business_date for _, manifests in todo for manifest in manifests})
        scope = Scope(days, tuple(connection.key for connection, _ in todo))
        lake = self._runtime.lake

        @contextmanager
        def normalised() -> Iterator["Draft"]:
            rows = pa.RecordBatchReader.from_batches(self._table.arrow_schema(), batches())
            with lake.draft(self._table, rows, partitions) as draft:
                for normalisation, manifests in passes:
                    self._compare(normalisation, manifests)
                yield draft

        where: dict[str, Sequence[str | date]] = {
            "connection": [connection.key for connection, _ in todo],
            "raw_date": days,
        }
        commit = publish(lake, self.changed_dates.recording(normalised()), self.findings, scope, where=where)
        self.changed_dates.committed(commit)
        for normalisation, manifests in passes:
            self._record(normalisation, manifests, commit.version, heads)

    def _record(
        self,
        normalisation: "Normalisation",
        manifests: Sequence["RawManifest"],
        version: int,
        heads: Mapping[str, "pa.Table"],
    ) -> None:
        key = normalisation.connection.key
        bad = _by_day(normalisation.bad)
        self._bad += normalisation.bad
        places = self._runtime.places()
        for manifest in manifests:
            day = manifest.business_date
            kept = self._runtime.quarantine.replace(self._asset, key, day, bad.get(day, []))
            figures = normalisation.days[day]
            partition = partition_key(key, day)
            if str(partition) in self.findings.refused:
                continue
            if manifest.stream == OLDER:  # there is no partition of it: the dates that it touches are told
                older_made(self._runtime.raw, manifest, TRANSACTIONS.name, figures.rows)
                continue
            head = heads.get(partition)
            self.done[partition] = {
                **rows(figures.rows),
                "orders": figures.orders,
                "lines": figures.lines,
                "units": f"{figures.units.normalize():f}",
                **amounts("net", figures.net),
                **amounts("total", figures.total),
                "quarantined": kept,
                f"{self._provider.title} API version": manifest.api_version,
                names.FETCHED_AT: dg.MetadataValue.timestamp(manifest.fetched_at),
                names.DAY_STATE: names.OVER if was_over(manifest) else names.OPEN,
                "Delta table version": version,
                "preview": preview(
                    _SHOWN, [] if head is None else [list(row.values()) for row in head.to_pylist()], places=places
                ),
            }

    def _compare(self, normalisation: "Normalisation", manifests: Sequence["RawManifest"]) -> None:
        """See whether the rows of each partition add up to what the provider says of its orders."""
        bad = _by_day(normalisation.bad)
        for manifest in manifests:
            if bad.get(manifest.business_date) or manifest.stream == OLDER:
                continue
            written = normalisation.days[manifest.business_date].total
            unit = f"{normalisation.connection.key}|{manifest.business_date}"
            sample = []
            for currency in sorted({*written, *manifest.totals}):
                here, there = written.get(currency, Decimal(0)), from_minor(manifest.totals.get(currency, 0), currency)
                if here != there:
                    sample.append((unit, currency, f"{here} here, {there} in the raw orders"))
            if sample:
                first = f"{sample[0][1]}: {sample[0][2]}"
                self.findings.add(ORDER_TOTALS, len(sample), sample, {unit: (len(sample), first)})

    def nothing_quarantined(self, asset: dg.AssetKey) -> dg.AssetCheckResult:
        """Return which orders could not be used."""
        sample = [
            (f"{bad.connection}|{bad.business_date}", bad.order_id or "unreadable", bad.reason)
            for bad in self._bad[:SAMPLE]
        ]
        return result(NOTHING_QUARANTINED, asset, len(self._bad), sample)


def _by_day(records: Sequence["BadRecord"]) -> dict[date, list["BadRecord"]]:
    found: dict[date, list[BadRecord]] = {}
    for record in records:
        found.setdefault(record.business_date, []).append(record)
    return found


_SHOWN = ("location_id", "order_id", "kind", "line_type", "product_name", "quantity", "net", "tax", "total", "currency")


def _keep_heads(heads: dict[str, "pa.Table"], batch: "pa.RecordBatch") -> None:
    """Keep the first rows of each partition as they stream by, for the preview."""
    import pyarrow as pa
    import pyarrow.compute as pc

    connection = batch.column("connection")[0].as_py()
    days = batch.column("raw_date")
    for day in pc.unique(days):
        key = partition_key(connection, day.as_py())
        head = heads.get(key)
        room = PREVIEW_ROWS - (0 if head is None else head.num_rows)
        if room > 0:
            more = pa.Table.from_batches([batch.filter(pc.equal(days, day)).slice(0, room).select(_SHOWN)])
            heads[key] = more if head is None else pa.concat_tables([head, more])
