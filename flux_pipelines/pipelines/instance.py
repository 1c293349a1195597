"""The former name of `flux_pipelines.defs.internals.instance`: a home keeps the `dagster.yaml` that it was made with."""

from flux_pipelines.defs.internals.instance import FluxComputeLogs, FluxRunQueue, FluxStorage

__all__ = ["FluxComputeLogs", "FluxRunQueue", "FluxStorage"]
