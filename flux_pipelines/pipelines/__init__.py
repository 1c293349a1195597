"""Where the Dagster definitions once were; `dagster.yaml` of homes made then names `pipelines.instance`. They are in `defs`."""
