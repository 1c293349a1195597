"""Signing in with an identity provider, and out."""

from __future__ import annotations

from typing import Annotated

from authlib.common.security import generate_token
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import RedirectResponse, Response

from flux_pipelines.domain.errors import AuthorizationRefusedError, SignInRefusedError
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.identity import RoundTrip
from flux_pipelines.gateway.identity_registry import Identities
from flux_pipelines.gateway.sessions import (
    SignedIn,
    csrf_checked,
    end_session,
    from_another_site,
    local_path,
    options_of,
    person_of,
    runtime_of,
    session_token,
    set_session,
)
from flux_pipelines.gateway.throttle import Throttle
from flux_pipelines.gateway.views import page

router = APIRouter(include_in_schema=False)


def _identities(request: Request) -> Identities:
    identities: Identities = request.app.state.identities
    return identities


@router.get("/sign-in")
def sign_in(request: Request, return_to: str = "/") -> Response:
    """Show the ways to sign in."""
    if person_of(request) is not None:
        return RedirectResponse(local_path(return_to), status_code=303)
    return page(
        "sign_in.html",
        providers=_identities(request).available(),
        anybody=bool(options_of(request).allowed_people),
        return_to=local_path(return_to),
    )


@router.get("/sign-in/{provider}")
def begin(request: Request, provider: str, return_to: str = "/") -> Response:
    """Send the browser to the identity provider."""
    if from_another_site(request):
        # A page elsewhere must not begin a sign-in here; a person on our own page may.
        return RedirectResponse("/sign-in", status_code=303)
    throttle: Throttle = request.app.state.sign_ins
    if request.client is not None and not throttle.passes(request.client.host):
        raise HTTPException(429, "Too many sign-ins were begun from here.", headers={"retry-after": "60"})
    runtime, options = runtime_of(request), options_of(request)
    identity = _identities(request).get(provider)
    session = session_token(request) or runtime.state.people.anonymous()
    trip = RoundTrip(
        redirect_uri=options.url(f"/sign-in/{provider}/callback"),
        code_verifier=generate_token(64),
        nonce=generate_token(43),
    )
    state = runtime.state.authorizations.begin(
        "sign_in",
        provider,
        session=session,
        payload={
            "redirect_uri": trip.redirect_uri,
            "code_verifier": trip.code_verifier,
            "nonce": trip.nonce,
            "return_to": local_path(return_to),
        },
    )
    response = RedirectResponse(identity.authorize_url(state, trip), status_code=303)
    set_session(response, options, session)
    return response


@router.get("/sign-in/{provider}/callback")
def callback(
    request: Request,
    provider: str,
    state: str = "",
    code: str = "",
    error: str = "",
    issuer: Annotated[str | None, Query(alias="iss")] = None,
) -> Response:
    """Take the browser back from the identity provider and begin a session."""
    runtime, options = runtime_of(request), options_of(request)
    before = session_token(request)
    try:
        payload = runtime.state.authorizations.redeem(state, "sign_in", provider, before)
        if error or not code:
            said = "was cancelled" if error == "access_denied" else "did not succeed"
            raise SignInRefusedError(f"the sign-in {said} at the identity provider")
        trip = RoundTrip(payload["redirect_uri"], payload["code_verifier"], payload["nonce"])
        identity = _identities(request).get(provider).identify(code, trip, issuer)
        if not options.allowed_people.allows(identity.email):
            raise SignInRefusedError(
                f"{identity.email} may not sign in here",
                next_step="Ask whoever runs this Flux to add the address to FLUX_ALLOWED_PEOPLE.",
            )
    except (AuthorizationRefusedError, SignInRefusedError) as refused:
        reason = refused.reason if isinstance(refused, AuthorizationRefusedError) else refused.what
        logger.warning("sign-in with %s refused: %s", provider, reason)
        raise
    # A new token: whatever the browser held before, and whoever may know it, is worth nothing from here on.
    token = runtime.state.people.sign_in(identity.subject, identity.email, identity.name)
    if before:
        runtime.state.people.sign_out(before)
    logger.info("%s signed in as %s", identity.email, identity.subject)
    response = RedirectResponse(local_path(payload["return_to"]), status_code=303)
    set_session(response, options, token)
    return response


@router.post("/sign-out", dependencies=[Depends(csrf_checked)])
def sign_out(request: Request, person: SignedIn) -> Response:
    """End this session."""
    runtime_of(request).state.people.sign_out(session_token(request))
    logger.info("%s signed out", person.email)
    response = RedirectResponse("/sign-in", status_code=303)
    end_session(response, options_of(request))
    return response


@router.post("/sign-out-everywhere", dependencies=[Depends(csrf_checked)])
def sign_out_everywhere(request: Request, person: SignedIn) -> Response:
    """End every session of this person, on every device."""
    count = runtime_of(request).state.people.sign_out_everywhere(person.subject)
    logger.info("%s signed out of %d sessions", person.email, count)
    response = RedirectResponse("/sign-in", status_code=303)
    end_session(response, options_of(request))
    return response
