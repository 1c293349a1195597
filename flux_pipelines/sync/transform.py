"""Raw records of a stream -> rows of a table's contract, through the SQL of the provider's folder (`StreamTable`).

The SQL reads the view `records` (see `docs/add-a-provider.md`) and gives the contract's columns, `problem` and `record`.
A record that cannot be read, one that makes the SQL fail, and a row with a problem go to quarantine with the reason; the
others are not lost with them. Of rows with the same key the newest stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from hashlib import md5
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa

from flux_pipelines.domain import tables
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import ContractBrokenError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import SQL_TYPES, Column, Table
from flux_pipelines.lake.raw import ORDERS
from flux_pipelines.sync.parts import take_apart
from flux_pipelines.sync.reading import OF_A_RECORD, completed, database, quoted, raw_blocks, sql_broken, words_of
from flux_pipelines.sync.records import BadRecord

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake.raw import RawManifest, RawStore
    from flux_pipelines.providers.base import Location, Provider, StreamTable

#: When the provider last changed what a row tells of: which of two rows with one key is newer.
CHANGED_AT = "changed_at"
_NEWEST_BY = (CHANGED_AT, "updated_at", "counted_at")
#: What the engine itself adds to a table with history.
HISTORY = ("valid_from", "valid_to")
#: Decoded records that are put into DuckDB at once.
_LINES = pa.schema(
    [
        ("file", pa.int32()),
        ("line", pa.int64()),
        ("position", pa.int64()),  # the number of the whole record
        ("number", pa.int64()),
        ("parent", pa.int64()),
        ("kind", pa.string()),
        ("location_id", pa.string()),
        ("object", pa.string()),
        ("digest", pa.binary(16)),
        ("collected_at", pa.timestamp("us", tz="UTC")),
        ("snapshot_at", pa.timestamp("us", tz="UTC")),
        ("raw_date", pa.date32()),
    ]
)

#: DuckDB's limit, and of orders, which are long and read whole. Python and the libraries need some 150 MiB beside it.
_MEMORY, _MEMORY_OF_ORDERS = "256MB", "512MB"
#: Bytes of raw records that are read in one session; a business date is never split.
_TOGETHER = 8 * 1024 * 1024


#: What a provider's SQL gives beside the contract's columns.
_JUDGED = (
    Column("problem", "text", "Why the row cannot be used.", required=False),
    Column("record", "text", "The JSON text of its record."),
)
_CHANGED = Column(CHANGED_AT, "instant", "When the provider last changed what it tells of.")


class _Line(msgspec.Struct):
    """One line of a raw file of a stream."""

    kind: str
    object: msgspec.Raw
    location_id: str = ""


_decode_line = decoder(_Line)


class _Bad(NamedTuple):
    """What cannot be used: one line of a file."""

    file: int
    line: int
    reason: str


@dataclass
class Transformed:
    """What the SQL made of some raw files: rows of the contract, and what could not be used.

    Args:
        rows: the contract's columns; for a table with history `changed_at` in place of `valid_from` and `valid_to`.
        bad: what goes to quarantine.
        records: how many records were read.

    """

    rows: pa.Table
    bad: list[BadRecord] = field(default_factory=list)
    records: int = 0


def has_history(table: Table) -> bool:
    """Tell whether the engine keeps a table's history."""
    return set(HISTORY) <= set(table.column_names)


def transform(
    provider: Provider,
    spec: StreamTable,
    connection: Connection,
    locations: Sequence[Location],
    raw: RawStore,
    manifests: Sequence[RawManifest],
    *,
    memory_limit: str = "",
) -> Transformed:
    """Run a provider's SQL over raw partitions of one connection.

    Args:
        provider: whose SQL it is.
        spec: the table and its SQL.
        connection: whose records.
        locations: the connection's locations: the table `stores` of the SQL.
        raw: the raw records of the stream (`spec.stream`).
        manifests: the partitions to read, of any number of days.
        memory_limit: DuckDB's own limit; beyond it it uses temporary files.

    Raises:
        TableDamagedError: a raw file is missing or damaged.
        ContractBrokenError: the SQL does not give what the contract asks for, or fails whatever the records are.

    """
    memory_limit = memory_limit or (_MEMORY_OF_ORDERS if spec.stream == ORDERS else _MEMORY)
    filled = sorted((m for m in manifests if m.file), key=lambda m: (m.business_date, m.slot, m.fetched_at))
    made = [
        _transform(provider, spec, connection, locations, raw, some, memory_limit) for some in _chunks(filled) or [[]]
    ]
    return Transformed(
        pa.concat_tables([one.rows for one in made]),
        [bad for one in made for bad in one.bad],
        sum(one.records for one in made),
    )


