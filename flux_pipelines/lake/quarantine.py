"""The records that could not be used, kept whole with the reason. Nothing is dropped, and nothing is kept twice."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Protocol

from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import QUARANTINE
from flux_pipelines.lake.delta import VersionChangedError

if TYPE_CHECKING:
    import pyarrow as pa

    from flux_pipelines.lake.delta import DeltaLake

Row = dict[str, Any]


class UnusableRecord(Protocol):
    """What is known of a record that goes to quarantine."""

    @property
    def reason(self) -> str:
        """Why it could not be used."""

    @property
    def payload(self) -> bytes:
        """The record exactly as received."""

    @property
    def order_id(self) -> str | None:
        """The order, when it could be read."""


class Quarantine:
    """The quarantine table of a lake."""

    def __init__(self, lake: DeltaLake) -> None:
        self._lake = lake

    def replace(self, asset: str, partition: Partition, records: Sequence[UnusableRecord]) -> int:
        """Make these the bad records of an asset's partition: earlier ones that are not among them leave quarantine.

        So a rerun does not double them, and a record that can be used by now disappears. A record that stays keeps
        the instant at which it was first put here. Other assets' records of the same partition are not touched.

        Returns:
            How many records the partition has in quarantine now, of this asset.

        """
        while True:
            version = self._lake.version(QUARANTINE.name)
            if version is None and not records:
                return 0
            there = [] if version is None else self._rows(partition, version)
            if not records and not any(row["asset"] == asset for row in there):
                return 0
            first_seen = {row["record_id"]: row["quarantined_at"] for row in there}
            now = datetime.now(UTC)
            mine = {}
            for record in records:
                row = _row(asset, partition, record, now)
                row["quarantined_at"] = first_seen.get(row["record_id"], now)
                mine[row["record_id"]] = row
            others = [row for row in there if row["asset"] != asset]
            rows = sorted([*others, *mine.values()], key=lambda row: (row["asset"], row["record_id"]))
            try:
                self._lake.replace(QUARANTINE, _table(rows), [_columns(partition)], if_version=version or 0)
            except VersionChangedError:  # what was read may be stale: another asset may have written here meanwhile
                continue
            return len(mine)

    def rewrite(self, connection: str, change: Callable[[bytes], bytes]) -> int:
        """Replace payloads of a connection's records, and delete the files that held them; return how many changed."""
        count = 0
        for key in self._lake.rows_by_partition(QUARANTINE.name, {"connection": connection}):
            day = date.fromisoformat(dict(zip(QUARANTINE.partition_by, key, strict=True))["business_date"])
            count += self._rewrite(Partition(connection, day), change)
        # Also when nothing has changed now: an earlier attempt may have ended before it came to this.
        self._lake.forget_history(QUARANTINE.name)
        return count

    def _rewrite(self, partition: Partition, change: Callable[[bytes], bytes]) -> int:
        while True:
            version = self._lake.version(QUARANTINE.name)
            if version is None:
                return 0
            rows, count = {}, 0
            for row in self._rows(partition, version):
                before = payload_bytes(row)
                after = change(before)
                count += after != before
                new = row if after == before else {**row, **_kept(row["asset"], partition, after)}
                rows[new["record_id"]] = new
            if not count:
                return 0
            try:
                self._lake.replace(QUARANTINE, _table([*rows.values()]), [_columns(partition)], if_version=version)
            except VersionChangedError:
                continue
            return count

    def list(
        self,
        *,
        asset: str | None = None,
        connection: str | None = None,
        first_day: date | None = None,
        last_day: date | None = None,
    ) -> list[Row]:
        """Return the records in quarantine as rows of the table, by connection, business date, asset and record."""
        where = {} if connection is None else {"connection": connection}
        rows: list[Row] = self._lake.read(QUARANTINE, where=where).read_all().to_pylist()
        return sorted(
            (
                row
                for row in rows
                if asset in (None, row["asset"])
                and (first_day is None or row["business_date"] >= first_day)
                and (last_day is None or row["business_date"] <= last_day)
            ),
            key=lambda row: (row["connection"], row["business_date"], row["asset"], row["record_id"]),
        )

    def _rows(self, partition: Partition, version: int) -> Sequence[Row]:
        read = self._lake.read(QUARANTINE, where=_columns(partition), version=version)
        rows: Sequence[Row] = read.read_all().to_pylist()
        return rows


def payload_bytes(row: Row) -> bytes:
    """Return the record of a row exactly as it was received."""
    text = str(row["payload"])
    return base64.b64decode(text) if row["payload_encoding"] == "base64" else text.encode()


def _columns(partition: Partition) -> dict[str, str | date]:
    return {"connection": partition.connection, "business_date": partition.business_date}


def _kept(asset: str, partition: Partition, record: bytes) -> Row:
    """Return the columns that follow from a record's bytes."""
    try:
        payload, encoding = record.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(record).decode(), "base64"
    identity = f"{asset}|{partition}|".encode() + record
    return {"record_id": hashlib.sha256(identity).hexdigest(), "payload": payload, "payload_encoding": encoding}


def _row(asset: str, partition: Partition, record: UnusableRecord, now: datetime) -> Row:
    return {
        **_kept(asset, partition, record.payload),
        **_columns(partition),
        "asset": asset,
        "order_id": record.order_id,
        "reason": record.reason,
        "quarantined_at": now,
    }


def _table(rows: Sequence[Row]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=QUARANTINE.arrow_schema())
