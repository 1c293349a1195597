"""Google's sign-in as the sandbox plays it: OpenID Connect with discovery, PKCE, and an id token signed with RS256.

Facts: developers.google.com/identity/openid-connect/reference. The issuer is where the sandbox answers, so that a client
finds everything by discovery, as it does in reality.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from flux_sandbox.answers import json_answer
from flux_sandbox.identity import (
    Asked,
    Codes,
    Person,
    back_to,
    choices,
    form_of,
    person,
)
from flux_sandbox.oauth import is_address
from flux_sandbox.pages import error_page, people_page

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

    from flux_sandbox.world import World

GOOGLE_CLIENT_ID = "581000000001-sandbox.apps.googleusercontent.com"
GOOGLE_CLIENT_SECRET = "GOCSPX-sandbox-demo-secret"  # noqa: S105
PREFIX = "/identity/google"
_LIFE = 3600
_SCOPES = {"openid", "email", "profile"}


class Google:
    """Google's side of a sign-in."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self._codes = Codes(world.clock)
        self._keys: list[RSAKey] = []

    @property
    def routes(self) -> list[Route]:
        """The paths, with their prefix."""
        return [
            Route(f"{PREFIX}/.well-known/openid-configuration", self._configuration),
            Route(f"{PREFIX}/o/oauth2/v2/auth", self._authorize),
            Route(f"{PREFIX}/token", self._token, methods=["POST"]),
            Route(f"{PREFIX}/oauth2/v3/certs", self._certificates),
        ]

    def app(self, url: str) -> dict[str, Any]:
        """Return what a client is registered with."""
        return {
            "settings": {"issuer": url + PREFIX},
            "secrets": {"client_id": GOOGLE_CLIENT_ID, "client_secret": GOOGLE_CLIENT_SECRET},
        }

    def rotate(self) -> str:
        """Sign with a new key from now on, as Google does every few days; the one before stays published."""
        from joserfc.jwk import RSAKey

        key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(20), "use": "sig", "alg": "RS256"})
        self._keys = [key, *self._keys[:1]]
        return str(key.kid)

    async def _configuration(self, request: Request) -> Response:
        issuer = _issuer(request)
        return json_answer(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/o/oauth2/v2/auth",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/oauth2/v3/certs",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": sorted(_SCOPES),
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "claims_supported": ["aud", "email", "email_verified", "exp", "hd", "iat", "iss", "name", "sub"],
                "code_challenge_methods_supported": ["plain", "S256"],
                "grant_types_supported": ["authorization_code"],
            }
        )

    async def _authorize(self, request: Request) -> Response:
        """Let a person be chosen; with `person` or `deny`, which the page's buttons add, answer for them."""
        query = request.query_params
        redirect_uri = query.get("redirect_uri", "")
        if query.get("client_id") != GOOGLE_CLIENT_ID:
            return _refused(401, "invalid_client", "The OAuth client was not found.")
        if not is_address(redirect_uri):
            return _refused(400, "redirect_uri_mismatch", "The redirect URI is not one that is registered.")
        scopes = tuple(query.get("scope", "").split())
        if "openid" not in scopes or not set(scopes) <= _SCOPES:
            return _refused(400, "invalid_scope", f"Some requested scopes were invalid: {' '.join(scopes)}")
        if query.get("response_type") != "code":
            return _refused(400, "invalid_request", "Only response_type=code is supported.")
        if query.get("code_challenge_method", "plain") not in ("plain", "S256"):
            return _refused(400, "invalid_request", "The code challenge method is not supported.")
        if query.get("deny") == "1":
            return RedirectResponse(back_to(redirect_uri, query, error="access_denied"), 302)
        chosen = person(query.get("person", ""))
        if chosen is None and query.get("prompt") == "none":
            return RedirectResponse(back_to(redirect_uri, query, error="interaction_required"), 302)
        if chosen is None:
            hint = query.get("login_hint", "")
            return people_page("Google", query.multi_items(), choices(hint), urlsplit(redirect_uri).netloc)
        challenge, method = query.get("code_challenge", ""), query.get("code_challenge_method", "plain")
        asked = Asked(chosen, redirect_uri, scopes, challenge, method, query.get("nonce", ""))
        code = self._codes.issue(asked, "4/0A")
        domain = {"hd": chosen.domain} if chosen.domain else {}
        values = {"code": code, "scope": " ".join(scopes), "authuser": "0", "prompt": "consent", **domain}
        return RedirectResponse(back_to(redirect_uri, query, **values), 302)

    async def _token(self, request: Request) -> Response:
        form = await form_of(request)
        if form.get("client_id") != GOOGLE_CLIENT_ID:
            return _error(401, "invalid_client", "The OAuth client was not found.")
        if not hmac.compare_digest(form.get("client_secret", "").encode(), GOOGLE_CLIENT_SECRET.encode()):
            return _error(401, "invalid_client", "The provided client secret is invalid.")
        if form.get("grant_type") != "authorization_code":
            return _error(400, "unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        asked = self._codes.redeem(form.get("code", ""))
        if asked is None:
            return _error(400, "invalid_grant", "Malformed auth code.")
        if form.get("redirect_uri") != asked.redirect_uri:
            return _error(400, "redirect_uri_mismatch", "Bad Request")
        verifier = form.get("code_verifier", "")
        if not asked.proves(verifier):
            missing = asked.challenge and not verifier
            return _error(400, "invalid_grant", f"{'Missing' if missing else 'Invalid'} code verifier.")
        return json_answer(self._tokens_for(_issuer(request), asked))

    def _tokens_for(self, issuer: str, asked: Asked) -> dict[str, Any]:
        from joserfc import jwt

        now = self._now()
        access = "ya29." + secrets.token_urlsafe(60)
        at_hash = base64.urlsafe_b64encode(hashlib.sha256(access.encode()).digest()[:16]).decode().rstrip("=")
        claims = {
            "iss": issuer,
            "azp": GOOGLE_CLIENT_ID,
            "aud": GOOGLE_CLIENT_ID,
            **_claims(asked.person, asked.scopes),
            "at_hash": at_hash,
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + _LIFE,
        }
        if asked.nonce:
            claims["nonce"] = asked.nonce
        if not self._keys:
            self.rotate()
        key = self._keys[0]
        return {
            "access_token": access,
            "expires_in": _LIFE - 1,
            "scope": " ".join(asked.scopes),
            "token_type": "Bearer",
            "id_token": jwt.encode({"alg": "RS256", "kid": str(key.kid), "typ": "JWT"}, claims, key),
        }

    async def _certificates(self, _: Request) -> Response:
        if not self._keys:
            self.rotate()
        answer = json_answer({"keys": [key.as_dict(private=False) for key in self._keys]})
        answer.headers["Cache-Control"] = "public, max-age=20000, must-revalidate, no-transform"
        return answer

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC)


def _claims(of: Person, scopes: tuple[str, ...]) -> dict[str, Any]:
    claims: dict[str, Any] = {"sub": of.subject}
    if of.domain:
        claims["hd"] = of.domain
    if "email" in scopes:
        claims |= {"email": of.email, "email_verified": of.addresses[0].verified}
    if "profile" in scopes:
        given, _, family = of.name.partition(" ")
        picture = f"https://lh3.googleusercontent.com/a/{of.login}"
        claims |= {"name": of.name, "given_name": given, "family_name": family, "picture": picture}
    return claims


def _issuer(request: Request) -> str:
    return str(request.base_url).rstrip("/") + PREFIX


def _error(status: int, code: str, description: str) -> Response:
    return json_answer({"error": code, "error_description": description}, status)


def _refused(status: int, code: str, why: str) -> Response:
    details: Mapping[str, str] = {"Error": f"{status}: {code}"}
    return error_page("Google", status, why, details)
