"""Upkeep and what Dagster is told of an error of ours."""

from pathlib import Path

import dagster as dg
import pytest

from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.failures import explained
from flux_pipelines.defs.resources import bound_resource
from flux_pipelines.domain.errors import StorageFullError, TableDamagedError
from flux_pipelines.domain.tables import FORECAST_ACCURACY
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings


def test_every_table_is_looked_after(tmp_path: Path) -> None:
    with Runtime(Settings(home=tmp_path)) as runtime:
        empty = FORECAST_ACCURACY.arrow_schema().empty_table()
        runtime.lake.replace(FORECAST_ACCURACY, empty, [{"target_date": "2026-01-01"}])
        job = build_definitions({"flux": bound_resource(runtime)}).resolve_job_def("maintain_lake")
        result = job.execute_in_process()
        assert result.success
        logs = tmp_path / "lake" / "tables" / "forecast_accuracy" / "_delta_log"
        assert list(logs.glob("*.checkpoint.parquet"))


@pytest.mark.parametrize(
    ("error", "expected"), [(StorageFullError, dg.RetryRequested), (TableDamagedError, dg.Failure)]
)
def test_only_what_a_rerun_can_mend_is_tried_again(
    error: type[StorageFullError | TableDamagedError], expected: type[Exception]
) -> None:
    @dg.asset
    def asset(context: dg.AssetExecutionContext) -> None:
        with pytest.raises(expected) as raised, explained(context):
            raise error("the disk is full or worse")
        if isinstance(raised.value, dg.Failure):
            assert "or worse" in str(raised.value.description)

    assert dg.materialize([asset]).success
