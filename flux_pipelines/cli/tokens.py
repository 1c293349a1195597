"""`flux tokens`: tokens with which machines call the gateway."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from flux_pipelines.cli.output import say, stderr, table
from flux_pipelines.gateway.options import AllowedPeople
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.people.api_tokens import COMMAND_LINE, ApiToken

app = typer.Typer(help="Tokens with which machines call the gateway.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days until it ends by itself; default: never.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may look, and change nothing.")] = False,
) -> None:
    """Create a token and print it: standard output is the token and nothing else. It cannot be shown again."""
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    with Runtime() as runtime:
        token, plaintext = runtime.state.api_tokens.create(
            name, f"{COMMAND_LINE} ({_user()})", expires_at, ("read",) if read_only else ("read", "write")
        )
    stderr.print(f"Token {token.id}; send it as `Authorization: Bearer ...`. It is not shown again.", soft_wrap=True)
    typer.echo(plaintext)


@app.command("list")
def list_() -> None:
    """List the tokens: how each begins, what it may do, and whether it still works."""
    with Runtime() as runtime:
        found = runtime.state.api_tokens.list()
        allowed = AllowedPeople.parse(runtime.settings.allowed_people)
    if not found:
        say("No tokens yet. `flux tokens create NAME` makes one.")
        return
    table(
        "",
        ("id", "name", "begins", "may", "created by", "created", "expires", "last used", "status"),
        [
            (
                token.id,
                token.name,
                f"{token.prefix}...",
                ", ".join(token.scopes),
                token.created_by,
                _moment(token.created_at),
                _moment(token.expires_at),
                _moment(token.last_used_at),
                _status(token, allowed),
            )
            for token in found
        ],
        right=("id",),
    )


@app.command()
def revoke(token_id: Annotated[int, typer.Argument(metavar="ID", help="See `flux tokens list`.")]) -> None:
    """End a token at once."""
    with Runtime() as runtime:
        token = runtime.state.api_tokens.revoke(token_id)
    say(f"Revoked token {token.id} ({token.name}).")


def _status(token: ApiToken, allowed: AllowedPeople) -> str:
    if not token.usable:
        return "revoked" if token.revoked_at else "expired"
    return "works" if allowed.allows_token_of(token.person) else "refused: its maker may not sign in any more"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return str(os.getuid())
