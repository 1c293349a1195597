"""Who is asking: session cookies for people, bearer tokens for machines, and proof that a form is ours."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import Response

from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.options import GatewayOptions
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.people.people import Person

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_LONGEST_PATH = 1000
_bearer = HTTPBearer(auto_error=False, description="An API token: `flux tokens create NAME`.")


class SignInNeededError(Exception):
    """A page was asked for without a session; answered by a redirect to the sign-in page."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls a machine endpoint: a person with a session, or an API token."""

    kind: Literal["person", "token"]
    name: str
    scopes: frozenset[str]


def runtime_of(request: Request) -> Runtime:
    """Return the opened rooms of the gateway that answers this request."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def options_of(request: Request) -> GatewayOptions:
    """Return how the gateway that answers this request is reached."""
    options: GatewayOptions = request.app.state.options
    return options


# --- the cookie ---


def cookie_name(options: GatewayOptions) -> str:
    """Return the session cookie's name. `__Host-` makes browsers insist on Secure, this host only, and Path=/."""
    return "__Host-flux" if options.secure else "flux_session"


def session_token(request: Request) -> str:
    """Return the request's session token; empty when it has none."""
    return request.cookies.get(cookie_name(options_of(request)), "")


def set_session(response: Response, options: GatewayOptions, token: str) -> None:
    """Give the browser this session. The cookie ends with the browser; the session itself earlier, on the server."""
    response.set_cookie(cookie_name(options), token, path="/", secure=options.secure, httponly=True, samesite="lax")


def end_session(response: Response, options: GatewayOptions) -> None:
    """Take the session away from the browser."""
    response.delete_cookie(cookie_name(options), path="/", secure=options.secure, httponly=True, samesite="lax")


# --- people ---


def person_of(request: Request) -> Person | None:
    """Return who is signed in, if anybody. Whoever is no longer on the allow-list is not."""
    if not hasattr(request.state, "person"):
        token = session_token(request)
        options = options_of(request)
        idle = timedelta(minutes=options.session_idle_minutes)
        person = runtime_of(request).state.people.find(token, idle=idle) if token else None
        if person is not None and not options.allowed_people.allows(person.email):
            person = None
        request.state.person = person
    found: Person | None = request.state.person
    return found


def signed_in(request: Request) -> Person:
    """Return who is signed in; a dependency of every page.

    Raises:
        SignInNeededError: nobody is.

    """
    person = person_of(request)
    if person is None:
        raise SignInNeededError
    return person


SignedIn = Annotated[Person, Depends(signed_in)]


def sign_in_url(request: Request) -> str:
    """Return where to send somebody who has to sign in before this request."""
    if request.method not in _SAFE_METHODS:
        return "/sign-in"
    query = f"?{request.url.query}" if request.url.query else ""
    return f"/sign-in?return_to={quote(local_path(request.url.path + query), safe='')}"


def local_path(text: str) -> str:
    """Return the text if it is a path of this gateway, else `/`: what a request says never leads elsewhere."""
    # `//host` and `/\\host` lead to another host in a browser; so does what a browser makes of a tab in between.
    ours = text.startswith("/") and not text.startswith("//") and "\\" not in text
    return text if ours and len(text) <= _LONGEST_PATH and text.isascii() and text.isprintable() else "/"


# --- forms ---


async def csrf_checked(request: Request, person: SignedIn) -> None:
    """Refuse a form that did not come from a page of this session; a dependency of every POST of a page."""
    require_own_origin(request)
    given = (await request.form()).get("csrf")
    _require_csrf(request, person, given if isinstance(given, str) else "")


def from_another_site(request: Request) -> bool:
    """Tell whether a browser says that a page of another site made this request; `none` is a person who typed it."""
    return request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def require_own_origin(request: Request) -> None:
    """Refuse what a browser says comes from another site.

    Raises:
        HTTPException: 403.

    """
    if from_another_site(request) or request.headers.get("origin") != options_of(request).public_url:
        logger.warning("refused %s %s: from another site", request.method, request.url.path)
        raise HTTPException(403, "This request did not come from a page of this gateway.")


def _require_csrf(request: Request, person: Person, given: str) -> None:
    if not hmac.compare_digest(person.csrf.encode(), given.encode("utf-8", "replace")):
        logger.warning("refused %s %s: no proof that the form is of this session", request.method, request.url.path)
        raise HTTPException(403, "This form is of another session. Load the page again.")


# --- machines ---


def caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None) -> Principal:
    """Return who calls a machine endpoint.

    Raises:
        HTTPException: 401 without a valid token or session; 403 for a session's write without its CSRF token.

    """
    given = request.headers.get("authorization")
    if given is not None:
        # A wrong token never falls back to a cookie: the caller would act as somebody else than it thinks.
        scheme, plaintext = (given.strip() + " ").split(" ", 1)
        token = runtime_of(request).state.api_tokens.find(plaintext.strip()) if scheme.lower() == "bearer" else None
        if token is not None and not options_of(request).allowed_people.allows_token_of(token.person):
            token = None
        if token is None:
            logger.warning("refused %s %s: the API token is not valid", request.method, request.url.path)
            raise _unauthorized(
                "The API token is wrong, revoked, too old, or of somebody who may not sign in any more."
            )
        return Principal("token", token.name, frozenset(token.scopes))
    person = person_of(request)
    if person is None:
        raise _unauthorized("Send an API token: `Authorization: Bearer flux_...`.")
    if request.method not in _SAFE_METHODS:
        require_own_origin(request)
        _require_csrf(request, person, request.headers.get("x-csrf-token", ""))
    return Principal("person", person.email, frozenset({"read", "write"}))


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"www-authenticate": "Bearer"})


Caller = Annotated[Principal, Depends(caller)]


def writer(principal: Caller) -> Principal:
    """Return who calls a machine endpoint that changes something.

    Raises:
        HTTPException: 403 for a token that may only read.

    """
    if "write" not in principal.scopes:
        raise HTTPException(403, "This API token may only read.")
    return principal


Writer = Annotated[Principal, Depends(writer)]
