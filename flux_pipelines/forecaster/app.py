"""The forecaster as a server: SageMaker's container contract, and SageMaker Runtime's protocol in front of it.

- `GET /ping`: 200 once the model is loaded and warm, 503 before.
- `POST /invocations`: one item's history in, its forecast out; what AWS calls inside a container.
- `POST /endpoints/{name}/invocations`: the same as boto3's `invoke_endpoint` calls it, with the errors that SageMaker
  Runtime documents, so that the local server and an endpoint on AWS differ by configuration only.

Sources: Amazon SageMaker Developer Guide, "Custom Inference Code with Hosting Services"; the botocore service model
`sagemaker-runtime` 2017-05-13.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from datetime import date, timedelta
from typing import Annotated

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_pipelines.forecaster.workers import ModelFailedError, TooManyQueuedError, Workers

#: The limit of SageMaker Runtime, in bytes.
BODY_LIMIT = 6 * 1024 * 1024
LONGEST_HORIZON = 90
#: Ten years: what lies further back says nothing about next week, and a fit over it would hold a worker for seconds.
LONGEST_HISTORY_DAYS = 3660
LARGEST_QUANTITY = 1e12
VARIANT = "AllTraffic"
MODEL_TYPE = "ENSEMBLE"

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder(decimal_format="number")

Quantity = Annotated[float, msgspec.Meta(ge=-LARGEST_QUANTITY, le=LARGEST_QUANTITY)]


class Point(msgspec.Struct, frozen=True):
    """Units sold on a date."""

    date: date
    quantity: Quantity


class ForecastRequest(msgspec.Struct, frozen=True):
    """The body of a request; unknown fields are ignored."""

    menu_item_id: str
    historical_data: list[Point]
    forecast_horizon: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_HORIZON)]


class _RefusedError(Exception):
    """The container's answer is an error of this status with this message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


_decoder = msgspec.json.Decoder(ForecastRequest)


def create_app(
    *,
    endpoints: Collection[str] = (),
    processes: int = 2,
    queue: int = 256,
    when_broken: Callable[[], None] = lambda: None,
) -> Starlette:
    """Build the application.

    Args:
        endpoints: the endpoint names that `/endpoints/{name}/invocations` answers to; others do not exist.
        processes: model processes.
        queue: requests that may wait or run at once before callers are throttled.
        when_broken: called when the model cannot be loaded; the reason is logged, and `/ping` never becomes 200.

    """
    workers = Workers(processes, queue)
    known = frozenset(endpoints)

    def loaded(loading: asyncio.Task[None]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            _log.error("the model cannot be loaded", exc_info=error)
            when_broken()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(workers.start())
        loading.add_done_callback(loaded)
        try:
            yield
        finally:
            loading.cancel()
            workers.stop()

    async def ping(_: Request) -> Response:
        return Response(status_code=200 if workers.ready else 503)

    async def invocations(request: Request) -> Response:
        try:
            return _json(200, await _answer(workers, request))
        except TooManyQueuedError as error:
            return _error(429, str(error))
        except _RefusedError as refused:
            return _error(refused.status, refused.message)

    async def runtime(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in known:
            return _runtime_error(400, "ValidationError", f"Endpoint {name} of account 000000000000 not found.")
        if not workers.ready:
            return _runtime_error(429, "ModelNotReadyException", "The model is loading; try again later.")
        try:
            answer = await _answer(workers, request)
        except TooManyQueuedError as error:
            return _runtime_error(400, "ThrottlingException", f"Rate exceeded: {error}")
        except _RefusedError as refused:
            if refused.status == 413:
                return _runtime_error(400, "ValidationError", refused.message)
            return _model_error(refused)
        return _json(200, answer, {"x-Amzn-Invoked-Production-Variant": VARIANT})

    return Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route("/invocations", invocations, methods=["POST"]),
            Route("/endpoints/{name}/invocations", runtime, methods=["POST"]),
        ],
        lifespan=lifespan,
    )


async def _answer(workers: Workers, request: Request) -> bytes:
    asked = _validated(await _body(request))
    try:
        predictions = await workers.forecast(
            [(p.date, p.quantity) for p in asked.historical_data], asked.forecast_horizon
        )
    except ModelFailedError as error:
        raise _RefusedError(422 if error.refused else 500, str(error)) from error
    return _encoder.encode(
        {
            "model_type": MODEL_TYPE,
            "predictions": [{"date": day, "predicted_quantity": quantity} for day, quantity in predictions],
        }
    )


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _RefusedError(415, f"the content type is {kind!r}; send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise _RefusedError(413, f"the body is longer than {BODY_LIMIT} bytes")
    return bytes(body)


def _validated(body: bytes) -> ForecastRequest:
    try:
        asked = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RefusedError(400, f"the body is not a valid request: {error}") from error
    if not asked.historical_data:
        raise _RefusedError(400, "historical_data is empty")
    days: set[date] = set()
    for point in asked.historical_data:
        if point.date in days:
            raise _RefusedError(400, f"historical_data has the date {point.date.isoformat()} twice")
        days.add(point.date)
    first, last = min(days), max(days)
    if (last - first).days >= LONGEST_HISTORY_DAYS:
        raise _RefusedError(
            400, f"historical_data spans {(last - first).days + 1} days; at most {LONGEST_HISTORY_DAYS}"
        )
    if (date.max - last) < timedelta(days=asked.forecast_horizon):
        raise _RefusedError(400, f"{last.isoformat()} is too late a date to forecast from")
    return asked


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def _error(status: int, message: str) -> Response:
    return _json(status, json.dumps({"error": message}).encode())


def _runtime_error(status: int, code: str, message: str, **more: object) -> Response:
    headers = {"x-amzn-ErrorType": code, "x-amzn-RequestId": str(uuid.uuid4())}
    return _json(status, json.dumps({"Message": message, **more}).encode(), headers)


def _model_error(refused: _RefusedError) -> Response:
    original = json.dumps({"error": refused.message})
    side = "client" if refused.status < 500 else "server"
    return _runtime_error(
        424,
        "ModelError",
        f'Received {side} error ({refused.status}) from primary with message "{original}".',
        OriginalStatusCode=refused.status,
        OriginalMessage=original,
        LogStreamArn="",
    )
