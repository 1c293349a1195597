"""Objects by key, in a local folder or under `s3://bucket/prefix`: what raw files and manifests are kept in.

A key is a relative path with `/`. Writes are all-or-nothing: a reader sees the old object or the new one, even after
`kill -9` or a power cut. S3 is reached with boto3's own configuration (`AWS_ENDPOINT_URL_S3` included).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import threading
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from flux_pipelines.domain.errors import (
    ConfigurationError,
    StorageRefusedError,
    StorageUnavailableError,
    of_disk,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class StoredObject(NamedTuple):
    """One object of a listing."""

    key: str
    size: int
    modified: datetime


@contextmanager
def disk_trouble_is_an_error_of_ours(where: str, *, doing: str = "writing") -> Iterator[None]:
    """Turn `no space left` and `not permitted`, wherever they come from (write, fsync, rename), into errors of ours."""
    try:
        yield
    except OSError as error:
        explained = of_disk(error, f"{doing} {where}")
        if explained is None:
            raise
        raise explained from error


class Staging:
    """A local folder for files that are being written. It lives as long as its process, and never longer.

    A lock file beside each folder is held (`flock`) by the process that owns it. The kernel lets go of it however the
    process ends, so whoever comes next can tell what was abandoned by `kill -9` from what is being written right now.

    Args:
        parent: where the folder is made.
        shared: whether the parent lies where other users of the machine can make one of its name before us.

    """

    def __init__(self, parent: Path, *, shared: bool = False) -> None:
        self._parent = parent
        self._shared = shared
        self._mutex = threading.Lock()
        self._owner = 0
        self._folder = parent

    @property
    def folder(self) -> Path:
        """This process's own folder, made when first asked for (and again after a fork)."""
        with self._mutex:
            if self._owner != os.getpid():
                self._folder = self._claim()
                self._owner = os.getpid()
            return self._folder

    def new_file(self, name: str = "") -> Path:
        """Return a path that nobody else uses, which ends with the name: readers go by its extension."""
        return self.folder / f"{uuid.uuid4().hex}{name and '-'}{name}"

    def sweep(self) -> None:
        """Delete what processes that are gone have left behind."""
        if not self._parent.is_dir():
            return
        if self._shared:
            self._refuse_strangers()
        for lock in self._parent.glob("*.lock"):
            try:
                handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except (FileNotFoundError, PermissionError):  # another user's is for that user to sweep
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
            finally:
                os.close(handle)

    def _refuse_strangers(self) -> None:
        """See that the parent is a folder of this user and of nobody else's to read or write; a link is none.

        Raises:
            StorageRefusedError: somebody else has made it.

        """
        found = self._parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StorageRefusedError(
                f"the folder {self._parent}, where files wait to be uploaded, was made by somebody else",
                next_step="Have it deleted, or set TMPDIR to a folder of your own, and run it again.",
            )
        if found.st_mode & 0o077:
            self._parent.chmod(0o700)

    def _claim(self) -> Path:
        with disk_trouble_is_an_error_of_ours(str(self._parent)):
            make_folder(self._parent)
            if self._shared:
                self._refuse_strangers()
            while True:
                folder = self._parent / uuid.uuid4().hex
                lock = folder.with_suffix(".lock")
                handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
                # A sweeper may have taken the file for abandoned before it was locked: then it has no name any more.
                if lock.exists():
                    folder.mkdir(mode=0o700)
                    weakref.finalize(self, _release, handle, folder, lock, os.getpid())
                    return folder
                os.close(handle)


