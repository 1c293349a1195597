"""Runs the gateway: in this process for `flux gateway`, over several workers, or beside a test."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from flux_pipelines.gateway.app import build_app
from flux_pipelines.gateway.options import BODY_SECONDS, DEFAULT_PORT, HEAD_SECONDS, GatewayOptions, gateway_options
from flux_pipelines.gateway.protocol import guarded_protocol
from flux_pipelines.listening import listen
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings, of_children
from flux_pipelines.settings import settings as process_settings
from flux_pipelines.transport.redact import RedactingFilter

_START_SECONDS = 60.0
_GRACE_SECONDS = 10
_HOST, _PORT = "127.0.0.1", DEFAULT_PORT


def serve(
    settings: Settings, *, host: str = _HOST, port: int = _PORT, workers: int = 1, ready: Callable[[str], None]
) -> None:
    """Serve the gateway until interrupted.

    Args:
        settings: the process's settings.
        host: where to listen; anything but loopback needs TLS or a trusted proxy.
        port: 0 for any free one.
        workers: processes that share the port; each has its own connections to the state database.
        ready: called with the public URL just before the first request can be answered.

    Raises:
        ConfigurationError: it would not be safe to serve, or cannot be; nothing was served.

    """
    gateway_options(settings, host=host, port=port or 1)  # refuse before a socket is open
    with listen("the gateway", host, port) as listener:
        options = gateway_options(settings, host=host, port=listener.getsockname()[1])
        if workers > 1:
            _serve_with_workers(settings, options, listener, workers, ready)
            return
        with Runtime(settings, patient=False) as runtime:
            server = _server(build_app(runtime, options), options)
            tune_garbage_collector()
            ready(options.public_url)
            server.run(sockets=[listener])


def _config(app: ASGIApp | str, options: GatewayOptions) -> dict[str, Any]:
    return {
        "app": app,
        "http": guarded_protocol(
            head_seconds=options.head_seconds, body_seconds=options.body_seconds, write_seconds=options.write_seconds
        ),
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        # Never uvicorn's defaults: they trust what the environment says, and 127.0.0.1.
        "proxy_headers": bool(options.trusted_proxies),
        "forwarded_allow_ips": list(options.trusted_proxies),
        "ssl_certfile": options.tls_certificate,
        "ssl_keyfile": options.tls_key,
        "timeout_keep_alive": 65,
        "timeout_graceful_shutdown": _GRACE_SECONDS,
    }


def tune_garbage_collector() -> None:
    """Spare the garbage collector the objects that stay for as long as the process does.

    Requests that wait for the database hold many small objects: with Python's own thresholds, looking through them again
    and again took a quarter of a webhook's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _server(app: ASGIApp, options: GatewayOptions) -> uvicorn.Server:
    _guard_logs()
    return uvicorn.Server(uvicorn.Config(**_config(app, options)))


class _WithoutQuery(logging.Filter):
    """Callbacks carry codes and states in their query, and uvicorn's access log repeats it to whoever listens."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(str(one).partition("?")[0] if isinstance(one, str) else one for one in record.args)
        return True


def _guard_logs() -> None:
    for name, guard in (("uvicorn.error", RedactingFilter), ("uvicorn.access", _WithoutQuery)):
        logger = logging.getLogger(name)
        if not any(isinstance(present, guard) for present in logger.filters):
            logger.addFilter(guard())


def log_to_stderr() -> None:
    """Write what the gateway logs to standard error, as `flux gateway` does."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("flux_pipelines", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)


# --- several workers ---

WorkerProtocol = guarded_protocol(head_seconds=HEAD_SECONDS, body_seconds=BODY_SECONDS)


def worker() -> ASGIApp:
    """Return the application of one worker process, from the environment that `serve` has set for it."""
    settings = process_settings()
    _guard_logs()
    log_to_stderr()
    # The address was checked by the parent, which listens on it.
    options = gateway_options(settings, host=_HOST)
    app = build_app(Runtime(settings, patient=False), options, closes_runtime=True)
    tune_garbage_collector()
    return app


def _serve_with_workers(
    settings: Settings,
    options: GatewayOptions,
    listener: socket.socket,
    workers: int,
    ready: Callable[[str], None],
) -> None:
    with Runtime(settings, patient=False) as runtime:
        _ = runtime.state  # keys and schema are made once, here, and not by all workers at once
    # What is only known here: the port, and with it the public URL.
    os.environ.update({**of_children(), "FLUX_PUBLIC_URL": options.public_url, "FLUX_HOME": str(settings.home)})
    config = _config("flux_pipelines.gateway.server:worker", options)
    config["http"] = "flux_pipelines.gateway.server:WorkerProtocol"  # a name: workers are sent their configuration
    ready(options.public_url)
    uvicorn.run(**config, factory=True, workers=workers, fd=listener.fileno())


# --- beside a test ---


class RunningGateway:
    """A gateway on a free loopback port in a thread of this process, while the context lasts.

    Args:
        runtime: the opened rooms; the caller closes them.
        port: 0 for any free one.
        changes: fields of `GatewayOptions` that differ from what the settings say.

    """

    def __init__(self, runtime: Runtime, *, port: int = 0, **changes: Any) -> None:
        self._runtime = runtime
        self._port = port
        self._changes = changes
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def __enter__(self) -> RunningGateway:
        listener = listen("the gateway", _HOST, self._port)
        options = gateway_options(self._runtime.settings, host=_HOST, port=listener.getsockname()[1])
        options = replace(options, **self._changes)
        scheme = "https" if options.tls_certificate else "http"
        self.url = f"{scheme}://{_HOST}:{listener.getsockname()[1]}"
        self.options = options
        self.app = build_app(self._runtime, options)
        server = self._server = _server(self.app, options)

        def run() -> None:
            with listener:
                server.run(sockets=[listener])

        self._thread = threading.Thread(target=run, name="gateway", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the gateway did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(15)
