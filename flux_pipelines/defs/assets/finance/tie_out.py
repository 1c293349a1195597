"""Whether the day's books close: `tie_out`, what orders say was owed beside what payments say was paid."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names, plots
from flux_pipelines.defs.assets.core import PLOT_DAYS, SQL, Mart, Without, Written, conform
from flux_pipelines.defs.checks import (
    CHECK_MEMORY,
    SAMPLE,
    Check,
    Scope,
    contract,
    no_duplicate_lines,
    result,
)
from flux_pipelines.defs.metadata import amounts, money
from flux_pipelines.defs.partition_stats import Figures
from flux_pipelines.defs.partitions import each_day
from flux_pipelines.domain import tables
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.partition import Unit
from flux_pipelines.domain.tables.sales import OWED

if TYPE_CHECKING:
    import duckdb

    from flux_pipelines.lake import Draft, RawManifest
    from flux_pipelines.lake.raw import Made
    from flux_pipelines.runtime import Runtime

_ROWS_A_BATCH = 65_536
#: Many joins, each with memory of its own, however few the rows are.
_MEMORY = "512MB"
#: Days before and after an order on which its payments are looked for.
AROUND = 3

#: Dates that are looked at whenever one is written, up to the newest one that there is.
LOOK_BACK = timedelta(days=366)
#: So long after a date payments of it may be missing: they are collected after the next one has begun.
PATIENCE = timedelta(days=2)

TIES_OUT = Check(
    "ties_out",
    "What was owed and was not paid is what customers owe or what is held for them, order by order, to the cent, on every "
    f"business date of the last {LOOK_BACK.days} days in the lake, not on those of this run alone. If it fails: the sample names "
    "date, store, amount, reason and orders, `tie_out` has them all (`gap_reason`). `payment pending` closes by itself. Where "
    "payments were not fetched, or orders changed since, fetch the dates again on the connection's page or with `flux sync`. Look "
    "at the others in the provider's own reports.",
    """
    select business_date, connection, location_id, currency, gap, gap_reason, gap_orders
    from {view} where gap <> 0 and payments_known
    order by business_date desc, abs(gap) desc, connection, location_id
    """,
    blocking=False,
)
#: Of a row that was made before there was `gap_reason`.
_NO_REASON = "reason not known, an earlier version of Flux made it: run `refresh_books` over the date"
_UNKNOWN = """
    select connection, gap_reason, count(distinct business_date), min(business_date), max(business_date)
    from {view} where not payments_known and business_date < $before
    group by 1, 2 order by 1, 2
