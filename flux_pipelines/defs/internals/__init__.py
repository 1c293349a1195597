"""Everything that touches Dagster's private parts (`dagster._core`, `dagster._cli`): the one place to look at when it changes.

`pyproject.toml` holds Dagster to one minor version. Here are what other modules need by name; the modules beside this one are
the storage of runs and events (`instance`), the rewriting of recorded events (`event_log`), metadata of many partitions
(`partition_metadata`), what mends backfills of jobs (`job_backfills`) and the guard before the webserver (`webserver`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.tags import (
    HIDDEN_TAG_PREFIX,
    MULTIDIMENSIONAL_PARTITION_PREFIX,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
)

if TYPE_CHECKING:
    from dagster._core.execution.execute_in_process_result import ExecuteInProcessResult
    from dagster._core.storage.dagster_run import RunRecord

__all__ = [
    "FINISHED_STATUSES",
    "HIDDEN_TAG_PREFIX",
    "MULTIDIMENSIONAL_PARTITION_PREFIX",
    "PARTITION_NAME_TAG",
    "WILL_RETRY_TAG",
    "ExecuteInProcessResult",
    "RunRecord",
    "UnresolvedAssetJobDefinition",
]
