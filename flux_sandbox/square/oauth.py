"""Square's OAuth: codes that work once, tokens that expire at an absolute time, and two kinds of refresh token.

With a client secret (code flow) the refresh token is good for ever and comes back unchanged. Without one (PKCE) it works once
(or, with the option `refresh_grace`, for a moment longer), lives 90 days, and each refresh brings a new one. Facts: ObtainToken
and RevokeToken in Square's OpenAPI document 2025-08-20.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox import oauth
from flux_sandbox.oauth import AccessToken, Grant, RefreshToken, proves
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET, DAY
from flux_sandbox.square.errors import ApiError, invalid

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant

_PKCE_REFRESH = timedelta(seconds=90 * DAY)


class Authority(oauth.Authority):
    """The authorisation server."""

    title, provider = "Square", "square"
    scopes: Mapping[str, str] = {
        "CUSTOMERS_READ": "See your customers",
        "EMPLOYEES_READ": "See your team",
        "INVENTORY_READ": "See your inventory",
        "ITEMS_READ": "See your catalog",
        "MERCHANT_PROFILE_READ": "See your business and its locations",
        "ORDERS_READ": "See your orders",
        "PAYMENTS_READ": "See your payments and refunds",
        "REPORTING_READ": "See your sales reports",
        "TIMECARDS_READ": "See your team's timecards",
    }

    def refusal(self, parameter: str, detail: str) -> Exception:
        """Return the error of a request that no page can be shown for."""
        return invalid("INVALID_VALUE", detail, parameter)

    def code(self) -> str:
        """Return a new authorization code."""
        return f"sq0cgb-{secrets.token_urlsafe(16)}"

    def signed(self, merchant: Merchant, values: dict[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Return the parameters of a callback, which Square does not sign."""
        return {**values, "response_type": "code"} if "code" in values else values

    def token(self, body: Any) -> dict[str, Any]:
        """Answer `POST /oauth2/token`.

        Raises:
            ApiError: the request is not understood, or what it presents is not accepted.

        """
        kind, secret = _text(body, "grant_type"), str(body.get("client_secret") or "")
        if _text(body, "client_id") != CLIENT_ID:
            raise _refused("The application `client_id` is not known.")
        if secret and not hmac.compare_digest(secret.encode(), CLIENT_SECRET.encode()):
            raise _refused("The `client_secret` is not valid for the application.")
        if kind == "authorization_code":
            return self._tokens(self._redeem(body, bool(secret)), pkce=not secret)
        if kind == "refresh_token":
            old = self._present(body, bool(secret))
            self.world.request_log.counts["token_refreshes"] += 1
            if old.expires_at is not None:
                return self._tokens(old.grant, pkce=True)
            return self._tokens(old.grant, refresh=_text(body, "refresh_token"))
        raise invalid("INVALID_VALUE", f"`{kind}` is not a supported grant type.", "grant_type")

    def _redeem(self, body: Mapping[str, Any], with_secret: bool) -> Grant:
        code = self.live_code(_text(body, "code"))
        if code is None:
            raise _refused("The authorization code is invalid, has been used, or has expired.")
        if body.get("redirect_uri") != code.redirect_uri:
            raise _refused("The `redirect_uri` is not the one that the code was issued for.")
        verifier = str(body.get("code_verifier") or "")
        if not with_secret and not verifier:
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", "client_secret")
        if verifier and not (code.challenge and proves(code.challenge, verifier)):
            raise _refused("The `code_verifier` does not match the code challenge.")
        code.used = True
        return code.grant

    def _present(self, body: Mapping[str, Any], with_secret: bool) -> RefreshToken:
        token = self.refresh.get(_text(body, "refresh_token"))
        now, grace = self.world.clock(), timedelta(seconds=self.world.options.refresh_grace)
        if token is None or token.grant.revoked or (token.used_at is not None and now - token.used_at >= grace):
            raise _refused("The refresh token is invalid or has been revoked.")
        if token.expires_at is None and not with_secret:
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", "client_secret")
        if token.expires_at is not None:
            if token.expires_at <= now:
                raise _refused("The refresh token has expired.")
            token.used_at = token.used_at or now
        return token

    def new_tokens(self, grant: Grant, lifetime: float | None = None) -> dict[str, Any]:
        """Give out tokens of the code flow."""
        return self._tokens(grant, lifetime=lifetime)

    def _tokens(
        self, grant: Grant, *, pkce: bool = False, refresh: str = "", lifetime: float | None = None
    ) -> dict[str, Any]:
        access, new = "EAAA" + secrets.token_urlsafe(45), "EQAA" + secrets.token_urlsafe(45)
        ends = self.keep(access, grant, self.world.options.token_lifetime if lifetime is None else lifetime)
        answer = {
            "access_token": access,
            "token_type": "bearer",
            "expires_at": _seconds(ends),
            "merchant_id": grant.merchant_id,
            "refresh_token": refresh or new,
            "short_lived": False,
        }
        if not refresh:
            refresh_ends = self.world.clock() + _PKCE_REFRESH if pkce else None
            self.refresh[new] = RefreshToken(grant, refresh_ends)
            if refresh_ends is not None:
                answer["refresh_token_expires_at"] = _seconds(refresh_ends)
        return answer

    def revoke_token(self, authorization: str, body: Any) -> dict[str, Any]:
        """Answer `POST /oauth2/revoke`: everything that the token's merchant granted.

        Raises:
            ApiError: not the app, or no such token.

        """
        kind, _, secret = authorization.partition(" ")
        if kind != "Client" or not hmac.compare_digest(secret.encode(), CLIENT_SECRET.encode()):
            raise _refused("Revoking needs the header `Authorization: Client APPLICATION_SECRET`.")
        if _text(body, "client_id") != CLIENT_ID:
            raise _refused("The application `client_id` is not known.")
        found = self.access.get(_text(body, "access_token"))
        if found is None:
            raise ApiError(404, "NOT_FOUND", "The access token was not found.", "access_token")
        self.revoke(self.world.merchants[found.grant.merchant_id], "APPLICATION")
        return {"success": True}

    def status(self, token: AccessToken) -> dict[str, Any]:
        """Answer `POST /oauth2/token/status`."""
        return {
            "scopes": sorted(token.grant.scopes),
            "expires_at": _seconds(token.expires_at),
            "client_id": CLIENT_ID,
            "merchant_id": token.grant.merchant_id,
        }

    def check(self, authorization: str, scope: str = "") -> AccessToken:
        """Return the live token behind an `Authorization` header.

        Raises:
            ApiError: 401 for a token that is missing, unknown, expired or revoked; 403 without the scope.

        """
        token = self.find(authorization)
        if token is None:
            raise ApiError(401, "UNAUTHORIZED", "This request could not be authorized.")
        if token.grant.revoked:
            raise ApiError(401, "ACCESS_TOKEN_REVOKED", "The provided access token has been revoked.")
        if token.expires_at <= self.world.clock():
            raise ApiError(401, "ACCESS_TOKEN_EXPIRED", "The provided access token has expired.")
        if scope and scope not in token.grant.scopes:
            raise ApiError(
                403,
                "INSUFFICIENT_SCOPES",
                "The merchant has not given your application sufficient permissions to do that. The merchant must "
                f"authorize your application for the following scopes: {scope}",
            )
        return token

    def find(self, authorization: str) -> AccessToken | None:
        """Return the token behind an `Authorization` header, live or not."""
        kind, _, value = authorization.partition(" ")
        return self.access.get(value) if kind == "Bearer" else None


def _seconds(at: datetime) -> str:
    # The documented form has whole seconds; rounding down never promises more life than there is.
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(body: Any, name: str) -> str:
    """Return a text that must be there."""
    if not isinstance(body, dict):
        raise invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", name)
    return value


def _refused(detail: str) -> ApiError:
    return ApiError(401, "UNAUTHORIZED", detail)
