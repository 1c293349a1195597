"""Toast: orders, menus, stock and time entries. Endpoints, limits and quirks with their sources are in README.md."""

from pathlib import Path

from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Provider, RateLimit, Redaction, Setting, Stream, StreamTable

_HERE = Path(__file__).parent

PROVIDER = Provider(
    name="toast",
    title="Toast",
    owner="team:integrations",
    docs_url="https://doc.toasttab.com/",
    base_url="https://ws-api.toasttab.com",
    # Toast has no version header; each API has its own in its path. This is the version of the orders API's description.
    api_version="2.9.4",
    rate_limits=(RateLimit(requests=20, seconds=1.0), RateLimit(requests=10_000, seconds=900.0)),
    settings=(
        Setting("base_url", "https://ws-api.toasttab.com", "Where the API answers, as Toast gave it to you."),
        Setting("restaurants", "", "GUIDs of the restaurants, separated by commas; empty: all that Toast lists."),
        Setting("cutoff_hour", 4, "Local hour at which the trading day ends; orders have Toast's own business date."),
        Setting("requests_per_hour", 0, "Most requests an hour and restaurant; 0: Toast's present limits."),
        Setting("report_wait_seconds", 90, "How long Toast's own sales report is waited for."),
        Setting("history_pause_seconds", 5, "Pause between intervals of history, which Toast asks for."),
        Setting("keep_personal_data", 0, "1 keeps names, phone numbers, addresses and card digits in raw records."),
    ),
    secrets=(("client_id", "client_secret"),),
    scopes=("orders:read", "restaurants:read", "menus:read", "config:read", "stock:read", "labor:read"),
    source="flux_pipelines.providers.toast.client:ToastClient",
    login="flux_pipelines.providers.toast.login:ToastLogin",
    webhooks="flux_pipelines.providers.toast.webhooks:ToastWebhooks",
    # An event without a type goes by its category.
    webhook_types=(
        "channel_order_updated",
        "in_stock",
        "low_quantity",
        "menus",
        "menus_updated",
        "order_updated",
        "out_of_stock",
        "partner",
        "partner_*",
        "stock",
    ),
    streams=(
        Stream("orders", "orders", "windowed", id_field="guid"),
        Stream("catalog", "restaurants and menus", "current", passing=("alternate_payment_type",)),
        Stream("inventory", "stock", "hourly"),
        Stream("labor", "time entries", "daily"),
        Stream(witness.STREAM, "sales report", "daily", passing=witness.PASSING, again=witness.NOT_YET),
    ),
    tables=(
        StreamTable("transactions", "orders", _HERE / "transactions.sql"),
        StreamTable("payments", "orders", _HERE / "payments.sql"),
        StreamTable(
            "products",
            "catalog",
            _HERE / "products.sql",
            {
                "menu": {
                    "menus": "one_menu",
                    "modifierGroupReferences": "modifier_group",
                    "modifierOptionReferences": "modifier_option",
                },
                "one_menu": {"menuGroups": "group"},
                "group": {"menuItems": "item", "menuGroups": "group"},
            },
        ),
        StreamTable("locations", "catalog", _HERE / "locations.sql"),
        StreamTable("inventory_levels", "inventory", _HERE / "inventory_levels.sql"),
        StreamTable("time_entries", "labor", _HERE / "time_entries.sql"),
        StreamTable("reported_sales", witness.STREAM, _HERE / "reported_sales.sql"),
    ),
    redaction=Redaction(
        remove=frozenset(
            {
                "customer",
                "deliveryInfo",
                "curbsidePickupInfo",
                "tabName",
                "last4Digits",
                "first6Digits",
                "networkTransactionIdentifier",
                "cardHolderFirstName",
                "cardHolderLastName",
                "cardHolderExpirationMonth",
                "cardHolderExpirationYear",
                "loyaltyIdentifier",
                "createdByFirstName",
                "createdByLastName",
                "createdByEmailAddress",
                "createdByPhoneNumber",
            }
        ),
    ),
)
