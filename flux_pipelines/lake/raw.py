"""Raw records: one compressed NDJSON file a partition (connection, business date), each record exactly as received.

    raw/<provider>/orders/<connection name>/<YYYY-MM-DD>/orders-<checksum>.ndjson.zst
    raw/<provider>/orders/<connection name>/<YYYY-MM-DD>/manifest.json
    raw/<provider>/orders/<connection name>/<YYYY-MM-DD>/made-<table>.json

Other streams lie beside the orders, under their own names. A stream of hourly snapshots has a folder for each hour (UTC)
inside that of the day, `<YYYY-MM-DD>/<HH>/`; one of what there is now has the one folder `current/`.

The manifest is the commit: it is written last, in one step, and names the file. Whatever it does not name is not
there. So a partition is always wholly the old one or wholly the new one, and a partition without a manifest has never
been fetched, which is not the same as a day without records (a manifest with `orders` 0 and no file). In the same way
`made-<table>.json` tells a table that has no rows of a partition from one that has not been made of it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.lake.raw_manifest import (
    CURRENT,
    OLDER,
    ORDERS,
    REFETCH,
    FetchedWindow,
    RawManifest,
    Verification,
    decode,
    folder_of,
    hour_of,
    hour_slot,
)
from flux_pipelines.lake.raw_write import (
    PartitionChangedError,
    PartitionEmptiedError,
    RawWriter,
    Segment,
    delete_strays,
    lost_kinds,
    ndjson,
)
from flux_pipelines.lake.store import file_sha256

if TYPE_CHECKING:
    from flux_pipelines.lake.store import ObjectStore

__all__ = [
    "CURRENT",
    "OLDER",
    "ORDERS",
    "FetchedWindow",
    "Made",
    "PartitionChangedError",
    "PartitionEmptiedError",
    "RawManifest",
    "RawStore",
    "RawWriter",
    "Segment",
    "Survey",
    "Verification",
    "hour_of",
    "hour_slot",
    "lost_kinds",
    "ndjson",
]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a partition: a table has been made of what was fetched at that instant, of so many rows."""

    fetched_at: datetime
    rows: int


class Survey(NamedTuple):
    """Some partitions of a connection: those that can be read, in order, and by date or slot why the others cannot."""

    readable: list[RawManifest]
    damaged: dict[str, TableDamagedError]

    @property
    def days(self) -> set[date]:
        """The business dates that have been fetched, whether they can be read or not."""
        return {manifest.business_date for manifest in self.readable} | self.damaged_days

    @property
    def damaged_days(self) -> set[date]:
        """The business dates that cannot be read, or not wholly."""
        return {_parse(day) for slot in self.damaged if _is_day(day := slot.partition("/")[0])}


