"""One of several processes that share a Flux home and ask for the same location's orders as fast as they are let."""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import load, tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--connection", required=True)
    parser.add_argument("--until", type=float, required=True, help="when to stop, in seconds since 1970")
    parser.add_argument("--threads", type=int, default=4)
    chosen = parser.parse_args()
    os.environ["FLUX_HOME"] = str(chosen.home)

    from concurrent.futures import ThreadPoolExecutor

    from flux_pipelines.providers.base import Window
    from flux_pipelines.runtime import Runtime

    with Runtime() as runtime:
        connection = runtime.state.connections.get(chosen.connection)
        source = runtime.source(connection)
        place = source.locations()[0].location_id
        start = datetime(2001, 1, 1, tzinfo=UTC)  # no orders: each window is exactly one call
        window = Window((place,), start, start + timedelta(seconds=1))

        def ask() -> int:
            calls = 0
            while time.time() < chosen.until:
                for _ in source.pages(window, "created"):
                    pass
                calls += 1
            return calls

        with load() as facts, ThreadPoolExecutor(chosen.threads) as pool:
            facts["calls"] = sum(pool.map(lambda _: ask(), range(chosen.threads)))
        source.close()
        facts["location"] = place
    tell(facts)


if __name__ == "__main__":
    main()
