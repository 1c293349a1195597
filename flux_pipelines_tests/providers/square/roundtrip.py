"""Posts records to a running sandbox and brings them home: through the client and the engine into a lake of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from flux_pipelines.domain import tables
from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake.delta import DeltaLake
from flux_pipelines.lake.raw import RawManifest, RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.privacy import Redactor
from flux_pipelines.privacy.pseudonyms import Pseudonyms
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days, read_now
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines.sync.records import DayOutcome
from flux_pipelines.sync.scd2 import merge
from flux_pipelines.sync.transform import has_history, transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.square.conftest import House

Json = dict[str, Any]

REDACT = Redactor(PROVIDER.redaction, Pseudonyms(bytes(32)))


def stored(record: Json) -> Json:
    """A record as it is stored: without what is personal, and otherwise as it was."""
    (text,) = REDACT([json.dumps(record).encode()])
    found: Json = json.loads(bytes(text))
    named = PROVIDER.redaction.remove | PROVIDER.redaction.pseudonymise
    for *path, name in _differences(record, found):
        assert name in named or any((name, around) in PROVIDER.redaction.within for around in path), (*path, name)
    return found


def _differences(before: Any, after: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Where two JSON values differ, as paths of members."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for name in before:
            yield from _differences(before[name], after[name], *path, name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from _differences(one, other, *path)
    elif as_text(before) != as_text(after):
        yield path


def as_text(value: Any) -> str:
    """JSON to compare: unlike in Python, a number is no truth value, and 1 is not 1.0."""
    return json.dumps(value, sort_keys=True)


class Home:
    """A lake that a store's account is synced into, and what is found there."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.store = house.locations[2]
        self.connection = Connection("square:test", "tenant")
        place = object_store(str(folder / "lake"))
        self.raw, self.lake = RawStore(place), DeltaLake(place)

    def take(self, kind: str, *documents: Json) -> None:
        """Give the sandbox records to give out."""
        for one in documents:
            self.house.post("documents", location_id=self.store.location_id, kind=kind, document=one)

    def day_of(self, happened: str) -> date:
        """The business date of an instant at the store."""
        return BusinessCalendar(self.store.timezone).date_of(datetime.fromisoformat(happened))

    def orders(self, day: date) -> tuple[list[Json], list[Json]]:
        """A day's orders as they landed, and the rows of `transactions`."""
        with self.house.client() as client:
            context = SyncContext(client, self.connection, client.locations(), self.raw, PROVIDER, redact=REDACT)
            (outcome,) = read_windowed(context, [day])
        manifest = _whole(outcome)
        assert manifest.verification.status == "verified", manifest.verification
        table = TRANSACTIONS.named("square/transactions")
        work = Normalisation(PROVIDER, self.raw, self.connection, [manifest])
        self.lake.replace(table, work.reader(), [{"connection": self.connection.key, "raw_date": day}])
        assert work.bad == []
        return [json.loads(line) for line in self._lines(self.raw, manifest)], self._rows(table)

    def stream(self, name: str, table: str, day: date | None = None) -> tuple[list[Json], list[Json]]:
        """A stream's objects as they landed (of a day, or what there is now), and the rows of a table made of it."""
        raw = self.raw.of(name)
        with self.house.client() as client:
            places = client.locations()
            context = SyncContext(client, self.connection, places, raw, PROVIDER, redact=REDACT)
            (outcome,) = [read_now(context, self.house.clock.now)] if day is None else read_days(context, [day])
        manifest = _whole(outcome)
        (spec,) = [one for one in PROVIDER.tables if one.table == table]
        base = tables.named(table)
        made = transform(PROVIDER, spec, self.connection, places, raw, [manifest])
        assert made.bad == []
        target = base.named(f"square/{table}")
        rows: pa.Table = made.rows
        partition: dict[str, str | date] = {"connection": self.connection.key}
        if has_history(base):
            rows = merge(target, self.lake.read(target).read_all(), rows, manifest.fetched_at)
        elif target.day is not None:
            partition[target.day] = manifest.business_date
        self.lake.replace(target, rows, [partition])
        return [json.loads(line)["object"] for line in self._lines(raw, manifest)], self._rows(target)

    def _rows(self, table: tables.Table) -> list[Json]:
        return list(self.lake.read(table).read_all().to_pylist())

    @staticmethod
    def _lines(raw: RawStore, manifest: RawManifest) -> Sequence[bytes]:
        with raw.local_file(manifest) as path:
            return [] if path is None else [line for block in raw_blocks(path) for line in block]


def _whole(outcome: DayOutcome) -> RawManifest:
    assert outcome.error is None
    assert outcome.manifest is not None
    assert outcome.bad == ()
    return outcome.manifest
