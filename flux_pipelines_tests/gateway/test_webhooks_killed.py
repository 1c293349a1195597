"""A gateway on PostgreSQL that is killed while events pour in: what it acknowledged is in the inbox, exactly once.

The same on SQLite, and on to the tables, is in `defs/test_inbox_killed.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.gateway.storm import shuffled, storm
from flux_pipelines_tests.gateway.webhook_process import GatewayProcess
from flux_pipelines_tests.gateway.webhookwire import connect, event, register


@pytest.mark.long
def test_acknowledged_events_survive_kill_9_exactly_once(tmp_path: Path, make_postgres_url: Callable[[], str]) -> None:
    url = make_postgres_url()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Runtime(Settings(home=tmp_path, database_url=url), patient=False) as runtime:
        connect(runtime)
        notification_url = register(runtime, f"http://127.0.0.1:{port}")
        gateway = GatewayProcess(tmp_path, port, url)
        bodies = {f"event-{number}": event(f"event-{number}") for number in range(2_800)}
        try:
            storm(gateway, notification_url, runtime.state.inbox, bodies, shuffled(list(bodies), 4_000), kills=2)
        finally:
            gateway.close()
        assert {one.body for one in runtime.state.inbox.recent(limit=8_000)} == set(bodies.values())
