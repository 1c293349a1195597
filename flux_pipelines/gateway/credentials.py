"""Connecting an account with credentials that a person has from the provider: for providers without a consent page.

They come in the body of one request, are stored encrypted, and are proved at once. No page gives them back, not even to
whoever has just typed them in, and no log line is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from flux_pipelines.connections import add_with_secrets
from flux_pipelines.domain.errors import BadResponseError, FluxError, ReauthorizationNeededError
from flux_pipelines.gateway.connect_form import ConnectForm, check_form, form_values, read_form, spec_of, text_fields
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.sessions import SignedIn, csrf_checked, runtime_of
from flux_pipelines.gateway.views import page
from flux_pipelines.providers.base import Provider
from flux_pipelines.state.people.people import Person

router = APIRouter(include_in_schema=False)

#: Before the name of a secret in the form: no setting is called so.
_PREFIX = "secret_"
_LONGEST_SECRET = 1000


@router.post("/integrations/{provider}/credentials", dependencies=[Depends(csrf_checked)])
def give(
    request: Request, person: SignedIn, provider: str, fields: Annotated[dict[str, str], Depends(text_fields)]
) -> Response:
    """Store what the person gives, prove that it works, and connect the account; else keep nothing and say why."""
    spec = spec_of(provider)
    if spec.oauth is not None:
        raise HTTPException(404)
    runtime = runtime_of(request)
    entered = read_form(spec, fields)
    secrets = {name: fields.get(f"{_PREFIX}{name}", "") for name in spec.secrets[0]}
    checked = check_form(runtime, spec, entered)
    problems = {**checked.problems, **_problems_of(secrets)}
    if problems:
        return ask(request, person, spec, entered, problems)
    key = f"{spec.name}:{entered.name}"
    tenant = checked.previous.tenant if checked.previous is not None else entered.tenant
    try:
        connection, locations = add_with_secrets(
            runtime, key, tenant=tenant, settings=checked.settings, secrets=secrets, again=entered.again
        )
    except FluxError as problem:
        logger.warning("%s could not be connected: %s", key, problem.what)
        return ask(request, person, spec, entered, refused=problem)
    logger.info("%s gave credentials: %s connected with %d locations", person.email, connection.key, len(locations))
    return RedirectResponse(f"/connections/{connection.key}?said=connected", status_code=303)


def ask(
    request: Request,
    person: Person,
    spec: Provider,
    entered: ConnectForm,
    problems: Mapping[str, str] | None = None,
    *,
    refused: FluxError | None = None,
) -> Response:
    """Ask for credentials, with what is wrong with those that were given; these are not given back."""
    status = 422 if problems else 200
    if refused is not None:
        status = 502 if isinstance(refused, BadResponseError) or refused.rerun_helps else 409
    return page(
        "credentials.html",
        status=status,
        **form_values(request, person, spec, entered, problems or {}),
        refused=refused,
        # The next step of these is written for the command line.
        unaccepted=isinstance(refused, ReauthorizationNeededError),
    )


def _problems_of(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with credentials, by field, without repeating any of them."""
    return {
        f"{_PREFIX}{name}": f"Paste it as it was given, in at most {_LONGEST_SECRET:,} characters."
        for name, value in secrets.items()
        if not 0 < len(value) <= _LONGEST_SECRET or not value.isprintable()
    }
