"""The figures of each partition that a step has written: one aggregate query a step, whatever the number of partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flux_pipelines.pipelines.checks import Scope
from flux_pipelines.pipelines.metadata import PREVIEW_ROWS, amounts, preview, rows

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

    def of(self, database: duckdb.DuckDBPyConnection, scope: Scope, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return each partition's metadata, in the order of the keys; those without rows say so."""
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
            found[name] |= rows(n)
            found[name] |= {label: int(value) for (label, _), value in zip(self.counts, values, strict=True)}
            heads[name] = preview(self.shown, [list(row.values()) for row in head])
        if self.money:
            sums = ", ".join(f"sum({column})" for _, column in self.money)
            totals: dict[str, dict[str, dict[str, Decimal]]] = {}
            for name, currency, *values in database.execute(
                f"select {key}, currency, {sums} from {self.view} where {where} group by 1, 2"
            ).fetchall():
                for (label, _), value in zip(self.money, values, strict=True):
                    totals.setdefault(name, {}).setdefault(label, {})[currency] = value
            for name, labels in totals.items():
                for label, by_currency in labels.items():
                    found[name] |= amounts(label, by_currency)
        for name, head in heads.items():
            found[name]["preview"] = head
        return found
