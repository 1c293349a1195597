"""Forecasts: what each store will sell, as of a business date, and how good past forecasts turned out to be."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names, plots
from flux_pipelines.defs.checks import Check, Findings, Scope, contract, no_duplicate_lines
from flux_pipelines.defs.completeness import open_then
from flux_pipelines.defs.failures import explained
from flux_pipelines.defs.metadata import PREVIEW_ROWS, preview, rows, table_metadata
from flux_pipelines.defs.partition_stats import Figures
from flux_pipelines.defs.partitions import BACKFILL, business_days, each_day, keys_of
from flux_pipelines.defs.publishing import concluded, publish
from flux_pipelines.defs.resources import FluxResource, SageMakerResource
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import DAILY_ITEM_DEMAND, DEMAND_FORECASTS, FORECAST_ACCURACY

if TYPE_CHECKING:
    import pyarrow as pa

    from flux_pipelines.forecaster.client import DemandEndpoint
    from flux_pipelines.lake import DeltaLake
    from flux_pipelines.runtime import Runtime

HORIZON = 14
#: How far back a forecast looks, and how far back the evaluation does: `forecaster.demand` and `forecaster.accuracy`
#: say why. They are repeated here because those modules load too much for a code location; a test compares them.
HISTORY_DAYS = 400
NAIVE_REACH_DAYS = 56

PLOT_DAYS = 42

_FORECAST_CHECKS = (
    no_duplicate_lines(DEMAND_FORECASTS),
    contract(
        DEMAND_FORECASTS,
        {
            "target_date = as_of + horizon": "target_date = as_of + horizon::integer",
            "a forecast has a quantity of 0 or more": "status <> 'forecast' or coalesce(predicted_quantity >= 0, false)",
            "a product that was not forecast says why": "status = 'forecast' or (horizon = 0 and reason is not null)",
        },
    ),
)
_UNFORECAST = Check(
    "every_item_answered",
    "The endpoint answered for every product it was asked about. Those it failed on are named with the reason; run the "
    "partition again to ask again.",
    """
    select as_of::varchar as partition, connection || ' / ' || location_id || ' / ' || product_name as subject,
        reason as problem
    from {view} where status = 'failed'
    """,
    blocking=False,
)
_ACCURACY_CHECKS = (no_duplicate_lines(FORECAST_ACCURACY), contract(FORECAST_ACCURACY, {}))


def demand_assets() -> list[dg.AssetsDefinition]:
    """Return the forecast assets."""
    return [_demand_forecasts(), _forecast_accuracy()]


def _demand_forecasts() -> dg.AssetsDefinition:
    checks = (*_FORECAST_CHECKS, _UNFORECAST)
    history = dg.TimeWindowPartitionMapping(
        start_offset=1 - HISTORY_DAYS, end_offset=0, allow_nonexistent_upstream_partitions=True
    )

    @dg.asset(
        key=names.DEMAND_FORECASTS,
        deps=[dg.AssetDep(names.DAILY_ITEM_DEMAND, partition_mapping=history), dg.AssetDep(names.DAILY_SALES)],
        partitions_def=business_days(),
        backfill_policy=BACKFILL,
        check_specs=[check.spec(names.DEMAND_FORECASTS) for check in checks],
        group_name=names.DEMAND_GROUP,
        description=(
            f"{DEMAND_FORECASTS.description}\n\nPartition: the as-of date. Each asks the SageMaker endpoint for "
            f"{HORIZON} days ahead of every product with enough recent history. Connections whose as-of date had not ended "
            "when it was last fetched are left out: half a day is no history."
        ),
        owners=[names.CORE_OWNER],
        kinds={"deltalake", "sagemaker"},
        tags={"stage": "forecast"},
        metadata=table_metadata(DEMAND_FORECASTS),
        code_version="1",
    )
    def demand_forecasts(
        context: dg.AssetExecutionContext, flux: FluxResource, sagemaker: SageMakerResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        findings = Findings(checks, names.DEMAND_FORECASTS)
        metadata: dict[str, dict[str, Any]] = {}
        with explained(context):
            for as_of in sorted(date.fromisoformat(key) for key in keys_of(context)):
                # One at a time: a backfill must not hold the histories of many.
                metadata[as_of.isoformat()] = _forecast(flux.runtime, sagemaker.of(flux.runtime), as_of, findings)
        yield from concluded(context, flux.runtime, metadata, findings)

    return demand_forecasts


def _forecast(runtime: "Runtime", endpoint: "DemandEndpoint", as_of: date, findings: Findings) -> dict[str, Any]:
    """Write the forecasts as of one business date; return the partition's metadata."""
    from flux_pipelines.forecaster.demand import demand_window, forecast_rows, plan_demand

    open_ones = open_then(runtime, as_of)
    demand = _without(_read_demand(runtime.lake, *demand_window(as_of)), open_ones)
    plan = plan_demand(demand, as_of)
    metadata: dict[str, Any] = {"as of": as_of.isoformat(), "products asked": len(plan.histories)}
    if open_ones:
        metadata["left out, day not over"] = ", ".join(open_ones)
    answers = []
    if plan.histories:
        before = endpoint.stats
        answers = list(endpoint.forecast_many(plan.histories, HORIZON))
        after = endpoint.stats
        metadata |= {
            "requests": after.requests - before.requests,
            "retries": after.retries - before.retries,
            "throttled": after.throttled - before.throttled,
        }
    table = forecast_rows(as_of, runtime.settings.forecast_endpoint, plan.skipped, answers)
    drafting = runtime.lake.draft(DEMAND_FORECASTS, table, [{"as_of": as_of}])
    commit = publish(runtime.lake, drafting, findings, Scope([as_of]), where={"as_of": [as_of]})
    forecast = [answer for answer in answers if answer.failure is None]
    skipped: dict[str, int] = {}
    for item in plan.skipped:
        skipped[item.status] = skipped.get(item.status, 0) + 1
    metadata |= {
        **rows(table.num_rows),
        "products forecast": len(forecast),
        "products failed": len(answers) - len(forecast),
        "products with too little history": skipped.get("too_little_history", 0),
        "products with stale history": skipped.get("stale_history", 0),
        "endpoint": runtime.settings.forecast_endpoint,
        "models": ", ".join(sorted({str(answer.model_type) for answer in forecast})) or "none",
        "Delta table version": commit.version,
    }
    expected: dict[date, Decimal] = {}
    by_item: list[tuple[Decimal, str, str, str]] = []
    for answer in forecast:
        for day, quantity in answer.predictions:
            expected[day] = expected.get(day, Decimal(0)) + quantity
        total = sum((quantity for _, quantity in answer.predictions), Decimal(0))
        label = " ".join(filter(None, (answer.item.product_name, answer.item.variation)))
        by_item.append((total, answer.item.connection, answer.item.location_id, label))
    if forecast:
        asked = {(a.item.connection, a.item.location_id, a.item.product_id) for a in forecast}
        plot = plots.markdown(
            plots.lines(
                f"Units a day of the {len(asked)} products forecast, as of {as_of}",
                _history(demand, asked, as_of),
                sorted(expected.items()),
            ),
            "Forecast against history",
        )
        metadata = {"plot": plot, **metadata}
        by_item.sort(key=lambda item: (-item[0], item[1:]))
        metadata["preview"] = preview(
            ("connection", "location_id", "product", f"units in {HORIZON} days"),
            [(connection, place, label, round(total)) for total, connection, place, label in by_item[:PREVIEW_ROWS]],
            places=runtime.places(),
        )
    return metadata


