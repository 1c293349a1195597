"""The Dagster instance: our SQLite storage beside Dagster's own, started by many at once, and the same on PostgreSQL."""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as objects.

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml

from flux_pipelines.defs.driver import dagster_home
from flux_pipelines.defs.internals.partition_metadata import attach
from flux_pipelines.defs.names import RANGE_END, RANGE_START
from flux_pipelines.defs.partitions import business_days, connection_days
from flux_pipelines.domain.partition import Partition
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT, settings
from flux_pipelines_tests.defs.conftest import Home
from flux_sandbox.server import RunningSandbox

FIRST = date(2026, 3, 1)


def chain(note: Callable[[dg.AssetExecutionContext, dict[str, dict[str, Any]]], None]) -> dg.Definitions:
    """Two assets in a chain, with metadata on every partition and a check."""

    @dg.asset(partitions_def=connection_days("square"))
    def first(context: dg.AssetExecutionContext) -> None:
        note(context, {key: {"rows": number} for number, key in enumerate(context.partition_keys)})

    @dg.asset(
        partitions_def=connection_days("square"), deps=[first], check_specs=[dg.AssetCheckSpec("fine", asset="second")]
    )
    def second(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        note(context, {key: {"key": key} for key in context.partition_keys})
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, metadata={"offenders": 3})])

    return dg.Definitions(assets=[first, second], jobs=[dg.define_asset_job("both")], executor=dg.in_process_executor)


def one_by_one(context: dg.AssetExecutionContext, metadata: dict[str, dict[str, Any]]) -> None:
    for key, entries in metadata.items():
        context.add_asset_metadata(entries, partition_key=key)


def record(instance: dg.DagsterInstance, definitions: dg.Definitions, days: int) -> Any:
    """Run the chain and return everything the instance can tell of it."""
    instance.add_dynamic_partitions("square_connections", ["square:a", "square:b"])
    tags = {
        RANGE_START: str(Partition("square:a", FIRST)),
        RANGE_END: str(Partition("square:a", FIRST + timedelta(days=days - 1))),
    }
    run = definitions.resolve_job_def("both").execute_in_process(instance=instance, tags=tags)
    found: list[Any] = []
    for name in ("first", "second"):
        key = dg.AssetKey(name)
        for row in instance.fetch_materializations(key, limit=1000, ascending=True).records:
            made = row.asset_materialization
            assert made is not None
            tags_kept = {k: v for k, v in made.tags.items() if "version" not in k and "pointer" not in k}
            found.append((name, row.partition_key, sorted(tags_kept), {k: v.value for k, v in made.metadata.items()}))
        found.append(sorted(instance.get_materialized_partitions(key)))
        record_of = instance.get_asset_records([key])[0].asset_entry
        assert record_of.last_materialization is not None
        found.append(
            (record_of.last_run_id == run.run_id, record_of.last_materialization.asset_materialization is not None)
        )
        planned = instance.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, asset_key=key)
        )
        found.append(sorted(str(event.partition_key) for event in planned))
    checks = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("second"), "fine"), limit=10
    )
    found.append([(check.status.value, check.evaluation.passed if check.evaluation else None) for check in checks])
    kinds = [
        entry.dagster_event.event_type_value
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event is not None
    ]
    found.append(sorted(kinds))
    return found


def test_our_storage_tells_what_dagsters_own_tells(environment: Path) -> None:
    stock = environment / "stock"
    stock.mkdir()
    (stock / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(stock)) as instance:
        expected = record(instance, chain(one_by_one), days=5)
    with dg.DagsterInstance.from_config(str(dagster_home(settings()))) as instance:
        assert type(instance.event_log_storage).__name__ == "FluxEventLog"
        assert record(instance, chain(attach), days=5) == expected
    # Another process, later, finds the same.
    with dg.DagsterInstance.from_config(str(dagster_home(settings()))) as instance:
        assert len(instance.get_materialized_partitions(dg.AssetKey("second"))) == 5


def test_metadata_of_a_partition_that_is_not_of_the_run_is_refused(environment: Path) -> None:
    @dg.asset(partitions_def=business_days())
    def lonely(context: dg.AssetExecutionContext) -> None:
        attach(context, {"2026-03-09": {"rows": 1}})

    with pytest.raises(ValueError, match="not partitions of this step"):
        dg.materialize([lonely], partition_key="2026-03-02")


def test_processes_that_start_at_once_make_the_tables_once(environment: Path) -> None:
    home = dagster_home(settings())
    code = (
        "import dagster as dg, sys\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    instance.add_dynamic_partitions('square_connections', [sys.argv[2]])\n"
        "    print(len(instance.get_runs()))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(home), f"square:c{number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, "0"), err
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert set(instance.get_dynamic_partitions("square_connections")) == {f"square:c{n}" for n in range(4)}


def test_events_are_seen_by_who_watches_a_run(environment: Path) -> None:
    seen: list[str] = []
    with dg.DagsterInstance.from_config(str(dagster_home(settings()))) as instance:
        run = instance.create_run_for_job(dg.job(name="by_hand")(lambda: None))
        instance.watch_event_logs(run.run_id, None, lambda entry, _cursor: seen.append(entry.message))
        instance.report_engine_event("something happened", run)
        for _ in range(100):
            if seen:
                break
            time.sleep(0.1)
    assert any("something happened" in message for message in seen)


def test_what_a_run_in_this_process_prints_goes_where_this_process_prints(
    environment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without processes of Dagster's that copy it; those of a run that Dagster launches are in `test_daemon`."""

    before = {child.pid for child in psutil.Process().children()}
    beside: list[int] = []

    @dg.op
    def talk() -> None:
        print("said")
        beside.extend(child.pid for child in psutil.Process().children())

    @dg.job
    def talking() -> None:
        talk()

    with dg.DagsterInstance.from_config(str(dagster_home(settings()))) as instance:
        talking.execute_in_process(instance=instance)
    assert set(beside) <= before
    assert list(dagster_home(settings()).glob("logs/*/compute_logs/*.out")) == []
    assert "said" in capfd.readouterr().out


def test_dagster_yaml_and_its_postgres_twin_differ_in_where_things_are_kept_alone() -> None:
    ours = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    twin = yaml.safe_load((PROJECT_ROOT / "deploy" / "dagster.postgres.yaml").read_text())
    for where in ("storage", "compute_logs"):
        del ours[where], twin[where]
    assert ours == twin


def test_the_whole_chain_runs_on_the_postgres_instance(
    environment: Path, sandbox: RunningSandbox, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = environment / "postgres"
    place.mkdir()
    shutil.copyfile(PROJECT_ROOT / "deploy" / "dagster.postgres.yaml", place / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("DAGSTER_LOGS", str(place / "logs"))
    days = [date(2026, 3, 8), date(2026, 3, 9)]
    with Runtime() as runtime, dg.DagsterInstance.from_config(str(place)) as instance:
        home = Home(runtime, instance, sandbox)
        home.connect("sakura")
        assert home.sync(("square:sakura", days[0]), ("square:sakura", days[1])).success
        assert home.run("refresh_core", str(days[0]), str(days[1])).success
        assert home.partitions("square", "transactions") == [f"square:sakura|{day}" for day in days]
        assert home.partitions("daily_sales") == [str(day) for day in days]
        figures = home.metadata("daily_sales", partition=str(days[0]))
        assert figures["orders"] > 0
        assert "plot JPY" in figures
