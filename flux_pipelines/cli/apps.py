"""`flux apps`: Flux's own registrations at providers and identity providers."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flux_pipelines.cli.connections import json_object
from flux_pipelines.cli.output import say, table
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.apps import check_app
from flux_pipelines.runtime import Runtime

app = typer.Typer(
    help="Flux's own registrations: client id, secret and webhook key at each provider.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Where: a provider (square), google or github.")]


@app.command("set")
def set_(
    name: Name,
    secrets: Annotated[str, typer.Option(metavar="-", help="`-` reads the secrets as JSON from standard input.")],
    settings: Annotated[str, typer.Option(metavar="JSON", help="Settings, as a JSON object.")] = "{}",
) -> None:
    """Store a registration, its secrets encrypted. One of that name is replaced whole."""
    if secrets != "-":
        raise ConfigurationError(
            "secrets are read from standard input only, never from the command line",
            next_step="Use `--secrets -` and pipe the JSON in.",
        )
    chosen = json_object(settings, "the settings")
    given = json_object(sys.stdin.read(), "the secrets")
    check_app(name, chosen, given)
    with Runtime() as runtime:
        stored = runtime.state.apps.put(name, chosen, given)
    say(f"Flux is registered at {name} (secrets: {', '.join(stored.secret_names)}).")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the registrations: settings, and the names of their secrets."""
    with Runtime() as runtime:
        found = runtime.state.apps.list()
    if as_json:
        typer.echo(
            json.dumps(
                [
                    {
                        "name": x.name,
                        "settings": dict(x.settings),
                        "secrets": list(x.secret_names),
                        "updated_at": x.updated_at.isoformat(),
                    }
                    for x in found
                ],
                indent=2,
            )
        )
    elif not found:
        say("Flux is not registered anywhere yet. See `flux apps set --help`.")
    else:
        table(
            "",
            ("app", "settings", "secrets", "changed"),
            [
                (
                    x.name,
                    "\n".join(f"{name} = {value}" for name, value in x.settings.items()),
                    ", ".join(x.secret_names),
                    f"{x.updated_at:%Y-%m-%d %H:%M} UTC",
                )
                for x in found
            ],
        )


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a registration and its secrets. Connections made through it cannot be refreshed without it."""
    with Runtime() as runtime:
        if not yes and not typer.confirm(f"Remove the registration at {name} and its secrets?"):
            raise typer.Exit(1)
        runtime.state.apps.remove(name)
    say(f"Removed {name}.")
