"""Square: orders, locations, payments, catalog, stock and timecards. Endpoints, limits and quirks with their sources are in README.md beside this file."""

from pathlib import Path

from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Provider, RateLimit, Setting, Stream, StreamTable
from flux_pipelines.providers.square.privacy import REDACTION

_HERE = Path(__file__).parent

PROVIDER = Provider(
    name="square",
    title="Square",
    owner="team:integrations",
    docs_url="https://developer.squareup.com/reference/square",
    base_url="https://connect.squareup.com",
    api_version="2026-09-16",
    # Square does not document its limits; 500 a minute and location is a rate it is known to bear.
    rate_limits=(RateLimit(requests=500, seconds=60.0),),
    settings=(
        Setting("base_url", "https://connect.squareup.com", "Where the API answers."),
        Setting("cutoff_hour", 0, "Local hour at which the trading day ends, 0 to 23."),
        Setting("requests_per_minute", 500, "Most requests a minute and location."),
        Setting("report_wait_seconds", 90, "How long Square's own sales report is waited for, of each date."),
        Setting(
            "keep_personal_data", 0, "1: names, addresses and card digits are stored as received. Default: removed."
        ),
    ),
    secrets=(("access_token",), ("client_id", "client_secret", "refresh_token")),
    # Orders need the first two. PAYMENTS_READ is for payments, and for webhooks: a sale rung up at the counter is announced
    # as a payment, never as an order. The others are for a stream each; without one that stream alone fails.
    scopes=(
        "MERCHANT_PROFILE_READ",
        "ORDERS_READ",
        "PAYMENTS_READ",
        "ITEMS_READ",
        "INVENTORY_READ",
        "TIMECARDS_READ",
        "REPORTING_READ",
    ),
    source="flux_pipelines.providers.square.client:SquareClient",
    oauth="flux_pipelines.providers.square.oauth:SquareOAuth",
    # Square's two flows exclude each other, and it names the one with a secret as the better for servers: its refresh
    # tokens do not wear out (https://developer.squareup.com/docs/oauth-api/best-practices).
    pkce="without_secret",
    webhooks="flux_pipelines.providers.square.webhooks:SquareWebhooks",
    webhook_types=(
        "catalog.version.updated",
        "inventory.count.updated",
        "labor.shift.*",
        "labor.timecard.*",
        "location.created",
        "location.updated",
        "oauth.authorization.revoked",
        "order.created",
        "order.fulfillment.updated",
        "order.updated",
        "payment.created",
        "payment.updated",
        "refund.created",
        "refund.updated",
    ),
    streams=(
        Stream("orders", "orders", "windowed"),
        Stream(
            "payments",
            "payments and refunds",
            "daily",
            passing=("refunded_tender", "refunded_payment"),
            dates_a_window=14,
        ),
        Stream("catalog", "catalog and locations", "current"),
        Stream("inventory", "stock counts", "hourly", passing=("sold_out",)),
        Stream("labor", "timecards", "daily", dates_a_window=31),
        Stream(
            witness.STREAM,
            "sales report",
            "daily",
            passing=witness.PASSING,
            again=witness.NOT_YET,
            dates_a_window=31,
        ),
    ),
    tables=(
        StreamTable("transactions", "orders", _HERE / "transactions.sql"),
        StreamTable("payments", "payments", _HERE / "payments.sql"),
        StreamTable(
            "products", "catalog", _HERE / "products.sql", {"item": {"item_data.variations": "item_variation"}}
        ),
        StreamTable("locations", "catalog", _HERE / "locations.sql"),
        StreamTable("inventory_levels", "inventory", _HERE / "inventory_levels.sql"),
        StreamTable("time_entries", "labor", _HERE / "time_entries.sql"),
        StreamTable("reported_sales", witness.STREAM, _HERE / "reported_sales.sql"),
    ),
    redaction=REDACTION,
)
