"""How it was paid, and whether the books of a day close."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import COUNTED_ON, LANDED_BY, SOURCE, WHERE
from flux_pipelines.domain.tables.model import Column, Table
from flux_pipelines.domain.tables.sales import OWED

PAYMENTS = Table(
    name="payments",
    grain="one row a payment, and one a refund",
    description=(
        "Every tender that was taken and every amount that was given back, the same for every provider. Refunds are "
        "negative, so that a plain sum is what stayed."
    ),
    columns=(
        *WHERE,
        Column("payment_id", "text", "The payment or refund, by the provider's own id."),
        Column("kind", "text", "`payment`, or `refund` (negative amounts).", allowed=("payment", "refund")),
        Column("order_id", "text", "The order that was paid or refunded, when there is one.", required=False),
        Column("source_payment_id", "text", "For a refund: the payment that was given back, if known.", required=False),
        Column(
            "tender",
            "text",
            "`cash`, `card` (wallets too), `gift_card`, or `other`. Of a refund: where the money went, the tender of the payment that it gives "
            "back unless the provider says another.",
            allowed=("cash", "card", "gift_card", "other"),
        ),
        Column("tender_detail", "text", "The provider's own word for the tender, brand included.", required=False),
        Column("amount", "money", "What was paid or given back, without the tip."),
        Column("tip", "money", "The tip paid, or given back (negative).", zero_unless_given=True),
        Column(
            "fee",
            "money",
            "What processors and apps keep of it: zero or negative; zero until it is known. Of a refund: given back.",
            zero_unless_given=True,
        ),
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
        *COUNTED_ON,
        *SOURCE,
    ),
    key=("connection", "payment_id", "kind"),
    partition_by=("connection", "business_date"),
    landed_by=LANDED_BY,
)

TIE_OUT = Table(
    name="tie_out",
    grain="location x business date x currency",
    description=(
        "Whether the day's books close, as a roll-forward: open balances before, and what was owed, less what was paid and "
        "given back, are the open balances after; each of them is an order (`open_items`). What remains is the `gap`: zero when "
        "every cent is explained, and empty while payments are not known; `gap_orders` are the orders that explain what is "
        "left, `gap_reason` says why."
    ),
    columns=(
        *WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("currency", "text", "ISO 4217 code of every amount in the row."),
        Column("net", "money", "Revenue by the orders, before tax and tips, after returns."),
        Column("tax", "money", "Tax by the orders."),
        Column("marketplace_tax", "money", "Tax that marketplaces remit themselves, by the orders."),
        Column("tips", "money", "Tips by the orders."),
        Column("gift_cards", "money", "Gift cards sold, by the orders."),
        Column("third_party", "money", "Collected for others, by the orders."),
        Column("rounding", "money", "Cash rounding, by the orders."),
        Column("owed", "money", f"`{OWED}`: what was owed after returns."),
        Column("paid", "money", "Completed payments, tips included; as far as they are known (`payments_known`)."),
        Column("refunded", "money", "Completed refunds: zero or negative; as far as they are known."),
        Column("tips_paid", "money", "The part of `paid` and `refunded` that is tips."),
        Column("fees", "money", "What processors keep: zero or negative."),
        Column("pending", "money", "Payments and refunds that have not completed."),
        Column(
            "receivables",
            "money",
            "By how much more (or less) customers owe after the day: sales that count and are not paid yet. Summed over all days: "
            "what they owe now.",
            required=False,
        ),
        Column(
            "deposits",
            "money",
            "By how much more (or less) is held after the day for sales that count later, or to be given back: a liability. Summed "
            "over all days: what is held now.",
            required=False,
        ),
        Column(
            "gap",
            "money",
            "`owed - paid - refunded - receivables + deposits`, what is left unexplained: zero when the day ties out; empty where "
            "payments are not known.",
            required=False,
        ),
        Column(
            "gap_orders",
            "text",
            "The ten orders with the largest gaps of their own, each with its gap, then how many more there are.",
            required=False,
        ),
        Column(
            "gap_reason",
            "text",
            "Why there is a gap, with amounts and numbers of orders: `payment pending`, `not paid`, `changed after its "
            "payment`, `changed since its payments were fetched`, `amounts differ`; `paid for an order of a date that was not "
            "fetched`, `paid for an order that is not there`, `paid, but the order was cancelled`, `payment without an order`. "
            "Without a gap: what is missing until payments are known (`payments not fetched`, `payments not in the table yet`), "
            "else empty.",
            required=False,
        ),
        Column(
            "payments_known",
            "boolean",
            "Whether `payments` has what was fetched of this day.",
        ),
    ),
    key=("connection", "location_id", "business_date", "currency"),
    partition_by=("business_date",),
)

OPEN_ITEMS = Table(
    name="open_items",
    grain="order x business date on which what was owed of it and what was paid differ x currency",
    description=(
        "What was owed and what was paid of orders that are not paid on the date on which they count: part-paid ones, "
        "deposits, invoices in instalments, sales on account, refunds that were promised and paid later. Over all dates an order "
        "adds up to what is still open of it; what `tie_out` is explained with."
    ),
    columns=(
        *WHERE,
        Column("business_date", "date", "The location's business date of the row."),
        Column("currency", "text", "ISO 4217 code of the amounts."),
        Column("order_id", "text", "The order, by the provider's own id; `payment ...` for a payment that names none."),
        Column("source_order_id", "text", "For a return: the order that was sold, if it is one.", required=False),
        Column("raw_date", "date", "The date of the raw partition that holds the order, if known.", required=False),
        Column("owed", "money", "What the order's rows of the date come to."),
        Column("paid", "money", "Completed payments of the date, less refunds, tips included."),
        Column("pending", "money", "Payments and refunds of the date that have not completed."),
        Column("tendered", "money", "What the order itself says was paid on the date, less what was given back."),
        Column("due", "money", "What the provider says is still to be paid of the whole order.", required=False),
        Column(
            "order_status",
            "text",
            "`counted` on the date; `cancelled`; `elsewhere`: its rows are on other dates, or it is not known; `none`: the payment "
            "names no order.",
            allowed=("counted", "cancelled", "elsewhere", "none"),
        ),
    ),
    key=("connection", "location_id", "business_date", "order_id", "currency"),
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
        *WHERE,
        Column("business_date", "date", "The business date that changed."),
        Column("currency", "text", "ISO 4217 code of the amounts."),
        Column("figure", "text", "The name of the figure, as in `settled_orders`."),
        Column("amount_before", "money", "What it was when the date was settled or last restated."),
        Column("amount_after", "money", "What it is."),
        Column("reason", "text", "The orders that came late, were edited, refunded or voided, with their amounts."),
        Column("restated_at", "instant", "When the orders that changed it were fetched, UTC."),
    ),
    key=("connection", "location_id", "business_date", "currency", "figure", "restated_at"),
    partition_by=("business_date",),
)

SETTLED_ORDERS = Table(
    name="settled_orders",
    grain="order of a settled business date x currency",
    description=(
        "What each order of a business date came to when the date was settled or last restated: what `restatements` "
        "compares with. A row with an empty `order_id` says that a store's date was settled, orders or none."
    ),
    columns=(
        *WHERE,
        Column("business_date", "date", "The location's local date, with its cut-off hour."),
        Column("order_id", "text", "The order; empty in the row that says that the date was settled."),
        Column("currency", "text", "ISO 4217 code of the amounts; empty in that row."),
        Column("net", "money", "Revenue before tax and tips, after returns."),
        Column("tax", "money", "Tax."),
        Column("marketplace_tax", "money", "Tax that marketplaces remit themselves."),
        Column("tips", "money", "Tips."),
        Column("gift_cards", "money", "Gift cards sold."),
        Column("third_party", "money", "Collected for others."),
        Column("rounding", "money", "Cash rounding."),
        Column("total", "money", "What was owed in all."),
        Column("returned", "money", "The part of `total` that was given back: zero or negative."),
        Column("settled_at", "instant", "When the orders were first fetched as they are, UTC."),
    ),
    key=("connection", "location_id", "business_date", "order_id", "currency"),
    partition_by=("business_date", "connection"),
)
