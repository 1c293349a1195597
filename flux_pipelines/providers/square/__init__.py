"""Square: orders and locations. Endpoints, limits and quirks with their sources are in README.md beside this file."""

from pathlib import Path

from flux_pipelines.providers.base import Provider, RateLimit, Setting

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
    ),
    secrets=(("access_token",), ("client_id", "client_secret", "refresh_token")),
    # PAYMENTS_READ only brings webhooks: a sale rung up at the counter is announced as a payment, never as an order.
    scopes=("MERCHANT_PROFILE_READ", "ORDERS_READ", "PAYMENTS_READ"),
    pos_source="flux_pipelines.providers.square.client:SquareClient",
    oauth="flux_pipelines.providers.square.oauth:SquareOAuth",
    # Square's two flows exclude each other, and it names the one with a secret as the better for servers: its refresh
    # tokens do not wear out (https://developer.squareup.com/docs/oauth-api/best-practices).
    pkce="without_secret",
    webhooks="flux_pipelines.providers.square.webhooks:SquareWebhooks",
    sandbox="flux_pipelines.providers.square.sandbox:build",
    transactions_sql=Path(__file__).with_name("transactions.sql"),
    capabilities=frozenset({"PosSource", "OAuthProvider", "WebhookSource"}),
)
