"""`flux sync` and `flux plan`: a backfill in this process, and what it will cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from flux_pipelines.cli.output import console, counted, error, say, table, warn
from flux_pipelines.domain.business_day import newest_begun
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, DayNotReadyError
from flux_pipelines.domain.money import exponent
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import Runtime

if TYPE_CHECKING:
    from flux_pipelines.defs.runner import SyncReport

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider, for example square.")]
Connections = Annotated[
    list[str] | None,
    typer.Option("--connection", metavar="PROVIDER:NAME", help="Only this connection; repeatable."),
]
From = Annotated[str, typer.Option("--from", metavar="DATE", help="First business date, YYYY-MM-DD.")]
To = Annotated[str, typer.Option("--to", metavar="DATE", help="Last business date, YYYY-MM-DD.")]
SalesOnly = Annotated[
    bool, typer.Option("--sales-only", help="Leave payments, catalog, stock and hours worked as they are.")
]
AcceptEmpty = Annotated[
    bool,
    typer.Option(
        "--accept-empty",
        help="Let dates that hold records become empty if the provider says so. Only for dates of which its own report shows "
        "that the records are really gone.",
    ),
]
Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Fetch everything anew, also what a failed or interrupted sync of the same dates has fetched already.",
    ),
]
_OF_STREAMS = "of which payments, labor and reports"
_LIMITS = ("minimum minutes (rate limit)", "% of daily quota")


def days_between(first: str, last: str, earliest: date) -> list[date]:
    """Return the business dates from `first` to `last`, both included.

    Raises:
        ConfigurationError: not dates, out of order, or before the first partition.
        DayNotReadyError: the last one has not begun anywhere yet.

    """
    parsed = []
    for name, text in (("--from", first), ("--to", last)):
        try:
            parsed.append(date.fromisoformat(text))
        except ValueError as problem:
            raise ConfigurationError(f"{name} {text!r} is not a date", next_step="Write it as YYYY-MM-DD.") from problem
    start, end = parsed
    if start > end:
        raise ConfigurationError(f"--from {start} is after --to {end}")
    if start < earliest:
        raise ConfigurationError(
            f"{start} is before the first business date, {earliest}",
            next_step=f"Set FLUX_START_DATE={start} (for every Flux process) to keep older days.",
        )
    today = newest_begun(datetime.now(UTC))
    if end > today:
        raise DayNotReadyError(
            f"the business date {end} has not begun anywhere yet", next_step=f"Ask for days up to {today}."
        )
    return [start + timedelta(days=n) for n in range((end - start).days + 1)]


def chosen_connections(runtime: Runtime, provider: str, keys: list[str] | None) -> list[Connection]:
    """Return the connections to work on: the named ones, or every one of the provider that is not paused.

    Raises:
        ConfigurationError: a named one is of another provider, or there is none.

    """
    spec = provider_named(provider)
    for key in keys or ():
        if runtime.state.connections.get(key).provider != spec.name:
            raise ConfigurationError(f"it is not a {spec.title} connection", connection=key)
    found = runtime.connections(spec.name, keys or ())
    if not keys:
        for resting in (c for c in found if c.status in ("paused", "disconnected")):
            warn(f"{resting.key} is {resting.status} and left out.")
        found = [c for c in found if c.status not in ("paused", "disconnected")]
    if not found:
        raise ConfigurationError(
            f"there is no {spec.title} connection to work on",
            next_step=f"Add one: `flux connections add {spec.name}:NAME --tenant T --secrets -`.",
        )
    return found


def sync(
    provider: Provider,
    first: From,
    last: To,
    connection: Connections = None,
    sales_only: SalesOnly = False,
    accept_empty: AcceptEmpty = False,
    again: Again = False,
) -> None:
    """Fetch orders of a range of business dates and bring every table up to date, raw to marts, in this process.

    A sync that was interrupted goes on where it stopped when the same command is run again; one that finished fetches
    everything anew. Each connection is synced by itself: one that fails does not hold back the others.
    """
    from flux_pipelines.defs.runner import sync as run_sync

    with Runtime() as runtime:
        days = days_between(first, last, runtime.settings.start_date)
        chosen = chosen_connections(runtime, provider, connection)
        runtime.warm_forecaster()
        report = run_sync(
            runtime,
            [c.key for c in chosen],
            days,
            beside_orders=not sales_only,
            accept_empty=accept_empty,
            again=again,
            console=console,
        )
    print_report(report)
    if report.failures:
        for failure in dict.fromkeys(report.failures):
            error(failure)
        raise typer.Exit(1)


def print_report(report: SyncReport) -> None:
    """Print what a sync did."""
    if report.resumed_days:
        say(
            f"Resumed: of {counted(report.resumed_days, 'partition')} the orders were there already and were not fetched "
            "again (`--again` fetches them anew)."
        )
    if not report.complete:
        say(f"Nothing was synced: none of {counted(report.partitions, 'partition')} is complete.")
        return
    forecasts: list[tuple[str, str]] = [
        ("products forecast", f"{report.forecast_items:,}"),
        ("products not forecast", f"{report.unforecast_items:,}"),
    ]
    rows: list[tuple[str, str]] = [
        ("partitions complete", f"{report.complete:,} of {report.partitions:,}"),
        ("orders", f"{report.orders:,}"),
        ("lines", f"{report.lines:,}"),
        *((f"net sales {currency}", f"{net:,.{exponent(currency)}f}") for currency, net in sorted(report.net.items())),
        ("requests", f"{report.requests:,}"),
        ("retries", f"{report.retries:,}"),
        ("rate-limit wait", f"{report.waited_seconds:.1f} s"),
        ("quarantined", f"{report.quarantined:,}"),
        *(forecasts if report.forecast else ()),
        *(
            (f"forecast error {key}", f"{wape:.1%} (seasonal naive {naive:.1%})")
            for key, wape, naive in report.accuracy
        ),
        ("took", f"{report.seconds:.1f} s"),
    ]
    table("Sync summary", ("", ""), rows)


def plan(
    provider: Provider, first: From, last: To, connection: Connections = None, sales_only: SalesOnly = False
) -> None:
    """Tell what a backfill will cost before it runs: API calls, minimum minutes, share of the daily quota."""
    from flux_pipelines.sync.plan import estimate

    with Runtime() as runtime:
        days = days_between(first, last, runtime.settings.start_date)
        estimates = []
        for chosen in chosen_connections(runtime, provider, connection):
            source = runtime.source(chosen)
            try:
                locations = runtime.refresh_locations(chosen, source)
                spec = provider_named(provider)
                estimates.append(estimate(source, spec, chosen, locations, days, beside_orders=not sales_only))
            finally:
                source.close()
    table(
        f"What fetching {days[0]} to {days[-1]} ({len(days)} business dates) will cost",
        ("connection", "locations", "orders (estimated)", "API calls", _OF_STREAMS, *_LIMITS),
        [
            (
                e.connection,
                e.locations,
                f"{e.orders:,}",
                f"{e.calls:,}",
                f"{e.stream_calls:,}",
                f"{e.minutes_at_limit:.1f}",
                f"{e.quota_share:.1%}",
            )
            for e in estimates
        ],
        right=("locations", "orders (estimated)", "API calls", _OF_STREAMS, *_LIMITS),
    )
    for problem in (problem for e in estimates for problem in e.uncounted):
        warn(f"Not counted: {problem}")
    bookkeeping = sum(e.bookkeeping_seconds for e in estimates)
    say(f"Dagster's own bookkeeping of these partitions adds about {bookkeeping / 60:.1f} minutes.")
