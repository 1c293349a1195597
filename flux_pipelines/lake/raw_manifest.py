"""What is known of a partition of raw records: how it was obtained, and where it lies."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

import msgspec

from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.partition import Partition

#: The stream of orders, and the folder of a stream of what there is now.
ORDERS = "orders"
CURRENT = "current"
#: Single orders of dates that have not been fetched, kept because something in them happened on a date that has been.
OLDER = "older_orders"
_HOUR = "%Y-%m-%d/%H"

REFETCH = "Fetch it anew: materialise its raw asset, or run `flux sync` over its business date."


class FetchedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A question that was asked: these locations, this half-open interval of UTC instants, by this time field."""

    basis: str
    start: datetime
    end: datetime
    locations: tuple[str, ...] = ()


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a second, independent query said about the partition.

    `expected` is what the first query found, `confirmed` what the second one did; `short` means that the partition
    lacks `confirmed - expected` orders or that totals differ (`detail` says which). `emptied_at` is when the provider
    last said that there is nothing at all, while these records were stored; None since it has given them again.
    """

    status: Literal["verified", "unverifiable", "short"] = "unverifiable"
    method: str = ""
    expected: int = 0
    confirmed: int = 0
    detail: str = ""
    emptied_at: datetime | None = None


class RawManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition of raw records holds and how it was obtained. Amounts are integer minor units by currency.

    `orders` is the number of records, whatever they are, and `states` how many there are of each state of an order, or
    of each kind of record. `slot` is the folder under the connection's; empty where that is the business date.
    `redacted` tells that personal data was taken out before anything was stored.
    """

    connection: str
    business_date: date
    file: str
    orders: int
    quarantined: int = 0
    totals: dict[str, int] = {}
    states: dict[str, int] = {}
    bytes: int
    compressed_bytes: int
    sha256: str
    windows: tuple[FetchedWindow, ...] = ()
    locations: tuple[str, ...] = ()
    fetched_at: datetime
    api_version: str = ""
    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0
    sync_token: str = ""
    verification: Verification = Verification()
    stream: str = msgspec.field(default=ORDERS, name="feed")  # as manifests of before call it
    slot: str = ""
    redacted: bool = False
    format: Literal[1] = 1

    @property
    def partition(self) -> Partition:
        """The partition that it is of, or that its slot is part of."""
        return Partition(self.connection, self.business_date)

    @property
    def hour(self) -> datetime | None:
        """The hour (UTC) of a snapshot; None for a partition that is none."""
        return hour_of(self.slot) if "/" in self.slot else None


def hour_slot(instant: datetime) -> str:
    """Return the slot of an instant's hourly snapshot: `2026-03-10/14`."""
    return instant.astimezone(UTC).strftime(_HOUR)


def hour_of(slot: str) -> datetime:
    """Return the hour (UTC) of a snapshot's slot."""
    return datetime.strptime(slot, _HOUR).replace(tzinfo=UTC)


def folder_of(stream: str, connection: str, folder: str) -> str:
    """Return where a partition lies: `folder` is its business date or slot."""
    provider, name = split_key(connection)
    return f"raw/{provider}/{stream}/{name}/{folder}"


def is_stored(stored: bytes | None, manifest: RawManifest) -> bool:
    """Tell whether a stored manifest is this one; an older Flux may have written it with fewer fields."""
    try:
        return stored is not None and msgspec.json.decode(stored, type=RawManifest) == manifest
    except msgspec.DecodeError:
        return False


def encode(manifest: RawManifest) -> bytes:
    """Return a manifest as it is stored."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, stream: str, connection: str, folder: str) -> RawManifest:
    """Read a stored manifest.

    Raises:
        TableDamagedError: it cannot be read, or is that of another partition.

    """
    try:
        manifest = msgspec.json.decode(data, type=RawManifest)
    except msgspec.DecodeError as error:
        raise TableDamagedError(
            f"the manifest of the raw {stream} of {folder} cannot be read", connection=connection, next_step=REFETCH
        ) from error
    here = manifest.slot or manifest.business_date.isoformat()
    if (manifest.stream, manifest.connection, here) != (stream, connection, folder):
        raise TableDamagedError(
            f"the manifest of the raw {stream} of {folder} is that of {manifest.stream} of {manifest.connection} on {here}",
            connection=connection,
            next_step=REFETCH,
        )
    return manifest
