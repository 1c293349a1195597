"""`flux map`: what the locations and products of different providers are in the books. Flux suggests, people decide."""

from __future__ import annotations

import csv
import getpass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from flux_pipelines.cli.output import say, table
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.mapping import books
from flux_pipelines.mapping.books import Row
from flux_pipelines.mapping.matching import Key
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.mappings import Kind

app = typer.Typer(help="What locations and products of different providers are in the books.", no_args_is_help=True)

_COLUMNS = ("tenant", "connection", "id", "provider_name", "sku", "name", "suggestion", "score", "reason")

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


def _commands(kind: Kind) -> typer.Typer:
    """Return the commands for products, or for stores: they are the same."""
    plural = f"{kind}s"
    group = typer.Typer(help=f"Decide which {plural} of different providers are the same.", no_args_is_help=True)

    @group.command("list")
    def list_(
        undecided: Annotated[bool, typer.Option("--undecided", help="Only what nobody has decided yet.")] = False,
        tenant: Annotated[str | None, typer.Option(help="Only of this customer.")] = None,
    ) -> None:
        """List everything with its name in the books, or with what it looks like."""
        with Runtime() as runtime:
            found = books.rows(runtime, kind)
        shown = [row for row in found if tenant in (None, row.tenant) and not (undecided and row.name)]
        if shown:
            table(
                "", [column.replace("_", " ") for column in _COLUMNS], [_told(row) for row in shown], right=("score",)
            )
        named = sum(row.name is not None for row in found)
        seen = sum(row.suggestion is not None for row in found)
        say(
            f"{len(found)} {plural}: {named} decided, {seen} with a suggestion, {len(found) - named - seen} unlike all others."
        )

    @group.command()
    def confirm(
        connection: Annotated[str | None, typer.Argument(metavar="[PROVIDER:NAME", help="The connection.")] = None,
        id_: Annotated[str | None, typer.Argument(metavar="ID", help="The provider's id.")] = None,
        name: Annotated[str | None, typer.Argument(metavar="[NAME]]", help="Its name in the books.")] = None,
        above: Annotated[
            float | None, typer.Option(min=0, max=1, help="Instead of one: every suggestion at least that sure.")
        ] = None,
        by: By = "",
    ) -> None:
        """Say what one is called in the books: NAME, or what is suggested."""
        if (above is None) == (connection is None) or (connection is not None and id_ is None):
            raise ConfigurationError("give a connection and an id, or --above SCORE")
        with Runtime() as runtime:
            if connection is not None and id_ is not None:
                chosen: list[tuple[Key, str | None]] = [(Key(connection, id_), name)]
            else:
                sure = books.sure(books.rows(runtime, kind), Decimal(str(above)))
                chosen = [(row.thing.key, None) for row in sure]
            count = books.confirm(runtime, kind, chosen, by=by or getpass.getuser())
        say(f"{count} {plural if count != 1 else kind} decided.")

    @group.command()
    def reject(connection: Connection, id_: Id, by: By = "") -> None:
        """Say that one is not what is suggested: it will not be suggested again."""
        with Runtime() as runtime:
            name = books.refuse(runtime, kind, Key(connection, id_), by=by or getpass.getuser())
        say(f"{connection} {id_} is not {name!r}.")

    @group.command()
    def undo(connection: Connection, id_: Id, by: By = "") -> None:
        """Take back what one was said to be called."""
        with Runtime() as runtime:
            name = books.take_back(runtime, kind, Key(connection, id_), by=by or getpass.getuser())
        say(f"{connection} {id_} is no longer {name!r}.")

    @group.command()
    def export(file: Annotated[Path, typer.Argument(help="A CSV file to be written.")]) -> None:
        """Write everything to a CSV file, to be reviewed in a spreadsheet."""
        with Runtime() as runtime:
            found = books.rows(runtime, kind)
        with file.open("w", newline="", encoding="utf-8-sig") as out:
            writer = csv.writer(out)
            writer.writerow(_COLUMNS)
            writer.writerows(_told(row) for row in found)
        say(
            f"{len(found)} {plural} written to {file}. Fill in the column `name`, then: flux map {plural} import {file}"
        )

    @group.command("import")
    def import_(
        file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The reviewed CSV file.")], by: By = ""
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
            known = {row.thing.key for row in books.rows(runtime, kind)}
            for key, _ in chosen:
                if key not in known:
                    raise ConfigurationError(f"there is no {kind} {key.id!r}", connection=key.connection)
            count = books.confirm(runtime, kind, chosen, by=by or getpass.getuser())
        say(f"{count} {plural} decided.")

    return group


app.add_typer(_commands("store"), name="stores")
app.add_typer(_commands("product"), name="products")
