"""Erases what a person asked to be forgotten: raw records of every feed, quarantine with its history, webhook events.

Tables of the lake hold nothing of customers, so they need no change; nor do the books, because amounts stay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flux_pipelines.domain.errors import FluxError, TableDamagedError
from flux_pipelines.erasure.wanted import Wanted
from flux_pipelines.lake import rewrite
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


def erase(runtime: Runtime, connection: Connection, erasure: Erasure, *, asked_by: str = "webhook") -> ErasureReport:
    """Erase what a connection's records hold of a person; an empty request erases everything personal of the connection.

    Records that hold one of the ids or texts lose all that their provider declares personal, pseudonyms too. Each
    partition is replaced in one step, and its old file deleted. Syncs may run meanwhile. To do it again changes nothing
    more; after a failure it is done by doing it again.

    Args:
        runtime: the opened rooms.
        connection: whose records are searched.
        erasure: whom to forget.
        asked_by: who passed the request on, for the record.

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
        for feed in runtime.raw.feeds(connection.provider)
        for error in _raw(runtime, feed, connection, wanted, done)
    ]
    quarantined = runtime.quarantine.rewrite(connection.key, lambda payload: wanted.erased([payload], thorough=True)[0])
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
    return runtime.state.erasures.finish(
        number, partitions=done.partitions, records=done.records, quarantined=quarantined, events=events
    )


def fingerprint(runtime: Runtime, connection: str, erasure: Erasure) -> str:
    """Return a keyed hash of a request: the same for the same request, and of no use to find out whom it was about."""
    lists = [sorted(part) for part in erasure]
    return runtime.pseudonyms.of(json.dumps(["erasure", connection, *lists]))


def _raw(runtime: Runtime, feed: str, connection: Connection, wanted: Wanted, done: _Done) -> list[FluxError]:
    """Erase in all partitions of a feed; return why some could not be read."""
    raw = runtime.raw.of(feed)
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
