"""What the Dagster UI shows of a table (columns with their meanings) and of one partition (figures, preview, plot)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import dagster as dg

from flux_pipelines.domain import inert
from flux_pipelines.domain.money import exponent
from flux_pipelines.domain.tables import SQL_TYPES, Column, Table

PREVIEW_ROWS = 5
_PLACE = "location_id"


def table_metadata(table: Table) -> dict[str, Any]:
    """Return the definition metadata of a table: its column schema with meanings, its name in SQL, its grain."""
    return {
        "dagster/column_schema": dg.TableSchema([_column(column, table) for column in table]),
        "dagster/table_name": table.name.replace("/", "."),
        "dagster/storage_kind": "deltalake",
        "grain": table.grain,
        "key": ", ".join(table.key),
    }


def _column(column: Column, table: Table) -> dg.TableColumn:
    other = [f"one of {', '.join(column.allowed)}"] if column.allowed else []
    if column.name in table.key:
        other.append("part of the key")
    return dg.TableColumn(
        column.name,
        type=SQL_TYPES[column.type],
        description=column.meaning,
        constraints=dg.TableColumnConstraints(nullable=not column.required, other=other),
    )


def rows(count: int) -> dict[str, Any]:
    """Return a partition's row count, under the name that Dagster plots and under a plain one."""
    return {"rows": count, "dagster/partition_row_count": count}


def amounts(name: str, totals: Mapping[str, Decimal]) -> dict[str, str]:
    """Return one entry a currency, exact: `{"net USD": "1,234.50"}`. Text, because a float would not be exact."""
    return {f"{name} {currency}": money(total, currency) for currency, total in sorted(totals.items())}


def money(amount: Decimal, currency: str) -> str:
    """Write an amount in full, with as many decimal places as the currency has, and more only if it has more."""
    places = max(exponent(currency), -int(amount.normalize().as_tuple().exponent))
    return f"{amount:,.{places}f}"


def preview(
    columns: Sequence[str], records: Iterable[Sequence[object]], *, places: Mapping[str, str] | None = None
) -> dg.MarkdownMetadataValue:
    """Return the records as a Markdown table; text in them is shown as it is, whatever it would mean as Markdown.

    Args:
        columns: what is above each column.
        records: the rows.
        places: what stores are called, by their ids: the column `location_id` then shows names, where there is one, unless
            the records have a column with names themselves.

    """
    titles, cells = list(columns), [list(record) for record in records]
    if places is not None and _PLACE in columns and "name" not in columns:
        position = titles.index(_PLACE)
        titles[position] = "location"
        for record in cells:
            record[position] = places.get(str(record[position]), record[position])
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    lines += [f"| {' | '.join(_cell(value) for value in record)} |" for record in cells]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        shortest = value.normalize()
        places = -int(shortest.as_tuple().exponent)
        return f"{shortest:.2f}" if places == 1 else f"{shortest:f}"  # 469.40, as money is written; 83; 0.125
    return inert.markdown(str(value))
