"""Where Dagster keeps runs and events by default: SQLite in the Flux home, made fast enough for long backfills.

`dagster.yaml` names `FluxStorage`. Dagster's own SQLite storage opens an engine and commits for every event (about
20 ms each), which made its bookkeeping the slowest part of a backfill; `docs/adr` has the figures. This one keeps its
connections, writes the events of a batch in one transaction, and lets SQLite flush at checkpoints
(`synchronous=NORMAL`): a killed process loses nothing, a power cut at most the last moments of bookkeeping, never data
of the lake. It is for one machine; `deploy/dagster.postgres.yaml` is for several.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import sqlalchemy as db
from dagster import DagsterInstance, Field, QueuedRunCoordinator, StringSource
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.event_log.polling_event_watcher import SqlPollingEventWatcher
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from flux_pipelines.defs.internals import job_backfills
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.holding import Holder, hold
from flux_pipelines.settings import settings

__all__ = [
    "FluxComputeLogs",
    "FluxEventLog",
    "FluxRunQueue",
    "FluxRunStorage",
    "FluxStorage",
    "job_backfills",
    "keep_engine",
]

#: Events of one asset that Dagster hands over at once. It reads this from the environment of each process.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


_DAEMON_LOCK = "daemon.lock"
#: This process's lock of each instance whose daemon it is: held for as long as it lives.
_daemon_locks: dict[Path, IO[str]] = {}


def see_that_no_daemon_runs(folder: Path) -> None:
    """Look whether an instance is without a daemon, before one is started: two would launch every run twice.

    Args:
        folder: the instance's.

    Raises:
        ConfigurationError: it has one, which `flux up`, `dagster dev` or `dagster-daemon` has started.

    """

    def refuse(holder: Holder) -> None:
        raise ConfigurationError(
            f"the Dagster instance {folder} has a daemon already: {holder}; two would launch every run twice",
            next_step="Stop the other `flux up` or `dagster dev` first, or give this one a home of its own (FLUX_HOME).",
        )

    hold(folder / _DAEMON_LOCK, "a Dagster daemon", otherwise=refuse).close()


def _be_the_only_daemon(folder: Path) -> None:
    """Take the daemon's lock of an instance, if this process is a Dagster daemon. A second one says why, and ends."""
    called = Path(sys.argv[0])  # `dagster-daemon run`, or `python -m dagster._daemon run` as `dagster dev` does
    if folder in _daemon_locks or not (called.name == "dagster-daemon" or called.parent.name == "_daemon"):
        return

    def end(_holder: Holder) -> None:
        try:
            see_that_no_daemon_runs(folder)
        except ConfigurationError as problem:
            sys.stderr.write(f"Error: {problem}\n")
            sys.stderr.flush()
            # At once: on the way out of an error, the daemon of a `dagster dev` waits for a word of its parent, which
            # takes it for alive. When it is gone, that one ends too.
            os._exit(1)

    _daemon_locks[folder] = hold(folder / _DAEMON_LOCK, "a Dagster daemon", otherwise=end)


def keep_engine(url: str) -> db.Engine:
    """Return an engine that keeps its connections and its compiled statements."""
    engine = db.create_engine(
        url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}, pool_size=8
    )

    @db.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


