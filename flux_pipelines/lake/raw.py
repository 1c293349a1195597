"""Raw records: one compressed NDJSON file a partition (connection, business date), each record exactly as received.

    raw/<provider>/orders/<connection name>/<YYYY-MM-DD>/orders-<checksum>.ndjson.zst
    raw/<provider>/orders/<connection name>/<YYYY-MM-DD>/manifest.json

Other feeds lie beside the orders, under their own names. A feed of hourly snapshots has a folder for each hour (UTC)
inside that of the day, `<YYYY-MM-DD>/<HH>/`; one of what there is now has the one folder `current/`.

The manifest is the commit: it is written last, in one step, and names the file. Whatever it does not name is not
there. So a partition is always wholly the old one or wholly the new one, and a partition without a manifest has never
been fetched, which is not the same as a day without records (a manifest with `orders` 0 and no file).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

import msgspec

from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.lake.store import file_sha256, full_disk_is_an_error_of_ours

if TYPE_CHECKING:
    from flux_pipelines.lake.store import ObjectStore

_CHUNK = 1 << 20
_LINE_BREAK = ord("\n")
_LEVEL = 1  # measured: 312 MB of orders to 18.6 MB in 0.6 s; level 3 takes twice as long for a tenth less

#: The feed of orders, and the folder of a feed of what there is now.
ORDERS = "orders"
CURRENT = "current"

_REFETCH = "Run the partition's raw asset again to fetch it anew."


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A question that was asked: these locations, this half-open interval of UTC instants, by this time field."""

    basis: str
    start: datetime
    end: datetime
    locations: tuple[str, ...] = ()


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a second, independent query said about the partition.

    `expected` is what the first query found, `confirmed` what the second one did; `short` means that the partition
    lacks `confirmed - expected` orders or that totals differ (`detail` says which).
    """

    status: Literal["verified", "unverifiable", "short"] = "unverifiable"
    method: str = ""
    expected: int = 0
    confirmed: int = 0
    detail: str = ""


class RawManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition of raw records holds and how it was obtained. Amounts are integer minor units by currency.

    `orders` is the number of records, whatever they are, and `states` how many there are of each state of an order, or
    of each kind of record. `slot` is the folder under the connection's; empty where that is the business date.
    `redacted` tells that personal data was taken out before anything was stored.
    """

    connection: str
    business_date: date
    file: str
    orders: int
    quarantined: int = 0
    totals: dict[str, int] = {}
    states: dict[str, int] = {}
    bytes: int
    compressed_bytes: int
    sha256: str
    windows: tuple[Window, ...] = ()
    locations: tuple[str, ...] = ()
    fetched_at: datetime
    api_version: str = ""
    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0
    sync_token: str = ""
    verification: Verification = Verification()
    feed: str = ORDERS
    slot: str = ""
    redacted: bool = False
    format: Literal[1] = 1

    @property
    def hour(self) -> datetime | None:
        """The hour (UTC) of a snapshot; None for a partition that is none."""
        _, slash, hour = self.slot.partition("/")
        return datetime(*self.business_date.timetuple()[:3], int(hour), tzinfo=UTC) if slash else None


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Segment:
    """A part of a partition that one thread writes: a zstd frame of its own in a temporary file of its own.

    Memory stays at about a chunk (1 MiB), whatever is written. The bytes of the frame depend on the orders alone, not
    on how they were grouped into calls.
    """

    def __init__(self, path: Path) -> None:
        import zstandard

        self.orders = 0
        self.bytes = 0
        self.compressed_bytes = 0
        self._path = path
        self._file: BinaryIO | None = None
        self._frame: _Compressor | None = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._pending = bytearray()
        self._digest = hashlib.sha256()

    def write(self, order: bytes | bytearray | memoryview | msgspec.Raw) -> None:
        """Append one order, a JSON object as received. Line breaks between its tokens become spaces."""
        self.write_many((order,))

    def write_many(self, orders: Iterable[bytes | bytearray | memoryview | msgspec.Raw]) -> None:
        """Append many orders at once, which is faster than one by one.

        Raises:
            StorageFullError: no space left for temporary files.

        """
        batch = list(orders)
        if not batch:
            return
        import numpy as np

        lines = b"\n".join(batch)
        breaks = np.count_nonzero(np.frombuffer(lines, np.uint8) == _LINE_BREAK)  # bytes.count takes four times as long
        # JSON strings cannot hold a bare line break, so every one that is not ours stands between two tokens.
        if breaks != len(batch) - 1 or b"\r" in lines:
            lines = b"\n".join(bytes(order).replace(b"\r", b" ").replace(b"\n", b" ") for order in batch)
        self.orders += len(batch)
        self.bytes += len(lines) + 1
        self._pending += lines
        self._pending += b"\n"
        if len(self._pending) >= _CHUNK:
            self._compress_chunks()

    def discard(self) -> None:
        """Forget the segment and delete its file: for a window that has to start over."""
        self._frame = None
        self._pending.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)

    def _compress_chunks(self) -> None:
        assert self._frame is not None, "written to after it was committed or discarded"  # noqa: S101
        whole = len(self._pending) - len(self._pending) % _CHUNK
        with memoryview(self._pending) as view:
            for start in range(0, whole, _CHUNK):
                self._emit(self._frame.compress(bytes(view[start : start + _CHUNK])))
        del self._pending[:whole]

    def _emit(self, data: bytes) -> None:
        if not data:
            return
        with full_disk_is_an_error_of_ours(str(self._path)):
            if self._file is None:
                self._file = self._path.open("wb")
            self._file.write(data)
        self._digest.update(data)
        self.compressed_bytes += len(data)

    def finish(self) -> None:
        """Write out what is held in memory; nothing can be added afterwards. Committing does it too.

        Raises:
            StorageFullError: no space left for temporary files.

        """
        if self._frame is None:
            return
        if self.orders:
            self._compress_chunks()
            self._emit(self._frame.compress(bytes(self._pending)))
            self._emit(self._frame.flush())
        self._frame = None
        self._pending.clear()
        if self._file is not None:
            with full_disk_is_an_error_of_ours(str(self._path)):
                self._file.close()
            self._file = None


