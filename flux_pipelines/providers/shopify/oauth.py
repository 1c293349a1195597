"""Shopify's OAuth: authorise at the shop, expiring offline tokens, refresh tokens that rotate, uninstalling.

Callbacks are signed. Facts with their sources are in README.md beside this file.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import (
    BadResponseError,
    ConfigurationError,
)
from flux_pipelines.providers.base import OAuthContext, TokenSet
from flux_pipelines.providers.common.oauth import CodeOAuth, Dialect
from flux_pipelines.providers.shopify.queries import operation
from flux_pipelines.providers.shopify.shops import address, is_domain

#: How old, or how far ahead, a callback may be. Shopify's SDKs accept 90 seconds (JavaScript) and a day (Python); people's
#: clocks do not matter here, a server's may be some minutes off.
CALLBACK_TOLERANCE: Final = timedelta(minutes=10)
_HEADER = "X-Shopify-Access-Token"


class _Shop(msgspec.Struct, rename="camel"):
    myshopify_domain: str


class _Shops(msgspec.Struct):
    shop: _Shop


class _UserError(msgspec.Struct):
    message: str = ""


class _Payload(msgspec.Struct, rename="camel"):
    user_errors: list[_UserError] = []


class _Uninstalled(msgspec.Struct, rename="camel"):
    app_uninstall: _Payload


class _Answer(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()
    errors: msgspec.Raw = msgspec.Raw()


_decode_answer = decoder(_Answer)


class ShopifyOAuth(CodeOAuth):
    """One app's OAuth client at one shop (`OAuthProvider`): offline tokens that expire. No PKCE at Shopify.

    The refresh token is replaced every time. Repeating a request whose answer was lost is safe: the old one works until its
    successor is first used.
    """

    dialect = Dialect(
        "/admin/oauth/authorize",
        "/admin/oauth/access_token",
        scopes_joined_by=",",
        exchanged={"expiring": "1"},
        names_grant=False,
    )

    def __init__(self, context: OAuthContext) -> None:
        super().__init__(context, address(context.base_url, "", connection=context.connection or None))

    def verify_callback(self, query: Mapping[str, str]) -> None:
        """Prove that Shopify made this callback, a moment ago, for a shop, and for the one that was asked.

        Raises:
            ConfigurationError: it did not.

        """
        if not is_signed(query, self._context.client_secret):
            raise self._refused("the callback is not signed with the app's client secret")
        shop = query.get("shop", "")
        if not is_domain(shop):
            raise self._refused("the callback names no shop of Shopify's")
        own = urlsplit(self._base_url).hostname or ""
        if is_domain(own) and own.lower() != shop.lower():
            raise self._refused("the callback is of another shop than the one that was asked")
        try:
            age = time.time() - int(query.get("timestamp", ""))
        except ValueError:
            raise self._refused("the callback has no timestamp") from None
        if abs(age) > CALLBACK_TOLERANCE.total_seconds():
            raise self._refused(f"the callback is {abs(age):.0f} seconds away from now")

    def exchange(self, callback: Mapping[str, str], redirect_uri: str, code_verifier: str | None = None) -> TokenSet:
        """Exchange an authorization code (single use) for an expiring offline token.

        Raises:
            ReauthorizationNeededError: the code is wrong, used or too old.

        """
        tokens = super().exchange(callback, redirect_uri, code_verifier)
        return replace(tokens, account_id=self._shop_of(tokens.access_token))

    def revoke(self, access_token: str) -> None:
        """Uninstall the app from the shop, which ends every token it has there.

        Raises:
            BadResponseError: Shopify did not say that it was uninstalled.

        """
        answer = self._graphql("uninstall", access_token)
        done = decode(answer, _Uninstalled)
        if done.app_uninstall.user_errors:
            said = "; ".join(error.message for error in done.app_uninstall.user_errors)
            raise BadResponseError(
                f"Shopify did not uninstall the app: {said}", connection=self._context.connection or None
            )

    def _shop_of(self, access_token: str) -> str:
        """Return the domain of the shop that a token is for: the callback's own word is not part of the exchange."""
        return decode(self._graphql("shop_domain", access_token), _Shops).shop.myshopify_domain

    def _graphql(self, name: str, access_token: str) -> bytes:
        answer = self._api.request(
            "POST",
            f"/admin/api/{self._context.provider.api_version}/graphql.json",
            json={"query": operation(name), "variables": {}},
            headers={_HEADER: access_token},
            idempotent=True,
            auth=False,
            decode=_decode_answer,
        ).value
        if bytes(answer.data) in (b"", b"null") or bytes(answer.errors) not in (b"", b"[]"):
            raise BadResponseError(
                "Shopify did not answer with what was asked for", connection=self._context.connection or None
            )
        return bytes(answer.data)

    def _refused(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            what, connection=self._context.connection or None, next_step="Begin connecting the shop anew."
        )


def is_signed(query: Mapping[str, str], client_secret: str) -> bool:
    """Tell, in constant time, whether a callback's `hmac` is the app's signature over the rest of its query.

    Shopify's own SDKs write the message in two ways: as it is, with only `%`, `&` and `=` escaped (Python), or
    percent-encoded (JavaScript). They differ for characters that callbacks do not have; either is accepted.
    """
    given = query.get("hmac", "")
    rest = sorted((name, value) for name, value in query.items() if name not in ("hmac", "signature"))

    def plainly(text: str, *, name: bool) -> str:
        escaped = text.replace("%", "%25").replace("&", "%26")
        return escaped.replace("=", "%3D") if name else escaped

    messages = (
        "&".join(f"{plainly(name, name=True)}={plainly(value, name=False)}" for name, value in rest),
        "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in rest),
    )
    expected = [hmac.new(client_secret.encode(), text.encode(), hashlib.sha256).hexdigest() for text in messages]
    matches = [hmac.compare_digest(one.encode(), given.encode("utf-8", "surrogatepass")) for one in expected]
    return bool(client_secret) and any(matches)
