"""Square's OAuth: authorize, exchange, refresh, revoke. `expires_at` is absolute; there is no `expires_in`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import BadResponseError, ReauthorizationNeededError
from flux_pipelines.providers.base import OAuthContext, TokenSet
from flux_pipelines.transport.errors import RefusedError


class _Tokens(msgspec.Struct):
    access_token: str
    expires_at: datetime | None = None
    refresh_token: str | None = None
    refresh_token_expires_at: datetime | None = None
    merchant_id: str = ""


class _Revoked(msgspec.Struct):
    success: bool


_decode_tokens = decoder(_Tokens)
_decode_revoked = decoder(_Revoked)


class SquareOAuth:
    """One app's OAuth client (`OAuthProvider`). Without a client secret it speaks PKCE."""

    def __init__(self, context: OAuthContext) -> None:
        self._context = context
        self._api = context.transport.client(
            provider=context.provider.name,
            connection=context.connection,
            base_url=context.base_url,
            limits=context.provider.rate_limits,
            credentials=None,
            headers={"Square-Version": context.provider.api_version},
        )

    def authorize_url(self, redirect_uri: str, state: str, code_challenge: str | None = None) -> str:
        """Return the URL to send the person's browser to. `code_challenge` is PKCE's, method S256."""
        query = {
            "client_id": self._context.client_id,
            "scope": " ".join(self._context.provider.scopes),
            "session": "false",
            "state": state,
            "redirect_uri": redirect_uri,
        }
        if code_challenge is not None:
            query["code_challenge"] = code_challenge
        return f"{self._context.base_url.rstrip('/')}/oauth2/authorize?{urlencode(query)}"

    def verify_callback(self, query: Mapping[str, str]) -> None:
        """Accept any callback: Square does not sign them; the state is what proves where it comes from."""

    def exchange(self, callback: Mapping[str, str], redirect_uri: str, code_verifier: str | None = None) -> TokenSet:
        """Exchange an authorization code (single use, five minutes) for tokens.

        Raises:
            ReauthorizationNeededError: the code is wrong, used or too old.

        """
        body = {"code": callback["code"], "grant_type": "authorization_code", "redirect_uri": redirect_uri}
        if code_verifier is not None:
            body["code_verifier"] = code_verifier
        return self._obtain(body, idempotent=False, what="Square does not accept the authorization code")

    def refresh(self, refresh_token: str) -> TokenSet:
        """Return new tokens. With a client secret the refresh token stays the same; with PKCE it is replaced.

        Raises:
            ReauthorizationNeededError: the refresh token is no longer accepted.

        """
        tokens = self._obtain(
            {"refresh_token": refresh_token, "grant_type": "refresh_token"},
            # A PKCE refresh token works once: repeating a request whose answer was lost would burn the connection.
            idempotent=bool(self._context.client_secret),
            what="Square does not accept the refresh token any more",
        )
        if tokens.refresh_token is None:
            return TokenSet(tokens.access_token, refresh_token, tokens.expires_at, tokens.account_id)
        return tokens

    def revoke(self, access_token: str) -> None:
        """Revoke the authorisation, with every token of this merchant for this app.

        Raises:
            BadResponseError: Square did not say that it revoked it.

        """
        answer = self._api.request(
            "POST",
            "/oauth2/revoke",
            json={"client_id": self._context.client_id, "access_token": access_token},
            headers={"Authorization": f"Client {self._context.client_secret}"},
            idempotent=True,
            auth=False,
            decode=_decode_revoked,
        )
        if not answer.value.success:
            raise BadResponseError("Square did not revoke the authorisation", connection=self._context.connection)

    def close(self) -> None:
        """Release the HTTP connections."""
        self._api.close()

    def _obtain(self, body: dict[str, str], *, idempotent: bool, what: str) -> TokenSet:
        request: dict[str, Any] = {"client_id": self._context.client_id, **body}
        if self._context.client_secret and "code_verifier" not in body:
            request["client_secret"] = self._context.client_secret
        try:
            answer = self._api.request(
                "POST", "/oauth2/token", json=request, idempotent=idempotent, auth=False, decode=_decode_tokens
            )
        except RefusedError as refused:
            codes = ", ".join(refused.codes) or f"status {refused.status}"
            raise ReauthorizationNeededError(
                f"{what} ({codes})", connection=self._context.connection or None
            ) from refused
        tokens = answer.value
        return TokenSet(
            tokens.access_token,
            tokens.refresh_token,
            tokens.expires_at,
            tokens.merchant_id,
            tokens.refresh_token_expires_at,
        )
