"""A gateway in a process of its own, which can be killed and started again on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from flux_pipelines.settings import PROJECT_ROOT


class GatewayProcess:
    """`flux gateway` on a port.

    Args:
        home: its home.
        port: where it answers.
        database_url: its state database, if not SQLite in the home.

    """

    def __init__(self, home: Path, port: int, database_url: str | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "flux_pipelines.cli", "gateway", "--port", str(port)]
        self._environment = {**os.environ, "FLUX_HOME": str(home)}
        self._environment.pop("FLUX_DATABASE_URL", None)
        if database_url:
            self._environment["FLUX_DATABASE_URL"] = database_url
        self._log = (home / "gateway.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, cwd=PROJECT_ROOT, env=self._environment, stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, "the gateway ended"
                assert time.monotonic() < deadline, "the gateway does not answer"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def resident_kib(self) -> int:
        """How much memory it holds now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def close(self) -> None:
        self.kill()
        self._log.close()