class FluxEventLog(ConsolidatedSqliteEventLogStorage):
    """All runs' events in one SQLite file."""

    def __init__(self, base_dir: str) -> None:
        self._watcher: SqlPollingEventWatcher | None = None
        self._engine: db.Engine | None = None
        super().__init__(base_dir)
        self._engine = keep_engine(self._conn_string)
        self._asset_key_columns: dict[str, bool] = {}
        self._tables: set[str] = set()

    @contextmanager
    def _connect(self) -> Iterator[db.Connection]:
        if self._engine is None:  # while the tables are being made
            with super()._connect() as connection:
                yield connection
            return
        with self._engine.begin() as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        """Tell whether a table exists; asked for every event, so a yes is remembered."""
        if self._engine is None:
            return bool(super().has_table(table_name))
        if table_name not in self._tables and db.inspect(self._engine).has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: db.Connection, column_name: str) -> bool:
        if column_name not in self._asset_key_columns:
            self._asset_key_columns[column_name] = super()._has_asset_key_col_on_connection(conn, column_name)
        return self._asset_key_columns[column_name]

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event."""
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction: all of them or none."""
        insert = SqlEventLogStorageTable.insert()
        checks: list[tuple[EventLogEntry, int]] = []
        assets: list[tuple[EventLogEntry, int]] = []
        with self._connect() as connection:
            for event in events:
                key = connection.execute(insert, self._event_to_row(event)).inserted_primary_key
                event_id = int(key[0]) if key else 0
                if event.dagster_event is None:
                    continue
                if event.dagster_event_type in ASSET_CHECK_EVENTS:
                    checks.append((event, event_id))
                elif event.dagster_event_type in ASSET_EVENTS and event.dagster_event.asset_key:
                    assets.append((event, event_id))
            if assets:
                self._store_asset_event_tags(connection, [e for e, _ in assets], [i for _, i in assets])
            # An asset's own row tells of its last event alone: only the last of each asset and type is worth writing.
            latest = {(e.get_dagster_event().asset_key, e.dagster_event_type): (e, i) for e, i in assets}
            for event, event_id in latest.values():
                self._store_asset_event(connection, event, event_id)
        for event, event_id in checks:
            self.store_asset_check_event(event, event_id)

    # Dagster's consolidated SQLite log watches its file for changes, but in WAL mode new events change another file.

    def watch(self, run_id: str, cursor: str | None, callback: Any) -> None:
        """Call back with a run's new events, by polling."""
        if self._watcher is None:
            self._watcher = SqlPollingEventWatcher(self)
        self._watcher.watch_run(run_id, cursor, callback)

    def end_watch(self, run_id: str, handler: Any) -> None:
        """Stop calling back."""
        if self._watcher is not None:
            self._watcher.unwatch_run(run_id, handler)

    def dispose(self) -> None:
        """Stop watching and close every connection."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._engine is not None:
            self._engine.dispose()


class FluxRunStorage(SqliteRunStorage):
    """Dagster's SQLite run storage with connections that are kept."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(conn_string, inst_data)
        self._engine = keep_engine(conn_string)

    @contextmanager
    def connect(self) -> Iterator[db.Connection]:
        """Lend a connection in a transaction."""
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class FluxStorage(DagsterStorage[DagsterInstance], ConfigurableClass):
    """Runs, events, schedules and sensors of this Flux home, whatever process or folder Dagster is started from.

    Args:
        base_dir: where to keep them; by default the `dagster` folder of `FLUX_HOME`.
        inst_data: Dagster's own description of this object.

    """

    def __init__(self, base_dir: str | None = None, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        if base_dir:
            folder = Path(base_dir)
        else:
            settings().make_home()
            folder = settings().dagster_home
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _be_the_only_daemon(folder)
        # The web server, the daemon and the code server start together: one of them makes the tables.
        with (folder / "storage.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._runs = FluxRunStorage.from_local(str(folder / "history"))
            self._events = FluxEventLog(str(folder / "history"))
            self._schedules = SqliteScheduleStorage.from_local(str(folder / "schedules"))
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Dagster's own description of this object."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the settings that `dagster.yaml` may give."""
        return {"base_dir": Field(StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> FluxStorage:
        """Build it as `dagster.yaml` says."""
        return cls(inst_data=inst_data, **config_value)

    def register_instance(self, instance: DagsterInstance) -> None:
        """Tell the storages which instance they belong to."""
        super().register_instance(instance)
        for storage in (self._runs, self._events, self._schedules):
            if not storage.has_instance:
                storage.register_instance(instance)

    @property
    def event_log_storage(self) -> FluxEventLog:
        """The events."""
        return self._events

    @property
    def run_storage(self) -> SqliteRunStorage:
        """The runs."""
        return self._runs

    @property
    def schedule_storage(self) -> SqliteScheduleStorage:
        """Ticks and states of schedules and sensors."""
        return self._schedules

    def dispose(self) -> None:
        """Release files and connections."""
        for storage in (self._events, self._runs, self._schedules):
            storage.dispose()


class FluxComputeLogs(LocalComputeLogManager):
    """What runs print, kept in the Flux home as well.

    Only of a process that Dagster has started for a run. What a run prints in another (`flux sync`) goes where that one
    prints: Dagster keeps it by four processes more each run, among them two of Python.
    """

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Keep what is printed in a `with` block."""
        if sys.argv[1:2] == ["api"]:  # `dagster api grpc`, whose children runs are, `execute_run`, `execute_step`
            with super().capture_logs(log_key) as captured:
                yield captured
            return
        yield CapturedLogContext(log_key)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the settings that `dagster.yaml` may give: none."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> FluxComputeLogs:  # noqa: ARG003
        """Build it as `dagster.yaml` says."""
        return cls(base_dir=str(settings().dagster_home / "logs"), inst_data=inst_data)


class FluxRunQueue(QueuedRunCoordinator):
    """Dagster's run queue. Named in an instance on PostgreSQL so that its processes load this module, and `job_backfills` with it."""
