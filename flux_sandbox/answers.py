"""How the sandbox's own endpoints read JSON bodies and answer: JSON either way, a known error as `{"error": ...}`, 400."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_sandbox.truth import Asked

Body = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]


def json_answer(content: Any, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def answer(act: Callable[[Any], Any], argument: Any) -> Response:
    """Return what `act` returns, or the known error it raises."""
    try:
        return json_answer(act(argument))
    except FluxError as error:
        return json_answer({"error": str(error)}, 400)


def reader(read: Callable[[Request], Any]) -> Endpoint:
    """Return an endpoint that answers what `read` finds."""

    async def serve(request: Request) -> Response:
        return answer(read, request)

    return serve


def slow_reader(read: Callable[[Request], Any]) -> Endpoint:
    """Return an endpoint that answers what `read` finds, in a thread: requests must be seen to arrive meanwhile."""

    async def serve(request: Request) -> Response:
        return await run_in_threadpool(answer, read, request)

    return serve


async def body_of(request: Request) -> Body:
    """Return the body; nothing is an empty object.

    Raises:
        ConfigurationError: it is not a JSON object.

    """
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise ConfigurationError("The body must be a JSON object.") from None


def actor(act: Callable[[Body], Any]) -> Endpoint:
    """Return an endpoint that does what the body asks for."""

    async def serve(request: Request) -> Response:
        try:
            return answer(act, await body_of(request))
        except FluxError as error:
            return json_answer({"error": str(error)}, 400)

    return serve


def text(body: Body, name: str) -> str | None:
    """Return a field that is a text, or nothing.

    Raises:
        ConfigurationError: it is something else.

    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"`{name}` must be text")
    return value


def needed(body: Body, name: str) -> str:
    """Return a text that must be there.

    Raises:
        ConfigurationError: it is missing or not a text.

    """
    value = text(body, name)
    if not value:
        raise ConfigurationError(f"`{name}` is missing")
    return value


def number(body: Body, name: str, default: float, low: float = float("-inf"), high: float = float("inf")) -> float:
    """Return a number from `low` to `high`.

    Raises:
        ConfigurationError: it is not one.

    """
    value = body.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigurationError(f"`{name}` must be a number")
    if not low <= value <= high:
        raise ConfigurationError(f"`{name}` must be from {low:g} to {high:g}")
    return float(value)


def texts(body: Body, name: str) -> list[str] | None:
    """Return a list of texts, or nothing.

    Raises:
        ConfigurationError: it is something else.

    """
    value = body.get(name)
    if value is not None and (not isinstance(value, list) or not all(isinstance(one, str) for one in value)):
        raise ConfigurationError(f"`{name}` must be a list of texts")
    return value


def indexes(body: Body, name: str) -> list[int] | None:
    """Return a list of places counted from zero, or nothing.

    Raises:
        ConfigurationError: it is something else.

    """
    value = body.get(name)
    if value is not None and (not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value)):
        raise ConfigurationError(f"`{name}` must be a list of whole numbers from 0")
    return value


def whole(body: Body, name: str) -> int | None:
    """Return a whole number, or nothing.

    Raises:
        ConfigurationError: it is something else.

    """
    value = body.get(name)
    if value is not None and type(value) is not int:
        raise ConfigurationError(f"`{name}` must be a whole number")
    return value


def truth_asked(query: QueryParams) -> Asked:
    """Return what the truth is asked for: ?merchant=, ?location_id= (repeatable), ?from=, ?to=, ?cutoff_hour=.

    Raises:
        ConfigurationError: not a date or an hour.

    """
    try:
        return {
            "merchant": query.get("merchant"),
            "location_ids": query.getlist("location_id") or None,
            "first": date.fromisoformat(query["from"]) if "from" in query else None,
            "last": date.fromisoformat(query["to"]) if "to" in query else None,
            "cutoff_hour": int(query["cutoff_hour"]) if "cutoff_hour" in query else None,
        }
    except ValueError as error:
        raise ConfigurationError(f"not a date or hour: {error}") from error
