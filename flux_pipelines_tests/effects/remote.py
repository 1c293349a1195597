"""A system that takes objects over HTTP, and loses its answers; and what writes to it, in a process that dies."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from flux_pipelines.domain.errors import FluxError
from flux_pipelines.effects import Found, Sent, dispatch
from flux_pipelines.providers.base import RateLimit
from flux_pipelines.state import Effect, State, Vault
from flux_pipelines.transport.client import ApiClient
from flux_pipelines_tests.transport.server import Reply, Seen, transport

KEY = "books:acme"
#: Between taking an effect and writing down what came of it; of the remote's, the one at which nobody has the answer yet.
POINTS = ("claimed", "looked", "committed", "answered", "recorded")
Point = Literal["claimed", "looked", "committed", "answered", "recorded"]


@dataclass
class Remote:
    """Objects by number. What it does wrong is drawn for each request.

    Args:
        keys: whether it honours idempotency keys, takes no notice of them, or forgets half of them.
        hang_up: the share of requests that it commits, and does not answer.
        fail: the share that it refuses with 500, having done nothing.
        busy: the share that it refuses with 429.

    """

    keys: Literal["honoured", "ignored", "forgotten"] = "ignored"
    hang_up: float = 0.0
    fail: float = 0.0
    busy: float = 0.0
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    reads: int = 0
    writes: int = 0
    #: A process that is killed when the next object has been committed, before it is told.
    kills: int | None = None
    chance: random.Random = field(default_factory=lambda: random.Random(3))
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seen: Seen) -> Reply:
        with self.mutex:
            drawn = self.chance.random()
            if drawn < self.fail:
                return Reply(500)
            if drawn < self.fail + self.busy:
                return Reply(429, headers={"Retry-After": "0"})
            if seen.method == "POST" and seen.path == "/look":
                self.reads += 1
                wanted = set(json.loads(seen.body))
                found = {number: one for number, one in self.objects.items() if one["key"] in wanted}
                return Reply(body=json.dumps(found).encode())
            self.writes += 1
            number = self._commit(seen)
            if self.kills is not None:
                os.kill(self.kills, signal.SIGKILL)
                self.kills = None
            if drawn > 1 - self.hang_up:
                return Reply(hang_up=True)
            return Reply(body=json.dumps({"id": number}).encode())

    def _commit(self, seen: Seen) -> str:
        body, key = json.loads(seen.body), seen.headers["idempotency-key"]
        if self.keys != "ignored" and key in self.answered:
            return self.answered[key]
        number = body.pop("id") or str(len(self.objects) + 1)
        self.objects[number] = body
        if self.keys == "honoured" or self.chance.random() < 0.5:
            self.answered[key] = number
        return number

    def stands(self) -> dict[str, Any]:
        """Return what stands there by key; there must be one object of each."""
        assert len({one["key"] for one in self.objects.values()}) == len(self.objects), "something was written twice"
        return {one["key"]: one["payload"] for one in self.objects.values()}


class RemoteSink:
    """Writes to a `Remote`.

    Args:
        client: asks it.
        at: told of each point that is passed.

    """

    batch = 7
    settles_after = timedelta(0)

    def __init__(self, client: ApiClient, at: Callable[[Point], None] = lambda _: None) -> None:
        self._client = client
        self._at = at

    def look(self, effects: Sequence[Effect]) -> Mapping[str, Found]:
        self._at("claimed")
        answer = self._client.request("POST", "/look", idempotent=True, json=[effect.key for effect in effects])
        there = {one["key"]: Found(number, "", one["version"]) for number, one in json.loads(answer.content).items()}
        self._at("looked")
        return there

    def send(self, effects: Sequence[Effect]) -> Mapping[str, Sent | FluxError]:
        results: dict[str, Sent | FluxError] = {}
        for effect in effects:
            body = {"id": effect.remote_id, "key": effect.key, "version": effect.version, "payload": effect.payload}
            headers = {"Idempotency-Key": effect.idempotency_key}
            try:
                answer = self._client.request("POST", "/objects", idempotent=False, json=body, headers=headers)
            except FluxError as error:
                results[effect.key] = error
            else:
                results[effect.key] = Sent(json.loads(answer.content)["id"])
            self._at("answered")
        return results


def opened(url: str, folder: Path) -> State:
    return State.open(url, Vault.load(None, folder / "keys", production=False))


def send(
    url: str, folder: Path, remote: str, die_at: str | None, deaths: float, seed: int, ready: Callable[[], int]
) -> None:
    """Send what is due in this process, and die where that is meant.

    Args:
        url: of the state database.
        folder: of its keys and limits.
        remote: the remote's address.
        die_at: the point at which to die the first time that it is passed.
        deaths: the chance to die at any point.
        seed: of that chance.
        ready: tells that this process is there.

    """
    chance = random.Random(seed)

    def at(point: Point) -> None:
        if point == die_at or chance.random() < deaths:
            os.kill(os.getpid(), signal.SIGKILL)

    with opened(url, folder) as state, transport(folder / str(os.getpid())) as made:
        client = made.client(
            provider="books",
            connection=KEY,
            base_url=remote,
            limits=[RateLimit(1_000_000, 60.0)],
            credentials=None,
            headers={},
        )
        ready()
        dispatch(state.outbox, KEY, RemoteSink(client, at))
        at("recorded")
