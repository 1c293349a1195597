"""Raw partitions for tests: orders given as dictionaries or bytes, written the way the engine writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.normalise import Normalisation

CONNECTION = Connection("square:test", "tenant")
DAY = date(2026, 3, 2)


def raw_store(folder: Path) -> RawStore:
    return RawStore(object_store(str(folder / "lake")))


def land(
    raw: RawStore, orders: Iterable[Mapping[str, Any] | bytes], day: date = DAY, connection: str = CONNECTION.key
) -> RawManifest:
    writer = raw.writer(connection, day)
    segment = writer.segment()
    segment.write_many([o if isinstance(o, bytes) else json.dumps(o).encode() for o in orders])
    return writer.commit([segment], fetched_at=datetime.now(UTC), api_version=PROVIDER.api_version)


def normalise(
    folder: Path,
    orders: Iterable[Mapping[str, Any] | bytes],
    calendars: Mapping[str, BusinessCalendar] | None = None,
) -> tuple[list[dict[str, Any]], Normalisation]:
    raw = raw_store(folder)
    work = Normalisation(PROVIDER, raw, CONNECTION, [land(raw, orders)], calendars or {})
    return [row for batch in work.batches() for row in batch.to_pylist()], work
