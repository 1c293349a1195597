"""How the command line speaks: tables and errors, on a terminal and in a pipe."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flux_pipelines.domain import inert

# In a pipe there is no width to respect, and folding would break what reads it.
_PIPE_WIDTH = 400

console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
stderr = Console(stderr=True, highlight=False, emoji=False)


def error(message: str) -> None:
    """Print an error to standard error, unwrapped so that it can be searched for."""
    stderr.print(f"[bold red]Error:[/] {_plain(message)}", soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    stderr.print(f"[bold yellow]Warning:[/] {_plain(message)}", soft_wrap=True)


def say(message: str) -> None:
    """Print a line of progress or result."""
    console.print(_plain(message), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """Print a table; columns named in `right` are aligned to the right."""
    grid = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=box.ROUNDED)
    grid.show_header = any(columns)
    right = set(right)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*("" if value is None else _plain(str(value)) for value in row))
    console.print(grid)


def counted(count: int, noun: str) -> str:
    """Return a number of things in words: `1 location`, `12 locations`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def flux_command() -> str:
    """Return how to call `flux` again from this folder: with its path, unless it is found without."""
    called = sys.argv[0]
    return shlex.quote(called) if Path(called).name == "flux" and shutil.which("flux") is None else "flux"


def _plain(text: str) -> str:
    # Terminals obey what they are shown: an item name must not move the cursor. The line breaks are ours.
    return "\n".join(map(inert.plain, text.split("\n"))).replace("[", "\\[")
