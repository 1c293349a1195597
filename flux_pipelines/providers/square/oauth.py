"""Square's OAuth: authorize, exchange, refresh, revoke. `expires_at` is absolute; there is no `expires_in`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import BadResponseError
from flux_pipelines.providers.base import OAuthContext
from flux_pipelines.providers.common.oauth import CodeOAuth, Dialect


class _Revoked(msgspec.Struct):
    success: bool


_decode_revoked = decoder(_Revoked)


class SquareOAuth(CodeOAuth):
    """One app's OAuth client (`OAuthProvider`). Without a client secret it speaks PKCE.

    With a client secret the refresh token stays the same. PKCE's is replaced and works once: repeating a request whose answer
    was lost would burn the connection. Codes are single use, for five minutes.
    """

    dialect = Dialect(
        "/oauth2/authorize", "/oauth2/token", asked={"session": "false"}, sends_redirect=True, account="merchant_id"
    )

    def __init__(self, context: OAuthContext) -> None:
        super().__init__(context, headers={"Square-Version": context.provider.api_version})
        self.refresh_repeats = bool(context.client_secret)

    def app(self, body: Mapping[str, str]) -> dict[str, str]:
        """Return the app's id, and its secret where PKCE does not take its place."""
        secret = self._context.client_secret if "code_verifier" not in body else ""
        return {"client_id": self._context.client_id, **({"client_secret": secret} if secret else {})}

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
