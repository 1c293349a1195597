"""Child processes of `flux up` and `flux demo`: one set a home, started, waited for, watched, and ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from flux_pipelines.cli import supervisor
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.holding import Holder, hold
from flux_pipelines.settings import of_children

STOP_GRACE_SECONDS = 15.0
#: A killed `flux up` leaves the lock to those who end its servers: they need so long at most, on a busy machine too.
_ORPHANS_SECONDS = 60.0


def port_is_free(port: int) -> bool:
    """Tell whether a server can be started on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_port(preferred: int) -> int:
    """Return the preferred port if it is free, else any that is."""
    if port_is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Tell whether something accepts connections on this port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


#: Without `site` and what lies beside it: it needs the standard library alone.
_SUPERVISED = (sys.executable, "-I", "-S", str(Path(supervisor.__file__)))


@dataclass
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Processes:
    """The child processes of a home, which live as long as the `with` block; logs go to `<home>/logs/`.

    A home has one at a time. However this process ends, its children and all that they start end with it
    (`cli.supervisor`), and until they have, the home is theirs.

    Args:
        home: where everything is kept.
        command: the command that starts them, for whoever else wants to: `flux up`.

    """

    def __init__(self, home: Path, command: str) -> None:
        self._home = home
        self._command = command
        self._logs = home / "logs"
        self._children: list[_Child] = []
        self._lock: IO[str] | None = None

    def __enter__(self) -> Processes:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take_home()
        self._logs.mkdir(exist_ok=True, mode=0o700)
        self._previous = signal.getsignal(signal.SIGTERM)
        _exit_when_terminated()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for child in reversed(self._children):
            child.process.terminate()
        for child in self._children:
            child.process.wait()  # it kills what does not end in time
        if self._lock is not None:
            self._lock.close()
        signal.signal(signal.SIGTERM, self._previous)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _take_home(self) -> IO[str]:
        """Take the home's lock.

        Raises:
            ConfigurationError: another process has it.

        """
        give_up = time.monotonic() + _ORPHANS_SECONDS

        def refuse(holder: Holder) -> None:
            if not holder.lives() and time.monotonic() < give_up:
                time.sleep(0.2)
                return
            ending = "" if holder.lives() else ", which is gone, but its servers have not ended yet"
            stop = (
                f"Stop that one first (Ctrl+C where it runs, or `kill {holder.pid}`)" if holder.pid else "Wait for it"
            )
            raise ConfigurationError(
                f"the home {self._home} is in use by {holder}{ending}",
                next_step=f"{stop}, or give this one a home of its own with FLUX_HOME. "
                "Commands that start no servers, such as `flux sync`, run beside it.",
            )

        return hold(self._home / "servers.lock", self._command, otherwise=refuse)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        seconds: float = 120.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a child and return when it is ready.

        Raises:
            ConfigurationError: it ended or was not ready in time; the message ends with its last lines.

        """
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            assert self._lock is not None  # noqa: S101 - taken on entry
            process = subprocess.Popen(
                [*_SUPERVISED, str(os.getpid()), str(STOP_GRACE_SECONDS), sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **of_children(), **(environment or {})},
                pass_fds=(self._lock.fileno(),),  # held until the last of them has ended
            )
        self._children.append(_Child(name, process, log))
        deadline = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None:
                raise ConfigurationError(f"{name} did not start: {_tail(log)}", next_step=f"Its log is {log}.")
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{name} was not ready within {seconds:.0f} s", next_step=f"Its log is {log}.")
            time.sleep(0.2)

    def wait(self) -> None:
        """Wait until a child ends by itself.

        Raises:
            ConfigurationError: always, naming the child that ended.

        """
        # Running assets in this process has made Dagster put its own handlers in place of ours.
        _exit_when_terminated()
        while True:
            for child in self._children:
                code = child.process.poll()
                if code is not None:
                    raise ConfigurationError(
                        f"{child.name} {_how_it_ended(code, child.log)}", next_step=f"Its log is {child.log}."
                    )
            time.sleep(1.0)


def _how_it_ended(code: int, log: Path) -> str:
    """Say how a child ended. What was killed has not said why: its last lines tell of something else."""
    number = -code if code < 0 else code - 128  # the supervisor's own, or of what it supervised
    if number in set(signal.Signals):
        return f"was ended by a signal ({signal.Signals(number).name})"
    return f"ended with code {code}: {_tail(log)}"


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])


def _exit_when_terminated() -> None:
    # A terminated parent must take its children along; the default action would skip the `with` block's end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_on_signal)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
