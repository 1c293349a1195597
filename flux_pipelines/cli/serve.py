"""`flux up`: every server that an installation needs."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from flux_pipelines.cli.output import say, warn
from flux_pipelines.cli.processes import Processes, answers, choose_port, port_is_free
from flux_pipelines.connections import reconnect_to_sandbox
from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.domain.addresses import origin_of
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.gateway.options import DEFAULT_PORT as GATEWAY_PORT
from flux_pipelines.gateway.options import gateway_options
from flux_pipelines.listening import SANDBOX_PORT
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT

UI_PORT = 3000
#: Entry points of this group are further commands: the sandbox's, where it is installed.
COMMANDS = "flux.commands"
FORECASTER_PORT = 8412
#: Who may sign in at a sandbox's Google and GitHub, unless the settings name others.
SANDBOX_PEOPLE = "ada@example.com,grace@example.com"


def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Start the sandbox too.")] = False,
    port: Annotated[int, typer.Option(min=1, help="Port of the Dagster UI.")] = UI_PORT,
    sandbox_port: Annotated[int, typer.Option(help="Port of the sandbox.")] = SANDBOX_PORT,
    gateway_port: Annotated[int, typer.Option(min=1, help="Port of the gateway.")] = GATEWAY_PORT,
    gateway: Annotated[bool, typer.Option(help="Start the gateway too.")] = True,
) -> None:
    """Start the Dagster UI and daemon and the gateway, with every schedule and sensor running, until interrupted."""
    from flux_pipelines.defs.rebuild import unfinished

    with Runtime() as runtime, Processes(runtime.settings.make_home(), "`flux up`") as processes:
        if not port_is_free(port):
            raise ConfigurationError(f"port {port} is in use", next_step="Choose another with --port.")
        if gateway and not port_is_free(gateway_port):
            raise ConfigurationError(f"port {gateway_port} is in use", next_step="Choose another with --gateway-port.")
        if outdated := sorted({table.name for table in runtime.lake.outdated()} | unfinished(runtime).keys()):
            raise ConfigurationError(
                f"an earlier version of Flux made {', '.join(outdated)}, and they have not been made again",
                next_step="Run `flux rebuild`: it makes them from what was fetched.",
            )
        runtime.forget_unused_events()
        if sandbox:
            url = start_sandbox(processes, sandbox_port)
            register(runtime, url, gateway_port)
            reconnect(runtime, url)
            say(f"Sandbox      {url}")
        if gateway:
            start_gateway(processes, runtime, gateway_port, with_sandbox=sandbox)
        start_dagster(processes, runtime, port)
        processes.wait()


def register(runtime: Runtime, url: str, gateway_port: int) -> None:
    """Register the app at a sandbox: for sign-in, for connecting accounts, and for webhooks to the gateway."""
    for name in register_at_sandbox(runtime, url, gateway_url(runtime, gateway_port)):
        warn(f"Flux is registered at a {name} that is no sandbox; that stays, and the sandbox's {name} is not used.")


def gateway_url(runtime: Runtime, port: int) -> str:
    """Return where browsers and providers reach the gateway."""
    return gateway_options(runtime.settings, port=port).public_url


def start_gateway(processes: Processes, runtime: Runtime, port: int, *, with_sandbox: bool) -> None:
    """Start the gateway as a child; return when it answers. People of the sandbox may sign in if nobody else may."""
    environment = {"FLUX_HOME": str(runtime.settings.home)}
    if with_sandbox and not runtime.settings.allowed_people.strip():
        environment["FLUX_ALLOWED_PEOPLE"] = SANDBOX_PEOPLE
    processes.start(
        "gateway",
        ["flux_pipelines.cli", "gateway", "--port", str(port)],
        ready=lambda: answers(port),
        environment=environment,
    )
    say(f"Gateway      {gateway_url(runtime, port)}")


def start_sandbox(processes: Processes, port: int, *arguments: str) -> str:
    """Start the sandbox as a child; return its URL.

    Raises:
        ConfigurationError: it is not installed, or the port is in use.

    """
    if not entry_points(group=COMMANDS, name="sandbox"):
        raise ConfigurationError(
            "the sandbox is not installed", next_step="Install it: pip install 'flux-pipelines[sandbox]'."
        )
    if not port_is_free(port):
        raise ConfigurationError(f"port {port} is in use", next_step="Choose another with --sandbox-port.")
    processes.start(
        "sandbox",
        ["flux_pipelines.cli", "sandbox", "--port", str(port), *arguments],
        ready=lambda: answers(port),
    )
    return f"http://127.0.0.1:{port}"


def reconnect(runtime: Runtime, url: str) -> None:
    """Give the connections of sandboxes new tokens at this one; those that cannot be had are named, and stay behind."""
    for problem in reconnect_to_sandbox(runtime, url):
        warn(str(problem))


def start_dagster(processes: Processes, runtime: Runtime, port: int) -> None:
    """Start the forecaster (if it is ours) and the Dagster UI and daemon as children; return when they answer."""
    from flux_pipelines.defs.driver import dagster_home
    from flux_pipelines.defs.internals.instance import see_that_no_daemon_runs

    if public := runtime.settings.dagster_url:
        public = origin_of(public, "FLUX_DAGSTER_URL")  # refused here, and not in a log
    instance = dagster_home(runtime.settings)
    see_that_no_daemon_runs(instance)
    environment = {"DAGSTER_HOME": str(instance), "FLUX_HOME": str(runtime.settings.home)}
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
        [
            "flux_pipelines.defs.internals.webserver",
            "dev",
            "-w",
            str(_workspace(instance)),
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ],
        ready=lambda: answers(port),
        environment=environment,
    )
    say(f"Dagster UI   {public or f'http://127.0.0.1:{port}'}")
    say("Press Ctrl+C to stop.")


def _workspace(instance: Path, own: Path = PROJECT_ROOT / "workspace.yaml") -> Path:
    """Write the workspace with a working directory in which there are no modules for each code location; return it.

    Dagster's code server, and each run, looks for modules in its working directory first; without one that is where
    `flux up` was started. It is a setting of the file and not where the process is: paths in our settings may be relative.

    Args:
        instance: the folder to write it to.
        own: the project's workspace, with the code locations that people have added; its paths are relative to it.

    """
    import yaml

    text = yaml.safe_load(own.read_text())
    for entry in text["load_from"]:
        for kind, location in entry.items():
            if kind == "python_file":
                location["relative_path"] = str(own.parent / location["relative_path"])
            location["working_directory"] = str(own.parent / location.get("working_directory", instance))
    workspace = instance / "workspace.yaml"
    workspace.write_text(yaml.safe_dump(text, sort_keys=False))
    return workspace
