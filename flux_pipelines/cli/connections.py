"""`flux connections`: connect accounts, look at them, pause and remove them."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from flux_pipelines.cli.output import counted, error, say, table
from flux_pipelines.connections import (
    add_with_secrets,
    connect_to_sandbox,
    lifecycle,
    needs_test,
    parse_settings,
    reconfigure,
)
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_pipelines.runtime import Runtime

# A person waits: what does not answer is given up within seconds (`patient=False`).
app = typer.Typer(help="Connect accounts, look at them, pause and remove them.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="PROVIDER:NAME", help="The connection, for example square:acme.")]


def json_object(text: str, what: str) -> dict[str, Any]:
    """Read what was given as a JSON object; `what` names it in the error, which never repeats it."""
    try:
        value = decode(text)
    except ValueError:
        # The text may hold secrets: neither it nor the parser's excerpt may be shown.
        raise ConfigurationError(f"{what} are not valid JSON", next_step='Write them as {"name": "value"}.') from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{what} must be a JSON object", next_step='Write them as {"name": "value"}.')
    return value


@app.command()
def add(
    key: Key,
    tenant: Annotated[str, typer.Option(help="The customer whose account this is.")],
    settings: Annotated[str, typer.Option(metavar="JSON", help="Settings, as a JSON object.")] = "{}",
    secrets: Annotated[
        str | None, typer.Option(metavar="-", help="`-` reads the secrets as a JSON object from standard input.")
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option(metavar="URL", help="Connect to a sandbox's merchant through its own OAuth.")
    ] = None,
    merchant: Annotated[
        str | None, typer.Option(help="With --sandbox: which merchant; default: the one of that name, else a free one.")
    ] = None,
) -> None:
    """Connect an account: store its secrets encrypted, prove that they work, and list its locations."""
    chosen = parse_settings(key, json_object(settings, "the settings"))
    if (secrets is None) == (sandbox is None):
        raise ConfigurationError("give either --secrets - or --sandbox URL")
    with Runtime(patient=False) as runtime:
        if sandbox is not None:
            connection, locations = connect_to_sandbox(
                runtime, key, tenant=tenant, url=sandbox, merchant=merchant, settings=chosen
            )
        else:
            if secrets != "-":
                raise ConfigurationError(
                    "secrets are read from standard input only, never from the command line",
                    next_step="Use `--secrets -` and pipe the JSON in.",
                )
            given = json_object(sys.stdin.read(), "the secrets")
            connection, locations = add_with_secrets(runtime, key, tenant=tenant, settings=chosen, secrets=given)
        say(
            f"Connected {connection.key} (account {connection.account_id or 'unknown'}) for tenant {connection.tenant}."
        )
        _print_locations(locations)


def _print_locations(locations: Any) -> None:
    table(
        "",
        ("location", "name", "time zone", "currency", "active"),
        [(x.location_id, x.name, x.timezone, x.currency, "yes" if x.active else "no") for x in locations],
    )


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List every connection with its status, and how its last calls went."""
    with Runtime(patient=False) as runtime:
        found = runtime.state.connections.list()
        troubles = {key: contact.trouble() for key, contact in runtime.contacts(found).items()}
        rows = [
            (
                c.key,
                c.tenant,
                c.status,
                trouble.word if (trouble := troubles.get(c.key)) else "good" if c.key in troubles else "",
                trouble.why if trouble else c.status_reason,
                c.account_id,
                len(runtime.state.locations.list(c.key)),
                c.settings.get("base_url", ""),
            )
            for c in found
        ]
    columns = ("connection", "tenant", "status", "contact", "reason", "account", "locations", "base_url")
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    elif not rows:
        say("No connections yet. Add one with `flux connections add`, or see it all at work with `flux demo`.")
    else:
        table("", columns, rows, right=("locations",))


@app.command()
def test(keys: Annotated[list[str] | None, typer.Argument(metavar="[PROVIDER:NAME]...")] = None) -> None:
    """Call the provider with each connection's credentials (default: all that are not paused)."""
    failed = 0
    with Runtime(patient=False) as runtime:
        chosen = [c for c in runtime.connections(keys=keys or ()) if keys or c.status not in ("paused", "disconnected")]
        for connection in chosen:
            try:
                locations = lifecycle.test_connection(runtime, connection.key)
            except FluxError as problem:
                failed += 1
                error(problem.outside_a_run())
            else:
                say(f"{connection.key}: works, {counted(len(locations), 'location')}")
    if failed:
        raise typer.Exit(1)


@app.command()
def refresh(key: Key) -> None:
    """Get a new access token now, whether it is time or not."""
    with Runtime(patient=False) as runtime:
        runtime.token_manager(runtime.state.connections.get(key)).refresh()
        expiry = runtime.state.secrets.expiries().get(key, {}).get("expires_at")
    say(f"{key} has a new access token{f', good until {expiry:%Y-%m-%d %H:%M} UTC' if expiry else ''}.")


@app.command()
def pause(key: Key) -> None:
    """Stop syncing a connection; its credentials and history stay."""
    with Runtime(patient=False) as runtime:
        lifecycle.pause(runtime, key, by="a person")
    say(f"Paused {key}. `flux connections resume {key}` starts it again.")


@app.command()
def resume(key: Key) -> None:
    """Start syncing a paused connection again."""
    with Runtime(patient=False) as runtime:
        lifecycle.resume(runtime, key)
    say(f"Resumed {key}.")


@app.command()
def configure(
    key: Key,
    settings: Annotated[
        str, typer.Option(metavar="JSON", help="Settings to change; null takes one back to its default.")
    ] = "{}",
    secrets: Annotated[
        str | None, typer.Option(metavar="-", help="`-` reads new secrets as a JSON object from standard input.")
    ] = None,
) -> None:
    """Change a connection's settings, or give it new secrets. Its history stays; nothing is kept that does not work."""
    if secrets not in (None, "-"):
        raise ConfigurationError("secrets are read from standard input only", next_step="Use `--secrets -`.")
    changes = json_object(settings, "the settings")
    parse_settings(key, {name: value for name, value in changes.items() if value is not None})
    given = json_object(sys.stdin.read(), "the secrets") if secrets == "-" else None
    with Runtime(patient=False) as runtime:
        connection, locations = reconfigure(runtime, key, settings=changes, secrets=given)
        tested = "; test passed" if needs_test(changes, given) else ""
        say(f"{connection.key}: settings saved{tested}.")
        _print_locations(locations)


@app.command()
def remove(
    key: Key,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a connection and its credentials; its history in the lake stays."""
    with Runtime(patient=False) as runtime:
        runtime.state.connections.get(key)
        if not yes and not typer.confirm(f"Remove {key} and its credentials? Its history in the lake stays."):
            raise typer.Exit(1)
        runtime.state.connections.remove(key)
    say(f"Removed {key}.")
