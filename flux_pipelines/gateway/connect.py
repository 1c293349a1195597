"""Connecting an account in a browser: the form, the way to the provider's consent page, and the way back.

The `state` that travels with the browser is random, works once, for ten minutes, and only in the session that began
(`state.authorizations`). Everything else that is needed on the way back stays here, encrypted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from authlib.common.security import generate_token
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from flux_pipelines.connect import check_name, connect_with_code, parse_settings
from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.errors import AuthorizationRefusedError, BadResponseError, ConfigurationError, FluxError
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.overview import connectable
from flux_pipelines.gateway.sessions import SignedIn, csrf_checked, options_of, person_of, runtime_of, session_token
from flux_pipelines.gateway.views import page
from flux_pipelines.providers.apps import address_of
from flux_pipelines.providers.base import Provider
from flux_pipelines.runtime import Runtime

router = APIRouter(include_in_schema=False)

#: What a provider says of a failure is shown, but no more of it than this.
_LONGEST_SAID = 300
_LONGEST_TENANT = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants to connect, as written in the form. `again` authorises an existing connection again."""

    name: str = ""
    tenant: str = ""
    cutoff_hour: str = ""
    again: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)  # to the provider's `connect_settings`


@router.get("/integrations")
def choose(person: SignedIn) -> Response:
    """Show at which providers an account can be connected."""
    found = connectable()
    if len(found) == 1:
        return RedirectResponse(f"/integrations/{found[0].name}/connect", status_code=303)
    return page("providers.html", person=person, here="connections", providers=found)


@router.get("/integrations/{provider}/connect")
def form(request: Request, person: SignedIn, provider: str) -> Response:
    """Ask how the connection is to be called."""
    spec = _spec(provider)
    return page("connect.html", **_form(request, person, spec, Wish(), {}))


async def _answers(request: Request) -> dict[str, str]:
    """Return what the form says to the provider's own questions."""
    given = await request.form()
    return {name: value.strip() for name, value in given.items() if isinstance(value, str)}


@router.post("/integrations/{provider}/connect", dependencies=[Depends(csrf_checked)])
def begin(
    request: Request,
    person: SignedIn,
    provider: str,
    answers: Annotated[dict[str, str], Depends(_answers)],
    name: Annotated[str, Form()] = "",
    tenant: Annotated[str, Form()] = "",
    cutoff_hour: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Check the wish and show the link to the provider's consent page."""
    spec = _spec(provider)
    runtime, options = runtime_of(request), options_of(request)
    own = {setting.name: answers.get(setting.name, "") for setting in spec.connect_settings}
    wish = Wish(name.strip(), tenant.strip(), cutoff_hour.strip(), again == "yes", own)
    problems, previous, settings = _check(runtime, spec, wish)
    if problems:
        return page("connect.html", status=422, **_form(request, person, spec, wish, problems))
    app = runtime.app(spec.name)
    verifier = generate_token(64) if _wants_pkce(spec, app.secret_names) else None
    redirect_uri = options.url(f"/integrations/{spec.name}/callback")
    payload = {
        "key": f"{spec.name}:{wish.name}",
        "tenant": previous.tenant if previous is not None else wish.tenant,
        "settings": settings,
        "answers": dict(wish.answers),
        "again": wish.again,
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
        again=wish.again,
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
    spec, runtime = _spec(provider), runtime_of(request)
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
            code=code,
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
        "wish": Wish(
            split_key(payload["key"])[1],
            payload["tenant"],
            "" if cutoff is None else str(cutoff),
            payload["again"],
            payload["answers"],
        ),
    }


def _spec(name: str) -> Provider:
    """Return the provider of that name: there is no page for others."""
    for spec in connectable():
        if spec.name == name:
            return spec
    raise HTTPException(404)


def _wants_pkce(spec: Provider, secrets: tuple[str, ...]) -> bool:
    return spec.pkce == "always" or (spec.pkce == "without_secret" and "client_secret" not in secrets)


def _form(request: Request, person: Any, spec: Provider, wish: Wish, problems: Mapping[str, str]) -> dict[str, Any]:
    runtime = runtime_of(request)
    return {
        "person": person,
        "here": "connections",
        "spec": spec,
        "wish": wish,
        "problems": problems,
        "tenants": sorted({connection.tenant for connection in runtime.state.connections.list()}),
        "cutoff": any(setting.name == "cutoff_hour" for setting in spec.settings),
        "registered": runtime.state.apps.get(spec.name) is not None,
    }


def _check(runtime: Runtime, spec: Provider, wish: Wish) -> tuple[dict[str, str], Connection | None, dict[str, Any]]:
    """Return what is wrong with a wish, by field; the connection there is by that name; the settings it gets."""
    problems: dict[str, str] = {}
    key = f"{spec.name}:{wish.name}"
    previous = None
    try:
        previous = check_name(runtime, key, again=wish.again)
    except ConfigurationError as problem:
        problems["name"] = (
            "There is a connection of that name already: choose another."
            if problem.connection
            else "Use lower-case letters, digits, - and _ only, at most 63, beginning with a letter or digit."
        )
    if wish.again and previous is None:
        problems.setdefault("name", "There is no connection of that name.")
    if previous is not None and not wish.again:
        problems["name"] = f"There is a connection of that name already. Reconnect it from its own page: {key}."
    if previous is None and not (0 < len(wish.tenant) <= _LONGEST_TENANT and wish.tenant.isprintable()):
        problems["tenant"] = f"Say whose account it is, in at most {_LONGEST_TENANT} characters."
    names = {setting.name for setting in spec.settings}
    settings: dict[str, Any] = {}
    if "base_url" in names and previous is not None and spec.connect_settings:
        settings["base_url"] = spec.settings_of(previous)["base_url"]  # an account does not move
    elif "base_url" in names:  # the account lives where the app is registered
        template = str(runtime.app(spec.name).settings.get("base_url", spec.base_url))
        try:
            settings["base_url"] = address_of(spec, template, wish.answers)
        except ConfigurationError as problem:
            setting, _, meaning = problem.what.partition(": ")
            problems[setting] = meaning
    if wish.cutoff_hour and not wish.again and "name" not in problems:
        try:
            settings |= parse_settings(key, {"cutoff_hour": int(wish.cutoff_hour)})
        except (ValueError, ConfigurationError):
            problems["cutoff_hour"] = "Give a full hour from 0 to 23, or leave it empty for midnight."
    return problems, previous, settings
