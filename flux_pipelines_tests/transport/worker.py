"""A process that calls a server as fast as its shared limit lets it: `python -m` this file with the arguments below."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from flux_pipelines.providers.base import RateLimit
from flux_pipelines.transport import PostgresLimitStore, SqliteLimitStore, StateStore, Transport
from flux_pipelines_tests.transport.server import Audit, StaticToken


def main(store: str, url: str, name: str, requests: str, seconds: str, run_for: str, threads: str) -> None:
    shared: StateStore = PostgresLimitStore(store) if "://" in store else SqliteLimitStore(Path(store))
    shared.update(["warm"], lambda _, __: (None, None))  # connected before the clock starts
    transport = Transport(shared, Audit(), user_agent=name)
    client = transport.client(
        provider="square",
        connection="square:acme",
        base_url=url,
        limits=[RateLimit(int(requests), float(seconds))],
        credentials=StaticToken("a-token-of-the-test"),
        headers={},
    )
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + float(run_for)

    def work() -> None:
        while time.monotonic() < end:
            client.request("GET", "/v2/locations", idempotent=True, budget=["L1"])

    workers = [threading.Thread(target=work, daemon=True) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
