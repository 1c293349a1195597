"""Our own way, whole: a connection of a fresh Flux home, its assets materialised by Dagster in this process.

`square/raw_orders` and `square/transactions` of every partition, through the real client with limiter, retries, audit
and vault, on the project's own Dagster instance. `--no-verify` leaves out the completeness proof, which asks for every
order a second time; no other contender does that.
"""

from __future__ import annotations

import argparse
import os
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import load, tell

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime

CONNECTION = "square:bench"


def prepare(home: Path, first_day: date) -> None:
    """Point this process at a home of its own. Before anything of Flux is imported: settings are read once."""
    os.environ |= {
        "FLUX_HOME": str(home),
        "FLUX_START_DATE": first_day.isoformat(),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    for name in ("FLUX_DATABASE_URL", "FLUX_LAKE_URL", "FLUX_ENVIRONMENT"):
        os.environ.pop(name, None)
    warnings.simplefilter("ignore")


def connect(runtime: Runtime, url: str, requests_per_minute: int) -> None:
    """Add the connection, as `flux connections add` does."""
    from flux_pipelines.connections import add_with_secrets

    add_with_secrets(
        runtime,
        CONNECTION,
        tenant="bench",
        settings={"base_url": url, "requests_per_minute": requests_per_minute},
        secrets={"access_token": "bench-token-that-is-no-secret"},
    )


def import_everything() -> None:
    """Import what the load will import lazily, as the other contenders import before their clocks start."""
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    import flux_pipelines.lake
    import flux_pipelines.providers.square.client
    import flux_pipelines.sync.normalise
    import flux_pipelines.sync.windowed  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--verify", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--requests-per-minute", type=int, default=1_000_000)
    chosen = parser.parse_args()
    prepare(chosen.work / "home", chosen.first_day)

    import dagster as dg

    from flux_pipelines.defs.code_location import build_definitions
    from flux_pipelines.defs.driver import dagster_home
    from flux_pipelines.defs.names import RANGE_END, RANGE_START
    from flux_pipelines.defs.resources import bound_resource
    from flux_pipelines.domain.partition import Partition
    from flux_pipelines.runtime import Runtime

    import_everything()
    days = [chosen.first_day + timedelta(days=n) for n in range(chosen.days)]
    with Runtime() as runtime, dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance:
        connect(runtime, chosen.url, chosen.requests_per_minute)
        instance.add_dynamic_partitions("square_connections", [CONNECTION])
        job = build_definitions({"flux": bound_resource(runtime)}).resolve_job_def("sync_square")
        with load() as facts:
            result = job.execute_in_process(
                instance=instance,
                run_config={"ops": {"square__raw_orders": {"config": {"verify": chosen.verify}}}},
                tags={
                    RANGE_START: str(Partition(CONNECTION, days[0])),
                    RANGE_END: str(Partition(CONNECTION, days[-1])),
                },
            )
            assert result.success
        manifests = runtime.raw.manifests(CONNECTION, days[0], days[-1]).values()
        facts |= {
            "orders": sum(m.orders for m in manifests),
            "proof": sorted({m.verification.status for m in manifests}),
            "requests": sum(m.requests for m in manifests),
            "rows": sum(runtime.lake.rows_by_partition("square/transactions").values()),
        }
    tell(facts)


if __name__ == "__main__":
    main()
