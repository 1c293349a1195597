"""Attaches metadata to many partitions at once: the part of Dagster's bookkeeping that grows with their square.

`context.add_asset_metadata(..., partition_key=...)` lists the run's partitions anew at every call: for a year of one
connection that alone took longer than fetching it (`docs/adr` has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.execution.context.metadata_logging import AssetMetadataHandle, OutputMetadataAccumulator


def attach(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]], asset: dg.AssetKey | None = None
) -> None:
    """Give each partition of this step its own metadata, as `context.add_asset_metadata` does one by one.

    Args:
        context: the asset's context.
        metadata: partition key to metadata; keys must be partitions of this step.
        asset: which of the step's assets; needed when it has several.

    """
    unknown = metadata.keys() - set(context.partition_keys)
    if unknown:
        raise ValueError(f"not partitions of this step: {sorted(unknown)[:3]}")
    step = context.get_step_execution_context()
    step._metadata_accumulator = OutputMetadataAccumulator(
        per_output_metadata={
            **step._metadata_accumulator.per_output_metadata,
            **{
                AssetMetadataHandle(asset_key=asset or context.asset_key, partition_key=key): entries
                for key, entries in metadata.items()
            },
        }
    )
