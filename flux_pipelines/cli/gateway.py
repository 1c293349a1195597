"""`flux gateway`: the pages, callbacks, webhooks and machine endpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from flux_pipelines.cli.output import say, warn
from flux_pipelines.gateway.options import DEFAULT_PORT
from flux_pipelines.settings import settings as process_settings


def gateway(
    port: Annotated[int, typer.Option(help="Port to answer on.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="Address to answer on. Anything but this machine needs TLS or a trusted proxy.")
    ] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the port.")] = 1,
) -> None:
    """Serve the connections pages, sign-in, OAuth callbacks, webhooks and machine endpoints."""
    from flux_pipelines.gateway.server import log_to_stderr, serve

    settings = process_settings()
    if not settings.allowed_people.strip():
        warn("Nobody may sign in: set FLUX_ALLOWED_PEOPLE to e-mail addresses and @domains.")
    log_to_stderr()
    serve(
        settings,
        host=host,
        port=port,
        workers=workers,
        ready=lambda url: say(f"The gateway answers at {url} (Ctrl+C to stop)."),
    )
