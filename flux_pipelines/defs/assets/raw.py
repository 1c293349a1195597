"""What a provider can be asked for beside orders, as received: `<provider>/raw_<stream>`, the same for every provider.

The work is done by `flux_pipelines.sync.daily`; here its outcomes become materialisations, metadata, checks and failures.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.orders import sync_token
from flux_pipelines.defs.checks import SAMPLE, Check, result
from flux_pipelines.defs.failures import PartitionsFailed, retry_or_fail
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.metadata import preview, rows
from flux_pipelines.defs.partition_alerts import follow_damage, follow_outcomes
from flux_pipelines.defs.partitions import (
    BACKFILL,
    by_connection,
    connection_days,
    connections_of,
    keys_of,
    partition_key,
)
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.errors import DayNotReadyError, FluxError, HistoryUnavailableError
from flux_pipelines.lake import CURRENT
from flux_pipelines.providers.base import Grain, Provider, Stream

if TYPE_CHECKING:
    from flux_pipelines.lake import RawManifest, RawStore
    from flux_pipelines.sync.records import BadRecord, DayOutcome

Metadata = dict[str, Any]

RECORDS_USABLE = Check(
    "nothing_quarantined",
    "Every record could be used. If it fails: `flux quarantine list` shows the records with the reason; after a fix, "
    "run the partition again.",
    "",
    blocking=False,
)


class RawStreamConfig(dg.Config):
    """How a stream is collected."""

    accept_empty: bool = Field(
        default=False,
        description="Let partitions that hold records become empty if the provider says so. Only when its own report shows "
        "that the records are really gone.",
    )


_PARTITIONS = {
    "day": "one file a connection and business date. A partition is replaced whole.",
    "hour": (
        "a snapshot an hour, kept by connection and (UTC) date. Running today's partition takes the snapshot of this "
        "hour; the past cannot be asked for, so a date without snapshots fails and stays missing."
    ),
    "current": "whatever there is now, one file a connection. A run replaces it.",
}


def partitions_for(provider: Provider, grain: Grain) -> dg.PartitionsDefinition[str]:
    """Return the partitions of what comes of a stream of a grain."""
    return connections_of(provider.name) if grain == "current" else connection_days(provider.name)


def stream_assets(provider: Provider) -> list[dg.AssetsDefinition]:
    """Return the raw assets of a provider's streams."""
    return [raw_stream(provider, stream) for stream in provider.streams]


