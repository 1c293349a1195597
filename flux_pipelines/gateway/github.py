"""Sign-in with GitHub: OAuth with PKCE. It is not OpenID: who it is comes from two calls of its API."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from flux_pipelines.domain.errors import SignInRefusedError
from flux_pipelines.gateway.identity import Identity, RoundTrip, client_credentials, decoded, safe_origin_of
from flux_pipelines.transport import RefusedError
from flux_pipelines.transport.redact import remember

if TYPE_CHECKING:
    from flux_pipelines.state.credentials.apps import App
    from flux_pipelines.transport import Transport
    from flux_pipelines.transport.client import ApiClient

_SCOPE = "read:user user:email"
_VERSION = "2022-11-28"


class _Answer(msgspec.Struct):
    """GitHub's token endpoint answers 200 in any case; the body tells which it is."""

    access_token: str = ""
    error: str = ""


class _User(msgspec.Struct):
    id: int
    login: str = ""
    name: str | None = None


class _Email(msgspec.Struct):
    email: str
    primary: bool = False
    verified: bool = False


class _Emails(msgspec.Struct):
    emails: list[_Email]


class GitHub:
    """GitHub, or an Enterprise server (`IdentityProvider`).

    Args:
        app: its registration: `base_url` (default github.com), `api_url` (default api.github.com).
        secrets: `client_id` and `client_secret`.
        transport: the way out.

    Raises:
        ConfigurationError: an address is not https, or secrets are missing.

    """

    title = "GitHub"

    def __init__(self, app: App, secrets: dict[str, str], transport: Transport) -> None:
        self._name = app.name
        self._base_url = str(app.settings.get("base_url") or "https://github.com").rstrip("/")
        api_url = str(app.settings.get("api_url") or "https://api.github.com").rstrip("/")
        self._client_id, self._client_secret = client_credentials(app, secrets)
        self._site = self._client(transport, self._base_url, "base_url", {})
        self._api = self._client(
            transport, api_url, "api_url", {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": _VERSION}
        )

    def _client(self, transport: Transport, url: str, what: str, headers: dict[str, str]) -> ApiClient:
        base_url = safe_origin_of(url, f"`{what}` of the app {self._name!r}") + urlsplit(url).path
        return transport.client(
            provider=self._name, connection="", base_url=base_url, limits=(), credentials=None, headers=headers
        )

    def authorize_url(self, state: str, trip: RoundTrip) -> str:
        """Return where to send the browser."""
        url: str = prepare_grant_uri(
            f"{self._base_url}/login/oauth/authorize",
            self._client_id,
            "code",
            redirect_uri=trip.redirect_uri,
            scope=_SCOPE,
            state=state,
            code_challenge=create_s256_code_challenge(trip.code_verifier),
            code_challenge_method="S256",
            allow_signup="false",
        )
        return url

    def identify(self, code: str, trip: RoundTrip, issuer: str | None) -> Identity:
        """Exchange the code and ask the API who it is. Raises what `IdentityProvider` says."""
        if issuer is not None and issuer.rstrip("/") not in (self._base_url, f"{self._base_url}/login/oauth"):
            raise SignInRefusedError("the answer is of another identity provider")
        token = self._exchange(code, trip)
        user = self._ask("/user", token)
        person: _User = decoded(user, _User, self.title)
        # `email` of /user is what the person shows to the world: often nothing, and never known to be verified.
        found: _Emails = decoded(b'{"emails":' + self._ask("/user/emails", token) + b"}", _Emails, self.title)
        email = next((one.email for one in found.emails if one.primary and one.verified), None)
        if email is None:
            raise SignInRefusedError(
                "GitHub has not verified the primary e-mail address of this account",
                next_step="Verify the address there, or sign in with another account.",
            )
        # The number never changes; logins and addresses can be given up and taken by somebody else.
        return Identity(f"{self._name}:{person.id}", email, person.name or person.login or email)

    def close(self) -> None:
        """Release the HTTP connections."""
        self._site.close()
        self._api.close()

    def _exchange(self, code: str, trip: RoundTrip) -> str:
        form = {
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "code": code,
            "redirect_uri": trip.redirect_uri,
            "code_verifier": trip.code_verifier,
        }
        for secret in (code, trip.code_verifier):
            remember(secret)
        try:
            answer = self._site.request(
                "POST",
                "/login/oauth/access_token",
                content=urlencode(form).encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                idempotent=False,
                auth=False,
            )
        except RefusedError as refused:
            raise SignInRefusedError(f"GitHub does not accept the sign-in (status {refused.status})") from refused
        said: _Answer = decoded(answer.content, _Answer, self.title)
        if said.error or not said.access_token:
            raise SignInRefusedError(f"GitHub does not accept the sign-in ({_word(said.error) or 'no token'})")
        remember(said.access_token)
        return said.access_token

    def _ask(self, path: str, token: str) -> bytes:
        try:
            return self._api.request(
                "GET", path, headers={"Authorization": f"Bearer {token}"}, idempotent=True, auth=False
            ).content
        except RefusedError as refused:
            raise SignInRefusedError(
                f"GitHub does not say who this is ({path}: status {refused.status})",
                next_step="Allow Flux to read your e-mail addresses when GitHub asks.",
            ) from refused


def _word(code: str) -> str:
    """Return an error code if it looks like one: it is shown to people."""
    return code if len(code) <= 60 and code.replace("_", "").isalnum() else "an unknown error" if code else ""
