"""The lake: raw orders as received, Delta tables, SQL over both. Local folder or S3; knows no Dagster.

Importing this is cheap: pyarrow, deltalake, duckdb and boto3 are loaded when something is first done.
"""

from flux_pipelines.lake.delta import Commit, DeltaLake, Maintenance
from flux_pipelines.lake.raw import RawManifest, RawStore, RawWriter, Segment, Verification, Window
from flux_pipelines.lake.store import ObjectStore, object_store

__all__ = [
    "Commit",
    "DeltaLake",
    "Maintenance",
    "ObjectStore",
    "RawManifest",
    "RawStore",
    "RawWriter",
    "Segment",
    "Verification",
    "Window",
    "object_store",
]
