"""`flux gateway` as it is run: a process of its own, with two workers on one port, ended by a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at processes through /proc")
def test_two_workers_serve_one_port_and_end_together(tmp_path: Path) -> None:
    port, log = _free_port(), tmp_path / "log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flux_pipelines.cli", "gateway", "--port", str(port), "--workers", "2"],
            env={**os.environ, "FLUX_HOME": str(tmp_path / "home"), "FLUX_ALLOWED_PEOPLE": "@example.com"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while b"Application startup complete" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert httpx.get(f"{url}/readyz", trust_env=False, timeout=60).text == "ready\n"
        with Runtime(Settings(home=tmp_path / "home"), patient=False) as rooms:
            _, token = rooms.state.api_tokens.create("a machine", "command line (tests)")
        for _ in range(10):  # whichever worker answers
            answer = httpx.get(f"{url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
            assert answer.json()["name"] == "a machine"
        assert httpx.get(f"{url}/sign-in", headers={"host": "evil.example"}, trust_env=False).status_code == 421
        children = _children(process.pid)
        assert len(children) >= 2
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    said = log.read_text()
    assert f"The gateway answers at {url}" in said
    assert "Traceback" not in said
    assert token not in said
    deadline = time.monotonic() + 20
    while not all(_gone(child) for child in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", trust_env=False)
