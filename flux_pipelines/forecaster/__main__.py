"""`python -m flux_pipelines.forecaster serve`: what the container runs. Plain argparse: no dependency but the server's."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

PARENT_CHECK_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="forecaster", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; a container's own is 0.0.0.0")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="serve /ping and /invocations until SIGTERM")
    command.add_argument("--host", default=argparse.SUPPRESS, help="the same")
    command.add_argument("--port", type=int, default=8080)
    command.add_argument("--endpoint", action="append", default=[], help="also answer boto3's invoke_endpoint as this")
    command.add_argument("--workers", type=int, default=2, help="model processes")
    command.add_argument("--queue", type=int, default=256, help="requests that may wait or run at once")
    command.add_argument("--fd", type=int, help="a bound socket inherited from the parent, instead of host and port")
    command.add_argument("--parent", type=int, help="stop when this process, which started us, is gone")
    serve(parser.parse_args(arguments))


def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first."""
    # Ends the process with status 0: while it still loads, and after uvicorn has shut down and raised the signal again.
    # As process 1 of a container there is no default handler at all.
    for asked_to_end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked_to_end, _end)

    import uvicorn

    from flux_pipelines.forecaster.app import create_app

    if options.parent is not None:
        threading.Thread(target=_stop_without, args=(options.parent,), daemon=True, name="parent-watch").start()
    broken = threading.Event()

    def give_up() -> None:
        # A container that ends says at once what one that never becomes ready says after minutes.
        broken.set()
        server.should_exit = True

    app = create_app(endpoints=options.endpoint, processes=options.workers, queue=options.queue, when_broken=give_up)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        # SageMaker kills a container 30 s after SIGTERM.
        timeout_graceful_shutdown=20,
    )
    sockets = [socket.socket(fileno=options.fd)] if options.fd is not None else None
    server = uvicorn.Server(config)
    server.run(sockets=sockets)
    if broken.is_set():
        sys.exit(1)


def _end(_signal: int, _frame: object) -> None:
    sys.exit(0)


def _stop_without(parent: int) -> None:
    # Polling is the one way that works on every system and when the parent was killed: PR_SET_PDEATHSIG follows the
    # *thread* that started us, and an inherited pipe stays open in whatever else the parent forked.
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
