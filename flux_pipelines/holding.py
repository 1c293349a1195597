"""Locks that one process has at a time. The kernel lets go of them however a process ends; who has one is written in it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lock, as it has written there itself.

    Args:
        what: in words: `flux up`.
        pid: its process; 0 while it has not written that yet.
        host: the machine that this process is on.
        since: when it took the lock, in ISO 8601.

    """

    what: str
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        """Return it in words for people."""
        if not self.pid:
            return f"{self.what} that has just started"
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since[:16].replace('T', ' ')} UTC)"

    def lives(self) -> bool:
        """Tell whether its process is there; yes when that cannot be seen from here."""
        if not self.pid or self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def hold(path: Path, what: str, *, otherwise: Callable[[Holder], None]) -> IO[str]:
    """Take a lock and return its open file; the lock is held until that and every inherited copy of it are closed.

    Args:
        path: the lock's file; made if it is not there.
        what: who takes it, in words.
        otherwise: called with the holder when somebody has it; it raises, or returns to have it tried again.

    """
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                otherwise(_read(file))
            continue
        me = Holder(what, os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))
        file.truncate(0)
        file.write(json.dumps(asdict(me)))
        file.flush()
        return file


def _read(file: IO[str]) -> Holder:
    file.seek(0)
    try:
        return Holder(**json.load(file))
    except (ValueError, TypeError):  # it has the lock, and has not written yet
        return Holder("another process", 0, "", "")
