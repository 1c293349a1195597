"""Toast's machine sign-in: a client id and secret for a token that lives about a day and is good for every restaurant.

Toast gives the same token, with fewer seconds left, until its last minute; it asks not to sign in more than twice an
hour (developer guide, "Authentication"). There is no refresh token and nothing to revoke.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import ReauthorizationNeededError
from flux_pipelines.providers.base import OAuthContext, TokenSet
from flux_pipelines.transport.errors import RefusedError

LOGIN_PATH = "/authentication/v1/authentication/login"
_PARTNER = "https://toasttab.com/partner_guid"
_MANAGEMENT_SET = "https://toasttab.com/management_set_guid"


class _Token(msgspec.Struct, rename="camel"):
    access_token: str
    expires_in: int


class _Answer(msgspec.Struct):
    token: _Token


_decode_answer = decoder(_Answer)


class ToastLogin:
    """One API client's sign-in (`MachineLogin`)."""

    def __init__(self, context: OAuthContext) -> None:
        self._context = context
        self._api = context.transport.client(
            provider=context.provider.name,
            connection=context.connection,
            base_url=context.base_url,
            limits=(),  # limited by address, without headers that tell; the token manager asks rarely enough
            credentials=None,
            headers={},
        )

    def sign_in(self) -> TokenSet:
        """Return Toast's present token for these credentials.

        Raises:
            ReauthorizationNeededError: Toast does not accept the credentials.

        """
        try:
            answer = self._api.request(
                "POST",
                LOGIN_PATH,
                json={
                    "clientId": self._context.client_id,
                    "clientSecret": self._context.client_secret,
                    "userAccessType": "TOAST_MACHINE_CLIENT",
                },
                idempotent=True,
                auth=False,
                decode=_decode_answer,
            )
        except RefusedError as refused:
            if refused.status not in (401, 403):
                raise
            raise ReauthorizationNeededError(
                "Toast does not accept the client id and secret",
                connection=self._context.connection or None,
                next_step="Store the present ones with `flux connections configure ... --secrets -`, then run the failed partitions again.",
            ) from None
        token = answer.value.token
        return TokenSet(
            token.access_token,
            None,
            datetime.now(UTC) + timedelta(seconds=token.expires_in),
            account_of(token.access_token),
        )

    def close(self) -> None:
        """Release the HTTP connections."""
        self._api.close()


def account_of(token: str) -> str:
    """Return whose token it is by its claims (the partner, or the restaurants' management set); empty if it has none.

    Nothing is decided by it but which account two connections are of: Toast verifies its own tokens.
    """
    claims = _claims(token)
    found = claims.get(_PARTNER) or claims.get(_MANAGEMENT_SET) or ""
    return found if isinstance(found, str) else ""


def scopes_of(token: str) -> frozenset[str] | None:
    """Return what a token may do; None when it does not say."""
    scope = _claims(token).get("scope")
    return frozenset(scope.split()) if isinstance(scope, str) else None


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}
