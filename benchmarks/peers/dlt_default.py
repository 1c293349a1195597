"""dlt's rest_api source into DuckDB as its documentation shows it: nested tables, Parquet load files, nothing tuned.

Runs in its own environment (`requirements-dlt.txt`), without Flux. `dlt_tuned.py` beside it sets what dlt's performance
guide offers and runs this.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

# The peer's own state stays in the work folder, and it must not call home while it is being timed.
_parser = argparse.ArgumentParser()
_parser.add_argument("--url", required=True)
_parser.add_argument("--work", type=Path, required=True)
_CHOSEN, _ = _parser.parse_known_args()
os.environ["DLT_DATA_DIR"] = str(_CHOSEN.work / "dlt")
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402


def cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    source = rest_api_source(
        {
            "client": {
                "base_url": _CHOSEN.url,
                "paginator": {"type": "cursor", "cursor_path": "next", "cursor_param": "page"},
            },
            "resources": [{"name": "orders", "endpoint": {"path": "pages", "data_selector": "orders"}}],
        }
    )
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(_CHOSEN.work / "pipelines"),
        destination=dlt.destinations.duckdb(str(_CHOSEN.work / "bench.duckdb")),
        dataset_name="square",
    )
    seconds, cpu = time.perf_counter(), cpu_seconds()
    pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()
    facts = {"seconds": time.perf_counter() - seconds, "cpu_seconds": cpu_seconds() - cpu}
    with pipeline.sql_client() as client:
        for name, table in (("orders", "orders"), ("lines", "orders__line_items")):
            facts[name] = client.execute_sql(f"SELECT count(*) FROM {table}")[0][0]
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
