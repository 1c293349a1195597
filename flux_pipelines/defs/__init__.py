"""Dagster: assets by business stage, sensors, schedules, partitions, checks, and the runner. Nothing else knows Dagster.

Reading order: `names`, `partitions`, `assets` (raw, normalized, core, finance, forecasts, mapping), `checks`, `sensors`, `jobs`,
`runner`. `code_location` puts them together; `flux_pipelines.definitions` is what Dagster loads.
"""
