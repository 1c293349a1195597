"""Our own forecaster as a child process on a loopback port, for who has no endpoint on AWS."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

from flux_pipelines.domain.errors import ForecastError
from flux_pipelines.settings import of_children

#: Loading takes 3 to 10 s on a free machine; SageMaker's own default allows a container four minutes.
START_TIMEOUT = 240.0
_STOP_TIMEOUT = 25.0


class EmbeddedForecaster:
    """The forecaster server as a child of this process; it ends with it, even when this process is killed.

    `start` returns at once, so that the seconds the model takes to load pass while other work is done; `url` waits.

    Args:
        endpoint_names: the endpoints the server answers to.
        workers: model processes.
        queue: requests that may wait or run at once before callers are throttled.

    """

    def __init__(self, endpoint_names: Sequence[str], *, workers: int = 2, queue: int = 256) -> None:
        self._endpoint_names = tuple(endpoint_names)
        self._queue = queue
        self._workers = workers
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._port = 0
        self._ready = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server if it does not run; do not wait for it."""
        with self._lock:
            self._start()

    @property
    def url(self) -> str:
        """Where the server listens, once it is ready; started first if need be.

        Raises:
            ForecastError: the server ended or did not become ready in four minutes.

        """
        with self._lock:
            self._start()
            if not self._ready:
                self._wait()
                self._ready = True
            return f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """End the server and wait for it."""
        with self._lock:
            process, self._process, self._ready = self._process, None, False
            if process is not None:
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if self._log is not None:
                self._log.close()
                self._log = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._ready = False
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        # The port is bound here and handed over: nobody can take it before the child listens.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = int(listener.getsockname()[1])
            command = [sys.executable, "-m", "flux_pipelines.forecaster", "serve", "--host", "127.0.0.1"]
            command += ["--fd", str(listener.fileno()), "--parent", str(os.getpid()), "--workers", str(self._workers)]
            command += ["--queue", str(self._queue)]
            for name in self._endpoint_names:
                command += ["--endpoint", name]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=(listener.fileno(),),
                env=_environment(),
                # An interrupt at the terminal is for the parent, which may still have items to forecast.
                start_new_session=True,
            )

    def _wait(self) -> None:
        process = self._process
        give_up = time.monotonic() + START_TIMEOUT
        while process is not None and time.monotonic() < give_up:
            if process.poll() is not None:
                raise ForecastError(f"the embedded forecaster ended with status {process.returncode}: {self._tail()}")
            if _answers_ping(self._port):
                return
            time.sleep(0.1)
        raise ForecastError(f"the embedded forecaster was not ready after {START_TIMEOUT:.0f} s: {self._tail()}")

    def _tail(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        return self._log.read().decode("utf-8", "replace").strip() or "it printed nothing"


_shared: dict[tuple[int, str], EmbeddedForecaster] = {}
_shared_lock = threading.Lock()


def shared(endpoint_name: str) -> EmbeddedForecaster:
    """Return this process's own embedded forecaster for that endpoint name, started; it ends with the process."""
    with _shared_lock:
        # A forked child must not use its parent's: it would see the server end with the parent.
        key = (os.getpid(), endpoint_name)
        if key not in _shared:
            _shared[key] = EmbeddedForecaster([endpoint_name])
            atexit.register(_stop_own, key[0], _shared[key])
        forecaster = _shared[key]
    forecaster.start()
    return forecaster


def _stop_own(pid: int, forecaster: EmbeddedForecaster) -> None:
    if pid == os.getpid():
        forecaster.stop()


def _environment() -> dict[str, str]:
    """Return the environment without what the server has no use for: Flux's and AWS's settings hold secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLUX_", "AWS_"))}
    # Forecasts run in parallel in processes; threads inside numpy would only get in each other's way.
    return kept | of_children() | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _answers_ping(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
