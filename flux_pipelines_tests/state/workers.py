"""What other processes do in these tests. Each opens the state by itself, as a real process would."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import AuthorizationRefusedError, FluxError
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state import Database, NewEvent, State, TokenManager, Tokens, Vault, load_keys
from flux_pipelines_tests.state.calls import call
from flux_pipelines_tests.state.endpoint import refresher


def open_state(url: str, key_file: Path) -> State:
    return State.open(url, Vault.load(None, key_file, production=False))


def get_token(url: str, key_file: Path, key: str, endpoint: str, lease: float, ready: Callable[[], int]) -> str:
    with open_state(url, key_file) as state:
        ready()
        return TokenManager(state, key, refresher(endpoint), lease=lease).token()


def renew_token(url: str, key_file: Path, key: str, endpoint: str, rejected: str, ready: Callable[[], int]) -> str:
    with open_state(url, key_file) as state:
        ready()
        return TokenManager(state, key, refresher(endpoint)).renew(rejected)


def migrate(url: str, ready: Callable[[], int]) -> None:
    database = Database(url)
    ready()
    database.migrate()
    database.close()


def make_keys(key_file: Path, ready: Callable[[], int]) -> tuple[str, ...]:
    ready()
    return load_keys(None, key_file, production=False)


def rotate_and_die(url: str, key_file: Path, ready: Callable[[], int]) -> None:
    """Rotate the keys, and be killed when the new key file is written and not yet in its place."""

    def die(event: str, args: tuple[object, ...]) -> None:
        if event == "os.rename" and str(args[1]) == str(key_file):
            os.kill(os.getpid(), signal.SIGKILL)

    with open_state(url, key_file) as state:
        sys.addaudithook(die)
        ready()
        state.rotate_keys(drop_old=True)


def installation_secret(url: str, key_file: Path, ready: Callable[[], int]) -> bytes:
    with open_state(url, key_file) as state:
        ready()
        return state.installation.secret("pseudonyms", purpose="test")


def begin_sync(url: str, key_file: Path, ready: Callable[[], int]) -> tuple[str, bool]:
    with open_state(url, key_file) as state:
        ready()
        ticket = state.syncs.begin("square", ["square:a", "square:b"], date(2026, 1, 1), date(2026, 1, 31))
        return ticket.token, ticket.resumed


def use_secrets(url: str, key_file: Path, key: str, seconds: float, ready: Callable[[], int]) -> int:
    """Read and write secrets without pause, as a long-lived process would, while others rotate the keys."""
    rounds = 0
    with open_state(url, key_file) as state:
        number = ready()
        until = time.time() + seconds
        while time.time() < until:
            if number == 0:
                for _ in range(2):
                    state.rotate_keys(drop_old=True)
                    time.sleep(0.05)
            elif number % 2:
                state.secrets.put(key, {"access_token": f"{number}-{rounds}", "other": "constant"})
            found = state.secrets.get(key, purpose="test")
            if found["other"] != "constant":
                raise AssertionError(f"read {found}")
            rounds += 1
    return rounds


def add_connection(url: str, key_file: Path, key: str, ready: Callable[[], int]) -> str:
    with open_state(url, key_file) as state:
        number = ready()
        try:
            state.connections.add(Connection(key, f"tenant-{number}"), {"access_token": f"token-{number}"})
        except FluxError as error:
            return type(error).__name__
        return "added"


def record_calls(url: str, key_file: Path, count: int, ready: Callable[[], int]) -> None:
    with open_state(url, key_file) as state:
        number = ready()
        for n in range(count):
            state.audit.record(call(url=f"https://api.test/{number}/{n}"))


def _event(name: str) -> NewEvent:
    return NewEvent("square", name, "payment.updated", "ML1", datetime.now(UTC), b"{}" * 500)


def add_events(url: str, key_file: Path, rounds: int, ready: Callable[[], int]) -> int:
    """Store the same fifty events a round as the others do, each in an order of its own; return how many were new."""
    new = 0
    with open_state(url, key_file) as state:
        order = random.Random(ready())
        for number in range(rounds):
            names = [f"e-{number}-{n}" for n in range(50)]
            order.shuffle(names)
            new += sum(state.inbox.add_many([_event(name) for name in names]))
    return new


def add_events_until_killed(url: str, key_file: Path, acknowledged: Path, life: int, ready: Callable[[], int]) -> None:
    """Store events without end, and write down each once it is stored."""
    with open_state(url, key_file) as state, acknowledged.open("a", buffering=1) as out:
        ready()
        for batch in itertools.count():
            names = [f"e-{life}-{batch}-{n}" for n in range(7)]
            state.inbox.add_many([_event(name) for name in names])
            out.write("".join(f"{name}.\n" for name in names))


def redeem(url: str, key_file: Path, token: str, ready: Callable[[], int]) -> str:
    with open_state(url, key_file) as state:
        ready()
        try:
            return str(state.authorizations.redeem(token, "connect", "square", "session")["verifier"])
        except AuthorizationRefusedError as refused:
            return refused.reason


def raise_alerts(url: str, key_file: Path, count: int, ready: Callable[[], int]) -> int:
    with open_state(url, key_file) as state:
        number = ready()
        return sum(state.alerts.raise_("webhooks_failing", "square:acme", f"{number}-{n}") for n in range(count))


def request_sync(url: str, key_file: Path, ready: Callable[[], int]) -> int:
    with open_state(url, key_file) as state:
        ready()
        return state.sync_requests.add("square:acme", date(2026, 1, 1), date(2026, 1, 2), "ada", "first backfill")


def start_request(url: str, key_file: Path, request: int, ready: Callable[[], int]) -> bool:
    with open_state(url, key_file) as state:
        return state.sync_requests.start(request, f"run-{ready()}")


def get_token_at_expiry(settings: Settings, key: str, ready: Callable[[], int]) -> str:
    """Hold a connection's token as a run does, and ask for it again at the instant it expires."""
    with Runtime(settings) as runtime:
        manager = runtime.token_manager(runtime.state.connections.get(key))
        if ready() == 0:  # only now, when every process is up
            kept = runtime.state.secrets.get(key, purpose="test")
            expiry = datetime.now(UTC) + timedelta(seconds=5)
            runtime.state.secrets.put(key, {**kept, "expires_at": expiry.isoformat()})
        ready()
        manager.token()
        expiry = runtime.state.secrets.expiries()[key]["expires_at"]
        # One that comes late finds it refreshed, with an expiry far away.
        time.sleep(min(5.0, max(0.0, expiry.timestamp() - time.time())))
        return manager.token()


def refresh_and_hang(settings: Settings, key: str, rotated: Path, ready: Callable[[], int]) -> None:
    """Have the provider rotate the refresh token, and never come to storing the new one."""
    with Runtime(settings) as runtime:
        connection = runtime.state.connections.get(key)

        def refresh(token: str) -> Tokens:
            fresh = runtime._refresh(connection, token)
            rotated.touch()
            time.sleep(600)
            return fresh

        ready()
        TokenManager(runtime.state, key, refresh, lease=1.0).token()
