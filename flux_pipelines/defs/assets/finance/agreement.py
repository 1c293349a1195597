"""`daily_sales`, and whether it agrees with the provider's own sales report: `reported_sales` is its witness.

A report is another's arithmetic over the same sales. Where the two differ, the orders that make the difference are looked for;
where there is no report, the date has no witness, which is no agreement.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names, plots
from flux_pipelines.defs.assets.core import PLOT_DAYS, SQL, Mart, Written, by_query
from flux_pipelines.defs.checks import (
    CHECK_MEMORY,
    SAMPLE,
    TIES_TO_TRANSACTIONS,
    Check,
    Scope,
    contract,
    no_duplicate_lines,
    result,
)
from flux_pipelines.defs.completeness import calendars
from flux_pipelines.defs.metadata import amounts, money, preview
from flux_pipelines.defs.partition_stats import Figures
from flux_pipelines.defs.partitions import each_day
from flux_pipelines.domain import tables
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.providers.base import Window
from flux_pipelines.providers.witness import NoWitnessError, ReportedOrder, ReportSource

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime

#: Dates that are looked at whenever one is written, up to the newest one that there is.
LOOK_BACK = timedelta(days=366)
#: So long after a date its report may not have been asked for: it is, once the date is over.
PATIENCE = timedelta(days=2)
#: Of so many stores' dates that differ, the newest, the report is asked order by order.
_NAMED = 3
_ORDERS_TOLD = 10

AGREES = Check(
    "agrees_with_report",
    "Net sales, tax and tips of every store and business date of the last "
    f"{LOOK_BACK.days} days equal the provider's own sales report, to the cent, as far as the report has them. If it fails: "
    "`no witness` says that there is no report to compare with, and why; nothing is wrong with the figures for that. Where the "
    "two differ, the sample names the orders, as far as they can be told: look at them at the provider, and fetch the date "
    "again on the connection's page or with `flux sync`.",
    "",
    blocking=False,
)
#: Both figures of every store's date that has one of them.
_COMPARED = """
    select coalesce(o.connection, r.connection) as connection, coalesce(o.location_id, r.location_id) as location_id,
        coalesce(o.business_date, r.business_date) as business_date, coalesce(o.currency, r.currency) as currency,
        coalesce(o.net, 0) as net, coalesce(o.tax, 0) as tax, coalesce(o.tips, 0) as tips,
        r.status, r.reason, r.net as report_net, r.tax as report_tax, r.tips as report_tips, o.connection is not null as sold
    from (select * from daily_sales where {scope}) o
    full join (select * from reported_sales where {scope}) r
        on r.connection = o.connection and r.location_id = o.location_id and r.business_date = o.business_date
            and r.currency = o.currency
    order by business_date desc, connection, location_id, currency