def raw_stream(provider: Provider, stream: Stream) -> dg.AssetsDefinition:
    """Return the asset that stores a stream exactly as received."""
    key = names.raw_stream(provider.name, stream.name)

    @dg.asset(
        key=key,
        partitions_def=partitions_for(provider, stream.grain),
        backfill_policy=BACKFILL,
        pool=names.pool(provider.name),
        check_specs=[RECORDS_USABLE.spec(key)],
        group_name=provider.name,
        description=(
            f"{provider.title} {stream.title} exactly as received, but for what is personal: {_PARTITIONS[stream.grain]}\n\n"
            f"API: [{provider.title}]({provider.docs_url}), version {provider.api_version}."
        ),
        owners=[provider.owner],
        kinds={provider.name, "json"},
        tags={"stage": "raw", "provider": provider.name},
        metadata={"api version": provider.api_version, "documentation": dg.MetadataValue.url(provider.docs_url)},
        code_version="1",
    )
    def records(
        context: dg.AssetExecutionContext, config: RawStreamConfig, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        step = _Collecting(context, flux, provider, stream, accept_empty=config.accept_empty)
        for connection, days in partitions_of(stream.grain, keys_of(context)).items():
            step.collect(connection, days)
        check = quarantine_check(key, step.bad)
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
    return by_connection(keys)


def key_of(grain: Grain, connection: str, day: date) -> str:
    """Return the partition key of a connection and day, or of the connection alone."""
    return connection if grain == "current" else str(partition_key(connection, day))


def newest_manifest(orders: "RawStore", stream: Stream, connection: str, day: date) -> "RawManifest | None":
    """Return what is stored of a stream for a connection and day: the newest snapshot, if it is one of many.

    What cannot be read is as good as not stored: whoever asks has it fetched again.

    Args:
        orders: the raw records of any stream of the lake.
        stream: which stream.
        connection: the connection's key.
        day: the day; of no matter for what there is now.

    """
    raw = orders.of(stream.name)
    if stream.grain == "hour":
        stored = raw.hours(connection, day)
    else:
        stored = raw.look(connection, [CURRENT if stream.grain == "current" else day.isoformat()])
    return max(stored.readable, key=lambda manifest: manifest.fetched_at, default=None)


def quarantine_check(asset: dg.AssetKey, bad: Sequence["BadRecord"]) -> dg.AssetCheckResult:
    """Return which records could not be used."""
    sample = [(f"{one.connection}|{one.business_date}", "a record", one.reason) for one in bad[:SAMPLE]]
    return result(RECORDS_USABLE, asset, len(bad), sample)


class _Collecting:
    """One step of a raw stream: what was stored, what failed."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        flux: FluxResource,
        provider: Provider,
        stream: Stream,
        *,
        accept_empty: bool,
    ) -> None:
        self._context = context
        self._accept_empty = accept_empty
        self._runtime = flux.runtime
        self._provider = provider
        self._stream = stream
        self._raw = self._runtime.raw.of(stream.name)
        self._asset = names.raw_stream(provider.name, stream.name).to_user_string()
        self.done: dict[str, Metadata] = {}
        self.failed: list[PartitionsFailed] = []
        self.bad: list[BadRecord] = []

    def collect(self, key: str, days: Sequence[date]) -> None:
        """Collect a connection's partitions; a failure of one connection does not touch the others."""
        left = dict.fromkeys(days)
        outcomes: list[DayOutcome] = []
        try:
            for outcome in self._outcomes(key, days):
                left.pop(outcome.day, None)
                outcomes.append(outcome)
                if outcome.manifest is None or outcome.error is not None:
                    error = outcome.error or FluxError("a day has no outcome", connection=key)
                    self._fail(key, [outcome.day], error)
                else:
                    self._store(key, outcome.manifest, outcome.bad)
        except FluxError as error:
            self._fail(key, list(left), error)
        errors = (one.error for one in self.failed if one.connection == key)
        self._runtime.remember(key, f"sync of {self._stream.name}", *errors)
        follow_outcomes(self._runtime, key, self._stream.name, outcomes)

    def _outcomes(self, key: str, days: Sequence[date]) -> Iterator["DayOutcome"]:
        from flux_pipelines.sync.daily import read_days, read_now

        now = datetime.now(UTC)
        wanted = list(days) if self._stream.grain == "day" else self._only_now(key, days, now)
        if not wanted:
            return
        connection = self._runtime.state.connections.get(key)
        source = self._runtime.source(connection)
        try:
            locations = self._runtime.refresh_locations(connection, source)
            redact = self._runtime.redactor(connection)
            if self._stream.grain == "day":
                yield from read_days(
                    source,
                    connection,
                    locations,
                    wanted,
                    self._raw,
                    provider=self._provider,
                    redact=redact,
                    token=sync_token(self._context.run),
                    most_locations=source.max_locations_per_window,
                    accept_empty=self._accept_empty,
                )
            else:
                yield read_now(
                    source,
                    connection,
                    locations,
                    self._raw,
                    self._stream,
                    provider=self._provider,
                    redact=redact,
                    token=sync_token(self._context.run),
                    now=now,
                    accept_empty=self._accept_empty,
                )
        finally:
            source.close()

    def _only_now(self, key: str, days: Sequence[date], now: datetime) -> list[date]:
        """Return today if it is among the days; of the past, tell what is there and fail what is not."""
        if self._stream.grain == "current":
            return [now.date()]
        for day in days:
            if day < now.date():
                self._past(key, day)
            elif day > now.date():
                early = DayNotReadyError(
                    f"{day} has not begun (in UTC, by which snapshots are kept)",
                    connection=key,
                    next_step="Ask for it again after it has begun.",
                )
                self._fail(key, [day], early)
        return [day for day in days if day == now.date()]

    def _past(self, key: str, day: date) -> None:
        """Leave a past day's snapshots as they are; without any, it cannot be had."""
        stored = self._raw.hours(key, day)
        follow_damage(self._runtime, key, self._raw, stored.damaged)
        if stored.readable:
            self.done[key_of(self._stream.grain, key, day)] = raw_metadata(self._provider, stored.readable)
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

    def _store(self, key: str, manifest: "RawManifest", bad: Sequence["BadRecord"]) -> None:
        day = manifest.business_date
        replace_quarantined(self._runtime, self._asset, self._stream.grain, key, {day: bad})
        self.bad += bad
        stored = [manifest] if self._stream.grain != "hour" else self._raw.hours(key, day).readable
        self.done[key_of(self._stream.grain, key, day)] = raw_metadata(self._provider, stored)

    def _fail(self, key: str, days: Sequence[date], error: FluxError) -> None:
        if days:
            self.failed.append(PartitionsFailed(key, tuple(days), error))


def replace_quarantined(
    runtime: Any, asset: str, grain: Grain, connection: str, bad: Mapping[date, Sequence["BadRecord"]]
) -> dict[date, int]:
    """Make these the quarantined records of an asset's partitions; return how many each has now.

    What there is now has no day: what was quarantined on an earlier one is replaced too.
    """
    if grain == "current":
        earlier = {row["business_date"] for row in runtime.quarantine.list(asset=asset, connection=connection)}
        for day in sorted(earlier - bad.keys()):
            runtime.quarantine.replace(asset, connection, day, [])
    return {day: runtime.quarantine.replace(asset, connection, day, of_day) for day, of_day in bad.items()}


def raw_metadata(provider: Provider, manifests: Sequence["RawManifest"]) -> Metadata:
    """Return the metadata of a partition of a raw stream; one of snapshots has a manifest for each hour."""
    kinds: dict[str, int] = {}
    for manifest in manifests:
        for kind, count in manifest.states.items():
            kinds[kind] = kinds.get(kind, 0) + count
    newest = manifests[-1]
    snapshots = {"snapshots": len(manifests)} if newest.hour is not None else {}
    return {
        **rows(sum(manifest.orders for manifest in manifests)),
        **snapshots,
        "requests": sum(manifest.requests for manifest in manifests),
        "retries": sum(manifest.retries for manifest in manifests),
        # Floats: seconds to plot.
        "rate-limit wait (s)": round(sum(manifest.waited_seconds for manifest in manifests), 3),
        f"{provider.title} API version": newest.api_version,
        "quarantined": sum(manifest.quarantined for manifest in manifests),
        "bytes": sum(manifest.bytes for manifest in manifests),
        "bytes stored": sum(manifest.compressed_bytes for manifest in manifests),
        "locations": len(newest.locations),
        names.FETCHED_AT: dg.MetadataValue.timestamp(newest.fetched_at),
        "file": newest.file or "none (no records)",
        "preview": preview(("kind", "records"), sorted(kinds.items())),
    }
