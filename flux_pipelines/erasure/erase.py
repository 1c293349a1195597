"""Erases what a person asked to be forgotten: raw records of every stream, quarantine with its history, webhook events.

Tables of the lake have no column about customers, but a text may name one all the same, as the name of an item: `in_tables` finds
those, and `flux_pipelines.defs.erasures` makes them again. The books stay, because amounts do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flux_pipelines.domain.errors import FluxError, TableDamagedError
from flux_pipelines.domain.tables import QUARANTINE, TABLES, Table
from flux_pipelines.erasure.wanted import ERASED_TEXT, Wanted
from flux_pipelines.lake import rewrite
from flux_pipelines.lake.delta import VersionChangedError
from flux_pipelines.providers.base import Erasure
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import keeps_personal_data
from flux_pipelines.state import ErasureReport

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.lake import RawManifest
    from flux_pipelines.runtime import Runtime

#: What stands in webhook events for what was erased. Not null: an event that itself asks for an erasure must not look
#: like one that names nobody, which would mean everybody.
_ERASED = b'"erased"'
#: Partitions that could not be searched which a message names.
_SHOWN = 10


@dataclass(slots=True)
class _Done:
    partitions: int = 0
    records: int = 0


def erase(
    runtime: Runtime,
    connection: Connection,
    erasure: Erasure,
    *,
    asked_by: str = "webhook",
    further: Callable[[Wanted], None] = lambda _: None,
) -> ErasureReport:
    """Erase what a connection's records hold of a person; an empty request erases everything personal of the connection.

    Records that hold one of the ids or texts lose all that their provider declares personal, pseudonyms too. Each
    partition is replaced in one step, and its old file deleted. Syncs may run meanwhile. To do it again changes nothing
    more; after a failure it is done by doing it again.

    Args:
        runtime: the opened rooms.
        connection: whose records are searched.
        erasure: whom to forget.
        asked_by: who passed the request on, for the record.
        further: what is done after that, before the request is called done.

    Raises:
        ConfigurationError: an id or text that would be found anywhere.
        TableDamagedError: some partitions could not be read; all others are done.

    """
    redaction = provider_named(connection.provider).redaction
    wanted = Wanted(erasure, redaction, runtime.pseudonyms)
    number = runtime.state.erasures.begin(
        connection.key,
        asked_by,
        fingerprint(runtime, connection.key, erasure),
        everything=wanted.everything,
        customers=len(erasure.customer_ids),
        orders=len(erasure.order_ids),
        texts=len(erasure.texts),
    )
    done = _Done()
    unread = [
        error
        for stream in runtime.raw.streams(connection.provider)
        for error in _raw(runtime, stream, connection, wanted, done)
    ]
    quarantined = runtime.quarantine.rewrite(connection.key, lambda payload: wanted.erased([payload], thorough=True)[0])
    # Of types that nothing is done for nobody knows where in a body a person is: those go whole.
    runtime.state.inbox.forget_bodies(connection.provider, provider_named(connection.provider).uses)
    in_events = Wanted(erasure, redaction, runtime.pseudonyms, erased=_ERASED)
    events = runtime.state.inbox.rewrite(
        connection.provider,
        connection.key,
        connection.account_id,
        lambda bodies: in_events.erased(bodies, thorough=keeps_personal_data(connection)),
    )
    if unread:
        raise TableDamagedError(
            f"{len(unread)} raw partitions could not be searched for what was to be erased "
            f"({'; '.join(error.what for error in unread[:_SHOWN])}{'; ...' if len(unread) > _SHOWN else ''}); all others "
            "are done",
            connection=connection.key,
            next_step="Fetch those partitions anew or delete them, then ask for the erasure again.",
        ) from unread[0]
    further(wanted)
    return runtime.state.erasures.finish(
        number, partitions=done.partitions, records=done.records, quarantined=quarantined, events=events
    )


def fingerprint(runtime: Runtime, connection: str, erasure: Erasure) -> str:
    """Return a keyed hash of a request: the same for the same request, and of no use to find out whom it was about."""
    lists = [sorted(part) for part in erasure]
    return runtime.pseudonyms.of(json.dumps(["erasure", connection, *lists]))


def tables_of(runtime: Runtime, connection: Connection) -> Iterator[Table]:
    """Yield the contracts of the tables that may hold rows of a connection, quarantine apart."""
    contracts = {table.name: table for table in TABLES}
    for name in runtime.lake.tables():
        provider, _, base = name.rpartition("/")
        if provider in ("", connection.provider) and base in contracts and base != QUARANTINE.name:
            yield contracts[base].named(name)


def in_tables(runtime: Runtime, connection: Connection, wanted: Wanted) -> dict[Table, set[tuple[str, ...]]]:
    """Return the partitions that name the person in rows of a connection, by table; each as the values of its columns.

    Raises:
        TableDamagedError: a table cannot be read.

    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[Table, set[tuple[str, ...]]] = {}
    for table in tables_of(runtime, connection):
        texts = [column.name for column in table if column.type == "text"]
        by_connection = "connection" in table.partition_by
        columns = list(dict.fromkeys(["connection", *table.partition_by, *texts]))
        where = {"connection": connection.key} if by_connection else None
        for rows in runtime.lake.read(table, where=where, columns=columns):
            batch = rows.filter(pc.equal(rows["connection"], connection.key))
            for text in texts:
                named = [one for one in pc.unique(batch[text]).to_pylist() if one is not None and wanted.mentions(one)]
                if named:
                    hits = batch.filter(pc.is_in(batch[text], pa.array(named, pa.string()))).select(table.partition_by)
                    found.setdefault(table, set()).update(tuple(map(str, row.values())) for row in hits.to_pylist())
    return found


def blank(runtime: Runtime, connection: Connection, table: Table, partition: tuple[str, ...], wanted: Wanted) -> None:
    """Put `erased` into the cells of a partition that name the person, in rows of a connection."""
    import pyarrow as pa

    where = dict(zip(table.partition_by, partition, strict=True))
    while True:
        version = runtime.lake.version(table.name)
        rows = runtime.lake.read(table, where=where, version=version).read_all().to_pylist()
        for row in rows:
            if row["connection"] == connection.key:
                row |= {
                    k: ERASED_TEXT
                    for k, v in row.items()
                    if isinstance(v, str) and k != "connection" and wanted.mentions(v)
                }
        try:
            runtime.lake.replace(table, pa.Table.from_pylist(rows, table.arrow_schema()), [where], if_version=version)
        except VersionChangedError:  # somebody writes to the table: what was read may be stale
            continue
        return


def _raw(runtime: Runtime, stream: str, connection: Connection, wanted: Wanted, done: _Done) -> list[FluxError]:
    """Erase in all partitions of a stream; return why some could not be read."""
    raw = runtime.raw.of(stream)
    errors: list[FluxError] = []

    def change(records: Sequence[bytes], manifest: RawManifest) -> Sequence[bytes]:
        return wanted.erased(records, thorough=not manifest.redacted)

    every = raw.everything(connection.key)
    # A file of records lies beside a manifest that cannot be read, and nobody has looked into it.
    errors += every.damaged.values()
    for manifest in every.readable:
        try:
            raw.sweep(manifest)
            changed = rewrite(raw, manifest, change)
        except TableDamagedError as error:
            errors.append(error)
            continue
        done.records += changed
        done.partitions += changed > 0
    return errors