"""
_NOT_ASKED = "the report has not been asked for"
_NOT_YET = "the report has not been asked for yet"
_NO_REPORTS = "Flux cannot read this provider's own report"


@dataclass(frozen=True, slots=True)
class Compared:
    """A store's business date as it is here, and as the report has it; without a witness the report's are None."""

    connection: str
    location_id: str
    business_date: date
    currency: str
    ours: tuple[Decimal, Decimal, Decimal]  # net, tax, tips
    report: tuple[Decimal | None, Decimal | None, Decimal | None]
    reason: str | None  # why there is no witness; None where there is one
    sold: bool

    @property
    def differences(self) -> dict[str, Decimal]:
        """What differs, and by how much more there is here; figures that the report does not have never do."""
        pairs = zip(("net", "tax", "tips"), self.ours, self.report, strict=True)
        return {name: ours - theirs for name, ours, theirs in pairs if theirs is not None and ours != theirs}


def daily_sales() -> "DailySales":
    """Return what each store took on each business date."""
    reports = (dg.AssetDep(names.REPORTED_SALES),) if names.with_table(tables.REPORTED_SALES.name) else ()
    return DailySales(
        tables.DAILY_SALES,
        by_query(tables.DAILY_SALES, (SQL / "daily_sales.sql").read_text()),
        (tables.TRANSACTIONS.name,),
        (dg.AssetDep(names.TRANSACTIONS), *reports),
        names.SALES_GROUP,
        (no_duplicate_lines(tables.DAILY_SALES), contract(tables.DAILY_SALES, {}), TIES_TO_TRANSACTIONS, AGREES),
        Figures(
            "daily_sales",
            day="business_date",
            by=("business_date",),
            counts=(("orders", "sum(orders)"), ("returns", "sum(returns)"), ("voids", "sum(voids)")),
            money=(("net", "net"), ("tax", "tax"), ("tips", "tips"), ("total", "total")),
            shown=("connection", "location_id", "orders", "units", "net", "tax", "tips", "total", "currency"),
            order=("connection", "location_id", "currency"),
        ),
    )


class DailySales(Mart):
    """The mart that is compared with the providers' own reports."""

    def replace(self, runtime: "Runtime", days: Sequence[date]) -> Written:
        """Write business dates, describe what was written, and compare every date with its report."""
        checks = tuple(check for check in self.checks if check is not AGREES)
        written = Mart.replace(replace(self, checks=checks), runtime, days)
        near = _compared(runtime, Scope(days).around(PLOT_DAYS - 1))
        told = {key: {**entries, **_told(runtime, near, key)} for key, entries in written.done.items()}
        there = sorted(date.fromisoformat(key) for (key,) in runtime.lake.rows_by_partition(self.table.name))
        every = _compared(runtime, Scope([day for day in there if day >= there[-1] - LOOK_BACK]))
        written.findings.tell(_agrees(runtime, dg.AssetKey(self.table.name), every))
        return Written(told, written.findings, written.refused)


def _compared(runtime: "Runtime", scope: Scope) -> list[Compared]:
    """Return every store's date that has been fetched, the latest first."""
    from flux_pipelines.lake import session

    read = [tables.DAILY_SALES.name, tables.REPORTED_SALES.name]
    query = _COMPARED.replace("{scope}", scope.where("business_date"))
    where = {"business_date": scope.days}
    with session(runtime.lake, read, where=where, memory_limit=CHECK_MEMORY) as database:
        rows = database.execute(query).fetchall()
    reporting = {provider.name for provider in names.with_table(tables.REPORTED_SALES.name)}
    newest = datetime.now(UTC).date() - PATIENCE
    found = []
    for connection, location, day, currency, net, tax, tips, status, why, *report, sold in rows:
        if not sold and not runtime.raw.landed(connection, [day]):
            continue  # its orders have not been asked for: nothing is said of it here
        figures = (None, None, None) if status != "reported" else (report[0], report[1], report[2])
        reason = why
        if status is None and split_key(connection)[0] not in reporting:
            reason = _NO_REPORTS
        elif status is None:
            reason = _NOT_ASKED if day <= newest else _NOT_YET
        found.append(Compared(connection, location, day, currency, (net, tax, tips), figures, reason, sold))
    return found


