"""The one path of a request, for a provider's side of the wire that needs nothing of its own there: faults, the answer, the counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flux_sandbox.corrupt_response import corrupt
from flux_sandbox.provider import ProxyError, raise_fault

if TYPE_CHECKING:
    from flux_sandbox.world import World


class RefusedError(Exception):
    """What a provider answers instead; whoever is too fast is told when to come again.

    Args:
        status: the HTTP status.
        content: the provider's envelope of errors.

    """

    def __init__(self, status: int, content: Mapping[str, Any]) -> None:
        super().__init__(status)
        self.status, self.content = status, content

    def response(self) -> Response:
        """Return what it answers."""
        return JSONResponse(self.content, self.status, {"retry-after": "1"} if self.status == 429 else None)


def endpoint(
    world: World,
    answer: Callable[[Request, Any], Any],
    faults: Mapping[str, RefusedError],
    *,
    cursor: str = "",
    damaged: bool = True,
) -> Callable[[Request], Any]:
    """Return an endpoint that answers in JSON what `answer` makes of a request and its body, or the `RefusedError` that it raises.

    Args:
        world: whose faults hit it, and in whose log it is counted.
        answer: the provider's.
        faults: what the provider answers for a fault (`faults.BEFORE`, or `cursor`).
        cursor: the parameter that carries a cursor, where cursors can die.
        damaged: whether an answer may be damaged: not where it cannot be asked for again.

    """
    forms = {name: (lambda error=error: error,) for name, error in faults.items()}

    async def serve(request: Request) -> Response:
        body = msgspec.json.decode(await request.body() or b"{}")
        world.request_log.endpoints[request.url.path] += 1
        # A code works once: no fault may hit it.
        has_cursor = bool(cursor) and cursor in request.query_params
        fault = "" if "code" in body else world.faults.draw(cursor=has_cursor, answer=damaged)
        await asyncio.sleep(world.faults.delay())
        try:
            raise_fault(world.faults, fault, forms)
            response = corrupt(fault, msgspec.json.encode(answer(request, body)))
        except (RefusedError, ProxyError) as refused:
            response = refused.response()
        world.request_log.statuses[response.status_code] += 1
        return response

    return serve
