"""What a contract is made of: columns of a few types, a grain, a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Type = Literal["text", "money", "quantity", "date", "instant", "integer", "ratio", "boolean"]

#: How each contract type is written in DuckDB.
SQL_TYPES: dict[Type, str] = {
    "text": "VARCHAR",
    "money": "DECIMAL(18,4)",
    "quantity": "DECIMAL(18,5)",
    "date": "DATE",
    "instant": "TIMESTAMP WITH TIME ZONE",
    "integer": "BIGINT",
    "ratio": "DECIMAL(18,6)",
    "boolean": "BOOLEAN",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its contract type and what it means to a reader. `allowed` closes a text column to those values.

    Of one that is `zero_unless_given` a provider's SQL may say nothing: the amount is zero then. What it does say stays:
    NULL is an amount that could not be read. One `on_first_row` is of the whole order: NULL on other rows is nothing.
    """

    name: str
    type: Type
    meaning: str
    required: bool = True
    allowed: tuple[str, ...] = ()
    zero_unless_given: bool = False
    on_first_row: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: grain, columns, the columns that identify a row, and the columns it is partitioned by."""

    name: str
    grain: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    #: How a provider's own part of it is partitioned, if otherwise.
    landed_by: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The column names, in the order of the table."""
        return tuple(column.name for column in self.columns)

    @property
    def day(self) -> str | None:
        """The date that the table is partitioned by; None if it is not."""
        dates = {column.name for column in self.columns if column.type == "date"}
        return next((name for name in self.partition_by if name in dates), None)

    @property
    def dated(self) -> str:
        """The partition column that says on which date its rows count; empty of a table without dates."""
        return "business_date" if "business_date" in self.partition_by else self.day or ""

    @property
    def unit(self) -> tuple[str, ...]:
        """What a fault may cost at most: a connection's date; a connection, of a table without dates.

        It is what a step replaces, too: of a provider's own part, whose rows of one raw partition are of several business
        dates, all of these together.
        """
        return ("connection",) if self.day is None else ("connection", self.day)

    def named(self, name: str) -> Table:
        """Return the same contract under another name: a provider's own `square/transactions`, for example."""
        by = self.landed_by if "/" in name and self.landed_by else self.partition_by
        return Table(name, self.grain, self.description, self.columns, self.key, by, self.landed_by)

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema that rows of this table must have."""
        import pyarrow as pa

        types: dict[Type, pa.DataType] = {
            "text": pa.string(),
            "money": pa.decimal128(18, 4),
            "quantity": pa.decimal128(18, 5),
            "date": pa.date32(),
            "instant": pa.timestamp("us", tz="UTC"),
            "integer": pa.int64(),
            "ratio": pa.decimal128(18, 6),
            "boolean": pa.bool_(),
        }
        return pa.schema([pa.field(c.name, types[c.type], nullable=not c.required) for c in self.columns])
