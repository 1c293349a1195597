"""Square's error envelope, exactly: category, code, detail and, where one is to blame, the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

_CATEGORIES = {401: "AUTHENTICATION_ERROR", 403: "AUTHENTICATION_ERROR", 429: "RATE_LIMIT_ERROR"}


class ApiError(Exception):
    """An answer other than 200, in the documented form."""

    def __init__(self, status: int, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        error: dict[str, Any] = {
            "category": _CATEGORIES.get(status, "API_ERROR" if status >= 500 else "INVALID_REQUEST_ERROR"),
            "code": code,
            "detail": detail,
        }
        if field is not None:
            error["field"] = field
        self.body = msgspec.json.encode({"errors": [error]})


def invalid(code: str, detail: str, field: str | None = None) -> ApiError:
    """Return a 400."""
    return ApiError(400, code, detail, field)


def rate_limited() -> ApiError:
    """Return the 429 as seen in production (forums/t/24167). No header says how long to wait: none is documented."""
    return ApiError(429, "RATE_LIMITED", "This request was rate limited. Please retry later.")


def invalid_cursor() -> ApiError:
    """Return the answer to a cursor that is not, or no longer, good."""
    return invalid("INVALID_CURSOR", "The cursor is invalid or has expired.", "cursor")


#: What faults make Square answer: see `provider.raise_fault`.
FAULTS: dict[str, list[Callable[[], Exception]]] = {
    "error500": [
        lambda: ApiError(500, "INTERNAL_SERVER_ERROR", "The API was unable to service your request."),
        lambda: ApiError(502, "BAD_GATEWAY", "The gateway received an invalid answer."),
        lambda: ApiError(503, "SERVICE_UNAVAILABLE", "The service is temporarily unavailable."),
        lambda: ApiError(504, "GATEWAY_TIMEOUT", "The gateway timed out."),
    ],
    "error429": [rate_limited],
    "cursor": [invalid_cursor],
}
