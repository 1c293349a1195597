"""Records are replaced where they lie, on both kinds of storage: in one step, and their old bytes are gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import QUARANTINE
from flux_pipelines.lake import (
    CURRENT,
    DeltaLake,
    ObjectStore,
    Quarantine,
    RawManifest,
    RawStore,
    Verification,
    hour_slot,
    rewrite,
)
from flux_pipelines.sync.records import BadRecord

KEY = "square:acme"
DAY = date(2026, 3, 2)
AT = datetime(2026, 3, 3, 4, tzinfo=UTC)


def land(raw: RawStore, lines: Sequence[bytes], slot: str = "") -> RawManifest:
    with raw.writer(KEY, DAY, slot) as writer:
        first, second = writer.segment(0), writer.segment(1)
        first.write_many(lines[:1])
        second.write_many(lines[1:])
        verified = Verification(status="verified", expected=len(lines), confirmed=len(lines))
        return writer.commit(
            [first, second], fetched_at=AT, totals={"USD": 5}, sync_token="t", verification=verified, redacted=True
        )


def lines_of(raw: RawStore, manifest: RawManifest) -> list[bytes]:
    seen: list[bytes] = []

    def look(lines: Sequence[bytes], _: RawManifest) -> Sequence[bytes]:
        seen.extend(lines)
        return lines

    assert rewrite(raw, manifest, look) == 0
    return seen


def without_ada(lines: Sequence[bytes], _: RawManifest) -> list[bytes]:
    return [line.replace(b"Ada", b"---") for line in lines]


LINES = [b'{"id":1,"name":"Ada"}', b'{"id":2,"name":"Tea"}', b'{"id":3,"name":"Ada"}']


@pytest.mark.parametrize("slot", ["", CURRENT, hour_slot(datetime(2026, 3, 2, 7, tzinfo=UTC))])
def test_records_are_replaced_and_all_else_stays(store: ObjectStore, slot: str) -> None:
    raw = RawStore(store, "inventory")
    before = land(raw, LINES, slot)
    assert rewrite(raw, before, without_ada) == 2
    after = raw.read_manifest(KEY, DAY, slot)
    assert after is not None
    assert lines_of(raw, after) == without_ada(LINES, after)
    changed = {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)}
    assert changed == {"file", "compressed_bytes", "sha256"}
    names = [item.key.rpartition("/")[2] for item in store.objects("raw/")]
    assert sorted(names) == sorted([after.file, "manifest.json"]), "the old file is gone"
    assert rewrite(raw, after, without_ada) == 0
    assert raw.read_manifest(KEY, DAY, slot) == after


def test_a_sync_that_replaces_the_partition_meanwhile_is_not_undone(raw: RawStore) -> None:
    before = land(raw, LINES)
    newer = [b'{"id":4,"name":"Ada"}', b'{"id":5}']
    calls = 0

    def change(lines: Sequence[bytes], manifest: RawManifest) -> list[bytes]:
        nonlocal calls
        calls += 1
        if calls == 2:  # while the new file is being written
            land(raw, newer)
        return without_ada(lines, manifest)

    assert rewrite(raw, before, change) == 1
    after = raw.read_manifest(KEY, DAY)
    assert after is not None
    assert lines_of(raw, after) == [b'{"id":4,"name":"---"}', b'{"id":5}']


def test_a_failure_leaves_the_partition_as_it_was(raw: RawStore, store: ObjectStore) -> None:
    manifest = land(raw, LINES)
    calls = 0

    def breaks(lines: Sequence[bytes], manifest: RawManifest) -> list[bytes]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("made up")
        return without_ada(lines, manifest)

    with pytest.raises(RuntimeError):
        rewrite(raw, manifest, breaks)
    assert raw.read_manifest(KEY, DAY) == manifest
    assert lines_of(raw, manifest) == LINES
    assert list(store.staging.folder.iterdir()) == []


def test_a_damaged_file_is_said_and_strays_are_swept(raw: RawStore, store: ObjectStore) -> None:
    manifest = land(raw, LINES)
    folder = next(item.key for item in store.objects("raw/")).rpartition("/")[0]
    store.grace_seconds = 0.0
    store.put_atomic(f"{folder}/orders-stray.ndjson.zst", b"left by a killed writer")
    raw.sweep(manifest)
    assert len(list(store.objects("raw/"))) == 2
    store.put_atomic(f"{folder}/{manifest.file}", b"damaged")
    with pytest.raises(TableDamagedError, match="does not match its checksum"):
        rewrite(raw, manifest, without_ada)


def test_quarantine_is_rewritten_with_its_history(lake: DeltaLake, store: ObjectStore) -> None:
    quarantine = Quarantine(lake)
    payloads = [b'{"id":1,"name":"Ada"}', b'{"id":1,"name":"---"}', b"\xff Ada", b'{"id":2}']
    for key in (KEY, "square:other"):
        quarantine.replace(
            "a", Partition(key, DAY), [BadRecord(Partition(key, DAY), "made up", payload) for payload in payloads]
        )
    others = quarantine.list(connection="square:other")
    assert quarantine.rewrite(KEY, lambda payload: payload.replace(b"Ada", b"---")) == 2
    assert len(quarantine.list(connection=KEY)) == 3, "two of them are one now"
    assert quarantine.list(connection="square:other") == others
    data = [item.key for item in store.objects(f"tables/{QUARANTINE.name}/") if item.key.endswith(".parquet")]
    assert len(data) == 2, "files of earlier versions are gone"
    # An asset that meets the same records again, now without the person, changes nothing.
    version = lake.version(QUARANTINE.name)
    new = [payload.replace(b"Ada", b"---") for payload in payloads]
    assert (
        quarantine.replace(
            "a", Partition(KEY, DAY), [BadRecord(Partition(KEY, DAY), "made up", payload) for payload in new]
        )
        == 3
    )
    assert lake.version(QUARANTINE.name) == version
    assert quarantine.rewrite("square:nobody", lambda payload: b"") == 0
