"""Runs the assets in this process, for the command line: the same jobs on the same instance, so that the UI shows them.

A connection's business dates go in one run (a run costs 3 CPU seconds before it does anything), each connection in a
run of its own, so that one that fails does not hold back the others. Then the core tables, then forecasts, then the other
streams.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.forecasts import HORIZON
from flux_pipelines.defs.checks import Scope
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.driver import driving
from flux_pipelines.defs.partitions import by_connection
from flux_pipelines.defs.resources import Progress
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import DAILY_SALES, DEMAND_FORECASTS, FORECAST_ACCURACY, TRANSACTIONS
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    from rich.console import Console

    from flux_pipelines.runtime import Runtime


@dataclass(slots=True)
class SyncReport:
    """What a sync did. Amounts by currency, in the currency's unit.

    Figures are of what this sync has brought up to date, and of nothing that an earlier one left: they are zero where it failed.

    Args:
        partitions: business dates asked for, of every connection.
        complete: how many of them are in every table, as they were fetched now.
        forecast: whether products were forecast as of the last business date that is complete.
        resumed_days: partitions that an interrupted run of the same sync had completed already.
        orders: orders in the tables.
        lines: lines of goods and gift cards in the tables, order-level charges and voids left out.
        net: revenue before tax and tip.
        requests: calls made to land these partitions, those of streams included if they were collected.
        retries: how many of them were repetitions.
        waited_seconds: time spent waiting for rate limits.
        quarantined: records that could not be used.
        forecast_items: products forecast as of the last business date.
        unforecast_items: products that were not, each with its reason in `demand_forecasts`.
        accuracy: connection, error of the forecasts and error of seasonal naive, as parts of what was sold.
        seconds: how long it took.
        failures: what failed, each with what to do.

    """

    partitions: int = 0
    complete: int = 0
    forecast: bool = False
    resumed_days: int = 0
    orders: int = 0
    lines: int = 0
    net: dict[str, Decimal] = field(default_factory=dict)
    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0
    quarantined: int = 0
    forecast_items: int = 0
    unforecast_items: int = 0
    accuracy: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def sync(
    runtime: Runtime,
    connections: Sequence[str],
    days: Sequence[date],
    *,
    beside_orders: bool = True,
    accept_empty: bool = False,
    again: bool = False,
    console: Console | None = None,
) -> SyncReport:
    """Bring every table up to date for some connections and business dates, raw orders to forecasts.

    Args:
        runtime: the rooms.
        connections: their keys (`square:acme`), of one provider or of several.
        days: the business dates, in order.
        beside_orders: whether payments, catalog, stock and hours worked are read as well.
        accept_empty: whether partitions that hold records may become empty.
        again: whether what an unfinished sync of the same dates has fetched is fetched anew.
        console: where a progress bar is drawn; none without it.

    """
    began = time.monotonic()
    report = SyncReport(partitions=len(connections) * len(days))
    by_provider: dict[str, list[str]] = {}
    for key in connections:
        by_provider.setdefault(split_key(key)[0], []).append(key)
    syncs = runtime.state.syncs
    tickets = {
        provider: syncs.begin(provider, keys, days[0], days[-1], again=again) for provider, keys in by_provider.items()
    }
    tokens = {key: tickets[provider].token for provider, keys in by_provider.items() for key in keys}
    report.resumed_days = sum(
        manifest.sync_token == token
        for key, token in tokens.items()
        for manifest in runtime.raw.manifests(key, days[0], days[-1]).values()
    )
    finished = False
    try:
        with driving(
            runtime, build_definitions, _bar(console, len(connections) * len(days)), accept_empty=accept_empty
        ) as driver:
            landed = {
                provider: {
                    key: driver.materialise_connection(provider, key, days, sync_token=tokens[key]) for key in keys
                }
                for provider, keys in by_provider.items()
            }
            sold = sorted({day for of_one in landed.values() for of_key in of_one.values() for day in of_key})
            asked = [day for day in sold if day in days]
            in_core = driver.materialise_core(sold) if asked else set()
            made = driver.forecast(asked[-1]) if asked and asked[-1] in in_core else (False, False)
            # After the sales, which do not depend on them: a stream that fails is a failure of that stream.
            if beside_orders:
                for provider, of_one in landed.items():
                    driver.read_streams(provider, of_one, days, sync_token=tickets[provider].token)
                driver.refresh_streams()
            report.failures = driver.failures
        finished = not report.failures
    finally:
        for ticket in tickets.values():
            syncs.finish(ticket.token, ok=finished)
    done = {
        key: [day for day in days if day in of_key and day in in_core]
        for of_one in landed.values()
        for key, of_key in of_one.items()
    }
    _count_calls(runtime, report, tokens, days, beside_orders=beside_orders)
    _add_up(runtime, report, done, made)
    report.seconds = time.monotonic() - began
    return report


def replay_quarantined(runtime: Runtime, partitions: Sequence[Partition]) -> SyncReport:
    """Normalise partitions again and bring the core tables up to date: what was quarantined may be usable by now.

    Records that could not even be landed (`raw_orders`) are fetched again.
    """
    report = SyncReport()
    with driving(runtime, build_definitions) as driver:
        landed: set[date] = set()
        for key, of_one in by_connection(partitions).items():
            provider, wanted = key.partition(":")[0], set(of_one)
            unread = names.raw_orders(provider).to_user_string()
            again = {row["business_date"] for row in runtime.quarantine.list(asset=unread, connection=key)} & wanted
            landed.update(driver.materialise_connection(provider, key, sorted(again), sync_token=uuid.uuid4().hex))
            landed.update(driver.normalise(provider, key, sorted(wanted - again)))
            driver.replay(provider, key, runtime.quarantine.list(connection=key), wanted)
        driver.materialise_core(sorted(landed))
        report.failures = driver.failures
    return report


def _count_calls(
    runtime: Runtime, report: SyncReport, tokens: Mapping[str, str], days: Sequence[date], *, beside_orders: bool
) -> None:
    """Add up what was called for the partitions that this sync has stored, as their manifests say."""
    for key, token in tokens.items():
        spec = provider_named(split_key(key)[0])
        read = [*spec.streams_by("windowed"), *(spec.streams_by("daily") if beside_orders else ())]
        for raw in (runtime.raw.of(stream.name) for stream in read):
            for manifest in raw.manifests(key, days[0], days[-1]).values():
                if manifest.sync_token == token:
                    report.requests += manifest.requests
                    report.retries += manifest.retries
                    report.waited_seconds += manifest.waited_seconds


def _add_up(runtime: Runtime, report: SyncReport, done: Mapping[str, Sequence[date]], made: tuple[bool, bool]) -> None:
    """Fill the report from the lake: what is there now of the partitions that this sync has completed.

    Args:
        runtime: the rooms.
        report: is filled.
        done: the business dates of each connection that are complete.
        made: whether there are forecasts as of the last of them, and whether they were evaluated.

    """
    from flux_pipelines.lake import session

    report.complete = sum(len(days) for days in done.values())
    dates = sorted({day for days in done.values() for day in days})
    if not dates:
        return
    for key, days in done.items():
        found = runtime.quarantine.list(connection=key, first_day=dates[0], last_day=dates[-1])
        report.quarantined += sum(row["business_date"] in days for row in found)
    by_dates: dict[tuple[date, ...], list[str]] = {}
    for key, days in done.items():
        by_dates.setdefault(tuple(days), []).append(key)
    scopes = [Scope(days, tuple(keys)).where("business_date") for days, keys in by_dates.items()]
    where = f"({' or '.join(f'({scope})' for scope in scopes)})"
    core = (TRANSACTIONS, DAILY_SALES, DEMAND_FORECASTS, FORECAST_ACCURACY)
    with session(runtime.lake, [table.name for table in core]) as database:
        report.lines = _number(
            database.execute(
                f"select count(*) from transactions where {where} and kind in ('sale', 'return') "
                "and line_type in ('item', 'custom_amount', 'gift_card')"
            )
        )
        report.orders = _number(
            database.execute(
                "select count(distinct (connection, order_id)) from transactions "
                f"where {where} and kind in ('sale', 'return')"
            )
        )
        report.net = dict(
            database.execute(
                f"select currency, sum(net) from daily_sales where {where} group by 1 order by 1"
            ).fetchall()
        )
        last = Scope(dates[-1:], tuple(done))
        report.forecast, evaluated = made
        if report.forecast:
            items = (
                "select count(distinct (connection, location_id, product_id)) from demand_forecasts "
                f"where {last.where('as_of')} and"
            )
            report.forecast_items = _number(database.execute(f"{items} status = 'forecast'"))
            report.unforecast_items = _number(database.execute(f"{items} status <> 'forecast'"))
        if evaluated:
            report.accuracy = [
                (key, error / sold, naive / sold)
                for key, sold, error, naive in database.execute(
                    "select connection, sum(actual_quantity), sum(absolute_error), sum(naive_absolute_error) "
                    f"from forecast_accuracy where {last.around(HORIZON - 1).where('target_date')} group by 1 order by 1"
                ).fetchall()
                if sold > 0
            ]


def _number(answer: Any) -> int:
    return int(answer.fetchone()[0])


def _bar(console: Console | None, total: int) -> Progress | None:
    """Return what draws a progress bar on a terminal, told of each partition."""
    if console is None or not console.is_terminal:
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
    task = bar.add_task("landing", total=total)

    def told(partition: Partition) -> None:
        bar.start()
        bar.update(task, description=f"{partition.connection} {partition.business_date}", advance=1)
        if bar.finished:
            bar.stop()

    return told