def _agrees(runtime: "Runtime", asset: dg.AssetKey, every: Sequence[Compared]) -> dg.AssetCheckResult:
    """Return whether every date has a witness that says the same; else what differs, with the orders that make it."""
    places = runtime.places()
    # What was removed or disconnected cannot be asked for any more.
    there = {connection.key: connection for connection in runtime.connections() if connection.status != "disconnected"}
    apart = [one for one in every if one.differences]
    silent: dict[tuple[str, str], list[date]] = {}
    for one in every:
        if one.reason not in (None, _NOT_YET) and one.sold and one.connection in there:
            silent.setdefault((one.connection, str(one.reason)), []).append(one.business_date)
    offenders = []
    for index, one in enumerate(apart):
        store = f"{places.get(one.location_id, one.location_id)} ({one.connection})"
        differing = ", ".join(_in_words(name, one) for name in one.differences)
        orders = _orders(runtime, there.get(one.connection), one) if index < _NAMED else "not looked for"
        offenders.append((one.business_date.isoformat(), store, f"{differing}. Orders: {orders}"))
    for (connection, reason), days in sorted(silent.items()):
        first, last = min(days), max(days)
        which = first.isoformat() if first == last else f"{first} to {last}"
        counted = len(set(days))
        offenders.append(
            (which, connection, f"no witness: {reason} ({counted} business date{'' if counted == 1 else 's'})")
        )
    compared = [one for one in every if one.reason is None]
    looked_at = {
        "business dates compared": len({one.business_date for one in compared}),
        "business dates apart": len({one.business_date for one in apart}),
        "business dates without a witness": len({day for days in silent.values() for day in days}),
    }
    return result(AGREES, asset, len(offenders), offenders[:SAMPLE], looked_at)


def _in_words(name: str, one: Compared) -> str:
    at = ("net", "tax", "tips").index(name)
    theirs = one.report[at] or Decimal(0)
    return (
        f"{name} {money(one.ours[at], one.currency)} here, {money(theirs, one.currency)} {one.currency} in the report "
        f"({money(one.differences[name], one.currency)})"
    )


def _orders(runtime: "Runtime", connection: "Connection | None", one: Compared) -> str:
    """Return which orders make a difference, as far as it can be told."""
    ours = _own_orders(runtime, one)
    if connection is None or connection.status != "active":
        return _candidates(ours, one, "the connection is not active, so the report was not asked for them")
    try:
        theirs = _reported_orders(runtime, connection, one)
    except NoWitnessError as nothing:
        return _candidates(ours, one, f"the report could not be asked for them: {nothing.reason}")
    except FluxError as error:
        return _candidates(ours, one, f"the report could not be asked for them: {error.what}")
    if theirs is None:
        return _candidates(ours, one, "this report does not name orders")
    wrong = {
        order: (ours.get(order), theirs.get(order))
        for order in {*ours, *theirs}
        if ours.get(order, Decimal(0)) != theirs.get(order, Decimal(0))
    }
    if not wrong:
        return "order by order the report says the same as here: it was fetched before an order changed, fetch it again"

    zero = Decimal(0)
    apart = {order: (here or zero) - (there or zero) for order, (here, there) in wrong.items()}
    difference = one.differences.get("net")
    if difference is not None and sum(apart.values()) != difference:
        # Some reports of orders are of the day's sales alone, and not of what came back.
        exactly = {order: wrong[order] for order, by in apart.items() if by == difference}
        wrong = exactly or wrong

    def told(amount: Decimal | None) -> str:
        return "nothing" if amount is None else money(amount, one.currency)

    ordered = sorted(wrong, key=lambda order: (-abs(apart[order]), order))
    named = [f"{order} ({told(wrong[order][0])} here, {told(wrong[order][1])} in the report)" for order in ordered]
    more = len(named) - _ORDERS_TOLD
    return ", ".join(named[:_ORDERS_TOLD]) + (f" and {more} more" if more > 0 else "")


def _own_orders(runtime: "Runtime", one: Compared) -> dict[str, Decimal]:
    from flux_pipelines.lake import session

    where: dict[str, str | date] = {"connection": one.connection, "business_date": one.business_date}
    with session(runtime.lake, [tables.TRANSACTIONS.name], where=where, memory_limit=CHECK_MEMORY) as database:
        # Where a return is an order of its own, the report has it under its own id too.
        rows = database.execute(
            "select order_id, sum(net) from transactions where connection = ? and business_date = ? and location_id = ? "
            "and currency = ? group by 1",
            [one.connection, one.business_date, one.location_id, one.currency],
        ).fetchall()
    return dict(rows)


