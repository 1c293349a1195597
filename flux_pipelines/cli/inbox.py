"""`flux inbox`: the webhook events that were received, and those that could not be dealt with."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flux_pipelines.cli.output import say, table
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.runtime import Runtime

app = typer.Typer(help="Webhook events: look at them, try failed ones again.", no_args_is_help=True)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: received, assigned, done, kept or failed.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only of this provider.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the newest events, newest first, and how many there are of each status. Their contents are not shown."""
    with Runtime() as runtime:
        counts = runtime.state.inbox.counts(provider)
        if status is not None and status not in counts:
            raise ConfigurationError(f"no event is {status!r}", next_step=f"Known: {', '.join(counts)}.")
        found = runtime.state.inbox.recent(status=status, provider=provider, limit=limit)
    columns = ("id", "received", "provider", "type", "connection", "status", "attempts", "reason")
    rows = [
        (
            event.id,
            f"{event.received_at:%Y-%m-%d %H:%M:%S} UTC",
            event.provider,
            event.event_type,
            event.connection_key or event.account_id,
            event.status,
            event.attempts,
            event.reason,
        )
        for event in found
    ]
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
        return
    if rows:
        table("", columns, rows, right=("id", "attempts"))
    say(", ".join(f"{count} {name}" for name, count in counts.items()) + ".")


@app.command()
def retry(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Failed or kept events; default: all failed ones.")
    ] = None,
) -> None:
    """Let events be dealt with again, as if they had just come."""
    with Runtime() as runtime:
        count = runtime.state.inbox.retry(ids or None)
    say(f"{count} events wait to be dealt with again.")
    if ids and count < len(set(ids)):
        say(f"{len(set(ids)) - count} of those named are neither failed nor kept, or are not there.")
        raise typer.Exit(1)
