"""What there is to sell, where, and how much of it."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import SOURCE, WHERE
from flux_pipelines.domain.tables.model import Column, Table

PRODUCTS = Table(
    name="products",
    grain="product x period of validity",
    description=(
        "Every sellable variation as it was at any time. What is true now has an empty `valid_to`; a change closes a row "
        "and opens the next, and a product that was deleted stays, inactive."
    ),
    columns=(
        Column("connection", "text", "The authorised account the row came through, `provider:name`."),
        Column("tenant", "text", "The customer of Flux whose catalog this is."),
        Column("product_id", "text", "The variation, by the provider's own id, as in `transactions`."),
        Column("item_id", "text", "The item that it is a variation of, when there is one.", required=False),
        Column("product_name", "text", "The item's name."),
        Column("variation", "text", "The variation's name (size, flavour).", required=False),
        Column("category", "text", "The item's category or menu group.", required=False),
        Column("sku", "text", "Stock keeping unit.", required=False),
        Column("upc", "text", "Bar code (UPC, EAN, GTIN), digits as given.", required=False),
        Column("price", "money", "List price of one unit; empty for open prices.", required=False),
        Column("currency", "text", "ISO 4217 code of `price`.", required=False),
        Column("active", "boolean", "Whether it can be sold."),
        Column("valid_from", "instant", "Since when the row is true, UTC."),
        Column("valid_to", "instant", "Until when (not included), UTC; empty: it still is.", required=False),
        *SOURCE,
    ),
    key=("connection", "product_id", "valid_from"),
    partition_by=("connection",),
)

LOCATIONS = Table(
    name="locations",
    grain="location",
    description="Every store, closed ones too, as its provider describes it now.",
    columns=(
        *WHERE,
        Column("name", "text", "The store's name."),
        Column("timezone", "text", "IANA time zone."),
        Column("currency", "text", "ISO 4217 code."),
        Column("country", "text", "ISO 3166 alpha-2 code.", required=False),
        Column("city", "text", "City.", required=False),
        Column("cutoff_hour", "integer", "Local hour at which its business date ends."),
        Column("active", "boolean", "Whether it is open for business."),
        *SOURCE,
    ),
    key=("connection", "location_id"),
    partition_by=("connection",),
)

INVENTORY_LEVELS = Table(
    name="inventory_levels",
    grain="location x product x hourly snapshot",
    description="How much of each product each store had, by the hour. The past cannot be asked for: hours missed stay missing.",
    columns=(
        *WHERE,
        Column("product_id", "text", "The variation, by the provider's own id, as in `products`."),
        Column("sku", "text", "Stock keeping unit, when the provider gives it with the count.", required=False),
        Column("quantity", "quantity", "Units; negative when oversold; empty when not counted.", required=False),
        Column(
            "availability",
            "text",
            "`in_stock`, `out_of_stock`, or `limited` where the provider counts down.",
            allowed=("in_stock", "out_of_stock", "limited"),
        ),
        Column("counted_at", "instant", "When the provider last changed the count, UTC.", required=False),
        Column("snapshot_at", "instant", "The hour of the snapshot, UTC."),
        Column("business_date", "date", "The UTC date of the snapshot."),
        *SOURCE,
    ),
    key=("connection", "location_id", "product_id", "snapshot_at"),
    partition_by=("connection", "business_date"),
)
