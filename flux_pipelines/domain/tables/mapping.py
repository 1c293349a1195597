"""What providers' locations and products are in the books."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import WHERE
from flux_pipelines.domain.tables.model import Column, Table

STORES = Table(
    name="stores",
    grain="location of a connection",
    description=(
        "Which store each location is, over every provider. A location that nobody has mapped has an empty `store`: it is "
        "counted, never dropped. People decide with `flux map`."
    ),
    columns=(
        *WHERE,
        Column("location_name", "text", "The location's name at its provider."),
        Column("store", "text", "The store's name in the books; empty when not decided.", required=False),
        Column("suggestion", "text", "The store that it looks like.", required=False),
        Column("score", "ratio", "How sure the suggestion is, 0 to 1.", required=False),
        Column("reason", "text", "What the suggestion rests on.", required=False),
        Column("decided_by", "text", "Who confirmed it.", required=False),
        Column("decided_at", "instant", "When it was confirmed, UTC.", required=False),
    ),
    key=("connection", "location_id"),
    partition_by=("tenant",),
)

PRODUCT_MAP = Table(
    name="product_map",
    grain="product of a connection",
    description=(
        "Which product of the books each provider's product is. One that nobody has mapped has an empty `canonical_product`: "
        "it is counted, never dropped. People decide with `flux map`."
    ),
    columns=(
        Column("connection", "text", "The authorised account the product belongs to."),
        Column("tenant", "text", "The customer of Flux."),
        Column("product_id", "text", "The product, by the provider's own id."),
        Column("product_name", "text", "Its name at the provider."),
        Column("variation", "text", "Its variation's name.", required=False),
        Column("sku", "text", "Its stock keeping unit.", required=False),
        Column("canonical_product", "text", "The product's name in the books; empty when not decided.", required=False),
        Column("suggestion", "text", "The product that it looks like.", required=False),
        Column("score", "ratio", "How sure the suggestion is, 0 to 1.", required=False),
        Column("reason", "text", "What the suggestion rests on: `sku`, `upc` or the names.", required=False),
        Column("decided_by", "text", "Who confirmed it.", required=False),
        Column("decided_at", "instant", "When it was confirmed, UTC.", required=False),
    ),
    key=("connection", "product_id"),
    partition_by=("tenant",),
)
