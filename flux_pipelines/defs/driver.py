"""A driver runs jobs in this process, on the instance that everything else uses, so that the UI shows them.

It is given the definitions: what a run does may itself need a driver (`erasures`), and the definitions know that run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.forecasts import HORIZON
from flux_pipelines.defs.assets.normalized import grain_of
from flux_pipelines.defs.completeness import collected_until
from flux_pipelines.defs.jobs import inside_orders
from flux_pipelines.defs.partitions import connections_of
from flux_pipelines.defs.resources import Progress, bound_resource
from flux_pipelines.defs.tags import connection_tags, day_tags, runs_of
from flux_pipelines.domain.partition import Partition, unit_of
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.settings import PROJECT_ROOT, Settings

if TYPE_CHECKING:
    from flux_pipelines.defs.internals import ExecuteInProcessResult
    from flux_pipelines.providers.base import Provider, Strategy, StreamTable
    from flux_pipelines.runtime import Runtime

#: Makes the definitions with some of their resources replaced (`code_location.build_definitions`).
Build = Callable[[Mapping[str, Any]], dg.Definitions]

#: What the run says is in the event log; the terminal has the progress bar.
QUIETLY: Mapping[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def dagster_home(settings: Settings) -> Path:
    """Return the folder of the Dagster instance, made with our `dagster.yaml` if it is not there yet.

    Whoever wants PostgreSQL puts `deploy/dagster.postgres.yaml` there under that name.
    """
    settings.make_home()
    home = settings.dagster_home
    home.mkdir(exist_ok=True, mode=0o700)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(PROJECT_ROOT / "dagster.yaml", home / "dagster.yaml")
    return home


@contextmanager
def driving(
    runtime: Runtime, build: Build, progress: Progress | None = None, *, accept_empty: bool = False
) -> Iterator[Driver]:
    """Open the Dagster instance of the home for a `with` block that runs assets in this process.

    Args:
        runtime: the rooms.
        build: makes the definitions whose jobs are run.
        progress: told of each partition that has landed.
        accept_empty: whether partitions that hold records may become empty.

    """
    home = dagster_home(runtime.settings)
    locks = home / "drivers"
    locks.mkdir(exist_ok=True)
    name = uuid.uuid4().hex
    with dg.DagsterInstance.from_config(str(home)) as instance, (locks / name).open("w") as lock:
        # Held as long as this process lives, whatever ends it: so another one can tell whose runs are dead.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            _close_dead_runs(instance, locks)
            definitions = build({"flux": bound_resource(runtime, progress)})
            yield Driver(runtime, instance, f"{socket.gethostname()}:{name}", definitions, accept_empty=accept_empty)
        finally:
            (locks / name).unlink(missing_ok=True)


def _close_dead_runs(instance: dg.DagsterInstance, locks: Path) -> None:
    """Mark the runs of drivers that were killed as failed: nobody else would, and they would seem to run for ever."""
    under_way = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=under_way)):
        host, _, name = run.tags.get(names.DRIVER_TAG, "").partition(":")
        if host == socket.gethostname() and name and not _is_held(locks / name):
            instance.report_run_failed(run, "The process that ran it was ended. Run the same command again to go on.")
            (locks / name).unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class Driver:
    """Materialises partitions in this process. What fails is collected in `failures`, not raised.

    Args:
        runtime: the rooms that the assets use.
        instance: the Dagster instance that the runs are recorded in.
        name: the tag of this process's runs.
        definitions: whose jobs are run.
        accept_empty: whether partitions that hold records may become empty.

    """

    def __init__(
        self,
        runtime: Runtime,
        instance: dg.DagsterInstance,
        name: str,
        definitions: dg.Definitions,
        *,
        accept_empty: bool = False,
    ) -> None:
        self._runtime = runtime
        self._accept_empty = accept_empty
        self._instance = instance
        self._name = name
        self._definitions = definitions
        self._days: set[date] = set()  # what the core tables have to be brought up to date for
        self._strategies: set[Strategy] = set()
        self.failures: list[str] = []

    def materialise_connection(
        self, provider: str, connection: str, days: Sequence[date], *, sync_token: str
    ) -> set[date]:
        """Land and normalise business dates of a connection; return those that are complete, and those that changed with them.

        A failure of some days leaves the others landed and normalised.

        Args:
            provider: the provider's name.
            connection: the connection's key.
            days: business dates.
            sync_token: names the sync: partitions it has landed already are not fetched again.

        """
        self._instance.add_dynamic_partitions(str(connections_of(provider).name), [connection])
        done: set[date] = set()
        both = [names.raw_orders(provider), names.provider_transactions(provider)]
        for first, last in runs_of(days):
            wanted = {day for day in days if first <= day <= last}
            tags = connection_tags(connection, first, last) | {names.SYNC_TAG: sync_token}
            result = self.run(names.sync_job(provider), tags)
            landed, normalised = (self.recorded(result, key) for key in both)
            done |= normalised
            # Dates whose orders have changed since they were fetched have landed with those that were asked for.
            left = landed - normalised if not normalised else landed - wanted
            if left:
                done |= self.normalise(provider, connection, sorted(left))
        return done

    def normalise(self, provider: str, connection: str, days: Sequence[date]) -> set[date]:
        """Normalise business dates that are landed; return those that are complete."""
        spec = provider_named(provider)
        return self.make(spec, spec.table(TRANSACTIONS.name), connection, days)

    def materialise_core(self, days: Sequence[date]) -> set[date]:
        """Bring the core tables up to date for business dates; return those whose item demand is."""
        done: set[date] = set()
        for first, last in runs_of(days):
            for result in self.run_through(names.REFRESH_CORE_JOB, day_tags(first, last)):
                done |= self.recorded(result, names.DAILY_ITEM_DEMAND)
        return done

    def forecast(self, last: date) -> tuple[bool, bool]:
        """Forecast as of a business date and as of 14 days before it, and evaluate the 14 days in between.

        Returns:
            Whether there are forecasts as of the date, and whether they were evaluated.

        """
        start = self._runtime.settings.start_date
        before = last - timedelta(days=HORIZON)
        as_of = [day for day in (before, last) if day >= start]
        made = [
            self.recorded(self.run(names.FORECAST_JOB, day_tags(day, day)), names.DEMAND_FORECASTS) for day in as_of
        ]
        evaluated = (
            all(made) and self.run(names.ACCURACY_JOB, day_tags(max(before + timedelta(days=1), start), last)).success
        )
        return bool(made[-1]), evaluated

    def read_streams(
        self, provider: str, landed: Mapping[str, Collection[date]], days: Sequence[date], *, sync_token: str
    ) -> None:
        """Read the streams beside orders of some business dates and of the present, and make the provider's tables of them.

        Args:
            provider: the provider's name.
            landed: connections, each with the dates whose orders are complete. One without any is left out: what kept
                its orders away keeps these away too, and has been told.
            days: the business dates.
            sync_token: names the sync: days that it has stored already are not fetched again.

        """
        spec = provider_named(provider)
        today = datetime.now(UTC).date()
        present: tuple[Strategy, ...] = ("hourly", "current")
        for connection, sold in landed.items():
            if not sold:
                continue
            inside = self._make_inside(spec, connection, sorted(sold))
            self._days |= {*sold, *inside, *self._read_daily(spec, connection, days, sync_token)}
            for strategy in present:
                streams = spec.streams_by(strategy)
                if streams:
                    self._strategies.add(strategy)
                    tags = connection_tags(connection, today, today, streams[0].grain) | {names.SYNC_TAG: sync_token}
                    self.run(names.stream_job(provider, strategy), tags)

    def refresh_streams(self) -> None:
        """Bring the core tables up to date for what has been read beside orders."""
        self.refresh_books(self._days)
        if "hourly" in self._strategies:
            today = datetime.now(UTC).date()
            self.run(names.REFRESH_STOCK_JOB, day_tags(today, today))
        if "current" in self._strategies:
            self.run(names.REFRESH_CATALOG_JOB, {})
            self.run(names.MAPPING_JOB, {})

    def refresh_books(self, days: Collection[date]) -> None:
        """Bring the core tables of payments and hours, and what is compared with them, up to date for business dates.

        Payments are fetched for a date more than orders: of that one there are no sales that could be shown.
        """
        sold = self.fetched(days)
        for some, without in ((sold, ()), (set(days) - sold, (names.DAILY_SALES,))):
            for first, last in runs_of(sorted(some)):
                self.run_through(names.REFRESH_BOOKS_JOB, day_tags(first, last), without=without)

    def make(self, spec: Provider, table: StreamTable, connection: str, days: Sequence[date]) -> set[date]:
        """Make a table of business dates that have been fetched; return the dates that it has."""
        done: set[date] = set()
        key = names.provider_table(spec.name, table.table)
        for first, last in runs_of(days):
            result = self.run(_job_of(spec, table), connection_tags(connection, first, last), [key])
            done |= self.recorded(result, key)
        return done

    def replay(
        self, provider: str, connection: str, quarantined: Sequence[Mapping[str, Any]], days: Collection[date]
    ) -> None:
        """Make the tables beside `transactions` again whose records are in quarantine: they may be usable by now.

        Args:
            provider: the provider's name.
            connection: the connection's key.
            quarantined: its rows of the quarantine.
            days: the business dates that are meant.

        """
        spec = provider_named(provider)
        for table in spec.tables:
            if table.table == TRANSACTIONS.name:
                continue
            key = names.provider_table(provider, table.table)
            bad = {row["business_date"] for row in quarantined if row["asset"] == key.to_user_string()} & set(days)
            grain = grain_of(spec, table)
            for first, last in runs_of(sorted(bad)):
                self.run(_job_of(spec, table), connection_tags(connection, first, last, grain), [key])
                if grain == "day":
                    self.run_through(names.REFRESH_BOOKS_JOB, day_tags(first, last))
                elif grain == "hour":
                    self.run(names.REFRESH_STOCK_JOB, day_tags(first, last))
                else:
                    self.run(names.REFRESH_CATALOG_JOB, {})

    def _make_inside(self, spec: Provider, connection: str, days: Sequence[date]) -> set[date]:
        """Make the tables that are kept inside orders; return the dates whose rows have changed."""
        done: set[date] = set()
        inside = [names.provider_table(spec.name, table.table) for table in inside_orders(spec)]
        for first, last in runs_of(days) if inside else ():
            result = self.run(names.derive_job(spec.name), connection_tags(connection, first, last))
            done = done.union(*(self.recorded(result, key) for key in inside))
        return done

    def _read_daily(self, spec: Provider, connection: str, days: Sequence[date], sync_token: str) -> set[date]:
        """Read the daily streams and make their tables; return the dates that one of them has now."""
        done: set[date] = set()
        daily = {stream.name for stream in spec.streams_by("daily")}
        if not daily:
            return done
        for first, last in runs_of([*days, collected_until(days[-1], datetime.now(UTC))]):
            tags = connection_tags(connection, first, last) | {names.SYNC_TAG: sync_token}
            result = self.run(names.stream_job(spec.name, "daily"), tags)
            for table in spec.tables:
                if table.stream not in daily:
                    continue
                stored = self.recorded(result, names.raw_stream(spec.name, table.stream))
                made = self.recorded(result, names.provider_table(spec.name, table.table))
                if stored and not made:  # some days failed: Dagster has not begun with the others' tables
                    made = self.make(spec, table, connection, sorted(stored))
                done |= made
        return done

    def recorded(self, result: ExecuteInProcessResult, key: dg.AssetKey) -> set[date]:
        """Return the business dates of an asset that a run has recorded, those before its failure included."""
        # Not the result's own events: what an asset logs before it fails is in the event log alone.
        records = self._instance.get_records_for_run(
            result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
        events = (record.event_log_entry.get_dagster_event() for record in records)
        units = [unit_of(event.partition) for event in events if event.asset_key == key and event.partition]
        return {one.business_date if isinstance(one, Partition) else date.fromisoformat(one) for one in units}

    def fetched(self, days: Collection[date]) -> set[date]:
        """Return the business dates of which orders of some connection have been fetched."""
        raw = self._runtime.raw
        return {day for key in raw.connections() for day in raw.landed(key, days)}

    def run_through(
        self, job: str, tags: Mapping[str, str], *, without: Collection[dg.AssetKey] = ()
    ) -> list[ExecuteInProcessResult]:
        """Run a job, or all of it but some assets, and once more what it has left out because what comes before it failed in part."""
        some = None
        if without:
            every = self._definitions.resolve_job_def(job).asset_layer.executable_asset_keys
            some = [key for key in every if key not in without]
        result = self.run(job, tags, some)
        if result.success:
            return [result]
        begun = {event.step_key for event in result.all_events if event.is_step_start}
        layer = result.job_def.asset_layer
        left = [key for key in layer.executable_asset_keys if layer.get(key).assets_def.node_def.name not in begun]
        recorded = any(self.recorded(result, key) for key in layer.executable_asset_keys)
        return [result, self.run(job, tags, left)] if left and recorded else [result]

    def run(
        self, job: str, tags: Mapping[str, str], assets: Sequence[dg.AssetKey] | None = None
    ) -> ExecuteInProcessResult:
        """Run a job, or some of its assets; what fails is added to `failures`."""
        definition = self._definitions.resolve_job_def(job)
        config: dict[str, Any] = dict(QUIETLY)
        if self._accept_empty:
            raw = {names.raw_stream(one.name, stream.name) for one in names.sources() for stream in one.streams}
            selected = raw & set(assets or definition.asset_layer.executable_asset_keys)
            config["ops"] = {key.to_python_identifier(): {"config": {"accept_empty": True}} for key in sorted(selected)}
        result = definition.execute_in_process(
            instance=self._instance,
            run_config=config,
            tags={**tags, names.DRIVER_TAG: self._name},
            asset_selection=assets,
            raise_on_error=False,
        )
        if not result.success:
            self.failures += _failures(result)
        return result


def _job_of(spec: Provider, table: StreamTable) -> str:
    """Return the job that makes a table, alone or with others of its stream."""
    if table in inside_orders(spec):
        return names.derive_job(spec.name)
    return names.stream_job(spec.name, spec.stream(table.stream).strategy)


def _failures(result: ExecuteInProcessResult) -> list[str]:
    """Return what failed in a run, in words for the person at the terminal."""
    found: list[str] = []
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data is not None and failure.user_failure_data.description:
                found.append(failure.user_failure_data.description)
            elif failure.error is not None:
                cause = failure.error.cause or failure.error
                found.append(f"{event.step_key}: {cause.message.strip()}")
    return found or [f"Run {result.run_id} failed; the Dagster UI says why."]
