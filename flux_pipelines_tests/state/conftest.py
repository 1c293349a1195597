"""Every state test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flux_pipelines.domain.connection import Connection
from flux_pipelines.state import State, Vault
from flux_pipelines_tests.state.endpoint import TokenEndpoint

KEY = "square:acme"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'state.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'home' / 'state.db'}"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys"


@pytest.fixture
def vault(key_file: Path) -> Vault:
    return Vault.load(None, key_file, production=False)


@pytest.fixture
def state(database_url: str, vault: Vault) -> Iterator[State]:
    with State.open(database_url, vault) as opened:
        yield opened


@pytest.fixture
def acme(state: State) -> str:
    state.connections.add(Connection(KEY, "acme"))
    return KEY


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint() as server:
        yield server
