"""One worker of a gateway on a socket that it is given: the real one, or the same that answers 200 and does nothing more."""

from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING, Any

from benchmarks.webhooks import ACCOUNT, KEY
from flux_pipelines.domain.connection import Connection
from flux_pipelines.gateway.app import build_app
from flux_pipelines.gateway.options import gateway_options
from flux_pipelines.gateway.server import _server, tune_garbage_collector
from flux_pipelines.gateway.webhooks import Deliveries
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings

if TYPE_CHECKING:
    from starlette.types import Receive


class Bare(Deliveries):
    """Reads the body; verifies and stores nothing."""

    async def _take(self, _: str, scope: Any, receive: Receive) -> bytes:
        await self._body(scope["headers"], receive)
        return b""


def register(url: str) -> None:
    """Put the app and a connection into a fresh state database."""
    with Runtime(settings(), patient=False) as runtime:
        secrets = {"client_id": "id", "client_secret": "secret", "webhook_signature_key": KEY}
        runtime.state.apps.put("square", {"notification_url": url}, secrets)
        runtime.state.connections.add(Connection("square:bench", "bench", account_id=ACCOUNT))


def serve(fd: int, *, bare: bool) -> None:
    """Answer on a listening socket that other workers may share."""
    listener = socket.socket(fileno=fd)
    options = gateway_options(settings(), port=listener.getsockname()[1])
    with Runtime(settings(), patient=False) as runtime:
        app = build_app(runtime, options)
        if bare:
            app.state.deliveries = Bare(runtime)
        tune_garbage_collector()
        _server(app, options).run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fd", type=int, help="the listening socket")
    what.add_argument("--register", metavar="URL", help="only prepare the state database")
    what.add_argument("--count", action="store_true", help="only tell how many events are stored")
    parser.add_argument("--bare", action="store_true")
    chosen = parser.parse_args()
    if chosen.register:
        register(chosen.register)
    elif chosen.count:
        with Runtime(settings(), patient=False) as runtime:
            print(sum(runtime.state.inbox.counts().values()))
    else:
        serve(chosen.fd, bare=chosen.bare)


if __name__ == "__main__":
    main()
