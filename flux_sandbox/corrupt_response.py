"""What becomes of an answer on its way, as the faults have it: the same whatever provider gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class _CutOff(Response):
    """An answer whose connection breaks in the middle of the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body)[: len(self.body) // 2], "more_body": True})


def corrupt(fault: str, content: bytes, media_type: str = "application/json") -> Response:
    """Return a good answer as the fault leaves it: see `faults.AFTER`. Any other fault leaves it as it is."""
    if fault == "truncate":
        return Response(content[: len(content) // 2], media_type=media_type)
    if fault == "empty":
        return Response(b"", media_type=media_type)
    if fault == "disconnect":
        return _CutOff(content, media_type=media_type)
    return Response(content, media_type=media_type)
