"""What homes, lakes and people's own code rely on does not change by accident: `frozen.json` is what it was.

A deliberate change is made there too, by hand, with a line in the changelog that says what whoever has a home must do.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.domain.tables import TABLES
from flux_pipelines.lake import CURRENT, RawManifest, RawStore, hour_slot, object_store
from flux_pipelines.settings import Settings, settings

FROZEN = json.loads(Path(__file__).with_name("frozen.json").read_text())
DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def test_asset_keys() -> None:
    keys = {key.to_user_string() for key in build_definitions().resolve_all_asset_keys()}
    known = {name.partition("/")[0] for name in FROZEN["assets"]}
    # A provider that is new has assets that nobody relies on yet.
    assert sorted(key for key in keys if key.partition("/")[0] in known or "/" not in key) == FROZEN["assets"]


def test_tables_and_their_columns() -> None:
    now: dict[str, Any] = {}
    for table in TABLES:
        columns = {one.name: f"{one.type}{' required' if one.required else ''}" for one in table}
        now[table.name] = {"partition_by": list(table.partition_by), "key": list(table.key), "columns": columns}
    assert now == FROZEN["tables"]


def test_settings() -> None:
    assert sorted(f"FLUX_{name.upper()}" for name in Settings.model_fields) == FROZEN["settings"]


def test_paths_of_raw_records(tmp_path: Path) -> None:
    raw = RawStore(object_store(str(tmp_path)))

    def land(stream: str, slot: str = "") -> None:
        with raw.of(stream).writer("square:acme", DAY, slot) as writer:
            segment = writer.segment()
            segment.write(msgspec.Raw(b'{"id":"1"}'))
            writer.commit([segment], fetched_at=NOW)

    land("orders")
    land("payments")
    land("inventory", hour_slot(NOW))
    land("catalog", CURRENT)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("raw/**/*") if path.is_file())
    assert files == FROZEN["raw paths"]


def test_manifests() -> None:
    assert list(RawManifest.__struct_encode_fields__) == FROZEN["manifest"]


def test_a_manifest_that_was_written_then_can_be_read() -> None:
    stored = json.dumps(FROZEN["a manifest"]).encode()
    manifest = msgspec.json.decode(stored, type=RawManifest)
    assert json.loads(msgspec.json.encode(manifest)) == FROZEN["a manifest"]


def test_the_instance_of_homes_made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home keeps the `dagster.yaml` that it was made with, which names where the storage once was."""
    from dagster import DagsterInstance

    monkeypatch.setenv("FLUX_HOME", str(tmp_path))
    settings.cache_clear()
    (tmp_path / "dagster.yaml").write_text(
        "storage:\n  custom:\n    module: flux_pipelines.pipelines.instance\n    class: FluxStorage\n    config: {}\n"
        "compute_logs:\n  module: flux_pipelines.pipelines.instance\n  class: FluxComputeLogs\n  config: {}\n"
        "run_coordinator:\n  module: flux_pipelines.pipelines.instance\n  class: FluxRunQueue\n"
        "  config:\n    dequeue_interval_seconds: 2\n"
    )
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.event_log_storage).__module__ == "flux_pipelines.defs.internals.instance"
        assert instance.get_runs_count() == 0
