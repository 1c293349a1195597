"""`flux privacy`: erasing what is known of a person, and the proof that it was done."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated

import typer

from flux_pipelines.cli.output import say, table
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.base import Erasure, Redaction
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import Runtime
from flux_pipelines.state import ErasureReport

app = typer.Typer(
    help="Personal data: erase what is known of a person, and show what was erased.", no_args_is_help=True
)


@app.command()
def erase(
    connection: Annotated[str, typer.Argument(metavar="PROVIDER:NAME", help="Whose records to search.")],
    customer: Annotated[list[str] | None, typer.Option(metavar="ID", help="The provider's id of a customer.")] = None,
    order: Annotated[list[str] | None, typer.Option(metavar="ID", help="An order of theirs.")] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="-", help="`-`: read e-mail addresses and phone numbers from stdin, one a line."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Erase all that is personal in the connection's records.")
    ] = False,
) -> None:
    """Erase a person from what is kept of a connection, history included: records, webhook events, tables, previews.

    Amounts stay as they are. Give ids in each form that the provider uses. E-mail addresses and phone numbers are never arguments, which other
    users of the machine and the shell's history could see.
    """
    from flux_pipelines.defs.code_location import build_definitions
    from flux_pipelines.defs.erasures import forget

    if text not in (None, "-"):
        raise ConfigurationError(
            "a text to be erased must not be an argument", next_step="Give `--text -`, and the texts on standard input."
        )
    texts = tuple(line.strip() for line in sys.stdin if line.strip()) if text == "-" else ()
    wanted = Erasure(tuple(customer or ()), tuple(order or ()), texts)
    if everything == any(wanted):
        raise ConfigurationError(
            "nobody is named" if not everything else "`--everything` and somebody's data at once",
            next_step="Give --customer, --order or --text -; or --everything alone.",
        )
    with Runtime() as runtime:
        found = runtime.state.connections.get(connection)
        report = forget(runtime, found, wanted, build_definitions, asked_by=f"command line ({_user()})")
    say(
        f"Erased: {report.records} records in {report.partitions} raw partitions, {report.quarantined} in quarantine, "
        f"{report.events} webhook events. This is request {report.id}; `flux privacy report` lists them."
    )


@app.command()
def report(
    connection: Annotated[str | None, typer.Argument(metavar="PROVIDER:NAME", help="Only of this connection.")] = None,
) -> None:
    """List what was asked to be erased, when, and what was found. It says nothing of who that was."""
    with Runtime() as runtime:
        found = runtime.state.erasures.list(connection)
    if not found:
        say("Nothing was asked to be erased.")
        return
    table(
        "",
        (
            "request",
            "connection",
            "asked by",
            "asked for",
            "begun",
            "done",
            "partitions",
            "records",
            "quarantine",
            "events",
        ),
        [
            (
                one.id,
                one.connection,
                one.asked_by,
                _asked_for(one),
                f"{one.began_at:%Y-%m-%d %H:%M} UTC",
                f"{one.finished_at:%Y-%m-%d %H:%M} UTC" if one.finished_at else "no",
                one.partitions,
                one.records,
                one.quarantined,
                one.events,
            )
            for one in found
        ],
        right=("request", "partitions", "records", "quarantine", "events"),
    )


@app.command()
def declared(
    provider: Annotated[str | None, typer.Argument(metavar="PROVIDER", help="Only of this provider.")] = None,
) -> None:
    """List what each provider declares personal, by the names of members of its records."""
    found = [provider_named(provider)] if provider is not None else list(all_providers().values())
    table(
        "",
        ("provider", "member", "only within", "becomes"),
        [
            (spec.name, name, ", ".join(sorted(a for n, a in spec.redaction.within if n == name)), becomes)
            for spec in found
            for name, becomes in sorted(_members(spec.redaction).items())
        ],
    )


def _members(redaction: Redaction) -> dict[str, str]:
    """Return what becomes of each member; removing goes before a pseudonym."""
    names = dict.fromkeys({member for member, _ in redaction.within}, "null")
    names |= dict.fromkeys(redaction.pseudonymise, "a pseudonym")
    return names | dict.fromkeys(redaction.remove, "null")


def _asked_for(one: ErasureReport) -> str:
    if one.everything:
        return "everything"
    parts = ((one.customers, "customers"), (one.orders, "orders"), (one.texts, "texts"))
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return str(os.getuid())
