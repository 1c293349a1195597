"""Square's OAuth: codes that work once, tokens that expire at an absolute time, and two kinds of refresh token.

With a client secret (code flow) the refresh token is good for ever and comes back unchanged. Without one (PKCE) it works
once (or, with the option `refresh_grace`, for a moment longer), lives 90 days, and each refresh brings a new one. Facts: ObtainToken and RevokeToken in Square's OpenAPI document 2025-08-20.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET, DAY
from flux_sandbox.square.consent import SCOPES, consent_of
from flux_sandbox.square.errors import ApiError, invalid

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant
    from flux_sandbox.world import World

_SHORT_LIVED = DAY
_PKCE_REFRESH = 90 * DAY


@dataclass(slots=True)
class Grant:
    """A merchant's authorisation of the app; revoking it ends every token that came from it."""

    merchant_id: str
    scopes: frozenset[str]
    revoked: bool = False


@dataclass(slots=True)
class AccessToken:
    """A bearer token."""

    grant: Grant
    expires_at: datetime
    scopes: frozenset[str]
    revoked: bool = False


@dataclass(slots=True)
class RefreshToken:
    """A refresh token; `expires_at` only for PKCE, whose tokens work once."""

    grant: Grant
    scopes: frozenset[str]
    expires_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(slots=True)
class Code:
    """An authorization code."""

    grant: Grant
    expires_at: datetime
    redirect_uri: str
    challenge: str
    used: bool = False


