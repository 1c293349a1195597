"""A gateway that is killed again and again while events pour in: what it acknowledged is in the inbox, exactly once."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines_tests.gateway.webhook_process import GatewayProcess
from flux_pipelines_tests.gateway.webhookwire import Sender, connect, event, register

REPEATED = 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("database", "deliveries", "kills"), [("sqlite", 10_000, 5), ("postgresql", 4_000, 2)])
def test_acknowledged_events_survive_kill_9_exactly_once(
    database: str, deliveries: int, kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("make_postgres_url")() if database == "postgresql" else None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = Settings(home=tmp_path, database_url=url)
    with Runtime(settings, patient=False) as runtime:
        connect(runtime)
        notification_url = register(runtime, f"http://127.0.0.1:{port}")
        gateway = GatewayProcess(tmp_path, port, url)
        try:
            _storm(gateway, notification_url, runtime, deliveries, kills)
        finally:
            gateway.close()


def _storm(gateway: GatewayProcess, url: str, runtime: Runtime, deliveries: int, kills: int) -> None:
    chance = random.Random(20261122)
    distinct = round(deliveries * (1 - REPEATED))
    order = [*range(distinct), *chance.choices(range(distinct), k=deliveries - distinct)]
    chance.shuffle(order)
    bodies = {number: event(f"event-{number}") for number in set(order)}

    gateway.start()
    sender = Sender(url, lanes=24)
    finished = threading.Event()

    def deliver() -> None:
        # As a provider does: what was not acknowledged is sent again, later.
        waiting = order
        while waiting:
            before = len(sender.acknowledged)
            sender.deliver((number, bodies[number]) for number in waiting)
            done = Counter(sender.acknowledged[before:])
            left = Counter(waiting) - done
            waiting = list(left.elements())
            chance.shuffle(waiting)
        finished.set()

    thread = threading.Thread(target=deliver)
    thread.start()
    killed = 0
    while killed < kills and not finished.is_set():
        target = deliveries * (killed + 1) // (kills + 1)
        if len(sender.acknowledged) >= target:
            gateway.kill()
            killed += 1
            known = set(sender.acknowledged)
            stored = {one.event_id for one in runtime.state.inbox.recent(limit=deliveries)}
            assert {f"event-{number}" for number in known} <= stored, "acknowledged, and not there after the kill"
            gateway.start()
        time.sleep(0.005)
    thread.join(120)
    assert finished.is_set()
    assert killed == kills
    ids = Counter(one.event_id for one in runtime.state.inbox.recent(limit=2 * deliveries))
    assert ids == Counter({f"event-{number}": 1 for number in range(distinct)})
    assert sender.statuses == {200: deliveries}
    assert {one.body for one in runtime.state.inbox.recent(limit=2 * deliveries)} == set(bodies.values())
