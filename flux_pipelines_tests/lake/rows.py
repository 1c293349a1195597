"""Rows that fit any contract, and reading them back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flux_pipelines.domain.tables import TRANSACTIONS, Table
from flux_pipelines.lake import DeltaLake

DAY = date(2025, 3, 1)
ACME = "square:acme"


def days(count: int, first: date = DAY) -> list[date]:
    return [first + timedelta(days=n) for n in range(count)]


def partition(day: date = DAY, connection: str = ACME) -> dict[str, str | date]:
    return {"connection": connection, "business_date": day}


def raw_partition(day: date = DAY, connection: str = ACME) -> dict[str, str | date]:
    return {"connection": connection, "raw_date": day}


def transactions(
    on: Sequence[date] = (DAY,), each: int = 3, connection: str = ACME, net: str = "1.2345", table: Table = TRANSACTIONS
) -> pa.Table:
    """`each` rows a day, `line_id` counting within the day, every other value by the column's type."""
    count = len(on) * each
    schema = table.arrow_schema()
    repeated = {
        "money": Decimal(net),
        "quantity": Decimal(1),
        "integer": 7,
        "ratio": Decimal("0.5"),
        "boolean": True,
        "instant": datetime(2025, 3, 1, 12, tzinfo=UTC),
    }
    columns: list[pa.Array] = []
    for column, field in zip(table, schema, strict=True):
        if column.name == "connection":
            columns.append(pa.repeat(connection, count))
        elif column.name == "line_id":
            columns.append(pa.array([f"{n % each:06d}" for n in range(count)]))
        elif column.type == "date":
            columns.append(pa.array([day for day in on for _ in range(each)], field.type))
        elif column.type == "text":
            columns.append(pa.array([f"{column.name}-{n % 5}" for n in range(count)]))
        else:
            columns.append(pa.repeat(pa.scalar(repeated[column.type], field.type), count))
    return pa.table(columns, schema=schema)


def lines(lake: DeltaLake, table: Table = TRANSACTIONS, **where: Any) -> dict[tuple[str, date], list[str]]:
    """The line ids of each partition, in the order they are stored."""
    found: dict[tuple[str, date], list[str]] = {}
    read = lake.read(table, where=where, columns=["connection", "business_date", "line_id"]).read_all()
    for row in read.to_pylist():
        found.setdefault((row["connection"], row["business_date"]), []).append(row["line_id"])
    return found


@contextmanager
def tiny_disk(at: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of that size, or skip where mounting is not allowed."""
    import subprocess

    at.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)
