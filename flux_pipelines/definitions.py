"""What Dagster loads. Loading reads no secret, calls nobody and writes nothing."""

from flux_pipelines.defs.code_location import build_definitions

defs = build_definitions()