class PartitionChangedError(Exception):
    """The partition is no longer the one that was to be replaced."""


class RawWriter:
    """Replaces one partition: write segments (from several threads if need be), then commit or abort.

    A context manager: leaving the block without a commit aborts.
    """

    def __init__(self, store: ObjectStore, connection: str, day: date, *, feed: str = ORDERS, slot: str = "") -> None:
        self._store = store
        self._connection = connection
        self._day = day
        self._feed = feed
        self._slot = slot
        self._folder = _folder(feed, connection, slot or day.isoformat())
        self._segments: list[Segment] = []

    def __enter__(self) -> RawWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()

    def segment(self) -> Segment:
        """Return a new segment. Threads may hold one each and write at the same time."""
        segment = Segment(self._store.staging.new_file())
        self._segments.append(segment)
        return segment

    def commit(
        self,
        segments: Sequence[Segment],
        *,
        fetched_at: datetime,
        quarantined: int = 0,
        totals: Mapping[str, int] | None = None,
        states: Mapping[str, int] | None = None,
        windows: Sequence[Window] = (),
        locations: Sequence[str] = (),
        api_version: str = "",
        requests: int = 0,
        retries: int = 0,
        waited_seconds: float = 0.0,
        sync_token: str = "",
        verification: Verification | None = None,
        redacted: bool = False,
        replacing: RawManifest | None = None,
    ) -> RawManifest:
        """Make these segments, in this order, the partition's content. Segments left out are thrown away.

        The same orders in the same segments give the same file; when that file is already there only the manifest is
        replaced. No orders at all is a valid commit: there is no file then. With `replacing`, nothing is done unless
        that is what the partition is.

        Raises:
            StorageFullError: no space left; the partition is what it was before.
            PartitionChangedError: it is not `replacing` any more.

        """
        try:
            path, digest, compressed = self._assemble(segments)
            file = f"{self._feed}-{digest[:16]}.ndjson.zst" if compressed else ""
            manifest = RawManifest(
                connection=self._connection,
                business_date=self._day,
                file=file,
                orders=sum(segment.orders for segment in segments),
                quarantined=quarantined,
                totals=dict(sorted((totals or {}).items())),
                states=dict(sorted((states or {}).items())),
                bytes=sum(segment.bytes for segment in segments),
                compressed_bytes=compressed,
                sha256=digest,
                windows=tuple(windows),
                locations=tuple(locations),
                fetched_at=fetched_at.astimezone(UTC),
                api_version=api_version,
                requests=requests,
                retries=retries,
                waited_seconds=waited_seconds,
                sync_token=sync_token,
                verification=verification or Verification(),
                feed=self._feed,
                slot=self._slot,
                redacted=redacted,
            )
            with self._store.lock(self._folder):
                previous = self._store.get(f"{self._folder}/manifest.json")
                if replacing is not None and not _is(previous, replacing):
                    raise PartitionChangedError(self._folder)
                # Looked at, not believed from the manifest: a rerun must be able to repair a damaged file.
                if path is not None and not self._store.holds(f"{self._folder}/{file}", compressed, digest):
                    self._store.put_atomic(f"{self._folder}/{file}", path)
                self._store.put_atomic(f"{self._folder}/manifest.json", _encode(manifest))
                self._delete_superseded(previous, file)
        finally:
            self.abort()
        self._store.staging.sweep()
        return manifest

    def abort(self) -> None:
        """Delete every temporary file of this writer; the partition stays what it is."""
        for segment in self._segments:
            segment.discard()
        self._segments.clear()

    def _assemble(self, segments: Sequence[Segment]) -> tuple[Path | None, str, int]:
        """Append the later segments to the file of the first one: zstd frames may follow one another."""
        for segment in segments:
            segment.finish()
        filled = [segment for segment in segments if segment.compressed_bytes]
        if not filled:
            return None, hashlib.sha256().hexdigest(), 0
        first, *rest = filled
        digest = first._digest
        with full_disk_is_an_error_of_ours(self._folder), first._path.open("ab") as whole:
            for segment in rest:
                with segment._path.open("rb") as part:
                    while chunk := part.read(_CHUNK):
                        digest.update(chunk)
                        whole.write(chunk)
                segment._path.unlink()
        return first._path, digest.hexdigest(), sum(segment.compressed_bytes for segment in filled)

    def _delete_superseded(self, previous: bytes | None, file: str) -> None:
        """Delete the file that the previous manifest named, and what killed writers have left beside it."""
        replaced = ""
        if previous is not None:
            try:
                replaced = msgspec.json.decode(previous, type=RawManifest).file
            except msgspec.DecodeError:  # a damaged manifest names nothing; its file goes with the strays
                replaced = ""
        _delete_strays(self._store, f"{self._folder}/{self._feed}-", file, replaced)


