"""Whether the day's books close: `tie_out`, what orders say was owed beside what payments say was paid."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.domain import tables
from flux_pipelines.domain.connection import split_key
from flux_pipelines.pipelines import names, plots
from flux_pipelines.pipelines.checks import CHECK_MEMORY, Check, Scope, contract, no_duplicate_lines
from flux_pipelines.pipelines.feed_tables import ORDERS
from flux_pipelines.pipelines.figures import Figures
from flux_pipelines.pipelines.partitions import each_day
from flux_pipelines.pipelines.publishing import leaving_out
from flux_pipelines.pipelines.sales import PLOT_DAYS, Mart, Writer, Written, conform

if TYPE_CHECKING:
    import duckdb

    from flux_pipelines.lake import DeltaLake, Draft
    from flux_pipelines.runtime import Runtime

_SQL = (Path(__file__).with_name("sql") / "tie_out.sql").read_text()
_ROWS_A_BATCH = 65_536
#: Days before and after an order on which its payments are looked for.
AROUND = 3

TIES_OUT = Check(
    "ties_out",
    "What orders say was owed equals what payments say was paid and given back, to the cent, wherever payments have been "
    "fetched. If it fails: `gap_orders` of the row names the orders that explain the gap. A payment that is pending "
    "closes it by itself; else look at these orders in the provider's own reports.",
    """
    select cast(business_date as varchar) as partition, concat_ws(' / ', connection, location_id) as subject,
        format('{} {} apart', cast(gap as varchar), currency) || coalesce(': ' || gap_orders, '') as problem
    from {view} where gap <> 0 and payments_known
    """,
    blocking=False,
)


def tie_out() -> "TieOut":
    """Return the mart that compares orders with payments."""
    return TieOut(
        tables.TIE_OUT,
        _unbound,
        (tables.TRANSACTIONS.name, tables.PAYMENTS.name),
        (
            dg.AssetDep(names.TRANSACTIONS),
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
                    "owed = net + tax + tips + gift_cards + rounding": (
                        "owed = net + tax + tips + gift_cards + rounding"
                    ),
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
                ("stores without payments", "count(*) filter (not payments_known)"),
            ),
            money=(("owed", "owed"), ("paid", "paid"), ("refunded", "refunded"), ("fees", "fees"), ("gap", "gap")),
            shown=("connection", "location_id", "owed", "paid", "refunded", "fees", "gap", "currency", "gap_orders"),
            order=("-abs(gap)", "connection", "location_id", "currency"),
        ),
        more=_pictures,
        reach=AROUND,
        written_alone=False,  # payments may be collected while transactions are being read
    )


class TieOut(Mart):
    """The mart that needs more than the lake: of which days payments have been fetched, the raw records say."""

    def replace(self, runtime: "Runtime", days: Sequence[date]) -> Written:
        """Write business dates, and describe what was written."""
        return Mart.replace(replace(self, write=_writer(runtime)), runtime, days)


def _unbound(_: "DeltaLake", days: Sequence[date], __: Collection[str]) -> AbstractContextManager["Draft"]:
    raise RuntimeError(f"the writer of {tables.TIE_OUT.name} is made with a runtime ({len(days)} days)")


def _writer(runtime: "Runtime") -> Writer:
    @contextmanager
    def write(lake: "DeltaLake", days: Sequence[date], refused: Collection[str]) -> Iterator["Draft"]:
        from flux_pipelines.lake import session

        known = known_payments(runtime, days)
        first, last = days[0] - timedelta(days=AROUND), days[-1] + timedelta(days=AROUND)
        query = _SQL.replace("{scope}", Scope(days[0], days[-1]).where("business_date"))
        query = query.replace("{around}", Scope(first, last).where("business_date"))
        read = [tables.TRANSACTIONS.name, tables.PAYMENTS.name]
        where = {"business_date": each_day(first, last)}
        without = leaving_out(read, refused)
        with session(lake, read, where=where, memory_limit=CHECK_MEMORY, without=without) as database:
            database.execute("create temp table known_payments (connection varchar, business_date date)")
            if known:
                database.executemany("insert into known_payments values (?, ?)", known)
            rows = database.sql(conform(tables.TIE_OUT, query)).to_arrow_reader(_ROWS_A_BATCH)
            with lake.draft(tables.TIE_OUT, rows, [{"business_date": day} for day in days]) as draft:
                yield draft

    return write


def known_payments(runtime: "Runtime", days: Sequence[date]) -> list[tuple[str, date]]:
    """Return of which connections and business dates the payments have been fetched.

    Where they are not kept inside the orders, tabs of a date may be paid on the next one: it must have been looked at too.
    """
    feeds = {
        spec.name: table.feed
        for spec in names.sources()
        for table in spec.tables
        if table.table == tables.PAYMENTS.name
    }
    wanted = set(days)
    found = []
    for feed in sorted(set(feeds.values())):
        after = timedelta(days=0 if feed == ORDERS else 1)
        raw = runtime.raw.of(feed)
        for key in raw.connections():  # removed ones too: what was fetched of them is history
            if feeds.get(split_key(key)[0]) == feed:
                there = raw.manifests(key, days[0], days[-1] + after)
                found += [(key, day) for day in there if day in wanted and day + after in there]
    return found


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
