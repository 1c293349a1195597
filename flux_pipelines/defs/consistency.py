"""Over all partitions of a lake: every order, line and payment is on one date, and none is on no date."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from flux_pipelines.defs.assets.core import parts_of, stream_of
from flux_pipelines.defs.partitions import by_connection
from flux_pipelines.domain import tables
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import Table

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime

#: Ids that a fault names.
_NAMED = 5

_DOUBLES = """
    with rows as (select connection, {identity} as id, raw_date from {view}),
    doubled as (select connection, id, list_sort(list(distinct raw_date)) as dates from rows group by all {having})
    select connection, count(*), (list(id order by id))[1:{named}], list_sort(list_distinct(flatten(list(dates))))
    from doubled group by 1 order by 1
"""


class Fault(NamedTuple):
    """What is on two dates of a connection, or on none, and the raw dates to fetch again for it.

    `behind` names the dates of a core table that lack rows. It follows the provider's by some minutes, so that one look
    cannot tell what is missing from what is on its way.
    """

    connection: str
    what: str
    dates: tuple[date, ...]
    behind: tuple[str, ...] = ()


def faults(runtime: Runtime) -> list[Fault]:
    """Look at every partition of the tables that are made of raw partitions."""
    there = set(runtime.lake.tables())
    return [
        fault
        for table in (tables.TRANSACTIONS, tables.PAYMENTS)
        for part in parts_of(table)
        if part.name in there
        for fault in (*_on_two_dates(runtime, part), *_on_no_date(runtime, table, part))
    ]


def _on_two_dates(runtime: Runtime, part: Table) -> list[Fault]:
    from flux_pipelines.lake import session

    own = part.name.rpartition("/")[2]
    asked = {
        tables.TRANSACTIONS.name: (
            ("orders", "order_id", "having count(distinct raw_date) > 1"),
            ("lines", "order_id || ' / ' || line_id", "having count(*) > 1"),
        ),
        tables.PAYMENTS.name: (("payments", "payment_id || ' (' || kind || ')'", "having count(*) > 1"),),
    }[own]
    found = []
    with session(runtime.lake, [part.name]) as database:
        for what, identity, having in asked:
            query = _DOUBLES.format(identity=identity, having=having, named=_NAMED, view=part.name.replace("/", "_"))
            for connection, number, ids, dates in database.execute(query).fetchall():
                more = "" if number <= _NAMED else f" and {number - _NAMED} more"
                told = f"{number} {what} stand twice in {part.name}: {', '.join(ids)}{more}"
                found.append(Fault(connection, told, tuple(dates)))
    return found


def _on_no_date(runtime: Runtime, table: Table, part: Table) -> list[Fault]:
    """Compare a provider's part with the core table, by the logs of both, on every date that has been fetched."""
    raw = runtime.raw.of(stream_of(part.name.partition("/")[0], table.name))
    here: Counter[Partition] = Counter()
    for (connection, _, day), rows in runtime.lake.rows_by_partition(part.name).items():
        here[Partition(connection, date.fromisoformat(day))] += rows
    core: Counter[Partition] = Counter()
    for (connection, day), rows in runtime.lake.rows_by_partition(table.name).items():
        core[Partition(connection, date.fromisoformat(day))] += rows
    found = []
    for connection, days in by_connection(here).items():
        apart = sorted(
            day
            for day in raw.landed(connection, days)
            if day >= runtime.settings.start_date
            and here[Partition(connection, day)] != core[Partition(connection, day)]
        )
        if apart:
            more = "" if len(apart) <= _NAMED else f" and {len(apart) - _NAMED} more dates"
            told = ", ".join(map(str, apart[:_NAMED]))
            what = f"{table.name} does not have the rows that {part.name} has of {told}{more}"
            found.append(Fault(connection, what, (), tuple(f"{part.name} {day}" for day in apart)))
    return found
