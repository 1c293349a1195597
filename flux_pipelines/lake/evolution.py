"""Tables that an earlier version of Flux made: what their contract has gained or lost since, and what follows from it.

A contract may gain columns that are not required, stop requiring one, or lose one. Such a table needs nobody: it is
read as it is (a row has no value in a column that its file lacks, and what the contract no longer has is left out), and
its own schema is brought up to date by a commit of its own before the next rows. Anything else cannot be told from the
rows there are: the table has to be made again.

In the table's schema, a column that some file may lack carries a mark. Where there is none, which is the rule, readers
need not look at every file's own columns before they read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from flux_pipelines.domain.errors import TableOutdatedError
from flux_pipelines.domain.tables import Table

if TYPE_CHECKING:
    from deltalake import DeltaTable, Field

_MARK = {"flux.notInEveryFile": "true"}


class Fit(NamedTuple):
    """How a table fits its contract.

    `gained` are the fields to merge into the table's own schema before files of the contract are committed to it.
    `alike` says that every file has the columns of the contract.
    """

    gained: list[Field]
    alike: bool


def fit(table: Table, opened: DeltaTable) -> Fit:
    """Compare a table with its contract, by its schema alone.

    Raises:
        TableDamagedError: it cannot be read by the contract: a required column is missing, a type is another, or it is
            partitioned by other columns.

    """
    from deltalake import Field, Schema

    there = {field.name: field for field in opened.schema().fields}
    ours = {field.name: field for field in Schema.from_arrow(table.arrow_schema()).fields}
    by = opened.metadata().partition_columns
    wrong = [] if by == list(table.partition_by) else [f"it is partitioned by {by}, no longer {[*table.partition_by]}"]
    gained = [
        Field(name, field.type, nullable=True, metadata=_MARK)
        for name, field in there.items()
        if name not in ours and not (field.nullable and _is_marked(field))
    ]
    for name, field in ours.items():
        old = there.get(name)
        if old is None and not field.nullable:
            wrong.append(f"it has no column {name!r}, which is required")
        elif old is None:
            gained.append(Field(name, field.type, nullable=True, metadata=_MARK))
        elif old.type != field.type:
            wrong.append(f"its column {name!r} is {_spelled(old)}, no longer {_spelled(field)}")
        elif field.nullable and not old.nullable:
            gained.append(field)
    if wrong:
        raise unfit(table, "; ".join(wrong), opened.partitions())
    return Fit(gained, there.keys() == ours.keys() and not any(map(_is_marked, there.values())))


def unfit(table: Table, wrong: str, partitions: Iterable[Mapping[str, str | None]] = ()) -> TableOutdatedError:
    """Return the error of a table that has to be made again: what is wrong, and which partitions it has."""
    days = sorted(filter(None, (values.get(table.day or "") for values in partitions)))
    which = f"its partitions {days[0]} to {days[-1]}" if days else "all of its partitions"
    return TableOutdatedError(
        f"the table {table.name!r} was made by another version of Flux and does not fit its contract: {wrong}",
        next_step=(
            f"Stop `flux up` and run `flux rebuild`: it sets the table aside and makes {which} again from what was fetched "
            '(docs/operations.md, "Upgrading").'
        ),
    )


def _is_marked(field: Field) -> bool:
    return field.metadata.items() >= _MARK.items()


def _spelled(field: Field) -> str:
    return str(getattr(field.type, "type", field.type))
