"""Errors that carry what an answer said, and how to read an answer's own explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import BadRequestError, FluxError
from flux_pipelines.transport.redact import redact

_LONGEST = 300


class RefusedError(BadRequestError):
    """The provider refused the request as wrong; the status and its error codes tell why.

    Args:
        what: what happened.
        status: the HTTP status.
        codes: the provider's error codes, in its order; empty if it named none.
        connection: the connection it happened to.
        next_step: what to do; the default reports a defect.
        rerun_helps: whether running it again can help.
        attempts: how often it was tried.

    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        codes: tuple[str, ...] = (),
        connection: str | None = None,
        next_step: str | None = None,
        rerun_helps: bool | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(what, connection=connection, next_step=next_step, rerun_helps=rerun_helps, attempts=attempts)
        self.status = status
        self.codes = codes


class TransportClosedError(FluxError):
    """The transport was closed while a call was waiting: this process is ending."""

    rerun_helps = True


class AnsweredError(Exception):
    """Raised by a caller's `decode`: the status is good, but the body says that the request failed (GraphQL does so).

    Args:
        kind: the class of the error that the caller is to get.
        what: what the body says, free of secrets.
        codes: the provider's error codes.
        again: whether the provider did nothing, so that sending it again is safe and can help.
        retry_after: seconds to wait before that, if the provider tells.
        failure: whether it is the provider that failed: counts for the breaker.

    """

    def __init__(
        self,
        kind: type[FluxError],
        what: str,
        *,
        codes: tuple[str, ...] = (),
        again: bool = False,
        retry_after: float | None = None,
        failure: bool = False,
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.codes = codes
        self.again = again
        self.retry_after = retry_after
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer's own explanation: its error codes and a short text, free of secrets."""

    codes: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (", ".join(self.codes), self.text) if part)


def read_problem(content: bytes) -> Problem:
    """Read the error body of an answer.

    Understands `{"errors": [{"code", "detail"}]}` (Square), `{"error": {"code", "message"}}`, OAuth's
    `{"error", "error_description"}` (RFC 6749, 5.2) and a plain `{"code", "message"}`; anything else gives no codes.
    """
    try:
        body = decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem((), "an HTML page" if content.lstrip()[:1] == b"<" else "")
    entries = _entries(body)
    codes = tuple(
        dict.fromkeys(
            _short(str(entry[name]))
            for entry in entries
            for name in ("code", "error")
            if isinstance(entry.get(name), (str, int))
        )
    )
    texts = (
        entry[name]
        for entry in entries
        for name in ("detail", "error_description", "message", "title")
        if isinstance(entry.get(name), str)
    )
    return Problem(codes, _short(next(texts, "")))


def _entries(body: Any) -> list[dict[str, Any]]:
    if not isinstance(body, dict):
        return []
    for name in ("errors", "error"):
        inner = body.get(name)
        if isinstance(inner, dict):
            return [inner]
        if name == "errors" and isinstance(inner, str):
            return [{"message": inner}]
        if isinstance(inner, list):
            return [entry for entry in inner if isinstance(entry, dict)]
    return [body]


def _short(text: str) -> str:
    text = redact(" ".join(text.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
