"""Every state test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from flux_pipelines.domain.connection import Connection
from flux_pipelines.state import Database, State, Vault
from flux_pipelines.state.models import Base
from flux_pipelines_tests.state.endpoint import TokenEndpoint

KEY = "square:acme"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file with its tables and nothing in them, to be copied: that is quicker than making it."""
    file = tmp_path_factory.mktemp("migrated") / "state.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_postgres(make_postgres_url: Callable[[], str]) -> str:
    """A PostgreSQL database with its tables, which each test finds empty."""
    url = make_postgres_url()
    migrate(url)
    return url


def migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path) -> str:
    """A migrated database without rows."""
    if request.param == "sqlite":
        (tmp_path / "home").mkdir()
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "home" / "state.db")
        return sqlite_url
    url = str(request.getfixturevalue("migrated_postgres"))
    database = Database(url)
    with database.session() as session:
        session.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)}"))
    database.close()
    return url


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
