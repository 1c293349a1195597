from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from flux_pipelines.domain.errors import ForecastError
from flux_pipelines.forecaster.embedded import EmbeddedForecaster

PARENT = """
import sys, time
from flux_pipelines.forecaster.embedded import shared
began = time.monotonic()
forecaster = shared("flux-demand")
assert shared("flux-demand") is forecaster
assert time.monotonic() - began < 2, "starting does not wait for the model"
if sys.argv[1] == "end":
    print(forecaster.url, flush=True)
else:
    print(forecaster._process.pid, flush=True)
    time.sleep(60)
"""


def test_it_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    # Killed while the model is still loading: the fork server and its workers must go too.
    time.sleep(1.0)
    family = [server, *server.children(recursive=True)]
    assert len(family) > 1
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert psutil.wait_procs(family, timeout=30)[1] == []


def test_it_ends_with_its_parent() -> None:
    ended = subprocess.run([sys.executable, "-c", PARENT, "end"], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    port = int(ended.stdout.strip().rpartition(":")[2])
    assert [c for c in psutil.net_connections("tcp") if c.laddr.port == port and c.status == psutil.CONN_LISTEN] == []


def test_secrets_are_not_handed_to_the_server(monkeypatch: pytest.MonkeyPatch, forecaster: EmbeddedForecaster) -> None:
    from flux_pipelines.forecaster.embedded import _environment

    monkeypatch.setenv("FLUX_ENCRYPTION_KEYS", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "secret" not in _environment().values()
    environment = psutil.Process(forecaster._process.pid).environ()  # type: ignore[union-attr]
    assert not [name for name in environment if name.startswith(("FLUX_", "AWS_"))]


def test_a_server_that_cannot_start_says_why() -> None:
    broken = EmbeddedForecaster(["flux-demand"], workers=0)
    with pytest.raises(ForecastError, match=r"(?s)ended with status 1: .*max_workers must be greater than 0"):
        _ = broken.url
    broken.stop()
