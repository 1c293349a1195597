"""Columns that many tables share."""

from __future__ import annotations

from flux_pipelines.domain.tables.model import Column

WHERE = (
    Column("connection", "text", "The authorised account the row came through, `provider:name`."),
    Column("tenant", "text", "The customer of Flux whose books these are."),
    Column("location_id", "text", "The store, by the provider's own id."),
)
PRODUCT = (
    Column("product_id", "text", "The provider's id of the sold variation; `name:...` when it was rung up by hand."),
    Column("product_name", "text", "The item's name as on the receipt."),
    Column("variation", "text", "The variation's name as on the receipt (size, flavour).", required=False),
    Column("category", "text", "The item's category, when the provider gives one with the sale.", required=False),
)

COUNTED_ON = (
    Column(
        "business_date",
        "date",
        "The location's business date on which the row counts in the provider's own sales report.",
    ),
    Column(
        "raw_date",
        "date",
        "The date of the raw partition that holds the order (or payment): of its creation, or the provider's own.",
    ),
)
#: A raw partition is replaced whole, and its rows count on several dates: what is stored by both is found by either.
LANDED_BY = ("connection", "raw_date", "business_date")

SOURCE = (
    Column("source_system", "text", "The provider's name."),
    Column("source_version", "text", "The version of the provider's API that the record was read with."),
)
