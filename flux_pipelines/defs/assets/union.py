"""Core tables over every provider beside sales: payments, stock and hours worked by the day; products and locations."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.core import Mart, parts_of, union_draft, union_of_providers
from flux_pipelines.defs.assets.normalized import checks_of
from flux_pipelines.defs.checks import Everything, Findings, equals_its_sources
from flux_pipelines.defs.conditions import when_upstream_changes
from flux_pipelines.defs.failures import explained
from flux_pipelines.defs.metadata import table_metadata
from flux_pipelines.defs.partition_stats import counts_of, stats_of
from flux_pipelines.defs.partitions import DAY
from flux_pipelines.defs.publishing import Refused, concluded, damaged_units, leaving_out, publish
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.domain import tables
from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.tables import Table

if TYPE_CHECKING:
    from flux_pipelines.lake import DeltaLake

#: Core tables by business date, each with its group, and what is counted and added up to compare it with its sources.
BY_DAY = (
    (tables.PAYMENTS, names.PAYMENTS_GROUP, ("connection", "business_date", "currency"), ("amount", "tip", "fee")),
    (tables.INVENTORY_LEVELS, names.CATALOG_GROUP, ("connection", "business_date"), ("quantity",)),
    (tables.REPORTED_SALES, names.SALES_GROUP, ("connection", "business_date", "currency"), ("net", "tax", "tips")),
    (tables.TIME_ENTRIES, names.LABOR_GROUP, ("connection", "business_date"), ("paid_hours",)),
)
#: Core tables of what there is, with their groups.
AS_A_WHOLE = (
    (tables.PRODUCTS, names.CATALOG_GROUP),
    (tables.LOCATIONS, names.CATALOG_GROUP),
)


def union_assets() -> list[dg.AssetsDefinition]:
    """Return the core assets that are made of streams, those alone that some provider has a part of."""
    return [
        *(by_day(table, group, by, sums).asset() for table, group, by, sums in BY_DAY if names.with_table(table.name)),
        *(whole(table, group) for table, group in AS_A_WHOLE if names.with_table(table.name)),
    ]


def by_day(table: Table, group: str, by: tuple[str, ...], sums: tuple[str, ...]) -> Mart:
    """Return the union of every provider's part of a table by business date."""
    mapping = dg.MultiToSingleDimensionPartitionMapping(DAY)
    providers = names.with_table(table.name)
    return Mart(
        table,
        union_of_providers(table),
        tuple(part.name for part in parts_of(table)),
        tuple(dg.AssetDep(names.provider_table(p.name, table.name), partition_mapping=mapping) for p in providers),
        group,
        (*checks_of(table), equals_its_sources([f"{p.name}/{table.name}" for p in providers], by, sums)),
        stats_of(table, core=True),
        written_alone=False,  # one connection's rows may come while another's are being read
    )


def whole(table: Table, group: str) -> dg.AssetsDefinition:
    """Return the union of every provider's part of a table without business dates: one partition, replaced whole."""
    key = dg.AssetKey(table.name)
    sources = [f"{provider.name}/{table.name}" for provider in names.with_table(table.name)]
    checks = (*checks_of(table), equals_its_sources(sources, ("connection",), ()))

    @dg.asset(
        key=key,
        deps=[names.provider_table(provider.name, table.name) for provider in names.with_table(table.name)],
        automation_condition=when_upstream_changes(written_alone=False),
        check_specs=[check.spec(key) for check in checks],
        group_name=group,
        description=table.description,
        owners=[names.CORE_OWNER],
        kinds={"deltalake", "duckdb"},
        tags={"stage": "core"},
        metadata=table_metadata(table),
        code_version="1",
    )
    def union(
        context: dg.AssetExecutionContext, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        lake = flux.runtime.lake
        with explained(context):
            refused: Refused = {}
            try:
                metadata, findings = replace(lake, refused)
            except TableDamagedError:
                refused = damaged_units(lake, parts_of(table), {})
                if not refused:
                    raise
                metadata, findings = replace(lake, refused)
        yield from concluded(context, flux.runtime, {"": metadata}, findings, refused)

    def replace(lake: "DeltaLake", refused: Refused) -> tuple[dict[str, Any], Findings]:
        findings = Findings(checks, key)
        metadata: dict[str, Any] = {}
        without = leaving_out(sources, refused)
        commit = publish(
            lake,
            union_draft(lake, table, {}, refused, without),
            findings,
            Everything(),
            reads=sources,
            where={},
            refused=refused,
            without=without,
            describe=lambda database: metadata.update(counts_of(table, database)),
        )
        return {**metadata, "Delta table version": commit.version}, findings

    return union
