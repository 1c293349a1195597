"""The mapping tables: which store each location is, and which product each provider's product is, over every provider."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.checks import SAMPLE, Check, result
from flux_pipelines.defs.failures import explained
from flux_pipelines.defs.metadata import PREVIEW_ROWS, preview, rows, table_metadata
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain import tables
from flux_pipelines.domain.tables import Table

if TYPE_CHECKING:
    from flux_pipelines.mapping.decisions import Row
    from flux_pipelines.state.connections.mappings import Kind


def _unmapped(kind: "Kind") -> Check:
    return Check(
        "everything_is_decided",
        f"Somebody has decided what every {kind} is. If it fails: `flux map list {kind}s --undecided` shows what is left, "
        f"with suggestions. What nobody has decided is counted all the same, under its provider's own name.",
        "",
        blocking=False,
    )


def mapping_assets() -> list[dg.AssetsDefinition]:
    """Return the two mapping tables."""
    return [
        _asset(tables.STORES, "store", [names.LOCATIONS]),
        _asset(tables.PRODUCT_MAP, "product", [names.PRODUCTS, names.DAILY_ITEM_DEMAND]),
    ]


def _asset(table: Table, kind: "Kind", deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    key = dg.AssetKey(table.name)
    check = _unmapped(kind)

    @dg.asset(
        key=key,
        deps=list(deps),
        check_specs=[check.spec(key)],
        group_name=names.MAPPING_GROUP,
        description=table.description,
        owners=[names.CORE_OWNER],
        kinds={"deltalake"},
        tags={"stage": "core"},
        metadata=table_metadata(table),
        code_version="1",
    )
    def mapped(context: dg.AssetExecutionContext, flux: FluxResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from flux_pipelines.mapping import decisions

        with explained(context):
            found = decisions.rows(flux.runtime, kind)
            version = _write(flux, table, kind, found)
        left = [row for row in found if row.name is None]
        sample = [
            (
                row.thing.key.connection,
                row.thing.name,
                f"looks like {row.suggestion.name}" if row.suggestion else "like no other",
            )
            for row in left[:SAMPLE]
        ]
        shown = [
            (
                row.tenant,
                row.thing.key.connection,
                row.thing.name,
                row.name or "",
                row.suggestion.name if row.suggestion else "",
            )
            for row in sorted(found, key=lambda row: row.name is not None)[:PREVIEW_ROWS]
        ]
        return dg.MaterializeResult(
            metadata={
                **rows(len(found)),
                "decided": len(found) - len(left),
                "undecided": len(left),
                "with a suggestion": sum(row.suggestion is not None for row in left),
                "Delta table version": version,
                "preview": preview(("tenant", "connection", "at the provider", "in the books", "looks like"), shown),
            },
            check_results=[result(check, key, len(left), sample)],
        )

    return mapped


def _write(flux: FluxResource, table: Table, kind: "Kind", found: "Sequence[Row]") -> int:
    import pyarrow as pa

    lake = flux.runtime.lake
    schema = table.arrow_schema()
    rows = pa.Table.from_pylist([_record(row, kind) for row in found], schema=schema)
    tenants = {row.tenant for row in found} | {key[0] for key in lake.rows_by_partition(table.name)}
    commit = lake.replace(
        table,
        pa.RecordBatchReader.from_batches(schema, rows.to_batches()),
        [{"tenant": tenant} for tenant in sorted(tenants)],
    )
    return commit.version


def _record(row: "Row", kind: "Kind") -> dict[str, Any]:
    seen = row.suggestion
    common = {
        "connection": row.thing.key.connection,
        "tenant": row.tenant,
        "suggestion": seen.name if seen else None,
        "score": seen.score.quantize(Decimal("0.000001")) if seen else None,
        "reason": seen.reason if seen else None,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
    }
    if kind == "store":
        return {**common, "location_id": row.thing.key.id, "location_name": row.product_name, "store": row.name}
    return {
        **common,
        "product_id": row.thing.key.id,
        "product_name": row.product_name,
        "variation": row.variation,
        "sku": row.sku,
        "canonical_product": row.name,
    }


def mapping_job() -> Any:
    """Return the job that writes both tables."""
    return dg.define_asset_job(
        names.MAPPING_JOB,
        selection=[dg.AssetKey(tables.STORES.name), dg.AssetKey(tables.PRODUCT_MAP.name)],
        description="Write down what people have decided about stores and products, and suggest the rest.",
        executor_def=dg.in_process_executor,
    )


def decisions_sensor(job: Any) -> dg.SensorDefinition:
    """Return the sensor that writes the tables anew after somebody has decided something, or the catalog has changed."""

    @dg.sensor(
        name="mapping_decisions",
        job=job,
        description="Writes the mapping tables after a decision (`flux map`) and after the catalog has changed.",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def decided(context: dg.SensorEvaluationContext, flux: FluxResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
        runtime = flux.sensor_runtime
        last = runtime.state.mappings.last_decided()
        versions = [runtime.lake.version(table.name) for table in (tables.PRODUCTS, tables.LOCATIONS)]
        cursor = f"{last.isoformat() if last else ''}|{versions[0]}|{versions[1]}"
        if versions == [None, None] or cursor == context.cursor:
            yield dg.SkipReason("Nothing has been decided, and the catalog has not changed.")
            return
        context.update_cursor(cursor)
        yield dg.RunRequest(run_key=cursor)

    return decided
