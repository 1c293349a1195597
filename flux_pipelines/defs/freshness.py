"""The watch: is yesterday complete, and does anything wait for a person? Shown as checks of a provider's raw orders."""

# No `from __future__ import annotations` here: Dagster reads the annotations of check and sensor functions as objects.

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.completeness import calendars, is_complete, stores
from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain.business_day import last_closed
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.providers.base import Provider

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime

#: How long after a day has ended it may take until it is complete, before somebody should look.
PATIENCE = timedelta(hours=3)
YESTERDAY_COMPLETE = "yesterday_complete"
NO_OPEN_ALERTS = "no_open_alerts"
PROVIDER_ANSWERS = "provider_answers"
VERSION_SUPPORTED = "api_version_supported"
#: How long before the provider ends its support of our version somebody should begin to move to the next one.
MOVE_AHEAD = timedelta(days=120)


def watch(provider: Provider) -> tuple[Sequence[dg.AssetChecksDefinition], dg.SensorDefinition]:
    """Return the checks of a provider as a whole, and the sensor that evaluates them.

    Dagster's freshness policies look only at an asset's last materialisation, so backfilling an old day would turn them
    green. The sensor records the checks' results without a run; a person can run the checks as well.
    """
    asset = names.raw_orders(provider.name)

    @dg.asset_check(
        asset=asset,
        name=YESTERDAY_COMPLETE,
        description=(
            "The latest business date that has ended at every location is landed and complete, for every active "
            "connection. If it fails: the table says what is missing and why; authorise the connection again if it says "
            "so, then materialise the missing partitions. Paused connections do not count."
        ),
        blocking=False,
    )
    def yesterday_complete(context: dg.AssetCheckExecutionContext, flux: FluxResource) -> dg.AssetCheckResult:  # noqa: ARG001
        passed, metadata = _yesterday(flux.runtime, provider, datetime.now(UTC))
        return dg.AssetCheckResult(passed=passed, metadata=metadata, severity=dg.AssetCheckSeverity.WARN)

    @dg.asset_check(
        asset=asset,
        name=NO_OPEN_ALERTS,
        description=(
            f"No alert of a {provider.title} connection is open. If it fails: the table says what happened to which "
            "connection and what to do. An alert closes by itself when what it is about is mended."
        ),
        blocking=False,
    )
    def no_open_alerts(context: dg.AssetCheckExecutionContext, flux: FluxResource) -> dg.AssetCheckResult:  # noqa: ARG001
        passed, metadata = _alerts(flux.runtime, provider)
        return dg.AssetCheckResult(passed=passed, metadata=metadata, severity=dg.AssetCheckSeverity.WARN)

    @dg.asset_check(
        asset=asset,
        name=PROVIDER_ANSWERS,
        description=(
            f"The last call to {provider.title}, the last test and the last syncs of every active connection went well. If it "
            "fails: the table says which connection, since when, whether it mends itself and what to do."
        ),
        blocking=False,
    )
    def provider_answers(context: dg.AssetCheckExecutionContext, flux: FluxResource) -> dg.AssetCheckResult:  # noqa: ARG001
        passed, metadata = _contact(flux.runtime, provider)
        return dg.AssetCheckResult(passed=passed, metadata=metadata, severity=dg.AssetCheckSeverity.WARN)

    @dg.asset_check(
        asset=asset,
        name=VERSION_SUPPORTED,
        description=(
            f"Version {provider.api_version} of {provider.title}'s API, which Flux speaks, is supported for at least "
            f"{MOVE_AHEAD.days} days more. If it fails: update Flux before the date it names; after it, {provider.title} "
            "may answer with another version than the one that these tables were proved with."
        ),
        blocking=False,
    )
    def api_version_supported(context: dg.AssetCheckExecutionContext, flux: FluxResource) -> dg.AssetCheckResult:  # noqa: ARG001
        passed, metadata = _version(provider, datetime.now(UTC))
        return dg.AssetCheckResult(passed=passed, metadata=metadata, severity=dg.AssetCheckSeverity.WARN)

    sunset = [api_version_supported] if provider.sunset is not None else []

    @dg.sensor(
        name=f"{provider.name}_watch",
        description=(
            f"Looks every half hour whether yesterday's {provider.title} orders are complete, whether {provider.title} answers"
            f"{', whether our version of its API is supported' if sunset else ''} and whether an alert is open, and "
            f"records it as checks of {asset.to_user_string()}."
        ),
        minimum_interval_seconds=1800,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def look_after(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult | dg.SkipReason:  # noqa: ARG001
        if not flux.sensor_runtime.connections(provider.name):
            return dg.SkipReason(f"There is no {provider.title} connection yet.")
        found = {
            YESTERDAY_COMPLETE: _yesterday(flux.sensor_runtime, provider, datetime.now(UTC)),
            NO_OPEN_ALERTS: _alerts(flux.sensor_runtime, provider),
            PROVIDER_ANSWERS: _contact(flux.sensor_runtime, provider),
            **({VERSION_SUPPORTED: _version(provider, datetime.now(UTC))} if sunset else {}),
        }
        evaluations = [
            dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=name,
                passed=passed,
                metadata=metadata,
                severity=dg.AssetCheckSeverity.WARN,
            )
            for name, (passed, metadata) in found.items()
        ]
        return dg.SensorResult(asset_events=evaluations)

    return (yesterday_complete, no_open_alerts, provider_answers, *sunset), look_after


def _version(provider: Provider, now: datetime) -> tuple[bool, dict[str, Any]]:
    """Tell whether the version that we speak is supported for long enough."""
    assert provider.sunset is not None  # noqa: S101 - only such providers are looked at
    left = (provider.sunset - now.date()).days
    metadata: dict[str, Any] = {
        "API version": provider.api_version,
        "supported until": provider.sunset.isoformat(),
        "days left": left,
    }
    return left >= MOVE_AHEAD.days, metadata


def _alerts(runtime: "Runtime", provider: Provider) -> tuple[bool, dict[str, Any]]:
    mine = [alert for alert in runtime.state.alerts.open() if alert.connection_key.startswith(f"{provider.name}:")]
    metadata: dict[str, Any] = {"open alerts": len(mine)}
    if mine:
        metadata["alerts"] = preview(
            ("connection", "since", "what happened and what to do"),
            [(alert.connection_key, f"{alert.raised_at:%Y-%m-%d %H:%M} UTC", alert.message) for alert in mine[:20]],
        )
    return not mine, metadata


def _contact(runtime: "Runtime", provider: Provider) -> tuple[bool, dict[str, Any]]:
    """Tell whether the last call of each connection went well, as the gateway's pages do."""
    contacts = runtime.contacts(runtime.connections(provider.name))
    troubles = {key: trouble for key, contact in contacts.items() if (trouble := contact.trouble()) is not None}
    metadata: dict[str, Any] = {"connections looked at": len(contacts), "connections in trouble": len(troubles)}
    if troubles:
        metadata["trouble"] = preview(
            ("connection", "what", "since when and why", "what to do"),
            [(key, one.word, one.why, one.next_step) for key, one in list(troubles.items())[:20]],
        )
    return not troubles, metadata


def _yesterday(runtime: "Runtime", provider: Provider, now: datetime) -> tuple[bool, dict[str, Any]]:
    late: list[tuple[str, str, str]] = []
    looked_at = 0
    for connection in runtime.connections(provider.name):
        if connection.status in ("paused", "disconnected"):
            continue
        looked_at += 1
        if connection.status == "needs_reauth":
            late.append((connection.key, "", f"needs to be authorised again: {connection.status_reason}"))
            continue
        try:
            zones = list(calendars(connection, stores(runtime, connection)).values())
            if not zones:
                continue
            # Until the daily sync has had its time, the day before counts as yesterday.
            day = last_closed(zones, now - PATIENCE)
            if day >= runtime.settings.start_date and not is_complete(
                manifest := runtime.raw.read_manifest(connection.key, day), day, zones
            ):
                why = "not fetched" if manifest is None else "landed before it had ended"
                if manifest is not None and manifest.verification.status == "short":
                    why = f"orders are missing: {manifest.verification.detail}"
                elif manifest is not None and manifest.verification.emptied_at is not None:
                    why = f"it came back empty: {manifest.verification.detail}"
                late.append((connection.key, str(day), why))
        except FluxError as error:
            late.append((connection.key, "", str(error)))
    metadata: dict[str, Any] = {"connections looked at": looked_at, "connections late": len(late)}
    if late:
        metadata["late"] = preview(("connection", "business date", "why"), late[:20])
        metadata["what to do"] = (
            "Authorise the connections that say so again, then materialise the missing partitions of "
            f"{names.raw_orders(provider.name).to_user_string()} (or run `flux sync {provider.name}` over them)."
        )
    return not late, metadata
