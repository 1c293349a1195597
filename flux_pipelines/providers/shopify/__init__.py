"""Shopify: orders, payments, catalog, stock and locations of a shop. Facts with their sources are in README.md."""

from datetime import date
from pathlib import Path

from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Provider, RateLimit, Redaction, Setting, Stream, StreamTable

_HERE = Path(__file__).parent
_SHOP = Setting("shop", "", "The shop's name: `acme` of acme.myshopify.com.")

PROVIDER = Provider(
    name="shopify",
    title="Shopify",
    owner="team:integrations",
    docs_url="https://shopify.dev/docs/api/admin-graphql/latest",
    base_url="https://{shop}.myshopify.com",
    api_version="2026-10",
    # A stable version is supported for at least twelve months (https://shopify.dev/docs/api/usage/versioning); after that
    # Shopify answers with the oldest one it still supports.
    sunset=date(2027, 10, 1),
    # GraphQL is limited by cost, not by requests: the client obeys what every answer tells. This bounds only haste.
    rate_limits=(RateLimit(requests=40, seconds=1.0),),
    settings=(
        Setting("base_url", "https://{shop}.myshopify.com", "Where the API answers; `{shop}` is the shop's name."),
        _SHOP,
        Setting("cutoff_hour", 0, "Local hour at which the trading day ends, 0 to 23."),
        Setting(
            "points_per_second",
            0,
            "Most points of query cost a second; 0 leaves it to what Shopify's answers allow (100 to 2,000 by plan).",
        ),
        Setting("bulk_days", 4, "Windows of at least so many days are fetched by a bulk operation; 0 never uses one."),
        Setting("keep_personal_data", 0, "1 stores personal data as received; 0 removes it before anything is stored."),
    ),
    secrets=(("access_token",), ("client_id", "client_secret", "refresh_token")),
    scopes=("read_orders", "read_all_orders", "read_products", "read_inventory", "read_locations", "read_reports"),
    source="flux_pipelines.providers.shopify.client:ShopifyClient",
    oauth="flux_pipelines.providers.shopify.oauth:ShopifyOAuth",
    # Since 2026-08-28 a replaced refresh token works until its successor is first used.
    refresh_grace=True,
    connect_settings=(_SHOP,),
    webhooks="flux_pipelines.providers.shopify.webhooks:ShopifyWebhooks",
    webhooks_signed_with="client_secret",
    webhook_types=(
        "app/uninstalled",
        "collections/*",
        "customers/data_request",
        "customers/redact",
        "fulfillments/*",
        "inventory_items/*",
        "inventory_levels/*",
        "locations/*",
        "order_transactions/*",
        "orders/*",
        "products/*",
        "refunds/*",
        "returns/*",
        "shop/redact",
        "tender_transactions/*",
        "variants/*",
    ),
    streams=(
        Stream("orders", "orders", "windowed", id_field="legacyResourceId"),
        Stream("catalog", "products, variants and locations", "current", passing=("deletion",)),
        Stream("inventory", "stock at every location", "hourly"),
        Stream(witness.STREAM, "sales report", "daily", passing=witness.PASSING, again=witness.NOT_YET),
    ),
    tables=(
        StreamTable("transactions", "orders", _HERE / "transactions.sql"),
        StreamTable(
            "payments",
            "orders",
            _HERE / "payments.sql",
            {"order": {"agreements.nodes": "agreement", "lineItems.nodes": ""}},
        ),
        StreamTable("products", "catalog", _HERE / "products.sql", {"product": {"variants.nodes": "variant"}}),
        StreamTable("locations", "catalog", _HERE / "locations.sql"),
        StreamTable("inventory_levels", "inventory", _HERE / "inventory_levels.sql"),
        StreamTable("reported_sales", witness.STREAM, _HERE / "reported_sales.sql"),
    ),
    redaction=Redaction(
        remove=frozenset(
            {
                # Order and refund, GraphQL and REST
                "billingAddress",
                "billing_address",
                "browser_ip",
                "buyer_accepts_marketing",
                "cartToken",
                "cart_token",
                "checkoutToken",
                "checkout_token",
                "clientIp",
                "client_details",
                "contact_email",
                "customAttributes",
                "customer",
                "customerAcceptsMarketing",
                "customerJourney",
                "customerJourneySummary",
                "customerLocale",
                "customer_locale",
                "default_address",
                "destination",
                "displayAddress",
                "email",
                "landingPageUrl",
                "landing_site",
                "landing_site_ref",
                "localizationExtensions",
                "localizedFields",
                "note",
                "note_attributes",
                "order_status_url",
                "origin_address",
                "phone",
                "poNumber",
                "po_number",
                "properties",
                "purchasingEntity",
                "reference",
                "referrerUrl",
                "referring_site",
                "shippingAddress",
                "shipping_address",
                "staffMember",
                "statusPageUrl",
                "token",
                "tracking_number",
                "tracking_numbers",
                "tracking_url",
                "tracking_urls",
                "user",
                # Payment
                "accountNumber",
                "authorization",
                "authorizationCode",
                "avsResultCode",
                "avs_result_code",
                "bin",
                "credit_card_bin",
                "credit_card_name",
                "credit_card_number",
                "cvvResultCode",
                "cvv_result_code",
                "expirationMonth",
                "expirationYear",
                "credit_card_expiration_month",
                "credit_card_expiration_year",
                "paymentId",
                "payment_id",
                "receipt",
                "receiptJson",
            }
        ),
        # The last two are in what is kept of a request to forget a customer.
        pseudonymise=frozenset({"customer_id", "customer_email", "customer_phone"}),
        within=frozenset(
            {
                ("name", "paymentDetails"),
                ("number", "paymentDetails"),
                ("name", "payment_details"),
                ("number", "payment_details"),
            }
        ),
    ),
)