class RawStore:
    """The raw records of one feed in a lake. A connection's key (`square:acme`) says both provider and folder.

    Args:
        store: where the lake is.
        feed: which feed; orders unless another is named.

    """

    def __init__(self, store: ObjectStore, feed: str = ORDERS) -> None:
        self._store = store
        self.feed = feed

    def of(self, feed: str) -> RawStore:
        """Return the records of another feed of the same lake."""
        return RawStore(self._store, feed)

    def feeds(self, provider: str) -> list[str]:
        """Return the feeds of a provider that have been written to, orders among them."""
        return self._store.folders(f"raw/{provider}")

    def writer(self, connection: str, day: date, slot: str = "") -> RawWriter:
        """Return a writer that replaces the partition (connection, business date), or a slot of it.

        Args:
            connection: the connection's key.
            day: the business date.
            slot: `CURRENT`, or that of an hour (`hour_slot`); empty for feeds by business date.

        """
        return RawWriter(self._store, connection, day, feed=self.feed, slot=slot)

    def read_manifest(self, connection: str, day: date, slot: str = "") -> RawManifest | None:
        """Return a partition's manifest, or None when it has never been fetched.

        Raises:
            TableDamagedError: there is a manifest, but it cannot be read.

        """
        return self._manifest(connection, slot or day.isoformat())

    def current(self, connection: str) -> RawManifest | None:
        """Return the manifest of a feed of what there is now, or None when it has never been fetched.

        Raises:
            TableDamagedError: there is a manifest, but it cannot be read.

        """
        return self._manifest(connection, CURRENT)

    def hours(self, connection: str, day: date) -> list[RawManifest]:
        """Return the manifests of a day's hourly snapshots, in order; empty when there is none.

        Raises:
            TableDamagedError: one of them cannot be read.

        """
        name = day.isoformat()
        found = [
            self._manifest(connection, f"{name}/{hour}")
            for hour in self._store.folders(_folder(self.feed, connection, name))
        ]
        return [manifest for manifest in found if manifest is not None]

    def everything(self, connection: str) -> Iterator[RawManifest]:
        """Yield the manifest of every partition of a connection: days, hours and what there is now.

        Raises:
            TableDamagedError: one of them cannot be read.

        """
        provider, name = split_key(connection)
        for folder in self._store.folders(f"raw/{provider}/{self.feed}/{name}"):
            whole = self._manifest(connection, folder)
            if whole is not None:
                yield whole
            elif _is_day(folder):
                yield from self.hours(connection, _parse(folder))

    def _manifest(self, connection: str, folder: str) -> RawManifest | None:
        data = self._store.get(f"{_folder(self.feed, connection, folder)}/manifest.json")
        return None if data is None else _decode(data, self.feed, connection, folder)

    def manifests(self, connection: str, first_day: date, last_day: date) -> dict[date, RawManifest]:
        """Return the manifests of the partitions that exist from first to last day, both included, in order.

        Raises:
            TableDamagedError: one of them cannot be read.

        """
        days = [day for day in self.days(connection) if first_day <= day <= last_day]
        if self._store.grace_seconds == 0:
            found = [self.read_manifest(connection, day) for day in days]
        else:  # S3: each is a round trip
            with ThreadPoolExecutor(16, thread_name_prefix="manifests") as pool:
                found = list(pool.map(lambda day: self.read_manifest(connection, day), days))
        return {manifest.business_date: manifest for manifest in found if manifest is not None}

    def days(self, connection: str) -> list[date]:
        """Return the business dates of a connection that have been written to, in order."""
        provider, name = split_key(connection)
        return [_parse(day) for day in self._store.folders(f"raw/{provider}/{self.feed}/{name}") if _is_day(day)]

    def partitions(self, provider: str) -> Iterator[tuple[str, date]]:
        """Yield the connection and business date of every partition of a provider, in order."""
        for name in self._store.folders(f"raw/{provider}/{self.feed}"):
            connection = f"{provider}:{name}"
            for day in self.days(connection):
                if self._store.exists(f"{_folder(self.feed, connection, day.isoformat())}/manifest.json"):
                    yield connection, day

    def sweep(self, manifest: RawManifest) -> None:
        """Delete files beside a partition's own that no manifest names, as killed writers leave them."""
        slot = manifest.slot or manifest.business_date.isoformat()
        folder = _folder(self.feed, manifest.connection, slot)
        with self._store.lock(folder):
            present = self._manifest(manifest.connection, slot)
            if present is not None:
                _delete_strays(self._store, f"{folder}/{self.feed}-", present.file, "")

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
        what, slot = f"the raw {manifest.feed} of {day}", manifest.slot or day.isoformat()
        with self._store.open_local(f"{_folder(manifest.feed, connection, slot)}/{manifest.file}") as path:
            if path is None:
                now = self.of(manifest.feed)._manifest(connection, slot)
                if now is not None and now.file != manifest.file:
                    raise TableDamagedError(
                        f"{what} were replaced while they were being read",
                        connection=connection,
                        rerun_helps=True,
                        next_step="Run the partition again.",
                    )
                raise TableDamagedError(
                    f"{what} are gone: {manifest.file} is missing",
                    connection=connection,
                    next_step=_REFETCH,
                )
            if path.stat().st_size != manifest.compressed_bytes or file_sha256(path) != manifest.sha256:
                raise TableDamagedError(
                    f"{what} are damaged: {manifest.file} does not match its checksum",
                    connection=connection,
                    next_step=_REFETCH,
                )
            yield path


