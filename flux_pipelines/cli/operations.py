"""`flux doctor` and `flux keys`: is everything in order, and the encryption keys."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer

from flux_pipelines.cli.output import counted, say
from flux_pipelines.connections.lifecycle import test_connection
from flux_pipelines.domain.errors import ConfigurationError, FluxError, TableDamagedError, of_disk
from flux_pipelines.providers.apps import check_app
from flux_pipelines.runtime import Runtime

keys = typer.Typer(help="Encryption keys of the stored credentials.", no_args_is_help=True)


def doctor(
    lake: Annotated[
        bool, typer.Option("--lake", help="Look at every row as well: nothing may be on two dates, nor on none.")
    ] = False,
) -> None:
    """Check this installation: keys, state database, lake, connections, forecaster, disk. Exits non-zero on a problem."""
    wrong: list[str] = []

    def found(name: str, finding: str, *, ok: bool = True) -> None:
        # A line a check as it ends: some of them wait for a provider.
        say(f"{'✔' if ok else '✘'} {name}: {finding.removeprefix(f'{name}: ')}")
        if not ok:
            wrong.append(name)

    def check(name: str, probe: Callable[[], str]) -> bool:
        try:
            found(name, probe())
            return True
        except FluxError as problem:
            found(name, problem.outside_a_run(), ok=False)
        except OSError as problem:
            explained = of_disk(problem, "reading or writing a file")
            if explained is None:
                raise
            found(name, str(explained), ok=False)
        return False

    with Runtime() as runtime:
        check("home", lambda: f"{runtime.settings.home}, {_free(runtime)} free")
        if check("encryption keys and state database", lambda: f"{len(runtime.state.connections.list())} connections"):
            check("stored credentials", lambda: _credentials(runtime))
            check("apps", lambda: _apps(runtime))
            check("webhook events", lambda: _inbox(runtime))
            check("lake", lambda: _lake(runtime))
            if lake:
                check("every date", lambda: _every_date(runtime))
            for connection in runtime.state.connections.list():
                if connection.status in ("paused", "disconnected"):
                    found(connection.key, connection.status)
                else:
                    check(connection.key, lambda c=connection: _connection(runtime, c.key))  # type: ignore[misc]
        check("forecaster", lambda: _forecaster(runtime))
    if wrong:
        raise typer.Exit(1)


def _free(runtime: Runtime) -> str:
    free = shutil.disk_usage(runtime.settings.make_home()).free
    if free < 500_000_000:
        raise ConfigurationError(
            f"only {free / 1e6:.0f} MB are free where {runtime.settings.home} lies", next_step="Free some space."
        )
    return f"{free / 1e9:.0f} GB"


def _credentials(runtime: Runtime) -> str:
    connections = runtime.state.connections.list()
    for connection in connections:
        runtime.state.secrets.get(connection.key, purpose="doctor")
    return f"of {len(connections)} connections can be decrypted"


def _apps(runtime: Runtime) -> str:
    found = runtime.state.apps.list()
    for app in found:
        check_app(app.name, app.settings, runtime.state.apps.secrets(app.name, purpose="doctor"))
    names = ", ".join(app.name for app in found)
    return f"registered at {names}; their secrets can be decrypted" if found else "none registered"


def _inbox(runtime: Runtime) -> str:
    counts = runtime.state.inbox.counts()
    if counts["failed"]:
        raise ConfigurationError(
            f"{counts['failed']} webhook events could not be dealt with",
            next_step="See `flux inbox list --status failed`; `flux inbox retry` tries them again.",
        )
    return f"{counts['received'] + counts['assigned']} pending, {counts['done'] + counts['kept']} processed"


def _lake(runtime: Runtime) -> str:
    from flux_pipelines.lake import session

    names = runtime.lake.tables()
    with session(runtime.lake) as sql:
        for name in names:
            schema, _, table_name = name.rpartition("/")
            sql.execute(f'select count(*) from "{schema or "main"}"."{table_name}"').fetchall()
    runtime.lake.prove_writable()
    return f"{runtime.settings.lake_root}: {len(names)} tables can be read, and it can be written"


def _every_date(runtime: Runtime) -> str:
    from flux_pipelines.defs.consistency import faults

    found = faults(runtime)
    if found:
        raise TableDamagedError(
            "; ".join(f"{fault.connection}: {fault.what}" for fault in found),
            next_step="Sync those dates again; if it stays, report it.",
        )
    return "every order, line and payment is on one date"


def _connection(runtime: Runtime, key: str) -> str:
    return f"works, {counted(len(test_connection(runtime, key)), 'location')}"


def _forecaster(runtime: Runtime) -> str:
    from flux_pipelines.forecaster.items import Item, ItemHistory

    today = datetime.now(UTC).date()
    points = tuple((today - timedelta(days=n), Decimal(10 + n % 7)) for n in reversed(range(56)))
    item = Item("doctor:probe", "doctor", "probe", "probe", "Probe", None)
    (answer,) = runtime.demand_endpoint.forecast_many([ItemHistory(item, today, points)], 14)
    if answer.failure:
        raise ConfigurationError(f"the endpoint {runtime.settings.forecast_endpoint} failed: {answer.failure}")
    return f"{runtime.settings.forecast_url}: endpoint {runtime.settings.forecast_endpoint} forecasts ({answer.model_type})"


@keys.command()
def generate() -> None:
    """Print a new key for FLUX_ENCRYPTION_KEYS. Nothing is stored or changed."""
    from cryptography.fernet import Fernet

    typer.echo(Fernet.generate_key().decode())


@keys.command()
def rotate(
    drop_old: Annotated[bool, typer.Option(help="Afterwards forget the old keys of the key file.")] = False,
) -> None:
    """Encrypt every stored credential with a new key, online. With FLUX_ENCRYPTION_KEYS set: with its first key."""
    with Runtime() as runtime:
        count = runtime.rotate_keys(drop_old=drop_old)
    say(f"Encrypted {count} credentials with the newest key.")
