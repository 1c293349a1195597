"""The contract of every table, once: names, types, meanings, grain.

DDL, Arrow schemas, blocking checks, the column descriptions in the Dagster UI and docs/data-dictionary.md all derive
from these declarations. Money is `decimal(18,4)` beside a `currency`; instants are UTC microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Type = Literal["text", "money", "quantity", "date", "instant", "integer", "ratio", "boolean"]

#: How each contract type is written in DuckDB.
SQL_TYPES: dict[Type, str] = {
    "text": "VARCHAR",
    "money": "DECIMAL(18,4)",
    "quantity": "DECIMAL(18,5)",
    "date": "DATE",
    "instant": "TIMESTAMP WITH TIME ZONE",
    "integer": "BIGINT",
    "ratio": "DECIMAL(18,6)",
    "boolean": "BOOLEAN",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its contract type and what it means to a reader. `allowed` closes a text column to those values."""

    name: str
    type: Type
    meaning: str
    required: bool = True
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """One table: grain, columns, the columns that identify a row, and the columns it is partitioned by."""

    name: str
    grain: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The column names, in the order of the table."""
        return tuple(column.name for column in self.columns)

    def named(self, name: str) -> Table:
        """Return the same contract under another name: a provider's own `square/transactions`, for example."""
        return Table(name, self.grain, self.description, self.columns, self.key, self.partition_by)

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema that rows of this table must have."""
        import pyarrow as pa

        types: dict[Type, pa.DataType] = {
            "text": pa.string(),
            "money": pa.decimal128(18, 4),
            "quantity": pa.decimal128(18, 5),
            "date": pa.date32(),
            "instant": pa.timestamp("us", tz="UTC"),
            "integer": pa.int64(),
            "ratio": pa.decimal128(18, 6),
            "boolean": pa.bool_(),
        }
        return pa.schema([pa.field(c.name, types[c.type], nullable=not c.required) for c in self.columns])


_WHERE = (
    Column("connection", "text", "The authorised account the row came through, `provider:name`."),
    Column("tenant", "text", "The customer of Flux whose books these are."),
    Column("location_id", "text", "The store, by the provider's own id."),
)
_PRODUCT = (
    Column("product_id", "text", "The provider's id of the sold variation; `name:...` when it was rung up by hand."),
    Column("product_name", "text", "The item's name as on the receipt."),
    Column("variation", "text", "The variation's name as on the receipt (size, flavour).", required=False),
    Column("category", "text", "The item's category, when the provider gives one with the sale.", required=False),
)
_TENDERED = tuple(
    Column(f"tendered_{name}", "money", f"{what} On the order's first row only, so that a plain sum is right.")
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
        *_WHERE,
        Column("order_id", "text", "The order, by the provider's own id."),
        Column("line_id", "text", "The line within its order; order-level charges have ids of their own."),
        Column(
            "kind",
            "text",
            "`sale`; `return` (negative amounts); `void` for a cancelled order (zero amounts).",
            allowed=("sale", "return", "void"),
        ),
        Column(
            "line_type",
            "text",
            "`item` and `custom_amount` are sold goods; `service_charge` is revenue too; `gift_card`, `tip` and "
            "`rounding` are not revenue: their amount is in `total` alone.",
            allowed=("item", "custom_amount", "service_charge", "gift_card", "tip", "rounding"),
        ),
        *_PRODUCT,
        Column("sku", "text", "Stock keeping unit, when the provider gives one with the sale.", required=False),
        Column("quantity", "quantity", "Units sold; may be fractional (weighed goods). Zero for order-level charges."),
        Column("unit_price", "money", "Price of one unit before modifiers, discounts and tax."),
        Column("gross", "money", "Quantity times price with modifiers, before discounts; tax-exclusive."),
        Column("discount", "money", "Discounts, line- and order-level, as a positive amount taken off `gross`."),
        Column("net", "money", "`gross - discount`: revenue before tax and tip."),
        Column("tax", "money", "Tax on this line, whether added to the price or included in it."),
        Column(
            "total", "money", "What the customer owes for this row: `net + tax`, or the bare amount if not revenue."
        ),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        *_TENDERED,
        Column("source_order_id", "text", "For a return: the order that was sold, when known.", required=False),
        Column("source_line_id", "text", "For a return: the line that was sold, when known.", required=False),
        Column("occurred_at", "instant", "When the order was made, UTC."),
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("source_system", "text", "The provider's name."),
        Column("source_version", "text", "The version of the provider's API that the order was read with."),
    ),
    key=("connection", "order_id", "line_id"),
    partition_by=("connection", "business_date"),
)

DAILY_SALES = Table(
    name="daily_sales",
    grain="location x business date x currency",
    description="What each store took on each business date. Returns are counted on the day they were made.",
    columns=(
        *_WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        Column("orders", "integer", "Completed orders with at least one sale."),
        Column("returns", "integer", "Orders that gave something back."),
        Column("voids", "integer", "Cancelled orders."),
        Column("units", "quantity", "Units sold less units returned, goods only."),
        Column("gross", "money", "Sales before discounts, less returned."),
        Column("discounts", "money", "Discounts given, less those on returned goods; positive."),
        Column("net", "money", "`gross - discounts`: revenue before tax and tips, after returns."),
        Column("service_charges", "money", "The part of `net` that is service charges."),
        Column("refunds", "money", "The part of `net` that is returns: zero or negative."),
        Column("tax", "money", "Tax collected, less tax given back."),
        Column("tips", "money", "Tips, less tips given back."),
        Column("gift_cards", "money", "Gift cards sold: a liability, not revenue."),
        Column("rounding", "money", "Cash rounding."),
        Column("total", "money", "`net + tax + tips + gift_cards + rounding`: what customers paid in all."),
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
        *_WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        *_PRODUCT,
        Column("currency", "text", "ISO 4217 code of `net`."),
        Column("quantity", "quantity", "Units sold less units returned."),
        Column("net", "money", "Revenue of those units, after discounts, before tax."),
    ),
    key=("connection", "location_id", "product_id", "business_date", "currency"),
    partition_by=("business_date",),
)

DEMAND_FORECASTS = Table(
    name="demand_forecasts",
    grain="as-of date x location x product x day ahead",
    description=(
        "Units each store is expected to sell of each product, as of the close of a business date. A product that "
        "could not be forecast has one row with `horizon` 0 that says why."
    ),
    columns=(
        *_WHERE,
        Column("as_of", "date", "The last business date whose sales the forecast has seen."),
        Column("product_id", "text", "The product, as in `daily_item_demand`."),
        Column("product_name", "text", "The product's name when the forecast was made."),
        Column("variation", "text", "The variation's name when the forecast was made.", required=False),
        Column("horizon", "integer", "Days ahead of `as_of`: 1 to 14; 0 for a product that was not forecast."),
        Column("target_date", "date", "The business date forecast: `as_of + horizon`."),
        Column("predicted_quantity", "quantity", "Units expected; empty when not forecast.", required=False),
        Column(
            "status",
            "text",
            "`forecast`, or why there is none: `too_little_history`, `stale_history`, `failed`.",
            allowed=("forecast", "too_little_history", "stale_history", "failed"),
        ),
        Column(
            "reason", "text", "For a product that was not forecast: what was missing or what failed.", required=False
        ),
        Column("model_type", "text", "The model's name as the endpoint gave it.", required=False),
        Column("endpoint", "text", "The endpoint that was asked."),
    ),
    key=("connection", "location_id", "product_id", "as_of", "horizon"),
    partition_by=("as_of",),
)

FORECAST_ACCURACY = Table(
    name="forecast_accuracy",
    grain="connection x as-of date x day ahead (one evaluated business date each)",
    description=(
        "How good past forecasts of a business date turned out to be, beside a seasonal naive forecast (the same "
        "weekday's last known sales). Below 1, `wape_ratio` means better than naive."
    ),
    columns=(
        Column("connection", "text", "The authorised account whose products were forecast."),
        Column("tenant", "text", "The customer of Flux."),
        Column("as_of", "date", "The last business date whose sales the forecast had seen."),
        Column("horizon", "integer", "Days ahead of `as_of`."),
        Column("target_date", "date", "The business date evaluated: `as_of + horizon`."),
        Column("items", "integer", "Location-product pairs evaluated."),
        Column("actual_quantity", "quantity", "Units really sold of those products."),
        Column("predicted_quantity", "quantity", "Units that had been forecast."),
        Column("naive_quantity", "quantity", "Units the seasonal naive forecast gave."),
        Column("absolute_error", "quantity", "Sum of |forecast - actual| over the pairs."),
        Column("naive_absolute_error", "quantity", "Sum of |naive - actual| over the pairs."),
        Column("wape", "ratio", "`absolute_error / actual_quantity`; empty when nothing sold.", required=False),
        Column("naive_wape", "ratio", "The same for the seasonal naive forecast.", required=False),
        Column("wape_ratio", "ratio", "`wape / naive_wape`; empty when naive was perfect.", required=False),
        Column("bias", "ratio", "`(predicted - actual) / actual`: above 0, too much was forecast.", required=False),
    ),
    key=("connection", "as_of", "horizon"),
    partition_by=("target_date",),
)

_SOURCE = (
    Column("source_system", "text", "The provider's name."),
    Column("source_version", "text", "The version of the provider's API that the record was read with."),
)

PAYMENTS = Table(
    name="payments",
    grain="one row a payment, and one a refund",
    description=(
        "Every tender that was taken and every amount that was given back, the same for every provider. Refunds are "
        "negative, so that a plain sum is what stayed."
    ),
    columns=(
        *_WHERE,
        Column("payment_id", "text", "The payment or refund, by the provider's own id."),
        Column("kind", "text", "`payment`, or `refund` (negative amounts).", allowed=("payment", "refund")),
        Column("order_id", "text", "The order that was paid or refunded, when there is one.", required=False),
        Column("source_payment_id", "text", "For a refund: the payment that was given back, if known.", required=False),
        Column(
            "tender",
            "text",
            "`cash`, `card` (wallets too), `gift_card`, or `other`.",
            allowed=("cash", "card", "gift_card", "other"),
        ),
        Column("tender_detail", "text", "The provider's own word for the tender, brand included.", required=False),
        Column("amount", "money", "What was paid or given back, without the tip."),
        Column("tip", "money", "The tip paid, or given back (negative)."),
        Column("fee", "money", "What the processor keeps: zero or negative; zero until it is known."),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        Column(
            "status",
            "text",
            "`completed` counts; `pending` may yet; `canceled` and `failed` moved no money and have zero amounts.",
            allowed=("completed", "pending", "canceled", "failed"),
        ),
        Column("settlement_id", "text", "The payout that it is part of, when the provider tells.", required=False),
        Column("occurred_at", "instant", "When it was taken or given back, UTC."),
        Column("updated_at", "instant", "When the provider last changed it, UTC.", required=False),
        Column(
            "business_date", "date", "The location's business date; with its order where the provider keeps it there."
        ),
        *_SOURCE,
    ),
    key=("connection", "payment_id", "kind"),
    partition_by=("connection", "business_date"),
)

PRODUCTS = Table(
    name="products",
    grain="product x period of validity",
    description=(
        "Every sellable variation as it was at any time. What is true now has an empty `valid_to`; a change closes a row "
        "and opens the next, and a product that was deleted stays, inactive."
    ),
    columns=(
        Column("connection", "text", "The authorised account the row came through, `provider:name`."),
        Column("tenant", "text", "The customer of Flux whose catalogue this is."),
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
        *_SOURCE,
    ),
    key=("connection", "product_id", "valid_from"),
    partition_by=("connection",),
)

LOCATIONS = Table(
    name="locations",
    grain="location",
    description="Every store, closed ones too, as its provider describes it now.",
    columns=(
        *_WHERE,
        Column("name", "text", "The store's name."),
        Column("timezone", "text", "IANA time zone."),
        Column("currency", "text", "ISO 4217 code."),
        Column("country", "text", "ISO 3166 alpha-2 code.", required=False),
        Column("city", "text", "City.", required=False),
        Column("cutoff_hour", "integer", "Local hour at which its business date ends."),
        Column("active", "boolean", "Whether it is open for business."),
        *_SOURCE,
    ),
    key=("connection", "location_id"),
    partition_by=("connection",),
)

INVENTORY_LEVELS = Table(
    name="inventory_levels",
    grain="location x product x hourly snapshot",
    description="How much of each product each store had, by the hour. The past cannot be asked for: hours missed stay missing.",
    columns=(
        *_WHERE,
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
        *_SOURCE,
    ),
    key=("connection", "location_id", "product_id", "snapshot_at"),
    partition_by=("connection", "business_date"),
)

TIME_ENTRIES = Table(
    name="time_entries",
    grain="one row a period worked",
    description="When people worked. No names: an employee is an id.",
    columns=(
        *_WHERE,
        Column("time_entry_id", "text", "The entry, by the provider's own id."),
        Column("employee_id", "text", "The person, by the provider's own id."),
        Column("job_title", "text", "The job worked.", required=False),
        Column("clock_in", "instant", "Begin of work, UTC."),
        Column("clock_out", "instant", "End of work, UTC; empty while it goes on.", required=False),
        Column("unpaid_break_minutes", "quantity", "Breaks that are not paid."),
        Column("paid_hours", "quantity", "Hours to be paid; empty while work goes on.", required=False),
        Column("hourly_wage", "money", "Wage an hour, when the provider gives it.", required=False),
        Column("declared_cash_tips", "money", "Cash tips that the person declared.", required=False),
        Column("currency", "text", "ISO 4217 code of wage and tips."),
        Column("status", "text", "`open`, `closed` or `deleted`.", allowed=("open", "closed", "deleted")),
        Column("business_date", "date", "The location's business date of the begin of work."),
        *_SOURCE,
    ),
    key=("connection", "time_entry_id"),
    partition_by=("connection", "business_date"),
)

TIE_OUT = Table(
    name="tie_out",
    grain="location x business date x currency",
    description=(
        "Whether the day's books close: what orders say was owed beside what payments say was paid. `gap` is zero when "
        "they agree to the cent; `gap_orders` are the orders that explain what is left."
    ),
    columns=(
        *_WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        Column("net", "money", "Revenue by the orders, before tax and tips, after returns."),
        Column("tax", "money", "Tax by the orders."),
        Column("tips", "money", "Tips by the orders."),
        Column("gift_cards", "money", "Gift cards sold, by the orders."),
        Column("rounding", "money", "Cash rounding, by the orders."),
        Column("owed", "money", "`net + tax + tips + gift_cards + rounding`: what was owed after returns."),
        Column("paid", "money", "Completed payments, tips included."),
        Column("refunded", "money", "Completed refunds: zero or negative."),
        Column("tips_paid", "money", "The part of `paid` and `refunded` that is tips."),
        Column("fees", "money", "What processors keep: zero or negative."),
        Column("pending", "money", "Payments and refunds that have not completed."),
        Column("gap", "money", "`owed - paid - refunded`: zero when the day ties out."),
        Column(
            "gap_orders", "text", "Ids of orders whose own gap is not zero, with it, the largest first.", required=False
        ),
        Column(
            "payments_known", "boolean", "Whether payments of this day have been fetched: a gap means nothing if not."
        ),
    ),
    key=("connection", "location_id", "business_date", "currency"),
    partition_by=("business_date",),
)

RESTATEMENTS = Table(
    name="restatements",
    grain="change of a figure of a settled business date",
    description=(
        "When a business date that had been settled changes later: which figure, from what to what, because of which "
        "orders. Nothing is ever taken out of this table."
    ),
    columns=(
        *_WHERE,
        Column("business_date", "date", "The business date that changed."),
        Column("currency", "text", "ISO 4217 code of the amounts."),
        Column("figure", "text", "`net`, `tax`, `tips`, `gift_cards`, `rounding` or `total`."),
        Column("amount_before", "money", "What it was when the date was settled or last restated."),
        Column("amount_after", "money", "What it is."),
        Column("reason", "text", "The orders that came late, were edited, refunded or voided, with their amounts."),
        Column("restated_at", "instant", "When the orders that changed it were fetched, UTC."),
    ),
    key=("connection", "location_id", "business_date", "currency", "figure", "restated_at"),
    partition_by=("business_date",),
)

STORES = Table(
    name="stores",
    grain="location of a connection",
    description=(
        "Which store each location is, over every provider. A location that nobody has mapped has an empty `store`: it is "
        "counted, never dropped. People decide with `flux map`."
    ),
    columns=(
        *_WHERE,
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

#: The core tables, in the order of the lineage. A provider's own tables are these under `<provider>/<name>`.
TABLES: tuple[Table, ...] = (
    TRANSACTIONS,
    DAILY_SALES,
    DAILY_ITEM_DEMAND,
    DEMAND_FORECASTS,
    FORECAST_ACCURACY,
    QUARANTINE,
)
