"""What goes wrong, told to whoever asked: a page for people, JSON for machines. Never an internal detail."""

from __future__ import annotations

from typing import cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from flux_pipelines.domain.errors import (
    AuthorizationRefusedError,
    ConfigurationError,
    FluxError,
    PermissionLostError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
    SignInRefusedError,
    StateUnavailableError,
    StorageFullError,
    StorageRefusedError,
    TooManyWaitingError,
    UnknownConnectionError,
)
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.sessions import person_of
from flux_pipelines.gateway.views import page

#: From the particular to the general: the first that fits.
_STATUS: tuple[tuple[type[FluxError], int], ...] = (
    (UnknownConnectionError, 404),
    (AuthorizationRefusedError, 400),
    (SignInRefusedError, 403),
    (ReauthorizationNeededError, 409),
    (PermissionLostError, 409),
    (ConfigurationError, 409),
    (TooManyWaitingError, 429),
    (ProviderUnavailableError, 502),
    (StateUnavailableError, 503),
    (StorageFullError, 503),
    (StorageRefusedError, 503),
)
#: Seconds; with 429.
RETRY_AFTER = "60"
_TITLES = {
    400: "That cannot be completed",
    403: "Not allowed",
    404: "Not found",
    409: "That is not possible now",
    413: "Too large",
    422: "Something is missing",
    429: "Too many at once",
    502: "The provider does not answer",
    503: "Not available now",
}


class Problem(BaseModel):
    """Why a machine endpoint did not do what was asked."""

    what: str = Field(description="What happened, in one sentence.")
    connection: str | None = Field(default=None, description="The connection it happened to.")
    rerun_helps: bool = Field(default=False, description="Whether the same request can succeed later.")
    next_step: str = Field(default="", description="What to do now.")


def status_of(problem: FluxError) -> int:
    """Return the HTTP status that fits an error."""
    return next((status for kind, status in _STATUS if isinstance(problem, kind)), 500)


async def of_flux(request: Request, raised: Exception) -> Response:
    """Answer with an error that Flux raised on purpose."""
    problem = cast(FluxError, raised)
    status = status_of(problem)
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.url.path, problem)
    said = Problem(
        what=problem.what, connection=problem.connection, rerun_helps=problem.rerun_helps, next_step=problem.next_step
    )
    return await _answer(request, status, said, {"retry-after": RETRY_AFTER} if status == 429 else None)


async def of_http(request: Request, raised: Exception) -> Response:
    """Answer with an HTTP error."""
    error = cast(HTTPException, raised)
    detail = "There is nothing here." if error.status_code == 404 else str(error.detail)
    return await _answer(request, error.status_code, Problem(what=detail), dict(error.headers or {}))


async def of_validation(request: Request, raised: Exception) -> Response:
    """Answer a request whose values are not of the declared form. What was given is not repeated: it may be a secret."""
    found = cast(RequestValidationError, raised).errors()
    places = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found[:5])
    return await _answer(request, 422, Problem(what=f"The request is not of the right form ({places})."))


async def _answer(request: Request, status: int, said: Problem, headers: dict[str, str] | None = None) -> Response:
    if request.url.path.startswith(("/api/", "/webhooks/")):
        return JSONResponse(said.model_dump(), status_code=status, headers=headers)
    try:
        person = await run_in_threadpool(person_of, request)
    except FluxError:
        person = None  # the database is what does not answer
    answer = page("error.html", status=status, person=person, title=_TITLES.get(status, "That did not work"), said=said)
    answer.headers.update(headers or {})
    return answer
