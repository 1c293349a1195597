"""Toast's error envelope, the ErrorMessage, and what answers in its place when something in front of the API does."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

JSON = "application/json"


class ApiError(Exception):
    """An answer other than 200, in the documented form (devguide, "API responses and errors")."""

    def __init__(self, status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error: dict[str, Any] = {
            "status": status,
            "code": code,
            "message": message,
            "messageKey": None,
            "fieldName": None,
            "link": None,
            "requestId": str(uuid.uuid4()),
            "developerMessage": None,
            "errors": [],
            "canRetry": None,
        }
        self.body = msgspec.json.encode(error)


def invalid(message: str, code: int = 10001) -> ApiError:
    """Return a 400."""
    return ApiError(400, code, message)


def forbidden(message: str) -> ApiError:
    """Return the 403 of a scope that is missing or a restaurant that is not connected."""
    return ApiError(403, 10011, message)


def unauthorized(message: str) -> ApiError:
    """Return a 401."""
    return ApiError(401, 10010, message)


def missing(what: str) -> ApiError:
    """Return a 404."""
    return ApiError(404, 10020, f"{what} not found")


def rate_limited(headers: Mapping[str, str] | None = None) -> ApiError:
    """Return a 429; its headers say how long to wait."""
    return ApiError(429, 10029, "Rate limit exceeded. Retry after the time that the Retry-After header gives.", headers)


def republished() -> ApiError:
    """Return the 409 of a list whose configuration was published between two of its pages."""
    return ApiError(409, 10409, "The restaurant configuration was republished. Restart without pageToken.")


#: What faults make Toast answer: see `provider.raise_fault`. A 429 says how long to wait.
FAULTS: dict[str, list[Callable[[], Exception]]] = {
    "error500": [
        lambda: ApiError(500, 10000, "An unexpected internal error occurred."),
        lambda: ApiError(502, 10000, "Bad gateway."),
        lambda: ApiError(503, 10000, "The service is temporarily unavailable."),
        lambda: ApiError(504, 10000, "The gateway timed out."),
    ],
    "error429": [lambda: rate_limited({"Retry-After": "1"})],
    "cursor": [republished],
}
