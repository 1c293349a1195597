"""Dagster: assets by business stage, partitions, checks, automation, and the in-process driver. Nothing else knows Dagster.

Reading order: `names`, `partitions`, `ingest` (a provider's assets), `sales` (core tables), `demand` (forecasts),
`checks`, `automation`, `drive`. `code_location` puts them together; `flux_pipelines.definitions` is what Dagster loads.
"""
