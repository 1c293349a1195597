"""The least that a load of this shape can be: an httpx loop with no limiter, retries, audit, proof or Dagster around it.

A thread follows the cursor, `msgspec.Raw` splits the pages without decoding them, a zstd level 1 stream lands them as
NDJSON, the provider's own SQL (the same file that Flux runs) makes typed rows in DuckDB, and deltalake writes them.
With `--redact` what is personal is taken out first, by the same code as in Flux: the same work with nothing around it.
"""

from __future__ import annotations

import argparse
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import deltalake
import duckdb
import httpx
import msgspec
import pyarrow as pa
import zstandard

from benchmarks.measure import load, tell
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.privacy import Pseudonyms, Redactor
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.reading import completed, database

_SQL = PROVIDER.table("transactions").sql


class _Page(msgspec.Struct):
    orders: list[msgspec.Raw] = []
    cursor: str | None = None


def read(url: str, locations: list[str], pages: queue.Queue[list[msgspec.Raw] | None]) -> None:
    """Follow the cursor; put each page, then None."""
    headers = {"Authorization": "Bearer bench", "Square-Version": PROVIDER.api_version}
    span = {"start_at": "2020-01-01T00:00:00Z", "end_at": "2030-01-01T00:00:00Z"}
    query = {
        "filter": {"date_time_filter": {"created_at": span}},
        "sort": {"sort_field": "CREATED_AT", "sort_order": "ASC"},
    }
    asked = {"location_ids": locations, "limit": 500, "query": query}
    decoder = msgspec.json.Decoder(_Page)
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            while True:
                page = decoder.decode(client.post("/v2/orders/search", json=asked).raise_for_status().content)
                pages.put(page.orders)
                if page.cursor is None:
                    return
                asked["cursor"] = page.cursor
    finally:
        pages.put(None)


def land(url: str, locations: list[str], path: Path, redact: Callable[[bytes], bytes]) -> int:
    """Fetch every order into a compressed NDJSON file; return how many."""
    pages: queue.Queue[list[msgspec.Raw] | None] = queue.Queue(4)
    orders = 0
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, url, locations, pages)
        with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as out:
            while (page := pages.get()) is not None:
                out.write(redact(b"\n".join(page) + b"\n"))
                orders += len(page)
        reading.result()
    return orders


def rows(path: Path, day: date) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the `transactions` contract, by the provider's SQL."""
    *setup, query = _statements(_SQL.read_text())
    # Every order counts on the day that it is fetched for: the loop has no calendars.
    with database({}, "8GB") as connection:
        for statement in setup:
            connection.execute(statement)
        columns = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'orders_as_received'"
        ).fetchall()
        typed = ", ".join(f"'{name}': '{kind}'" for name, kind in columns)
        connection.execute(
            f"""CREATE TEMP VIEW orders AS SELECT *, DATE '{day}' AS raw_date
            FROM read_json('{path}', format = 'newline_delimited', compression = 'zstd', columns = {{{typed}}})"""
        )
        types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {query}").fetchall()}
        added = {
            "connection": "'square:bench'",
            "tenant": "'bench'",
            "source_system": "'square'",
            "source_version": f"'{PROVIDER.api_version}'",
            "net": "(gross - discount)::DECIMAL(18,4)",
            "business_date": "raw_date",
        }
        names = ", ".join(TRANSACTIONS.column_names)
        whole = completed(query, types, tuple(TRANSACTIONS), added)
        yield from connection.sql(f"SELECT {names} FROM ({whole})").to_arrow_reader(100_000)


def _statements(text: str) -> list[str]:
    return [statement.query.strip().rstrip(";") for statement in duckdb.extract_statements(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--locations", type=int, default=1)
    parser.add_argument("--redact", action="store_true")
    chosen = parser.parse_args()
    redact: Callable[[bytes], bytes] = bytes
    if chosen.redact:
        redact = Redactor(PROVIDER.redaction, Pseudonyms(bytes(32))).lines
    landed = chosen.work / "orders.ndjson.zst"
    schema = TRANSACTIONS.arrow_schema()
    with load() as facts:
        places = [f"LBENCH{n:07d}" for n in range(chosen.locations)]
        facts["orders"] = land(chosen.url, places, landed, redact)
        lines = 0

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal lines
            for batch in rows(landed, chosen.first_day):
                lines += batch.num_rows
                yield batch.cast(schema)

        reader = pa.RecordBatchReader.from_batches(schema, counted())
        deltalake.write_deltalake(
            str(chosen.work / "transactions"), reader, partition_by=["connection", "business_date"]
        )
        facts["rows"] = lines
    tell(facts)


if __name__ == "__main__":
    main()
