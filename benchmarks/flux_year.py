"""The whole chain over a range of business dates, as `flux sync` runs it: raw orders to forecasts and their accuracy."""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from pathlib import Path

from benchmarks.flux_load import CONNECTION, connect, import_everything, prepare
from benchmarks.measure import load, tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=int, required=True)
    chosen = parser.parse_args()
    prepare(chosen.work / "home", chosen.first_day)

    from flux_pipelines.defs.runner import sync
    from flux_pipelines.runtime import Runtime

    import_everything()
    days = [chosen.first_day + timedelta(days=n) for n in range(chosen.days)]
    with Runtime() as runtime:
        connect(runtime, chosen.url, 1_000_000)
        with load() as facts:
            done = sync(runtime, [CONNECTION], days, beside_orders=False)
        if done.failures:
            raise SystemExit("\n".join(done.failures))
        facts |= {
            "orders": done.orders,
            "rows": done.lines,
            "requests": done.requests,
            "forecast_items": done.forecast_items,
            "days": len(days),
        }
    tell(facts)


if __name__ == "__main__":
    main()