@dataclass(slots=True)
class Authority:
    """The authorisation server: what has been granted, and every token it gave out."""

    world: World
    codes: dict[str, Code] = field(default_factory=dict)
    access: dict[str, AccessToken] = field(default_factory=dict)
    refresh: dict[str, RefreshToken] = field(default_factory=dict)
    grants: dict[str, list[Grant]] = field(default_factory=dict)
    on_revoked: Callable[[str, str], None] = lambda merchant_id, revoker: None  # noqa: ARG005

    def authorised(self) -> set[str]:
        """Return the ids of the merchants that have a live authorisation."""
        return {t.grant.merchant_id for t in self.access.values() if not t.grant.revoked}

    def choose(self, name: str) -> Merchant:
        """Return the merchant who is asked: the one named, else the first that has not authorised yet."""
        merchants = self.world.merchants_of("square")
        for merchant in merchants:
            if name and name in (merchant.id, merchant.handle, merchant.name):
                return merchant
        done = self.authorised()
        return next((m for m in merchants if m.id not in done), merchants[0])

    def granted(self, merchant_id: str) -> frozenset[str]:
        """Return every scope that a merchant has granted and not taken back."""
        return frozenset().union(*(grant.scopes for grant in self.grants.get(merchant_id, ())))

    def authorize(self, query: Mapping[str, str]) -> str:
        """Answer for a person who agrees (or, with `deny=1`, does not): where to go next.

        Raises:
            ApiError: the request is not one that a page could be shown for.

        """
        consent = consent_of(query)
        if query.get("deny") == "1":
            return consent.answer(error="access_denied", error_description="user_denied")
        grant = Grant(self.choose(query.get("merchant", "")).id, consent.scopes)
        code = f"sq0cgb-{secrets.token_urlsafe(16)}"
        ends = self.world.clock() + timedelta(seconds=self.world.options.code_lifetime)
        self.codes[code] = Code(grant, ends, consent.redirect, query.get("code_challenge", ""))
        return consent.answer(code=code, response_type="code")

    def token(self, body: Any) -> dict[str, Any]:
        """Answer `POST /oauth2/token`.

        Raises:
            ApiError: the request is not understood, or what it presents is not accepted.

        """
        if not isinstance(body, dict):
            raise invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
        kind = _text(body, "grant_type", required=True)
        if _text(body, "client_id", required=True) != CLIENT_ID:
            raise _refused("The application `client_id` is not known.")
        secret = _text(body, "client_secret")
        if secret and not hmac.compare_digest(secret.encode(), CLIENT_SECRET.encode()):
            raise _refused("The `client_secret` is not valid for the application.")
        if kind == "authorization_code":
            grant, pkce = self._redeem(body, bool(secret))
            scopes, old = grant.scopes, None
        elif kind == "refresh_token":
            old = self._present(body, bool(secret))
            grant, scopes, pkce = old.grant, old.scopes, old.expires_at is not None
            self.world.traffic.counts["token_refreshes"] += 1
        else:
            raise invalid("INVALID_VALUE", f"`{kind}` is not a supported grant type.", "grant_type")
        asked = body.get("scopes")
        if isinstance(asked, list) and asked:
            scopes = scopes & frozenset(map(str, asked))
        return self._issue(grant, scopes, pkce=pkce, old=old, given=body.get("refresh_token"), short=body)

    def _redeem(self, body: dict[str, Any], with_secret: bool) -> tuple[Grant, bool]:
        code = self.codes.get(_text(body, "code", required=True))
        if code is None or code.used or code.expires_at <= self.world.clock():
            raise _refused("The authorization code is invalid, has been used, or has expired.")
        if _text(body, "redirect_uri") != code.redirect_uri:
            raise _refused("The `redirect_uri` is not the one that the code was issued for.")
        verifier = _text(body, "code_verifier")
        if not with_secret and not verifier:
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", "client_secret")
        if verifier:
            digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
            if not code.challenge or not hmac.compare_digest(digest, code.challenge.rstrip("=")):
                raise _refused("The `code_verifier` does not match the code challenge.")
        code.used = True
        return code.grant, not with_secret

    def _present(self, body: dict[str, Any], with_secret: bool) -> RefreshToken:
        token = self.refresh.get(_text(body, "refresh_token", required=True))
        now = self.world.clock()
        if token is None or token.grant.revoked:
            raise _refused("The refresh token is invalid or has been revoked.")
        if token.used_at is not None and (now - token.used_at).total_seconds() >= self.world.options.refresh_grace:
            raise _refused("The refresh token is invalid or has been revoked.")
        if token.expires_at is None and not with_secret:
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", "client_secret")
        if token.expires_at is not None:
            if token.expires_at <= now:
                raise _refused("The refresh token has expired.")
            token.used_at = token.used_at or now
        return token

    def _issue(
        self,
        grant: Grant,
        scopes: frozenset[str],
        *,
        pkce: bool,
        old: RefreshToken | None,
        given: Any,
        short: Mapping[str, Any],
    ) -> dict[str, Any]:
        now = self.world.clock()
        short_lived = short.get("short_lived") is True
        life = self.world.options.token_lifetime
        access = "EAAA" + secrets.token_urlsafe(45)
        ends = now + timedelta(seconds=min(life, _SHORT_LIVED) if short_lived else life)
        self.access[access] = AccessToken(grant, ends, scopes)
        self.world.traffic.counts["tokens_issued"] += 1
        live = self.grants.setdefault(grant.merchant_id, [])
        if not any(grant is one for one in live):
            live.append(grant)
        answer = {
            "access_token": access,
            "token_type": "bearer",
            "expires_at": _seconds(ends),
            "merchant_id": grant.merchant_id,
            "refresh_token": given,
            "short_lived": short_lived,
        }
        if old is None or pkce:
            answer["refresh_token"] = "EQAA" + secrets.token_urlsafe(45)
            refresh_ends = now + timedelta(seconds=_PKCE_REFRESH) if pkce else None
            self.refresh[answer["refresh_token"]] = RefreshToken(grant, scopes, refresh_ends)
            if refresh_ends is not None:
                answer["refresh_token_expires_at"] = _seconds(refresh_ends)
        return answer

    def revoke(self, authorization: str, body: Any) -> dict[str, Any]:
        """Answer `POST /oauth2/revoke`.

        Raises:
            ApiError: not the app, or not exactly one of `access_token` and `merchant_id`.

        """
        kind, _, secret = authorization.partition(" ")
        if kind != "Client" or not hmac.compare_digest(secret.encode(), CLIENT_SECRET.encode()):
            raise _refused("Revoking needs the header `Authorization: Client APPLICATION_SECRET`.")
        if not isinstance(body, dict):
            raise invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
        if _text(body, "client_id", required=True) != CLIENT_ID:
            raise _refused("The application `client_id` is not known.")
        token, merchant_id = _text(body, "access_token"), _text(body, "merchant_id")
        if bool(token) == bool(merchant_id):
            raise invalid("BAD_REQUEST", "Provide exactly one of `access_token` and `merchant_id`.")
        if token:
            found = self.access.get(token)
            if found is None:
                raise ApiError(404, "NOT_FOUND", "The access token was not found.", "access_token")
            if body.get("revoke_only_access_token") is True:
                found.revoked = True
                return {"success": True}
            merchant_id = found.grant.merchant_id
        self.revoke_merchant(merchant_id, "APPLICATION")
        return {"success": True}

    def status(self, token: AccessToken) -> dict[str, Any]:
        """Answer `POST /oauth2/token/status`."""
        return {
            "scopes": sorted(token.scopes),
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
        if token.revoked or token.grant.revoked:
            raise ApiError(401, "ACCESS_TOKEN_REVOKED", "The provided access token has been revoked.")
        if token.expires_at <= self.world.clock():
            raise ApiError(401, "ACCESS_TOKEN_EXPIRED", "The provided access token has expired.")
        if scope and scope not in token.scopes:
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

    # What a test can make happen

    def _tokens(self) -> list[AccessToken | RefreshToken]:
        return [*self.access.values(), *self.refresh.values()]

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> dict[str, Any]:
        """Give out tokens without anybody authorising, as a developer console does."""
        wanted = frozenset(scopes) or frozenset(SCOPES)
        answer = self._issue(Grant(merchant.id, wanted), wanted, pkce=False, old=None, given=None, short={})
        if lifetime is not None:
            token = self.access[answer["access_token"]]
            token.expires_at = self.world.clock() + timedelta(seconds=lifetime)
            answer["expires_at"] = _seconds(token.expires_at)
        return answer

    def revoke_merchant(self, merchant_id: str, revoker: str = "MERCHANT") -> int:
        """Revoke everything a merchant granted, and say so; returns how many access tokens that ended."""
        live = self.grants.pop(merchant_id, [])
        for grant in live:
            grant.revoked = True
        if live:
            self.on_revoked(merchant_id, revoker)
        return sum(access.grant.merchant_id == merchant_id for access in self.access.values())

    def remove_scopes(self, merchant_id: str, scopes: Iterable[str]) -> None:
        """Take permissions away from a merchant's tokens, present and future."""
        gone = frozenset(scopes)
        for token in self._tokens():
            if token.grant.merchant_id == merchant_id:
                token.scopes -= gone
                token.grant.scopes -= gone

    def expire(self, merchant_id: str | None) -> int:
        """Let all access tokens (of one merchant, or of all) expire now; returns how many."""
        now = self.world.clock()
        ended = 0
        for token in self.access.values():
            if merchant_id in (None, token.grant.merchant_id) and token.expires_at > now:
                token.expires_at = now
                ended += 1
        return ended


def _seconds(at: datetime) -> str:
    # The documented form has whole seconds; rounding down never promises more life than there is.
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(body: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = body.get(name)
    if value is None or value == "":
        if required:
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", name)
        return ""
    if not isinstance(value, str):
        raise invalid("EXPECTED_STRING", f"Expected a string value for `{name}`.", name)
    return value


def _refused(detail: str) -> ApiError:
    return ApiError(401, "UNAUTHORIZED", detail)
