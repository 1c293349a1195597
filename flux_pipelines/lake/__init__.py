"""The lake: raw orders as received, Delta tables, SQL over both. Local folder or S3; knows no Dagster.

Everything other rooms need is here. Importing it is cheap: pyarrow, deltalake, duckdb and boto3 are loaded when something is first done.
"""

from flux_pipelines.lake.delta import Commit, DeltaLake, Draft, Maintenance
from flux_pipelines.lake.quarantine import Quarantine, payload_bytes
from flux_pipelines.lake.raw import (
    CURRENT,
    FetchedWindow,
    RawManifest,
    RawStore,
    RawWriter,
    Segment,
    Survey,
    Verification,
    hour_of,
    hour_slot,
)
from flux_pipelines.lake.rewrite import rewrite
from flux_pipelines.lake.sql import Session, session
from flux_pipelines.lake.store import ObjectStore, object_store

__all__ = [
    "CURRENT",
    "Commit",
    "DeltaLake",
    "Draft",
    "FetchedWindow",
    "Maintenance",
    "ObjectStore",
    "Quarantine",
    "RawManifest",
    "RawStore",
    "RawWriter",
    "Segment",
    "Session",
    "Survey",
    "Verification",
    "hour_of",
    "hour_slot",
    "object_store",
    "payload_bytes",
    "rewrite",
    "session",
]
