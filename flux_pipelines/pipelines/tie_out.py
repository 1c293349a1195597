"""Whether the day's books close: `tie_out`, what orders say was owed beside what payments say was paid."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.domain import tables
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.tables.sales import OWED
from flux_pipelines.pipelines import names, plots
from flux_pipelines.pipelines.checks import (
    CHECK_MEMORY,
    SAMPLE,
    Check,
    Scope,
    contract,
    no_duplicate_lines,
    result,
)
from flux_pipelines.pipelines.feed_tables import ORDERS
from flux_pipelines.pipelines.figures import Figures
from flux_pipelines.pipelines.metadata import money
from flux_pipelines.pipelines.partitions import each_day
from flux_pipelines.pipelines.sales import PLOT_DAYS, Mart, Without, Written, conform

if TYPE_CHECKING:
    import duckdb

    from flux_pipelines.lake import Draft, RawManifest
    from flux_pipelines.lake.raw import Made
    from flux_pipelines.runtime import Runtime

_SQL = (Path(__file__).with_name("sql") / "tie_out.sql").read_text()
_ROWS_A_BATCH = 65_536
#: Days before and after an order on which its payments are looked for.
AROUND = 3

#: Dates that are looked at whenever one is written, up to the newest one that there is.
LOOK_BACK = timedelta(days=366)
#: So long after a date payments of it may be missing: they are collected after the next one has begun.
PATIENCE = timedelta(days=2)

TIES_OUT = Check(
    "ties_out",
    "What orders say was owed equals what payments say was paid and given back, to the cent, on every business date of the "
    f"last {LOOK_BACK.days} days in the lake, not on those of this run alone. If it fails: the sample names date, store, amount, "
    "reason and orders, `tie_out` has them all (`gap_reason`). `payment pending` closes by itself. Where payments were not "
    "fetched, or orders changed since, fetch the dates again on the connection's page or with `flux sync`; so too the date "
    "before the first one, on which orders of tabs that were paid on it were made. Look at the others in the provider's own "
    "reports.",
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


def tie_out() -> "TieOut":
    """Return the mart that compares orders with payments."""
    return TieOut(
        tables.TIE_OUT,
        _write,
        (tables.TRANSACTIONS.name, tables.PAYMENTS.name),
        (
            # A payment counts with its order, which may be of an earlier date and be fetched later.
            dg.AssetDep(
                names.TRANSACTIONS,
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-AROUND, end_offset=0, allow_nonexistent_upstream_partitions=True
                ),
            ),
            # Tabs of a date are paid on the next one too.
            dg.AssetDep(
                names.PAYMENTS,
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=0, end_offset=1, allow_nonexistent_upstream_partitions=True
                ),
            ),
        ),
        names.PAYMENTS_GROUP,
        (
            no_duplicate_lines(tables.TIE_OUT),
            contract(
                tables.TIE_OUT,
                {
                    "gap = owed - paid - refunded": "gap = owed - paid - refunded",
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
            money=(("owed", "owed"), ("paid", "paid"), ("refunded", "refunded"), ("fees", "fees"), ("gap", "gap")),
            shown=(
                *("connection", "location_id", "owed", "paid", "refunded", "fees", "gap", "currency"),
                *("gap_reason", "gap_orders"),
            ),
            order=("-abs(coalesce(gap, 0))", "connection", "location_id", "currency"),
        ),
        more=_pictures,
        reach=AROUND,
        written_alone=False,  # payments may be collected while transactions are being read
    )


class TieOut(Mart):
    """The mart that needs more than the lake: of which days payments have been fetched, the raw records say."""

    def replace(self, runtime: "Runtime", days: Sequence[date]) -> Written:
        """Write business dates, describe what was written, and look at every date that is open."""
        checks = tuple(check for check in self.checks if check is not TIES_OUT)
        written = Mart.replace(replace(self, checks=checks), runtime, days)
        written.findings.tell(_ties_out(runtime, dg.AssetKey(self.table.name)))
        return written


def _ties_out(runtime: "Runtime", asset: dg.AssetKey) -> dg.AssetCheckResult:
    """Look at every date of the last year, whichever were just written: one that is apart must not be forgotten."""
    from flux_pipelines.lake import session

    written = sorted(date.fromisoformat(key) for (key,) in runtime.lake.rows_by_partition(tables.TIE_OUT.name))
    days = [day for day in written if day > written[-1] - LOOK_BACK]
    view = tables.TIE_OUT.name
    before = datetime.now(UTC).date() - PATIENCE
    with session(runtime.lake, [view], where={"business_date": days}, memory_limit=CHECK_MEMORY) as database:
        apart = database.execute(TIES_OUT.sql.replace("{view}", view)).fetchall()
        unknown = database.execute(_UNKNOWN.replace("{view}", view), {"before": before}).fetchall()
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
    }
    return result(TIES_OUT, asset, len(offenders), offenders[:SAMPLE], looked_at)


@contextmanager
def _write(runtime: "Runtime", days: Sequence[date], _: Collection[str], without: Without) -> Iterator["Draft"]:
    from flux_pipelines.lake import session

    first, last = days[0] - timedelta(days=AROUND), days[-1] + timedelta(days=AROUND)
    facts: dict[str, Sequence[tuple[Any, ...]]] = {
        "looked_at": looked_at(runtime, days),
        "fetched_orders": _fetched_orders(runtime, first, last),
    }
    query = _SQL.replace("{scope}", Scope(days[0], days[-1]).where("business_date")).replace("{reach}", str(AROUND))
    query = query.replace("{around}", Scope(first, last).where("business_date"))
    read = [tables.TRANSACTIONS.name, tables.PAYMENTS.name]
    where = {"business_date": each_day(first, last)}
    with session(runtime.lake, read, where=where, memory_limit=CHECK_MEMORY, without=without) as database:
        database.execute("create temp table looked_at (connection varchar, business_date date, missing varchar)")
        database.execute("create temp table fetched_orders (connection varchar, business_date date)")
        for name, rows in facts.items():
            if rows:
                places = ", ".join("?" * len(rows[0]))
                database.executemany(f"insert into {name} values ({places})", rows)
        made = database.sql(conform(tables.TIE_OUT, query)).to_arrow_reader(_ROWS_A_BATCH)
        with runtime.lake.draft(tables.TIE_OUT, made, [{"business_date": day} for day in days]) as draft:
            yield draft


def looked_at(runtime: "Runtime", days: Sequence[date]) -> list[tuple[str, date, str]]:
    """Return of which connections and business dates payments have been fetched, and what is missing until they are known.

    Nothing is missing once `payments` has what was fetched last: until then it may have none of a date, or fewer. Where
    payments are not kept inside the orders, tabs of a date may be paid on the next one: the same holds for it. Every
    connection that has ever landed something is looked at: what was fetched of one that was removed is history.
    """
    feeds = {
        spec.name: table.feed
        for spec in names.sources()
        for table in spec.tables
        if table.table == tables.PAYMENTS.name
    }
    span = each_day(days[0], days[-1] + timedelta(days=1))
    core = runtime.lake.rows_by_partition(tables.PAYMENTS.name, {"business_date": span})
    found = []
    for provider, feed in feeds.items():
        part = f"{provider}/{tables.PAYMENTS.name}"
        own: Counter[tuple[str, str]] = Counter()
        for (key, _, counted_on), number in runtime.lake.rows_by_partition(part, {"business_date": span}).items():
            own[key, counted_on] += number
        landed: Counter[tuple[str, str]] = Counter()
        for (key, of, _), number in runtime.lake.rows_by_partition(part, {"raw_date": span}).items():
            landed[key, of] += number
        raw = runtime.raw.of(feed)
        after = timedelta(days=0 if feed == ORDERS else 1)
        for key in (key for key in raw.connections() if split_key(key)[0] == provider):
            stored = raw.survey(key, days[0], days[-1] + after)
            fetched = {manifest.business_date: manifest for manifest in stored.readable}
            # One that cannot be read has been fetched all the same, and the tables keep the rows they have of it.
            there = stored.days
            made = raw.made(key, sorted(there), tables.PAYMENTS.name)
            known = {
                day
                for day in there
                if own[key, day.isoformat()] == core.get((key, day.isoformat()), 0)
                and _covers(fetched.get(day), made.get(day), landed[key, day.isoformat()])
            }
            for day in days:
                if day in there:
                    missing = (
                        "payments of the next date not fetched"
                        if day + after not in there
                        else "payments not in the table yet"
                        if not {day, day + after} <= known
                        else ""
                    )
                    found.append((key, day, missing))
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
    since = scope.first - timedelta(days=PLOT_DAYS - 1)
    found: dict[str, dict[date, tuple[Decimal, Decimal]]] = {}
    for currency, day, owed, received in database.execute(
        f"select currency, business_date, sum(owed), sum(paid + refunded) from {tables.TIE_OUT.name} "
        f"where payments_known and {Scope(since, scope.last).where('business_date')} group by 1, 2 order by 1, 2"
    ).fetchall():
        found.setdefault(currency, {})[day] = (owed, received)
    nothing = (Decimal(0), Decimal(0))
    drawn: dict[str, dict[str, Any]] = {}
    for day in each_day(scope.first, scope.last):
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
