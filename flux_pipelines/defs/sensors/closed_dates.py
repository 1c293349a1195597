"""Forecasts follow closed days: the sensor that asks for them when the sales of a closed business date have changed.

An automation condition cannot tell a day that has closed from one that webhooks keep filling: both are updates of
`daily_sales`. And when it is still Monday in Los Angeles, Monday has closed in Tokyo.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of sensor functions as objects.

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.partitions import business_days, ranges
from flux_pipelines.defs.runs import brought_up_to_date, was_over
from flux_pipelines.domain.partition import Partition

if TYPE_CHECKING:
    from flux_pipelines.defs.internals import UnresolvedAssetJobDefinition

#: Forecasts are made and evaluated by themselves for days this near to the newest partition: the day that has just
#: closed somewhere, and those that were late. Older ones are for a person to ask for.
LATEST = timedelta(days=7)
_PAGE = 1_000
_PAGES = 10


def closed_days_sensor(job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """Return the sensor that asks for forecasts and their evaluation.

    A partition of a provider's transactions whose day was over when it was fetched makes its business date due. It is
    asked for as soon as `daily_sales` of that date was written by a run that began after those rows were there.
    """

    @dg.sensor(
        name="closed_days",
        job=job,
        description=(
            "Forecasts as of each business date that has closed somewhere, and evaluates what had been forecast for it, "
            "once its sales are in `daily_sales`; again when a closed day of the last week changes. Sales of days that "
            "are still open do not count."
        ),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def closed_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = json.loads(context.cursor) if context.cursor else {}
        seen: dict[str, int] = cursor.get("seen", {})
        due: dict[str, float] = cursor.get("due", {})
        newest = date.fromisoformat(str(business_days().get_last_partition_key()))
        # Before the rows they were made from, so that none is looked at before what has made its day due.
        sold = list(_news(context.instance, names.DAILY_SALES, seen))
        for provider in names.sources():
            for record in _news(context.instance, names.provider_transactions(provider.name), seen):
                if record.partition_key and was_over(record):
                    day = str(Partition.parse(record.partition_key).business_date)
                    due[day] = max(due.get(day, 0.0), record.timestamp)
        due = {day: at for day, at in due.items() if newest - LATEST < date.fromisoformat(day)}
        ready: dict[date, int] = {}
        for record in sold:
            key = record.partition_key or ""
            run = context.instance.get_run_record_by_id(record.run_id) if key in due else None
            if run is not None and (run.start_time or 0.0) >= due[key]:
                del due[key]
                # `flux sync` makes the forecasts of its last day itself.
                if not brought_up_to_date(context.instance, names.DEMAND_FORECASTS, [key], record.timestamp):
                    ready[date.fromisoformat(key)] = record.storage_id
        requests = [
            dg.RunRequest(
                job_name=names.CLOSED_DAYS_JOB,
                run_key=f"{first}|{last}|{max(ready[day] for day in ready if first <= day <= last)}",
                tags={
                    names.RANGE_START: first.isoformat(),
                    names.RANGE_END: last.isoformat(),
                    names.AUTOMATION_TAG: "forecasts",
                },
            )
            for first, last in ranges(ready)
        ]
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps({"seen": seen, "due": due}, sort_keys=True),
            skip_reason=None if requests else "No closed day has changed.",
        )

    return closed_days


def _news(instance: dg.DagsterInstance, key: dg.AssetKey, seen: dict[str, int]) -> Iterator[dg.EventLogRecord]:
    """Yield an asset's materialisations since the last look, oldest first; the first look only marks the place."""
    name = key.to_user_string()
    if name not in seen:
        latest = instance.fetch_materializations(key, limit=1).records
        seen[name] = latest[0].storage_id if latest else 0
        return
    for _ in range(_PAGES):
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, after_storage_id=seen[name]), limit=_PAGE, ascending=True
        ).records
        for record in records:
            seen[name] = record.storage_id
            yield record
        if len(records) < _PAGE:
            return
