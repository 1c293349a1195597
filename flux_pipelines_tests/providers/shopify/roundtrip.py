"""A shop of a running sandbox, connected: what it is given over HTTP is collected by the client and the engine into a lake."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pyarrow as pa

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.domain import tables
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.lake import RawManifest
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_now
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines.sync.scd2 import merge
from flux_pipelines.sync.transform import has_history, transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.providers.shopify.asked import ORDERS
from flux_pipelines_tests.providers.shopify.nodes import served
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.ids import legacy

SHOP = "harbor-shop"
#: How orders are fetched: the setting of each way.
WAYS: Mapping[str, Mapping[str, Any]] = {"paged": {"bulk_days": 0}, "bulk": {"bulk_days": 1}}
Json = dict[str, Any]


class ConnectedShop:
    """A shop of a sandbox of its own, and its connection."""

    def __init__(self, runtime: Runtime, sandbox: RunningSandbox) -> None:
        self.runtime = runtime
        self.sandbox = sandbox
        self.merchant = sandbox.world.merchant(SHOP)
        key = f"shopify:shop-{len(runtime.state.connections.list('shopify'))}"
        self.connection, self.locations = connect_to_sandbox(
            runtime, key, tenant="test", url=sandbox.url, merchant=SHOP
        )

    @property
    def stores(self) -> list[str]:
        """The numbers of the shop's locations; the first is the shop itself."""
        return [str(legacy("Location", one.id)) for one in self.merchant.locations]

    def give(self, kind: str, document: Any, store: int = 0) -> httpx.Response:
        """Give the sandbox a record."""
        location = self.merchant.locations[store].id
        body = {"kind": kind, "location_id": location, "document": document}
        return httpx.post(f"{self.sandbox.url}/sandbox/documents", json=body)

    def take(self, kind: str, documents: Iterable[Any], store: int = 0) -> None:
        """Give the sandbox records that it must take in."""
        for document in documents:
            answer = self.give(kind, document, store)
            assert answer.status_code == 200, answer.text

    def day_of(self, order: Mapping[str, Any]) -> date:
        """Return the business date of an order."""
        zone = ZoneInfo(self.merchant.locations[0].timezone)
        return datetime.fromisoformat(order["processedAt"]).astimezone(zone).date()

    def sync(self, way: str, day: date) -> RawManifest:
        """Land the orders of a business date one way or the other, proved complete."""
        connection = replace(self.connection, settings={**self.connection.settings, **WAYS[way]})
        with closing(self.runtime.source(connection)) as source:
            locations = self.runtime.refresh_locations(connection, source)
            redact = self.runtime.redactor(connection)
            context = SyncContext(source, connection, locations, self.runtime.raw, PROVIDER, redact=redact)
            (outcome,) = read_windowed(context, [day])
        assert (outcome.error, outcome.bad) == (None, ())
        assert outcome.manifest is not None
        assert outcome.manifest.verification.status == "verified"
        return outcome.manifest

    def read(self, stream: str) -> RawManifest:
        """Land what there is now of a stream."""
        with closing(self.runtime.source(self.connection)) as source:
            raw, redact = self.runtime.raw.of(stream), self.runtime.redactor(self.connection)
            outcome = read_now(SyncContext(source, self.connection, self.locations, raw, PROVIDER, redact=redact))
        assert (outcome.error, outcome.bad) == (None, ())
        assert outcome.manifest is not None
        return outcome.manifest

    def raw(self, manifest: RawManifest) -> list[bytes]:
        """Return the records of a raw partition, byte for byte."""
        with self.runtime.raw.of(manifest.stream).local_file(manifest) as path:
            assert path is not None
            return [record for block in raw_blocks(path) for record in block]

    def records(self, manifest: RawManifest, kind: str) -> list[tuple[str, Json]]:
        """Return the records of a kind of a stream, each with its location."""
        lines = [json.loads(line) for line in self.raw(manifest)]
        return [(line["location_id"], line["object"]) for line in lines if line["kind"] == kind]

    def lines(self, manifest: RawManifest) -> list[Json]:
        """Return the rows of `shopify/transactions` after a partition was written to it."""
        calendars = known_calendars(self.locations, self.connection.cutoff_hour)
        work = Normalisation(PROVIDER, self.runtime.raw, self.connection, [manifest], calendars)
        table = tables.TRANSACTIONS.named("shopify/transactions")
        rows = pa.RecordBatchReader.from_batches(table.arrow_schema(), work.batches())
        written = self._written(table, rows, manifest)
        assert work.bad == []
        return written

    def rows(self, name: str, manifest: RawManifest) -> list[Json]:
        """Return the rows of one of the provider's tables after a partition was written to it."""
        spec = next(one for one in PROVIDER.tables if one.table == name)
        table = tables.named(name).named(f"shopify/{name}")
        raw = self.runtime.raw.of(spec.stream)
        made = transform(PROVIDER, spec, self.connection, self.locations, raw, [manifest])
        assert made.bad == []
        rows = merge(table, None, made.rows, manifest.fetched_at) if has_history(table) else made.rows
        return self._written(table, rows, manifest)

    def redacted(self, expected: Sequence[Json]) -> list[Json]:
        """Return records without what is personal."""
        redactor = self.runtime.redactor(self.connection)
        assert redactor is not None
        return [json.loads(bytes(one)) for one in redactor([json.dumps(one).encode() for one in expected])]

    def _written(self, table: tables.Table, rows: Any, manifest: RawManifest) -> list[Json]:
        partition: dict[str, str | date] = {"connection": manifest.connection}
        if table.day is not None:
            partition[table.day] = manifest.business_date
        self.runtime.lake.replace(table, rows, [partition])
        where = {"connection": manifest.connection}
        found: list[Json] = self.runtime.lake.read(table, where=where).read_all().to_pylist()
        return found


@contextmanager
def shop_of(runtime: Runtime, day: date) -> Iterator[ConnectedShop]:
    """Connect to a sandbox of which every shop has sold things on a day."""
    with RunningSandbox(SandboxOptions(history_days=1, end_day=day, rate_limit=500_000)) as sandbox:
        yield ConnectedShop(runtime, sandbox)


def round_trip(shop: ConnectedShop, node: Json) -> tuple[list[Json], list[Json]]:
    """Send an order that was made at no counter through the sandbox, and collect it both ways.

    Returns:
        The rows that its lines and its payments have in the lake.

    """
    shop.take("orders", [node])
    day, number = shop.day_of(node), node["legacyResourceId"]
    expected = [{"flux_location_id": shop.stores[0], **ORDERS.of(served(node))}]
    assert shop.redacted(expected) == expected, "no query asks for what is personal"
    partitions, rows = [], []
    calls = shop.sandbox.world.request_log.endpoints
    for way in WAYS:
        before = calls["bulk_result"]
        manifest = shop.sync(way, day)
        assert (calls["bulk_result"] > before) is (way == "bulk")
        landed = shop.raw(manifest)
        partitions.append(sorted(landed))
        assert manifest.orders == len(landed) > 1, "it is among orders that are made up"
        mine = [found for text in landed if (found := json.loads(text))["legacyResourceId"] == number]
        assert mine == expected
        kept = [shop.lines(manifest), shop.rows("payments", manifest)]
        rows.append([[row for row in of_one if row["order_id"] == number] for of_one in kept])
    assert partitions[0] == partitions[1], "both ways give the same rows, byte for byte"
    assert rows[0] == rows[1]
    return rows[0][0], rows[0][1]
