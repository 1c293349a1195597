"""Writes a partition of raw records: compressed segments by several threads, then one manifest that commits them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec

from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.lake.raw_manifest import (
    ORDERS,
    FetchedWindow,
    RawManifest,
    Verification,
    decode,
    encode,
    folder_of,
    is_stored,
)
from flux_pipelines.lake.store import disk_trouble_is_an_error_of_ours

if TYPE_CHECKING:
    from flux_pipelines.lake.store import ObjectStore

_CHUNK = 1 << 20
_LINE_BREAK = ord("\n")
_LEVEL = 1  # measured: 312 MB of orders to 18.6 MB in 0.6 s; level 3 takes twice as long for a tenth less


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Segment:
    """A part of a partition that one thread writes: a zstd frame of its own in a temporary file of its own.

    Nothing is held here but what the compressor holds (half a MiB). The bytes of the frame depend on the orders alone,
    not on how they were grouped into calls: zstd fills its own blocks.
    """

    def __init__(self, path: Path, window: int) -> None:
        import zstandard

        self.window = window
        self.orders = 0
        self.bytes = 0
        self.compressed_bytes = 0
        self.path = path
        self._file: BinaryIO | None = None
        self._frame: _Compressor | None = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
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
        self.write_lines(ndjson(batch), len(batch))

    def write_lines(self, lines: bytes, orders: int) -> None:
        """Append orders that stand on a line each, as `ndjson` writes them; how many they are is taken on trust.

        Raises:
            StorageFullError: no space left for temporary files.

        """
        if not lines:
            return
        assert self._frame is not None, "written to after it was committed or discarded"  # noqa: S101
        self.orders += orders
        self.bytes += len(lines)
        self._emit(self._frame.compress(lines))

    def discard(self) -> None:
        """Forget the segment and delete its file: for a window that has to start over."""
        self._frame = None
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)

    def _emit(self, data: bytes) -> None:
        if not data:
            return
        with disk_trouble_is_an_error_of_ours(str(self.path)):
            if self._file is None:
                self._file = self.path.open("wb")
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
            self._emit(self._frame.flush())
        self._frame = None
        if self._file is not None:
            with disk_trouble_is_an_error_of_ours(str(self.path)):
                self._file.close()
            self._file = None


def ndjson(records: Sequence[bytes | bytearray | memoryview | msgspec.Raw]) -> bytes:
    """Return JSON records as received, each on a line of its own. Line breaks between tokens become spaces."""
    import numpy as np

    lines = b"\n".join([*records, b""])
    breaks = np.count_nonzero(np.frombuffer(lines, np.uint8) == _LINE_BREAK)  # bytes.count takes four times as long
    # JSON strings cannot hold a bare line break, so every one that is not ours stands between two tokens.
    if breaks != len(records) or b"\r" in lines:
        return b"".join(bytes(one).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n" for one in records)
    return lines


class PartitionChangedError(Exception):
    """The partition is no longer the one that was to be replaced."""


class PartitionEmptiedError(Exception):
    """A partition that holds records was to be replaced by one without any, or without any of some kind. It stays.

    Args:
        kept: its manifest, which says so now; None when it cannot be read, while a file of records lies beside it.
        lost: how many records of each kind would be gone.

    """

    def __init__(self, kept: RawManifest | None, lost: Mapping[str, int]) -> None:
        super().__init__("records are stored where nothing was found")
        self.kept = kept
        self.lost = lost


def lost_kinds(
    kept: RawManifest, orders: int, states: Mapping[str, int], passing: Collection[str] = ()
) -> dict[str, int]:
    """Return how many stored records of each kind have no successor at all; of orders, kinds are one.

    Args:
        kept: what is stored.
        orders: how many records there are now.
        states: of which kinds.
        passing: kinds of records that come and go.

    """
    if kept.stream == ORDERS or not kept.states:
        return {kept.stream: kept.orders} if kept.orders and not orders else {}
    return {
        kind: count for kind, count in kept.states.items() if count and not states.get(kind) and kind not in passing
    }


class RawWriter:
    """Replaces one partition: write segments (from several threads if need be), then commit or abort.

    A context manager: leaving the block without a commit aborts.
    """

    def __init__(self, store: ObjectStore, connection: str, day: date, *, stream: str = ORDERS, slot: str = "") -> None:
        self._store = store
        self._connection = connection
        self._day = day
        self._stream = stream
        self._slot = slot
        self.folder_of = folder_of(stream, connection, slot or day.isoformat())
        self._segments: list[Segment] = []

    def __enter__(self) -> RawWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()

    def segment(self, window: int = 0) -> Segment:
        """Return a new segment. Threads may hold one each and write at the same time.

        Segments of one `window` that follow one another become one frame: where threads cut it between them is a matter of
        time, and must not show in the file.
        """
        segment = Segment(self._store.staging.new_file(), window)
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
        windows: Sequence[FetchedWindow] = (),
        locations: Sequence[str] = (),
        api_version: str = "",
        requests: int = 0,
        retries: int = 0,
        waited_seconds: float = 0.0,
        sync_token: str = "",
        verification: Verification | None = None,
        redacted: bool = False,
        replacing: RawManifest | None = None,
        accept_empty: bool = False,
        passing: Collection[str] = (),
    ) -> RawManifest:
        """Make these segments, in this order, the partition's content. Segments left out are thrown away.

        The same orders give the same file, however threads divided a window; when that file is already there only the
        manifest is replaced. No orders at all is a valid commit where none were stored: there is no file then. Where there
        are some, it takes `accept_empty`, and so it does when all records of one kind are gone, unless it is a `passing`
        kind. With `replacing`, nothing is done unless that is what the partition is.

        Raises:
            StorageFullError: no space left; the partition is what it was before.
            PartitionChangedError: it is not `replacing` any more.
            PartitionEmptiedError: records are stored and none were found now; they stay, and the manifest says so.

        """
        try:
            path, digest, compressed = self._assemble(segments)
            file = f"{self._stream}-{digest[:16]}.ndjson.zst" if compressed else ""
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
                stream=self._stream,
                slot=self._slot,
                redacted=redacted,
            )
            with self._store.lock(self.folder_of):
                previous = self._previous()
                if replacing is not None and not is_stored(previous, replacing):
                    raise PartitionChangedError(self.folder_of)
                if not accept_empty:
                    self._keep_what_is_there(previous, manifest, passing)
                # Looked at, not believed from the manifest: a rerun must be able to repair a damaged file.
                if path is not None and not self._store.holds(f"{self.folder_of}/{file}", compressed, digest):
                    self._store.put_atomic(f"{self.folder_of}/{file}", path)
                self._store.put_atomic(f"{self.folder_of}/manifest.json", encode(manifest))
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
        written = [segment for segment in segments if segment.compressed_bytes]
        filled = [self._joined(list(of_window)) for _, of_window in groupby(written, lambda one: one.window)]
        if not filled:
            return None, hashlib.sha256().hexdigest(), 0
        first, *rest = filled
        digest = first._digest
        with disk_trouble_is_an_error_of_ours(self.folder_of), first.path.open("ab") as whole:
            for segment in rest:
                with segment.path.open("rb") as part:
                    while chunk := part.read(_CHUNK):
                        digest.update(chunk)
                        whole.write(chunk)
                segment.path.unlink()
        return first.path, digest.hexdigest(), sum(segment.compressed_bytes for segment in filled)

    def _joined(self, segments: Sequence[Segment]) -> Segment:
        """Return one frame of what several threads have written."""
        import zstandard

        if len(segments) == 1:
            return segments[0]
        joined = self.segment(segments[0].window)
        for segment in segments:
            with disk_trouble_is_an_error_of_ours(self.folder_of), segment.path.open("rb") as file:
                orders = segment.orders
                for lines in zstandard.ZstdDecompressor().read_to_iter(file, write_size=_CHUNK):
                    joined.write_lines(lines, orders)
                    orders = 0
            segment.discard()
        joined.finish()
        return joined

    def _previous(self) -> bytes | None:
        """Return the manifest that is there, read or not: one that the system does not let us read is replaced as well."""
        try:
            return self._store.get(f"{self.folder_of}/manifest.json")
        except OSError:
            return b""

    def _keep_what_is_there(self, previous: bytes | None, new: RawManifest, passing: Collection[str]) -> None:
        """Raise if stored records have no successor: a day of sales does not become one without any. The manifest tells."""
        if previous is None or new.quarantined:
            return
        try:
            kept = decode(previous, self._stream, self._connection, self._slot or self._day.isoformat())
        except TableDamagedError:
            # A partition without records has no file. Nobody can tell what this one says, but it says something.
            if not new.orders and any(self._store.objects(f"{self.folder_of}/{self._stream}-")):
                raise PartitionEmptiedError(None, {}) from None
            return
        lost = lost_kinds(kept, new.orders, new.states, passing)
        if not lost:
            return
        kinds = ", ".join(f"{count} {kind}" for kind, count in lost.items())
        proof = Verification(
            method=kept.verification.method,
            expected=sum(lost.values()),
            detail=f"the provider said on {new.fetched_at:%Y-%m-%d} at {new.fetched_at:%H:%M} UTC that there are none, where "
            f"there had been {kinds}; what was stored before is kept",
            emptied_at=new.fetched_at,
        )
        # Under no sync's token: whoever comes next asks again.
        told = msgspec.structs.replace(kept, verification=proof, sync_token="")
        self._store.put_atomic(f"{self.folder_of}/manifest.json", encode(told))
        raise PartitionEmptiedError(told, lost)

    def _delete_superseded(self, previous: bytes | None, file: str) -> None:
        """Delete the file that the previous manifest named, and what killed writers have left beside it."""
        replaced = ""
        if previous is not None:
            try:
                replaced = msgspec.json.decode(previous, type=RawManifest).file
            except msgspec.DecodeError:  # a damaged manifest names nothing; its file goes with the strays
                replaced = ""
        delete_strays(self._store, f"{self.folder_of}/{self._stream}-", file, replaced)


def delete_strays(store: ObjectStore, prefix: str, file: str, replaced: str) -> None:
    """Delete a partition's files but its own: the one that was replaced at once, others when nobody can be at them."""
    old = datetime.now(UTC) - timedelta(seconds=store.grace_seconds)
    for item in store.objects(prefix):
        name = item.key.rpartition("/")[2]
        if name != file and (name == replaced or store.grace_seconds == 0 or item.modified < old):
            store.delete(item.key)