"""


def open_items() -> Mart:
    """Return what was owed and paid of orders that are not paid on the date on which they count."""
    return Mart(
        tables.OPEN_ITEMS,
        _write_items,
        (tables.TRANSACTIONS.name, tables.PAYMENTS.name),
        (dg.AssetDep(names.TRANSACTIONS), dg.AssetDep(names.PAYMENTS)),
        names.PAYMENTS_GROUP,
        (
            no_duplicate_lines(tables.OPEN_ITEMS),
            contract(
                tables.OPEN_ITEMS,
                {"what is paid as it is owed is no open item": "owed <> paid or coalesce(due, 0) <> 0"},
            ),
        ),
        Figures(
            tables.OPEN_ITEMS.name,
            day="business_date",
            by=("business_date",),
            counts=(("orders", "count(distinct (connection, order_id))"),),
            money=(("owed", "owed"), ("paid", "paid"), ("pending", "pending")),
            shown=("connection", "location_id", "order_id", "owed", "paid", "currency", "order_status", "raw_date"),
            order=("-abs(owed - paid)", "connection", "location_id", "order_id", "currency"),
        ),
        written_alone=False,  # payments may be collected while transactions are being read
    )


def tie_out() -> "TieOut":
    """Return the mart that compares orders with payments."""
    return TieOut(
        tables.TIE_OUT,
        _write,
        (tables.TRANSACTIONS.name, tables.PAYMENTS.name),
        (
            dg.AssetDep(names.TRANSACTIONS),
            dg.AssetDep(names.PAYMENTS),
            # Of every date: an order's balance may change on any. The step itself finds the others that must be made again.
            dg.AssetDep(tables.OPEN_ITEMS.name),
        ),
        names.PAYMENTS_GROUP,
        (
            no_duplicate_lines(tables.TIE_OUT),
            contract(
                tables.TIE_OUT,
                {
                    "owed - paid - refunded = receivables - deposits + gap": (
                        "owed - paid - refunded = receivables - deposits + gap"
                    ),
                    "there is a gap, be it 0, where payments are known": "payments_known = (gap is not null)",
                    "orders that do not close have a reason, and so have payments that are not known": (
                        "(gap_reason is null) = (payments_known and gap_orders is null)"
                    ),
                    f"owed = {OWED}": f"owed = {OWED}",
                },
            ),
            TIES_OUT,
        ),
        Figures(
            tables.TIE_OUT.name,
            day="business_date",
            by=("business_date",),
            counts=(
                ("stores", "count(distinct (connection, location_id))"),
                ("stores that tie out", "count(*) filter (gap = 0 and payments_known)"),
                ("stores that do not", "count(*) filter (gap <> 0 and payments_known)"),
                ("stores whose payments are not known", "count(*) filter (not payments_known)"),
            ),
            money=(
                *(("owed", "owed"), ("paid", "paid"), ("refunded", "refunded"), ("fees", "fees")),
                *(("receivables", "receivables"), ("deposits", "deposits"), ("gap", "gap")),
            ),
            shown=(
                *(
                    "connection",
                    "location_id",
                    "owed",
                    "paid",
                    "refunded",
                    "receivables",
                    "deposits",
                    "gap",
                    "currency",
                ),
                *("gap_reason", "gap_orders"),
            ),
            order=("-abs(coalesce(gap, 0))", "connection", "location_id", "currency"),
        ),
        more=_pictures,
        reach=AROUND,
        written_alone=False,  # payments may be collected while transactions are being read
    )


class TieOut(Mart):
    """The mart whose dates depend on each other: an order may be paid on one and count on another."""

    def replace(self, runtime: "Runtime", days: Sequence[date]) -> Written:
        """Write business dates, and those that have changed with them; look at every date that is open."""
        mart = replace(self, checks=tuple(check for check in self.checks if check is not TIES_OUT))
        written = Mart.replace(mart, runtime, days)
        if moved := _moved(runtime, days):
            others = Mart.replace(mart, runtime, moved)
            written = Written(
                {**written.done, **others.done},
                written.findings.merged(others.findings),
                {**written.refused, **others.refused},
            )
        written.findings.tell(_ties_out(runtime, dg.AssetKey(self.table.name)))
        return written


def _ties_out(runtime: "Runtime", asset: dg.AssetKey) -> dg.AssetCheckResult:
    """Look at every date of the last year, whichever were just written: one that is apart must not be forgotten."""
    from flux_pipelines.lake import session

    written = sorted(date.fromisoformat(key) for (key,) in runtime.lake.rows_by_partition(tables.TIE_OUT.name))
    days = [day for day in written if day > written[-1] - LOOK_BACK]
    recent = Scope(days).where("business_date")
    view = tables.TIE_OUT.name
    before = datetime.now(UTC).date() - PATIENCE
    with session(runtime.lake, [view], where={"business_date": written}, memory_limit=CHECK_MEMORY) as database:
        source = f"(select * from {view} where {recent})"
        apart = database.execute(TIES_OUT.sql.replace("{view}", source)).fetchall()
        unknown = database.execute(_UNKNOWN.replace("{view}", source), {"before": before}).fetchall()
        still_open = database.execute(
            f"select currency, coalesce(sum(receivables), 0), coalesce(sum(deposits), 0) from {view} group by 1 order by 1"
        ).fetchall()
    places = runtime.places()
    # What was removed or disconnected cannot be fetched any more, and nobody can do anything about it.
    there = {connection.key for connection in runtime.connections() if connection.status != "disconnected"}
    missing = [row for row in unknown if row[0] in there]
    offenders = [
        (
            first.isoformat() if first == last else f"{first} to {last}",
            connection,
            f"{reason or _NO_REASON} ({counted} business date{'' if counted == 1 else 's'})",
        )
        for connection, reason, counted, first, last in missing
    ] + [
        (
            day.isoformat(),
            f"{places.get(location, location)} ({connection})",
            f"{money(gap, currency)} {currency} apart: {reason or _NO_REASON}. Orders: {orders}",
        )
        for day, connection, location, currency, gap, reason, orders in apart
    ]
    looked_at = {
        "business dates looked at": len(days),
        "business dates apart": len({row[0] for row in apart}),
        "business dates without payments": sum(row[2] for row in missing),
        **amounts("customers owe now", {currency: owed for currency, owed, _ in still_open}),
        **amounts("held for customers now", {currency: held for currency, _, held in still_open}),
    }
    return result(TIES_OUT, asset, len(offenders), offenders[:SAMPLE], looked_at)


@contextmanager
def _write_items(runtime: "Runtime", days: Sequence[date], _: Collection[Unit], without: Without) -> Iterator["Draft"]:
    """Stage `open_items` of business dates."""
    read = [tables.TRANSACTIONS.name, tables.PAYMENTS.name]
    with _over(runtime, read, days, days, without) as database:
        made = database.sql(_items_query(days)).to_arrow_reader(_ROWS_A_BATCH)
        with runtime.lake.draft(tables.OPEN_ITEMS, made, [{"business_date": day} for day in days]) as draft:
            yield draft


@contextmanager
def _write(runtime: "Runtime", days: Sequence[date], _: Collection[Unit], without: Without) -> Iterator["Draft"]:
    """Stage `tie_out` of business dates."""
    scope = Scope(days)
    around = scope.around(AROUND, AROUND)
    read = [tables.TRANSACTIONS.name, tables.PAYMENTS.name]
    with _over(runtime, read, days, around.days, without) as database:
        _balances(database, runtime, _items_query(days))
        database.execute("create temp table fetched_orders (connection varchar, business_date date)")
        _insert(database, "fetched_orders", _fetched_orders(runtime, around.days[0], around.days[-1]))
        query = (SQL / "tie_out.sql").read_text().replace("{around}", around.where("business_date"))
        query = query.replace("{scope}", scope.where("business_date")).replace("{reach}", str(AROUND))
        made = database.sql(conform(tables.TIE_OUT, query)).to_arrow_reader(_ROWS_A_BATCH)
        with runtime.lake.draft(tables.TIE_OUT, made, [{"business_date": day} for day in days]) as draft:
            yield draft


@contextmanager
def _over(
    runtime: "Runtime", read: Sequence[str], days: Sequence[date], around: Sequence[date], without: Without
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open SQL over some tables around business dates, with what is known of the payments of these dates."""
    from flux_pipelines.lake import session

    where = {"business_date": around}
    with session(runtime.lake, read, where=where, memory_limit=_MEMORY, without=without) as database:
        database.execute("create temp table looked_at (connection varchar, business_date date, missing varchar)")
        _insert(database, "looked_at", looked_at(runtime, days))
        yield database


