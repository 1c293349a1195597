from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_pipelines.domain.errors import ConfigurationError, StorageFullError, TableDamagedError
from flux_pipelines.lake import FetchedWindow, ObjectStore, RawManifest, RawStore, Verification, object_store
from flux_pipelines.lake.raw import PartitionEmptiedError
from flux_pipelines_tests.lake.rows import ACME, DAY, days, tiny_disk

NOW = datetime(2025, 3, 2, 6, tzinfo=UTC)


def order(number: int, size: int = 40) -> bytes:
    return json.dumps({"id": f"order-{number}", "note": "x" * size}).encode()


def land(raw: RawStore, orders: Iterable[bytes], day: date = DAY, connection: str = ACME) -> RawManifest:
    with raw.writer(connection, day) as writer:
        segment = writer.segment()
        segment.write_many(orders)
        return writer.commit([segment], fetched_at=NOW)


def content(raw: RawStore, manifest: RawManifest) -> list[bytes]:
    with raw.local_file(manifest) as path:
        if path is None:
            return []
        with zstandard.open(path, "rb") as file:
            return bytes(file.read()).splitlines()


def keys(store: ObjectStore) -> list[str]:
    return [item.key for item in store.objects("raw/")]


def test_segments_become_one_file_in_the_order_given(raw: RawStore, store: ObjectStore) -> None:
    writer = raw.writer(ACME, DAY)
    first, second, empty, unused = (writer.segment() for _ in range(4))
    second.write_many(order(n) for n in range(100, 200))
    for n in range(100):
        first.write(msgspec.Raw(order(n)))
    unused.write(order(999))
    window = FetchedWindow(basis="created", start=NOW, end=NOW, locations=("L1", "L2"))
    proof = Verification(status="verified", method="closed_at", expected=200, confirmed=200)
    manifest = writer.commit(
        [first, empty, second],
        fetched_at=NOW,
        quarantined=1,
        totals={"USD": 12345, "JPY": 7},
        states={"OPEN": 3, "COMPLETED": 197},
        windows=[window],
        locations=["L1", "L2"],
        api_version="2026-09-16",
        requests=4,
        retries=1,
        waited_seconds=0.5,
        sync_token="sync-1",
        verification=proof,
    )
    wanted = [order(n) for n in range(200)]
    assert content(raw, manifest) == wanted
    assert manifest.orders == 200
    assert manifest.bytes == sum(len(line) + 1 for line in wanted)
    assert keys(store) == [
        f"raw/square/orders/acme/2025-03-01/{name}"
        for name in ("manifest.json", f"orders-{manifest.sha256[:16]}.ndjson.zst")
    ]
    assert raw.read_manifest(ACME, DAY) == manifest
    assert list(manifest.totals) == ["JPY", "USD"]
    assert (manifest.windows, manifest.verification, manifest.fetched_at) == ((window,), proof, NOW)


def test_duckdb_reads_the_file(raw: RawStore) -> None:
    writer = raw.writer(ACME, DAY)
    segments = [writer.segment() for _ in range(3)]
    for index, segment in enumerate(segments):
        segment.write_many(order(index * 20_000 + n, 200) for n in range(20_000))
    manifest = writer.commit(segments, fetched_at=NOW)
    with raw.local_file(manifest) as path:
        answer = duckdb.sql(
            f"select count(*), count(distinct id) from read_json('{path}', format='newline_delimited', "
            "columns={id: 'VARCHAR'})"
        ).fetchall()
    assert answer == [(60_000, 60_000)]


@pytest.mark.parametrize("cuts", [[], [1], [700, 1400], [1999]])
def test_the_file_is_the_same_wherever_threads_cut_a_window(raw: RawStore, cuts: list[int]) -> None:
    def committed(*windows: list[list[int]]) -> RawManifest:
        writer = raw.writer(ACME, DAY)
        segments = []
        for number, pieces in enumerate(windows):
            for piece in pieces:
                segments.append(writer.segment(number))
                segments[-1].write_many(order(n, 300) for n in piece)
        return writer.commit(segments, fetched_at=NOW)

    numbers = list(range(2000))
    pieces = [numbers[first:last] for first, last in pairwise([0, *cuts, len(numbers)])]
    first, again = committed([numbers], [[5000]]), committed(pieces, [[5000]])
    assert (again.sha256, again.orders, again.bytes) == (first.sha256, first.orders, first.bytes)
    assert content(raw, again) == [order(n, 300) for n in [*numbers, 5000]]


