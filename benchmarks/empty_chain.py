"""The floor: the same assets, partitions and jobs with nothing in them, run by Dagster in this process.

With `--storage stock` on the storage that Dagster gives everyone (SQLite), with `--storage flux` on the one of this
project's `dagster.yaml`, which lowers that floor. Assets, dependencies and partitions are copied from the real
definitions; bodies, checks and metadata are left out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.flux_load import CONNECTION, prepare
from benchmarks.measure import load, tell

if TYPE_CHECKING:
    import dagster as dg


def emptied(definitions: dg.Definitions) -> Iterator[dg.AssetsDefinition]:
    """Yield every asset of the definitions as one of the same key, dependencies and partitions that does nothing."""
    import dagster as dg

    for assets in definitions.assets or ():
        assert isinstance(assets, dg.AssetsDefinition)
        for spec in assets.specs:

            def nothing() -> None:
                return None

            yield dg.asset(
                key=spec.key,
                deps=list(spec.deps),
                partitions_def=assets.partitions_def,
                backfill_policy=assets.backfill_policy,
            )(nothing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--storage", choices=("stock", "flux"), required=True)
    chosen = parser.parse_args()
    prepare(chosen.work / "home", chosen.first_day)

    import dagster as dg

    from flux_pipelines.defs import jobs, names
    from flux_pipelines.defs.assets.forecasts import HORIZON
    from flux_pipelines.defs.code_location import build_definitions
    from flux_pipelines.defs.driver import dagster_home
    from flux_pipelines.defs.names import RANGE_END, RANGE_START
    from flux_pipelines.domain.partition import Partition
    from flux_pipelines.settings import settings

    if chosen.storage == "stock":
        os.environ.pop("DAGSTER_EVENT_BATCH_SIZE", None)  # which importing our storage may have set
        home = chosen.work / "dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    else:
        home = dagster_home(settings())
    real = build_definitions()
    empty = dg.Definitions(
        assets=list(emptied(real)),
        asset_checks=real.asset_checks,  # not run; but the jobs name the ones they leave out
        jobs=jobs.jobs(),
        resources=real.resources,
        executor=dg.in_process_executor,
    )

    first, last = chosen.first_day, chosen.first_day + timedelta(days=chosen.days - 1)
    before = last - timedelta(days=HORIZON)
    steps: list[tuple[str, str, str]] = [
        (names.sync_job("square"), str(Partition(CONNECTION, first)), str(Partition(CONNECTION, last))),
        (names.REFRESH_CORE_JOB, first.isoformat(), last.isoformat()),
        *((names.FORECAST_JOB, day.isoformat(), day.isoformat()) for day in (before, last) if day >= first),
        (names.ACCURACY_JOB, max(before + timedelta(days=1), first).isoformat(), last.isoformat()),
    ]
    quietly = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("square_connections", [CONNECTION])
        with load() as facts:
            for job, start, end in steps:
                result = empty.resolve_job_def(job).execute_in_process(
                    instance=instance, run_config=quietly, tags={RANGE_START: start, RANGE_END: end}
                )
                assert result.success
        facts["days"] = chosen.days
        facts["materialisations"] = sum(
            len(instance.get_materialized_partitions(key)) for key in empty.resolve_asset_graph().get_all_asset_keys()
        )
    tell(facts)


if __name__ == "__main__":
    main()
