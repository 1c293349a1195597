"""Bunch: a point of sale whose every store is an account of its own (README.md)."""

from pathlib import Path

from flux_pipelines.providers.base import Provider, RateLimit, Redaction, Setting, Stream, StreamTable

_HERE = Path(__file__).parent

PROVIDER = Provider(
    name="bunch",
    title="Bunch",
    owner="team:integrations",
    docs_url="https://bunch.example/docs",
    base_url="https://api.bunch.example",
    api_version="3",
    rate_limits=(RateLimit(16, 1.0, "connection"), RateLimit(50, 1.0, "app")),
    settings=(
        Setting("base_url", "https://api.bunch.example", "Where the API answers."),
        Setting("cutoff_hour", 0, "Local hour at which the trading day ends, 0 to 23."),
        Setting("requests_per_minute", 960, "Most requests a minute: 16 a second, as Bunch allows a token."),
        Setting("keep_personal_data", 0, "1: customers and card digits are stored as received. Default: removed."),
        Setting("merchant_id", "", "Which merchant, for a connection that was not made in the browser."),
    ),
    secrets=(("access_token",), ("client_id", "client_secret", "refresh_token")),
    scopes=("ORDERS_R", "PAYMENTS_R", "INVENTORY_R", "MERCHANT_R"),
    source="flux_pipelines.providers.bunch.client:BunchClient",
    oauth="flux_pipelines.providers.bunch.oauth:BunchOAuth",
    webhooks="flux_pipelines.providers.bunch.webhooks:BunchWebhooks",
    webhook_types=("A:DELETE", "I:*", "M:*", "O:*"),
    streams=(Stream("orders", "orders", "windowed"), Stream("catalog", "goods and the store", "current")),
    tables=(
        StreamTable("transactions", "orders", _HERE / "transactions.sql"),
        StreamTable("payments", "orders", _HERE / "payments.sql"),
        StreamTable("products", "catalog", _HERE / "products.sql"),
        StreamTable("locations", "catalog", _HERE / "locations.sql"),
    ),
    redaction=Redaction(
        remove=frozenset({"firstName", "lastName", "emailAddress", "last4"}),
        within=frozenset({("id", "customers")}),
    ),
)
