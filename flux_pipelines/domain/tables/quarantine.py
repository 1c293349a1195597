"""What could not be used."""

from __future__ import annotations

from flux_pipelines.domain.tables.model import Column, Table

QUARANTINE = Table(
    name="quarantine",
    grain="bad record",
    description="Records that could not be used, whole, with the reason: nothing is dropped. See `flux quarantine`.",
    columns=(
        Column("record_id", "text", "Hash of asset, partition and payload: the same bad record is kept once."),
        Column("asset", "text", "The asset that could not use the record."),
        Column("connection", "text", "The connection it came through."),
        Column("business_date", "date", "The partition it was fetched for."),
        Column("order_id", "text", "The order, when it could be read.", required=False),
        Column("reason", "text", "Why it could not be used."),
        Column("payload", "text", "The record exactly as received (base64 when it is not valid UTF-8)."),
        Column("payload_encoding", "text", "`utf-8` or `base64`.", allowed=("utf-8", "base64")),
        Column("quarantined_at", "instant", "When it was put here."),
    ),
    key=("record_id",),
    partition_by=("connection", "business_date"),
)
