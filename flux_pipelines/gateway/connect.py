"""Connecting an account in a browser: the form, the way to the provider's consent page, and the way back.

The `state` that travels with the browser is random, works once, for ten minutes, and only in the session that began
(`state.authorizations`). Everything else that is needed on the way back stays here, encrypted.

Providers without a consent page are connected with credentials that a person types in: `gateway.credentials`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from authlib.common.security import generate_token
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from flux_pipelines.connections import connect_with_code
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import AuthorizationRefusedError, BadResponseError, FluxError
from flux_pipelines.gateway import credentials
from flux_pipelines.gateway.connect_form import ConnectForm, check_form, form_values, read_form, spec_of, text_fields
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.overview import connectable, elsewhere_connectable
from flux_pipelines.gateway.sessions import SignedIn, csrf_checked, options_of, person_of, runtime_of, session_token
from flux_pipelines.gateway.views import page
from flux_pipelines.providers.base import Provider

router = APIRouter(include_in_schema=False)
router.include_router(credentials.router)

#: What a provider says of a failure is shown, but no more of it than this.
_LONGEST_SAID = 300


@router.get("/integrations")
def choose(person: SignedIn) -> Response:
    """Show at which providers an account can be connected, and how."""
    return page(
        "providers.html", person=person, here="connections", providers=connectable(), elsewhere=elsewhere_connectable()
    )


@router.get("/integrations/{provider}/connect")
def form(request: Request, person: SignedIn, provider: str) -> Response:
    """Ask how the connection is to be called, and what else must be known before."""
    spec = spec_of(provider)
    if spec.oauth is None:
        return credentials.ask(request, person, spec, ConnectForm())
    return page("connect.html", **form_values(request, person, spec, ConnectForm(), {}))


@router.post("/integrations/{provider}/connect", dependencies=[Depends(csrf_checked)])
def begin(
    request: Request, person: SignedIn, provider: str, fields: Annotated[dict[str, str], Depends(text_fields)]
) -> Response:
    """Check what was entered and show the link to the provider's consent page."""
    spec = spec_of(provider)
    runtime, options = runtime_of(request), options_of(request)
    entered = read_form(spec, fields)
    if spec.oauth is None:  # "Reconnect": nobody is sent away, new credentials are asked for here
        return credentials.ask(request, person, spec, entered, check_form(runtime, spec, entered).problems)
    checked = check_form(runtime, spec, entered)
    if checked.problems:
        return page("connect.html", status=422, **form_values(request, person, spec, entered, checked.problems))
    app = runtime.app(spec.name)
    previous, settings = checked.previous, checked.settings
    verifier = generate_token(64) if _wants_pkce(spec, app.secret_names) else None
    redirect_uri = options.url(f"/integrations/{spec.name}/callback")
    payload = {
        "key": f"{spec.name}:{entered.name}",
        "tenant": previous.tenant if previous is not None else entered.tenant,
        "settings": dict(settings),
        "answers": dict(entered.answers),
        "again": entered.again,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    state = runtime.state.authorizations.begin("connect", spec.name, session=session_token(request), payload=payload)
    oauth = runtime.app_oauth(spec, base_url=settings.get("base_url", ""))
    try:
        challenge = create_s256_code_challenge(verifier) if verifier is not None else None
        url = oauth.authorize_url(redirect_uri, state, challenge)
    finally:
        oauth.close()
    # A link and not a redirect: browsers apply our `form-action` to whatever a form leads to.
    return page(
        "leaving.html",
        person=person,
        here="connections",
        spec=spec,
        key=payload["key"],
        again=entered.again,
        url=url,
        place=urlsplit(url).netloc,
    )


@router.get("/integrations/{provider}/callback")
def callback(
    request: Request,
    provider: str,
    state: str = "",
    code: str = "",
    error: str = "",
    error_description: str = "",
) -> Response:
    """Take the browser back from the provider: connect the account, or say why it is not connected."""
    spec, runtime = spec_of(provider), runtime_of(request)
    if spec.oauth is None:
        raise HTTPException(404)
    person = person_of(request)
    # Redeemed by a stranger too, and so used up: a state that came to another session is not to be trusted.
    session = session_token(request) if person is not None else ""
    try:
        payload = runtime.state.authorizations.redeem(state, "connect", spec.name, session)
    except AuthorizationRefusedError as refused:
        logger.warning("connecting with %s refused: %s", spec.name, refused.reason)
        return page("connect_refused.html", status=400, person=person, here="connections", spec=spec)
    if error or not code:
        return _denied(request, spec, payload, error, error_description)
    base_url = payload["settings"].get("base_url", "")
    oauth = runtime.app_oauth(spec, connection=payload["key"], base_url=base_url)
    try:
        oauth.verify_callback(request.query_params)
        connection, locations = connect_with_code(
            runtime,
            payload["key"],
            oauth,
            tenant=payload["tenant"],
            callback=request.query_params,
            redirect_uri=payload["redirect_uri"],
            code_verifier=payload["code_verifier"],
            settings=payload["settings"],
            again=payload["again"],
        )
    except FluxError as problem:
        logger.warning("%s could not be connected: %s", payload["key"], problem.what)
        return _failed(request, spec, payload, problem)
    finally:
        oauth.close()
    logger.info("%s connected with %d locations", connection.key, len(locations))
    return RedirectResponse(f"/connections/{connection.key}?said=connected", status_code=303)


def _denied(request: Request, spec: Provider, payload: Mapping[str, Any], error: str, description: str) -> Response:
    """Say that the provider sent the person back without an authorisation."""
    logger.warning("%s was not connected: the provider answered with an error", payload["key"])
    said = ": ".join(part[:_LONGEST_SAID] for part in (error, description) if part)
    return page(
        "not_connected.html",
        status=403 if error == "access_denied" else 502,
        **_again(request, spec, payload),
        denied=error == "access_denied",
        said=said,
        problem=None,
    )


def _failed(request: Request, spec: Provider, payload: Mapping[str, Any], problem: FluxError) -> Response:
    """Say what went wrong after the person had agreed."""
    return page(
        "not_connected.html",
        status=502 if isinstance(problem, BadResponseError) or problem.rerun_helps else 409,
        **_again(request, spec, payload),
        denied=False,
        said="",
        problem=problem,
    )


def _again(request: Request, spec: Provider, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page needs to offer the same once more."""
    cutoff = payload["settings"].get("cutoff_hour")
    return {
        "person": person_of(request),
        "here": "connections",
        "spec": spec,
        "key": payload["key"],
        "entered": ConnectForm(
            split_key(payload["key"])[1],
            payload["tenant"],
            "" if cutoff is None else str(cutoff),
            payload["again"],
            payload["answers"],
        ),
    }


def _wants_pkce(spec: Provider, secrets: tuple[str, ...]) -> bool:
    return spec.pkce == "always" or (spec.pkce == "without_secret" and "client_secret" not in secrets)
