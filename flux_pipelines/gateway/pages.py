"""The pages about connections: all of them, one, and what people do with one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request
from starlette.responses import RedirectResponse, Response

from flux_pipelines.connections import disconnect, lifecycle
from flux_pipelines.connections.lifecycle import pause, resume, test_connection
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import ConfigurationError, FluxError, UnknownConnectionError
from flux_pipelines.gateway import tokens
from flux_pipelines.gateway.guard import logger
from flux_pipelines.gateway.overview import Detail, connectable, detail, summaries
from flux_pipelines.gateway.sessions import SignedIn, csrf_checked, runtime_of
from flux_pipelines.gateway.views import day, page
from flux_pipelines.state.people.people import Person

router = APIRouter(include_in_schema=False)
router.include_router(tokens.router)
_POST = [Depends(csrf_checked)]

#: What a page says after it was led to: the address carries the word, never the text.
_SAID = {
    "connected": "The account is connected, and a test of its credentials succeeded.",
    "paused": "Paused. Nothing is fetched until you resume it.",
    "resumed": "Resumed. What was missed meanwhile is made up for.",
    "asked": "Backfill queued. It begins within a minute.",
    "disconnected": "Disconnected. The authorisation was revoked at the provider and the credentials were deleted here.",
    "forgotten": "The credentials were deleted here. There was nothing to revoke any more, or the provider was not told.",
    "acknowledged": "Noted. The alert stays in the list until its cause is gone.",
}


@router.get("/")
def home() -> Response:
    """Lead to the connections."""
    return RedirectResponse("/connections", status_code=303)


@router.get("/connections")
def connections(request: Request, person: SignedIn, said: str = "") -> Response:
    """Show every connection."""
    runtime = runtime_of(request)
    return page(
        "connections.html",
        person=person,
        here="connections",
        rows=summaries(runtime),
        alerts=runtime.state.alerts.open(),
        connectable=bool(connectable()),
        said=_SAID.get(said, ""),
    )


@router.get("/connections/{key}")
def connection(request: Request, person: SignedIn, key: str, said: str = "", follow: str = "yes") -> Response:
    """Show one connection."""
    return _connection(request, person, key, said=_SAID.get(said, ""), follow=follow != "no")


@router.post("/connections/{key}/test", dependencies=_POST)
def test(request: Request, person: SignedIn, key: str) -> Response:
    """Call the provider with the connection's credentials, and show what came of it."""
    try:
        found = len(test_connection(runtime_of(request), _checked(key)))
    except UnknownConnectionError:
        raise
    except FluxError as problem:
        return _connection(request, person, key, problem=problem)
    places = f"{found} location{'' if found == 1 else 's'}"
    return _connection(request, person, key, said=f"It works: the provider answered with {places}.")


@router.post("/connections/{key}/pause", dependencies=_POST)
def pause_connection(request: Request, person: SignedIn, key: str) -> Response:
    """Stop syncing a connection."""
    pause(runtime_of(request), _checked(key), by=person.email)
    logger.info("%s paused %s", person.email, key)
    return _back(key, "paused")


@router.post("/connections/{key}/resume", dependencies=_POST)
def resume_connection(request: Request, person: SignedIn, key: str) -> Response:
    """Sync a paused connection again."""
    resume(runtime_of(request), _checked(key))
    logger.info("%s resumed %s", person.email, key)
    return _back(key, "resumed")


@router.post("/connections/{key}/sync", dependencies=_POST)
def request_sync(
    request: Request, person: SignedIn, key: str, first: Annotated[str, Form()] = "", last: Annotated[str, Form()] = ""
) -> Response:
    """Ask for a range of business dates; a sensor of the pipelines runs it."""
    runtime = runtime_of(request)
    now = detail(runtime, _checked(key))
    problems = _problems_of_range(now, first, last)
    if problems:
        return _connection(request, person, key, status=422, wanted={"first": first, "last": last, **problems})
    reason = "backfill asked for in the gateway" if now.landed_days else "first backfill"
    lifecycle.request_sync(
        runtime, key, date.fromisoformat(first), date.fromisoformat(last), by=person.email, reason=reason
    )
    logger.info("%s asked for %s to %s of %s", person.email, first, last, key)
    return _back(key, "asked")