def _release(handle: int, folder: Path, lock: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child runs its parent's finalizers too
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(handle)


class ObjectStore(ABC):
    """Objects by key. Safe to use from threads; see `object_store` for how to get one."""

    #: How long an object that nothing refers to is left alone, because another process may be about to refer to it.
    grace_seconds: float = 0.0

    def __init__(self, root: str, staging: Staging) -> None:
        self.root = root
        self.staging = staging

    @abstractmethod
    def put_atomic(self, key: str, source: Path | bytes) -> None:
        """Store an object, whole or not at all. A path must be of `staging` and is consumed.

        Raises:
            StorageFullError, StorageRefusedError: no space left, or not permitted; the previous object, if any, is
                untouched.

        """

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None when there is no such object (never for any other reason)."""

    @abstractmethod
    @contextmanager
    def open_local(self, key: str) -> Iterator[Path | None]:
        """Give the object as a local file that stays for a whole `with` block; None when there is no such object."""

    @abstractmethod
    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield every object whose key begins with the prefix (a whole folder: `raw/square/`), in order of key."""

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below a folder that have something below themselves, in order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; deleting what is not there is no error."""

    @abstractmethod
    def move(self, folder: str, to: str) -> None:
        """Move a folder with everything in it to a place where there is nothing."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""

    @abstractmethod
    def holds(self, key: str, size: int, sha256: str) -> bool:
        """Tell whether an object is there, undamaged: of this checksum (local), or of this size (S3 sees to the rest)."""

    @abstractmethod
    def flush(self, key: str) -> None:
        """See that an object which another library wrote is on the disk; S3 needs no help."""

    @abstractmethod
    def delta_options(self) -> dict[str, str]:
        """Return the storage options that make `deltalake` reach the same place in the same way."""

    @abstractmethod
    @contextmanager
    def lock(self, prefix: str) -> Iterator[None]:
        """Keep other writers out of a folder: those of this machine (local), or of this process (S3)."""


def elsewhere() -> Staging:
    """Return where files are staged that cannot be staged in the lake itself: in the shared folder for temporary files."""
    return Staging(Path(gettempdir()) / f"flux-staging-{os.getuid()}", shared=True)


def object_store(root: str | Path) -> ObjectStore:
    """Return the store at a root: a folder's path, or `s3://bucket/prefix`.

    Raises:
        ConfigurationError: the root is a URL of another kind, or names no bucket.

    """
    text = str(root)
    if text.startswith("s3://"):
        return S3Store(text)
    if "://" in text:
        raise ConfigurationError(
            f"the lake cannot be kept at {text!r}", next_step="Set FLUX_LAKE_URL to a folder or to s3://bucket/prefix."
        )
    return LocalStore(Path(text))


class LocalStore(ObjectStore):
    """A folder. Every write goes to a temporary file, is flushed to disk, and is renamed into place."""

    def __init__(self, root: Path) -> None:
        self._path = root.expanduser().absolute()
        super().__init__(str(self._path), Staging(self._path / ".staging"))

    def put_atomic(self, key: str, source: Path | bytes) -> None:
        """Store an object: temporary file, fsync, rename, fsync of the folder."""
        with disk_trouble_is_an_error_of_ours(key):
            temporary = self.staging.new_file() if isinstance(source, bytes) else source
            try:
                with temporary.open("wb" if isinstance(source, bytes) else "rb+") as file:
                    if isinstance(source, bytes):
                        file.write(source)
                        file.flush()
                    os.fsync(file.fileno())
                target = self.path(key)
                make_folder(target.parent)
                os.replace(temporary, target)
                _flush_folder(target.parent)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None."""
        with disk_trouble_is_an_error_of_ours(key, doing="reading"):
            try:
                return self.path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextmanager
    def open_local(self, key: str) -> Iterator[Path | None]:
        """Give the file under a second name, so that a writer who replaces it does not pull it from under a reader."""
        path = self.path(key)
        try:
            link = self.staging.new_file(path.name)
            os.link(path, link)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except (OSError, StorageRefusedError):  # without hard links, without space for another name, or read-only
            yield path if path.is_file() else None
            return
        try:
            yield link
        finally:
            link.unlink(missing_ok=True)

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Walk the folder; what is being staged is not part of the listing."""
        folder, _, start = prefix.rpartition("/")
        yield from self._walk(self.path(folder) if folder else self._path, folder, start)

    def _walk(self, path: Path, key: str, start: str) -> Iterator[StoredObject]:
        with disk_trouble_is_an_error_of_ours(key or self.root, doing="reading"):
            try:
                entries = sorted(os.scandir(path), key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                return
        for entry in entries:
            if not entry.name.startswith(start) or entry.name == ".staging":
                continue
            child = f"{key}/{entry.name}" if key else entry.name
            if entry.is_dir():
                yield from self._walk(Path(entry.path), child, "")
                continue
            with suppress(FileNotFoundError):
                status = entry.stat()
                yield StoredObject(child, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the sub-folders."""
        with disk_trouble_is_an_error_of_ours(prefix, doing="reading"):
            try:
                return sorted(entry.name for entry in os.scandir(self.path(prefix.rstrip("/"))) if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, key: str) -> None:
        """Delete a file."""
        with disk_trouble_is_an_error_of_ours(key, doing="deleting"):
            self.path(key).unlink(missing_ok=True)

    def move(self, folder: str, to: str) -> None:
        """Rename the folder, in one step."""
        target = self.path(to)
        with disk_trouble_is_an_error_of_ours(to):
            make_folder(target.parent)
            self.path(folder).rename(target)
            _flush_folder(target.parent)

    def exists(self, key: str) -> bool:
        """Tell whether there is such a file."""
        return self.path(key).is_file()

    def holds(self, key: str, size: int, sha256: str) -> bool:
        """Compare the file's size, then its checksum."""
        path = self.path(key)
        try:
            return path.stat().st_size == size and file_sha256(path) == sha256
        except OSError:  # not there, or there and of no use to anybody
            return False

    def flush(self, key: str) -> None:
        """Flush the file and its folder."""
        path = self.path(key)
        with disk_trouble_is_an_error_of_ours(key):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            _flush_folder(path.parent)

    def delta_options(self) -> dict[str, str]:
        """A local folder needs none."""
        return {}

    @contextmanager
    def lock(self, prefix: str) -> Iterator[None]:
        """Hold the folder's own `flock`: no lock files to clean up, and the kernel lets go when a process dies."""
        folder = self.path(prefix.rstrip("/"))
        with disk_trouble_is_an_error_of_ours(prefix):
            make_folder(folder)
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def path(self, key: str) -> Path:
        """Return where an object is (or would be) on the disk."""
        return self._path / _checked(key)


class S3Store(ObjectStore):
    """A prefix in an S3 bucket. Single uploads are atomic there; no other process is locked out."""

    grace_seconds = 3600.0

    def __init__(self, root: str) -> None:
        bucket, _, prefix = root.removeprefix("s3://").strip("/").partition("/")
        if not bucket:
            raise ConfigurationError(f"{root!r} names no bucket", next_step="Write it as s3://bucket/prefix.")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._locks: dict[str, threading.Lock] = {}
        self._mutex = threading.Lock()
        super().__init__(f"s3://{bucket}/{prefix}".rstrip("/"), elsewhere())

    @cached_property
    def _client(self) -> S3Client:
        return s3_client()

    def put_atomic(self, key: str, source: Path | bytes) -> None:
        """Upload an object; S3 shows it when the upload is complete."""
        with self._errors(key):
            if isinstance(source, bytes):
                self._client.put_object(Bucket=self._bucket, Key=self._at(key), Body=source)
                return
            self._client.upload_file(str(source), self._bucket, self._at(key))
            source.unlink()

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None."""
        with self._errors(key):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._at(key))["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    @contextmanager
    def open_local(self, key: str) -> Iterator[Path | None]:
        """Download to a temporary file, deleted at the end of the block."""
        if not self.exists(key):
            yield None
            return
        path = self.staging.new_file(key.rpartition("/")[2])
        try:
            with self._errors(key), disk_trouble_is_an_error_of_ours(str(path)):
                self._client.download_file(self._bucket, self._at(key), str(path))
            yield path
        finally:
            path.unlink(missing_ok=True)

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """List the prefix, page by page."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    yield StoredObject(key, item["Size"], item["LastModified"])

    def folders(self, prefix: str) -> list[str]:
        """Return the common prefixes below a prefix."""
        below = f"{self._prefix}{prefix.rstrip('/')}/"
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=below, Delimiter="/"
            )
            found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(below).rstrip("/") for name in found)

    def delete(self, key: str) -> None:
        """Delete an object."""
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._at(key))

    def move(self, folder: str, to: str) -> None:
        """Copy object by object, then delete: cut short, it can be done again."""
        found = [item.key for item in self.objects(f"{folder}/")]
        for key in found:
            target = self._at(f"{to}/{key.removeprefix(f'{folder}/')}")
            with self._errors(key):
                self._client.copy({"Bucket": self._bucket, "Key": self._at(key)}, self._bucket, target)
        for key in found:
            self.delete(key)

    def exists(self, key: str) -> bool:
        """Ask for the object's head."""
        return self._size(key) is not None

    def holds(self, key: str, size: int, sha256: str) -> bool:  # noqa: ARG002 - the size is enough on S3
        """Compare the object's size; S3 checks its own content."""
        return self._size(key) == size

    def flush(self, key: str) -> None:
        """Do nothing: what S3 has acknowledged is durable."""

    def delta_options(self) -> dict[str, str]:
        """Translate boto3's present credentials, region and endpoint. Asked for at each use: credentials of a role expire."""
        return delta_options_of(self._client)

    @contextmanager
    def lock(self, prefix: str) -> Iterator[None]:
        """Hold a lock among this process's threads."""
        with self._mutex:
            lock = self._locks.setdefault(prefix, threading.Lock())
        with lock:
            yield

    def _size(self, key: str) -> int | None:
        with self._errors(key):
            try:
                return self._client.head_object(Bucket=self._bucket, Key=self._at(key))["ContentLength"]
            except self._client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise

    def _at(self, key: str) -> str:
        return self._prefix + _checked(key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"{self.root}/{key}"
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if status in (401, 403) or code == "NoSuchBucket":
                raise ConfigurationError(
                    f"S3 refuses {where}: {code}", next_step="Correct the bucket, its policy or the AWS credentials."
                ) from error
            raise StorageUnavailableError(f"S3 answered {status} {code} for {where}") from error
        except (BotoCoreError, Boto3Error) as error:
            raise StorageUnavailableError(f"S3 could not be used for {where}: {type(error).__name__}") from error


def s3_client() -> S3Client:
    """Return a boto3 S3 client from boto3's own configuration (environment, profile, role)."""
    import boto3
    from botocore.config import Config

    config: Any = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": 6},
        max_pool_connections=32,
        connect_timeout=10,
        read_timeout=60,
        # S3-compatible servers refuse the CRC trailers that boto3 sends by default; our manifests carry a SHA-256.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", config=config)


def delta_options_of(client: S3Client) -> dict[str, str]:
    """Return `deltalake` storage options with which it reaches S3 exactly as this boto3 client does.

    Commits rely on conditional writes (`If-None-Match`), which S3 and the usual compatible servers have.

    Raises:
        ConfigurationError: boto3 finds no credentials.

    """
    credentials = client._request_signer._credentials  # type: ignore[attr-defined]
    if credentials is None:
        raise ConfigurationError(
            "boto3 finds no AWS credentials for the lake", next_step="Set AWS_PROFILE, AWS_ACCESS_KEY_ID or a role."
        )
    frozen = credentials.get_frozen_credentials()
    options = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_REGION": client.meta.region_name or "us-east-1",
        "aws_conditional_put": "etag",
    }
    if frozen.token:
        options["AWS_SESSION_TOKEN"] = frozen.token
    endpoint = client.meta.endpoint_url
    if not urlsplit(endpoint).netloc.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        options["AWS_ENDPOINT_URL"] = endpoint
        options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "false"
        if endpoint.startswith("http://"):
            options["AWS_ALLOW_HTTP"] = "true"
    return options


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(key: str) -> str:
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is not a key: write it as folder/name")
    return key


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut and nobody but this user can look into them."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
