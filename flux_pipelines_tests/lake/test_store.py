from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
import pytest

from flux_pipelines.domain.errors import (
    ConfigurationError,
    StorageFullError,
    StorageRefusedError,
    StorageUnavailableError,
)
from flux_pipelines.lake.delta import DeltaLake
from flux_pipelines.lake.store import LocalStore, ObjectStore, delta_options_of, object_store, s3_client
from flux_pipelines_tests.lake.rows import tiny_disk


def test_an_object_is_stored_replaced_listed_and_deleted(store: ObjectStore) -> None:
    assert store.get("a/b/one") is None
    store.put_atomic("a/b/one", b"1")
    store.put_atomic("a/b/one", b"11")
    staged = store.staging.new_file()
    staged.write_bytes(b"2")
    store.put_atomic("a/c/two", staged)
    assert not staged.exists()
    assert store.get("a/b/one") == b"11"
    assert [(item.key, item.size) for item in store.objects("a/")] == [("a/b/one", 2), ("a/c/two", 1)]
    assert [item.key for item in store.objects("a/b/o")] == ["a/b/one"]
    assert store.folders("a") == ["b", "c"]
    assert store.folders("none") == []
    with store.open_local("a/c/two") as path:
        assert path is not None
        assert path.read_bytes() == b"2"
    with store.open_local("a/c/three") as path:
        assert path is None
    assert store.exists("a/b/one")
    store.delete("a/b/one")
    store.delete("a/b/one")
    assert not store.exists("a/b/one")
    assert [item.key for item in store.objects()] == ["a/c/two"]


@pytest.mark.parametrize("key", ["/etc/passwd", "a/../b", "", "a//b", "."])
def test_a_key_cannot_leave_the_root(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.put_atomic(key, b"x")


def test_many_objects_are_listed_page_by_page(store: ObjectStore) -> None:
    for n in range(30):
        store.put_atomic(f"many/{n:03d}/x", b"")
    assert len(store.folders("many")) == len(list(store.objects("many/"))) == 30


def test_a_folder_is_moved_with_everything_in_it(store: ObjectStore) -> None:
    for key in ("tables/a/one", "tables/a/log/two", "tables/ab/three"):
        store.put_atomic(key, key.encode())
    store.move("tables/a", "superseded/a-1")
    assert [item.key for item in store.objects()] == ["superseded/a-1/log/two", "superseded/a-1/one", "tables/ab/three"]
    assert store.get("superseded/a-1/log/two") == b"tables/a/log/two"


def test_a_root_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="gs://bucket"):
        object_store("gs://bucket/x")
    with pytest.raises(ConfigurationError, match="names no bucket"):
        object_store("s3://")


def test_a_full_disk_is_named_and_leaves_the_old_object(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        store = object_store(disk)
        store.put_atomic("x/y", b"old")
        with pytest.raises(StorageFullError, match="x/y"):
            store.put_atomic("x/y", os.urandom(2 << 20))
        assert store.get("x/y") == b"old"
        store.put_atomic("x/y", os.urandom(1 << 19))  # what the failed write took is free again


def test_what_a_killed_process_was_writing_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    writer = (
        "import sys, time; from flux_pipelines.lake import object_store\n"
        "store = object_store(sys.argv[1]); path = store.staging.new_file(); path.write_bytes(b'half')\n"
        "print(path, flush=True); time.sleep(60)"
    )
    running = subprocess.Popen([sys.executable, "-c", writer, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    with running.stdout as out:
        litter = Path(out.readline().strip())
    mine = object_store(tmp_path)
    own = mine.staging.new_file()
    own.write_bytes(b"own")
    mine.staging.sweep()
    assert litter.exists()
    running.send_signal(signal.SIGKILL)
    running.wait()
    mine.staging.sweep()
    assert not litter.parent.exists()
    assert own.read_bytes() == b"own"
    assert len(list((tmp_path / ".staging").iterdir())) == 2  # this process's folder and its lock


@pytest.mark.parametrize("made", ["link", "folder of somebody else", "open"])
def test_a_staging_folder_that_somebody_else_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place, trap = tmp_path / f"flux-staging-{os.getuid()}", tmp_path / "trap"
    (trap / "x").mkdir(parents=True)
    (trap / "x.lock").touch()  # a sweep would delete `x`
    if made == "link":
        place.symlink_to(trap)
    elif made == "open":
        place.mkdir(mode=0o755)
    elif os.getuid() == 0:
        place.mkdir()
        os.chown(place, 12345, 12345)
    else:
        pytest.skip("only root can make a folder of somebody else")
    staging = object_store("s3://flux-lake/x").staging
    if made == "open":
        assert staging.folder.parent == place
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        return
    for use in (lambda: staging.folder, staging.sweep):
        with pytest.raises(StorageRefusedError, match="set TMPDIR") as caught:
            use()
        assert str(place) in str(caught.value)
    assert (trap / "x").is_dir()


def test_a_process_that_ends_leaves_no_staging_folder(tmp_path: Path) -> None:
    code = "import sys; from flux_pipelines.lake import object_store; print(object_store(sys.argv[1]).staging.folder)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    assert list((tmp_path / ".staging").iterdir()) == []


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    code = (
        "import sys; from flux_pipelines.lake import object_store\n"
        "with object_store(sys.argv[1]).lock('part'): print('in', flush=True)"
    )
    with LocalStore(tmp_path).lock("part"):
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.7)
    assert other.communicate(timeout=20)[0] == "in\n"


def test_s3_that_refuses_or_is_gone_is_never_an_absent_object(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="NoSuchBucket"):
        object_store("s3://no-such-bucket-here/x").get("k")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageUnavailableError, match=r"s3://flux-lake/x/k") as caught:
        object_store("s3://flux-lake/x").get("k")
    assert caught.value.rerun_helps


def test_deltalake_gets_what_boto3_uses(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials that it found first
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    options = delta_options_of(s3_client())
    assert options["AWS_ENDPOINT_URL"] == s3_endpoint
    assert options["AWS_ALLOW_HTTP"] == "true"
    assert options["AWS_REGION"] == "eu-west-1"
    assert options["AWS_SESSION_TOKEN"] == "session"
    assert options["aws_conditional_put"] == "etag"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert "AWS_ENDPOINT_URL" not in delta_options_of(s3_client())


def test_a_lake_that_is_a_file_is_said_and_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")
    store = object_store(tmp_path / "lake")
    with pytest.raises(StorageRefusedError, match="is refused") as refused:
        store.put_atomic("a/one", b"1")
    assert str(tmp_path / "lake") in str(refused.value)
    assert not refused.value.rerun_helps
    assert store.get("a/one") is None
    assert DeltaLake(store).scratch().parent.is_dir(), "what does not fit into memory goes elsewhere"
    with pytest.raises(StorageRefusedError):
        DeltaLake(store).prove_writable()


def test_a_lake_that_can_be_written_is_left_as_it_was(store: ObjectStore) -> None:
    DeltaLake(store).prove_writable()
    assert list(store.objects()) == []
