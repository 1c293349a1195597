"""The `flux` command: a thin face over the rooms below. Every command exits non-zero when anything asked is not done."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m` looks for modules in the folder that it is started in before anywhere else.
    del sys.path[0]

import gc
import os
from importlib.metadata import entry_points
from typing import Annotated

import typer

from flux_pipelines import __version__
from flux_pipelines.cli import (
    apps,
    connections,
    demo,
    gateway,
    inbox,
    lake,
    operations,
    privacy,
    providers,
    serve,
    sync,
    tokens,
)
from flux_pipelines.cli import map as mapping
from flux_pipelines.cli.output import error
from flux_pipelines.domain.errors import FluxError, of_disk

app = typer.Typer(
    name="flux",
    help="Orders, payments and demand from restaurant and retail systems, kept in step by Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flux {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of `flux` itself."""


app.command()(demo.demo)
app.command()(serve.up)
app.command()(gateway.gateway)
app.add_typer(connections.app, name="connections")
app.add_typer(providers.app, name="providers")
app.command()(sync.sync)
app.command()(sync.plan)
app.command()(lake.sql)
app.command()(lake.rebuild)
app.add_typer(lake.quarantine, name="quarantine")
app.command()(operations.doctor)
app.add_typer(operations.keys, name="keys")
app.add_typer(apps.app, name="apps")
app.add_typer(tokens.app, name="tokens")
app.add_typer(inbox.app, name="inbox")
app.add_typer(privacy.app, name="privacy")
app.add_typer(mapping.app, name="map")
for further in entry_points(group=serve.COMMANDS):
    app.add_typer(further.load(), name=further.name)


def main() -> None:
    """Run the command line; a known error becomes one clear line and exit code 1."""
    # Commands load two thousand modules, which stay: with Python's own thresholds, looking through them again and again
    # takes a tenth of a small sync's time.
    gc.set_threshold(50_000, 20, 50)
    # Whatever is written, by the servers that a command starts too, is for this user alone: a lake holds a merchant's sales.
    os.umask(0o077)
    try:
        app()
    except FluxError as problem:
        error(problem.outside_a_run())
        sys.exit(1)
    except OSError as problem:
        explained = of_disk(problem, "reading or writing a file")
        if explained is None:
            raise
        error(str(explained))
        sys.exit(1)
