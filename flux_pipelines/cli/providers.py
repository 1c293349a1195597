"""`flux providers`: a folder for a new provider, which works before the first edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flux_pipelines.cli.output import say
from flux_pipelines.providers.new import write
from flux_pipelines.settings import PROJECT_ROOT

app = typer.Typer(help="Providers: begin a new one.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Its name, in lower-case letters, digits and `_`: clover, for example.")],
    into: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The checkout to write to; default: the one that this is installed from."),
    ] = PROJECT_ROOT,
) -> None:
    """Write the folders of a new provider: client, SQL, sign-in, webhooks, its side of the sandbox, and tests.

    They work as they are, over a point of sale that does not exist: change them piece by piece, with docs/add-a-provider.md
    beside you and the contract suite green.
    """
    for path in write(name, into):
        say(str(path.relative_to(into)))
    say(f"\nNow: pytest flux_pipelines_tests/contract flux_pipelines_tests/providers/{name} -k {name}")
