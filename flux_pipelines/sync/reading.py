"""What every reader of raw files needs: their records in blocks, and DuckDB with what their SQL relies on."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import msgspec
import zstandard

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import ContractBrokenError
from flux_pipelines.domain.money import known_currencies
from flux_pipelines.domain.tables import SQL_TYPES

if TYPE_CHECKING:
    from flux_pipelines.domain.tables import Column
    from flux_pipelines.lake.raw import RawManifest, RawStore
    from flux_pipelines.providers.base import Provider

#: Errors of DuckDB's that a record is the cause of. Not those of a full disk or of memory: they are no record's fault.
OF_A_RECORD = (duckdb.InvalidInputException, duckdb.DataError)

#: DuckDB's types of what is counted in minor units, and of what no money may be.
_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_WHOLE = frozenset({*_SIGNED, *(f"U{kind}" for kind in _SIGNED)})
_INEXACT = frozenset({"FLOAT", "DOUBLE"})

_MACROS = Path(__file__).with_name("macros.sql")
_LINES_A_BLOCK = 1024
_BYTES_A_BLOCK = 4 * 1024 * 1024


def words_of(error: duckdb.Error) -> str:
    """Return what DuckDB says, without the kind of the error and the lines that point into the statement."""
    return re.sub(r"^\w+ Error: ", "", str(error).splitlines()[0])


def sql_broken(provider: Provider, sql: Path, table: str, what: str, connection: str) -> ContractBrokenError:
    """Return the error of a provider's SQL that makes no rows of a table, whatever the records are.

    Args:
        provider: whose SQL it is.
        sql: the file.
        table: the table that it is to make.
        what: what is wrong; it names the column.
        connection: whose records they are.

    """
    return ContractBrokenError(f"{provider.name}'s {sql.name} cannot make {table}: {what}", connection=connection)


def completed(query: str, types: Mapping[str, str], columns: Sequence[Column], added: Mapping[str, str]) -> str:
    """Return a provider's query with what is no provider's own: whole amounts in the currency's unit, and what it left out.

    Args:
        query: the provider's.
        types: what it gives: DuckDB's types by the columns' names.
        columns: the contract's.
        added: what a column is that the query does not give, in SQL over what it does give.

    Raises:
        ValueError: it lacks a column that nobody can add, or money is a float.

    """
    inexact = [c.name for c in columns if c.type == "money" and types.get(c.name) in _INEXACT]
    if inexact:
        raise ValueError(f"money must be exact, and is not in {', '.join(inexact)}")
    added = {**added, **{c.name: f"0::{SQL_TYPES[c.type]}" for c in columns if c.zero_unless_given}}
    given, left_out, lacking, scaled = [], ["*"], [], False
    for c in columns:
        kind, default = types.get(c.name), added.get(c.name)
        value = c.name
        if c.type == "money" and kind in _WHOLE:
            value, kind, scaled = f"({c.name}::BIGINT * flux_factor)::{SQL_TYPES['money']}", SQL_TYPES["money"], True
        if c.on_first_row:
            value = f"coalesce({value}, {default})"
        if kind is not None:
            given.append(f"{value} AS {c.name}")
        elif default is not None or not c.required:
            left_out.append(f"{default or f'NULL::{SQL_TYPES[c.type]}'} AS {c.name}")
        else:
            lacking.append(c.name)
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    # Looked up once a row, however many amounts it has.
    factor = ", minor_unit(currency) AS flux_factor" if scaled else ""
    made = f"SELECT {', '.join(given)} FROM (SELECT *{factor} FROM ({query}\n))"
    return f"SELECT {', '.join(left_out)} FROM ({made})"


def raw_blocks(path: Path) -> Iterator[list[bytes]]:
    """Yield a raw file's records in blocks, which are small however long the records are."""
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        block: list[bytes] = []
        size = 0
        for line in io.BufferedReader(stream, 1 << 20):
            block.append(line.rstrip(b"\n"))
            size += len(line)
            if len(block) == _LINES_A_BLOCK or size > _BYTES_A_BLOCK:
                yield block
                block, size = [], 0
        if block:
            yield block


