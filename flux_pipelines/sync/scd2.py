"""Keeps the history of a table whose source tells only what there is now: a change closes a row and opens the next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zlib import crc32

from flux_pipelines.sync.transform import CHANGED_AT, HISTORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from flux_pipelines.domain.tables import Table

Row = dict[str, Any]

#: A new version of the provider's API is no change of the product.
_NOT_A_CHANGE = frozenset({*HISTORY, "source_version"})
#: Rows that are compared at once: as Python's objects they take ten times the memory that they take in a table.
_AT_ONCE = 8192


def merge(table: Table, known: pa.Table | None, snapshot: pa.Table, collected_at: datetime) -> pa.Table:
    """Return the rows of one connection after a snapshot of everything that there is.

    A row stays as it is while nothing changes. A change is dated by the provider's own time of change if that lies
    after the open row's beginning, else by when it was seen. What is gone from the snapshot becomes inactive.
    The same snapshot again changes nothing.

    Args:
        table: the contract, with `valid_from`, `valid_to` and `active`.
        known: the connection's rows so far, if there are any.
        snapshot: rows as `transform.transform` gives them.
        collected_at: when it was collected.

    """
    import pyarrow as pa

    schema = table.arrow_schema()
    before = schema.empty_table() if known is None else known
    names = [name for name in table.key if name not in HISTORY]
    number = 1 + (before.num_rows + snapshot.num_rows) // _AT_ONCE
    seen_at = collected_at.astimezone(UTC)
    merged = [
        pa.Table.from_pylist(_merge(names, of_known.to_pylist(), of_snapshot.to_pylist(), seen_at), schema=schema)
        for of_known, of_snapshot in zip(_shares(before, names, number), _shares(snapshot, names, number), strict=True)
    ]
    return pa.concat_tables(merged).sort_by([(name, "ascending") for name in (*names, "valid_from")]).combine_chunks()


def _shares(rows: pa.Table, names: list[str], number: int) -> Iterator[pa.Table]:
    """Divide rows into shares by their keys: the same key is in the same share of every table."""
    import pyarrow as pa

    shares: list[list[int]] = [[] for _ in range(number)]
    for at, key in enumerate(zip(*(rows[name].to_pylist() for name in names), strict=True)):
        shares[crc32(repr(key).encode()) % number].append(at)
    return (rows.take(pa.array(share, pa.int64())) for share in shares)


def _merge(names: list[str], known: Iterable[Row], snapshot: Iterable[Row], seen_at: datetime) -> list[Row]:
    def identity(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    closed: list[Row] = []
    opened: dict[tuple[Any, ...], Row] = {}
    for row in known:
        if row["valid_to"] is None:
            opened[identity(row)] = row
        else:
            closed.append(row)
    there: set[tuple[Any, ...]] = set()
    for row in snapshot:
        changed_at = row.pop(CHANGED_AT)
        key = identity(row)
        there.add(key)
        before = opened.get(key)
        if before is None:
            since = seen_at if changed_at is None else min(changed_at, seen_at)
            opened[key] = {**row, "valid_from": since, "valid_to": None}
        elif _differs(before, row):
            _change(opened, closed, key, row, seen_at if changed_at is None else changed_at, seen_at)
    for key in opened.keys() - there:
        if opened[key]["active"]:
            _change(opened, closed, key, {**opened[key], "active": False}, seen_at, seen_at)
    return [*closed, *opened.values()]


def _differs(before: Row, now: Row) -> bool:
    return any(before[name] != value for name, value in now.items() if name not in _NOT_A_CHANGE)


def _change(
    opened: dict[tuple[Any, ...], Row],
    closed: list[Row],
    key: tuple[Any, ...],
    now: Row,
    changed_at: datetime,
    seen_at: datetime,
) -> None:
    """Close the open row of a key and open the next."""
    before = opened[key]
    at = changed_at if before["valid_from"] < changed_at <= seen_at else seen_at
    if at > before["valid_from"]:
        closed.append({**before, "valid_to": at})
        opened[key] = {**now, "valid_from": at, "valid_to": None}
    else:  # seen when the row before was: it was true for no time at all
        opened[key] = {**now, "valid_from": before["valid_from"], "valid_to": None}
