"""Runs the sandbox: in this process for `flux sandbox`, or beside it for tests and demonstrations.

`python -m flux_sandbox.server` is the child's side of `RunningSandbox(process=True)`: it reads its options as
one JSON line on standard input, says where it listens on standard output, and ends when its input does, so that it
cannot outlive whoever started it.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.listening import SANDBOX_PORT, listen
from flux_sandbox.app import build_app, build_world
from flux_sandbox.options import SandboxOptions, utc_now
from flux_sandbox.world import World

if TYPE_CHECKING:
    import uvicorn

_START_SECONDS = 120.0


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(world: World) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        build_app(world),
        log_level="critical",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        server_header=False,
    )
    return uvicorn.Server(config)


def serve(
    options: SandboxOptions,
    host: str = "127.0.0.1",
    port: int = SANDBOX_PORT,
    *,
    ready: Callable[[str, World], None] | None = None,
) -> None:
    """Serve a sandbox until interrupted.

    Args:
        options: what to serve.
        host: where to listen; only loopback unless another is given on purpose.
        port: 0 for any free one.
        ready: called with the URL and the world just before the first request can be answered.

    Raises:
        ConfigurationError: the options, the dataset or the port cannot be used; nothing was served.

    """
    with listen("the sandbox", host, port) as listener:
        gc.disable()  # a world is hundreds of thousands of small objects that stay: collecting them is pure delay
        try:
            world = build_world(options)
        finally:
            gc.enable()
        gc.collect()
        gc.freeze()
        server = _server(world)
        if ready is not None:
            ready(_url(listener), world)
        server.run(sockets=[listener])


class RunningSandbox:
    """A sandbox on a free loopback port, while the context lasts.

    Args:
        options: what to serve.
        process: run it in a process of its own (its `clock` is then the real one) instead of a thread of this one.
        port: 0 for any free one.

    """

    def __init__(self, options: SandboxOptions | None = None, *, process: bool = False, port: int = 0) -> None:
        self.options = options or SandboxOptions()
        self.url = ""
        self._in_process = process
        self._port = port
        self._world: World | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None

    @property
    def world(self) -> World:
        """The world being served; only of a sandbox in this process.

        Raises:
            RuntimeError: the world is in another process.

        """
        if self._world is None:
            raise RuntimeError("this sandbox's world is in another process: use its /sandbox endpoints")
        return self._world

    def __enter__(self) -> RunningSandbox:
        if self._in_process:
            self._start_child()
        else:
            self._start_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_thread(self) -> None:
        self._world = build_world(self.options)
        listener = listen("the sandbox", "127.0.0.1", self._port)
        self.url = _url(listener)
        server = self._server = _server(self._world)

        def run() -> None:
            with listener:
                server.run(sockets=[listener])

        self._thread = threading.Thread(target=run, name="sandbox", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)

    def _start_child(self) -> None:
        settings = asdict(self.options)
        del settings["clock"]
        settings["orders"] = str(self.options.orders) if self.options.orders else None
        settings["end_day"] = self.options.end_day.isoformat() if self.options.end_day else None
        command = [sys.executable, "-m", "flux_sandbox.server"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._child.stdin is not None  # noqa: S101
        assert self._child.stdout is not None  # noqa: S101
        self._child.stdin.write(json.dumps({"port": self._port, "options": settings}) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer.startswith("http"):
            self.stop()
            raise ConfigurationError(answer.strip() or "the sandbox ended before it could serve")
        self.url = answer.strip()

    def stop(self) -> None:
        """End it. Ending it twice does no harm."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server, self._thread = None, None
        if self._child is not None:
            child, self._child = self._child, None
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def options_from(settings: dict[str, Any]) -> SandboxOptions:
    """Return options from plain values, as a command line or a JSON line gives them: paths and days as text."""
    values = dict(settings)
    values["orders"] = Path(values["orders"]) if values.get("orders") else None
    try:
        values["end_day"] = date.fromisoformat(values["end_day"]) if values.get("end_day") else None
    except ValueError as error:
        raise ConfigurationError(f"end_day is not a date: {error}") from error
    return SandboxOptions(**values, clock=utc_now)


def _child_main() -> None:
    order = json.loads(sys.stdin.readline())

    def end_with_parent() -> None:
        sys.stdin.read()
        os._exit(0)

    def ready(url: str, _: World) -> None:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        threading.Thread(target=end_with_parent, daemon=True).start()

    try:
        serve(options_from(order["options"]), port=order["port"], ready=ready)
    except ConfigurationError as error:
        sys.stdout.write(f"{error}\n")
        sys.stdout.flush()
        sys.exit(1)


if __name__ == "__main__":
    _child_main()
