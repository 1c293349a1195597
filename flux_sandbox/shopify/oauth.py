"""Shopify's OAuth: codes that work once, offline tokens that expire, and refresh tokens that are replaced at every use.

A refresh token that was replaced can be used again until its replacement has been: an answer that got lost costs nothing. Facts:
shopify.dev, offline access tokens, and the changelog entries of their expiry and of resilient refreshes (2026-08-28).
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox import oauth
from flux_sandbox.oauth import AccessToken, Grant, RefreshToken
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET, DAY
from flux_sandbox.shopify.errors import HttpError, oauth_error

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant

_ACCESS_LIFE = 3600.0
_REFRESH_LIFE = 90 * DAY
_RETRY_LIFE = timedelta(days=30)
_REFUSALS = {
    "client_id": "application_cannot_be_found",
    "redirect_uri": "invalid_request",
    "scope": "invalid_scope",
}


def signed(values: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Return the query of a callback: `values` with the host, the time and the signature over all of them."""
    handle = values["shop"].partition(".")[0]
    host = base64.b64encode(f"admin.shopify.com/store/{handle}".encode()).decode().rstrip("=")
    found = {**values, "host": host, "timestamp": str(int(now.timestamp()))}
    text = "&".join(f"{name}={found[name]}" for name in sorted(found))
    return {**found, "hmac": hmac.new(CLIENT_SECRET.encode(), text.encode(), "sha256").hexdigest()}


class Authority(oauth.Authority):
    """What shops have granted, and every token that was given out."""

    title, provider = "Shopify", "shopify"
    scopes: Mapping[str, str] = {
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

    def refusal(self, parameter: str, detail: str) -> Exception:
        """Return the error of a request that no page can be shown for."""
        return oauth_error(_REFUSALS[parameter], detail)

    def code(self) -> str:
        """Return a new authorization code."""
        return secrets.token_hex(16)

    def detail(self, merchant: Merchant) -> str:
        """Return what the page says of a shop beside its name."""
        return f"{merchant.handle}.myshopify.com · {merchant.currency}"

    def signed(self, merchant: Merchant, values: dict[str, str]) -> dict[str, str]:
        """Return the parameters of a callback: of the shop, and signed."""
        return signed({**values, "shop": f"{merchant.handle}.myshopify.com"}, self.world.clock())

    def choose(self, name: str) -> Merchant:
        """Return the shop that is asked: the one named, by its domain too, else the first that has not the app yet."""
        return super().choose(name.removesuffix(".myshopify.com"))

    def token(self, body: Any, merchant: Merchant | None) -> dict[str, Any]:
        """Answer `POST /admin/oauth/access_token`; `merchant` is the shop that the address names, if it does.

        Raises:
            HttpError: the request is not understood, or what it presents is not accepted.

        """
        if not isinstance(body, Mapping):
            raise oauth_error("invalid_request", "The request must hold an object.")
        secret = str(body.get("client_secret") or "")
        if body.get("client_id") != CLIENT_ID:
            raise oauth_error("application_cannot_be_found", "No application was found with this client_id.")
        if not hmac.compare_digest(secret.encode(), CLIENT_SECRET.encode()):
            raise oauth_error("invalid_client", "The client_secret is not that of the application.", 401)
        if body.get("grant_type") == "refresh_token":
            return self._refresh(str(body.get("refresh_token") or ""), merchant)
        code = self.live_code(str(body.get("code") or ""))
        if code is None or not _of(code.grant, merchant):
            raise oauth_error("invalid_request", "The authorization code was not found or was already used.")
        if body.get("expiring") != "1":
            raise HttpError(501, {"error": "The sandbox gives out tokens that expire: ask for them with expiring=1."})
        code.used = True
        return self.new_tokens(code.grant)

    def _refresh(self, text: str, merchant: Merchant | None) -> dict[str, Any]:
        now = self.world.clock()
        token = self.refresh.get(text)
        live = token is not None and not token.grant.revoked and token.expires_at is not None and token.expires_at > now
        if token is None or not live or not _of(token.grant, merchant):
            raise oauth_error("invalid_grant", "This request requires an active refresh_token.")
        if token.used_at is not None:
            replaced = any(one.used_at is not None for one in token.replacements)
            if replaced or now - token.used_at > _RETRY_LIFE:
                raise oauth_error("invalid_grant", "This request requires an active refresh_token.")
        token.used_at = token.used_at or now
        self.world.request_log.counts["token_refreshes"] += 1
        answer = self.new_tokens(token.grant)
        token.replacements.append(self.refresh[answer["refresh_token"]])
        return answer

    def new_tokens(self, grant: Grant, lifetime: float | None = None) -> dict[str, Any]:
        """Give out an access token and a refresh token."""
        life = lifetime if lifetime is not None else min(_ACCESS_LIFE, self.world.options.token_lifetime)
        access, refresh = f"shpat_{secrets.token_hex(16)}", f"shprt_{secrets.token_hex(16)}"
        self.keep(access, grant, life)
        self.refresh[refresh] = RefreshToken(grant, self.world.clock() + timedelta(seconds=_REFRESH_LIFE))
        return {
            "access_token": access,
            "scope": ",".join(sorted(grant.scopes)),
            "expires_in": int(life),
            "refresh_token": refresh,
            "refresh_token_expires_in": int(_REFRESH_LIFE),
        }

    def find(self, text: str) -> AccessToken | None:
        """Return the token of that text, or None: there is none, or it has expired or was revoked."""
        token = self.access.get(text)
        return None if token is None or token.grant.revoked or token.expires_at <= self.world.clock() else token


def _of(grant: Grant, merchant: Merchant | None) -> bool:
    return merchant is None or grant.merchant_id == merchant.id
