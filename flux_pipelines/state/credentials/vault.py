"""Encryption of stored credentials: Fernet keys, newest first; every ciphertext names the key that made it."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from flux_pipelines.domain.errors import ConfigurationError, DecryptionError
from flux_pipelines.state.db_errors import translate_os_error

#: How long to wait for another process that is just writing a new key file (s).
_WRITE_PATIENCE = 5.0


def generate_key() -> str:
    """Return a new Fernet key."""
    return Fernet.generate_key().decode()


def key_id(key: str) -> str:
    """Return the public name of a key: a short hash that tells nothing of it."""
    return hashlib.sha256(b"flux-key:" + key.encode()).hexdigest()[:12]


class Vault:
    """Encrypts with the newest key, decrypts with any.

    Args:
        keys: Fernet keys, newest first.
        key_file: where they came from, when they came from a file. A key that another process put there in the
            meantime (rotation) is picked up: before encrypting, and when nothing at hand decrypts.

    Raises:
        ConfigurationError: no key, or one that is not a Fernet key.

    """

    def __init__(self, keys: Sequence[str], *, key_file: Path | None = None) -> None:
        self.key_file = key_file
        self._mutex = threading.Lock()
        # Unknown, so that the first use looks: the file may have changed since the keys were read.
        self._stamp: tuple[int, int, int] | None = None
        self._set(keys)

    def __repr__(self) -> str:
        return f"Vault(key_ids={list(self._ids)})"

    @classmethod
    def load(cls, encryption_keys: str | None, key_file: Path, production: bool) -> Vault:
        """Return a vault with the configured keys, or else with those of the key file, made once when missing.

        Args:
            encryption_keys: Fernet keys, comma-separated, newest first (FLUX_ENCRYPTION_KEYS), or None.
            key_file: one key a line, newest first; used when `encryption_keys` is not given.
            production: a missing key is then an error, never a fresh key.

        Raises:
            ConfigurationError: see `load_keys`.

        """
        configured = encryption_keys is not None and bool(encryption_keys.strip())
        return cls(load_keys(encryption_keys, key_file, production), key_file=None if configured else key_file)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The public names of the keys, newest first."""
        self._reload_if_changed()
        return self._ids

    def encrypt(self, secret: str) -> tuple[str, str]:
        """Encrypt with the newest key; return the ciphertext and the name of the key."""
        self._reload_if_changed()
        with self._mutex:
            return self._newest.encrypt(secret.encode()).decode(), self._ids[0]

    def decrypt(self, ciphertext: str, *, connection: str | None = None) -> str:
        """Decrypt with whichever key fits.

        Raises:
            DecryptionError: none fits; `connection` is named in it.

        """
        try:
            return self._all.decrypt(ciphertext.encode()).decode()
        except InvalidToken:
            if self._reload_if_changed():
                return self.decrypt(ciphertext, connection=connection)
        raise DecryptionError(
            f"a stored credential cannot be decrypted with any of the {len(self._ids)} configured keys",
            connection=connection,
            next_step=None
            if self.key_file is None
            else f"Restore the key file {self.key_file} from a backup, or store the connection's secrets anew.",
        ) from None

    def add_key(self) -> str:
        """Put a new key in front of the key file and return its name. The caller holds the keys lock.

        Raises:
            ConfigurationError: the keys come from the environment, where only its owner can add one.

        """
        path = self._own_file("add the new key")
        keys = read_key_file(path)
        self._write_file(path, [generate_key(), *keys])
        return self._ids[0]

    def keep_only_newest(self) -> int:
        """Drop every key but the newest from the key file; return how many. The caller holds the keys lock.

        Copies that a rotation which was killed has left beside the file go too: they hold the old keys.

        Raises:
            ConfigurationError: the keys come from the environment, where only its owner can remove them.

        """
        path = self._own_file("remove the old keys")
        keys = read_key_file(path)
        if len(keys) > 1:
            self._write_file(path, keys[:1])
        _delete_unfinished(path)
        return len(keys) - 1

    def _own_file(self, what: str) -> Path:
        if self.key_file is None:
            raise ConfigurationError(
                "the keys come from FLUX_ENCRYPTION_KEYS, which Flux cannot change",
                next_step=f"Where that variable is set, {what} (newest first; `flux keys generate` makes one).",
            )
        return self.key_file

    def _set(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ConfigurationError("there is no encryption key", next_step="Make one with `flux keys generate`.")
        try:
            ciphers = [Fernet(key) for key in keys]
        except (ValueError, TypeError):
            # Without `from`: the cause may quote the key.
            raise ConfigurationError(
                "one of the encryption keys is not a Fernet key (32 bytes, URL-safe base64)",
                next_step="Make one with `flux keys generate`.",
            ) from None
        self._newest, self._all, self._ids = ciphers[0], MultiFernet(ciphers), tuple(key_id(key) for key in keys)

    def _reload_if_changed(self) -> bool:
        if self.key_file is None:
            return False
        with self._mutex:
            stamp = _stamp(self.key_file)
            if stamp == self._stamp or stamp is None:
                return False
            self._set(read_key_file(self.key_file))
            self._stamp = stamp
            return True

    def _write_file(self, path: Path, keys: Sequence[str]) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            _delete_unfinished(path)
            _write_new(temporary, keys)
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise translate_os_error(error, f"the key file {path}") from error
        self._reload_if_changed()


def load_keys(encryption_keys: str | None, key_file: Path, production: bool) -> tuple[str, ...]:
    """Return the encryption keys, newest first: the configured ones, else those of the key file.

    On a developer's machine a missing key file is made once; processes that race for it agree on one key.

    Raises:
        ConfigurationError: none configured in production; the key file is readable by others, empty or unreadable.
        StorageFullError: no space left for a new key file.

    """
    if encryption_keys is not None and encryption_keys.strip():
        return tuple(key.strip() for key in encryption_keys.split(",") if key.strip())
    if production:
        raise ConfigurationError(
            "FLUX_ENCRYPTION_KEYS is not set, and in production a fresh key is never made",
            next_step="Set it to the keys the credentials were encrypted with (`flux keys generate` makes a first one).",
        )
    try:
        key_file.parent.mkdir(parents=True, exist_ok=True)
        _write_new(key_file, [generate_key()])
        _sync_folder(key_file.parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise translate_os_error(error, f"the key file {key_file}") from error
    return read_key_file(key_file)


def read_key_file(path: Path) -> tuple[str, ...]:
    """Return the keys of a key file, newest first; wait a moment for a process that is just writing it.

    Raises:
        ConfigurationError: readable by others, empty or unreadable.

    """
    deadline = time.monotonic() + _WRITE_PATIENCE
    while True:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise translate_os_error(error, f"the key file {path}") from error
        if mode & 0o077:
            raise ConfigurationError(
                f"the key file {path} can be read by others (mode {mode:04o})", next_step=f"Run: chmod 600 {path}"
            )
        keys = tuple(line.strip() for line in content.splitlines() if line.strip())
        # The last byte written is the newline: without it, somebody is still writing.
        if keys and content.endswith("\n"):
            return keys
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"the key file {path} is empty or cut off",
                next_step="Restore it from a backup; if no account was connected yet, remove it and run again.",
            )
        time.sleep(0.02)


def _write_new(path: Path, keys: Sequence[str]) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, "".join(f"{key}\n" for key in keys).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_unfinished(path: Path) -> None:
    """Delete what writers of a key file have left that were killed. The caller holds the keys lock: nobody is writing."""
    try:
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise translate_os_error(
            error, f"what a rotation that was cut short left beside the key file {path}"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
