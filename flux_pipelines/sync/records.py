"""What the engine hands over: the outcome of a day, a record that could not be used, a normalised day's figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from flux_pipelines.domain.errors import EmptiedError
from flux_pipelines.domain.partition import Partition

if TYPE_CHECKING:
    from flux_pipelines.domain.errors import FluxError
    from flux_pipelines.lake.raw import RawManifest


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not be used, whole, with the reason. It goes to quarantine.

    Args:
        partition: the partition it was fetched for.
        reason: why it could not be used.
        payload: the record exactly as received.
        order_id: the order, when it could be read.

    """

    partition: Partition
    reason: str
    payload: bytes = field(repr=False)
    order_id: str | None = None


def emptied(connection: str, partition: str, lost: Mapping[str, int], stream: str) -> EmptiedError:
    """Return the error of a partition that came back without records that are stored.

    Args:
        connection: the connection's key.
        partition: its business date or hour; empty for what there is now.
        lost: how many records of each kind; empty when nobody can tell, because the manifest is damaged.
        stream: of which stream.

    """
    kinds = [f"{count} {kind}{'' if kind == stream else ' records'}" for kind, count in lost.items()]
    stored = " and ".join(kinds) or f"{stream} (how many cannot be read)"
    of = f" of {partition}" if partition else ""
    return EmptiedError(
        f"{stored}{of} are stored, and the provider now says that there are none. What is stored is kept, here and in "
        "every table",
        connection=connection,
    )


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """What became of one business date of a connection.

    Args:
        day: the business date.
        status: `committed` (fetched and stored now), `resumed` (complete already, under the same sync), `failed`.
        manifest: what is stored; None for a failed day whose partition was not touched.
        error: why a day failed.
        bad: records of this day that cannot be assigned to a location or read at all.
        stale: dates that were fetched before orders of theirs changed, as was seen beside those of this one.

    """

    day: date
    status: Literal["committed", "resumed", "failed"]
    manifest: RawManifest | None = None
    error: FluxError | None = None
    bad: tuple[BadRecord, ...] = ()
    stale: frozenset[date] = frozenset()


@dataclass(slots=True)
class DayFigures:
    """What one normalised business date holds.

    Args:
        orders: orders with at least one row.
        rows: rows of the `transactions` contract.
        lines: the rows that are sold or returned goods or gift cards (order-level charges and voids left out).
        units: quantities of goods, returns subtracted.
        net: revenue by currency, in the currency's unit.
        total: what customers owe by currency, in the currency's unit.

    """

    orders: int = 0
    rows: int = 0
    lines: int = 0
    units: Decimal = Decimal(0)
    net: dict[str, Decimal] = field(default_factory=dict)
    total: dict[str, Decimal] = field(default_factory=dict)
