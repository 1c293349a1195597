"""Square's error envelope, exactly: category, code, detail and, where one is to blame, the field."""

from __future__ import annotations

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


#: What a proxy in front of the API answers when it answers instead: (status, content type, body).
PROXY_ANSWERS: tuple[tuple[int, str, bytes], ...] = (
    (
        500,
        "text/html; charset=UTF-8",
        b'<!DOCTYPE html>\n<html lang="en-US">\n<head><title>Worker threw exception | connect.squareup.com | Cloudflare'
        b'</title></head>\n<body><div id="cf-wrapper"><h1>Error <span>1101</span></h1><h2>Worker threw exception</h2>'
        b"<p>You've requested a page on a website that is on the Cloudflare network.</p></div></body>\n</html>\n",
    ),
    (
        200,
        "text/html; charset=UTF-8",
        b'<!DOCTYPE html>\n<html lang="en-US">\n<head><title>Just a moment...</title></head>\n<body><noscript>Enable '
        b"JavaScript and cookies to continue</noscript></body>\n</html>\n",
    ),
    (503, "text/plain", b"upstream connect error or disconnect/reset before headers. reset reason: connection failure"),
    (503, "text/html", b"Service Unavailable"),
)
#: Server errors in Square's own form.
SERVER_ERRORS: tuple[tuple[int, str, str], ...] = (
    (500, "INTERNAL_SERVER_ERROR", "An internal error has occurred, and the API was unable to service your request."),
    (502, "BAD_GATEWAY", "The gateway received an invalid answer."),
    (503, "SERVICE_UNAVAILABLE", "The service is temporarily unavailable."),
    (504, "GATEWAY_TIMEOUT", "The gateway timed out."),
)


class ProxyError(Exception):
    """Something in front of the API answers instead of it."""

    def __init__(self, status: int, media_type: str, body: bytes) -> None:
        super().__init__(status)
        self.status, self.media_type, self.body = status, media_type, body