def _chunks(manifests: Sequence[RawManifest]) -> list[list[RawManifest]]:
    """Give business dates together as long as they are small: JSON takes many times its size in memory."""
    chunks: list[list[RawManifest]] = []
    size = 0
    for manifest in manifests:
        same_day = bool(chunks) and chunks[-1][-1].business_date == manifest.business_date
        if not chunks or (size + manifest.bytes > _TOGETHER and not same_day):
            chunks.append([])
            size = 0
        chunks[-1].append(manifest)
        size += manifest.bytes
    return chunks


def _transform(
    provider: Provider,
    spec: StreamTable,
    connection: Connection,
    locations: Sequence[Location],
    raw: RawStore,
    filled: Sequence[RawManifest],
    memory_limit: str,
) -> Transformed:
    session = _Session(provider, spec, connection, locations, memory_limit)
    try:
        bad: list[_Bad] = []
        session.load(filled, _batches(raw, filled, bad, spec))
        bad += session.take_out_invalid()
        rows = session.rows(bad)
        found = [
            BadRecord(filled[one.file].partition, one.reason, payload)
            for one, payload in _payloads(raw, filled, bad, orders=spec.stream == ORDERS)
        ]
        return Transformed(rows, found + session.problems(), sum(m.orders for m in filled))
    finally:
        session.close()


def _batches(
    raw: RawStore, manifests: Sequence[RawManifest], bad: list[_Bad], spec: StreamTable
) -> Iterator[pa.RecordBatch]:
    """Yield the lines of raw files, decoded as far as kind and location, long ones apart; what cannot be decoded is bad."""
    orders = spec.stream == ORDERS
    number = 0
    for file, manifest in enumerate(manifests):
        of_file = manifest.fetched_at.astimezone(UTC), manifest.hour, manifest.business_date
        with raw.local_file(manifest) as path:
            if path is None:
                continue
            at = 0
            for block in raw_blocks(path):
                good: list[tuple[Any, ...]] = []
                for line in block:
                    at += 1
                    try:
                        found = _Line("order", msgspec.Raw(line)) if orders else _decode_line(line)
                        parts = take_apart(found.kind, found.object, spec.apart)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        bad.append(_Bad(file, at, f"the record does not have the documented form: {error}"))
                        continue
                    digest = None if orders else md5(found.object, usedforsecurity=False).digest()
                    for place, part in enumerate(parts):
                        parent = None if part.parent is None else number + part.parent
                        location = found.location_id or None
                        good.append(
                            (file, at, number, number + place, parent, part.kind, location, part.text, digest, *of_file)
                        )
                    number += len(parts)
                columns = list(zip(*good, strict=True)) or [()] * len(_LINES)
                yield pa.RecordBatch.from_arrays(
                    [pa.array(column, kind.type) for column, kind in zip(columns, _LINES, strict=True)], schema=_LINES
                )


def _payloads(
    raw: RawStore, manifests: Sequence[RawManifest], bad: Sequence[_Bad], *, orders: bool
) -> Iterator[tuple[_Bad, bytes]]:
    """Fetch what is bad, whole, out of the raw files. Rare, so it may take its time."""
    for file in sorted({one.file for one in bad}):
        of_line = {one.line: one for one in bad if one.file == file}
        with raw.local_file(manifests[file]) as path:
            blocks = () if path is None else raw_blocks(path)
            for at, line in enumerate(chain.from_iterable(blocks), 1):
                if at in of_line:
                    yield of_line[at], line if orders else _object(line)


def _object(line: bytes) -> bytes:
    try:
        return bytes(_decode_line(line).object)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line


