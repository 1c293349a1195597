"""The code location as Dagster loads it: cheap, harmless, complete, and under one name everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from flux_pipelines.defs import names
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.partitions import BACKFILL, business_days, connection_days, connections_of
from flux_pipelines.domain import tables
from flux_pipelines.domain.tables import TABLES
from flux_pipelines.providers.square.resource import SquareResource
from flux_pipelines.settings import PROJECT_ROOT

_LOAD = """
import builtins, socket, sys
def refuse(*args, **kwargs): raise AssertionError("the network was used at import")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
written = []
original = builtins.open
def watched(file, mode="r", *args, **kwargs):
    if any(letter in mode for letter in "wax+") and str(file) != "/dev/null":
        written.append(str(file))
    return original(file, mode, *args, **kwargs)
builtins.open = watched
from flux_pipelines.definitions import defs
defs.get_repository_def()
heavy = {"pandas", "pyarrow", "duckdb", "deltalake", "httpx", "boto3", "statsforecast", "uvicorn", "sqlalchemy", "cryptography"} & sys.modules.keys()
assert not heavy, heavy
written = [name for name in written if not name.endswith(".pyc")]
assert not written, written
print(len(defs.resolve_all_asset_keys()))
"""


def test_it_loads_in_a_fresh_interpreter_without_secrets_network_or_files(tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment |= {"HOME": str(tmp_path / "home"), "FLUX_HOME": str(tmp_path / "flux"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(build_definitions().resolve_all_asset_specs())
    assert list(tmp_path.iterdir()) == []


def test_loading_warns_of_nothing(tmp_path: Path) -> None:
    code = "from flux_pipelines.definitions import defs; defs.get_repository_def()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in build_definitions().resolve_all_asset_specs()}


def test_the_lineage_of_sales_is_the_chain_from_raw_orders_to_accuracy(specs: dict[str, dg.AssetSpec]) -> None:
    chain = upstream(specs)
    sources = [provider.name for provider in names.sources()]
    for name in sources:
        assert chain[f"{name}/raw_orders"] == set()
        assert chain[f"{name}/transactions"] == {f"{name}/raw_orders"}
    assert chain["transactions"] == {f"{name}/transactions" for name in sources}
    assert chain["daily_item_demand"] == {"transactions"}
    assert chain["daily_sales"] == {"transactions", "reported_sales"}, "it is compared with the providers' own reports"
    assert chain["demand_forecasts"] == {"daily_item_demand", "daily_sales"}
    assert chain["forecast_accuracy"] == {"demand_forecasts", "daily_item_demand", "daily_sales"}


def test_feeds_become_a_providers_tables_and_those_the_core_ones(specs: dict[str, dg.AssetSpec]) -> None:
    chain = upstream(specs)
    core: dict[str, set[str]] = {}
    for provider in names.sources():
        raw = {key for key in chain if key.startswith(f"{provider.name}/raw_")}
        assert raw == {f"{provider.name}/raw_{stream.name}" for stream in provider.streams}
        for spec in provider.tables:
            assert chain[f"{provider.name}/{spec.table}"] == {f"{provider.name}/raw_{spec.stream}"}
            core.setdefault(spec.table, set()).add(f"{provider.name}/{spec.table}")
    assert {
        *("transactions", "payments", "products", "locations", "inventory_levels", "time_entries", "reported_sales")
    } == core.keys()
    for table, parts in core.items():
        assert chain[table] == parts


def upstream(specs: dict[str, dg.AssetSpec]) -> dict[str, set[str]]:
    return {key: {dep.asset_key.to_user_string() for dep in spec.deps} for key, spec in specs.items()}


def test_every_asset_says_what_it_is(specs: dict[str, dg.AssetSpec]) -> None:
    groups = {"sales", "demand", "payments", "catalog", "labor", "mapping", "books"}
    groups |= {provider.name for provider in names.sources()}
    for key, spec in specs.items():
        assert spec.description, key
        assert spec.owners, key
        assert spec.group_name in groups, key
        assert spec.kinds, key
        assert "stage" in spec.tags, key
        assert spec.code_version, key
        name = key.rpartition("/")[2]
        if not name.startswith("raw_"):
            schema = spec.metadata["dagster/column_schema"]
            assert [c.name for c in schema.columns] == list(tables.named(name).column_names)
            assert all(column.description for column in schema.columns), key
    assert {table.name for table in TABLES} - specs.keys() == {"quarantine"}


def test_partitions_and_backfills_are_as_designed() -> None:
    current = {
        f"{provider.name}/{name}"
        for provider in names.sources()
        for stream in provider.streams
        if stream.grain == "current"
        for name in (f"raw_{stream.name}", *(spec.table for spec in provider.tables if spec.stream == stream.name))
    }
    whole = {"products", "locations", "stores", "product_map"}
    for assets in build_definitions().assets or ():
        assert isinstance(assets, dg.AssetsDefinition)
        for key in (one.to_user_string() for one in assets.keys):
            if key in whole:
                assert assets.partitions_def is None, key
                continue
            provider, slash, _ = key.partition("/")
            by_day = connection_days(provider) if slash else business_days()
            assert assets.partitions_def == (connections_of(provider) if key in current else by_day), key
            assert assets.backfill_policy == BACKFILL, key
    assert BACKFILL.max_partitions_per_run == 31


def test_what_checks_a_table_stands_with_it_and_blocks() -> None:
    checks: dict[str, set[str]] = {}
    soft = set()
    for assets in build_definitions().assets or ():
        assert isinstance(assets, dg.AssetsDefinition)
        for spec in assets.check_specs:
            checks.setdefault(spec.asset_key.to_user_string(), set()).add(spec.name)
            assert spec.description
            if not spec.blocking:
                soft.add(spec.name)
    assert checks["square/raw_orders"] == {"completeness"}
    assert checks["square/transactions"] == {"order_totals", "no_duplicate_lines", "contract", "nothing_quarantined"}
    for provider in names.sources():
        for stream in provider.streams:
            expected = {"completeness"} if stream.name == "orders" else {"nothing_quarantined"}
            assert checks[f"{provider.name}/raw_{stream.name}"] == expected
        for made in provider.tables:
            assert checks[f"{provider.name}/{made.table}"] >= {"no_duplicate_lines", "contract", "nothing_quarantined"}
            assert checks[made.table] >= {"no_duplicate_lines", "contract", "equals_its_sources"}
    assert "one_period_at_a_time" in checks["square/products"]
    assert "equals_its_sources" in checks["transactions"]
    assert "ties_to_transactions" in checks["daily_sales"]
    assert soft == {
        "nothing_quarantined", "every_item_answered", "ties_out", "agrees_with_report", "nothing_restated",
        "everything_is_decided",
    }  # fmt: skip


def test_automation_is_running_from_the_start() -> None:
    repository = build_definitions().get_repository_def()
    sensors = {
        "keep_core_tables_up_to_date",
        "keep_books_up_to_date",
        "closed_days",
        "requested_syncs",
        "mapping_decisions",
    }
    schedules = {"maintain_lake_weekly", "refresh_tokens_hourly", "reconcile_daily"}
    for provider in names.sources():
        sensors |= {f"{provider.name}_{what}" for what in ("connections", "changes", "watch")}
        sensors |= {f"{provider.name}_webhooks"} if provider.webhooks else set()
        sensors |= {f"{provider.name}_record_changes"} if provider.streams_by("daily") else set()
        runs = {"windowed": "daily", "hourly": "hourly", "current": "catalog", "daily": "daily_records"}
        schedules |= {f"{provider.name}_{runs[stream.strategy]}" for stream in provider.streams}
    assert {s.name for s in repository.sensor_defs} == sensors
    assert all(s.default_status is dg.DefaultSensorStatus.RUNNING for s in repository.sensor_defs)
    assert {s.name for s in repository.schedule_defs} == schedules
    assert all(s.default_status is dg.DefaultScheduleStatus.RUNNING for s in repository.schedule_defs)


def test_everything_that_runs_by_itself_says_what_it_does() -> None:
    repository = build_definitions().get_repository_def()
    for automation in (*repository.sensor_defs, *repository.schedule_defs):
        assert len(automation.description or "") > 30, automation.name
    for job in repository.get_all_jobs():
        assert job.description or job.name.startswith("__"), job.name


def test_dagster_finds_nothing_to_object_to() -> None:
    dg.Definitions.validate_loadable(build_definitions())


def test_every_job_can_be_resolved() -> None:
    definitions = build_definitions()
    for name in (
        names.sync_job("square"),
        names.stream_job("square", "daily"),
        names.stream_job("square", "hourly"),
        names.stream_job("square", "current"),
        names.REFRESH_CORE_JOB,
        names.REFRESH_BOOKS_JOB,
        names.REFRESH_STOCK_JOB,
        names.REFRESH_CATALOG_JOB,
        names.FORGET_JOB,
        names.FORECAST_JOB,
        names.ACCURACY_JOB,
        names.CLOSED_DAYS_JOB,
        names.UPKEEP_JOB,
        names.TOKENS_JOB,
        names.RECONCILE_JOB,
    ):
        assert definitions.resolve_job_def(name).name == name


def test_the_code_location_has_one_name() -> None:
    workspace = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["dagster"]
    module = workspace["load_from"][0]["python_module"]
    assert module["location_name"] == project["code_location_name"] == names.CODE_LOCATION
    assert module["module_name"] == project["module_name"] == "flux_pipelines.definitions"


def test_resources_have_no_secrets_to_show() -> None:
    resources = build_definitions().resources or {}
    assert isinstance(resources["square"], SquareResource)
    assert set(type(resources["square"]).model_fields) == {"connection"}
    assert set(type(resources["flux"]).model_fields) == set()
    for field in SquareResource.model_fields.values():
        assert field.description


def test_who_uses_which_system_is_in_the_ui() -> None:
    """Dagster's page of a resource lists the assets that need it."""
    for key, asset in assets_by_key().items():
        provider, _, name = key.rpartition("/")
        if name.startswith("raw_"):
            assert asset.required_resource_keys == {"flux", "io_manager", provider}
    assert assets_by_key()["demand_forecasts"].required_resource_keys == {"flux", "io_manager", "sagemaker"}


def assets_by_key() -> dict[str, dg.AssetsDefinition]:
    found = [one for one in build_definitions().assets or () if isinstance(one, dg.AssetsDefinition)]
    return {key.to_user_string(): one for one in found for key in one.keys}


def test_figures_repeated_to_keep_loading_cheap_are_those_of_the_forecaster() -> None:
    from flux_pipelines.defs.assets import forecasts
    from flux_pipelines.forecaster import accuracy
    from flux_pipelines.forecaster import demand as histories

    assert histories.HISTORY_DAYS == forecasts.HISTORY_DAYS
    assert accuracy.NAIVE_REACH_DAYS == forecasts.NAIVE_REACH_DAYS


def test_dagsters_own_tool_finds_the_project(tmp_path: Path) -> None:
    """`dg` reads `[tool.dg]`: what it lists is what the code location has."""
    dg_command = Path(sys.executable).with_name("dg")
    done = subprocess.run(
        [dg_command, "list", "defs", "--json"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "FLUX_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    definitions = build_definitions()
    assert {one["asset_key"] for one in listed["assets"]} == {
        key.to_user_string() for key in definitions.resolve_all_asset_keys()
    }
    assert {one["name"] for one in listed["sensors"]} == {one.name for one in definitions.sensors or ()}
