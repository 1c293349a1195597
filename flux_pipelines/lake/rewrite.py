"""Writes records of a partition anew where they lie: the same records, times and figures, other bytes. For erasing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.lake.raw import PartitionChangedError

if TYPE_CHECKING:
    from flux_pipelines.lake.raw import RawManifest, RawStore

#: Given some records, returns those that shall stand in their places; unchanged ones as the same objects.
Change = Callable[[Sequence[bytes], "RawManifest"], Sequence[bytes]]

_BLOCK = 4 << 20
_MOST_ATTEMPTS = 10


def rewrite(raw: RawStore, manifest: RawManifest, change: Change) -> int:
    """Replace records of a partition, in one step; return how many were changed. The file that held them is deleted.

    A partition that a sync replaces meanwhile is looked at again. One in which nothing changes is only read.

    Args:
        raw: the records of the manifest's stream.
        manifest: the partition.
        change: what to do; it may be called more than once with the same records.

    Raises:
        TableDamagedError: the partition's file is missing or damaged.

    """
    present: RawManifest | None = manifest
    for _ in range(_MOST_ATTEMPTS):
        if present is None or not present.file:
            return 0
        try:
            return _attempt(raw, present, change)
        except (PartitionChangedError, TableDamagedError) as error:
            now = raw.read_manifest(present.connection, present.business_date, present.slot)
            if isinstance(error, TableDamagedError) and now == present:
                raise
            present = now
    raise TableDamagedError(
        f"the raw {raw.stream} of {manifest.business_date} were replaced again and again while they were being rewritten",
        connection=manifest.connection,
        rerun_helps=True,
        next_step="Run it again when no sync of the partition is under way.",
    )


def _attempt(raw: RawStore, manifest: RawManifest, change: Change) -> int:
    with raw.local_file(manifest) as path:
        if path is None or not any(_changed(block, change(block, manifest)) for block in _blocks(path)):
            return 0
        count = 0
        with raw.writer(manifest.connection, manifest.business_date, manifest.slot) as writer:
            segment = writer.segment()
            for block in _blocks(path):
                new = change(block, manifest)
                count += _changed(block, new)
                segment.write_many(new)
            writer.commit(
                [segment],
                fetched_at=manifest.fetched_at,
                quarantined=manifest.quarantined,
                totals=manifest.totals,
                states=manifest.states,
                windows=manifest.windows,
                locations=manifest.locations,
                api_version=manifest.api_version,
                requests=manifest.requests,
                retries=manifest.retries,
                waited_seconds=manifest.waited_seconds,
                sync_token=manifest.sync_token,
                verification=manifest.verification,
                redacted=manifest.redacted,
                replacing=manifest,
            )
    return count


def _changed(before: Sequence[bytes], after: Sequence[bytes]) -> int:
    return sum(old is not new and old != new for old, new in zip(before, after, strict=True))


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a raw file, some megabytes at a time."""
    import zstandard

    rest = b""
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        while data := stream.read(_BLOCK):
            whole, line_break, rest = (rest + data).rpartition(b"\n")
            if line_break:
                yield whole.split(b"\n")
    if rest:
        yield [rest]