class _Session:
    """DuckDB with the provider's SQL and the records loaded."""

    def __init__(
        self,
        provider: Provider,
        spec: StreamTable,
        connection: Connection,
        locations: Sequence[Location],
        memory_limit: str,
    ) -> None:
        self._provider = provider
        self._spec = spec
        self._connection = connection
        self._table = tables.named(spec.table)
        self._history = has_history(self._table)
        self._columns = [c for c in self._table if not (self._history and c.name in HISTORY)]
        self._dates: list[date] = []
        self._versions: dict[date, str] = {}
        names = [c.name for c in self._columns]
        self._day = next((name for name in ("raw_date", "business_date") if name in names), "NULL::DATE")
        self._problems: list[BadRecord] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="flux-records-")
        calendars = known_calendars(locations, connection.cutoff_hour)
        self._duckdb = database(calendars, memory_limit, scratch=self._scratch.name)
        self._duckdb.execute(
            "CREATE TABLE stores (location_id VARCHAR, name VARCHAR, timezone VARCHAR, currency VARCHAR, active BOOLEAN)"
        )
        if locations:
            self._duckdb.executemany(
                "INSERT INTO stores VALUES (?, ?, ?, ?, ?)",
                [(one.location_id, one.name, one.timezone, one.currency, one.active) for one in locations],
            )
        *self._definitions, query = self._duckdb.extract_statements(spec.sql.read_text("utf-8"))
        self._query = query.query.rstrip().removesuffix(";")

    def close(self) -> None:
        self._duckdb.close()
        self._scratch.cleanup()

    def load(self, manifests: Sequence[RawManifest], batches: Iterable[pa.RecordBatch]) -> None:
        """Put the records into a table, which DuckDB keeps on disk if it is large."""
        self._dates = [m.business_date for m in manifests]
        self._versions = {m.business_date: m.api_version or self._provider.api_version for m in manifests}
        incoming = pa.RecordBatchReader.from_batches(_LINES, iter(batches))
        self._duckdb.register("incoming", incoming)
        self._duckdb.execute("CREATE TABLE given AS SELECT * FROM incoming")
        self._duckdb.unregister("incoming")
        # Pages shift while they are read: what came twice, byte for byte, is there once. Landing has seen to that of orders.
        if self._spec.stream != ORDERS:
            self._duckdb.execute(
                "DELETE FROM given WHERE position IN (SELECT position FROM given WHERE parent IS NULL "
                "QUALIFY row_number() OVER (PARTITION BY file, kind, location_id, digest ORDER BY line) > 1)"
            )
        # One table, in the order of the files: a join would not keep it, and to sort long texts takes memory.
        apart = "number AS part_number, parent AS part_of, " if self._spec.apart else ""
        self._view = (
            f"CREATE OR REPLACE VIEW records AS SELECT kind, location_id, object::JSON AS object, {apart}"
            f"collected_at, snapshot_at, raw_date, {self._connection.cutoff_hour}::INTEGER AS cutoff_hour "
            "FROM given WHERE {where}"
        )

    def take_out_invalid(self) -> list[_Bad]:
        """Take out what is not JSON."""
        found = self._take_out("position IN (SELECT position FROM given WHERE NOT json_valid(object))")
        return [_Bad(file, line, "the record is not valid JSON") for file, line in found]

    def _take_out(self, where: str) -> list[tuple[int, int]]:
        """Take records out, whole; return the lines that they are in."""
        lines = self._duckdb.execute(f"SELECT DISTINCT file, line FROM given WHERE {where} ORDER BY ALL").fetchall()
        if lines:
            self._duckdb.execute(f"DELETE FROM given WHERE {where}")
        return lines

    def rows(self, bad: list[_Bad]) -> pa.Table:
        """Return the good rows; records that make the SQL fail are found by halving, and taken out."""
        self._look_at("true")
        try:
            for definition in self._definitions:
                self._duckdb.execute(definition)
        except duckdb.Error as error:
            raise self._broken(words_of(error)) from error
        self._check_columns()
        try:
            self._materialise()
        except OF_A_RECORD as error:
            positions = [
                row[0] for row in self._duckdb.execute("SELECT DISTINCT position FROM given ORDER BY 1").fetchall()
            ]
            failing = dict(self._failing(positions))
            if not failing:
                raise self._broken(words_of(error)) from error
            for position, reason in failing.items():
                for file, line in self._take_out(f"position = {position}"):
                    bad.append(_Bad(file, line, f"the record does not have the documented form: {reason}"))
            self._look_at("true")
            try:
                self._materialise()
            except OF_A_RECORD as again:
                raise self._broken(words_of(again)) from again
        self._set_problems_aside()
        return self._newest()

    def problems(self) -> list[BadRecord]:
        """Return the rows that the SQL itself objects to, and those that do not fit the contract."""
        return self._problems

    def _look_at(self, where: str) -> None:
        self._duckdb.execute(self._view.replace("{where}", where))

    def _check_columns(self) -> None:
        try:
            described = self._duckdb.execute(f"DESCRIBE SELECT * FROM ({self._query}\n)").fetchall()
        except duckdb.Error as error:
            raise self._broken(words_of(error)) from error
        types = {name: kind for name, kind, *_ in described}
        unknown = [name for name in types if name not in {CHANGED_AT, *(c.name for c in (*self._columns, *_JUDGED))}]
        if unknown:
            raise self._broken(f"nobody knows {', '.join(unknown)}")
        changed = (_CHANGED,) if self._history or CHANGED_AT in types else ()
        columns = (*self._columns, *_JUDGED, *changed)
        try:
            self._query = completed(self._query, types, columns, self._added(set(types)))
        except ValueError as lacking:
            raise self._broken(str(lacking)) from None
        self._extra = ", ".join(f"{name}::TIMESTAMPTZ AS {name}" for name in (CHANGED_AT,) if name in types)
        self._newest_by = next((name for name in _NEWEST_BY if name in types), "")

    def _added(self, given: set[str]) -> dict[str, str]:
        """Return what every row has that is not of its record, in SQL: of the partition that it was made of."""
        version = quoted(next(reversed(self._versions.values()), self._provider.api_version))
        if len(set(self._versions.values())) > 1 and self._day in given:
            of_dates = ", ".join(f"DATE '{day}': {quoted(one)}" for day, one in self._versions.items())
            version = f"(MAP {{{of_dates}}})[{self._day}]"
        return {
            "connection": quoted(self._connection.key),
            "tenant": quoted(self._connection.tenant),
            "source_system": quoted(self._provider.name),
            "source_version": version,
            **({"business_date": "raw_date"} if "raw_date" in given else {}),
        }

    def _materialise(self) -> None:
        """Run the SQL over the records that are looked at, and see whether its rows fit the contract."""
        conditions = {f"{c.name} is missing": f"{c.name} IS NULL" for c in self._columns if c.required}
        for c in self._columns:
            cast = f"TRY_CAST({c.name} AS {SQL_TYPES[c.type]})"
            if c.allowed:
                values = ", ".join(map(quoted, c.allowed))
                conditions[f"{c.name} is none of {', '.join(c.allowed)}"] = f"{c.name} NOT IN ({values})"
            conditions[f"{c.name} cannot be read"] = f"{c.name} IS NOT NULL AND {cast} IS NULL"
            if c.type == "money":
                conditions[f"{c.name} has more than four decimal places"] = (
                    f"TRY_CAST({c.name} AS DECIMAL(38,12)) <> {cast}"
                )
        cases = " ".join(f"WHEN {sql} THEN {quoted(words)}" for words, sql in conditions.items())
        if self._dates and self._day in {c.name for c in self._columns}:
            when, dates = f"TRY_CAST({self._day} AS DATE)", ", ".join(sorted({f"DATE '{day}'" for day in self._dates}))
            cases += (
                f" WHEN {when} NOT IN ({dates}) THEN 'its business date is ' || {when} || ', which was not asked for'"
            )
        columns = ", ".join(f"TRY_CAST({c.name} AS {SQL_TYPES[c.type]}) AS {c.name}" for c in self._columns)
        extra = f", {self._extra}" if self._extra else ""
        # The text of a record is kept of a row that has a problem alone: it may be a long one, and of many rows.
        self._duckdb.execute(
            f"CREATE OR REPLACE TABLE made AS SELECT {columns}{extra}, "
            f"coalesce(problem::VARCHAR, CASE {cases} END) AS trouble, "
            "CASE WHEN trouble IS NOT NULL THEN record::VARCHAR END AS record, "
            f"row_number() OVER () AS made_as FROM ({self._query}\n)"
        )

    def _failing(self, positions: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield the records that make the SQL fail, with its reason, by halving."""
        if not positions:
            return
        self._look_at(f"position BETWEEN {positions[0]} AND {positions[-1]}")
        try:
            self._materialise()
        except OF_A_RECORD as error:
            if len(positions) == 1:
                yield positions[0], words_of(error)
                return
            middle = len(positions) // 2
            yield from self._failing(positions[:middle])
            yield from self._failing(positions[middle:])

    def _set_problems_aside(self) -> None:
        key = ", ".join(f"{name}::VARCHAR" for name in self._table.key if name not in HISTORY and name != "connection")
        for when, what, problem, record in self._duckdb.execute(
            f"SELECT DISTINCT {self._day}, concat_ws(' / ', {key}), trouble, record FROM made WHERE trouble IS NOT NULL ORDER BY ALL"
        ).fetchall():
            payload = record if record is not None else what
            on = Partition(self._connection.key, when if when in self._dates else max(self._dates))
            self._problems.append(BadRecord(on, f"{what}: {problem}", str(payload).encode()))

    def _newest(self) -> pa.Table:
        keys = ", ".join(name for name in self._table.key if name not in HISTORY)
        newest = f"{self._newest_by} DESC NULLS LAST, " if self._newest_by else ""
        columns = ", ".join([c.name for c in self._columns] + ([CHANGED_AT] if self._history else []))
        found = self._duckdb.sql(
            f"SELECT {columns} FROM made WHERE trouble IS NULL "
            f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest} made_as DESC) = 1 ORDER BY {keys}"
        ).to_arrow_table()
        return found.cast(derived_schema(self._table))

    def _broken(self, what: str) -> ContractBrokenError:
        return sql_broken(self._provider, self._spec.sql, self._table.name, what, self._connection.key)


def derived_schema(table: Table) -> pa.Schema:
    """Return the schema of the rows that `transform` gives for a table."""
    schema = table.arrow_schema()
    if not has_history(table):
        return schema
    kept = [one for one in schema if one.name not in HISTORY]
    return pa.schema([*kept, pa.field(CHANGED_AT, pa.timestamp("us", tz="UTC"))])