def test_a_day_without_orders_is_a_commit_and_a_day_never_fetched_is_not(raw: RawStore, store: ObjectStore) -> None:
    assert raw.read_manifest(ACME, DAY) is None
    manifest = raw.writer(ACME, DAY).commit([], fetched_at=NOW)
    assert (manifest.file, manifest.orders, manifest.compressed_bytes) == ("", 0, 0)
    assert content(raw, manifest) == []
    assert raw.read_manifest(ACME, DAY) == manifest
    land(raw, [order(1)])
    assert len(keys(store)) == 2
    raw.writer(ACME, DAY).commit([], fetched_at=NOW, accept_empty=True)
    assert keys(store) == ["raw/square/orders/acme/2025-03-01/manifest.json"]


def test_records_do_not_give_way_to_nothing_unless_that_is_accepted(raw: RawStore, store: ObjectStore) -> None:
    with raw.writer(ACME, DAY) as writer:
        segment = writer.segment()
        segment.write_many([order(1), order(2)])
        proof = Verification(status="verified", method="a second query", expected=2, confirmed=2)
        before = writer.commit([segment], fetched_at=NOW, sync_token="t", verification=proof)
    for later in (NOW + timedelta(hours=1), NOW + timedelta(hours=2)):
        with pytest.raises(PartitionEmptiedError) as caught:
            raw.writer(ACME, DAY).commit([], fetched_at=later, sync_token="u")
        kept = raw.read_manifest(ACME, DAY)
        assert kept == caught.value.kept
        assert kept is not None
        assert (kept.verification.status, kept.verification.emptied_at) == ("unverifiable", later)
        assert (kept.file, kept.orders, kept.fetched_at, kept.sync_token) == (before.file, 2, NOW, "")
        assert content(raw, kept) == [order(1), order(2)]
    # What nobody can read may still hold something, and an erasure must find it.
    manifest = "raw/square/orders/acme/2025-03-01/manifest.json"
    store.put_atomic(manifest, b"{")
    with pytest.raises(PartitionEmptiedError) as caught:
        raw.writer(ACME, DAY).commit([], fetched_at=NOW)
    assert caught.value.kept is None
    assert len(keys(store)) == 2
    # Records that cannot be used are no emptiness, and neither are records again.
    assert raw.writer(ACME, DAY).commit([], fetched_at=NOW, quarantined=1).quarantined == 1
    assert land(raw, [order(3)]).verification.emptied_at is None
    # Nor is an empty partition that is damaged: it never had a file.
    other = DAY + timedelta(days=1)
    raw.writer(ACME, other).commit([], fetched_at=NOW)
    store.put_atomic(f"raw/square/orders/acme/{other}/manifest.json", b"{")
    assert raw.writer(ACME, other).commit([], fetched_at=NOW).orders == 0


def test_pretty_printed_orders_become_one_line_each(raw: RawStore) -> None:
    value = {"id": "é", "note": "line\nbreak\r\n", "list": [1, 2.50, None]}
    pretty = json.dumps(value, indent=2).replace("\n", "\r\n").encode()
    manifest = land(raw, [pretty, order(1), pretty])
    read = content(raw, manifest)
    assert len(read) == manifest.orders == 3
    assert [json.loads(line) for line in read] == [value, json.loads(order(1)), value]
    assert manifest.bytes == sum(len(line) + 1 for line in read)


