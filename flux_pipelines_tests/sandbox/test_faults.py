from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import httpx
import msgspec
import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines_tests.sandbox.conftest import Square, error_of, search_body
from flux_sandbox.faults import FAULTS, FaultInjector, parse_faults
from flux_sandbox.server import RunningSandbox

Start = Callable[..., RunningSandbox]


def test_reads_rates() -> None:
    assert parse_faults(" error500=0.05, truncate = 0.02 ,latency=0.15,") == {
        "error500": 0.05,
        "truncate": 0.02,
        "latency": 0.15,
    }
    assert parse_faults("") == {}


@pytest.mark.parametrize("text", ["eror500=0.05", "error500", "error500=", "error500=2", "html=-0.1", "html=nan"])
def test_refuses_what_it_does_not_know_and_lists_what_it_does(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_faults(text)
    message = str(refused.value)
    assert "error500=0.05" in message or "html=0.05" in message or all(name in message for name in FAULTS)


def test_draws_are_seeded_and_counted() -> None:
    def draws(seed: int) -> list[str]:
        injector = FaultInjector("error500=0.05,error429=0.05,truncate=0.02,html=0.02", seed)
        drawn = [injector.draw() for _ in range(5000)]
        assert Counter(filter(None, drawn)) == injector.injected
        return drawn

    first = draws(1)
    assert first == draws(1) != draws(2)
    counts = Counter(first)
    assert 190 < counts["error500"] < 310
    assert 60 < counts["truncate"] < 140


def one(sandbox: RunningSandbox, fault: str) -> tuple[Square, dict[str, object]]:
    square = Square(sandbox)
    square.http.post("/sandbox/faults", json={"faults": f"{fault}=1"})
    return square, search_body(square.locations[:1], limit=50)


def test_each_fault_is_what_it_says(start: Start) -> None:
    sandbox = start()
    square, body = one(sandbox, "error500")
    assert {square.search(body).status_code for _ in range(40)} == {500, 502, 503, 504}
    assert error_of(square.search(body))[1] == "API_ERROR"
    square, body = one(sandbox, "error429")
    assert error_of(square.search(body)) == (429, "RATE_LIMIT_ERROR", "RATE_LIMITED")
    square, body = one(sandbox, "html")
    answers = [square.search(body) for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200, 500, 502, 503}
    for answer in answers:
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(answer.content)
    square, body = one(sandbox, "truncate")
    answer = square.search(body)
    assert answer.status_code == 200
    assert answer.content.startswith(b'{"orders":[{')
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(answer.content)
    square, body = one(sandbox, "empty")
    assert square.search(body).content == b""
    square, body = one(sandbox, "disconnect")
    with pytest.raises(httpx.RemoteProtocolError):
        square.search(body)
    square, body = one(sandbox, "slow")
    began = time.monotonic()
    assert square.search(body).status_code == 200
    assert time.monotonic() - began > 0.45
    injected = square.http.get("/sandbox/stats").json()["faults"]
    assert set(injected) == set(FAULTS) - {"cursor", "latency"}


def test_a_dying_cursor_dies_only_where_there_is_one(start: Start) -> None:
    square, body = one(start(), "cursor")
    page = square.search(body)
    assert page.status_code == 200
    again = square.search({**body, "cursor": page.json()["cursor"]})
    assert error_of(again) == (400, "INVALID_REQUEST_ERROR", "INVALID_CURSOR")


def test_faults_spare_what_is_not_the_providers_and_what_cannot_be_repeated(start: Start) -> None:
    sandbox = start(faults="error500=1,html=1,truncate=1,empty=1,disconnect=1")
    http = httpx.Client(base_url=sandbox.url)
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/sandbox/stats").status_code == 200
    app = http.get("/sandbox/app").json()
    asked = {
        "client_id": app["client_id"],
        "scope": "ORDERS_READ",
        "redirect_uri": "http://127.0.0.1:1/",
        "merchant": "",
    }
    code = httpx.URL(http.get("/oauth2/authorize", params=asked).headers["location"]).params["code"]
    exchange = {**app, "grant_type": "authorization_code", "code": code, "redirect_uri": "http://127.0.0.1:1/"}
    tokens = http.post("/oauth2/token", json=exchange)
    assert tokens.status_code == 200
    refresh = {**app, "grant_type": "refresh_token", "refresh_token": tokens.json()["refresh_token"]}
    assert http.post("/oauth2/token", json=refresh).status_code >= 500
    http.post("/sandbox/faults", json={"faults": "truncate=1,empty=1,disconnect=1"})
    assert http.post("/oauth2/token", json=refresh).json()["access_token"]


def test_a_faulty_request_still_counts_against_the_limit(start: Start) -> None:
    square, body = one(start(), "error500")
    for _ in range(5):
        square.search(body)
    keys = square.http.get("/sandbox/stats").json()["keys"]
    assert keys[square.locations[0]]["requests"] == 5