def _insert(database: "duckdb.DuckDBPyConnection", table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        database.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)


def _items_query(days: Sequence[date]) -> str:
    query = (SQL / "open_items.sql").read_text().replace("{scope}", Scope(days).where("business_date"))
    return conform(tables.OPEN_ITEMS, query)


def _balances(database: "duckdb.DuckDBPyConnection", runtime: "Runtime", fresh: str = "") -> None:
    """Make `balances`: what every date adds to and takes from open balances. An order's may change on any date.

    Args:
        database: the session.
        runtime: the rooms.
        fresh: the query that makes the items of the dates of `looked_at` anew; those of the others are in the table.

    """
    stored = runtime.lake.read(tables.OPEN_ITEMS).read_all()
    if fresh:
        database.register("stored_items", stored)
        others = "select * from stored_items where business_date not in (select business_date from looked_at)"
        database.execute(f"create temp table items as {others} union all by name {fresh}")
    else:
        database.register("items", stored)
    database.execute("create temp table history (connection varchar, first date)")
    _insert(database, "history", _history(runtime))
    database.execute(f"create temp table balances as {(SQL / 'balances.sql').read_text()}")


def _history(runtime: "Runtime") -> list[tuple[str, date]]:
    """Return since when each connection's payments are known."""
    found = []
    for provider, stream in _payment_streams().items():
        raw = runtime.raw.of(stream)
        for key in raw.connections():
            if split_key(key)[0] == provider and (days := raw.days(key)):
                found.append((key, days[0]))
    return found


def _moved(runtime: "Runtime", days: Collection[date]) -> list[date]:
    """Return the other dates whose balances are no longer what `tie_out` says: an order of theirs was paid, or changed."""
    from flux_pipelines.lake import session

    figures = "sum(receivables) as receivables, sum(deposits) as deposits, sum(gap) as gap"
    by = "connection, location_id, business_date, currency"
    there = [date.fromisoformat(key) for (key,) in runtime.lake.rows_by_partition(tables.TIE_OUT.name)]
    with session(runtime.lake, [tables.TIE_OUT.name], where={"business_date": there}, memory_limit=_MEMORY) as database:
        _balances(database, runtime)
        found = database.execute(
            f"""
            select distinct business_date
            from (select * from {tables.TIE_OUT.name} where payments_known) t
            left join (select {by}, {figures} from balances group by all) b using ({by})
            where t.receivables is distinct from coalesce(b.receivables, 0)
                or t.deposits is distinct from coalesce(b.deposits, 0) or t.gap is distinct from coalesce(b.gap, 0)
                -- Since then it may have been.
                or t.gap_reason like '%that was not fetched%'
            """
        ).fetchall()
    return sorted({day for (day,) in found} - set(days))


