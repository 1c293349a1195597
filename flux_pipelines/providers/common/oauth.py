"""OAuth 2 with authorization codes, as most providers speak it: what differs is said in data, and what is its own is overridden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import ReauthorizationNeededError
from flux_pipelines.providers.base import OAuthContext, TokenSet
from flux_pipelines.transport.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a provider speaks OAuth.

    Args:
        authorize: the path that the person's browser is sent to.
        token: the path that gives tokens.
        scopes_joined_by: what stands between scopes in the address; None where they are the app's own and are not sent.
        asked: further parameters of that address.
        exchanged: further members of a request for tokens by code.
        names_grant: whether such a request says that its grant is a code.
        sends_redirect: whether it repeats where the browser was sent.
        account: the member of an answer that names the account, or else of the callback, where one does.
        refresh: the path that renews tokens, where that is another.
        ends: the members of an answer that say when the access token and the refresh token end: instants, or seconds since 1970.

    """

    authorize: str
    token: str
    scopes_joined_by: str | None = " "
    asked: Mapping[str, str] = field(default_factory=dict)
    exchanged: Mapping[str, str] = field(default_factory=dict)
    names_grant: bool = True
    sends_redirect: bool = False
    account: str = "account_id"
    refresh: str = ""
    ends: tuple[str, str] = ("expires_at", "refresh_token_expires_at")


class CodeOAuth:
    """One app's OAuth client (`OAuthProvider`), but for `revoke`.

    A subclass says its `dialect`, and whether a refresh may be repeated when its answer was lost (`refresh_repeats`): not
    where a refresh token works once.

    Args:
        context: the app's credentials.
        base_url: where the provider is, if not as the context says.
        headers: sent with every request.

    """

    dialect: ClassVar[Dialect]
    refresh_repeats: bool = True

    def __init__(
        self, context: OAuthContext, base_url: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._context = context
        self._base_url = (context.base_url if base_url is None else base_url).rstrip("/")
        self._decode = decoder(_answer(self.dialect))
        self._api = context.transport.client(
            provider=context.provider.name,
            connection=context.connection,
            base_url=self._base_url,
            limits=context.provider.rate_limits,
            credentials=None,
            headers=headers or {},
        )

    def authorize_url(self, redirect_uri: str, state: str, code_challenge: str | None = None) -> str:
        """Return the URL to send the person's browser to. `code_challenge` is PKCE's, method S256."""
        query = {"client_id": self._context.client_id}
        if self.dialect.scopes_joined_by is not None:
            query["scope"] = self.dialect.scopes_joined_by.join(self._context.provider.scopes)
        query |= {**self.dialect.asked, "state": state, "redirect_uri": redirect_uri}
        if code_challenge is not None:
            query["code_challenge"] = code_challenge
        return f"{self._base_url}{self.dialect.authorize}?{urlencode(query)}"

    def verify_callback(self, query: Mapping[str, str]) -> None:
        """Accept any callback: it is not signed; the state is what proves where it comes from."""

    def exchange(self, callback: Mapping[str, str], redirect_uri: str, code_verifier: str | None = None) -> TokenSet:
        """Exchange the authorization code of a callback for tokens.

        Raises:
            ReauthorizationNeededError: the code is wrong, used or too old.

        """
        body = {"code": callback["code"], **self.dialect.exchanged}
        if self.dialect.names_grant:
            body["grant_type"] = "authorization_code"
        if self.dialect.sends_redirect:
            body["redirect_uri"] = redirect_uri
        if code_verifier is not None:
            body["code_verifier"] = code_verifier
        tokens = self._obtain(self.dialect.token, body, idempotent=False, what="does not accept the authorization code")
        return tokens if tokens.account_id else replace(tokens, account_id=callback.get(self.dialect.account, ""))

    def refresh(self, refresh_token: str) -> TokenSet:
        """Return new tokens; where the provider gives no new refresh token, the old one stays good.

        Raises:
            ReauthorizationNeededError: the refresh token is no longer accepted.

        """
        body = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        what = "does not accept the refresh token any more"
        path = self.dialect.refresh or self.dialect.token
        return self._obtain(path, body, idempotent=self.refresh_repeats, what=what, kept=refresh_token)

    def close(self) -> None:
        """Release the HTTP connections."""
        self._api.close()

    def app(self, body: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002 - for those whose app does not always prove itself
        """Return the members of a request for tokens that name the app, and prove that it is it."""
        return {"client_id": self._context.client_id, "client_secret": self._context.client_secret}

    def _obtain(
        self, path: str, body: Mapping[str, str], *, idempotent: bool, what: str, kept: str | None = None
    ) -> TokenSet:
        request: dict[str, Any] = {**self.app(body), **body}
        asked = datetime.now(UTC)
        try:
            answer = self._api.request(
                "POST", path, json=request, idempotent=idempotent, auth=False, decode=self._decode
            ).value
        except RefusedError as refused:
            codes = ", ".join(refused.codes) or f"status {refused.status}"
            raise ReauthorizationNeededError(
                f"{self._context.provider.title} {what} ({codes})", connection=self._context.connection or None
            ) from refused

        def at(instant: datetime | float | None, seconds: float | None) -> datetime | None:
            if seconds is not None:
                return asked + timedelta(seconds=seconds)
            return datetime.fromtimestamp(instant, UTC) if isinstance(instant, int | float) else instant

        return TokenSet(
            answer.access_token,
            kept if answer.refresh_token is None else answer.refresh_token,
            at(answer.expires_at, answer.expires_in),
            answer.account,
            at(answer.refresh_token_expires_at, answer.refresh_token_expires_in),
        )


def _answer(dialect: Dialect) -> Any:
    """Return the form of a token endpoint's answer."""
    seconds, instant = (float | None, None), (datetime | float | None, None)
    return msgspec.defstruct(
        "Answer",
        [
            ("access_token", str),
            ("refresh_token", str | None, None),
            ("expires_at", *instant),
            ("expires_in", *seconds),
            ("refresh_token_expires_at", *instant),
            ("refresh_token_expires_in", *seconds),
            ("account", str, ""),
        ],
        rename={
            "account": dialect.account,
            "expires_at": dialect.ends[0],
            "refresh_token_expires_at": dialect.ends[1],
        },
    )
