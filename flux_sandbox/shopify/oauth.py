"""Shopify's OAuth: codes that work once, offline tokens that expire, and refresh tokens that are replaced at every use.

A refresh token that was replaced can be used again until its replacement has been: an answer that got lost costs nothing. Facts:
shopify.dev, offline access tokens, and the changelog entries of their expiry and of resilient refreshes (2026-08-28).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET, DAY
from flux_sandbox.shopify.consent import SCOPES, consent_of, signed
from flux_sandbox.shopify.errors import HttpError, oauth_error

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant
    from flux_sandbox.world import World

ACCESS_LIFE = 3600.0
REFRESH_LIFE = 90 * DAY
_RETRY_LIFE = 30 * DAY
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_OFFLINE = "urn:shopify:params:oauth:token-type:offline-access-token"


@dataclass(slots=True)
class Grant:
    """A shop's installation of the app; uninstalling it ends every token that came from it."""

    merchant_id: str
    scopes: frozenset[str]
    revoked: bool = False


@dataclass(slots=True)
class AccessToken:
    """An offline token; one without an end never expires."""

    grant: Grant
    expires_at: datetime | None


@dataclass(slots=True)
class RefreshToken:
    """A refresh token, and what replaced it."""

    grant: Grant
    expires_at: datetime
    used_at: datetime | None = None
    replacements: list[RefreshToken] = field(default_factory=list)


@dataclass(slots=True)
class Code:
    """An authorization code."""

    grant: Grant
    expires_at: datetime
    used: bool = False