def _payment_streams() -> dict[str, str]:
    """Return of which raw records each provider's payments are made."""
    return {
        spec.name: table.stream
        for spec in names.sources()
        for table in spec.tables
        if table.table == tables.PAYMENTS.name
    }


def looked_at(runtime: "Runtime", days: Sequence[date]) -> list[tuple[str, date, str]]:
    """Return of which connections and business dates payments have been fetched, and what is missing until they are known.

    Nothing is missing once `payments` has what was fetched last: until then it may have none of a date, or fewer. Every
    connection that has ever landed something is looked at: what was fetched of one that was removed is history.
    """
    core = runtime.lake.rows_by_partition(tables.PAYMENTS.name, {"business_date": days})
    found = []
    for provider, stream in _payment_streams().items():
        part = f"{provider}/{tables.PAYMENTS.name}"
        own: Counter[tuple[str, str]] = Counter()
        for (key, _, counted_on), number in runtime.lake.rows_by_partition(part, {"business_date": days}).items():
            own[key, counted_on] += number
        landed: Counter[tuple[str, str]] = Counter()
        for (key, of, _), number in runtime.lake.rows_by_partition(part, {"raw_date": days}).items():
            landed[key, of] += number
        raw = runtime.raw.of(stream)
        for key in (key for key in raw.connections() if split_key(key)[0] == provider):
            stored = raw.survey(key, days[0], days[-1])
            fetched = {manifest.business_date: manifest for manifest in stored.readable}
            # One that cannot be read has been fetched all the same, and the tables keep the rows they have of it.
            there = stored.days.intersection(days)
            made = raw.made(key, sorted(there), tables.PAYMENTS.name)
            known = {
                day
                for day in there
                if own[key, day.isoformat()] == core.get((key, day.isoformat()), 0)
                and _covers(fetched.get(day), made.get(day), landed[key, day.isoformat()])
            }
            for day in days:
                if day in there:
                    found.append((key, day, "" if day in known else "payments not in the table yet"))
    return found


def _covers(manifest: "RawManifest | None", made: "Made | None", rows: int) -> bool:
    """Tell whether the provider's own part of `payments` has what was fetched, by its rows of that raw partition."""
    if made is None:  # of a lake of earlier times
        return rows > 0
    return made.rows == rows and (manifest is None or made.fetched_at == manifest.fetched_at)


def _fetched_orders(runtime: "Runtime", first: date, last: date) -> list[tuple[str, date]]:
    return [
        (key, day) for key in runtime.raw.connections() for day in sorted(runtime.raw.survey(key, first, last).days)
    ]


def _pictures(database: "duckdb.DuckDBPyConnection", scope: Scope) -> dict[str, dict[str, Any]]:
    """Return a picture of the days up to each business date, one a currency: owed beside received."""
    found: dict[str, dict[date, tuple[Decimal, Decimal]]] = {}
    for currency, day, owed, received in database.execute(
        f"select currency, business_date, sum(owed), sum(paid + refunded) from {tables.TIE_OUT.name} "
        f"where payments_known and {scope.around(PLOT_DAYS - 1).where('business_date')} group by 1, 2 order by 1, 2"
    ).fetchall():
        found.setdefault(currency, {})[day] = (owed, received)
    nothing = (Decimal(0), Decimal(0))
    drawn: dict[str, dict[str, Any]] = {}
    for day in scope.days:
        window = each_day(day - timedelta(days=PLOT_DAYS - 1), day)
        drawn[day.isoformat()] = {
            f"plot {currency}": plots.markdown(
                plots.pairs(
                    f"Owed and received {currency}, {PLOT_DAYS} days to {day}",
                    [(d, *by_day.get(d, nothing)) for d in window],
                    ("owed", "received"),
                ),
                f"What was owed and what was received in {currency}",
            )
            for currency, by_day in found.items()
            if day in by_day
        }
    return drawn
