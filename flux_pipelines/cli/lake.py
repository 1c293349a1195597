"""`flux sql` and `flux quarantine`: reading the lake, and looking after the records that could not be used."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

import typer

from flux_pipelines.cli.output import error, say, table
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.runtime import Runtime

quarantine = typer.Typer(help="Records that could not be used: look at them, try them again.", no_args_is_help=True)


def _text(value: object) -> object:
    """Write a value so that nothing is lost: decimals in full, instants in ISO 8601 UTC."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value


def sql(
    query: Annotated[
        str, typer.Argument(help='One SELECT, in DuckDB\'s SQL. Provider tables are "square.transactions".')
    ],
    format_: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How to print the answer.")
    ] = "table",
) -> None:
    """Ask the lake a question in SQL. Nothing can be changed through it."""
    import duckdb

    from flux_pipelines.lake import session

    with Runtime() as runtime:
        connection = session(runtime.lake)
        try:
            answer = connection.execute(query)
            columns = [column[0] for column in answer.description or ()]
            if format_ == "csv":
                writer = csv.writer(sys.stdout, lineterminator="\n")
                writer.writerow(columns)
                while rows := answer.fetchmany(10_000):
                    writer.writerows([[_text(value) for value in row] for row in rows])
            elif format_ == "json":
                rows = answer.fetchall()
                json.dump(
                    [dict(zip(columns, map(_text, row), strict=True)) for row in rows],
                    sys.stdout,
                    indent=2,
                    default=str,
                )
                sys.stdout.write("\n")
            else:
                table("", columns, [[_text(value) for value in row] for row in answer.fetchall()])
        except duckdb.Error as problem:
            raise ConfigurationError(
                f"the lake could not answer: {problem}", next_step="`flux sql 'show all tables'` lists the tables."
            ) from problem
        finally:
            connection.close()


def rebuild() -> None:
    """Make tables again, from what was fetched, that an earlier version of Flux made otherwise. No provider is asked.

    What they were is set aside in the lake, under `superseded`. Run it after an upgrade that asks for it, with `flux up` stopped.
    """
    from flux_pipelines.defs.rebuild import rebuild as make_again

    with Runtime() as runtime:
        names, days, failures = make_again(runtime)
    if not names:
        say("Every table is as this version makes it.")
        return
    span = f"{days[0]} to {days[-1]}" if days else "no business dates"
    say(
        f"Made again: {', '.join(names)}, and what is made of them ({span}). What they were is under `superseded` in the lake."
    )
    for failure in failures:
        error(failure)
    if failures:
        raise typer.Exit(1)


@quarantine.command("list")
def list_(
    connection: Annotated[str | None, typer.Option(metavar="PROVIDER:NAME", help="Only of this connection.")] = None,
    payload: Annotated[bool, typer.Option(help="Print the records themselves, one JSON object a line.")] = False,
) -> None:
    """List the records in quarantine with the reason."""
    with Runtime() as runtime:
        records = runtime.quarantine.list(connection=connection)
    if payload:
        for record in records:
            typer.echo(json.dumps({name: _text(value) for name, value in record.items()}, default=str))
        return
    if not records:
        say("Nothing is in quarantine.")
        return
    table(
        f"{len(records)} records in quarantine",
        ("connection", "business date", "order", "reason", "asset"),
        [(r["connection"], r["business_date"], r["order_id"], r["reason"], r["asset"]) for r in records],
    )


@quarantine.command()
def replay(
    connection: Annotated[str | None, typer.Option(metavar="PROVIDER:NAME", help="Only of this connection.")] = None,
) -> None:
    """Normalise the partitions with quarantined records again, from the raw orders as they were received.

    Records that can be used now leave quarantine and enter every table. Exits non-zero while any stay.
    """
    from flux_pipelines.defs.runner import replay_quarantined

    with Runtime() as runtime:
        before = runtime.quarantine.list(connection=connection)
        if not before:
            say("Nothing is in quarantine.")
            return
        partitions = sorted({Partition(str(r["connection"]), r["business_date"]) for r in before})
        report = replay_quarantined(runtime, partitions)
        after = runtime.quarantine.list(connection=connection)
    say(f"{len(before) - len(after)} of {len(before)} records left quarantine; {len(after)} stay.")
    for failure in report.failures:
        error(failure)
    if after or report.failures:
        raise typer.Exit(1)
