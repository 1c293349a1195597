"""A storm of deliveries to a gateway that is killed again and again while they pour in."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from flux_pipelines.state.inbox.inbox import Inbox
from flux_pipelines_tests.gateway.webhook_process import GatewayProcess
from flux_pipelines_tests.gateway.webhookwire import KEY, Sender


def storm(
    gateway: GatewayProcess,
    url: str,
    inbox: Inbox,
    bodies: Mapping[str, bytes],
    order: Sequence[str],
    kills: int,
    key: str = KEY,
) -> None:
    """Deliver events as a provider does, what was not acknowledged again and again, and kill the gateway meanwhile.

    Args:
        gateway: not started yet.
        url: the notification URL.
        inbox: where the events arrive.
        bodies: the events, by their ids.
        order: the ids in the order of the deliveries; several times what is delivered several times.
        kills: how often it is killed.
        key: signs the deliveries.

    Asserts that after each kill everything acknowledged is stored, and in the end everything exactly once.

    """
    chance = random.Random(20261122)
    gateway.start()
    sender = Sender(url, lanes=24, key=key)
    finished = threading.Event()

    def deliver() -> None:
        waiting = list(order)
        while waiting:
            before = len(sender.acknowledged)
            sender.deliver((event_id, bodies[event_id]) for event_id in waiting)
            left = Counter(waiting) - Counter(sender.acknowledged[before:])
            waiting = list(left.elements())
            chance.shuffle(waiting)
        finished.set()

    thread = threading.Thread(target=deliver)
    thread.start()
    killed = 0
    while killed < kills and not finished.is_set():
        if len(sender.acknowledged) >= len(order) * (killed + 1) // (kills + 1):
            gateway.kill()
            killed += 1
            known = set(sender.acknowledged)
            stored = {one.event_id for one in inbox.recent(limit=len(order))}
            assert known <= stored, "acknowledged, and not there after the kill"
            gateway.start()
        time.sleep(0.005)
    thread.join(120)
    assert finished.is_set()
    assert killed == kills
    found = inbox.recent(limit=2 * len(order))
    assert Counter(one.event_id for one in found) == Counter(dict.fromkeys(set(order), 1))
    assert sender.statuses == {200: len(order)}


def shuffled(ids: Sequence[str], deliveries: int, seed: int = 7) -> list[str]:
    """Return so many deliveries of these events: each at least once, some again, in no order."""
    chance = random.Random(seed)
    order = [*ids, *chance.choices(ids, k=deliveries - len(ids))]
    chance.shuffle(order)
    return order
