"""What was sold: transactions, and what stores and products took in a day."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import COUNTED_ON, LANDED_BY, PRODUCT, WHERE
from flux_pipelines.domain.tables.model import Column, Table

#: The types of rows whose amount is in `total` alone.
NOT_REVENUE = ("gift_card", "tip", "third_party", "rounding")
#: What `total` of a day is made of.
OWED = "net + tax + marketplace_tax + tips + gift_cards + third_party + rounding"

_TENDERED = tuple(
    Column(
        f"tendered_{name}",
        "money",
        f"{what} On the order's first row only, so that a plain sum is right.",
        zero_unless_given=True,
        on_first_row=True,
    )
    for name, what in (
        ("cash", "Paid in cash, tips included."),
        ("card", "Paid by card or wallet, tips included."),
        ("gift_card", "Paid by redeeming a gift card."),
        ("other", "Paid by any other tender."),
        ("refund", "Given back to the customer (negative), whatever the original tender was."),
    )
)

TRANSACTIONS = Table(
    name="transactions",
    grain="one row an order line, and one an order-level charge",
    description=(
        "Every sold, returned and cancelled line, the same for every provider. For a return, quantity and every amount "
        "are negative, so that a plain sum is net. The sum of `total` over an order is the provider's own order total."
    ),
    columns=(
        *WHERE,
        Column("order_id", "text", "The order, by the provider's own id."),
        Column("line_id", "text", "The line within its order; order-level charges have ids of their own."),
        Column(
            "kind",
            "text",
            "`sale`; `return` (negative amounts); `void` for a cancelled order (zero amounts); `open` for an order that is no sale "
            "yet although something of it has been paid: one row with zero amounts, and what was paid in `due`.",
            allowed=("sale", "return", "void", "open"),
        ),
        Column(
            "line_type",
            "text",
            "`item` and `custom_amount` are sold goods; `service_charge` is revenue too; `gift_card`, `tip`, `third_party` "
            "(owed to others: a donation, a fee of a delivery service) and `rounding` are not revenue: their amount is in "
            "`total` alone.",
            allowed=("item", "custom_amount", "service_charge", *NOT_REVENUE),
        ),
        *PRODUCT,
        Column("sku", "text", "Stock keeping unit, when the provider gives one with the sale.", required=False),
        Column("quantity", "quantity", "Units sold; may be fractional (weighed goods). Zero for order-level charges."),
        Column("unit_price", "money", "Price of one unit before modifiers, discounts and tax."),
        Column("gross", "money", "Quantity times price with modifiers, before discounts; tax-exclusive."),
        Column("discount", "money", "Discounts, line- and order-level, as a positive amount taken off `gross`."),
        Column("net", "money", "`gross - discount`: revenue before tax and tip."),
        Column(
            "tax", "money", "Tax on this line, whether added to the price or included in it; the seller's to remit."
        ),
        Column(
            "marketplace_tax",
            "money",
            "Tax on this line that a marketplace collects and remits itself: in `total`, never in `tax`.",
            zero_unless_given=True,
        ),
        Column(
            "total",
            "money",
            "What the customer owes for this row: `net + tax + marketplace_tax`, or the bare amount if not revenue.",
        ),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        *_TENDERED,
        Column(
            "due",
            "money",
            "What the provider says is still to be paid of what has counted of the order (below zero: held for the customer), the "
            "same on each of its rows: not to be summed. Empty where it says nothing: then it is paid.",
            required=False,
        ),
        Column(
            "source_order_id",
            "text",
            "For a return, and for what an edit on a later date added: the order that was sold, when known.",
            required=False,
        ),
        Column("source_line_id", "text", "For a return: the line that was sold, when known.", required=False),
        Column("occurred_at", "instant", "When the order was made, UTC; for a return, when that was made."),
        *COUNTED_ON,
        Column("source_system", "text", "The provider's name."),
        Column("source_version", "text", "The version of the provider's API that the order was read with."),
    ),
    key=("connection", "order_id", "line_id"),
    partition_by=("connection", "business_date"),
    landed_by=LANDED_BY,
)

DAILY_SALES = Table(
    name="daily_sales",
    grain="location x business date x currency",
    description=(
        "What each store took on each business date, as the provider's own sales report has it: which orders are sales and on "
        "which date each sale and each return counts, every provider's README says."
    ),
    columns=(
        *WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        Column("orders", "integer", "Orders with at least one sale; one that is edited on a later date counts once."),
        Column("returns", "integer", "Orders that gave something back."),
        Column("voids", "integer", "Cancelled orders."),
        Column("units", "quantity", "Units sold less units returned, goods only."),
        Column("gross", "money", "Sales before discounts, less returned."),
        Column("discounts", "money", "Discounts given, less those on returned goods; positive."),
        Column("net", "money", "`gross - discounts`: revenue before tax and tips, after returns."),
        Column("service_charges", "money", "The part of `net` that is service charges."),
        Column("refunds", "money", "The part of `net` that is returns: zero or negative."),
        Column("tax", "money", "Tax collected, less tax given back."),
        Column(
            "marketplace_tax", "money", "Tax that marketplaces collect and remit themselves, less what was given back."
        ),
        Column("tips", "money", "Tips, less tips given back."),
        Column("gift_cards", "money", "Gift cards sold: a liability, not revenue."),
        Column(
            "third_party", "money", "Collected for others (donations, fees of delivery services): owed, not revenue."
        ),
        Column("rounding", "money", "Cash rounding."),
        Column("total", "money", f"`{OWED}`: what customers paid in all."),
        Column("tendered_cash", "money", "Paid in cash, tips included."),
        Column("tendered_card", "money", "Paid by card or wallet, tips included."),
        Column("tendered_gift_card", "money", "Paid by redeeming gift cards."),
        Column("tendered_other", "money", "Paid by any other tender."),
        Column("tendered_refund", "money", "Given back to customers: zero or negative."),
    ),
    key=("connection", "location_id", "business_date", "currency"),
    partition_by=("business_date",),
)

DAILY_ITEM_DEMAND = Table(
    name="daily_item_demand",
    grain="location x product x business date x currency",
    description="How many of each product each store sold on each business date, less what came back.",
    columns=(
        *WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        *PRODUCT,
        Column("currency", "text", "ISO 4217 code of `net`."),
        Column("quantity", "quantity", "Units sold less units returned."),
        Column("net", "money", "Revenue of those units, after discounts, before tax."),
    ),
    key=("connection", "location_id", "product_id", "business_date", "currency"),
    partition_by=("business_date",),
)
