"""Delivering webhooks: at least once, in time, never in the way, with retries as documented, and within bounds."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from flux_pipelines.cli.processes import answers
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines_tests.sandbox.conftest import Square
from flux_pipelines_tests.sandbox.receiver import Received, Receiver
from flux_sandbox.deliveries import Delivery, Outbox, retry_minutes
from flux_sandbox.server import RunningSandbox

Start = Callable[..., RunningSandbox]
#: A receiver in a process of its own, so that it takes nothing from the sender's interpreter.
RECEIVER = """
import sys, uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off", access_log=False)
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


class Post:
    """A sandbox with one authorised merchant, whose sales are told to an address."""

    def __init__(self, sandbox: RunningSandbox, url: str, **conditions: Any) -> None:
        self.square = Square(sandbox, "fjord")
        self.http = self.square.http
        self.do("webhooks", url=url, event_types=["payment.created"], **conditions)

    def do(self, what: str, **body: Any) -> Any:
        answer = self.http.post(f"/sandbox/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sell(self) -> None:
        self.do("orders/sell", location_id=self.square.locations[0])

    def status(self) -> Any:
        return self.http.get("/sandbox/webhooks").json()

    def until(self, seconds: float = 15, **wanted: int) -> Any:
        deadline = time.monotonic() + seconds
        while not wanted.items() <= (status := self.status()).items():
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        return status


def retries(received: list[Received]) -> list[tuple[str | None, str | None]]:
    names = ("square-retry-number", "square-retry-reason")
    return [(one.headers.get(names[0]), one.headers.get(names[1])) for one in received]


def test_a_refused_delivery_is_repeated_until_it_is_taken(start: Start, receiver: Receiver) -> None:
    receiver.answer = lambda number: (500, 404, 301, 200)[number]
    post = Post(start(), receiver.url, retry_factor=0.0005)
    post.sell()
    got = receiver.wait(4)
    assert retries(got) == [(None, None), ("1", "http_error"), ("2", "http_error"), ("3", "http_error")]
    assert len({one.body for one in got}) == 1
    assert len({one.headers["x-square-hmacsha256-signature"] for one in got}) == 1
    assert len({one.headers["square-initial-delivery-timestamp"] for one in got}) == 1
    # 1, 2 and 4 minutes, at a two-thousandth of their length.
    gaps = [after.at - before.at for before, after in pairwise(got)]
    assert gaps[0] >= 0.03
    assert gaps[1] >= 0.06
    assert gaps[2] >= 0.12
    status = post.until(delivered=1, pending=0)
    assert (status["failed"], status["retried"], status["given_up"]) == (3, 1, 0)
    assert status["statuses"] == {"500": 1, "404": 1, "301": 1, "200": 1}
    taken = post.http.get("/sandbox/webhooks/acknowledged").json()["acknowledged"]
    assert taken == {got[0].json["event_id"]: 1}


def test_a_receiver_that_is_too_slow_is_asked_again(start: Start, receiver: Receiver) -> None:
    release = threading.Event()

    def answer(number: int) -> int:
        if number == 0:
            release.wait(10)
        return 200

    receiver.answer = answer
    post = Post(start(), receiver.url, retry_factor=0.0001, timeout=1.5)
    post.sell()
    assert retries(receiver.wait(2)) == [(None, None), ("1", "http_timeout")]
    post.until(delivered=1, failed=1, pending=0)
    release.set()


def test_a_receiver_that_is_down_gets_it_when_it_is_up(start: Start) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    post = Post(start(), f"http://127.0.0.1:{port}/webhooks/square", retry_factor=0.0005)
    post.sell()
    while not post.status()["failed"]:
        time.sleep(0.005)
    receiver = Receiver(port)
    try:
        number, reason = retries(receiver.wait(1))[0]
        assert number is not None
        assert reason == "other_error"
    finally:
        receiver.stop()


def test_a_connection_that_was_closed_while_idle_costs_nothing(start: Start, receiver: Receiver) -> None:
    receiver.idle_seconds = 0.05
    post = Post(start(), receiver.url)
    for number in range(1, 4):
        post.sell()
        post.until(delivered=number)
        time.sleep(0.15)
    assert post.status()["failed"] == 0
    assert receiver.connections == 3


def test_what_is_not_http_is_a_failure(start: Start) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def babble() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"+OK this is POP3\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=babble, daemon=True)
    thread.start()
    post = Post(start(), f"http://127.0.0.1:{listener.getsockname()[1]}/")
    post.sell()
    assert post.until(failed=1)["statuses"] == {"connection": 1}
    listener.close()


def test_requests_are_answered_while_no_delivery_is(start: Start, receiver: Receiver) -> None:
    release = threading.Event()
    receiver.answer = lambda number: 200 if release.wait(20) else 500
    post = Post(start(), receiver.url, concurrency=4)
    began = time.monotonic()
    for _ in range(40):
        post.sell()
    assert time.monotonic() - began < 5
    status = post.status()
    assert (status["pending"], status["delivered"]) == (40, 0)
    assert len(receiver.wait(4)) == 4
    time.sleep(0.1)
    assert len(receiver.got) == 4  # no more at a time
    release.set()
    post.until(delivered=40, pending=0)
    assert receiver.connections <= 4


def test_it_ends_with_the_sandbox(start: Start, receiver: Receiver) -> None:
    release = threading.Event()
    receiver.answer = lambda number: 200 if release.wait(20) else 500
    sandbox = start()
    post = Post(sandbox, receiver.url, concurrency=2)
    for _ in range(10):
        post.sell()
    receiver.wait(2)
    assert any(thread.name == "sandbox-webhooks" for thread in threading.enumerate())
    began = time.monotonic()
    sandbox.stop()
    assert time.monotonic() - began < 5
    assert not any(thread.name == "sandbox-webhooks" for thread in threading.enumerate())
    release.set()
    time.sleep(0.2)
    assert len(receiver.got) == 2


def test_a_storm_is_as_large_as_it_was_asked_to_be(start: Start, receiver: Receiver) -> None:
    sandbox = start()
    square = Square(sandbox, "harbor")
    square.http.post("/sandbox/webhooks", json={"url": receiver.url, "concurrency": 1})
    before = len(sandbox.world.sales)
    asked = {"merchant": "harbor", "count": 400, "duplicates": 0.3, "shuffle": True, "late": 0.2}
    storm = square.http.post("/sandbox/storm", json=asked).json()
    assert 400 <= storm["webhooks"] < 404  # what is told of one happening stays together
    copies = round(0.3 * storm["webhooks"])
    assert storm["deliveries"] == storm["webhooks"] + copies
    assert len(sandbox.world.sales) - before == storm["sales"] + storm["refunds"]
    assert storm["sales"] > 50
    assert storm["edits"] > 10
    assert storm["refunds"] > 5
    got = receiver.wait(storm["deliveries"])
    ids = [one.json["event_id"] for one in got]
    assert len(set(ids)) == storm["webhooks"]
    assert max(ids.count(one) for one in set(ids)) == 2
    seen: set[str] = set()
    early = 0
    for one in got:
        early += one.type == "payment.updated" and one.json["data"]["id"] not in seen
        seen |= {one.json["data"]["id"]} if one.type == "payment.created" else set()
    assert early > 20  # an update that came before its creation
    acknowledged = square.http.get("/sandbox/webhooks/acknowledged").json()["acknowledged"]
    assert sorted(acknowledged) == sorted(set(ids))
    assert sum(acknowledged.values()) == storm["deliveries"]


def test_a_storm_that_nobody_hears_does_not_happen(start: Start, receiver: Receiver) -> None:
    sandbox = start()
    http = httpx.Client(base_url=sandbox.url)
    before = len(sandbox.world.sales)
    assert http.post("/sandbox/storm", json={"count": 10}).status_code == 400
    Square(sandbox, "harbor")
    assert http.post("/sandbox/storm", json={"count": 10}).status_code == 400  # no subscription
    http.post("/sandbox/webhooks", json={"url": receiver.url})
    assert http.post("/sandbox/storm", json={"count": 10, "merchant": "fjord"}).status_code == 400
    assert http.post("/sandbox/storm", json={"count": 10_000_000}).status_code == 400
    assert len(sandbox.world.sales) == before
    assert http.post("/sandbox/storm", json={"count": 10}).status_code == 200


def test_a_storm_goes_through_at_300_a_second(start: Start) -> None:
    """Measured by what an event costs of a core, made, signed and sent: a busy machine does not change that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    child = subprocess.Popen([sys.executable, "-c", RECEIVER, str(port)])
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        post = Post(start(), f"http://127.0.0.1:{port}/")
        began = time.process_time()
        post.do("storm", count=1500)
        status = post.until(120, pending=0)
        cost = (time.process_time() - began) / status["delivered"]
    finally:
        child.kill()
        child.wait()
    assert (status["failed"], status["delivered"] >= 1500) == (0, True)
    assert cost < 1 / 300


# The outbox alone, on a clock that stands still. ----------------------------------------------------------------------


class Moment:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def delivery(name: str) -> Delivery:
    return Delivery("http://127.0.0.1:1/", name, "payment.created", b"{}", lambda attempt, failure, first_at: {})


def drain(outbox: Outbox) -> list[str]:
    found = []
    while (one := outbox.take()) is not None:
        found.append(one.event_id)
    return found


def test_it_is_given_up_after_a_day() -> None:
    waits: list[float] = []
    while (minutes := retry_minutes(len(waits))) is not None:
        waits.append(minutes)
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert 24 * 60 <= sum(waits) < 25 * 60
    moment = Moment()
    outbox = Outbox(1, monotonic=moment)
    outbox.send([delivery("a")])
    attempts = 0
    while (one := outbox.take()) is not None:
        attempts += 1
        outbox.failed(one, "status", 500)
        moment.now += 3600
    assert attempts == len(waits) + 1
    assert outbox.snapshot()["given_up"] == 1
    assert outbox.snapshot()["pending"] == 0


def test_what_is_due_first_goes_first() -> None:
    moment = Moment()
    outbox = Outbox(1, monotonic=moment)
    for name, due in (("late", 1003.0), ("b", 1001.0), ("c", 1001.0), ("a", 1000.0)):
        outbox.put(delivery(name), due)
    assert drain(outbox) == ["a"]
    assert outbox.wait() == 1.0
    moment.now = 1002.0
    assert drain(outbox) == ["b", "c"]
    assert outbox.wait() == 1.0


def test_memory_is_bounded_but_a_promise_is_kept() -> None:
    outbox = Outbox(1, most=10, monotonic=Moment())
    outbox.send([delivery(str(number)) for number in range(8)])
    first = outbox.take()
    assert first is not None
    outbox.send([delivery(str(number)) for number in range(8, 16)])
    status = outbox.snapshot()
    assert (status["events"], status["dropped"], status["pending"]) == (16, 5, 11)
    outbox.failed(first, "status", 500)
    assert outbox.snapshot()["dropped"] == 5
    with pytest.raises(ConfigurationError, match="wait already"):
        outbox.room(1)


def test_duplicates_disorder_and_delay() -> None:
    moment = Moment()
    outbox = Outbox(1, monotonic=moment)
    outbox.change(duplicates=0.3, disorder=0.2, delay=(5.0, 6.0))
    names = [f"{number:04d}" for number in range(1000)]
    outbox.send([delivery(name) for name in names])
    moment.now = 1004.9
    assert drain(outbox) == []
    moment.now = 1009.1
    got = drain(outbox)
    assert set(got) == set(names)
    assert 250 < len(got) - 1000 < 350
    assert outbox.snapshot()["duplicates"] == len(got) - 1000
    assert got != sorted(got)
    outbox.change(duplicates=0.0, disorder=0.0, delay=(0.0, 0.0))
    outbox.send([delivery(name) for name in names])
    assert drain(outbox) == names
