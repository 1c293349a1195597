"""Asks a SageMaker endpoint for the forecasts of many items at once.

The endpoint may be on AWS or be our own server: boto3's `invoke_endpoint` speaks to both. The SDK's own retries are off;
the one retry layer is here, because the SDK does not retry everything that is worth it (a model that is not ready, an
internal dependency) and two layers would multiply.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.errors import ConfigurationError, ForecastError
from flux_pipelines.forecaster.contract import ItemFailedError, model_error_message, read_answer, write_request
from flux_pipelines.forecaster.items import ItemForecast, ItemHistory

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

#: A model may take 60 s to answer; the client must wait longer than that.
READ_TIMEOUT = 75
CONNECT_TIMEOUT = 10
MOST_PARALLEL = 64
#: This many items given up with no answer to anybody in between are an outage: the rest would only wait as long.
OUTAGE_AFTER = 3
#: Codes that mean `later`, whatever the HTTP status (ThrottlingException comes with 400).
_LATER_CODES = frozenset(
    {"ThrottlingException", "ModelNotReadyException", "ServiceUnavailable", "InternalDependencyException"}
    | {"InternalFailure", "InternalServerException"}
)
_LATER_STATUSES = frozenset({429, 500, 502, 503, 504, 530})
_REFUSED_CODES = frozenset(
    {"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"}
    | {"InvalidClientTokenId", "MissingAuthenticationTokenException", "IncompleteSignatureException"}
)


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How one item's request is repeated: at most `attempts`, and not begun again after `total` seconds.

    The wait before attempt n is drawn evenly from 0 to `first * 2**n` seconds, at most `longest` (full jitter).
    """

    attempts: int = 8
    first: float = 0.25
    longest: float = 20.0
    total: float = 180.0


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """What the endpoint was asked so far. `seconds` is the time from the first request to the latest answer's end."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    forecast: int = 0
    failed: int = 0
    seconds: float = 0.0


class DemandEndpoint:
    """A SageMaker endpoint that answers the demand contract: one item's history in, its next days out.

    Args:
        endpoint_name: the endpoint's name.
        url: where SageMaker Runtime is; None leaves it to boto3's own configuration, where
            AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME works too. A loopback address is signed with made-up credentials, so that
            real ones are neither needed nor shown.
        region: the AWS region; None leaves it to boto3's own configuration.
        retry: how requests are repeated.

    Raises:
        ConfigurationError: the URL is not one, or no region is known for AWS.

    """

    def __init__(
        self,
        endpoint_name: str,
        *,
        url: str | None = None,
        region: str | None = None,
        retry: RetryRule | None = None,
    ) -> None:
        self.endpoint_name = endpoint_name
        self._retry = retry or RetryRule()
        self._client = _client(url, region)
        self._lock = threading.Lock()
        self._stats = EndpointStats()
        self._began: float | None = None
        self._ever_answered = False
        self._given_up_in_a_row = 0

    @property
    def url(self) -> str:
        """Where the requests go."""
        return str(self._client.meta.endpoint_url)

    @property
    def stats(self) -> EndpointStats:
        """A snapshot of what was asked so far."""
        with self._lock:
            return self._stats

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def forecast_many(self, items: Sequence[ItemHistory], horizon: int, parallel: int = 8) -> Iterator[ItemForecast]:
        """Ask for every item, `parallel` at once, and yield the answers in the order of the items.

        An item that the model refuses, that keeps failing while others are answered, or whose answer is not what the
        contract says becomes an `ItemForecast` with a `failure`; the others are not held up by it.

        Args:
            items: the histories; each must have at least one point.
            horizon: days after each item's `as_of`.
            parallel: requests under way at once, 1 to 64.

        Raises:
            ForecastError: the endpoint cannot be used at all: unknown, access refused, or it answered nobody.

        """
        if not 1 <= parallel <= MOST_PARALLEL:
            raise ConfigurationError(f"parallel must be 1 to {MOST_PARALLEL}, not {parallel}")
        return self._forecast_many(items, horizon, parallel)

    def _forecast_many(self, items: Sequence[ItemHistory], horizon: int, parallel: int) -> Iterator[ItemForecast]:
        stopped = threading.Event()
        under_way: deque[Future[ItemForecast]] = deque()
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="forecast")
        try:
            for item in items:
                under_way.append(pool.submit(self._forecast, item, horizon, stopped))
                # A little ahead of the workers, so that one slow answer does not leave the others idle.
                if len(under_way) >= 4 * parallel:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _forecast(self, history: ItemHistory, horizon: int, stopped: threading.Event) -> ItemForecast:
        try:
            last = history.points[-1][0] if history.points else history.as_of
            # The endpoint forecasts from the last known date on; the days until `as_of` (store closed) are left out here.
            known_late = (history.as_of - last).days
            body = self._invoke(write_request(history, horizon + known_late), stopped)
            model_type, predictions = read_answer(body, last, horizon + known_late)
        except ItemFailedError as failed:
            self._count(failed=1)
            return ItemForecast(history.item, history.as_of, failure=str(failed))
        self._count(forecast=1)
        return ItemForecast(history.item, history.as_of, predictions[known_late:], model_type)

    def _invoke(self, body: bytes, stopped: threading.Event) -> bytes:
        import tenacity

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_LaterError),
            wait=tenacity.wait_random_exponential(multiplier=self._retry.first, max=self._retry.longest),
            stop=tenacity.stop_after_attempt(self._retry.attempts)
            | tenacity.stop_after_delay(self._retry.total)
            | tenacity.stop_when_event_set(stopped),
            sleep=tenacity.sleep_using_event(stopped),
            before_sleep=lambda _: self._count(retries=1),
            reraise=True,
        )
        try:
            return attempts(self._invoke_once, body)
        except _LaterError as error:
            if self._nobody_is_answered() and not stopped.is_set():
                raise ForecastError(
                    f"the forecast endpoint {self.endpoint_name} at {self.url} answered nothing "
                    f"in {self._retry.attempts} attempts; the last answer was: {error}",
                    next_step="See that the endpoint is in service, then run it again.",
                ) from error
            raise ItemFailedError(f"no answer after {self._retry.attempts} attempts: {error}") from error

    def _invoke_once(self, body: bytes) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        self._count(requests=1)
        try:
            answer = self._client.invoke_endpoint(
                EndpointName=self.endpoint_name, ContentType="application/json", Accept="application/json", Body=body
            )
            content = answer["Body"].read()
        except ClientError as error:
            raise self._of_client_error(error) from error
        except BotoCoreError as error:
            raise self._of_sdk_error(error) from error
        self._answered()
        return content

    def _of_client_error(self, error: ClientError) -> Exception:
        """Return what an error answer of SageMaker Runtime means: later, this item, or everybody."""
        details: dict[str, Any] = error.response.get("Error", {})  # type: ignore[assignment]
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code, message = str(details.get("Code", "")), str(details.get("Message", ""))
        told = f"HTTP {status} {code}: {message}" if message else f"HTTP {status} {code}"
        if code == "ModelError" or status == 424:
            self._answered()
            return ItemFailedError(model_error_message(error.response))
        if code in _LATER_CODES or status in _LATER_STATUSES:
            if status == 429 or code == "ThrottlingException":
                self._count(throttled=1)
            return _LaterError(told)
        if code in _REFUSED_CODES or status in {401, 403}:
            return ForecastError(
                f"the forecast endpoint {self.endpoint_name} refused access ({told})",
                next_step="Give the AWS credentials in use sagemaker:InvokeEndpoint on this endpoint.",
                rerun_helps=False,
            )
        if status == 404 or (code == "ValidationError" and "not found" in message.lower()):
            return ForecastError(
                f"there is no forecast endpoint called {self.endpoint_name} at {self.url} ({told})",
                next_step="Set FLUX_FORECAST_ENDPOINT (and the AWS region) to an endpoint that is in service.",
                rerun_helps=False,
            )
        return ItemFailedError(told)

    def _of_sdk_error(self, error: BotoCoreError) -> Exception:
        """Return what an error of the SDK means; a network failure may be repeated, as inference changes nothing."""
        from botocore import exceptions

        network = (exceptions.HTTPClientError, exceptions.ReadTimeoutError, exceptions.ResponseStreamingError)
        if isinstance(error, network):
            return _LaterError(f"{type(error).__name__} from {self.url}")
        return ForecastError(
            f"boto3 cannot call the forecast endpoint {self.endpoint_name}: {type(error).__name__}",
            next_step="Configure boto3: AWS credentials and region, or FLUX_FORECAST_URL=embedded to need neither.",
            rerun_helps=False,
        )

    def _answered(self) -> None:
        with self._lock:
            self._ever_answered = True
            self._given_up_in_a_row = 0

    def _nobody_is_answered(self) -> bool:
        """Count an item given up, and tell whether that is the endpoint's trouble rather than the item's."""
        with self._lock:
            self._given_up_in_a_row += 1
            return not self._ever_answered or self._given_up_in_a_row >= OUTAGE_AFTER

    def _count(self, **more: int) -> None:
        now = time.monotonic()
        with self._lock:
            if self._began is None:
                self._began = now
            changed = {name: getattr(self._stats, name) + number for name, number in more.items()}
            self._stats = replace(self._stats, **changed, seconds=now - self._began)


class _LaterError(Exception):
    """The same request can succeed later."""


def _client(url: str | None, region: str | None) -> SageMakerRuntimeClient:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        read_timeout=READ_TIMEOUT,
        connect_timeout=CONNECT_TIMEOUT,
        max_pool_connections=MOST_PARALLEL,
    )
    try:
        session = boto3.Session(region_name=region)
        # Looking for credentials may ask the network for them: first see where the requests will go.
        local = session.client(
            "sagemaker-runtime",
            endpoint_url=url,
            region_name=session.region_name or "us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - signs requests to this machine only
            config=config.merge(Config(proxies={})),
        )
        if is_loopback(urlsplit(local.meta.endpoint_url).hostname or ""):
            return local
        local.close()
        if session.region_name is None:
            raise ConfigurationError(
                "no AWS region is set for the forecast endpoint",
                next_step="Set AWS_REGION or AWS_DEFAULT_REGION, or a region in the AWS profile.",
            )
        return session.client("sagemaker-runtime", endpoint_url=url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"boto3 cannot make a client for the forecast endpoint: {error}",
            next_step="Correct FLUX_FORECAST_URL or the AWS configuration.",
        ) from error