@router.get("/connections/{key}/disconnect")
def confirm_disconnect(request: Request, person: SignedIn, key: str) -> Response:
    """Ask whether a connection is really to be disconnected, and say what that means."""
    return _confirm(request, person, key)


@router.post("/connections/{key}/disconnect", dependencies=_POST)
def disconnect_connection(
    request: Request, person: SignedIn, key: str, anyway: Annotated[str, Form()] = ""
) -> Response:
    """Revoke the authorisation and forget the credentials."""
    try:
        revoked = disconnect(runtime_of(request), _checked(key), by=person.email, forget_anyway=anyway == "yes")
    except UnknownConnectionError:
        raise
    except FluxError as problem:
        logger.warning("%s could not be disconnected: %s", key, problem.what)
        return _confirm(request, person, key, problem=problem)
    logger.info("%s disconnected %s (%s)", person.email, key, "revoked" if revoked else "forgotten only")
    return _back(key, "disconnected" if revoked else "forgotten")


@router.post("/alerts/{alert_id}/acknowledge", dependencies=_POST)
def acknowledge(request: Request, person: SignedIn, alert_id: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> Response:
    """Record that somebody has seen an alert."""
    runtime_of(request).state.alerts.acknowledge(alert_id, person.email)
    return RedirectResponse("/connections?said=acknowledged", status_code=303)


def _connection(
    request: Request,
    person: Person,
    key: str,
    *,
    said: str = "",
    problem: FluxError | None = None,
    wanted: Mapping[str, str] | None = None,
    status: int = 200,
    follow: bool = False,
) -> Response:
    one = detail(runtime_of(request), _checked(key))
    first, last = one.proposed
    return page(
        "connection.html",
        status=status if problem is None else 409,
        person=person,
        here="connections",
        one=one,
        said=said,
        problem=problem,
        wanted=wanted or {"first": first.isoformat(), "last": last.isoformat()},
        follow=follow and one.backfill is not None and one.backfill.under_way,
    )


def _confirm(request: Request, person: Person, key: str, *, problem: FluxError | None = None) -> Response:
    values: dict[str, Any] = {"here": "connections", "one": detail(runtime_of(request), _checked(key))}
    return page("disconnect.html", status=200 if problem is None else 409, person=person, problem=problem, **values)


def _checked(key: str) -> str:
    """Return the key if it can be one: else there is no such page."""
    try:
        split_key(key)
    except ConfigurationError:
        raise HTTPException(404) from None
    return key


def _back(key: str, said: str) -> Response:
    return RedirectResponse(f"/connections/{key}?said={said}", status_code=303)


def _problems_of_range(one: Detail, first: str, last: str) -> dict[str, str]:
    """Return what is wrong with the dates of a backfill, by field; empty when nothing."""
    if one.summary.connection.status != "active":
        return {"first_problem": "The connection is not active: nothing can be fetched now."}
    if one.backfill is not None and one.backfill.under_way:
        return {"first_problem": "A backfill is under way: wait until it has ended."}
    problems = {}
    days: dict[str, date] = {}
    for name, text in (("first", first), ("last", last)):
        try:
            days[name] = date.fromisoformat(text)
        except ValueError:
            problems[f"{name}_problem"] = "Give a date, such as 2026-01-31."
            continue
        if not one.earliest <= days[name] <= one.latest:
            problems[f"{name}_problem"] = f"Give a day from {day(one.earliest)} to {day(one.latest)}."
    if not problems and days["first"] > days["last"]:
        problems["last_problem"] = "The last day must not be before the first."
    return problems
