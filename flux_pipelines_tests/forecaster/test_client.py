"""The client through real boto3: against our server, and against a server that answers what AWS can answer."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from flux_pipelines.domain.errors import ConfigurationError, ForecastError
from flux_pipelines.forecaster.client import DemandEndpoint, RetryRule
from flux_pipelines.forecaster.embedded import EmbeddedForecaster
from flux_pipelines_tests.forecaster.conftest import AS_OF, ENDPOINT, history

QUICK = RetryRule(attempts=4, first=0.001, longest=0.01)
PATH = re.compile(r"/endpoints/.*/invocations")


def predictions(asked: Any, quantity: Any = 1.5) -> list[dict[str, Any]]:
    from datetime import date

    last = date.fromisoformat(asked["historical_data"][-1]["date"])
    days = range(1, asked["forecast_horizon"] + 1)
    return [{"date": (last + timedelta(days=n)).isoformat(), "predicted_quantity": quantity} for n in days]


def answer(asked: Any, quantity: Any = 1.5) -> Response:
    return Response(
        json.dumps({"model_type": "M", "predictions": predictions(asked, quantity)}), mimetype="application/json"
    )


def error(status: int, code: str | None, message: str = "boom", **more: Any) -> Response:
    headers = {"x-amzn-ErrorType": code} if code else {}
    return Response(json.dumps({"Message": message, **more}), status, headers, mimetype="application/json")


class Aws:
    """Serves `invoke_endpoint`; `behave(product, attempt, request)` gives an answer, or None for a good one."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("")
        self.attempts: Counter[str] = Counter()
        self.asked: list[Any] = []
        self.headers: list[Any] = []
        self.behave: Callable[[str, int, Any], Response | None] = lambda product, attempt, asked: None
        self._lock = threading.Lock()
        server.expect_request(PATH, method="POST").respond_with_handler(self._handle)

    def _handle(self, request: Request) -> Response:
        asked = json.loads(request.get_data())
        product = asked["menu_item_id"].rpartition("/")[2]
        with self._lock:
            self.attempts[product] += 1
            attempt = self.attempts[product]
            self.asked.append(asked)
            self.headers.append(dict(request.headers))
        return self.behave(product, attempt, asked) or answer(asked)


@pytest.fixture(scope="module")
def threaded_server() -> Iterator[HTTPServer]:
    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def aws(threaded_server: HTTPServer) -> Aws:
    threaded_server.clear()
    return Aws(threaded_server)


def test_many_items_through_our_own_server(forecaster: EmbeddedForecaster) -> None:
    endpoint = DemandEndpoint(ENDPOINT, url=forecaster.url)
    items = [history(f"p{n:02}") for n in range(30)]
    items[7] = history("short", days=5)
    forecasts = list(endpoint.forecast_many(items, 14, parallel=16))
    assert [f.item for f in forecasts] == [i.item for i in items]
    failed = [f for f in forecasts if f.failure]
    assert [(f.item.product_id, f.failure) for f in failed] == [
        ("short", "the model answered 422: too little history: 5 dates are known, at least 7 are needed to forecast")
    ]
    good = forecasts[0]
    assert (good.model_type, good.as_of) == ("ENSEMBLE", AS_OF)
    assert [day for day, _ in good.predictions] == [AS_OF + timedelta(days=n) for n in range(1, 15)]
    assert all(isinstance(q, Decimal) and q > 0 for _, q in good.predictions)
    stats = endpoint.stats
    assert (stats.forecast, stats.failed) == (29, 1)
    # The server of these tests takes four at once: what it throttled was asked again.
    assert stats.throttled == stats.retries == stats.requests - 30
    assert stats.seconds > 0
    endpoint.close()


def test_the_request_is_exactly_the_contract(aws: Aws) -> None:
    item = history("latte", days=40)
    list(DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK).forecast_many([item], 14))
    assert aws.asked[0].keys() == {"menu_item_id", "historical_data", "forecast_horizon"}
    assert aws.asked[0]["menu_item_id"] == "square:acme/L1/latte"
    assert aws.asked[0]["forecast_horizon"] == 14
    assert aws.asked[0]["historical_data"][0] == {"date": "2025-02-20", "quantity": 10.5}
    assert len(aws.asked[0]["historical_data"]) == 40
    assert aws.headers[0]["Content-Type"] == "application/json"


def test_a_history_that_ends_before_as_of_is_asked_to_the_same_last_day(aws: Aws) -> None:
    [forecast] = DemandEndpoint(ENDPOINT, url=aws.url).forecast_many([history(closed_last=3)], 14)
    assert aws.asked[0]["forecast_horizon"] == 17
    assert [day for day, _ in forecast.predictions] == [AS_OF + timedelta(days=n) for n in range(1, 15)]


