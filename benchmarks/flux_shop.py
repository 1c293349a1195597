"""A Shopify shop of the sandbox, backfilled by the real client and engine: by bulk operations, or page by page.

`shopify/raw_orders` and `shopify/transactions` of every business date, completeness proof included. Beside the time it
tells what was asked of the shop, and digests of all that was stored, so that two ways can be compared byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.flux_load import import_everything, prepare
from benchmarks.measure import load, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flux_pipelines.runtime import Runtime

SHOP = "harbor-shop"
CONNECTION = f"shopify:{SHOP}"


def connect(runtime: Runtime, url: str, bulk_days: int) -> None:
    """Add the connection, through the sandbox's own OAuth."""
    from flux_pipelines.connections.sandbox import connect_to_sandbox
    from flux_pipelines.privacy import Pseudonyms

    # Every run has a home of its own, and so a key of its own: with one for all, equal orders are stored as equal bytes.
    runtime.pseudonyms = Pseudonyms(bytes(32))
    connect_to_sandbox(runtime, CONNECTION, tenant="bench", url=url, merchant=SHOP, settings={"bulk_days": bulk_days})


@contextmanager
def metered() -> Iterator[dict[str, float]]:
    """Add up, for a `with` block, what the shop's answers say queries cost, and how long calls waited for points."""
    from flux_pipelines.providers.shopify import graphql

    spent = {"points": 0.0, "waited_for_points": 0.0}
    lock = threading.Lock()

    class Metered(graphql.Bucket):
        def reserve(self, name: str) -> float:
            began = time.perf_counter()
            reserved = super().reserve(name)
            with lock:
                spent["waited_for_points"] += time.perf_counter() - began
            return reserved

        def told(self, name: str, cost: graphql.Cost) -> None:
            with lock:
                spent["points"] += cost.actualQueryCost or 0.0
            super().told(name, cost)

    original, graphql.Bucket = graphql.Bucket, Metered  # type: ignore[misc]
    try:
        yield spent
    finally:
        graphql.Bucket = original  # type: ignore[misc]


def stored(runtime: Runtime, days: list[date]) -> dict[str, Any]:
    """Return what was landed and normalised: counts, and digests of the raw files' contents and of the rows.

    Contents, because a file's own checksum is that of its compressed bytes: a day that two threads share is compressed in
    two pieces.
    """
    import zstandard

    from flux_pipelines.defs.names import provider_transactions
    from flux_pipelines.domain.tables import TRANSACTIONS

    manifests = runtime.raw.manifests(CONNECTION, days[0], days[-1])
    if missing := set(days) - manifests.keys():
        raise SystemExit(f"{len(missing)} days were not landed")
    raw = hashlib.sha256()
    for day in days:
        raw.update(f"{day}\n".encode())
        with runtime.raw.local_file(manifests[day]) as path:
            if path is not None:
                with path.open("rb") as file:
                    plain = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                    while chunk := plain.read(1 << 20):
                        raw.update(chunk)
    table = provider_transactions("shopify").to_user_string()
    dataset = runtime.lake.dataset(table)
    if dataset is None:
        raise SystemExit("nothing was normalised")
    columns = [column.name for column in TRANSACTIONS.columns]
    rows = hashlib.sha256()
    found = dataset.to_table(columns=columns).sort_by([("order_id", "ascending"), ("line_id", "ascending")])
    for row in found.to_pylist():
        rows.update(repr(row).encode())
    return {
        "orders": sum(manifest.orders for manifest in manifests.values()),
        "quarantined": sum(manifest.quarantined for manifest in manifests.values()),
        "proof": sorted({manifest.verification.status for manifest in manifests.values()}),
        "rows": found.num_rows,
        "raw_digest": raw.hexdigest(),
        "rows_digest": rows.hexdigest(),
    }


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="where the sandbox answers")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--bulk-days", type=int, required=True, help="the connection's setting; 0: page by page")
    parser.add_argument("--restored", type=int, default=100, help="points a second; default: the standard plan's")
    chosen = parser.parse_args()
    prepare(chosen.work / "home", chosen.first_day)

    import dagster as dg

    from flux_pipelines.defs.code_location import build_definitions
    from flux_pipelines.defs.driver import dagster_home
    from flux_pipelines.defs.names import RANGE_END, RANGE_START, sync_job
    from flux_pipelines.defs.partitions import connections_of
    from flux_pipelines.defs.resources import bound_resource
    from flux_pipelines.domain.partition import Partition
    from flux_pipelines.runtime import Runtime

    import_everything()
    days = [chosen.first_day + timedelta(days=n) for n in range(chosen.days)]
    with Runtime() as runtime, dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance:
        connect(runtime, chosen.url, chosen.bulk_days)
        instance.add_dynamic_partitions(str(connections_of("shopify").name), [CONNECTION])
        job = build_definitions({"flux": bound_resource(runtime)}).resolve_job_def(sync_job("shopify"))
        # This also fills the shop's bucket: every run begins with as many points.
        _ask(f"{chosen.url}/sandbox/shopify", {"merchant": SHOP, "restore_rate": chosen.restored})
        _ask(f"{chosen.url}/sandbox/stats/reset", {})
        with metered() as spent, load() as facts:
            tags = {RANGE_START: str(Partition(CONNECTION, days[0])), RANGE_END: str(Partition(CONNECTION, days[-1]))}
            assert job.execute_in_process(instance=instance, tags=tags).success
        seen = _ask(f"{chosen.url}/sandbox/stats")
        facts |= {
            **stored(runtime, days),
            **spent,
            "requests": seen["endpoints"].get("graphql", 0),
            "files": seen["endpoints"].get("bulk_result", 0),
            "throttled": seen["rate_limited"],
        }
    tell(facts)


if __name__ == "__main__":
    main()