def test_the_same_orders_give_the_same_file_and_only_the_manifest_is_replaced(tmp_path: Path) -> None:
    raw = RawStore(object_store(tmp_path))
    orders = [order(n, n % 3000) for n in range(3000)]
    first = land(raw, orders)
    file = tmp_path / "raw/square/orders/acme/2025-03-01" / first.file
    inode = file.stat().st_ino
    writer = raw.writer(ACME, DAY)
    one_by_one = writer.segment()
    for item in orders:
        one_by_one.write(item)
    second = writer.commit([one_by_one], fetched_at=datetime(2025, 3, 3, tzinfo=UTC), sync_token="later")
    assert second.sha256 == first.sha256
    assert file.stat().st_ino == inode
    stored = raw.read_manifest(ACME, DAY)
    assert stored is not None
    assert stored.sync_token == "later"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(0, 400_000), max_size=5), max_size=4),
)
def test_any_sizes_survive(tmp_path: Path, sizes: list[list[int]]) -> None:
    raw = RawStore(object_store(tmp_path / "any"))
    writer = raw.writer(ACME, DAY)
    segments, wanted = [], []
    for group in sizes:
        segment = writer.segment()
        batch = [json.dumps(os.urandom(size // 2).hex()).encode() for size in group]
        segment.write_many(batch)
        wanted += batch
        segments.append(segment)
    assert content(raw, writer.commit(segments, fetched_at=NOW, accept_empty=True)) == wanted


def test_a_replaced_partition_has_one_file_and_abort_leaves_it(raw: RawStore, store: ObjectStore) -> None:
    land(raw, [order(1)])
    second = land(raw, [order(2)])
    writer = raw.writer(ACME, DAY)
    segment = writer.segment()
    segment.write_many(os.urandom(2 << 20).hex().encode() for _ in range(2))
    writer.abort()
    assert len(keys(store)) == 2
    assert raw.read_manifest(ACME, DAY) == second
    assert content(raw, second) == [order(2)]
    assert list(store.staging.folder.iterdir()) == []


def test_a_window_can_start_over(raw: RawStore, store: ObjectStore) -> None:
    writer = raw.writer(ACME, DAY)
    dead, fresh = writer.segment(), writer.segment()
    dead.write(order(1))
    dead.discard()
    fresh.write(order(2))
    assert content(raw, writer.commit([fresh], fetched_at=NOW)) == [order(2)]


def test_threads_write_segments_of_one_partition_at_once(raw: RawStore) -> None:
    writer = raw.writer(ACME, DAY)
    segments = [writer.segment() for _ in range(6)]

    def fill(index: int) -> None:
        for n in range(2000):
            segments[index].write(order(index * 2000 + n, 500))

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(raw, writer.commit(segments, fetched_at=NOW)) == [order(n, 500) for n in range(12_000)]


def test_manifests_of_a_range(raw: RawStore) -> None:
    for day in days(20):
        land(raw, [order(day.day)], day)
    land(raw, [order(1)], connection="square:other")
    land(raw, [order(1)], connection="toast:acme")
    found = raw.manifests(ACME, date(2025, 3, 5), date(2025, 3, 8))
    assert list(found) == days(4, date(2025, 3, 5))
    assert all(day == manifest.business_date for day, manifest in found.items())
    assert raw.manifests(ACME, date(2020, 1, 1), date(2020, 2, 1)) == {}
    assert raw.days(ACME) == days(20)
    assert raw.connections() == [ACME, "square:other", "toast:acme"]


def test_what_a_partition_became_is_kept_beside_it_and_every_connection_that_landed_is_known(
    raw: RawStore, store: ObjectStore
) -> None:
    assert raw.connections() == []
    manifest, day = land(raw, [order(1)]), DAY
    other = land(raw, [], connection="toast:diner")
    assert raw.connections() == [ACME, "toast:diner"]
    assert raw.of("payments").connections() == []
    raw.set_made(manifest, "payments", 3)
    raw.set_made(other, "payments", 0)
    made = raw.made(ACME, [day, days(2)[-1]], "payments")
    assert {key: (one.fetched_at, one.rows) for key, one in made.items()} == {day: (NOW, 3)}
    assert raw.made(ACME, [day], "time_entries") == {}
    land(raw, [order(2)])
    assert raw.made(ACME, [day], "payments") == made, "fetched again, it stays until the table is made again"
    (key,) = (name for name in keys(store) if name.endswith("made-payments.json") and "acme" in name)
    store.put_atomic(key, b"{")
    assert raw.made(ACME, [day], "payments") == {}, "what cannot be read says nothing"


@pytest.mark.parametrize("connection", ["acme", "square:../up", "Square:acme"])
def test_a_connection_that_is_none_is_refused(raw: RawStore, connection: str) -> None:
    with pytest.raises(ConfigurationError, match="not a connection name"):
        raw.writer(connection, DAY)


def test_damage_is_named_and_a_rerun_repairs_it(tmp_path: Path) -> None:
    raw = RawStore(object_store(tmp_path))
    manifest = land(raw, [order(n) for n in range(500)])
    folder = tmp_path / "raw/square/orders/acme/2025-03-01"
    file = folder / manifest.file
    whole = file.read_bytes()
    for damage in (whole[:-1], whole[:50] + b"X" + whole[51:], b""):
        file.write_bytes(damage)
        with pytest.raises(TableDamagedError, match=r"square:acme.*2025-03-01.*damaged.*raw asset"):
            content(raw, manifest)
        assert len(content(raw, land(raw, [order(n) for n in range(500)]))) == 500
    file.unlink()
    with pytest.raises(TableDamagedError, match="missing"):
        content(raw, manifest)
    path = folder / "manifest.json"
    for text in (b"", b"{}", b'{"connection": 1', b"\xff{", path.read_bytes().replace(b"acme", b"evil"), None):
        path.unlink()
        if text is None:  # the system refuses to read it: who owns the machine is refused as well
            path.symlink_to(path)
        else:
            path.write_bytes(text)
        with pytest.raises(TableDamagedError, match="square:acme: the manifest"):
            raw.read_manifest(ACME, DAY)
        assert raw.manifests(ACME, DAY, DAY) == {}
        found = raw.survey(ACME, DAY, DAY)
        assert (found.readable, list(found.damaged), found.days) == ([], [str(DAY)], {DAY})
        repaired = land(raw, [order(n) for n in range(500)])
        assert len(content(raw, repaired)) == 500
        assert len(list(folder.iterdir())) == 2


def test_one_damaged_partition_does_not_hide_the_others_nor_itself(raw: RawStore, store: ObjectStore) -> None:
    good, bad, gone = days(3)
    manifests = {day: land(raw, [order(day.day)], day) for day in (good, bad, gone)}
    store.put_atomic(f"raw/square/orders/acme/{bad}/manifest.json", b"{")
    store.delete(f"raw/square/orders/acme/{gone}/{manifests[gone].file}")
    assert list(raw.manifests(ACME, good, gone)) == [good, gone]
    found = raw.survey(ACME, good, gone, files=True)
    assert found.readable == [manifests[good]]
    assert list(found.damaged) == [str(bad), str(gone)]
    assert found.days == {good, bad, gone}
    every = raw.everything(ACME)
    assert (len(every.readable), list(every.damaged)) == (2, [str(bad)])
    snapshots = raw.of("inventory")
    for hour in ("07", "08"):
        with snapshots.writer(ACME, DAY, f"{DAY}/{hour}") as writer:
            writer.commit([], fetched_at=NOW)
    store.put_atomic(f"raw/square/inventory/acme/{DAY}/07/manifest.json", b"{")
    for stock in (snapshots.hours(ACME, DAY), snapshots.everything(ACME)):
        assert ([one.slot for one in stock.readable], list(stock.damaged)) == ([f"{DAY}/08"], [f"{DAY}/07"])
        assert stock.damaged_days == {DAY}


def test_a_reader_overtaken_by_a_replacement_is_told_to_run_again(raw: RawStore) -> None:
    old = land(raw, [order(1)])
    land(raw, [order(2)])
    with pytest.raises(TableDamagedError, match="replaced while") as caught:
        content(raw, old)
    assert caught.value.rerun_helps


def test_a_full_disk_leaves_the_old_partition(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        raw = RawStore(object_store(disk))
        old = land(raw, [order(1)])
        with pytest.raises(StorageFullError, match="no space left") as caught:
            land(raw, (os.urandom(100_000).hex().encode() for _ in range(40)))
        assert caught.value.rerun_helps
        assert raw.read_manifest(ACME, DAY) == old
        assert content(raw, old) == [order(1)]
        land(raw, [os.urandom(200_000).hex().encode()])  # the failed attempt's space is free again


def test_a_full_disk_at_any_point_of_the_commit(tmp_path: Path) -> None:
    """Every size of the disk, so that each of the writes of a commit is once the one that fails."""
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        raw = RawStore(object_store(disk))
        old = land(raw, [order(1)])
        payload = os.urandom(20_000).hex().encode()
        outcomes = set()
        filler = disk / "filler"
        for free in range(0, 60_000, 4096):
            filler.write_bytes(b"")
            status = os.statvfs(disk)
            filler.write_bytes(b"0" * (status.f_bavail * status.f_frsize - free))
            try:
                land(raw, [payload])
                outcomes.add("stored")
                filler.unlink()
                assert land(raw, [order(1)]).sha256 == old.sha256
            except StorageFullError:
                outcomes.add("full")
                filler.unlink()
                assert raw.read_manifest(ACME, DAY) == old
                assert content(raw, old) == [order(1)]
        assert outcomes == {"stored", "full"}


WRITER = """
import sys
from datetime import UTC, date, datetime
from flux_pipelines.lake import RawStore, object_store
raw = RawStore(object_store(sys.argv[1]))
turn = 0
while True:
    turn += 1
    writer = raw.writer("square:acme", date(2025, 3, 1))
    segments = [writer.segment() for _ in range(2)]
    for number, segment in enumerate(segments):
        segment.write_many(b'{"turn": %d, "order": %d}' % (turn, number * 500 + n) for n in range(500))
    writer.commit(segments, fetched_at=datetime.now(UTC))
    print(turn, flush=True)
"""


def test_kill_9_at_any_moment_leaves_a_whole_partition(tmp_path: Path) -> None:
    raw = RawStore(object_store(tmp_path))
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert process.stdout is not None
        with process.stdout as out:
            process_started = out.readline()
            assert process_started
            time.sleep(0.05 + 0.013 * attempt)
            process.send_signal(signal.SIGKILL)
            process.wait()
        manifest = raw.read_manifest(ACME, DAY)
        assert manifest is not None
        read = [json.loads(line) for line in content(raw, manifest)]
        assert [item["order"] for item in read] == list(range(1000))
        assert len({item["turn"] for item in read}) == 1
    land(raw, [order(1)])
    assert len(list((tmp_path / "raw/square/orders/acme/2025-03-01").iterdir())) == 2
    assert len(list((tmp_path / ".staging").iterdir())) == 2  # this process's own
    assert list(object_store(tmp_path).staging.folder.iterdir()) == []


def test_two_processes_that_replace_one_partition_do_not_break_it(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    raw = RawStore(object_store(tmp_path))
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    seen = 0
    overtaken: list[TableDamagedError] = []
    for _ in range(60):
        manifest = raw.read_manifest(ACME, DAY)
        assert manifest is not None
        try:
            assert len(content(raw, manifest)) == 1000
            seen += 1
        except TableDamagedError as error:
            overtaken.append(error)
    for writer in writers:
        writer.kill()
        writer.communicate()
    assert seen
    assert all(error.rerun_helps for error in overtaken), "overtaken, never damaged"
    manifest = raw.read_manifest(ACME, DAY)
    assert manifest is not None
    assert len(content(raw, manifest)) == 1000


def test_memory_stays_flat_at_a_million_orders(tmp_path: Path) -> None:
    code = """
import resource, sys
from datetime import UTC, date, datetime
from flux_pipelines.lake import RawStore, object_store
import zstandard
raw = RawStore(object_store(sys.argv[1]))
page = [b'{"id": "%d", "pad": "%s"}' % (n, b"x" * 900) for n in range(500)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
writer = raw.writer("square:acme", date(2025, 3, 1))
segments = [writer.segment() for _ in range(4)]
for turn in range(2000):
    segments[turn % 4].write_many(page)
manifest = writer.commit(segments, fetched_at=datetime.now(UTC))
with raw.local_file(manifest):
    pass
print(manifest.orders, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True, timeout=120
    )
    orders, grown = map(int, run.stdout.split())
    assert orders == 1_000_000
    assert grown < 60, f"grew by {grown} MiB"
