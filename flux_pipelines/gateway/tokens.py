"""The page about API tokens: with which machines may call the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Request
from starlette.responses import RedirectResponse, Response

from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.sessions import SignedIn, csrf_checked, options_of, runtime_of
from flux_pipelines.gateway.views import page
from flux_pipelines.state.people.people import Person

router = APIRouter(include_in_schema=False)
_POST = [Depends(csrf_checked)]

_LIFETIMES = {"30": "30 days", "90": "90 days", "365": "a year", "": "never"}
_LONGEST_NAME = 100


@router.get("/tokens")
def tokens(request: Request, person: SignedIn, said: str = "") -> Response:
    """Show every token: how it begins, never the token itself."""
    return _tokens(request, person, said="Revoked. It is refused from now on." if said == "revoked" else "")


@router.post("/tokens", dependencies=_POST)
def create(
    request: Request,
    person: SignedIn,
    name: Annotated[str, Form()] = "",
    days: Annotated[str, Form()] = "90",
    scope: Annotated[str, Form()] = "read",
) -> Response:
    """Create a token and show it, once."""
    name = name.strip()
    if not (0 < len(name) <= _LONGEST_NAME and name.isprintable()):
        wrong = {"name": f"Say what it is for, in at most {_LONGEST_NAME} characters."}
        return _tokens(request, person, problems=wrong, status=422)
    ends = datetime.now(UTC) + timedelta(days=int(days)) if days in _LIFETIMES and days else None
    if days not in _LIFETIMES or scope not in ("read", "write"):
        return _tokens(request, person, problems={"name": "Choose from what the form offers."}, status=422)
    token, plaintext = runtime_of(request).state.api_tokens.create(
        name, person.email, ends, ("read",) if scope == "read" else ("read", "write")
    )
    logger.info("%s created the API token %s (%s)", person.email, token.prefix, "/".join(token.scopes))
    return _tokens(request, person, plaintext=plaintext)


@router.post("/tokens/{token_id}/revoke", dependencies=_POST)
def revoke(request: Request, person: SignedIn, token_id: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> Response:
    """End a token at once."""
    token = runtime_of(request).state.api_tokens.revoke(token_id)
    logger.info("%s revoked the API token %s", person.email, token.prefix)
    return RedirectResponse("/tokens?said=revoked", status_code=303)


def _tokens(
    request: Request,
    person: Person,
    *,
    said: str = "",
    plaintext: str = "",
    problems: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    found = runtime_of(request).state.api_tokens.list()
    return page(
        "tokens.html",
        status=status,
        person=person,
        here="tokens",
        tokens=sorted(found, key=lambda token: (not token.usable, -token.id)),
        allowed=options_of(request).allowed_people,
        lifetimes=_LIFETIMES,
        said=said,
        plaintext=plaintext,
        problems=problems or {},
    )