def hour_slot(instant: datetime) -> str:
    """Return the slot of an instant's hourly snapshot: `2026-03-10/14`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d/%H")


def _folder(feed: str, connection: str, folder: str) -> str:
    provider, name = split_key(connection)
    return f"raw/{provider}/{feed}/{name}/{folder}"


def _is_day(name: str) -> bool:
    try:
        _parse(name)
    except ValueError:
        return False
    return True


def _parse(name: str) -> date:
    return date.fromisoformat(name)


def _delete_strays(store: ObjectStore, prefix: str, file: str, replaced: str) -> None:
    """Delete a partition's files but its own: the one that was replaced at once, others when nobody can be at them."""
    old = datetime.now(UTC) - timedelta(seconds=store.grace_seconds)
    for item in store.objects(prefix):
        name = item.key.rpartition("/")[2]
        if name != file and (name == replaced or store.grace_seconds == 0 or item.modified < old):
            store.delete(item.key)


def _is(stored: bytes | None, manifest: RawManifest) -> bool:
    """Tell whether a stored manifest is this one; an older Flux may have written it with fewer fields."""
    try:
        return stored is not None and msgspec.json.decode(stored, type=RawManifest) == manifest
    except msgspec.DecodeError:
        return False


def _encode(manifest: RawManifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _decode(data: bytes, feed: str, connection: str, folder: str) -> RawManifest:
    try:
        manifest = msgspec.json.decode(data, type=RawManifest)
    except msgspec.DecodeError as error:
        raise TableDamagedError(
            f"the manifest of the raw {feed} of {folder} cannot be read", connection=connection, next_step=_REFETCH
        ) from error
    here = manifest.slot or manifest.business_date.isoformat()
    if (manifest.feed, manifest.connection, here) != (feed, connection, folder):
        raise TableDamagedError(
            f"the manifest of the raw {feed} of {folder} is that of {manifest.feed} of {manifest.connection} on {here}",
            connection=connection,
            next_step=_REFETCH,
        )
    return manifest
