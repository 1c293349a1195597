"""SQL over the lake: every table is a view, and nothing but the lake can be reached.

Core tables have their own name; a provider's are `square.transactions`, or `square_transactions`. The views are over
Arrow datasets: DuckDB hands conditions down to them, so that a condition on a partition column opens only the files of
those partitions. A session sees the tables as they were when it was opened.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.domain.tables import SQL_TYPES, TABLES, Table
from flux_pipelines.lake.delta import DeltaLake, Draft, Where, translate_delta_error
from flux_pipelines.lake.parquet import Part

if TYPE_CHECKING:
    import duckdb

#: A lake's instances of DuckDB, by process and settings: making one takes 40 times as long as a session of it. They end
#: with the lake; what a session makes ends with the session.
_instances: WeakKeyDictionary[DeltaLake, dict[tuple[Any, ...], duckdb.DuckDBPyConnection]] = WeakKeyDictionary()
_mutex = threading.Lock()

_NEXT_STEP = "`flux sql 'show all tables'` lists the tables, `flux sql 'describe TABLE'` the columns of one."


def session(
    lake: DeltaLake,
    tables: Iterable[str] | None = None,
    *,
    where: Where | None = None,
    memory_limit: str = "1GB",
    threads: int = 2,
    draft: Draft | None = None,
    without: Mapping[str, Collection[Part]] | None = None,
) -> Session:
    """Open SQL over the lake.

    Args:
        lake: where the tables are.
        tables: which ones, by either of their names; default: every table there is, and the core tables that have not
            been made yet, as views without rows.
        where: only these partitions of every table. DuckDB then opens local files itself, which takes a tenth of the
            time and memory of going through Arrow, and tables have their names with `_` alone; people's sessions go
            through Arrow, where nothing but the lake can be reached.
        memory_limit: most memory DuckDB may use, as it writes it, for all such sessions at once; beyond that it uses
            temporary files.
        threads: most threads it may use.
        draft: rows that are shown in place of what their table has for their partitions; only with `where`.
        without: partitions that are left out, by the table's name in the lake; None in one stands for every value.

    Raises:
        TableDamagedError: one of the tables cannot be opened.
        ConfigurationError: a table that no contract describes and that does not exist.

    """
    return Session(lake, tables, where, memory_limit, threads, draft, without or {})


class Session:
    """An open session. In a `with` block it is the DuckDB connection; `execute` is the door for people's own SQL."""

    def __init__(
        self,
        lake: DeltaLake,
        tables: Iterable[str] | None,
        where: Where | None,
        memory_limit: str,
        threads: int,
        draft: Draft | None,
        without: Mapping[str, Collection[Part]],
    ) -> None:
        self._lake = lake
        self._tables: list[str] = []
        self._where = where
        self._draft = draft
        self._without = without
        self._connection = (
            _connect(lake, memory_limit, threads)
            if where is None
            else _shared(lake, memory_limit, threads, drafts=draft is not None)
        )
        try:
            for name in _all(lake) if tables is None else dict.fromkeys(map(_lake_name, tables)):
                self._add(lake, name)
            if where is None:
                _lock(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
        self._explain(error)

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        """Run one statement that only reads.

        Raises:
            ConfigurationError: the SQL is wrong, or would do something other than read.
            TableDamagedError: a data file of a table is missing or damaged.

        """
        import duckdb

        try:
            statements = self._connection.extract_statements(query)
            reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
            if len(statements) != 1 or statements[0].type not in reading:
                raise ConfigurationError(
                    "only one statement that reads can be run on the lake (SELECT, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN)",
                    next_step=_NEXT_STEP,
                )
            return self._connection.execute(statements[0], list(parameters))
        except duckdb.Error as error:
            self._explain(error)
            raise ConfigurationError(f"the lake could not answer: {error}", next_step=_NEXT_STEP) from error

    def close(self) -> None:
        """Release the tables."""
        self._connection.close()

    def _explain(self, error: BaseException | None) -> None:
        """Raise an error of ours if DuckDB's is about a data file of a table."""
        import duckdb

        if isinstance(error, duckdb.FatalException | duckdb.InternalException):
            with _mutex:  # an instance that has met an error of its own answers nothing any more
                _instances.pop(self._lake, None)
        if isinstance(error, duckdb.Error):
            for name in self._tables:
                if f"tables/{name}/" in str(error):
                    raise translate_delta_error(name, error) from error

    def _add(self, lake: DeltaLake, name: str) -> None:
        schema, _, table = name.rpartition("/")
        view = f"{schema}_{table}" if schema else table
        draft = self._draft if self._draft is not None and self._draft.table.name == name else None
        without = {*self._without.get(name, ()), *(draft.partitions if draft is not None else ())}
        files = None if self._where is None else lake.local_files(_contract(name), self._where, without)
        dataset = lake.dataset(_known(name) or name, where=self._where, without=without) if files is None else None
        staged = [(str(file.path), file.partition) for file in draft.files] if draft is not None else []
        if dataset is not None:
            self._tables.append(name)
            self._connection.register(f"{view}__committed" if staged else view, dataset)
            if staged:
                drafted = _from_files(_contract(name), staged)
                self._connection.execute(
                    f'CREATE TEMP VIEW "{view}" AS FROM "{view}__committed" UNION ALL BY NAME {drafted}'
                )
        elif staged or (files is not None and files.files):
            self._tables.append(name)
            every, alike = ([*files.files, *staged], files.alike) if files is not None else (staged, True)
            self._connection.execute(f'CREATE TEMP VIEW "{view}" AS {_from_files(_contract(name), every, alike)}')
        else:
            self._connection.register(view, _contract(name).arrow_schema().empty_table())
        if schema and self._where is None:
            self._connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            self._connection.execute(f'CREATE VIEW "{schema}"."{table}" AS SELECT * FROM "{view}"')


def _connect(lake: DeltaLake, memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": str(threads),
            "temp_directory": str(lake.scratch()),
            "python_enable_replacements": "false",
            "enable_external_file_cache": "false",
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def _lock(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on no file, network address or extension can be reached, and this cannot be taken back."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _shared(lake: DeltaLake, memory_limit: str, threads: int, *, drafts: bool) -> duckdb.DuckDBPyConnection:
    """Return a connection of its own to the lake's instance, which reads the lake's files, and drafts if asked for."""
    key = (os.getpid(), memory_limit, threads, drafts)
    with _mutex:
        instances = _instances.setdefault(lake, {})
        if key not in instances:
            instance = _connect(lake, memory_limit, threads)
            folders = [lake.uri(""), *([f"{lake.staging}/"] if drafts else [])]
            instance.execute(f"SET allowed_directories = [{', '.join(map(_literal, folders))}]")
            _lock(instance)
            instances[key] = instance
        return instances[key].cursor()


def _from_files(table: Table, files: Sequence[tuple[str, tuple[str, ...]]], alike: bool = True) -> str:
    """Return the query that reads data files; the values of partition columns are those that the log gives.

    Unless they are `alike`, what a file lacks of the contract's columns is NULL, and what it has besides is left out.
    """
    paths = ", ".join(_literal(path) for path, _ in files)
    parts = ", ".join(f"({', '.join(map(_literal, (path, *values)))})" for path, values in files)
    columns = ", ".join(
        f"p.{column.name}::{SQL_TYPES[column.type]} AS {column.name}"
        if column.name in table.partition_by
        else f"f.{column.name}"
        for column in table
    )
    names = ", ".join(("filename", *table.partition_by))
    options = "filename = true, hive_partitioning = false"
    if not alike:
        # Not always: it takes DuckDB twice as long (a year's 365 files), and for a condition on one date four times.
        fields = ", ".join(
            f"{_literal(column.name)}: {{name: {_literal(column.name)}, type: '{SQL_TYPES[column.type]}', default_value: NULL}}"
            for column in table
            if column.name not in table.partition_by
        )
        options += f", schema = MAP {{{fields}}}"
    return (
        f"SELECT {columns} FROM read_parquet([{paths}], {options}) AS f "
        f"JOIN (VALUES {parts}) AS p({names}) ON f.filename = p.filename"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _all(lake: DeltaLake) -> list[str]:
    return sorted({*lake.tables(), *(table.name for table in TABLES)})


def _known(name: str) -> Table | None:
    base = name.rpartition("/")[2]
    return next((table.named(name) for table in TABLES if table.name == base), None)


def _contract(name: str) -> Table:
    table = _known(name)
    if table is not None:
        return table
    raise ConfigurationError(f"there is no table {name!r} in the lake", next_step=_NEXT_STEP)


def _lake_name(name: str) -> str:
    """Return a table's name in the lake: `square/transactions` of `square.transactions` or `square_transactions`."""
    if "." in name:
        return name.replace(".", "/")
    if "/" in name or any(table.name == name for table in TABLES):
        return name
    for table in TABLES:
        provider = name.removesuffix(f"_{table.name}")
        if provider != name:
            return f"{provider}/{table.name}"
    return name
