"""`flux privacy` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_pipelines.cli import app
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, UnknownConnectionError
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines_tests.sync.rawfiles import land

KEY = "square:acme"
RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    settings.cache_clear()
    with Runtime() as runtime:
        runtime.state.connections.add(Connection(KEY, "acme"))
        redactor = runtime.redactor(runtime.state.connections.get(KEY))
        assert redactor is not None
        orders = [b'{"id":"O%d","customer_id":"C%d","total_money":{"amount":%d}}' % (n, n % 2, n) for n in range(4)]
        land(runtime.raw, [bytes(order) for order in redactor(orders)], connection=KEY)
    return tmp_path


def run(*arguments: str, stdin: str = "") -> str:
    done = RUNNER.invoke(app, ["privacy", *arguments], input=stdin, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str, stdin: str = "") -> str:
    done = RUNNER.invoke(app, ["privacy", *arguments], input=stdin)
    assert isinstance(done.exception, ConfigurationError), done.output
    return str(done.exception)


def test_somebody_is_erased_and_it_can_be_shown(home: Path) -> None:
    assert "Nothing was asked" in run("report")
    said = run("erase", KEY, "--customer", "C1", "--order", "O2", "--text", "-", stdin="ada@example.com\n\n")
    assert "3 records in 1 raw partitions" in said
    assert "ada" not in said
    listed = run("report")
    assert "1 customers, 1 orders, 1 texts" in listed
    assert "command line" in listed
    assert "C1" not in listed
    assert "1 records in 1 raw partitions" in run("erase", KEY, "--everything"), "the one that was left"
    assert "everything" in run("report", KEY)
    assert "Nothing was asked" in run("report", "square:other")


def test_what_is_personal_can_be_listed(home: Path) -> None:
    listed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in run("declared", "square").splitlines()]
    assert ["square", "customer_id", "", "a pseudonym"] in listed
    assert ["square", "buyer_email_address", "", "null"] in listed
    assert ["square", "phone_number", "recipient", "null"] in listed
    assert "toast" in run("declared")


def test_who_is_to_be_erased_must_be_said_in_the_right_way(home: Path) -> None:
    assert "nobody is named" in refused("erase", KEY)
    assert "nobody is named" in refused("erase", KEY, "--text", "-")
    assert "--everything alone" in refused("erase", KEY, "--everything", "--customer", "C1")
    said = refused("erase", KEY, "--text", "ada@example.com")
    assert "standard input" in said
    assert "ada" not in said
    assert "at least 4 characters" in refused("erase", KEY, "--text", "-", stdin="ada\n")
    assert isinstance(
        RUNNER.invoke(app, ["privacy", "erase", "square:x", "--customer", "C"]).exception, UnknownConnectionError
    )
