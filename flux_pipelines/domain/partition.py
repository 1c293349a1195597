"""A partition: a connection's business date, which is fetched, made and replaced as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A connection's business date. As text it is what Dagster calls it: `square:acme|2025-06-30`."""

    connection: str
    business_date: date

    @classmethod
    def parse(cls, key: str) -> Partition:
        """Return the partition of a key.

        Args:
            key: as Dagster writes it, dimensions in alphabetical order: `square:acme|2025-06-30`.

        Raises:
            ValueError: it does not have that form.

        """
        connection, bar, day = key.rpartition("|")
        if not bar:
            raise ValueError(f"{key!r} is no key of a connection and business date")
        return cls(connection, date.fromisoformat(day))

    def __str__(self) -> str:
        return f"{self.connection}|{self.business_date}"


#: What a fault may cost at most: a partition, or a connection's key where there are no dates (`Table.unit`).
Unit = Partition | str


def unit_of(label: str) -> Unit:
    """Return the unit that a label names: `square:acme|2025-06-30`, or `square:acme` where there are no dates."""
    return Partition.parse(label) if "|" in label else label