def _history(demand: "pa.Table", items: set[tuple[str, str, str]], as_of: date) -> list[tuple[date, Decimal]]:
    """Return the units a day of these items in the last weeks; days on which nothing was sold are zero."""
    first = as_of - timedelta(days=PLOT_DAYS - 1)
    totals = dict.fromkeys(each_day(first, as_of), Decimal(0))
    columns = ("connection", "location_id", "product_id", "business_date", "quantity")
    for connection, location, product, day, quantity in zip(
        *(demand.column(name).to_pylist() for name in columns), strict=True
    ):
        if day in totals and (connection, location, product) in items:
            totals[day] += quantity
    return list(totals.items())


def _forecast_accuracy() -> dg.AssetsDefinition:
    figures = Figures(
        FORECAST_ACCURACY.name,
        day="target_date",
        by=("target_date",),
        counts=(("forecasts evaluated", "sum(items)"), ("as-of dates", "count(distinct as_of)")),
        money=(),
        shown=(
            "connection",
            "as_of",
            "horizon",
            "items",
            "actual_quantity",
            "wape",
            "naive_wape",
            "wape_ratio",
            "bias",
        ),
        order=("connection", "horizon"),
    )
    demand = dg.TimeWindowPartitionMapping(
        start_offset=-HORIZON - NAIVE_REACH_DAYS, end_offset=0, allow_nonexistent_upstream_partitions=True
    )
    forecasts = dg.TimeWindowPartitionMapping(
        start_offset=-HORIZON, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )

    @dg.asset(
        key=names.FORECAST_ACCURACY,
        deps=[
            dg.AssetDep(names.DEMAND_FORECASTS, partition_mapping=forecasts),
            dg.AssetDep(names.DAILY_ITEM_DEMAND, partition_mapping=demand),
            dg.AssetDep(names.DAILY_SALES),
        ],
        partitions_def=business_days(),
        backfill_policy=BACKFILL,
        check_specs=[check.spec(names.FORECAST_ACCURACY) for check in _ACCURACY_CHECKS],
        group_name=names.DEMAND_GROUP,
        description=(
            f"{FORECAST_ACCURACY.description}\n\nPartition: the business date that had been forecast, by whatever "
            f"as-of dates in the {HORIZON} days before it. Connections whose date had not ended when it was last fetched "
            "are left out."
        ),
        owners=[names.CORE_OWNER],
        kinds={"deltalake", "duckdb"},
        tags={"stage": "forecast"},
        metadata=table_metadata(FORECAST_ACCURACY),
        code_version="1",
    )
    def forecast_accuracy(
        context: dg.AssetExecutionContext, flux: FluxResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        from flux_pipelines.forecaster.accuracy import accuracy, accuracy_window

        lake = flux.runtime.lake
        days = sorted(date.fromisoformat(key) for key in keys_of(context))
        with explained(context):
            made = lake.read(
                DEMAND_FORECASTS, where={"as_of": each_day(days[0] - timedelta(days=HORIZON), days[-1])}
            ).read_all()
            sold = _read_demand(lake, accuracy_window(days[0])[0], days[-1])
            unsettled = [Partition(key, day) for day in days for key in open_then(flux.runtime, day)]
            evaluated = accuracy(made, sold, days, unsettled=unsettled)
            scope = Scope(days)
            findings = Findings(_ACCURACY_CHECKS, names.FORECAST_ACCURACY)
            found: dict[str, dict[str, Any]] = {}
            commit = publish(
                lake,
                lake.draft(FORECAST_ACCURACY, evaluated, [{"target_date": day} for day in days]),
                findings,
                scope,
                where={"target_date": days},
                describe=lambda database: found.update(figures.of(database, scope, [day.isoformat() for day in days])),
            )
            totals = _accuracy_totals(evaluated)
            metadata = {
                day.isoformat(): {
                    **totals.get(day, {}),
                    **found[day.isoformat()],
                    "Delta table version": commit.version,
                }
                for day in days
            }
        yield from concluded(context, flux.runtime, metadata, findings)

    return forecast_accuracy


def _accuracy_totals(evaluated: "pa.Table") -> dict[date, dict[str, Any]]:
    """Return each day's error over every horizon, in per cent of what was sold, beside that of seasonal naive."""
    sums: dict[date, list[Decimal]] = {}
    for row in evaluated.to_pylist():
        of_day = sums.setdefault(row["target_date"], [Decimal(0)] * 3)
        for position, name in enumerate(("actual_quantity", "absolute_error", "naive_absolute_error")):
            of_day[position] += row[name]
    # Floats: percentages to plot, not quantities.
    return {
        day: {
            "error % (wape)": float(round(100 * error / sold, 2)),
            "error % of seasonal naive": float(round(100 * naive / sold, 2)),
        }
        for day, (sold, error, naive) in sums.items()
        if sold > 0
    }


def _read_demand(lake: "DeltaLake", first: date, last: date) -> "pa.Table":
    wanted: Sequence[date] = each_day(first, last)
    return lake.read(DAILY_ITEM_DEMAND, where={"business_date": wanted}).read_all()


def _without(table: "pa.Table", connections: Sequence[str]) -> "pa.Table":
    """Return the rows of all connections but these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not connections:
        return table
    return table.filter(pc.invert(pc.is_in(table.column("connection"), pa.array(connections, pa.string()))))
