"""Shopify's error bodies, which have a form for every layer: HTTP, OAuth and GraphQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

_JSON = "application/json; charset=utf-8"
ACCESS_DOCUMENTATION = "https://shopify.dev/api/usage/access-scopes"
COST_DOCUMENTATION = "https://shopify.dev/api/usage/rate-limits"

#: What the API answers to a token, a shop or an app that may not: by HTTP status.
REFUSALS: dict[int, str] = {
    401: "[API] Invalid API key or access token (unrecognized login or wrong password)",
    402: "Unavailable Shop",
    403: "[API] This action requires merchant approval for this app.",
    404: "Not Found",
    423: "Locked Shop",
}


class HttpError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, content: Any = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = msgspec.json.encode({"errors": REFUSALS[status]} if content is None else content)


def oauth_error(code: str, description: str, status: int = 400) -> HttpError:
    """Return a refusal of the OAuth endpoints."""
    return HttpError(status, {"error": code, "error_description": description})


class QueryError(Exception):
    """An error in the `errors` of a GraphQL answer, which is HTTP 200."""

    def __init__(self, message: str, code: str = "", **extensions: Any) -> None:
        super().__init__(message)
        self.message = message
        self.extensions = {"code": code, **extensions} if code else extensions

    def as_json(self, path: Sequence[str | int] = (), locations: Sequence[Any] = ()) -> dict[str, Any]:
        """Return the error as an answer holds it."""
        error: dict[str, Any] = {"message": self.message}
        if locations:
            error["locations"] = list(locations)
        if path:
            error["path"] = list(path)
        if self.extensions:
            error["extensions"] = self.extensions
        return error


def unplayed(what: str) -> QueryError:
    """Return the error of what Shopify would answer and Flux never asks: the sandbox has nothing for it."""
    return QueryError(f"The sandbox does not play {what}.", "SANDBOX_DOES_NOT_PLAY")


def throttled() -> QueryError:
    """Return the error of a shop's bucket that holds too few points."""
    return QueryError("Throttled", "THROTTLED", documentation=COST_DOCUMENTATION)


def too_costly(cost: int, most: int) -> QueryError:
    """Return the error of a query that no bucket could ever pay."""
    return QueryError(
        f"Query cost is {cost}, which exceeds the single query max cost limit ({most}).\n\n"
        f"See {COST_DOCUMENTATION} for more information on how the cost of a query is calculated.",
        "MAX_COST_EXCEEDED",
        cost=cost,
        maxCost=most,
        documentation=COST_DOCUMENTATION,
    )


def denied(field: str, needed: Sequence[str]) -> QueryError:
    """Return the error of a field that the token's scopes do not open."""
    access = " or ".join(f"`{scope}` access scope" for scope in needed)
    return QueryError(
        f"Access denied for {field} field. Required access: {access}.",
        "ACCESS_DENIED",
        documentation=ACCESS_DOCUMENTATION,
        requiredAccess=f"{access}.",
    )


class Throttled(Exception):
    """The shop's bucket is said to hold too little."""

    def response(self) -> Response:
        """Return the answer of an endpoint that has no bucket."""
        return Response(
            msgspec.json.encode({"errors": "Exceeded 2 calls per second for api client."}), 429, media_type=_JSON
        )


_INTERNAL = QueryError(
    "Internal error. Looks like something went wrong on our end.",
    "INTERNAL_SERVER_ERROR",
    requestId="00000000-0000-4000-8000-000000000000",
)
#: What faults make Shopify answer: see `provider.raise_fault`.
FAULTS: dict[str, list[Callable[[], Exception]]] = {
    "error500": [
        lambda: HttpError(500, {"errors": "Internal Server Error"}),
        lambda: HttpError(503, {"errors": "Service Unavailable"}),
        lambda: HttpError(504, {"errors": "Gateway Timeout"}),
        lambda: HttpError(200, {"errors": [_INTERNAL.as_json()]}),
    ],
    "error429": [Throttled],
}
