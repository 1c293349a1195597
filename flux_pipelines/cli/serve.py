"""`flux up` and `flux sandbox`: the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from flux_pipelines.cli.output import say
from flux_pipelines.cli.processes import Processes, answers, choose_port, port_is_free
from flux_pipelines.connect import connect_to_sandbox
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.runtime import Runtime
from flux_pipelines.sandbox.options import DEFAULT_PORT, SandboxOptions
from flux_pipelines.settings import PROJECT_ROOT

UI_PORT = 3000
FORECASTER_PORT = 8412


def sandbox(
    port: Annotated[int, typer.Option(help="Port to answer on.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="Address to answer on; only this machine unless told otherwise.")
    ] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="Another seed makes another world.")] = 1,
    orders: Annotated[Path | None, typer.Option(metavar="DIR", help="Replay the real orders in this folder.")] = None,
    faults: Annotated[
        str, typer.Option(metavar="NAME=SHARE,...", help="Faults to inject, for example error500=0.05.")
    ] = "",
    token_lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="Life of access tokens.")] = 30 * 86_400.0,
    cursor_lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="Life of paging cursors.")] = 300.0,
    rate_limit: Annotated[int, typer.Option(help="Requests a minute and location before it answers 429.")] = 500,
) -> None:
    """Serve every provider's wire protocol over one seeded world, or over real order data."""
    from flux_pipelines.sandbox.server import serve

    options = SandboxOptions(
        seed=seed,
        orders=orders,
        faults=faults,
        token_lifetime=token_lifetime,
        cursor_lifetime=cursor_lifetime,
        rate_limit=rate_limit,
    )
    serve(options, host=host, port=port, ready=lambda url, _: say(f"The sandbox answers at {url} (Ctrl+C to stop)."))


def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Start the sandbox too.")] = False,
    port: Annotated[int, typer.Option(min=1, help="Port of the Dagster UI.")] = UI_PORT,
    sandbox_port: Annotated[int, typer.Option(help="Port of the sandbox.")] = DEFAULT_PORT,
) -> None:
    """Start the Dagster UI and daemon, with every default schedule and sensor running, until interrupted."""
    with Runtime() as runtime, Processes(runtime.settings.home) as processes:
        if not port_is_free(port):
            raise ConfigurationError(f"port {port} is in use", next_step="Choose another with --port.")
        if sandbox:
            url = start_sandbox(processes, sandbox_port)
            reconnect_to_sandbox(runtime, url)
            say(f"Sandbox      {url}")
        start_dagster(processes, runtime, port)
        processes.wait()


def start_sandbox(processes: Processes, port: int, *arguments: str) -> str:
    """Start the sandbox as a child; return its URL."""
    if not port_is_free(port):
        raise ConfigurationError(f"port {port} is in use", next_step="Choose another with --sandbox-port.")
    processes.start(
        "sandbox",
        ["flux_pipelines.cli", "sandbox", "--port", str(port), *arguments],
        ready=lambda: answers(port),
    )
    return f"http://127.0.0.1:{port}"


def reconnect_to_sandbox(runtime: Runtime, url: str) -> None:
    """Give the connections of this sandbox new tokens: a sandbox forgets its tokens when it ends."""
    for connection in runtime.state.connections.list():
        here = urlsplit(str(connection.settings.get("base_url", ""))).netloc == urlsplit(url).netloc
        if here and connection.status != "disconnected":
            runtime.state.connections.set_status(connection.key, "needs_reauth", "the sandbox was started anew")
            connect_to_sandbox(
                runtime, connection.key, tenant=connection.tenant, url=url, merchant=connection.account_id
            )
            if connection.status == "paused":
                runtime.state.connections.set_status(connection.key, "paused", connection.status_reason)


def start_dagster(processes: Processes, runtime: Runtime, port: int) -> None:
    """Start the forecaster (if it is ours) and the Dagster UI and daemon as children; return when they answer."""
    from flux_pipelines.pipelines.drive import dagster_home

    environment = {"DAGSTER_HOME": str(dagster_home(runtime.settings)), "FLUX_HOME": str(runtime.settings.home)}
    if runtime.settings.forecast_url == "embedded":
        # One forecaster for every run: its libraries take seconds to load. It is ready before the first run asks.
        forecaster_port = choose_port(FORECASTER_PORT)
        environment["FLUX_FORECAST_URL"] = f"http://127.0.0.1:{forecaster_port}"
        processes.start(
            "forecaster",
            [
                "flux_pipelines.forecaster",
                *("serve", "--port", str(forecaster_port), "--endpoint", runtime.settings.forecast_endpoint),
            ],
            ready=lambda: True,
        )
    processes.start(
        "dagster",
        ["dagster", "dev", "-w", str(PROJECT_ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)],
        ready=lambda: answers(port),
        environment=environment,
    )
    say(f"Dagster UI   http://127.0.0.1:{port}")
    say("Press Ctrl+C to stop.")
