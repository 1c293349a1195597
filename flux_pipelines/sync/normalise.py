"""Raw partitions -> rows of the `transactions` contract, through the provider's own SQL. Streams: memory stays flat.

The provider's SQL file says which columns of an order it reads (the table `orders_as_received`) and turns the view
`orders` into rows with a `problem` column. This module gives it the orders of the days asked for, takes bad orders out
and counts. An order that DuckDB cannot even read, or that makes the SQL fail (an amount too large for the contract), is
found by bisection and taken out the same way: it goes to quarantine, and the others are not lost with it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from flux_pipelines.domain.errors import ContractBrokenError, TableDamagedError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import TRANSACTIONS, Column
from flux_pipelines.sync.reading import (
    OF_A_RECORD,
    completed,
    database,
    identity,
    quoted,
    raw_blocks,
    sql_broken,
    words_of,
)
from flux_pipelines.sync.records import BadRecord, DayFigures

if TYPE_CHECKING:
    from flux_pipelines.domain.business_day import BusinessCalendar
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake.raw import RawManifest, RawStore
    from flux_pipelines.providers.base import Provider

_ROWS_A_BATCH = 16_384
#: Days with fewer bytes than this are put together, up to so many bytes: DuckDB spends 45 ms on every file, however small.
_SMALL = 4 * 1024 * 1024
_TOGETHER = 32 * 1024 * 1024
#: The largest order that is read, in bytes. Square's largest (500 lines with modifiers) are about 1.5 MB.
_LARGEST_ORDER = 4 * 1024 * 1024
#: What of the rows is counted besides: an order's first row, a line of what was sold or given back, a line of goods.
_FLAGS = ("first_row", "is_line", "is_goods")
_FLAGGED = """
SELECT
    *,
    line_type IN ('item', 'custom_amount', 'gift_card') AND kind IN ('sale', 'return') AS is_line,
    line_type IN ('item', 'custom_amount') AS is_goods
