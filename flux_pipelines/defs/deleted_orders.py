"""Orders that a provider has deleted: it names their ids alone, and where they were is known from what is stored."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.tables import PAYMENTS, TRANSACTIONS
from flux_pipelines.lake.raw_manifest import OLDER

if TYPE_CHECKING:
    from flux_pipelines.lake import RawManifest, RawStore
    from flux_pipelines.providers.base import Provider
    from flux_pipelines.runtime import Runtime

#: Deleted orders that are remembered for each connection, the newest: until their dates have been fetched again.
_REMEMBERED = 10_000
#: An order without rows is looked for in the raw files, the newest first, for this long: a sensor's tick must end.
_SEARCH_SECONDS = 10.0


class Kept(NamedTuple):
    """Where an order is.

    Args:
        raw_date: the date that it is stored under.
        counted_on: the business dates that its rows count on.
        is_landed: whether the date has been fetched whole, and not single orders of it.

    """

    raw_date: date
    counted_on: frozenset[date]
    is_landed: bool


def where_kept(runtime: Runtime, provider: Provider, connection: str, order_ids: Collection[str]) -> dict[str, Kept]:
    """Return where orders are stored, by their ids; those that are not stored are left out."""
    from flux_pipelines.lake import session

    tables = [f"{provider.name}/{table.name}" for table in (TRANSACTIONS, PAYMENTS)]
    there = [table for table in tables if runtime.lake.exists(table)]
    ids = ", ".join("'" + order_id.replace("'", "''") + "'" for order_id in sorted(order_ids))
    counted: dict[str, tuple[date, set[date]]] = {}
    with session(runtime.lake, there, where={"connection": [connection]}) as database:
        for table in there:
            found = database.execute(
                f"SELECT DISTINCT order_id, raw_date, business_date FROM {table.replace('/', '_')} WHERE order_id IN ({ids})"
            ).fetchall()
            for order_id, raw_date, day in found:
                counted.setdefault(order_id, (raw_date, set()))[1].add(day)
    for order_id, raw_date in _in_raw(runtime, provider, connection, set(order_ids) - counted.keys()).items():
        counted[order_id] = (raw_date, set())
    landed = runtime.raw.landed(connection, {raw_date for raw_date, _ in counted.values()})
    return {order_id: Kept(day, frozenset(days), day in landed) for order_id, (day, days) in counted.items()}


def _in_raw(runtime: Runtime, provider: Provider, connection: str, order_ids: set[str]) -> dict[str, date]:
    """Look for orders in raw files: those that no row has been made of."""
    from flux_pipelines.sync.reading import order_lines

    found: dict[str, date] = {}
    until = time.monotonic() + _SEARCH_SECONDS
    for raw, manifest in _stored(runtime, connection) if order_ids else ():
        try:
            for order_id in order_ids & order_lines(raw, manifest, provider.order_id_field).keys():
                found.setdefault(order_id, manifest.business_date)
        except TableDamagedError:  # it is told, and fetched again
            continue
        if found.keys() >= order_ids or time.monotonic() > until:
            break
    return found


def _stored(runtime: Runtime, connection: str) -> list[tuple[RawStore, RawManifest]]:
    raws = (runtime.raw, runtime.raw.of(OLDER))
    stored = chain.from_iterable(((raw, one) for one in raw.everything(connection).readable) for raw in raws)
    return sorted(stored, key=lambda pair: pair[1].business_date, reverse=True)


def remember_deleted(runtime: Runtime, connection: str, orders: Mapping[str, date]) -> None:
    """Write down that orders were deleted, each with the date that it was stored under."""
    known = {**(runtime.state.cursors.get(_name(connection)) or {})}
    for order_id, day in orders.items():
        known.pop(order_id, None)
        known[order_id] = day.isoformat()
    if orders:
        newest = dict(list(known.items())[-_REMEMBERED:])
        runtime.state.cursors.set(_name(connection), newest, connection=connection)


def deleted_orders(runtime: Runtime, connection: str) -> dict[str, date]:
    """Return the orders that are known to be deleted, each with the date that it was stored under."""
    known: dict[str, str] = runtime.state.cursors.get(_name(connection)) or {}
    return {order_id: date.fromisoformat(day) for order_id, day in known.items()}


def _name(connection: str) -> str:
    return f"deleted/{connection}"
