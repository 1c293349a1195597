"""`flux demo`: the whole chain over the sandbox, from nothing."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated

import typer

from flux_pipelines.cli.output import console, counted, error, flux_command, say, table
from flux_pipelines.cli.processes import Processes, choose_port
from flux_pipelines.cli.serve import (
    UI_PORT,
    gateway_url,
    reconnect,
    register,
    start_dagster,
    start_gateway,
    start_sandbox,
)
from flux_pipelines.cli.sync import print_report
from flux_pipelines.connections import connect_to_sandbox, sandbox_accounts, sandbox_last_day
from flux_pipelines.domain.connection import split_key
from flux_pipelines.gateway.options import DEFAULT_PORT as GATEWAY_PORT
from flux_pipelines.listening import SANDBOX_PORT
from flux_pipelines.runtime import Runtime

#: The accounts that the demo connects in the sandbox, each with its tenant: coffee bars, restaurants and a web shop of one
#: business, and a tea house that counts in yen.
ACCOUNTS = (
    ("square:harbor", "Harbor"),
    ("toast:harbor-kitchen", "Harbor"),
    ("shopify:harbor-shop", "Harbor"),
    ("square:sakura", "Sakura"),
)


def demo(
    no_ui: Annotated[bool, typer.Option("--no-ui", help="End instead of leaving the Dagster UI running.")] = False,
    days: Annotated[int, typer.Option(min=1, max=70, help="Business days to backfill.")] = 60,
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = UI_PORT,
) -> None:
    """Connect four sandbox accounts, backfill 60 business days, forecast 14 ahead, and open Dagster UI and gateway."""
    from flux_pipelines.defs.runner import sync

    began = time.monotonic()
    with Runtime() as runtime, Processes(runtime.settings.make_home(), "`flux demo`") as processes:
        runtime.warm_forecaster()
        say(f"Everything this demo writes lives under {runtime.settings.home}.")
        url = start_sandbox(processes, choose_port(SANDBOX_PORT))
        ui_port, gateway_port = choose_port(port), choose_port(GATEWAY_PORT)
        register(runtime, url, gateway_port)
        reconnect(runtime, url)
        keys = connect_accounts(runtime, url)
        last = sandbox_last_day(runtime, url)
        report = sync(runtime, keys, [last - timedelta(days=n) for n in reversed(range(days))], console=console)
        print_report(report)
        for failure in report.failures:
            error(failure)
        table("Where to look", ("", ""), _places(ui_port, url, gateway_url(runtime, gateway_port), no_ui=no_ui))
        say(f"Done in {time.monotonic() - began:.0f} s.")
        if report.failures:
            raise typer.Exit(1)
        if not no_ui:
            start_gateway(processes, runtime, gateway_port, with_sandbox=True)
            start_dagster(processes, runtime, ui_port)
            processes.wait()


def connect_accounts(runtime: Runtime, url: str) -> list[str]:
    """Connect the demo's accounts, those anew that the home has already, whatever they are called there; return their keys."""
    known = sandbox_accounts(runtime, url)
    keys = []
    for account, tenant in ACCOUNTS:
        connection, locations = connect_to_sandbox(
            runtime,
            known.get(account, account),
            tenant=tenant,
            url=url,
            merchant=split_key(account)[1],
            again=account in known,
        )
        zones = sorted({x.timezone for x in locations})
        currencies = ", ".join(sorted({x.currency for x in locations}))
        say(f"Connected {connection.key}: {counted(len(locations), 'location')} in {', '.join(zones)}; {currencies}.")
        keys.append(connection.key)
    return keys


def _places(port: int, sandbox: str, gateway: str, *, no_ui: bool) -> list[tuple[str, str]]:
    flux = flux_command()
    by_day = "select business_date, currency, sum(net) from daily_sales group by all order by 1"
    places = [
        ("sales a day", f'{flux} sql "{by_day}"'),
        ("forecasts", f"{flux} sql \"select * from demand_forecasts where status = 'forecast' limit 20\""),
    ]
    if not no_ui:
        places.insert(0, ("lineage", f"http://127.0.0.1:{port}/asset-groups"))
        places.insert(1, ("connections (sign in as ada@example.com)", gateway))
        places.append(("a sale, in the tables within a minute", f"{flux} sandbox emit sale --url {sandbox}"))
    return places