def identity(record: bytes, member: str) -> str:
    """Return a record's id, which is in that member; empty when it cannot be read."""
    try:
        found = decode(record, dict[str, msgspec.Raw]).get(member)
        return "" if found is None else str(decode(found))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def order_lines(raw: RawStore, manifest: RawManifest, id_field: str) -> dict[str, bytes]:
    """Return the orders of a raw partition by their ids.

    Raises:
        TableDamagedError: the file is missing or damaged.

    """
    found: dict[str, bytes] = {}
    with raw.local_file(manifest) as path:
        for block in raw_blocks(path) if path is not None else ():
            found |= {identity(line, id_field): line for line in block}
    return found


def database(
    calendars: Mapping[str, BusinessCalendar], memory_limit: str, threads: int = 2, scratch: str = ""
) -> duckdb.DuckDBPyConnection:
    """Open DuckDB with what a provider's SQL relies on: UTC, `minor_unit`, `business_date_of`, and `macros.sql`.

    Args:
        calendars: the business calendar of each location.
        memory_limit: DuckDB's own limit.
        threads: DuckDB's threads.
        scratch: a folder for what does not fit into memory; none without it.

    """
    opened = duckdb.connect(config={"memory_limit": memory_limit, "threads": str(threads), "temp_directory": scratch})
    opened.execute("SET TimeZone = 'UTC'")
    opened.execute(_minor_unit_macro())
    opened.execute(_business_date_macro(calendars))
    opened.execute(_MACROS.read_text("utf-8"))
    return opened


def _minor_unit_macro() -> str:
    """Return the statement that makes the macro `minor_unit(code)`: what one minor unit is, exactly; NULL if not known.

    A MAP, not a join and not IN (...), which DuckDB turns into one: joins do not keep the order of rows.
    """
    units = ", ".join(f"'{code}': {Decimal(1).scaleb(-places):.4f}" for code, places in known_currencies().items())
    return f"CREATE MACRO minor_unit(code) AS (MAP {{{units}}})[code]::DECIMAL(5,4)"


def _business_date_macro(calendars: Mapping[str, BusinessCalendar]) -> str:
    """Return the statement that makes the macro `business_date_of(location_id, instant)`; NULL where it is not known.

    It says what `BusinessCalendar.date_of` does: local time less the cut-off hour is of the date, in days of 23 and 25 hours
    too; and of two rules the one that held then.
    """
    alike: dict[BusinessCalendar, list[str]] = {}
    for location, calendar in calendars.items():
        alike.setdefault(calendar, []).append(location)
    cases = " ".join(
        f"WHEN location_id IN ({', '.join(map(quoted, sorted(locations)))}) THEN {_date_sql(calendar)}"
        for calendar, locations in alike.items()
    )
    found = f"CASE {cases} END" if cases else "NULL::DATE"
    return f"CREATE MACRO business_date_of(location_id, instant) AS {found}"


def _date_sql(calendar: BusinessCalendar) -> str:
    def local(zone_name: str, cutoff_hour: int, since: date | None) -> str:
        found = f"(timezone({quoted(zone_name)}, instant) - INTERVAL {cutoff_hour} HOUR)::DATE"
        return found if since is None else f"CASE WHEN {found} < DATE '{since}' THEN DATE '{since}' ELSE {found} END"

    since: date | None = None
    cases = ""
    for until, zone_name, cutoff_hour in calendar.earlier:
        end = f"TIMESTAMPTZ '{calendar.start(until).isoformat()}'"
        cases += f"WHEN instant < {end} THEN {local(zone_name, cutoff_hour, since)} "
        since = until
    present = local(calendar.zone_name, calendar.cutoff_hour, since)
    return f"CASE {cases}ELSE {present} END" if cases else present


def quoted(text: str) -> str:
    """Write a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