FROM ({})
"""
#: What a provider's SQL gives beside the contract's columns.
_COLUMNS = (
    *TRANSACTIONS,
    Column("first_row", "boolean", "Whether the row is its order's first.", on_first_row=True),
    Column("problem", "text", "Why the order cannot be used."),
)
_SUFFIX = ".ndjson.zst"
_DAY_FIELD = "flux_raw_date"


@dataclass
class Normalisation:
    """One pass over the raw orders of some days. Read `batches()` to the end; the rest is complete then.

    Args:
        provider: its SQL file is used.
        raw: where the partitions are.
        connection: whose orders.
        manifests: the partitions to read, one a date.
        calendars: the business calendar of each location, which say on which date a row counts.
        memory_limit: DuckDB's own limit.
        threads: DuckDB's threads; two keep up with one reading thread.

    """

    provider: Provider
    raw: RawStore
    connection: Connection
    manifests: Sequence[RawManifest]
    calendars: Mapping[str, BusinessCalendar] = field(default_factory=dict)
    memory_limit: str = "512MB"
    threads: int = 2
    bad: list[BadRecord] = field(default_factory=list, init=False)
    days: dict[date, DayFigures] = field(default_factory=dict, init=False)

    def reader(self) -> pa.RecordBatchReader:
        """Return the rows as an Arrow reader, for a writer that takes one."""
        return pa.RecordBatchReader.from_batches(TRANSACTIONS.arrow_schema(), self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the good orders, in the order of the days and of the orders within them.

        Raises:
            TableDamagedError: a raw file is missing, damaged, or not in the form that the provider's SQL reads.
            ContractBrokenError: the provider's SQL does not give what the contract asks for.

        """
        self.bad.clear()
        self.days = {manifest.business_date: DayFigures() for manifest in self.manifests}
        filled = sorted((m for m in self.manifests if m.file), key=lambda m: m.business_date)
        if not filled:
            return
        with tempfile.TemporaryDirectory(prefix="flux-normalise-") as folder:
            session = _Session(
                self.provider,
                self.connection,
                filled[0].api_version,
                self.calendars,
                self.memory_limit,
                self.threads,
            )
            try:
                for manifests in _chunks(filled):
                    yield from self._chunk(session, manifests, Path(folder))
            finally:
                session.close()

    def _chunk(self, session: _Session, manifests: Sequence[RawManifest], folder: Path) -> Iterator[pa.RecordBatch]:
        with ExitStack() as opened:
            files: dict[date, Path] = {}
            for manifest in manifests:
                path = opened.enter_context(self.raw.local_file(manifest))
                if path is None:
                    continue
                link = folder / f"{manifest.business_date}{_SUFFIX}"
                link.symlink_to(path)
                opened.callback(link.unlink)
                files[manifest.business_date] = link
            yield from self._rows(session, files, folder)

    def _rows(self, session: _Session, files: dict[date, Path], folder: Path) -> Iterator[pa.RecordBatch]:
        """Read the files; when one holds a record that stops the reading, go on without it where the reading stopped."""
        problems: dict[tuple[date, str], str] = {}
        given = 0
        try:
            for batch in session.read([_together(files, folder)] if len(files) > 1 else list(files.values())):
                given += batch.num_rows
                yield from self._good(batch, problems)
        except OF_A_RECORD:
            # Rows come in the order of the files, so what was given already is what the same files begin with once
            # the unreadable records are taken out.
            cleaned = self._without_unreadable(session, files, folder)
            for batch in session.read(cleaned):
                skip = min(given, batch.num_rows)
                given -= skip
                if skip < batch.num_rows:
                    yield from self._good(batch.slice(skip), problems)
        if problems:
            self._quarantine(problems, files)

    def _good(self, batch: pa.RecordBatch, problems: dict[tuple[date, str], str]) -> Iterator[pa.RecordBatch]:
        """Take the rows of bad orders out, remember those, and count the rest."""
        reasons = batch.column("problem")
        if reasons.null_count < batch.num_rows:
            for row in batch.filter(pc.is_valid(reasons)).select(["raw_date", "order_id", "problem"]).to_pylist():
                problems[row["raw_date"], row["order_id"]] = row["problem"]
            batch = batch.filter(pc.is_null(reasons))
        if batch.num_rows:
            schema = TRANSACTIONS.arrow_schema()
            rows = pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)
            self._count(batch)
            yield rows

    def _count(self, batch: pa.RecordBatch) -> None:
        """Add the rows to their days' figures."""
        # Everything stays in Arrow: whatever makes it look at a value of Python's imports pandas, which takes 40 MiB.
        counted = batch.select(["raw_date", "currency", "quantity", "net", "total", *_FLAGS])
        for day in pc.unique(counted.column("raw_date")):
            of_day = _only(counted, "raw_date", day)
            for currency in pc.unique(of_day.column("currency")):
                self._add(self.days[day.as_py()], currency.as_py(), _only(of_day, "currency", currency))

    @staticmethod
    def _add(figures: DayFigures, currency: str, rows: pa.RecordBatch) -> None:
        goods = rows.column("is_goods")
        figures.rows += rows.num_rows
        figures.orders += pc.sum(rows.column("first_row")).as_py()
        figures.lines += pc.sum(rows.column("is_line")).as_py()
        figures.units += pc.sum(rows.column("quantity").filter(goods)).as_py() or Decimal(0)
        for name, sums in (("net", figures.net), ("total", figures.total)):
            sums[currency] = sums.get(currency, Decimal(0)) + pc.sum(rows.column(name)).as_py()

    def _quarantine(self, problems: dict[tuple[date, str], str], files: dict[date, Path]) -> None:
        """Fetch the bad orders, whole, out of the raw files. Rare, so it may take its time."""
        for day in sorted({day for day, _ in problems}):
            for block in raw_blocks(files[day]):
                for line in block:
                    order_id = self._identity(line)
                    reason = problems.get((day, order_id))
                    if reason is not None:
                        self.bad.append(
                            BadRecord(
                                Partition(self.connection.key, day), f"order {order_id}: {reason}", line, order_id
                            )
                        )

    def _identity(self, line: bytes) -> str:
        return identity(line, self.provider.order_id_field)

    def _without_unreadable(self, session: _Session, files: dict[date, Path], folder: Path) -> list[Path]:
        """Write copies of the files without the records that stop the reading; put those in quarantine."""
        scratch = folder / "scratch.ndjson"
        cleaned: list[Path] = []
        for day, path in files.items():
            if session.refuses(path) is None:
                cleaned.append(path)
                continue
            copy = folder / f"cleaned-{path.name}"
            with copy.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as stream:
                for block in raw_blocks(path):
                    bad, partition = dict(_unreadable(session, block, scratch)), Partition(self.connection.key, day)
                    for number, line in enumerate(block):
                        if number in bad:
                            order_id = self._identity(line)
                            self.bad.append(BadRecord(partition, bad[number], line, order_id or None))
                        else:
                            stream.write(line + b"\n")
            if session.refuses(copy) is not None:
                raise TableDamagedError(
                    f"the raw orders of {day} cannot be read ({session.refuses(copy)})", connection=self.connection.key
                )
            cleaned.append(copy)
        return cleaned


def _only(rows: pa.RecordBatch, column: str, value: pa.Scalar) -> pa.RecordBatch:
    """Return the rows with that value, without copying when all have it, as nearly always."""
    mask = pc.equal(rows.column(column), value)
    return rows if pc.all(mask).as_py() else rows.filter(mask)


def _chunks(manifests: Sequence[RawManifest]) -> Iterator[list[RawManifest]]:
    """Give small days together and every large one alone."""
    chunk: list[RawManifest] = []
    size = 0
    for manifest in manifests:
        if chunk and (manifest.bytes > _SMALL or size + manifest.bytes > _TOGETHER):
            yield chunk
            chunk, size = [], 0
        chunk.append(manifest)
        size += manifest.bytes if manifest.bytes <= _SMALL else _TOGETHER
    if chunk:
        yield chunk


