from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from flux_pipelines.domain.business_day import Earlier
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import (
    ConfigurationError,
    FluxError,
    StateUnavailableError,
    StorageFullError,
    TableDamagedError,
)
from flux_pipelines.state import Database, State, Vault
from flux_pipelines.state.migrations import HEAD, VERSION_TABLE
from flux_pipelines.state.models import AuditRow, Base, ConnectionRow
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.calls import call
from flux_pipelines_tests.state.processes import together


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database that nobody has migrated yet."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


def file_of(url: str) -> Path:
    return Path(str(make_url(url).database))


# --- URLs ---


@pytest.mark.parametrize(
    "url",
    [
        "mysql://flux:hunter2@host/db",
        "postgresql://flux:hunter2@host:notaport/db",
        "sqlite://",
        "sqlite:///:memory:",
        "hunter2",
        "",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Database(url)
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)
    assert "FLUX_DATABASE_URL" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_server_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    url = f"{scheme}://flux:hunter2@127.0.0.1:1/flux?password=hunter3"
    database = Database(url)
    with pytest.raises(StateUnavailableError, match=r"postgresql://127\.0\.0\.1:1/flux") as caught:
        database.migrate()
    shown = repr(database) + str(caught.value) + repr(caught.value.__cause__)
    assert "hunter" not in shown
    assert caught.value.rerun_helps


def test_a_database_that_does_not_exist_is_a_matter_of_configuration(postgres_url: str, vault: Vault) -> None:
    wrong = make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(ConfigurationError, match="nowhere"):
        State.open(wrong, vault)


# --- schema ---


def test_migrations_make_exactly_the_tables_of_the_models(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()
    with database.reading() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_a_database_of_the_first_release_is_upgraded_with_everything_in_it(database_url: str, vault: Vault) -> None:
    database = Database(database_url)
    if database.is_sqlite:
        file_of(database_url).parent.mkdir(exist_ok=True)
    config = Config()
    config.set_main_option("script_location", "flux_pipelines.state:migrations")
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        ciphertext, key_id = vault.encrypt("EAAA")
        now = "2026-01-01 00:00:00"
        connection.execute(
            text("INSERT INTO connections VALUES ('square:acme', 'acme', 'ML1', 'active', '', :settings, :now, :now)"),
            {"now": now, "settings": '{"cutoff_hour": 4}'},
        )
        connection.execute(
            text("INSERT INTO locations VALUES ('square:acme', 'L1', 'Harbor', 'Asia/Tokyo', 'JPY', true, :now)"),
            {"now": now},
        )
        connection.execute(
            text("INSERT INTO credentials VALUES ('square:acme', 'access_token', :c, :k, :now)"),
            {"c": ciphertext, "k": key_id, "now": now},
        )
        connection.execute(
            text(
                "INSERT INTO connections VALUES "
                "('square:lost', 'acme', 'ML2', 'needs_reauth', 'the merchant took it back', '{}', :now, :now)"
            ),
            {"now": now},
        )
    database.close()
    with State.open(database_url, vault) as state:
        assert state.secrets.get("square:acme", purpose="test") == {"access_token": "EAAA"}
        assert state.inbox.counts()["received"] == 0
        assert state.connections.get("square:acme").account_id == "ML1"
        moved = {"L1": "Europe/London"}
        told = state.locations.keep_calendars("square:acme", moved, 4, lambda: date(2026, 1, 2))
        assert told == {"L1": (Earlier(date(2026, 1, 2), "Asia/Tokyo", 4),)}, "the rule that there was is known"
        (alert,) = state.alerts.open()
        assert (alert.kind, alert.connection_key) == ("needs_reauth", "square:lost")
        assert "the merchant took it back" in alert.message
        state.connections.set_status("square:lost", "active", "")
        assert state.alerts.open() == []


def test_the_head_that_is_checked_for_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "flux_pipelines.state:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_eight_processes_that_open_a_new_database_at_once_all_succeed(database_url: str) -> None:
    assert together(8, workers.migrate, database_url) == [None] * 8


def test_opening_a_current_database_does_not_even_import_alembic(sqlite_url: str, state_of_sqlite: None) -> None:
    code = (
        "import sys; from flux_pipelines.state import Database; "
        f"Database({sqlite_url!r}).migrate(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def state_of_sqlite(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.migrate()
    database.close()


def test_a_database_of_a_newer_flux_is_left_alone(state: State, database_url: str, vault: Vault) -> None:
    with state.database.session() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer version of Flux"):
        State.open(database_url, vault)


def test_a_database_with_tables_of_somebody_else_is_left_alone(database_url: str, vault: Vault) -> None:
    database = Database(database_url)
    with database.session() as session:
        session.execute(text("CREATE TABLE connections (theirs INTEGER)"))
    database.close()
    with pytest.raises(ConfigurationError, match="tables that Flux did not make: connections"):
        State.open(database_url, vault)


def test_dagster_may_share_the_database(database_url: str, vault: Vault) -> None:
    database = Database(database_url)
    with database.session() as session:
        session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        session.execute(text("INSERT INTO alembic_version VALUES ('29a8e9d74220')"))
    database.close()
    with State.open(database_url, vault) as state, state.database.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "29a8e9d74220"


# --- the SQLite file ---


def test_the_file_and_its_log_are_for_this_user_only(sqlite_url: str, vault: Vault) -> None:
    before = os.umask(0o000)
    try:
        with State.open(sqlite_url, vault) as state:
            state.connections.add(Connection("square:acme", "acme"))
            file = file_of(sqlite_url)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in file.parent.iterdir() if p.name.startswith("st")}
    finally:
        os.umask(before)
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


def test_the_file_is_in_wal_mode_fully_synchronous_with_foreign_keys(sqlite_url: str, vault: Vault) -> None:
    with State.open(sqlite_url, vault) as state, state.database.reading() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


@pytest.mark.parametrize("damage", ["garbage", "header", "middle"])
def test_a_damaged_file_is_a_clear_error_and_is_left_as_it_is(sqlite_url: str, vault: Vault, damage: str) -> None:
    file = file_of(sqlite_url)
    with State.open(sqlite_url, vault) as state:
        for n in range(50):
            state.connections.add(Connection(f"square:c{n}", "tenant" * 200))
    content = file.read_bytes()
    match damage:
        case "garbage":
            content = b"this is not a database" * 500
        case "header":
            content = content[:1000]
        case "middle":
            content = content[:4096] + b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(TableDamagedError) as caught, State.open(sqlite_url, vault) as state:
        state.connections.list()
    assert str(file) in str(caught.value)
    assert "backup" in str(caught.value)
    assert "sqlalche" not in str(caught.value)
    assert file.read_bytes() == content


def test_a_full_disk_is_said_and_nothing_is_half_written(sqlite_url: str, vault: Vault) -> None:
    with State.open(sqlite_url, vault) as state:
        with state.database.reading() as session:
            pages = session.scalar(text("PRAGMA page_count"))
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(StorageFullError) as caught:
            state.connections.add(Connection("square:acme", "t" * 100_000), {"access_token": "a"})
        assert caught.value.rerun_helps
        assert state.connections.list() == []
        # The audit holds what the disk cannot take, and writes it once there is space.
        for n in range(400):
            state.audit.record(call(url=f"https://api.test/{n}/{'x' * 500}"))
        with pytest.raises(StorageFullError):
            state.audit.flush()
        with state.database.reading() as session:
            session.execute(text("PRAGMA max_page_count = 1000000"))
        state.audit.flush()
        assert state.audit.totals().requests == 400


def test_a_lock_that_is_never_released_is_an_error_that_a_rerun_helps(sqlite_url: str, vault: Vault) -> None:
    State.open(sqlite_url, vault).close()
    blocker = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    database = Database(sqlite_url, busy_timeout=0.2)
    with pytest.raises(StateUnavailableError, match="locked") as caught, database.session():
        pass
    assert caught.value.rerun_helps
    # Reading never waits for a writer.
    with database.reading() as session:
        assert session.scalars(select(ConnectionRow)).all() == []
    blocker.close()
    database.close()


def test_a_place_that_cannot_hold_a_file(tmp_path: Path, vault: Vault) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"sqlite:///{tmp_path / 'file' / 'state.db'}", f"sqlite:///{tmp_path}"):
        with pytest.raises(ConfigurationError, match=str(tmp_path)):
            State.open(url, vault)


# --- sessions ---


def test_an_exception_rolls_everything_back(state: State) -> None:
    def fail_half_way() -> None:
        with state.database.session() as session:
            session.add(AuditRow(**vars(call())))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert state.audit.totals().requests == 0


def test_a_forked_child_and_its_parent_do_not_share_a_connection(state: State) -> None:
    state.connections.add(Connection("square:acme", "acme"))
    child = os.fork()
    if child == 0:
        try:
            state.connections.add(Connection("square:child", "acme"))
            os._exit(0 if state.connections.get("square:child").tenant == "acme" else 1)
        except FluxError:
            os._exit(2)
    state.connections.add(Connection("square:parent", "acme"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [c.key for c in state.connections.list()] == ["square:acme", "square:child", "square:parent"]
