"""Shopify's installation page: what an app may ask for, the page on which a person answers, and the signed answer."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET
from flux_sandbox.pages import Choice, consent_page
from flux_sandbox.shopify.errors import oauth_error

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.responses import Response

    from flux_sandbox.model import Merchant

#: Every permission, and what the person who is asked for it reads.
SCOPES = {
    "read_all_orders": "See all your orders, older than 60 days too",
    "read_assigned_fulfillment_orders": "See fulfilment orders assigned to the app",
    "read_customers": "See your customers",
    "read_discounts": "See your discounts",
    "read_fulfillments": "See your fulfilments",
    "read_inventory": "See your inventory",
    "read_locations": "See your locations",
    "read_merchant_managed_fulfillment_orders": "See your fulfilment orders",
    "read_orders": "See your orders",
    "read_products": "See your products",
    "read_publications": "See where your products are published",
    "read_reports": "See your sales reports",
    "read_returns": "See your returns",
    "read_shipping": "See your shipping rates",
    "read_shopify_payments_payouts": "See your payouts",
    "read_users": "See your staff",
}


class Consent(NamedTuple):
    """What a person is asked to agree to, and where the answer goes."""

    redirect: str
    scopes: frozenset[str]
    state: Mapping[str, str]

    def answer(self, values: Mapping[str, str]) -> str:
        """Return the address that carries an answer back."""
        joint = "&" if urlsplit(self.redirect).query else "?"
        return f"{self.redirect}{joint}{urlencode(values)}"


def signed(values: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Return the query of a callback: `values` with the host, the time and the signature over all of them."""
    handle = values["shop"].partition(".")[0]
    host = base64.b64encode(f"admin.shopify.com/store/{handle}".encode()).decode().rstrip("=")
    found = {**values, "host": host, "timestamp": str(int(now.timestamp()))}
    text = "&".join(f"{name}={found[name]}" for name in sorted(found))
    return {**found, "hmac": hmac.new(CLIENT_SECRET.encode(), text.encode(), "sha256").hexdigest()}


def consent_of(query: Mapping[str, str]) -> Consent:
    """Return what a request to the installation page asks for.

    Raises:
        HttpError: the request is not one that a page could be shown for.

    """
    if query.get("client_id") != CLIENT_ID:
        raise oauth_error("application_cannot_be_found", "No application was found with this client_id.")
    redirect = query.get("redirect_uri") or ""
    parts = urlsplit(redirect)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment:
        raise oauth_error("invalid_request", "The redirect_uri is not whitelisted.")
    if query.get("grant_options[]"):
        raise oauth_error("invalid_request", "The sandbox gives offline tokens only.")
    scopes = frozenset(scope.strip() for scope in query.get("scope", "").split(",") if scope.strip())
    if not scopes or not scopes <= SCOPES.keys():
        unknown = ", ".join(sorted(scopes - SCOPES.keys())) or "none given"
        raise oauth_error("invalid_scope", f"The requested scope is not valid: {unknown}.")
    return Consent(redirect, scopes, {"state": query["state"]} if query.get("state") else {})


def answered(query: Mapping[str, str]) -> bool:
    """Tell whether a request carries a person's answer, which the page's buttons add to it."""
    return "merchant" in query or query.get("deny") == "1"


def page(
    query: QueryParams, merchants: Collection[Merchant], chosen: Merchant, authorised: Collection[str]
) -> Response:
    """Show the page on which a person chooses a shop and answers.

    Raises:
        HttpError: the request is not one that a page could be shown for.

    """
    consent = consent_of(query)
    accounts = [
        Choice(
            merchant.id,
            merchant.name,
            f"{merchant.handle}.myshopify.com · {merchant.currency}",
            "installed before" if merchant.id in authorised else "",
        )
        for merchant in merchants
    ]
    return consent_page(
        "Shopify",
        query.multi_items(),
        accounts=accounts,
        chosen=chosen.id,
        permissions=[(scope, SCOPES[scope]) for scope in sorted(consent.scopes)],
        goes_to=urlsplit(consent.redirect).netloc,
    )
