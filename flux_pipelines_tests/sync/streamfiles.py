"""Raw partitions of a stream for tests, and the SQL of a provider run over them, the way the engine does both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import ORDERS, RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Location, Provider, Record, StreamTable
from flux_pipelines.sync.daily import line_of
from flux_pipelines.sync.transform import Transformed, transform

DAY = date(2026, 3, 2)
COLLECTED = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)


def record(kind: str, item: dict[str, Any] | bytes, location_id: str = "") -> Record:
    """Return a record as a client gives it; bytes are taken as they are."""
    return Record(kind, location_id, msgspec.Raw(item if isinstance(item, bytes) else json.dumps(item).encode()))


def land(
    raw: RawStore, connection: str, records: Iterable[Record | bytes], *, day: date = DAY, slot: str = ""
) -> RawManifest:
    """Store records as a partition of the raw stream; plain bytes are a line of their own (a raw order)."""
    writer = raw.writer(connection, day, slot)
    segment = writer.segment()
    for one in records:
        if isinstance(one, bytes):
            segment.write(one)
        elif raw.stream == ORDERS:
            segment.write(one.raw)
        else:
            segment.write(line_of(one.kind, one.location_id, bytes(one.raw)))
    return writer.commit([segment], fetched_at=COLLECTED)


def run_sql(
    folder: Path,
    provider: Provider,
    table: str,
    records: Iterable[Record | bytes],
    locations: Sequence[Location],
    *,
    settings: dict[str, Any] | None = None,
    day: date = DAY,
    slot: str = "",
) -> Transformed:
    """Return what a provider's SQL makes of records: `.rows` (Arrow) and `.bad` (what goes to quarantine)."""
    spec = next(one for one in provider.tables if one.table == table)
    return run_table(folder, provider, spec, records, locations, settings=settings, day=day, slot=slot)


def run_table(
    folder: Path,
    provider: Provider,
    spec: StreamTable,
    records: Iterable[Record | bytes],
    locations: Sequence[Location],
    *,
    settings: dict[str, Any] | None = None,
    day: date = DAY,
    slot: str = "",
) -> Transformed:
    """Like `run_sql`, of a table that the provider need not have declared."""
    connection = Connection(f"{provider.name}:test", "tenant", settings=settings or {})
    raw = RawStore(object_store(str(folder / "lake")), spec.stream)
    manifest = land(raw, connection.key, records, day=day, slot=slot)
    return transform(provider, spec, connection, locations, raw, [manifest])