def _reported_orders(runtime: "Runtime", connection: "Connection", one: Compared) -> dict[str, Decimal] | None:
    known = calendars(connection, runtime.state.locations.list(connection.key))
    if one.location_id not in known:
        raise NoWitnessError("its location is not known")
    window = Window((one.location_id,), *known[one.location_id].window(one.business_date), one.business_date)
    source = runtime.source(connection)
    try:
        if not isinstance(source, ReportSource):
            return None
        found: Sequence[ReportedOrder] = source.reported_orders(window)
    finally:
        source.close()
    sums: dict[str, Decimal] = {}
    for order in found:
        if order.location_id == one.location_id:
            sums[order.order_id] = sums.get(order.order_id, Decimal(0)) + order.net
    return sums


def _candidates(ours: Mapping[str, Decimal], one: Compared, why: str) -> str:
    """Name orders whose amount would explain a difference, and say that it is a guess."""
    difference = one.differences.get("net")
    fitting = sorted(order for order, net in ours.items() if net == difference)
    if not fitting:
        return f"{why}; no single order here is of the amount by which they differ"
    named = ", ".join(fitting[:_ORDERS_TOLD])
    return (
        f"{why}; of exactly the amount by which they differ: {named} (that explains it, if the report does not have it)"
    )


def _told(runtime: "Runtime", every: Sequence[Compared], key: str) -> dict[str, Any]:
    """Return a business date's metadata of the comparison, and its picture: 30 days, one picture a currency."""
    day = date.fromisoformat(key)
    mine = [one for one in every if one.business_date == day]
    places = runtime.places()
    entries: dict[str, Any] = {}
    if mine:
        known = [one for one in mine if one.reason is None]
        by_currency: dict[str, Decimal] = {}
        for one in known:
            by_currency[one.currency] = by_currency.get(one.currency, Decimal(0)) + (one.report[0] or Decimal(0))
        entries |= amounts("net in the report", by_currency)
        entries |= {
            "stores that agree with the report": sum(not one.differences for one in known),
            "stores that do not": sum(bool(one.differences) for one in known),
            "stores without a witness": len(mine) - len(known),
            "compared": preview(
                ("store", "net", "net in the report", "currency", "witness"),
                [
                    (
                        places.get(one.location_id, one.location_id),
                        money(one.ours[0], one.currency),
                        "" if one.report[0] is None else money(one.report[0], one.currency),
                        one.currency,
                        f"no witness: {one.reason}"
                        if one.reason
                        else ", ".join(_in_words(name, one) for name in one.differences) or "equal",
                    )
                    for one in mine
                ],
            ),
        }
    return {**_pictures(every, day), **entries}


def _pictures(every: Sequence[Compared], day: date) -> dict[str, Any]:
    """Return the picture of the days up to a business date; with the report beside, where there is one on any of them."""
    window = each_day(day - timedelta(days=PLOT_DAYS - 1), day)
    ours: dict[str, dict[date, Decimal]] = {}
    theirs: dict[str, dict[date, Decimal]] = {}
    for one in every:
        if window[0] <= one.business_date <= day:
            for figures, amount in ((ours, one.ours[0]), (theirs, one.report[0])):
                if amount is not None:
                    of_currency = figures.setdefault(one.currency, {})
                    of_currency[one.business_date] = of_currency.get(one.business_date, Decimal(0)) + amount
    nothing = Decimal(0)
    drawn: dict[str, Any] = {}
    for currency, by_day in ours.items():
        if day not in by_day:
            continue
        title = f"Net sales {currency}, {PLOT_DAYS} days to {day}"
        if reported := theirs.get(currency):
            points = [(d, by_day.get(d, nothing), reported.get(d, nothing)) for d in window]
            picture = plots.pairs(title, points, ("here", "in the provider's report"))
        else:
            picture = plots.bars(title, [(d, by_day.get(d, nothing)) for d in window], highlight=day)
        drawn[f"plot {currency}"] = plots.markdown(picture, f"Net sales in {currency}")
    return drawn
