"""Delta tables: a partition is replaced whole, in one commit, or not at all.

A table called `square/transactions` lives at `tables/square/transactions` under the lake's root. Data files are
written here, with pyarrow, and `deltalake` commits them: its own writer shuffles the rows of a stream and keeps more
of it in memory (docs/adr/0010 has the measurements).

Every commit is made against exactly the version that was read (`max_commit_retries=0`): when another process was
faster, the table is read again and the commit, which costs milliseconds because its files are already in place, is
tried anew. So two writers of one partition can never both add to it, and writers of different partitions lose nothing.

A table that cannot be opened is an error that names it. It is never created anew in its place.
"""

from __future__ import annotations

import errno
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_pipelines.domain.errors import (
    ConfigurationError,
    FluxError,
    StorageFullError,
    StorageRefusedError,
    StorageUnavailableError,
    TableDamagedError,
    TableOutdatedError,
)
from flux_pipelines.domain.tables import TABLES, Table
from flux_pipelines.lake.evolution import fit, unfit
from flux_pipelines.lake.parquet import Among, Part, PartitionFiles, StagedFile
from flux_pipelines.lake.store import LocalStore, ObjectStore, elsewhere, make_folder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable, Field

Value = str | date
#: A condition on partition columns: a value, or several of which any will do.
Where = Mapping[str, Value | Sequence[Value]]

_CHECKPOINT_EVERY = 20
_MAX_ATTEMPTS = 200
_KEEP_HOURS = 7 * 24

_CONFIGURATION: dict[str, str | None] = {
    "delta.checkpointInterval": str(_CHECKPOINT_EVERY),
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
    "delta.enableChangeDataFeed": "false",
    # Files are found by their partition; statistics of forty columns a file made opening a year's table take 0.5 s.
    "delta.dataSkippingNumIndexedCols": "0",
}


@dataclass(frozen=True, slots=True)
class Commit:
    """What `replace` did: the table's version afterwards, the rows in the replaced partitions, the files written.

    `files` is 0 when the partitions already held exactly these rows; the version is then the one that was there. `changed`
    are the partitions whose rows are others than before.
    """

    version: int
    rows: int
    files: int
    changed: frozenset[tuple[str, ...]] = frozenset()


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What `maintain` did to a table: its version and how many files that nothing needs any more it deleted."""

    table: str
    version: int
    files_deleted: int


class LocalFiles(NamedTuple):
    """Data files for readers that open Parquet files themselves: each one's path, and its partition's values.

    Where they are not `alike`, some file may lack columns of the contract, or have others.
    """

    files: list[tuple[str, tuple[str, ...]]]
    alike: bool


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int
    rows: int
    partition: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The checksum that `PartitionFiles` put into the name."""
        return self.path.rpartition("/")[2].partition("-")[0]


@dataclass
class Draft:
    """Rows that are staged and in no table yet (`DeltaLake.draft`).

    Args:
        table: the contract.
        partitions: the partitions whose whole content they are to be. Where one does not say every value, all that have
            those it says are meant.
        files: a file for each of them that has rows.

    """

    table: Table
    partitions: set[Part]
    files: list[StagedFile]
    _commit: Callable[[Draft, int | None], Commit]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(file.rows for file in self.files)

    def leave(self, partitions: Collection[Part]) -> None:
        """Leave partitions as they are in the table; they must be named as they were when the rows were staged."""
        self.partitions = self.partitions.difference(partitions)
        wanted = Among(self.partitions)
        self.files = [file for file in self.files if file.partition in wanted]

    def commit(self, *, if_version: int | None = None) -> Commit:
        """Make the rows the content of the partitions, in one commit; see `DeltaLake.replace`."""
        return self._commit(self, if_version)


class VersionChangedError(Exception):
    """The table is no longer at the version that `replace` was asked to build on."""


