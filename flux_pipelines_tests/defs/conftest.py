"""A home of its own for each test, and one sandbox for them all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.driver import QUIETLY, dagster_home
from flux_pipelines.defs.names import RANGE_END, RANGE_START
from flux_pipelines.defs.resources import bound_resource
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import TABLES, TRANSACTIONS
from flux_pipelines.lake import session
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

START = date(2026, 3, 1)
END_DAY = date(2026, 3, 10)
MERCHANTS = ("harbor", "sakura")


@dataclass
class Home:
    """A Flux home with its rooms and its Dagster instance."""

    runtime: Runtime
    instance: dg.DagsterInstance
    sandbox: RunningSandbox

    @cached_property
    def definitions(self) -> dg.Definitions:
        return build_definitions({"flux": bound_resource(self.runtime)})

    def connect(self, *merchants: str) -> list[str]:
        """Connect merchants of the sandbox under their own names; return the keys."""
        keys = []
        for merchant in merchants or MERCHANTS:
            key = f"square:{merchant}"
            connect_to_sandbox(
                self.runtime, key, tenant=merchant, url=self.sandbox.url, settings={"requests_per_minute": 100_000}
            )
            keys.append(key)
        self.instance.add_dynamic_partitions("square_connections", keys)
        return keys

    def run(self, job: str, first: str, last: str, **more: Any) -> dg.ExecuteInProcessResult:
        """Run a job over a range of partitions."""
        tags = {RANGE_START: first, RANGE_END: last, **more.pop("tags", {})}
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, tags=tags, raise_on_error=False, **{"run_config": QUIETLY, **more}
        )

    def sync(self, first: tuple[str, date], last: tuple[str, date], **more: Any) -> dg.ExecuteInProcessResult:
        return self.run("sync_square", str(Partition(*first)), str(Partition(*last)), **more)

    def tick(
        self, sensor: dg.SensorDefinition, cursor: str | None = None, runtime: Runtime | None = None
    ) -> dg.SensorExecutionData:
        """Evaluate a sensor once."""
        # A context that is dropped instead of closed takes Dagster's current instance away whenever it is collected.
        with dg.build_sensor_context(
            self.instance,
            cursor=cursor,
            resources={"flux": bound_resource(runtime or self.runtime)},
            definitions=self.definitions,
        ) as context:
            return sensor.evaluate_tick(context)

    def due(self, schedule: dg.ScheduleDefinition, at: datetime) -> list[dg.RunRequest]:
        """Return what a schedule asks for at an instant."""
        with dg.build_schedule_context(
            self.instance, scheduled_execution_time=at, resources={"flux": bound_resource(self.runtime)}
        ) as context:
            return list(schedule.evaluate_tick(context).run_requests or ())

    def partitions(self, *key: str) -> list[str]:
        return sorted(self.instance.get_materialized_partitions(dg.AssetKey(key)))

    def recorded(self, run_id: str) -> set[str | None]:
        """Return the partitions that a run has recorded as materialised."""
        found = self.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        return {record.event_log_entry.get_dagster_event().partition for record in found}

    def metadata(self, *key: str, partition: str) -> dict[str, Any]:
        """Return the metadata of a partition's latest materialisation."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(key), asset_partitions=[partition]), limit=1
        ).records
        materialisation = records[0].asset_materialization
        assert materialisation is not None
        return {name: value.value for name, value in materialisation.metadata.items()}

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        lake = self.runtime.lake
        words = {*re.findall(r"\w+", query), *(name.replace(".", "_") for name in re.findall(r"\w+\.\w+", query))}
        there = {*lake.tables(), *(table.name for table in TABLES)}
        # Opening every table takes four times as long as opening those that are asked.
        with session(lake, [name for name in there if name.replace("/", "_") in words]) as database:
            return database.execute(query).fetchall()

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return self.ask(f"select * from {table} order by all")

    def contents(self, tables: Iterable[str]) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of several tables."""
        with session(self.runtime.lake, tables := list(tables)) as database:
            return {name: database.execute(f"select * from {name} order by all").fetchall() for name in tables}

    def versions(self) -> dict[str, int | None]:
        names = [TRANSACTIONS.name, "square/transactions", "daily_sales", "daily_item_demand"]
        return {name: self.runtime.lake.version(name) for name in names}


@pytest.fixture(scope="session")
def sandbox() -> Iterator[RunningSandbox]:
    """Three merchants, ten business dates; nobody may change it."""
    with RunningSandbox(SandboxOptions(seed=11, end_day=END_DAY, history_days=10, rate_limit=1_000_000)) as running:
        yield running


def changing() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(seed=12, end_day=END_DAY, history_days=4, rate_limit=1_000_000)) as running:
        yield running


@pytest.fixture
def changing_sandbox() -> Iterator[RunningSandbox]:
    """A sandbox that a test may change."""
    yield from changing()


@contextmanager
def settings_of(home: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setenv("FLUX_HOME", str(home))
    patch.setenv("FLUX_START_DATE", START.isoformat())
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings of a home of its own."""
    with settings_of(tmp_path / "home", monkeypatch):
        yield tmp_path


@cache
def _new_instance() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="flux-instance-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_HOME", folder.name)
        settings.cache_clear()
        dg.DagsterInstance.from_config(str(dagster_home(settings()))).dispose()
    settings.cache_clear()
    return folder  # it lasts as long as this object does


def new_instance() -> Path:
    """Return a home with a Dagster instance in which nothing has happened: its databases take longer to make than to copy."""
    return Path(_new_instance().name)


def open_home(sandbox: RunningSandbox) -> Iterator[Home]:
    with Runtime() as runtime:
        home = runtime.settings.dagster_home
        if not home.exists():
            shutil.copytree(new_instance() / home.name, home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Home(runtime, instance, sandbox)


def made_once(folder: Path, sandbox: RunningSandbox, happen: Callable[[Home], object]) -> Path:
    """Let something happen in a new home; return its folder, of which `open_copy` opens copies.

    Tests that begin with the same syncs share them so: a copy takes a twentieth of a second, a sync several.
    """
    with pytest.MonkeyPatch.context() as patch, settings_of(folder, patch):
        for home in open_home(sandbox):
            happen(home)
    settings.cache_clear()
    return folder


def open_copy(made: Path, sandbox: RunningSandbox) -> Iterator[Home]:
    shutil.copytree(made, settings().home)
    yield from open_home(sandbox)


@pytest.fixture
def home(environment: Path, sandbox: RunningSandbox) -> Iterator[Home]:
    yield from open_home(sandbox)


@pytest.fixture
def changing_home(environment: Path, changing_sandbox: RunningSandbox) -> Iterator[Home]:
    yield from open_home(changing_sandbox)