@pytest.mark.parametrize(
    "trouble",
    [
        error(400, "ThrottlingException", "Rate exceeded"),
        error(429, "ModelNotReadyException"),
        error(429, None),
        error(503, "ServiceUnavailable"),
        error(530, "InternalDependencyException"),
        error(500, "InternalFailure"),
        Response("<html>bad gateway</html>", 502, mimetype="text/html"),
    ],
    ids=["throttled", "not-ready", "bare-429", "503", "530", "500", "html-502"],
)
def test_passing_trouble_is_retried_by_one_layer_only(aws: Aws, trouble: Response) -> None:
    aws.behave = lambda product, attempt, asked: trouble if attempt < 3 else None
    endpoint = DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK)
    [forecast] = endpoint.forecast_many([history()], 14)
    assert forecast.failure is None
    assert aws.attempts["latte"] == 3
    assert (endpoint.stats.requests, endpoint.stats.retries) == (3, 2)


def test_a_model_error_is_not_retried_and_loses_nobody_else(aws: Aws) -> None:
    def behave(product: str, attempt: int, asked: Any) -> Response | None:
        if product != "p3":
            return None
        return error(
            424, "ModelError", "Received server error", OriginalStatusCode=500, OriginalMessage="out of memory"
        )

    aws.behave = behave
    forecasts = list(
        DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK).forecast_many([history(f"p{n}") for n in range(9)], 14)
    )
    assert [f.item.product_id for f in forecasts if f.failure] == ["p3"]
    assert forecasts[3].failure == "the model answered 500: out of memory"
    assert aws.attempts["p3"] == 1


def test_an_item_that_is_never_answered_fails_alone(aws: Aws) -> None:
    bad = {"p1", "p19"}  # the last one keeps failing when nobody else is asked any more
    aws.behave = lambda product, attempt, asked: error(503, "ServiceUnavailable", "busy") if product in bad else None
    items = [history(f"p{n}") for n in range(20)]
    endpoint = DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK)
    list(endpoint.forecast_many([history("first")], 14))
    forecasts = list(endpoint.forecast_many(items, 14, parallel=2))
    assert {f.item.product_id for f in forecasts if f.failure} == bad
    assert forecasts[1].failure == "no answer after 4 attempts: HTTP 503 ServiceUnavailable: busy"


def test_an_outage_on_the_way_is_an_error_and_keeps_what_was_answered(aws: Aws) -> None:
    down = {f"p{n}" for n in range(10, 200)}
    aws.behave = lambda product, attempt, asked: error(503, "ServiceUnavailable") if product in down else None
    endpoint = DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK)
    forecasts = endpoint.forecast_many([history(f"p{n}") for n in range(200)], 14)
    got = [next(forecasts).item.product_id for _ in range(10)]
    with pytest.raises(ForecastError, match="answered nothing"):
        list(forecasts)
    assert got == [f"p{n}" for n in range(10)]
    assert endpoint.stats.requests < 100