class DeltaLake:
    """The tables of a lake. Safe to use from threads and from several processes at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._elsewhere = elsewhere()
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def staging(self) -> Path:
        """The folder of this process where drafts are kept."""
        return self._store.staging.folder

    @property
    def root(self) -> str:
        """The lake's root: a folder or an s3:// URL."""
        return self._store.root

    def scratch(self) -> Path:
        """Return a new path for temporary files of this process; they are deleted when it ends, however it ends."""
        try:
            return self._store.staging.new_file()
        except StorageRefusedError:  # a lake that may only be read can be asked questions all the same
            return self._elsewhere.new_file()

    def prove_writable(self) -> None:
        """Write and delete an object in each part of the lake, which nobody reads.

        Raises:
            StorageRefusedError, StorageFullError: it cannot be written.
            ConfigurationError, StorageUnavailableError: S3 refuses it, or cannot be reached.

        """
        for folder in ("", "raw/", "tables/"):
            key = f"{folder}.flux-doctor-{uuid.uuid4().hex}"
            self._store.put_atomic(key, b"")
            self._store.delete(key)

    def uri(self, table: str) -> str:
        """Return where a table lives."""
        return f"{self._store.root}/{_folder(table)}"

    def tables(self) -> list[str]:
        """Return the names of the tables that exist, a provider's own as `provider/name`."""
        found = []
        for name in self._store.folders("tables"):
            inside = self._store.folders(f"tables/{name}")
            if "_delta_log" in inside:
                found.append(name)
                continue
            found += [f"{name}/{i}" for i in inside if "_delta_log" in self._store.folders(f"tables/{name}/{i}")]
        return found

    def exists(self, table: str) -> bool:
        """Tell whether a table has been made.

        Raises:
            TableDamagedError: there is something in its place that cannot be opened.

        """
        return self._open(table) is not None

    def version(self, table: str) -> int | None:
        """Return a table's version, or None when it has not been made yet."""
        opened = self._open(table)
        return None if opened is None else opened.version()

    def outdated(self) -> list[Table]:
        """Return the contracts of the tables that an earlier version of Flux made, and that cannot be read by them any more.

        Raises:
            TableDamagedError: a table cannot be opened at all.

        """
        contracts = {table.name: table for table in TABLES}
        found = []
        for name in self.tables():
            base = contracts.get(name.rpartition("/")[2])
            opened = None if base is None else self._open(name)
            if base is not None and opened is not None:
                try:
                    fit(base.named(name), opened)
                except TableOutdatedError:
                    found.append(base.named(name))
        return found

    def set_aside(self, table: str, folder: str) -> None:
        """Move a table to a folder where nobody looks for it, and where `read_elsewhere` finds it."""
        with self._errors(table):
            self._store.move(_folder(table), folder)

    def read_elsewhere(self, folder: str) -> pa.Table | None:
        """Return the rows of a table that was set aside, with the columns that it had; None if there is none."""
        import pyarrow as pa
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self._errors(folder):
            try:
                opened = DeltaTable(f"{self._store.root}/{folder}", storage_options=self._store.delta_options())
            except TableNotFoundError:
                return None
            schema = pa.schema(opened.schema().to_arrow())
            return _dataset(opened, schema, self._filesystem_of(folder, opened), _files(opened)).to_table()

    def history(self, table: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Return a table's commits, newest first; empty when it has not been made yet."""
        opened = self._open(table)
        return [] if opened is None else list(opened.history(limit))

    def rows_by_partition(self, table: str, where: Where | None = None) -> dict[tuple[str, ...], int]:
        """Return how many rows each partition has, from the log alone. Keys are in the order of `partition_by`."""
        opened = self._open(table)
        counts: dict[tuple[str, ...], int] = {}
        if opened is not None:
            for file in _matching(_files(opened), opened, where):
                counts[file.partition] = counts.get(file.partition, 0) + file.rows
        return counts

    def replace(
        self,
        table: Table,
        rows: pa.Table | pa.RecordBatchReader,
        partitions: Iterable[Mapping[str, Value]],
        *,
        if_version: int | None = None,
    ) -> Commit:
        """Make these rows the whole content of these partitions, in one commit; other partitions are not touched.

        The rows may be streamed: memory stays flat. Within a partition they keep their order. A partition that gets
        no rows is empty afterwards. Partitions that hold exactly these rows already are left as they are.

        Args:
            table: the contract. Columns are matched by name and must fit its types without loss.
            rows: rows of these partitions only.
            partitions: each one's value of every column in `table.partition_by`; of a provider's own part that is stored by
                raw date and business date, connection and raw date alone: whatever business dates there are.
            if_version: commit only if the table is at this version now.

        Raises:
            ContractBrokenError: rows that do not fit the contract, or belong to another partition.
            TableDamagedError: the table cannot be opened, or does not fit the contract; it is left as it is.
            StorageFullError: no space left; the table is what it was before.
            VersionChangedError: the table is not at `if_version`.

        """
        with self.draft(table, rows, partitions) as draft:
            return draft.commit(if_version=if_version)

    @contextmanager
    def draft(
        self, table: Table, rows: pa.Table | pa.RecordBatchReader, partitions: Iterable[Mapping[str, Value]]
    ) -> Iterator[Draft]:
        """Stage the rows that are to be the whole content of these partitions, for a `with` block: `replace` in two steps.

        Nobody sees them before `Draft.commit`, but a session that is given the draft. What is not committed when the
        block ends is gone. Arguments and errors are those of `replace`.
        """
        wanted = {_partition(table, values) for values in partitions}
        with PartitionFiles(table, wanted, self._store.staging) as staged:
            with self._errors(table.name):
                staged.write(rows)
                files = staged.files()
            yield Draft(table, wanted, files, self._commit_draft)

    def _commit_draft(self, draft: Draft, if_version: int | None) -> Commit:
        # Threads of one process need not find out about each other by conflict.
        with self._errors(draft.table.name), self._turns[draft.table.name]:
            return self._commit(draft.table, draft.partitions, draft.files, if_version)

    def dataset(
        self,
        table: Table | str,
        *,
        where: Where | None = None,
        version: int | None = None,
        without: Collection[Part] = (),
    ) -> ds.FileSystemDataset | None:
        """Return a table (as of a version) as an Arrow dataset that prunes by partition; None if not made yet.

        A table that is given by its contract has the contract's columns, whatever version of Flux made its files; one that is
        given by its name has its own. Fragments are in order of partition; partitions `without` are left out.
        `DeltaTable.to_pyarrow_dataset` is not used: it takes 2.4 ms a file, which is 0.9 s for a year of one connection.

        Raises:
            TableDamagedError: the table cannot be opened, or does not fit the contract.
            ConfigurationError: there is no such version.

        """
        import pyarrow as pa

        name = table if isinstance(table, str) else table.name
        with self._errors(name):
            opened = self._open(name, version)
            if opened is None:
                return None
            if isinstance(table, str):
                schema = pa.schema(opened.schema().to_arrow())
            else:
                fit(table, opened)
                schema = table.arrow_schema()
            but = Among(without)
            files = [file for file in _matching(_files(opened), opened, where) if file.partition not in but]
            return _dataset(opened, schema, self._filesystem(name, opened), files)

    def local_files(self, table: Table, where: Where, without: Collection[Part] = ()) -> LocalFiles | None:
        """Return the data files of some partitions; None if they are not local, or the table has not been made yet.

        Partitions `without` are left out.

        Raises:
            TableDamagedError: the table cannot be opened, or does not fit the contract.

        """
        if not isinstance(self._store, LocalStore):
            return None
        with self._errors(table.name):
            opened = self._open(table.name)
            if opened is None:
                return None
            alike = fit(table, opened).alike
            folder = f"{self._store.root}/{_folder(table.name)}"
            found = sorted(_matching(_files(opened), opened, where), key=lambda file: (file.partition, file.path))
            but = Among(without)
            files = [(f"{folder}/{file.path}", file.partition) for file in found if file.partition not in but]
            return LocalFiles(files, alike)

    def read(
        self,
        table: Table,
        *,
        where: Where | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
        without: Collection[Part] = (),
    ) -> pa.RecordBatchReader:
        """Stream a table's rows in order of partition; a table that has not been made yet has none.

        Partitions `without` are left out.

        Raises:
            TableDamagedError: the table cannot be opened or does not fit the contract, or (while reading) one of its files is
                missing or damaged.
            ConfigurationError: there is no such version.

        """
        import pyarrow as pa

        schema = table.arrow_schema()
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        dataset = self.dataset(table, where=where, version=version, without=without)
        batches = iter(()) if dataset is None else self._scan(table, dataset, schema)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def maintain(self, table: str, *, keep_hours: int = _KEEP_HOURS) -> Maintenance:
        """Write a checkpoint, drop expired log entries and delete data files that no version of the last days needs.

        Readers and writers may be at work: what is younger than `keep_hours` is left alone.
        """
        with self._errors(table):
            opened = self._open(table)
            if opened is None:
                raise ConfigurationError(f"there is no table {table!r} in the lake")
            opened.create_checkpoint()
            opened.cleanup_metadata()
            deleted = opened.vacuum(
                keep_hours, dry_run=False, full=True, enforce_retention_duration=keep_hours >= _KEEP_HOURS
            )
            return Maintenance(table, opened.version(), len(deleted))

    def forget_history(self, table: str) -> int:
        """Delete every data file that the present version does not need, at once; return how many. For erasing.

        Earlier versions cannot be read any more. Files that no version ever named, as a killed writer leaves them, are
        deleted when they are an hour old: a younger one may be about to be committed.
        """
        with self._errors(table):
            opened = self._open(table)
            if opened is None:
                return 0
            gone = opened.vacuum(0, dry_run=False, full=False, enforce_retention_duration=False)
            return len(gone) + len(opened.vacuum(1, dry_run=False, full=True, enforce_retention_duration=False))

    def _commit(self, table: Table, wanted: set[Part], staged: list[StagedFile], if_version: int | None) -> Commit:
        from deltalake.exceptions import CommitFailedError

        rows = sum(file.rows for file in staged)
        names: dict[StagedFile, str] = {}
        for attempt in range(_MAX_ATTEMPTS):
            opened = self._open(table.name) or self._create(table)
            if if_version is not None and opened.version() != if_version:
                raise VersionChangedError(table.name)
            gained = fit(table, opened).gained
            among = Among(wanted)
            active = [file for file in _files(opened) if file.partition in among]
            removed, added = self._difference(table.name, active, staged, names)
            if not removed and not added:
                return Commit(opened.version(), rows, len(names))
            self._put(table.name, added, names)
            try:
                if gained:
                    opened = self._bring_up_to_date(table, opened, gained)
                version = self._write_log(table, opened, removed, added, names)
            except CommitFailedError as error:  # another process committed first
                if _is_refused(error):
                    raise
                time.sleep(random.uniform(0, min(0.01 * 1.3**attempt, 0.5)))  # noqa: S311
                continue
            self._after_commit(table.name, version)
            return Commit(
                version,
                rows,
                len(names),
                frozenset([*(old.partition for old in removed), *(new.partition for new in added)]),
            )
        raise FluxError(
            f"the table {table.name!r} is being written by so many others that {_MAX_ATTEMPTS} attempts failed",
            rerun_helps=True,
            next_step="Run the failed partitions again with fewer processes.",
        )

    def _difference(
        self, table: str, active: list[_File], staged: list[StagedFile], names: Mapping[StagedFile, str]
    ) -> tuple[list[_File], list[StagedFile]]:
        """Tell which files to remove and to add, leaving out partitions whose content is the same and sound."""
        before: dict[tuple[str, ...], list[_File]] = {}
        for file in active:
            before.setdefault(file.partition, []).append(file)
        removed, added = list(active), []
        for new in staged:
            old = before.get(new.partition, [])
            ours = len(old) == 1 and old[0].path == names.get(new)
            if ours or (len(old) == 1 and old[0].digest == new.digest and self._is_sound(table, old[0], new)):
                removed.remove(old[0])
            else:
                added.append(new)
        return removed, added

    def _is_sound(self, table: str, old: _File, new: StagedFile) -> bool:
        """A rerun must be able to repair a damaged file, so `the same` is not believed from the name alone."""
        return self._store.holds(f"{_folder(table)}/{old.path}", new.size, new.sha256)

    def _put(self, table: str, added: list[StagedFile], names: dict[StagedFile, str]) -> None:
        fresh = [file for file in added if file not in names]

        def put(file: StagedFile) -> str:
            name = file.unique_name()
            self._store.put_atomic(f"{_folder(table)}/{name}", file.path)
            return name

        if len(fresh) == 1:
            names[fresh[0]] = put(fresh[0])
        elif fresh:
            with ThreadPoolExecutor(8, thread_name_prefix="tables") as pool:
                names.update(zip(fresh, pool.map(put, fresh), strict=True))

    def _write_log(
        self,
        table: Table,
        opened: DeltaTable,
        removed: list[_File],
        added: list[StagedFile],
        names: Mapping[StagedFile, str],
    ) -> int:
        import msgspec
        from deltalake.transaction import AddAction, RemoveAction

        now = int(time.time() * 1000)

        def values(partition: tuple[str, ...]) -> dict[str, str | None]:
            return dict(zip(table.partition_by, partition, strict=True))

        actions: list[AddAction | RemoveAction] = [
            RemoveAction(file.path, True, now, file.size, values(file.partition)) for file in removed
        ]
        for new in added:
            statistics = msgspec.json.encode({"numRecords": new.rows}).decode()
            actions.append(AddAction(names[new], new.size, values(new.partition), now, True, statistics))
        base = opened.version()
        opened.create_write_transaction(
            actions,
            "append",
            table.arrow_schema(),
            list(table.partition_by),
            **_on_this_version(),
        )
        return base + 1

    def _bring_up_to_date(self, table: Table, opened: DeltaTable, gained: list[Field]) -> DeltaTable:
        """Merge fields into a table's own schema, in a commit before that of the rows; return the table as it then is."""
        version = opened.version() + 1
        opened.alter.add_columns(gained, **_on_this_version())
        self._after_commit(table.name, version)
        # Exactly that version: what others commit meanwhile has not been looked at.
        changed = self._open(table.name, version)
        if changed is None:
            raise _damaged(table.name, "it is gone right after its schema was changed")
        return changed

    def _after_commit(self, table: str, version: int) -> None:
        """See that the commit is on the disk, and write a checkpoint now and then."""
        from deltalake.exceptions import DeltaError

        self._store.flush(f"{_folder(table)}/_delta_log/{version:020}.json")
        if version and version % _CHECKPOINT_EVERY == 0:
            try:
                opened = self._open(table, version)
                if opened is not None:
                    opened.create_checkpoint()
            except (DeltaError, OSError):
                # The commit stands without it; the table only opens a little slower until the next one.
                return

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        def look() -> DeltaTable | None:
            try:
                return DeltaTable(self.uri(table), version=version, storage_options=self._store.delta_options())
            except TableNotFoundError:
                return None

        try:
            opened = look()
            if opened is None:
                if self._is_nothing_there(table):
                    return None
                opened = look()  # what is there another process may have made since
            if opened is None:
                raise _damaged(table, "it has files but no log")
            self._refuse_truncated(table, opened.version())
        except (DeltaError, OSError, ValueError) as error:
            if version is not None and (now := self.version(table)) is not None and not 0 <= version <= now:
                raise ConfigurationError(
                    f"the table {table!r} has no version {version}", next_step=f"The newest is {now}."
                ) from error
            self._is_nothing_there(table)  # S3 out of reach, or access refused, says so itself
            raise translate_delta_error(table, error) from error
        return opened

    def _refuse_truncated(self, table: str, version: int) -> None:
        # deltalake takes an empty log entry, as a power cut can leave it, for a commit that did nothing.
        if isinstance(self._store, LocalStore):
            log = self._store.path(f"{_folder(table)}/_delta_log/{version:020}.json")
            if log.is_file() and log.stat().st_size == 0:
                raise _damaged(table, f"the log entry of version {version} is empty")

    def _is_nothing_there(self, table: str) -> bool:
        """Tell whether the table's place is empty but for what a creation that was cut short leaves."""
        for item in self._store.objects(f"{_folder(table)}/"):
            name = item.key.rpartition("/")[2]
            if name.endswith((".parquet", ".json", ".crc")) or name == "_last_checkpoint":
                return False
        return True

    def _create(self, table: Table) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        if isinstance(self._store, LocalStore):
            make_folder(self._store.path(_folder(table.name)))
        try:
            DeltaTable.create(
                self.uri(table.name),
                table.arrow_schema(),
                mode="error",
                partition_by=list(table.partition_by),
                name=table.name,
                description=table.description,
                configuration=_CONFIGURATION,
                storage_options=self._store.delta_options(),
            )
            self._store.flush(f"{_folder(table.name)}/_delta_log/{0:020}.json")
        except DeltaError:
            opened = self._open(table.name)  # another process made it at the same moment
            if opened is None:
                raise
            return opened
        opened = self._open(table.name)
        if opened is None:
            raise _damaged(table.name, "it is gone right after it was made")
        return opened

    def _filesystem(self, table: str, opened: DeltaTable) -> Any:
        return self._filesystem_of(_folder(table), opened)

    def _filesystem_of(self, folder: str, opened: DeltaTable) -> Any:
        import pyarrow.fs as fs

        if isinstance(self._store, LocalStore):
            return fs.SubTreeFileSystem(str(self._store.path(folder)), fs.LocalFileSystem())
        from deltalake.fs import DeltaStorageHandler

        return fs.PyFileSystem(DeltaStorageHandler.from_table(opened._table, self._store.delta_options()))

    def _scan(self, table: Table, dataset: ds.FileSystemDataset, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with self._errors(table.name):
            for batch in dataset.to_batches(columns=schema.names, batch_readahead=2, fragment_readahead=2):
                for field in schema:
                    if not field.nullable and batch.column(field.name).null_count:
                        raise unfit(table, f"its column {field.name!r}, which is required, is empty in some rows")
                if batch.num_rows:
                    yield batch.cast(schema)

    @contextmanager
    def _errors(self, table: str) -> Iterator[None]:
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            yield
        except FluxError:
            raise
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            raise translate_delta_error(table, error) from error


def translate_delta_error(table: str, error: BaseException) -> FluxError:
    """Return the error of ours that an error of deltalake, pyarrow or the file system amounts to."""
    text = str(error)
    if "os error 28" in text or "Errno 28" in text or "No space left" in text:
        return StorageFullError(f"no space left while writing the table {table!r}")
    if _is_refused(error):
        return StorageRefusedError(f"reading or writing the table {table!r} is refused: {_brief(error)}")
    if "Generic S3 error" in text:
        return StorageUnavailableError(f"S3 could not be used for the table {table!r}: {_brief(error)}")
    return _damaged(table, _brief(error))


def _is_refused(error: BaseException) -> bool:
    """Tell whether the file system does not let us: error 1 (not permitted), 13 (permission denied) or 30 (read-only)."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return True
    return any(f"{kind} {number}" in text for kind in ("os error", "Errno") for number in ("13", "30", "1)", "1]"))


def _damaged(table: str, detail: str) -> TableDamagedError:
    return TableDamagedError(
        f"the table {table!r} cannot be read: {detail}",
        next_step=(
            f"Restore `{_folder(table)}` from a backup; or move that folder away and run the asset's partitions again "
            "to build it anew from the raw orders."
        ),
    )


def _brief(error: BaseException) -> str:
    """The first line of an error, without the backtrace that deltalake appends."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _folder(table: str) -> str:
    return f"tables/{table}"


def _on_this_version() -> dict[str, Any]:
    """Return the properties of a commit that fails unless it is the next one after the version that is open."""
    from deltalake import CommitProperties, PostCommitHookProperties

    return {
        "commit_properties": CommitProperties(max_commit_retries=0),
        # Done in `_after_commit`: in the hook, a failed checkpoint would make a commit that is in place look failed.
        "post_commithook_properties": PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
    }


def _text(value: Value) -> str:
    return value.isoformat() if isinstance(value, date) else value


def _partition(table: Table, values: Mapping[str, Value]) -> Part:
    open_ended = table.partition_by == table.landed_by and set(values) == set(table.unit)
    if set(values) != set(table.partition_by) and not open_ended:
        raise ValueError(f"a partition of {table.name} has the columns {table.partition_by}, not {tuple(values)}")
    return tuple(_text(values[column]) if column in values else None for column in table.partition_by)


def _files(opened: DeltaTable) -> list[_File]:
    import pyarrow as pa

    columns = opened.metadata().partition_columns
    actions = pa.RecordBatchReader.from_stream(opened.get_add_actions(flatten=True)).read_all()
    partitions = [actions[f"partition.{column}"].cast(pa.string()).to_pylist() for column in columns]
    facts = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return [
        _File(path, size, rows or 0, tuple(partition))
        for path, size, rows, *partition in zip(*facts, *partitions, strict=True)
    ]


def _matching(files: list[_File], opened: DeltaTable, where: Where | None) -> list[_File]:
    columns = opened.metadata().partition_columns
    for column, values in (where or {}).items():
        if column not in columns:
            raise ValueError(f"{column} is not a partition column; those are {columns}")
        allowed = {_text(values)} if isinstance(values, str | date) else {_text(value) for value in values}
        position = columns.index(column)
        files = [file for file in files if file.partition[position] in allowed]
    return files


def _dataset(opened: DeltaTable, schema: pa.Schema, filesystem: Any, files: list[_File]) -> ds.FileSystemDataset:
    import pyarrow as pa
    import pyarrow.dataset as ds

    columns = opened.metadata().partition_columns
    kind = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))

    def expression(partition: tuple[str, ...]) -> ds.Expression:
        parts = [
            ds.field(name) == pa.scalar(value).cast(schema.field(name).type)
            for name, value in zip(columns, partition, strict=True)
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole & part
        return whole

    fragments = [
        kind.make_fragment(file.path, filesystem=filesystem, partition_expression=expression(file.partition))
        for file in sorted(files, key=lambda file: (file.partition, file.path))
    ]
    return ds.FileSystemDataset(fragments, schema, kind, filesystem)
