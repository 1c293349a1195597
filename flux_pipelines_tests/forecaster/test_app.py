"""The server over real HTTP: the container contract, and the SageMaker Runtime protocol through real boto3."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from flux_pipelines.forecaster.embedded import EmbeddedForecaster
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.forecaster.conftest import ENDPOINT

MONDAY = date(2024, 1, 1)


def body(days: int = 60, horizon: Any = 14, **more: Any) -> dict[str, Any]:
    points = [{"date": (MONDAY + timedelta(days=n)).isoformat(), "quantity": n % 7 + 1.5} for n in range(days)]
    return {"menu_item_id": "42", "historical_data": points, "forecast_horizon": horizon} | more


def post(url: str, content: bytes, kind: str = "application/json") -> tuple[int, dict[str, str], Any]:
    request = urllib.request.Request(url, content, {"content-type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), json.loads(error.read())


def runtime(server: EmbeddedForecaster) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32),
    )


def invoke(client: Any, asked: Any, name: str = ENDPOINT) -> Any:
    return client.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=json.dumps(asked))


def test_invocations_answer_with_exactly_the_contract(forecaster: EmbeddedForecaster) -> None:
    status, headers, answer = post(f"{forecaster.url}/invocations", json.dumps(body(unknown="ignored")).encode())
    assert (status, headers["content-type"]) == (200, "application/json")
    assert answer.keys() == {"model_type", "predictions"}
    assert answer["model_type"] == "ENSEMBLE"
    expected = [(MONDAY + timedelta(days=60 + n)).isoformat() for n in range(14)]
    assert [p["date"] for p in answer["predictions"]] == expected
    assert all(p.keys() == {"date", "predicted_quantity"} for p in answer["predictions"])
    # 60 days after a Monday is a Friday: the weekly pattern goes on.
    assert answer["predictions"][0]["predicted_quantity"] == pytest.approx(5.5, abs=0.3)


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        (b"", 400, "not a valid request"),
        (b"{", 400, "not a valid request"),
        (b"[" * 1200 + b"]" * 1200, 400, "not a valid request"),
        (b"\xff\xfe", 400, "not a valid request"),
        (b"[]", 400, "Expected `object`"),
        (body(horizon=0), 400, "forecast_horizon"),
        (body(horizon=91), 400, "forecast_horizon"),
        (body(horizon="14"), 400, "forecast_horizon"),
        (body(horizon=1.5), 400, "forecast_horizon"),
        ({"menu_item_id": "1", "forecast_horizon": 3}, 400, "historical_data"),
        (body(historical_data=[]), 400, "historical_data is empty"),
        (body(historical_data=[{"date": "2024-02-30", "quantity": 1}]), 400, "date"),
        (body(historical_data=[{"date": "01/02/2024", "quantity": 1}]), 400, "date"),
        (body(historical_data=[{"date": "2024-01-01", "quantity": "3"}]), 400, "quantity"),
        (body(historical_data=[{"date": "2024-01-01", "quantity": True}]), 400, "quantity"),
        (body(historical_data=[{"date": "2024-01-01", "quantity": None}]), 400, "quantity"),
        (b'{"menu_item_id":"1","historical_data":[{"date":"2024-01-01","quantity":NaN}]}', 400, "not a valid request"),
        (body(historical_data=[{"date": "2024-01-01", "quantity": 1e300}]), 400, "quantity"),
        (body(historical_data=[{"date": "2024-01-01", "quantity": 1}] * 2), 400, "2024-01-01 twice"),
        (body(historical_data=[{"date": f"{y}-01-01", "quantity": 1} for y in (2001, 2024)]), 400, "at most 3660"),
        (body(historical_data=[{"date": "9999-12-30", "quantity": 1}]), 400, "too late"),
        (body(days=6), 422, "at least 7 are needed"),
        (b" " * (6 * 1024 * 1024 + 1), 413, "6291456 bytes"),
    ],
)
def test_what_cannot_be_forecast_is_refused_clearly(
    forecaster: EmbeddedForecaster, asked: Any, status: int, told: str
) -> None:
    content = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    got, _, answer = post(f"{forecaster.url}/invocations", content)
    assert got == status
    assert told in answer["error"]


def test_other_content_types_are_refused(forecaster: EmbeddedForecaster) -> None:
    assert post(f"{forecaster.url}/invocations", b"1,2", "text/csv")[0] == 415


def test_boto3_gets_the_forecast_and_the_variant(forecaster: EmbeddedForecaster) -> None:
    answer = invoke(runtime(forecaster), body(horizon=90))
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"] == "application/json"
    assert len(json.loads(answer["Body"].read())["predictions"]) == 90


def test_boto3_sees_a_model_error_as_documented(forecaster: EmbeddedForecaster) -> None:
    client = runtime(forecaster)
    with pytest.raises(client.exceptions.ModelError) as caught:
        invoke(client, body(days=3))
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == 422
    assert "3 dates are known" in json.loads(response["OriginalMessage"])["error"]
    assert "Received client error (422) from primary" in response["Error"]["Message"]


def test_boto3_sees_an_unknown_endpoint_as_documented(forecaster: EmbeddedForecaster) -> None:
    with pytest.raises(ClientError) as caught:
        invoke(runtime(forecaster), body(), name="another")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "another" in caught.value.response["Error"]["Message"]


def test_too_many_at_once_are_throttled_and_ping_stays_quick(forecaster: EmbeddedForecaster) -> None:
    client, asked = runtime(forecaster), body(days=1500)

    def one(_: int) -> str:
        try:
            invoke(client, asked)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "ok"

    url = forecaster.url
    with ThreadPoolExecutor(16) as pool:
        outcomes = pool.map(one, range(48))
        slowest = 0.0
        for _ in range(10):
            began = time.monotonic()
            with urllib.request.urlopen(f"{url}/ping") as answer:
                assert (answer.status, answer.read()) == (200, b"")
            slowest = max(slowest, time.monotonic() - began)
        assert set(outcomes) == {"ok", "ThrottlingException"}
    assert slowest < 2.0, "SageMaker gives a container two seconds to answer /ping"


def test_a_worker_that_dies_is_replaced(forecaster: EmbeddedForecaster) -> None:
    client = runtime(forecaster)
    invoke(client, body())
    server = psutil.Process(forecaster._process.pid)  # type: ignore[union-attr]
    workers = [p for p in server.children(recursive=True) if p.ppid() != server.pid]
    assert len(workers) == 2
    for worker in workers:
        worker.kill()
    psutil.wait_procs(workers, timeout=10)
    # A request that was handed to the dead workers may be lost; the next one is not.
    with contextlib.suppress(client.exceptions.ModelError):
        invoke(client, body())
    assert invoke(client, body())["InvokedProductionVariant"] == "AllTraffic"


def test_the_container_command_serves_after_loading_and_ends_cleanly_on_sigterm() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    entry = json.loads(
        next(
            line.removeprefix("ENTRYPOINT ")
            for line in (PROJECT_ROOT / "deploy/forecaster/Dockerfile").read_text().splitlines()
            if line.startswith("ENTRYPOINT ")
        )
    )
    command = [sys.executable, *entry[1:], "serve", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        seen = []
        give_up = time.monotonic() + 120
        while seen[-1:] != [200] and time.monotonic() < give_up:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping") as answer:
                    seen.append(answer.status)
            except urllib.error.HTTPError as error:
                seen.append(error.code)
            except OSError:
                time.sleep(0.05)
        assert seen[-1] == 200
        assert set(seen[:-1]) == {503}, "not ready before the model is loaded"
        assert post(f"http://127.0.0.1:{port}/invocations", json.dumps(body()).encode())[0] == 200
        # No endpoint was named, so there is none.
        assert post(f"http://127.0.0.1:{port}/endpoints/{ENDPOINT}/invocations", b"{}")[0] == 400
        children = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert server.stderr is not None
        assert server.stderr.read() == b""
        assert psutil.wait_procs(children, timeout=10)[1] == []
    finally:
        server.kill()
        server.wait()