WRONG = {
    "not JSON": (b"<html>", "not valid JSON"),
    "cut off": (b'{"model_type": "M", "predictions": [{"date"', "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "a list": (b"[]", "not a JSON object"),
    "no type": (b'{"predictions": []}', "no model_type"),
    "no predictions": (b'{"model_type": "M"}', "no list of predictions"),
    "too few": (b'{"model_type": "M", "predictions": []}', "gave 0 predictions; 14 were asked for"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_body_that_is_not_an_answer_fails_its_item_with_the_reason(aws: Aws, wrong: str) -> None:
    body, told = WRONG[wrong]
    aws.behave = lambda product, attempt, asked: (
        Response(body, mimetype="application/json") if product == "bad" else None
    )
    first, second = DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK).forecast_many(
        [history("bad"), history("ok")], 14
    )
    assert first.failure is not None
    assert told in first.failure
    assert (second.failure, len(second.predictions)) == (None, 14)


@pytest.mark.parametrize(
    ("quantity", "told"),
    [
        ("1.5", "not a number"),
        (None, "not a number"),
        (True, "not a number"),
        (float("nan"), "NaN is not a number"),
        (float("inf"), "Infinity is not a number"),
        (-0.5, "is negative"),
        (1e13, "out of range"),
    ],
)
def test_a_quantity_that_is_not_one_fails_its_item(aws: Aws, quantity: Any, told: str) -> None:
    aws.behave = lambda product, attempt, asked: answer(asked, quantity)
    [forecast] = DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK).forecast_many([history()], 14)
    assert forecast.failure is not None
    assert told in forecast.failure


def test_dates_must_be_consecutive_from_the_day_after_as_of(aws: Aws) -> None:
    def behave(product: str, attempt: int, asked: Any) -> Response:
        given = predictions(asked)
        if product == "shifted":
            given = predictions(asked | {"historical_data": asked["historical_data"][:-1]})
        elif product == "doubled":
            given[4] = given[3]
        elif product == "odd":
            given[0] = "tomorrow"  # type: ignore[call-overload]
        return Response(json.dumps({"model_type": "M", "predictions": given}))

    aws.behave = behave
    items = [history(p) for p in ("shifted", "doubled", "odd", "fine")]
    failures = [f.failure for f in DemandEndpoint(ENDPOINT, url=aws.url).forecast_many(items, 14)]
    assert failures == [
        "prediction 1 is for '2025-03-31'; expected 2025-04-01",
        "prediction 5 is for '2025-04-04'; expected 2025-04-05",
        "prediction 1 is for 'tomorrow'; expected 2025-04-01",
        None,
    ]


def test_numbers_are_read_exactly(aws: Aws) -> None:
    def behave(product: str, attempt: int, asked: Any) -> Response:
        return Response(
            json.dumps({"model_type": "M", "predictions": predictions(asked, 7)}).replace(
                ": 7}", ": 12345678901.000015}"
            )
        )

    aws.behave = behave
    [forecast] = DemandEndpoint(ENDPOINT, url=aws.url).forecast_many([history()], 1)
    assert forecast.predictions[0][1] == Decimal("12345678901.00002")


@pytest.mark.parametrize(
    ("trouble", "told", "rerun_helps"),
    [
        (
            error(400, "ValidationError", "Endpoint nope of account 1 not found."),
            "there is no forecast endpoint",
            False,
        ),
        (error(403, "AccessDeniedException", "not authorized"), "refused access", False),
        (error(503, "ServiceUnavailable"), "answered nothing in 4 attempts", True),
    ],
    ids=["unknown", "denied", "down"],
)
def test_an_endpoint_that_cannot_be_used_at_all_is_an_error(
    aws: Aws, trouble: Response, told: str, rerun_helps: bool
) -> None:
    aws.behave = lambda product, attempt, asked: trouble
    endpoint = DemandEndpoint("nope", url=aws.url, retry=QUICK)
    with pytest.raises(ForecastError, match=told) as caught:
        list(endpoint.forecast_many([history(f"p{n}") for n in range(50)], 14))
    assert caught.value.rerun_helps is rerun_helps
    assert caught.value.next_step
    assert endpoint.stats.requests < 50 * 4, "the others are not asked for once it is clear"


def test_nobody_listening_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = DemandEndpoint(ENDPOINT, url=f"http://127.0.0.1:{unused.getsockname()[1]}", retry=QUICK)
        with pytest.raises(ForecastError, match="EndpointConnectionError"):
            list(endpoint.forecast_many([history()], 14))


def test_our_own_server_does_not_know_other_endpoints(forecaster: EmbeddedForecaster) -> None:
    with pytest.raises(ForecastError, match="no forecast endpoint called another"):
        list(DemandEndpoint("another", url=forecaster.url).forecast_many([history()], 14))


def test_a_reader_that_stops_early_stops_the_requests(aws: Aws) -> None:
    items = [history(f"p{n}") for n in range(500)]
    forecasts = DemandEndpoint(ENDPOINT, url=aws.url, retry=QUICK).forecast_many(items, 14, parallel=2)
    next(forecasts)
    forecasts.close()  # type: ignore[attr-defined]
    assert sum(aws.attempts.values()) < 30


def test_requests_run_at_once_up_to_the_bound(aws: Aws) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def behave(product: str, attempt: int, asked: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1

    aws.behave = behave
    list(DemandEndpoint(ENDPOINT, url=aws.url).forecast_many([history(f"p{n}") for n in range(16)], 14, parallel=4))
    assert most == 4


def test_the_address_may_come_from_botos_own_configuration(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", aws.url)
    # A proxy would be asked for this machine's own address, and real credentials would be shown to the server.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    endpoint = DemandEndpoint(ENDPOINT)
    [forecast] = endpoint.forecast_many([history()], 14)
    assert endpoint.url == aws.url
    assert forecast.failure is None
    assert "Credential=local/" in aws.headers[0]["Authorization"]
    assert "X-Amz-Security-Token" not in aws.headers[0]


def test_going_to_aws_is_configuration_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no AWS region"):
        DemandEndpoint(ENDPOINT)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    endpoint = DemandEndpoint(ENDPOINT)
    assert endpoint.url == "https://runtime.sagemaker.eu-west-1.amazonaws.com"
    assert DemandEndpoint(ENDPOINT, region="us-west-2").url == "https://runtime.sagemaker.us-west-2.amazonaws.com"
    with pytest.raises(ForecastError, match="NoCredentialsError") as caught:
        list(endpoint.forecast_many([history()], 14))
    assert "FLUX_FORECAST_URL=embedded" in str(caught.value)


def test_settings_that_cannot_work_are_refused(aws: Aws) -> None:
    with pytest.raises(ConfigurationError, match="boto3 cannot make a client"):
        DemandEndpoint(ENDPOINT, url="not a url")
    with pytest.raises(ConfigurationError, match="1 to 64"):
        DemandEndpoint(ENDPOINT, url=aws.url).forecast_many([history()], 14, parallel=0)