class RawStore:
    """The raw records of one stream in a lake. A connection's key (`square:acme`) says both provider and folder.

    Args:
        store: where the lake is.
        stream: which stream; orders unless another is named.

    """

    def __init__(self, store: ObjectStore, stream: str = ORDERS) -> None:
        self._store = store
        self.stream = stream

    def of(self, stream: str) -> RawStore:
        """Return the records of another stream of the same lake."""
        return RawStore(self._store, stream)

    def streams(self, provider: str) -> list[str]:
        """Return the streams of a provider that have been written to, orders among them."""
        return self._store.folders(f"raw/{provider}")

    def writer(self, connection: str, day: date, slot: str = "") -> RawWriter:
        """Return a writer that replaces the partition (connection, business date), or a slot of it.

        Args:
            connection: the connection's key.
            day: the business date.
            slot: `CURRENT`, or that of an hour (`hour_slot`); empty for daily streams.

        """
        return RawWriter(self._store, connection, day, stream=self.stream, slot=slot)

    def read_manifest(self, connection: str, day: date, slot: str = "") -> RawManifest | None:
        """Return a partition's manifest, or None when it has never been fetched.

        Raises:
            TableDamagedError: there is a manifest, but it cannot be read.

        """
        return self._manifest(connection, slot or day.isoformat())

    def stored_under(self, token: str, connection: str, day: date) -> RawManifest | None:
        """Return the manifest of a partition that a sync has stored already, whole; None when it has yet to be fetched.

        Args:
            token: the sync's name; nothing is stored under an empty one.
            connection: the connection's key.
            day: the business date.

        """
        if not token:
            return None
        try:
            manifest = self.read_manifest(connection, day)
        except TableDamagedError:  # it is fetched anew
            return None
        # So is one whose file is gone: resuming the sync that stored it is how people try to mend it.
        same = manifest is not None and manifest.sync_token == token and self.is_whole(manifest)
        return manifest if same else None

    def current(self, connection: str) -> RawManifest | None:
        """Return the manifest of a stream of what there is now, or None when it has never been fetched.

        Raises:
            TableDamagedError: there is a manifest, but it cannot be read.

        """
        return self._manifest(connection, CURRENT)

    def hours(self, connection: str, day: date, *, files: bool = False) -> Survey:
        """Return a day's hourly snapshots, in order: none when there is none; `files` as in `survey`."""
        name = day.isoformat()
        hours = self._store.folders(folder_of(self.stream, connection, name))
        return self.look(connection, [f"{name}/{hour}" for hour in hours], files=files)

    def everything(self, connection: str) -> Survey:
        """Return every partition of a connection: days, hours and what there is now."""
        provider, name = split_key(connection)
        found = self.look(connection, self._store.folders(f"raw/{provider}/{self.stream}/{name}"))
        there = found.days
        for day in self.days(connection):
            if day not in there:  # a folder of hours, each with a manifest of its own
                hours = self.hours(connection, day)
                found.readable.extend(hours.readable)
                found.damaged.update(hours.damaged)
        return found

    def survey(self, connection: str, first_day: date, last_day: date, *, files: bool = False) -> Survey:
        """Return the partitions that exist from first to last day, both included.

        Args:
            connection: the connection's key.
            first_day: the first business date.
            last_day: the last one.
            files: whether to look at the files of records as well: a partition whose file is gone is damaged.

        """
        days = [day.isoformat() for day in self.days(connection) if first_day <= day <= last_day]
        return self.look(connection, days, files=files)

    def manifests(self, connection: str, first_day: date, last_day: date) -> dict[date, RawManifest]:
        """Return the manifests that can be read from first to last day, both included; `survey` tells of the others too."""
        return {found.business_date: found for found in self.survey(connection, first_day, last_day).readable}

    def is_whole(self, manifest: RawManifest) -> bool:
        """Tell whether the file that a manifest names is there, undamaged."""
        slot = manifest.slot or manifest.business_date.isoformat()
        key = f"{folder_of(manifest.stream, manifest.connection, slot)}/{manifest.file}"
        return not manifest.file or self._store.holds(key, manifest.compressed_bytes, manifest.sha256)

    def look(self, connection: str, slots: Sequence[str], *, files: bool = False) -> Survey:
        """Return those of some partitions that exist, by their dates or slots; `files` as in `survey`."""

        def found_at(slot: str) -> RawManifest | TableDamagedError | None:
            try:
                manifest = self._manifest(connection, slot)
                if not files or manifest is None or self.is_whole(manifest):
                    return manifest
                now = self._manifest(connection, slot)
            except TableDamagedError as error:
                return error
            # A partition that is replaced meanwhile takes its old file with it.
            return _broken(manifest, "are gone or damaged") if now == manifest else now

        if self._store.grace_seconds == 0:
            found = [found_at(slot) for slot in slots]
        else:  # S3: each is a round trip
            with ThreadPoolExecutor(16, thread_name_prefix="manifests") as pool:
                found = list(pool.map(found_at, slots))
        return Survey(
            [one for one in found if isinstance(one, RawManifest)],
            {slot: one for slot, one in zip(slots, found, strict=True) if isinstance(one, TableDamagedError)},
        )

    def _manifest(self, connection: str, folder: str) -> RawManifest | None:
        try:
            data = self._store.get(f"{folder_of(self.stream, connection, folder)}/manifest.json")
        except OSError as error:  # permissions, a broken link, a disk that fails
            raise TableDamagedError(
                f"the manifest of the raw {self.stream} of {folder} cannot be read: {error.strerror}",
                connection=connection,
                next_step=REFETCH,
            ) from error
        return None if data is None else decode(data, self.stream, connection, folder)

    def days(self, connection: str) -> list[date]:
        """Return the business dates of a connection that have been written to, in order."""
        provider, name = split_key(connection)
        return [_parse(day) for day in self._store.folders(f"raw/{provider}/{self.stream}/{name}") if _is_day(day)]

    def landed(self, connection: str, days: Iterable[date]) -> set[date]:
        """Return which of some business dates have been fetched, whether they can be read or not."""
        return {
            day
            for day in days
            if self._store.exists(f"{folder_of(self.stream, connection, day.isoformat())}/manifest.json")
        }

    def connections(self) -> list[str]:
        """Return the keys of all connections that have ever landed something of this stream; removed ones are among them."""
        return [
            f"{provider}:{name}"
            for provider in self._store.folders("raw")
            for name in self._store.folders(f"raw/{provider}/{self.stream}")
        ]

    def set_made(self, manifest: RawManifest, table: str, rows: int) -> None:
        """Write down that a table has been made of a partition by day as it was fetched then, and of how many rows."""
        folder = folder_of(self.stream, manifest.connection, manifest.business_date.isoformat())
        data = msgspec.json.encode(Made(fetched_at=manifest.fetched_at, rows=rows))
        self._store.put_atomic(f"{folder}/{_made(table)}", data)

    def unmake(self, connection: str, table: str) -> None:
        """Forget of which partitions by day a table has been made: it is to be made of all of them again."""
        for day in self.days(connection):
            self._store.delete(f"{folder_of(self.stream, connection, day.isoformat())}/{_made(table)}")

    def made(self, connection: str, days: Sequence[date], table: str) -> dict[date, Made]:
        """Return of which partitions by day a table has been made; one whose record cannot be read is not among them."""

        def read(day: date) -> Made | None:
            data = self._store.get(f"{folder_of(self.stream, connection, day.isoformat())}/{_made(table)}")
            try:
                return None if data is None else msgspec.json.decode(data, type=Made)
            except msgspec.DecodeError:
                return None

        with ThreadPoolExecutor(16 if self._store.grace_seconds else 1, thread_name_prefix="made") as pool:
            found = dict(zip(days, pool.map(read, days), strict=True))
        return {day: made for day, made in found.items() if made is not None}

    @contextmanager
    def writing(self, connection: str) -> Iterator[None]:
        """Keep others out who do the same for the connection: for partitions that are read and then replaced."""
        provider, name = split_key(connection)
        with self._store.lock(f"raw/{provider}/{self.stream}/{name}"):
            yield

    def delete(self, connection: str, day: date) -> None:
        """Delete a partition, its manifest first: from then on it has never been fetched."""
        folder = folder_of(self.stream, connection, day.isoformat())
        with self._store.lock(folder):
            self._store.delete(f"{folder}/manifest.json")
            for item in list(self._store.objects(f"{folder}/")):
                self._store.delete(item.key)

    def sweep(self, manifest: RawManifest) -> None:
        """Delete files beside a partition's own that no manifest names, as killed writers leave them."""
        slot = manifest.slot or manifest.business_date.isoformat()
        folder = folder_of(self.stream, manifest.connection, slot)
        with self._store.lock(folder):
            present = self._manifest(manifest.connection, slot)
            if present is not None:
                delete_strays(self._store, f"{folder}/{self.stream}-", present.file, "")

    @contextmanager
    def local_file(self, manifest: RawManifest) -> Iterator[Path | None]:
        """Give the partition's file as a local path for the length of a `with` block; None when it has no orders.

        Raises:
            TableDamagedError: the file is missing or its checksum is not the manifest's; or the partition has been
                replaced since the manifest was read (a rerun helps then).

        """
        if not manifest.file:
            yield None
            return
        connection, day = manifest.connection, manifest.business_date
        slot = manifest.slot or day.isoformat()
        with self._store.open_local(f"{folder_of(manifest.stream, connection, slot)}/{manifest.file}") as path:
            if path is None:
                now = self.of(manifest.stream)._manifest(connection, slot)
                if now is not None and now.file != manifest.file:
                    raise TableDamagedError(
                        f"the raw {manifest.stream} of {day} were replaced while they were being read",
                        connection=connection,
                        rerun_helps=True,
                        next_step="Run the partition again.",
                    )
                raise _broken(manifest, f"are gone: {manifest.file} is missing")
            try:
                same = path.stat().st_size == manifest.compressed_bytes and file_sha256(path) == manifest.sha256
            except OSError as error:
                raise _broken(manifest, f"cannot be read: {error.strerror}") from error
            if not same:
                raise _broken(manifest, f"are damaged: {manifest.file} does not match its checksum")
            yield path


def _made(table: str) -> str:
    return f"made-{table}.json"


def _broken(manifest: RawManifest, what: str) -> TableDamagedError:
    return TableDamagedError(
        f"the raw {manifest.stream} of {manifest.slot or manifest.business_date} {what}",
        connection=manifest.connection,
        next_step=REFETCH,
    )


def _is_day(name: str) -> bool:
    try:
        _parse(name)
    except ValueError:
        return False
    return True


def _parse(name: str) -> date:
    return date.fromisoformat(name)
