"""GitHub's sign-in as the sandbox plays it: OAuth without OpenID, whose token endpoint answers its errors with status 200.

Facts: docs.github.com, "Authorizing OAuth apps" and "Troubleshooting OAuth app access token request errors"; PKCE with
S256 only since 2025-07-14.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from flux_sandbox.answers import json_answer
from flux_sandbox.identity import Asked, Codes, Person, back_to, choices, form_of, person
from flux_sandbox.oauth import is_address
from flux_sandbox.pages import error_page, people_page

if TYPE_CHECKING:
    from flux_sandbox.world import World

GITHUB_CLIENT_ID = "Iv1.5a0db0f1ux000000"
GITHUB_CLIENT_SECRET = "sandbox0demo0secret0of0the0github0app000"  # noqa: S105
PREFIX = "/identity/github"
_DOCS = "/apps/managing-oauth-apps/troubleshooting-oauth-app-access-token-request-errors/#"
_ERRORS = {
    "bad_verification_code": "The code passed is incorrect or expired.",
    "incorrect_client_credentials": "The client_id and/or client_secret passed are incorrect.",
    "redirect_uri_mismatch": "The redirect_uri MUST match the registered callback URL for this application.",
}
_REST = "https://docs.github.com/rest"
_SCOPES = {"read:user", "user:email", "user"}
_MOST_TOKENS = 1000


class GitHub:
    """GitHub's side of a sign-in."""

    def __init__(self, world: World) -> None:
        self._codes = Codes(world.clock)
        self._tokens: dict[str, tuple[Person, tuple[str, ...]]] = {}

    @property
    def routes(self) -> list[Route]:
        """The paths, with their prefix."""
        return [
            Route(f"{PREFIX}/login/oauth/authorize", self._authorize),
            Route(f"{PREFIX}/login/oauth/access_token", self._token, methods=["POST"]),
            Route(f"{PREFIX}/api/user", self._user),
            Route(f"{PREFIX}/api/user/emails", self._emails),
        ]

    def app(self, url: str) -> dict[str, Any]:
        """Return what a client is registered with."""
        return {
            "settings": {"base_url": url + PREFIX, "api_url": f"{url}{PREFIX}/api"},
            "secrets": {"client_id": GITHUB_CLIENT_ID, "client_secret": GITHUB_CLIENT_SECRET},
        }

    async def _authorize(self, request: Request) -> Response:
        """Let a person be chosen; with `person` or `deny`, which the page's buttons add, answer for them."""
        query = request.query_params
        redirect_uri = query.get("redirect_uri", "")
        if query.get("client_id") != GITHUB_CLIENT_ID:
            return error_page("GitHub", 404, "This is not the web page you are looking for.", {"Error": "404"})
        if not is_address(redirect_uri):
            details = {"Error": "redirect_uri_mismatch"}
            return error_page("GitHub", 400, _ERRORS["redirect_uri_mismatch"], details)
        challenge, method = query.get("code_challenge", ""), query.get("code_challenge_method", "")
        if challenge and method != "S256":
            values = {"error": "invalid_request", "error_description": "code_challenge_method must be S256"}
            return RedirectResponse(back_to(redirect_uri, query, **values), 302)
        if query.get("deny") == "1":
            why = "The user has denied your application access."
            uri = "/apps/building-integrations/managing-oauth-apps/troubleshooting-authorization-request-errors"
            values = {"error": "access_denied", "error_description": why, "error_uri": uri}
            return RedirectResponse(back_to(redirect_uri, query, **values), 302)
        chosen = person(query.get("person", ""))
        if chosen is None:
            found = choices(query.get("login", ""))
            return people_page("GitHub", query.multi_items(), found, urlsplit(redirect_uri).netloc)
        scopes = tuple(scope for scope in query.get("scope", "").replace(",", " ").split() if scope in _SCOPES)
        code = self._codes.issue(Asked(chosen, redirect_uri, scopes, challenge, method))
        return RedirectResponse(back_to(redirect_uri, query, code=code), 302)

    async def _token(self, request: Request) -> Response:
        form = await form_of(request)
        as_json = "application/json" in request.headers.get("accept", "")
        secret = form.get("client_secret", "")
        asked = None
        if form.get("client_id") != GITHUB_CLIENT_ID or not hmac.compare_digest(
            secret.encode(), GITHUB_CLIENT_SECRET.encode()
        ):
            error = "incorrect_client_credentials"
        else:
            asked = self._codes.redeem(form.get("code", ""))
            error = "bad_verification_code"
        if asked is not None and form.get("redirect_uri", asked.redirect_uri) != asked.redirect_uri:
            asked, error = None, "redirect_uri_mismatch"
        if asked is None or not asked.proves(form.get("code_verifier", "")):
            uri = _DOCS + error.replace("_", "-")
            return _answer({"error": error, "error_description": _ERRORS[error], "error_uri": uri}, as_json)
        token = "gho_" + secrets.token_hex(18)
        if len(self._tokens) >= _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token] = (asked.person, asked.scopes)
        return _answer({"access_token": token, "scope": ",".join(asked.scopes), "token_type": "bearer"}, as_json)

    # The API

    def _caller(self, request: Request, *accepted: str) -> tuple[Person | None, Response]:
        """Return who asks, or None and the refusal."""
        if not request.headers.get("user-agent"):
            why = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header."
            return None, PlainTextResponse(why, 403)
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        known = self._tokens.get(token) if kind.lower() in ("bearer", "token") else None
        if known is None:
            return None, json_answer({"message": "Bad credentials", "documentation_url": _REST, "status": "401"}, 401)
        who, scopes = known
        refused = json_answer({"message": "Not Found", "documentation_url": _REST, "status": "404"}, 404)
        refused.headers["X-OAuth-Scopes"] = ", ".join(scopes)
        refused.headers["X-Accepted-OAuth-Scopes"] = ", ".join(accepted)
        return (who if not accepted or set(scopes) & set(accepted) else None), refused

    async def _user(self, request: Request) -> Response:
        who, refused = self._caller(request)
        if who is None:
            return refused
        # As most people have it: the address is private, and has to be asked for on its own.
        return json_answer({"login": who.login, "id": who.number, "type": "User", "name": who.name, "email": None})

    async def _emails(self, request: Request) -> Response:
        who, refused = self._caller(request, "user:email", "user")
        if who is None:
            return refused
        return json_answer(
            [
                {
                    "email": address.email,
                    "primary": address.primary,
                    "verified": address.verified,
                    "visibility": "private" if address.primary else None,
                }
                for address in reversed(who.addresses)
            ]
        )


def _answer(values: dict[str, str], as_json: bool) -> Response:
    """Answer with status 200, whatever it says; as a form unless JSON was asked for."""
    if as_json:
        return json_answer(values)
    return Response(urlencode(values), media_type="application/x-www-form-urlencoded; charset=utf-8")
