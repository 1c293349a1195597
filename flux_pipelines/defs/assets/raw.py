"""What a provider is asked for, as received: `<provider>/raw_<stream>`, the same for every provider and stream.

The work is done by `flux_pipelines.sync`; here its outcomes become materialisations, metadata, checks and failures. What
differs between streams is how they are fetched: a step for orders, which are windowed and proven, one for daily streams, and
one for those of which there is only the present.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from pydantic import Field

from flux_pipelines.defs import names
from flux_pipelines.defs.changed_dates import on_other_dates
from flux_pipelines.defs.checks import SAMPLE, Check, result
from flux_pipelines.defs.deleted_orders import deleted_orders
from flux_pipelines.defs.failures import PartitionsFailed, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.metadata import amounts, preview, rows
from flux_pipelines.defs.partition_alerts import follow_damage, follow_outcomes
from flux_pipelines.defs.partitions import (
    BACKFILL,
    by_connection,
    connection_days,
    connections_of,
    keys_of,
    unit_by_grain,
)
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.errors import (
    DayNotReadyError,
    EmptiedError,
    FluxError,
    HistoryUnavailableError,
    TableDamagedError,
)
from flux_pipelines.domain.money import from_minor
from flux_pipelines.domain.partition import Partition
from flux_pipelines.lake import CURRENT
from flux_pipelines.providers.base import Grain, Provider, Strategy, Stream
from flux_pipelines.providers.resource import ProviderResource

if TYPE_CHECKING:
    from flux_pipelines.lake import RawManifest, RawStore
    from flux_pipelines.sync.context import SyncContext
    from flux_pipelines.sync.records import BadRecord, DayOutcome

Metadata = dict[str, Any]

COMPLETENESS = Check(
    "completeness",
    "A second, independent query of the provider finds the same orders and totals. `verified`: it does. `unverifiable`: "
    "it could not be asked. `short`: it finds more; run those partitions again, and if they stay short compare them "
    "with the provider's own report. A date with orders that came back empty keeps them, and fails here too.",
    "",
)
NOTHING_QUARANTINED = Check(
    "nothing_quarantined",
    "Every record could be used. If it fails: `flux quarantine list` shows the records with the reason; after a fix, "
    "run the partition again, or `flux quarantine replay` for all of them.",
    "",
    blocking=False,
)


class RawConfig(dg.Config):
    """How a stream is fetched."""

    accept_empty: bool = Field(
        default=False,
        description="Let partitions that hold records become empty if the provider says so. Only when its own report shows "
        "that the records are really gone.",
    )


class RawOrdersConfig(RawConfig):
    """How orders are fetched."""

    verify: bool = Field(
        default=True,
        description="Prove each partition complete by a second query. Without it half the requests are saved and "
        "partitions are `unverifiable`.",
    )


_BY_DATE = "one file a connection and business date. A partition is replaced whole."
_PARTITIONS: dict[Strategy, str] = {
    "windowed": f"{_BY_DATE} A date that is complete is not fetched again by the same sync.",
    "daily": _BY_DATE,
    "hourly": (
        "a snapshot an hour, kept by connection and (UTC) date. Running today's partition takes the snapshot of this "
        "hour; the past cannot be asked for, so a date without snapshots fails and stays missing."
    ),
    "current": "whatever there is now, one file a connection. A run replaces it.",
}


def stream_partitions(provider: Provider, grain: Grain) -> dg.PartitionsDefinition[str]:
    """Return the partitions of what comes of a stream of a grain."""
    return connections_of(provider.name) if grain == "current" else connection_days(provider.name)


def raw_assets(provider: Provider) -> list[dg.AssetsDefinition]:
    """Return the raw assets of a provider's streams."""
    return [raw_asset(provider, stream) for stream in provider.streams]


