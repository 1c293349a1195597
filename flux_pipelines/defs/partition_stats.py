"""The figures of each partition that a step has written: one aggregate query a step, whatever the number of partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flux_pipelines.defs.checks import Rows
from flux_pipelines.defs.metadata import PREVIEW_ROWS, amounts, preview, rows
from flux_pipelines.domain.tables import Table

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Figures:
    """What to tell of each partition of a table.

    Args:
        view: the table's name in SQL.
        day: the column of the business date.
        by: the columns that name a partition, in the order of its key.
        counts: names of figures, with the SQL aggregates that count them.
        money: names of amounts, with the columns that are summed for each currency; empty for tables without money.
        shown: columns of the preview.
        order: columns that say which rows come first in the preview.

    """

    view: str
    day: str
    by: tuple[str, ...]
    counts: tuple[tuple[str, str], ...]
    money: tuple[tuple[str, str], ...]
    shown: tuple[str, ...]
    order: tuple[str, ...]

    def of(
        self,
        database: duckdb.DuckDBPyConnection,
        scope: Rows,
        keys: Sequence[str],
        *,
        places: Mapping[str, str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return each partition's metadata, in the order of the keys; those without rows say so.

        Args:
            database: where the table is.
            scope: the rows to look at.
            keys: the partitions' keys.
            places: what stores are called, by their ids, for the preview.

        """
        found: dict[str, dict[str, Any]] = {key: {**rows(0), **{name: 0 for name, _ in self.counts}} for key in keys}
        heads: dict[str, Any] = {}
        key = f"concat_ws('|', {', '.join(self.by)})"
        where = scope.where(self.day)
        counts = ", ".join(f"{sql}" for _, sql in self.counts)
        shown = ", ".join(f"'{name}': {name}" for name in self.shown)
        for name, n, head, *values in database.execute(
            f"""
            select {key}, count(*), min_by({{{shown}}}, ({", ".join(self.order)}), {PREVIEW_ROWS}) {"," if counts else ""}
                {counts}
            from {self.view} where {where} group by 1
            """
        ).fetchall():
            if name not in found:  # another connection has this date in the step
                continue
            found[name] |= rows(n)
            found[name] |= {label: int(value) for (label, _), value in zip(self.counts, values, strict=True)}
            heads[name] = preview(self.shown, [list(row.values()) for row in head], places=places)
        if self.money:
            sums = ", ".join(f"sum({column})" for _, column in self.money)
            totals: dict[str, dict[str, dict[str, Decimal]]] = {}
            for name, currency, *values in database.execute(
                f"select {key}, currency, {sums} from {self.view} where {where} group by 1, 2"
            ).fetchall():
                for (label, _), value in zip(self.money, values, strict=True):
                    if value is not None:  # of rows that do not know it nothing is told, least of all 0
                        totals.setdefault(name, {}).setdefault(label, {})[currency] = value
            for name, labels in totals.items():
                if name not in found:
                    continue
                for label, by_currency in labels.items():
                    found[name] |= amounts(label, by_currency)
        for name, head in heads.items():
            found[name]["preview"] = head
        return found


#: What is told of the partitions of tables that are made of streams: counts, amounts, and the columns of the preview.
_STATS: Mapping[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "payments": (
        (
            ("payments", "count(*) filter (kind = 'payment')"),
            ("refunds", "count(*) filter (kind = 'refund')"),
            ("not completed", "count(*) filter (status <> 'completed')"),
        ),
        (("amount", "amount"), ("tip", "tip"), ("fee", "fee")),
        ("location_id", "payment_id", "kind", "tender", "amount", "tip", "fee", "currency", "status"),
    ),
    "reported_sales": (
        (
            ("stores reported", "count(*) filter (status = 'reported')"),
            ("stores without a witness", "count(*) filter (status = 'no_witness')"),
        ),
        (("net", "net"), ("tax", "tax"), ("tips", "tips")),
        ("location_id", "status", "net", "tax", "tips", "discounts", "returns", "currency", "reason"),
    ),
    "products": (
        (
            ("products", "count(distinct (connection, product_id))"),
            ("active", "count(*) filter (valid_to is null and active)"),
            ("past versions", "count(*) filter (valid_to is not null)"),
        ),
        (),
        ("product_id", "product_name", "variation", "category", "sku", "price", "currency", "active", "valid_from"),
    ),
    "locations": (
        (("active", "count(*) filter (active)"),),
        (),
        ("location_id", "name", "timezone", "currency", "cutoff_hour", "active"),
    ),
    "inventory_levels": (
        (
            ("snapshots", "count(distinct snapshot_at)"),
            ("products", "count(distinct (connection, product_id))"),
            ("out of stock", "count(*) filter (availability = 'out_of_stock')"),
        ),
        (),
        ("location_id", "product_id", "quantity", "availability", "snapshot_at"),
    ),
    "time_entries": (
        (
            ("employees", "count(distinct (connection, employee_id))"),
            ("open", "count(*) filter (status = 'open')"),
        ),
        (),
        ("location_id", "employee_id", "job_title", "clock_in", "clock_out", "paid_hours", "status"),
    ),
}


def stats_of(table: Table, *, core: bool = False) -> Figures:
    """Return what is told of each partition of a table that is made of a stream, a provider's or the core's."""
    counts, money, shown = _STATS[table.name.rpartition("/")[2]]
    by = tuple(name for name in table.unit if not (core and name == "connection"))
    key = tuple(name for name in table.key if name not in by)
    order = tuple(dict.fromkeys((*key, *by)))
    return Figures(table.name.replace("/", "_"), table.day or "", by, counts, money, shown, order)


def counts_of(table: Table, database: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return what is told of a core table that is one partition: its rows, its counts, and the first of each connection."""
    counts, _, shown = _STATS[table.name]
    asked = ", ".join(("count(*)", *(sql for _, sql in counts)))
    ((total, *values),) = database.execute(f"select {asked} from {table.name}").fetchall()
    columns = ("connection", *shown)
    head = database.execute(
        f"select {', '.join(columns)} from {table.name} "
        f"qualify row_number() over (partition by connection order by {', '.join(table.key)}) <= {PREVIEW_ROWS} "
        f"order by {', '.join(table.key)}"
    ).fetchall()
    told = {label: int(value) for (label, _), value in zip(counts, values, strict=True)}
    return {**rows(total), **told, "preview": preview(columns, head)}
