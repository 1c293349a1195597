"""What other processes do in these tests. Each opens the state by itself, as a real process would."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.state import Database, State, TokenKeeper, Vault, load_keys
from flux_pipelines_tests.state.calls import call
from flux_pipelines_tests.state.endpoint import refresher


def open_state(url: str, key_file: Path) -> State:
    return State.open(url, Vault.load(None, key_file, production=False))


def get_token(url: str, key_file: Path, key: str, endpoint: str, lease: float, ready: Callable[[], int]) -> str:
    with open_state(url, key_file) as state:
        ready()
        return TokenKeeper(state, key, refresher(endpoint), lease=lease).token()


def get_token_at(url: str, key_file: Path, key: str, endpoint: str, instant: float, ready: Callable[[], int]) -> str:
    """Hold the token in memory, sleep through the time to refresh it, and ask at the instant it expires."""
    with open_state(url, key_file) as state:
        keeper = TokenKeeper(state, key, refresher(endpoint))
        keeper.token()
        ready()
        time.sleep(max(0.0, instant - time.time()))
        return keeper.token()


def renew_token(url: str, key_file: Path, key: str, endpoint: str, rejected: str, ready: Callable[[], int]) -> str:
    with open_state(url, key_file) as state:
        ready()
        return TokenKeeper(state, key, refresher(endpoint)).renew(rejected)


def migrate(url: str, ready: Callable[[], int]) -> None:
    database = Database(url)
    ready()
    database.migrate()
    database.close()


def make_keys(key_file: Path, ready: Callable[[], int]) -> tuple[str, ...]:
    ready()
    return load_keys(None, key_file, production=False)


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