def raw_asset(provider: Provider, stream: Stream) -> dg.AssetsDefinition:
    """Return the asset that stores a stream exactly as received."""
    key = names.raw_stream(provider.name, stream.name)
    reading = _STEPS[stream.strategy]

    @dg.asset(
        key=key,
        partitions_def=stream_partitions(provider, stream.grain),
        backfill_policy=BACKFILL,
        pool=names.pool(provider.name),
        check_specs=[reading.check.spec(key)],
        group_name=provider.name,
        description=(
            f"{provider.title} {stream.title} exactly as received, but for what is personal: {_PARTITIONS[stream.strategy]}"
            f"\n\nAPI: [{provider.title}]({provider.docs_url}), version {provider.api_version}."
        ),
        owners=[provider.owner],
        kinds={provider.name, "json"},
        tags={"stage": "raw", "provider": provider.name},
        metadata={"api version": provider.api_version, "documentation": dg.MetadataValue.url(provider.docs_url)},
        code_version="1",
        # By name, so that the UI's page of the provider's resource lists who uses it.
        required_resource_keys={"flux", provider.name},
    )
    def records(
        context: dg.AssetExecutionContext,
        config: reading.config,  # type: ignore[name-defined]
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        step = reading(context, provider, stream, config)
        for connection, days in partitions_of(stream.grain, keys_of(context)).items():
            step.read(connection, days)
        check = step.checked()
        if step.failed:
            yield check
            raise retry_or_fail(context, step.done, step.failed)
        attach(context, step.done)
        yield dg.MaterializeResult(asset_key=key, check_results=[check])

    return records


def partitions_of(grain: Grain, keys: Iterable[str]) -> dict[str, list[date]]:
    """Group a step's partition keys: each connection with its days; with the present one for what there is now."""
    if grain == "current":
        today = datetime.now(UTC).date()
        return {key: [today] for key in keys}
    return by_connection(map(Partition.parse, keys))


def newest_manifest(orders: "RawStore", stream: Stream, partition: Partition) -> "RawManifest | None":
    """Return what is stored of a stream's partition: the newest snapshot, if it is one of many.

    What cannot be read is as good as not stored: whoever asks has it fetched again.

    Args:
        orders: the raw records of any stream of the lake.
        stream: which stream.
        partition: which partition; its date is of no matter for what there is now.

    """
    raw, connection, day = orders.of(stream.name), partition.connection, partition.business_date
    if stream.grain == "hour":
        stored = raw.hours(connection, day)
    else:
        stored = raw.look(connection, [CURRENT if stream.grain == "current" else day.isoformat()])
    return max(stored.readable, key=lambda manifest: manifest.fetched_at, default=None)


def quarantine_check(asset: dg.AssetKey, bad: Sequence["BadRecord"]) -> dg.AssetCheckResult:
    """Return which records could not be used."""
    sample = [(str(one.partition), one.order_id or "a record", one.reason) for one in bad[:SAMPLE]]
    return result(NOTHING_QUARANTINED, asset, len(bad), sample)


class _Reading(ABC):
    """One step of a raw asset: what was stored, what failed. How the partitions are read is the subclasses'."""

    check: ClassVar = NOTHING_QUARANTINED
    config: ClassVar[type[RawConfig]] = RawConfig

    def __init__(self, context: dg.AssetExecutionContext, provider: Provider, stream: Stream, config: Any) -> None:
        self._context = context
        self._flux: FluxResource = context.resources.flux
        self._runtime = self._flux.runtime
        self._api: ProviderResource = getattr(context.resources, provider.name)
        self._provider = provider
        self._stream = stream
        self._config = config
        self._raw = self._runtime.raw.of(stream.name)
        self._asset = names.raw_stream(provider.name, stream.name)
        self._bad: list[BadRecord] = []
        self.done: dict[str, Metadata] = {}
        self.failed: list[PartitionsFailed] = []

    def read(self, key: str, days: Sequence[date]) -> None:
        """Read a connection's partitions; a failure of one connection does not touch the others."""
        self._read(key, days)

    def checked(self) -> dg.AssetCheckResult:
        """Return the result of the asset's check."""
        return quarantine_check(self._asset, self._bad)

    def _read(self, key: str, days: Sequence[date]) -> None:
        left = dict.fromkeys(days)
        failures: dict[FluxError, list[date]] = {}
        outcomes: list[DayOutcome] = []
        try:
            for outcome in self._outcomes(key, days) if days else ():
                left.pop(outcome.day, None)
                outcomes.append(outcome)
                if outcome.error is not None or outcome.manifest is None:
                    failures.setdefault(outcome.error or _unexplained(key, outcome.day), []).append(outcome.day)
                else:
                    self._store(key, outcome.manifest, outcome.bad)
        except FluxError as error:
            # Where every date has its outcome, it is what was to be done with all of them afterwards.
            failures.setdefault(error, []).extend(left or days)
        else:
            if left:
                failures.setdefault(_unexplained(key, *left), []).extend(left)
        for why, failed in failures.items():
            self._fail(key, failed, why)
        errors = (one.error for one in self.failed if one.connection == key)
        self._runtime.remember(key, f"sync of {self._stream.name}", *errors)
        follow_outcomes(self._runtime, key, self._stream.name, outcomes)
        for outcome in outcomes:
            if isinstance(outcome.error, EmptiedError) and outcome.manifest is not None and self._stream.grain == "day":
                # Not materialised, and still what the partition's page shall say.
                told = raw_metadata(self._provider, self._stream, [outcome.manifest])
                place = str(outcome.manifest.partition)
                self._context.log_event(dg.AssetObservation(self._asset, partition=place, metadata=told))

    @abstractmethod
    def _outcomes(self, key: str, days: Sequence[date]) -> Iterator["DayOutcome"]:
        """Read days of a connection, and yield what became of each."""

    @contextmanager
    def _opened(self, key: str) -> Iterator["SyncContext"]:
        """Open what a connection is read with."""
        from flux_pipelines.sync.context import SyncContext

        connection = self._runtime.state.connections.get(key)
        with self._api.open(self._runtime, connection) as source:
            yield SyncContext(
                source,
                connection,
                self._runtime.refresh_locations(connection, source),
                self._raw,
                self._provider,
                self._token,
                self._runtime.redactor(connection),
                self._config.accept_empty,
            )

    @property
    def _token(self) -> str:
        """The name of the sync that the run belongs to: the command line's, or the first run of its retries."""
        run = self._context.run
        return str(run.tags.get(names.SYNC_TAG) or run.root_run_id or run.run_id)

    def _store(self, key: str, manifest: "RawManifest", bad: Sequence["BadRecord"]) -> None:
        day, grain = manifest.business_date, self._stream.grain
        replace_quarantined(self._runtime, self._asset.to_user_string(), grain, key, {day: bad})
        self._bad += bad
        stored = [manifest] if grain != "hour" else self._raw.hours(key, day).readable
        self._record(manifest.partition, raw_metadata(self._provider, self._stream, stored))

    def _record(self, partition: Partition, told: Metadata) -> None:
        self.done[str(unit_by_grain(self._stream.grain, partition))] = told

    def _fail(self, key: str, days: Sequence[date], error: FluxError) -> None:
        if days:
            self.failed.append(PartitionsFailed(key, tuple(days), error))


class _Windowed(_Reading):
    """Orders: in windows of many dates, each date proven complete."""

    check = COMPLETENESS
    config = RawOrdersConfig

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._asked: frozenset[date] = frozenset()
        self._stale: set[date] = set()
        self._manifests: list[RawManifest] = []
        self._moved_from: dict[str, date] = {}

    def read(self, key: str, days: Sequence[date]) -> None:
        """Read business dates, and those that were fetched before orders of theirs changed, as is seen on the way.

        A refund of today may be of an order of last month.
        """
        self._asked, self._stale = frozenset(days), set()
        self._read(key, days)
        beside = {day for day in self._stale - self._asked if day >= self._runtime.settings.start_date}
        if beside:
            self._context.log.info(f"{key}: orders of {len(beside)} other dates have changed since these were fetched")
            self._read(key, sorted(beside))

    def _outcomes(self, key: str, days: Sequence[date]) -> Iterator["DayOutcome"]:
        from flux_pipelines.sync.windowed import read_windowed

        asked = self._asked.issuperset(days)
        landed: list[RawManifest] = []
        with self._opened(key) as context:
            # What is stale has been fetched by this very sync, if by any.
            again = context if asked else replace(context, token="")
            deleted = {**deleted_orders(self._runtime, key), **self._moved_from}
            for outcome in read_windowed(again, days, verify=self._config.verify, deleted=deleted):
                self._stale |= outcome.stale
                if outcome.manifest is not None:
                    landed.append(outcome.manifest)
                    self._manifests.append(outcome.manifest)
                yield outcome
            if context.source.by_business_date and asked:
                self._stale |= self._moved(key, landed)

    def _moved(self, key: str, landed: Sequence["RawManifest"]) -> set[date]:
        """Return other dates on which orders are kept that the provider now has on those that were just landed.

        They are deleted from there: a date that keeps nothing else is empty from now on, and that is no mistake of the
        provider's.
        """
        from flux_pipelines.sync.reading import order_lines

        raw, member = self._raw, self._provider.order_id_field
        here = set[str]().union(*(order_lines(raw, manifest, member) for manifest in landed))
        dates = {manifest.business_date for manifest in landed}
        found = on_other_dates(self._runtime.lake, self._provider.name, key, here, dates)
        for day in found:
            with suppress(TableDamagedError):  # which orders it had is not known, and it is fetched again
                manifest = raw.read_manifest(key, day)
                if manifest is not None:
                    self._moved_from |= dict.fromkeys(order_lines(raw, manifest, member).keys() & here, day)
        return found

    def _record(self, partition: Partition, told: Metadata) -> None:
        """Record a partition; one that was not asked for by itself."""
        if partition.business_date not in self._asked:
            self._context.log_event(dg.AssetMaterialization(self._asset, partition=str(partition), metadata=told))
            return
        super()._record(partition, told)
        self._flux.landed(partition)

    def checked(self) -> dg.AssetCheckResult:
        """Return what the second queries said."""
        counts = {"verified": 0, "unverifiable": 0, "short": 0}
        short = []
        for manifest in self._manifests:
            found, where = manifest.verification, str(manifest.partition)
            counts[found.status] += 1
            if found.status == "short":
                what = f"{found.expected} orders landed, {found.confirmed} confirmed by {found.method}: {found.detail}"
                short.append((where, f"short by {found.confirmed - found.expected}", what))
            elif found.emptied_at is not None:
                short.append((where, "came back empty", found.detail))
        more = {f"partitions {status}": count for status, count in counts.items()}
        return result(COMPLETENESS, self._asset, len(short), short[:SAMPLE], more)


class _Daily(_Reading):
    """A stream by business date of which there is one query."""

    def _outcomes(self, key: str, days: Sequence[date]) -> Iterator["DayOutcome"]:
        from flux_pipelines.sync.daily import read_days

        with self._opened(key) as context:
            yield from read_days(context, days)


class _Present(_Reading):
    """A stream of which there is only the present: a snapshot each hour, or what there is now."""

    _now: datetime

    def read(self, key: str, days: Sequence[date]) -> None:
        """Read what there is now; of the past, tell what is there and fail what is not."""
        self._now = datetime.now(UTC)
        today = self._now.date()
        if self._stream.grain == "current":
            days = [today]
        for day in days:
            if day < today:
                self._past(Partition(key, day))
            elif day > today:
                early = DayNotReadyError(
                    f"{day} has not begun (in UTC, by which snapshots are kept)",
                    connection=key,
                    next_step="Ask for it again after it has begun.",
                )
                self._fail(key, [day], early)
        self._read(key, [day for day in days if day == today])

    def _outcomes(self, key: str, days: Sequence[date]) -> Iterator["DayOutcome"]:  # noqa: ARG002 - it is today alone
        from flux_pipelines.sync.daily import read_now

        with self._opened(key) as context:
            yield read_now(context, self._now)

    def _past(self, partition: Partition) -> None:
        """Leave a past day's snapshots as they are; without any, it cannot be had."""
        key, day = partition.connection, partition.business_date
        stored = self._raw.hours(key, day)
        follow_damage(self._runtime, key, self._raw, stored.damaged)
        if stored.readable:
            self._record(partition, raw_metadata(self._provider, self._stream, stored.readable))
            return
        for error in stored.damaged.values():
            self._fail(key, [day], error)
            return
        lost = HistoryUnavailableError(
            f"there is no snapshot of {day}: {self._provider.title} tells {self._stream.title} of the present only",
            connection=key,
            next_step="The date stays missing. Snapshots are taken each hour while the connection is active.",
        )
        self._fail(key, [day], lost)


_STEPS: dict[Strategy, type[_Reading]] = {
    "windowed": _Windowed,
    "daily": _Daily,
    "hourly": _Present,
    "current": _Present,
}


def _unexplained(key: str, *days: date) -> FluxError:
    return FluxError(f"{len(days)} partitions have no outcome", connection=key, next_step="Report this as a defect.")


def replace_quarantined(
    runtime: Any, asset: str, grain: Grain, connection: str, bad: Mapping[date, Sequence["BadRecord"]]
) -> dict[date, int]:
    """Make these the quarantined records of an asset's partitions; return how many each has now.

    What there is now has no day: what was quarantined on an earlier one is replaced too.
    """
    if grain == "current":
        earlier = {row["business_date"] for row in runtime.quarantine.list(asset=asset, connection=connection)}
        for day in sorted(earlier - bad.keys()):
            runtime.quarantine.replace(asset, Partition(connection, day), [])
    return {day: runtime.quarantine.replace(asset, Partition(connection, day), of_day) for day, of_day in bad.items()}


def raw_metadata(provider: Provider, stream: Stream, manifests: Sequence["RawManifest"]) -> Metadata:
    """Return the metadata of a raw partition; one of snapshots has a manifest for each hour."""
    kinds: dict[str, int] = {}
    for manifest in manifests:
        for kind, count in manifest.states.items():
            kinds[kind] = kinds.get(kind, 0) + count
    newest = manifests[-1]
    proven = stream.strategy == "windowed"
    snapshots = {"snapshots": len(manifests)} if newest.hour is not None else {}
    return {
        **rows(sum(manifest.orders for manifest in manifests)),
        **snapshots,
        **(_of_orders(newest) if proven else {}),
        "requests": sum(manifest.requests for manifest in manifests),
        "retries": sum(manifest.retries for manifest in manifests),
        # Floats: seconds to plot.
        "rate-limit wait (s)": round(sum(manifest.waited_seconds for manifest in manifests), 3),
        f"{provider.title} API version": newest.api_version,
        "quarantined": sum(manifest.quarantined for manifest in manifests),
        "bytes": sum(manifest.bytes for manifest in manifests),
        "bytes stored": sum(manifest.compressed_bytes for manifest in manifests),
        "locations": len(newest.locations),
        "fetched at": dg.MetadataValue.timestamp(newest.fetched_at),
        "file": newest.file or f"none (no {'orders' if proven else 'records'})",
        "preview": preview(("state", "orders") if proven else ("kind", "records"), sorted(kinds.items())),
    }


def _of_orders(manifest: "RawManifest") -> Metadata:
    found = manifest.verification
    verified = found.status if found.status != "short" else f"short by {found.confirmed - found.expected}"
    return {
        "orders": manifest.orders,
        **amounts("total", {code: from_minor(total, code) for code, total in manifest.totals.items()}),
        "verification": verified,
        "verified by": found.method or "nothing",
        "verification detail": found.detail,
    }
