"""`flux map`: what the locations and products of different providers are in the books. Flux suggests, people decide."""

from __future__ import annotations

import csv
import getpass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flux_pipelines.cli.output import say, table
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.mapping import decisions
from flux_pipelines.mapping.decisions import Row
from flux_pipelines.mapping.matching import Key
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.connections.mappings import Kind

app = typer.Typer(help="What locations and products of different providers are in the books.", no_args_is_help=True)

_COLUMNS = ("tenant", "connection", "id", "provider_name", "sku", "name", "suggestion", "score", "reason")


class What(StrEnum):
    """What is mapped."""

    STORES = "stores"
    PRODUCTS = "products"

    @property
    def kind(self) -> Kind:
        """Its name in the state database."""
        return "store" if self is What.STORES else "product"


Which = Annotated[What, typer.Argument(metavar="WHAT", help="stores or products.")]
By = Annotated[str, typer.Option("--by", help="Who decides; default: the user of this machine.")]
Connection = Annotated[str, typer.Argument(metavar="PROVIDER:NAME", help="The connection.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The provider's id, as `list` shows it.")]


def _told(row: Row) -> tuple[str, ...]:
    seen = row.suggestion
    return (
        row.tenant,
        row.thing.key.connection,
        row.thing.key.id,
        row.thing.name,
        row.sku or "",
        row.name or "",
        seen.name if seen else "",
        f"{seen.score:.2f}" if seen else "",
        seen.reason if seen else "",
    )


@app.command("list")
def list_(
    what: Which,
    undecided: Annotated[bool, typer.Option("--undecided", help="Only what nobody has decided yet.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only of this customer.")] = None,
) -> None:
    """List everything with its name in the books, or with what it looks like."""
    with Runtime() as runtime:
        found = decisions.rows(runtime, what.kind)
    shown = [row for row in found if tenant in (None, row.tenant) and not (undecided and row.name)]
    if shown:
        table("", [column.replace("_", " ") for column in _COLUMNS], [_told(row) for row in shown], right=("score",))
    named = sum(row.name is not None for row in found)
    seen = sum(row.suggestion is not None for row in found)
    say(
        f"{len(found)} {what.value}: {named} decided, {seen} with a suggestion, "
        f"{len(found) - named - seen} unlike all others."
    )


@app.command()
def confirm(
    what: Which,
    connection: Annotated[str | None, typer.Argument(metavar="PROVIDER:NAME", help="The connection.")] = None,
    id_: Annotated[str | None, typer.Argument(metavar="ID", help="The provider's id.")] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Its name in the books; default: what is suggested.")
    ] = None,
    above: Annotated[
        float | None, typer.Option(min=0, max=1, help="Instead of one: every suggestion at least that sure.")
    ] = None,
    by: By = "",
) -> None:
    """Say what one is called in the books, or agree with every suggestion that is sure enough."""
    if (above is None) == (connection is None) or (connection is not None and id_ is None):
        raise ConfigurationError("give a connection and an id, or --above SCORE")
    with Runtime() as runtime:
        if connection is not None and id_ is not None:
            chosen: list[tuple[Key, str | None]] = [(Key(connection, id_), name)]
        else:
            sure = decisions.sure(decisions.rows(runtime, what.kind), Decimal(str(above)))
            chosen = [(row.thing.key, None) for row in sure]
        count = decisions.confirm(runtime, what.kind, chosen, by=by or getpass.getuser())
    say(f"{count} {what.value} decided.")


@app.command()
def reject(what: Which, connection: Connection, id_: Id, by: By = "") -> None:
    """Say that one is not what is suggested: that will not be suggested again."""
    with Runtime() as runtime:
        name = decisions.refuse(runtime, what.kind, Key(connection, id_), by=by or getpass.getuser())
    say(f"{connection} {id_} is not {name!r}.")


@app.command()
def undo(what: Which, connection: Connection, id_: Id, by: By = "") -> None:
    """Take back what one was said to be called."""
    with Runtime() as runtime:
        name = decisions.take_back(runtime, what.kind, Key(connection, id_), by=by or getpass.getuser())
    say(f"{connection} {id_} is no longer {name!r}.")


@app.command()
def export(
    what: Which, file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file to be written.")]
) -> None:
    """Write everything to a CSV file, to be reviewed in a spreadsheet."""
    with Runtime() as runtime:
        found = decisions.rows(runtime, what.kind)
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out)
        writer.writerow(_COLUMNS)
        writer.writerows(_told(row) for row in found)
    say(
        f"{len(found)} {what.value} written to {file}. Fill in the column `name`, then: flux map import {what.value} {file}"
    )


@app.command("import")
def import_(
    what: Which,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The reviewed CSV file.")],
    by: By = "",
) -> None:
    """Record the names of a reviewed file; rows with an empty `name` are left as they are."""
    with file.open(newline="", encoding="utf-8-sig") as source:
        reader = csv.DictReader(source)
        missing = {"connection", "id", "name"} - set(reader.fieldnames or ())
        if missing:
            raise ConfigurationError(f"{file} has no column {', '.join(sorted(missing))}")
        chosen: list[tuple[Key, str | None]] = [
            (Key(row["connection"], row["id"]), row["name"].strip()) for row in reader if row["name"].strip()
        ]
    with Runtime() as runtime:
        known = {row.thing.key for row in decisions.rows(runtime, what.kind)}
        for key, _ in chosen:
            if key not in known:
                raise ConfigurationError(f"there is no such {what.kind}: {key.id!r}", connection=key.connection)
        count = decisions.confirm(runtime, what.kind, chosen, by=by or getpass.getuser())
    say(f"{count} {what.value} decided.")
