"""The whole way of a record: taken in by a running sandbox, collected by the client into a lake, made into rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.tables import TRANSACTIONS, named
from flux_pipelines.lake.raw import RawManifest
from flux_pipelines.providers.base import Source
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_now
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines.sync.scd2 import merge
from flux_pipelines.sync.transform import has_history, transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE, UNLIMITED
from flux_sandbox.model import Location
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

Json = dict[str, Any]


class RoundTrip:
    """A restaurant of a sandbox that is running, connected in a home of its own.

    The connection is for that restaurant alone; others of the same merchant go on beside it.
    """

    def __init__(self, sandbox: RunningSandbox, runtime: Runtime) -> None:
        self.sandbox = sandbox
        self.runtime = runtime
        self.here: Location = sandbox.world.merchant(HANDLE).locations[0]
        self.connection: Connection
        self.connection, self.locations = connect_to_sandbox(
            runtime,
            f"toast:{HANDLE}",
            tenant="tenant",
            url=sandbox.url,
            merchant=HANDLE,
            settings={"restaurants": self.here.id, "history_pause_seconds": 0, "cutoff_hour": 4},
        )

    def post(self, kind: str, document: Any, location_id: str | None = None) -> httpx.Response:
        """Give the sandbox a record to take in."""
        body = {"location_id": location_id or self.here.id, "kind": kind, "document": document}
        return httpx.post(f"{self.sandbox.url}/sandbox/documents", json=body)

    def take(self, kind: str, document: Any) -> None:
        """Give the sandbox a record to take in, which it does."""
        answer = self.post(kind, document)
        assert answer.status_code == 200, answer.text

    def ask(self, path: str, **query: str) -> Any:
        """Ask the sandbox's Toast directly."""
        issued = httpx.post(f"{self.sandbox.url}/sandbox/tokens", json={"provider": "toast", "merchant": HANDLE}).json()
        headers = {
            "Authorization": f"Bearer {issued['access_token']}",
            "Toast-Restaurant-External-ID": self.here.id,
        }
        answer = httpx.get(f"{self.sandbox.url}/toast{path}", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    # Into the lake

    def sync(self, day: date) -> RawManifest:
        """Bring a business date's orders into the lake, as `toast/raw_orders` does; nothing of it is refused."""
        source = self.runtime.source(self.connection)
        try:
            (outcome,) = read_windowed(self._context(source), [day])
        finally:
            source.close()
        assert outcome.error is None
        assert outcome.bad == ()
        assert outcome.manifest is not None
        assert outcome.manifest.verification.status == "verified"
        return outcome.manifest

    def read(self, name: str) -> RawManifest:
        """Bring a stream into the lake, as `toast/raw_<stream>` does."""
        source = self.runtime.source(self.connection)
        try:
            outcome = read_now(replace(self._context(source), raw=self.runtime.raw.of(name)))
        finally:
            source.close()
        assert outcome.error is None
        assert outcome.bad == ()
        assert outcome.manifest is not None
        return outcome.manifest

    def _context(self, source: Source) -> SyncContext:
        redact = self.runtime.redactor(self.connection)
        return SyncContext(source, self.connection, self.locations, self.runtime.raw, PROVIDER, redact=redact)

    def stored(self, manifest: RawManifest) -> list[Json]:
        """Return the lines of a partition of the raw table."""
        with self.runtime.raw.of(manifest.stream).local_file(manifest) as path:
            return [] if path is None else [exactly(line) for block in raw_blocks(path) for line in block]

    def as_stored(self, record: Json) -> Json:
        """Return a record without what is personal, by the project's own redaction."""
        redactor = self.runtime.redactor(self.connection)
        assert redactor is not None
        kept: Json = exactly(bytes(redactor([json.dumps(record).encode()])[0]))
        return kept

    # Out of the lake

    def transactions(self, manifest: RawManifest) -> list[Json]:
        """Write a date's rows into `toast/transactions`, and read them from there; no order goes to quarantine."""
        table = TRANSACTIONS.named(f"toast/{TRANSACTIONS.name}")
        work = Normalisation(PROVIDER, self.runtime.raw, self.connection, [manifest])
        where: dict[str, str | date] = {"connection": self.connection.key, "raw_date": manifest.business_date}
        self.runtime.lake.replace(table, work.reader(), [where])
        assert work.bad == []
        return list(self.runtime.lake.read(table, where=where).read_all().to_pylist())

    def table(self, name: str, manifest: RawManifest) -> list[Json]:
        """Write the rows of a stream's table into the lake, and read them from there; none goes to quarantine."""
        spec = next(one for one in PROVIDER.tables if one.table == name)
        table = named(name).named(f"toast/{name}")
        raw = self.runtime.raw.of(spec.stream)
        made = transform(PROVIDER, spec, self.connection, self.locations, raw, [manifest])
        assert made.bad == []
        where: dict[str, str | date] = {"connection": self.connection.key}
        rows = made.rows
        if has_history(table):
            rows = merge(table, None, rows, manifest.fetched_at)
        if table.day is not None:
            where[table.day] = manifest.business_date
        self.runtime.lake.replace(table, rows, [where])
        return list(self.runtime.lake.read(table, where=where).read_all().to_pylist())


@contextmanager
def round_trip(home: Path) -> Iterator[RoundTrip]:
    """Run a sandbox and connect to a restaurant of it. The clock is the real one: tokens are checked against it."""
    # Over at whatever hour this runs: a restaurant's day ends hours after midnight.
    end_day = datetime.now(UTC).date() - timedelta(days=2)
    options = SandboxOptions(seed=4, history_days=1, end_day=end_day, rate_limit=UNLIMITED)
    with RunningSandbox(options) as sandbox, Runtime(Settings(home=home)) as runtime:
        yield RoundTrip(sandbox, runtime)


def exactly(text: str | bytes) -> Any:
    """Read JSON with its numbers as they are printed."""
    return json.loads(text, parse_float=str, parse_int=str)


def differing(one: Any, other: Any, name: str = "") -> set[str]:
    """Return the innermost members in which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = one.keys() ^ other.keys()
        return found.union(*(differing(one[key], other[key], key) for key in one.keys() & other.keys()))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return set().union(*(differing(a, b, name) for a, b in zip(one, other, strict=True)))
    return set() if one == other else {name}


def day_of(order: Json) -> date:
    """Return an order's business date."""
    return datetime.strptime(str(order["businessDate"]), "%Y%m%d").replace(tzinfo=UTC).date()


def menu_with(restaurant: str, entries: Sequence[Json]) -> Json:
    """Return a menu of the items that some stock is of."""
    items = [
        {"name": f"Item {n}", "guid": one["guid"], "multiLocationId": one["multiLocationId"], "price": 1.5}
        for n, one in enumerate(entries)
    ]
    group = {"name": "Everything", "guid": "g1", "menuItems": items}
    return {
        "restaurantGuid": restaurant,
        "lastUpdated": "2026-03-01T10:00:00.000+0000",
        "menus": [{"name": "All day", "guid": "m1", "menuGroups": [group]}],
        "modifierGroupReferences": {},
        "modifierOptionReferences": {},
    }