@dataclass(slots=True)
class Authority:
    """What has been granted, and every token that was given out."""

    world: World
    codes: dict[str, Code] = field(default_factory=dict)
    access: dict[str, AccessToken] = field(default_factory=dict)
    refresh: dict[str, RefreshToken] = field(default_factory=dict)
    grants: dict[str, list[Grant]] = field(default_factory=dict)
    on_revoked: Callable[[str], None] = lambda merchant_id: None  # noqa: ARG005

    @property
    def merchants(self) -> list[Merchant]:
        """The shops."""
        return self.world.merchants_of("shopify")

    def authorised(self) -> set[str]:
        """Return the ids of the shops that have the app installed."""
        return {merchant_id for merchant_id, grants in self.grants.items() if grants}

    def granted(self, merchant_id: str) -> frozenset[str]:
        """Return every scope that a shop has granted."""
        return frozenset().union(*(grant.scopes for grant in self.grants.get(merchant_id, ())))

    def choose(self, name: str) -> Merchant:
        """Return the shop that is asked: the one named, else the first that has not the app yet.

        Raises:
            HttpError: 404: no shop is called so.

        """
        merchants = self.merchants
        name = name.removesuffix(".myshopify.com")
        for merchant in merchants:
            if name and name in (merchant.id, merchant.handle, merchant.name):
                return merchant
        if not merchants:
            raise HttpError(404)
        done = self.authorised()
        return next((one for one in merchants if one.id not in done), merchants[0])

    # The endpoints

    def authorize(self, query: Mapping[str, str], merchant: Merchant) -> str:
        """Answer for a person who agrees (or, with `deny=1`, does not): where to go next.

        Raises:
            HttpError: the request is not one that a page could be shown for.

        """
        consent = consent_of(query)
        shop = f"{merchant.handle}.myshopify.com"
        now = self.world.clock()
        if query.get("deny") == "1":
            values = {"error": "access_denied", "error_description": "The merchant did not agree."}
            return consent.answer(signed({**values, "shop": shop, **consent.state}, now))
        code = secrets.token_hex(16)
        ends = now + timedelta(seconds=self.world.options.code_lifetime)
        self.codes[code] = Code(Grant(merchant.id, consent.scopes), ends)
        return consent.answer(signed({"code": code, "shop": shop, **consent.state}, now))

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
        kind = body.get("grant_type")
        if kind == "refresh_token":
            return self._refresh(str(body.get("refresh_token") or ""), merchant)
        expiring = str(body.get("expiring") or "") in ("1", "true", "True")
        if kind == _EXCHANGE:
            return self._exchange(body, expiring)
        if kind not in (None, "authorization_code"):
            raise oauth_error("unsupported_grant_type", f"The grant type {kind} is not supported.")
        code = self.codes.get(str(body.get("code") or ""))
        if code is None or code.used or code.expires_at <= self.world.clock() or not _of(code.grant, merchant):
            raise oauth_error("invalid_request", "The authorization code was not found or was already used.")
        code.used = True
        return self._issue(code.grant, expiring=expiring)

    def _exchange(self, body: Mapping[str, Any], expiring: bool) -> dict[str, Any]:
        token = self.access.get(str(body.get("subject_token") or ""))
        kinds = (body.get("subject_token_type"), body.get("requested_token_type"))
        if token is None or token.grant.revoked or token.expires_at is not None or kinds != (_OFFLINE, _OFFLINE):
            raise oauth_error("invalid_subject_token", "The subject token is not a permanent offline token.")
        token.expires_at = self.world.clock()
        return self._issue(token.grant, expiring=expiring)

    def _refresh(self, text: str, merchant: Merchant | None) -> dict[str, Any]:
        now = self.world.clock()
        token = self.refresh.get(text)
        if token is None or token.grant.revoked or token.expires_at <= now or not _of(token.grant, merchant):
            raise oauth_error("invalid_grant", "This request requires an active refresh_token.")
        if token.used_at is not None:
            replaced = any(one.used_at is not None for one in token.replacements)
            if replaced or now - token.used_at > timedelta(seconds=_RETRY_LIFE):
                raise oauth_error("invalid_grant", "This request requires an active refresh_token.")
        token.used_at = token.used_at or now
        self.world.traffic.counts["token_refreshes"] += 1
        answer = self._issue(token.grant, expiring=True)
        token.replacements.append(self.refresh[answer["refresh_token"]])
        return answer

    def _issue(self, grant: Grant, *, expiring: bool, lifetime: float | None = None) -> dict[str, Any]:
        now = self.world.clock()
        life = lifetime if lifetime is not None else min(ACCESS_LIFE, self.world.options.token_lifetime)
        access = f"shpat_{secrets.token_hex(16)}"
        self.access[access] = AccessToken(grant, now + timedelta(seconds=life) if expiring else None)
        self.world.traffic.counts["tokens_issued"] += 1
        live = self.grants.setdefault(grant.merchant_id, [])
        if not any(grant is one for one in live):
            live.append(grant)
        answer: dict[str, Any] = {"access_token": access, "scope": ",".join(sorted(grant.scopes))}
        if expiring:
            refresh = f"shprt_{secrets.token_hex(16)}"
            self.refresh[refresh] = RefreshToken(grant, now + timedelta(seconds=REFRESH_LIFE))
            answer |= {"expires_in": int(life), "refresh_token": refresh, "refresh_token_expires_in": int(REFRESH_LIFE)}
        return answer

    def find(self, text: str) -> AccessToken | None:
        """Return the token of that text, or None: there is none, or it has expired or was revoked."""
        token = self.access.get(text)
        if token is None or token.grant.revoked:
            return None
        return None if token.expires_at is not None and token.expires_at <= self.world.clock() else token

    # What a test can make happen

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> dict[str, Any]:
        """Give out tokens without anybody authorising."""
        wanted = frozenset(scopes) or frozenset(SCOPES)
        return self._issue(Grant(merchant.id, wanted), expiring=True, lifetime=lifetime)

    def revoke_merchant(self, merchant_id: str) -> int:
        """Uninstall the app from a shop; returns how many access tokens that ended."""
        live = self.grants.pop(merchant_id, [])
        for grant in live:
            grant.revoked = True
        if live:
            self.on_revoked(merchant_id)
        return sum(any(token.grant is grant for grant in live) for token in self.access.values())

    def remove_scopes(self, merchant_id: str, scopes: Iterable[str]) -> None:
        """Take permissions away from a shop's tokens, present and future."""
        for grant in self.grants.get(merchant_id, ()):
            grant.scopes -= frozenset(scopes)

    def expire(self, merchant_id: str | None) -> int:
        """Let all access tokens (of one shop, or of all) expire now; returns how many."""
        now, ended = self.world.clock(), 0
        for token in self.access.values():
            live = token.expires_at is None or token.expires_at > now
            if merchant_id in (None, token.grant.merchant_id) and live:
                token.expires_at = now
                ended += 1
        return ended


def _of(grant: Grant, merchant: Merchant | None) -> bool:
    return merchant is None or grant.merchant_id == merchant.id
