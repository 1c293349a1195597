"""`flux sandbox emit`: what it makes happen, and that it fails when nobody is told."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from typer.testing import CliRunner, Result

from flux_pipelines.cli import app
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines_tests.sandbox.conftest import Square
from flux_pipelines_tests.sandbox.receiver import Receiver
from flux_sandbox.server import RunningSandbox

Emit = Callable[..., Result]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


@pytest.fixture
def sandbox(start: Callable[..., RunningSandbox]) -> RunningSandbox:
    return start(history_days=10)


@pytest.fixture
def emit(sandbox: RunningSandbox) -> Emit:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["sandbox", "emit", *arguments, "--url", sandbox.url])

    return run


def test_everything_that_can_be_emitted(sandbox: RunningSandbox, receiver: Receiver, emit: Emit) -> None:
    Square(sandbox, "harbor")
    httpx.post(f"{sandbox.url}/sandbox/webhooks", json={"url": receiver.url, "concurrency": 1})
    count = 0
    for arguments, told in (
        (("sale",), ["payment.created", "payment.updated"]),
        (("sale", "--online", "--count", "2"), ["order.created", "payment.created", "payment.updated", "order.updated"] * 2),
        (("sale", "--hours-ago", "20"), ["payment.created", "payment.updated"]),
        (("edit",), ["order.updated", "payment.updated"]),
        (("edit", "--add-units", "0"), ["order.updated"]),
        (("refund",), ["refund.created", "refund.updated", "payment.updated"]),
        (("complete",), ["payment.created", "payment.updated"]),
        (("cancel",), ["order.updated"]),
        (("location", "Kiosk", "--merchant", "Harbor Coffee"), ["location.created"]),
        (("event", "catalog.version.updated"), ["catalog.version.updated"]),
        (("event", "made.up"), ["made.up"]),
        (("revoke",), ["oauth.authorization.revoked"]),
    ):  # fmt: skip
        result = emit(*arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        assert f"{len(told)} webhook" in result.output
        got = receiver.wait(count + len(told))[count:]
        assert [one.type for one in got] == told, arguments
        count += len(told)


@pytest.mark.parametrize(
    ("merchant", "more"),
    [("harbor-kitchen", ("revoke",)), ("harbor-shop", ("erase", "uninstall"))],
)
def test_merchants_of_every_provider_can_be_named(
    sandbox: RunningSandbox, receiver: Receiver, emit: Emit, merchant: str, more: tuple[str, ...]
) -> None:
    for path, body in (
        ("tokens", {"merchant": merchant}),
        ("webhooks", {"url": receiver.url, "provider": sandbox.world.merchant(merchant).provider}),
    ):
        httpx.post(f"{sandbox.url}/sandbox/{path}", json=body).raise_for_status()
    for command in ("sale", "edit", "refund", *more):
        result = emit(command, "--merchant", merchant)
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert "webhook" in result.output, command
    sent = httpx.get(f"{sandbox.url}/sandbox/webhooks").json()["events"]
    topics = [one.headers.get("x-shopify-topic") for one in receiver.wait(sent)]
    if merchant == "harbor-shop":
        assert {"orders/create", "refunds/create", "customers/redact", "app/uninstalled"} <= set(topics)


def test_a_storm_is_waited_for(sandbox: RunningSandbox, receiver: Receiver, emit: Emit) -> None:
    Square(sandbox, "sakura")
    httpx.post(f"{sandbox.url}/sandbox/webhooks", json={"url": receiver.url})
    result = emit("storm", "--count", "100", "--duplicates", "0.5", "--shuffle", "--wait", "30")
    assert result.exit_code == 0, (result.output, result.exception)
    assert 150 <= len(receiver.got) <= 160
    receiver.answer = lambda number: 503
    result = emit("storm", "--count", "10", "--wait", "0.2")
    assert isinstance(result.exception, ConfigurationError)
    assert "still under way" in str(result.exception)


@pytest.mark.parametrize("command", [("sale",), ("storm",), ("revoke",)])
def test_nobody_is_told_of_a_merchant_that_has_not_authorised(emit: Emit, command: tuple[str, ...]) -> None:
    result = emit(*command)
    assert isinstance(result.exception, ConfigurationError)
    assert "authorised" in str(result.exception)


def test_a_sale_that_nobody_is_told_of_is_an_error(sandbox: RunningSandbox, emit: Emit) -> None:
    Square(sandbox, "fjord")
    result = emit("sale")
    assert isinstance(result.exception, ConfigurationError)
    assert "no webhook was sent" in str(result.exception)


def test_what_does_not_exist_is_named(sandbox: RunningSandbox, receiver: Receiver, emit: Emit) -> None:
    Square(sandbox, "fjord")
    httpx.post(f"{sandbox.url}/sandbox/webhooks", json={"url": receiver.url})
    for arguments in (("sale", "--merchant", "nobody"), ("edit", "no-such-order"), ("sale", "--location", "nowhere")):
        result = emit(*arguments)
        assert isinstance(result.exception, ConfigurationError), result.output
        assert arguments[-1] in str(result.exception)
    assert receiver.got == []


def test_no_sandbox_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    result = CliRunner().invoke(app, ["sandbox", "emit", "sale", "--url", url])
    assert isinstance(result.exception, ConfigurationError)
    assert url in str(result.exception)
