"""What a provider's own sales report says: an independent witness of what is made of its orders."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import SOURCE, WHERE
from flux_pipelines.domain.tables.model import Column, Table

REPORTED_SALES = Table(
    name="reported_sales",
    grain="location x business date",
    description=(
        "What the provider's own sales report says of a store's business date, as far as it may be read. `daily_sales` is "
        "compared with it (`agrees_with_report`). Where there is no figure, `reason` says why: nothing is made up."
    ),
    columns=(
        *WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("currency", "text", "ISO 4217 code of the amounts."),
        Column(
            "status",
            "text",
            "`reported`; or `no_witness`, where the report could not be had.",
            allowed=("reported", "no_witness"),
        ),
        Column("reason", "text", "Why there is no witness.", required=False),
        Column(
            "net",
            "money",
            "Sales after discounts and returns, before tax and tips, service and shipping charges included.",
            required=False,
        ),
        Column("tax", "money", "Tax, where the report has it.", required=False),
        Column("tips", "money", "Tips, where the report has them.", required=False),
        Column("discounts", "money", "Discounts as the report has them; positive.", required=False),
        Column("returns", "money", "Returns as the report has them: zero or negative.", required=False),
        *SOURCE,
    ),
    key=("connection", "location_id", "business_date"),
    partition_by=("connection", "business_date"),
)