def _together(files: dict[date, Path], folder: Path) -> Path:
    """Write small files into one, each record with its date as a first field."""
    path = folder / "together.ndjson"
    with path.open("wb") as out:
        for day, file in files.items():
            with file.open("rb") as source:
                records = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True).read()
            field = f'{{"{_DAY_FIELD}":"{day}",'.encode()
            # A line break is never inside a record, and every record is an object.
            out.write((b"\n" + records[:-1]).replace(b"\n{", b"\n" + field)[1:] + b"\n")
    return path


def _unreadable(session: _Session, lines: list[bytes], scratch: Path, first: int = 0) -> Iterator[tuple[int, str]]:
    """Yield the positions of records that stop the reading, with the reason, by halving."""
    scratch.write_bytes(b"\n".join(lines) + b"\n")
    reason = session.refuses(scratch)
    if reason is None:
        return
    if len(lines) == 1:
        yield first, reason
        return
    middle = len(lines) // 2
    yield from _unreadable(session, lines[:middle], scratch, first)
    yield from _unreadable(session, lines[middle:], scratch, first + middle)


class _Session:
    """DuckDB with the provider's SQL loaded."""

    def __init__(
        self,
        provider: Provider,
        connection: Connection,
        api_version: str,
        calendars: Mapping[str, BusinessCalendar],
        memory_limit: str,
        threads: int,
    ) -> None:
        self._added = {
            "connection": quoted(connection.key),
            "tenant": quoted(connection.tenant),
            "source_system": quoted(provider.name),
            "source_version": quoted(api_version or provider.api_version),
            "net": "(gross - discount)::DECIMAL(18,4)",
            "business_date": "raw_date",
            "first_row": "false",
        }
        self._duckdb = database(calendars, memory_limit, threads)
        self._provider, self._connection, self._checked = provider, connection, False
        self._sql = provider.table(TRANSACTIONS.name).sql
        try:
            *definitions, query = self._duckdb.extract_statements(self._sql.read_text("utf-8"))
            for definition in definitions:
                self._duckdb.execute(definition)
            described = self._duckdb.execute("DESCRIBE orders_as_received").fetchall()
        except duckdb.Error as error:
            self._duckdb.close()
            raise self._broken(words_of(error)) from error
        self._query = query.query.rstrip().removesuffix(";")
        columns = [(_DAY_FIELD, "DATE"), *((name, kind) for name, kind, *_ in described)]
        self._columns = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in columns)

    def close(self) -> None:
        self._duckdb.close()

    def read(self, files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """Yield what the provider's SQL makes of the files, whose names end with their date or whose records have it."""
        self._duckdb.execute(
            "CREATE OR REPLACE TEMP VIEW orders AS SELECT *, "
            f"coalesce({_DAY_FIELD}, TRY_CAST(right(filename, {10 + len(_SUFFIX)})[1:10] AS DATE)) AS raw_date "
            f"FROM {self._source(files)}"
        )
        self._complete()
        yield from self._duckdb.sql(_FLAGGED.format(self._query)).to_arrow_reader(_ROWS_A_BATCH)

    def _complete(self) -> None:
        """Add to the query what no provider's SQL says; see once, before any record is looked at, that nothing is lacking then.

        Raises:
            ContractBrokenError: it lacks a column of the contract, or reads one that `orders_as_received` has not.

        """
        if self._checked:
            return
        try:
            described = self._duckdb.execute(f"DESCRIBE {self._query}").fetchall()
        except duckdb.Error as error:
            raise self._broken(words_of(error)) from error
        try:
            self._query = completed(self._query, {name: kind for name, kind, *_ in described}, _COLUMNS, self._added)
        except ValueError as lacking:
            raise self._broken(str(lacking)) from None
        self._checked = True

    def _broken(self, what: str) -> ContractBrokenError:
        return sql_broken(self._provider, self._sql, TRANSACTIONS.name, what, self._connection.key)

    def refuses(self, file: Path) -> str | None:
        """Say why the SQL makes nothing of a file; None when it does."""
        try:
            self._duckdb.execute(f"SELECT count(columns(*)) FROM {self._source([file])}").fetchall()
        except OF_A_RECORD as error:
            brief = re.sub(r'in file ".*?", in record/value \d+: ?', "", str(error).splitlines()[0])
            return f"the record does not have the documented form: {brief}"
        try:
            for _ in self.read([file]):
                pass
        except OF_A_RECORD as error:
            return f"no rows can be made of the record: {str(error).splitlines()[0]}"
        return None

    def _source(self, files: Sequence[Path]) -> str:
        names = ", ".join(quoted(str(file)) for file in files)
        return (
            f"read_json([{names}], format = 'newline_delimited', columns = {{{self._columns}}}, filename = true, "
            f"maximum_object_size = {_LARGEST_ORDER})"
        )
