"""What the command line says: to a typing error, of how far it is, and of what has ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_pipelines import __version__
from flux_pipelines.cli import app, operations
from flux_pipelines.cli.processes import _how_it_ended
from flux_pipelines.connections import reconfigure
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import FluxError, ProviderUnavailableError, ReauthorizationNeededError
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path))
    return tmp_path


def refused(*arguments: str) -> str:
    """Run a command that must fail with an error of ours; return its message as `flux` prints it."""
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, FluxError), done.output
    return done.exception.outside_a_run()


def test_the_version_is_printed() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout.strip()) == (0, f"flux {__version__}")


def test_a_name_that_is_nearly_right_is_suggested(home: Path) -> None:
    with Runtime(Settings(home=home)) as runtime:
        runtime.state.connections.add(Connection("square:harbor", "Harbor"), {"access_token": "t"})

    assert "Did you mean square:harbor? See `flux connections list`." in refused(
        "connections", "test", "square:harbour"
    )
    days = ("--from", "2026-11-01", "--to", "2026-11-02")
    assert "Did you mean square? Known: " in refused("sync", "squre", *days)
    assert "Did you mean" not in refused("sync", "zzz", *days)


def test_a_test_of_a_connection_gives_no_advice_about_runs() -> None:
    lost, away = ReauthorizationNeededError("it was revoked"), ProviderUnavailableError("it does not answer")
    assert lost.outside_a_run().endswith("Reconnect the account, then try again.")
    assert away.outside_a_run().endswith("Running it again can help. Try again later.")
    assert str(away).endswith("Run the failed partitions again later."), "which is what a run is to say"


def test_the_doctor_tells_of_each_check_as_it_ends(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[str] = []
    real = operations._forecaster  # the last check

    def slow(runtime: Runtime) -> str:
        before.append(capsys.readouterr().out)
        return real(runtime)

    monkeypatch.setattr(operations, "_forecaster", slow)
    operations.doctor()

    assert [line.partition(":")[0] for line in before[0].splitlines()] == [
        "✔ home", "✔ encryption keys and state database", "✔ stored credentials", "✔ apps", "✔ webhook events", "✔ lake",
    ]  # fmt: skip
    assert capsys.readouterr().out.startswith("✔ forecaster: ")
    assert home.exists()


def test_a_rate_limit_is_changed_without_waiting_for_it(home: Path) -> None:
    with Runtime(Settings(home=home), patient=False) as runtime:
        nowhere = {"base_url": "http://127.0.0.1:9", "requests_per_minute": 1}
        runtime.state.connections.add(Connection("square:a", "A", settings=nowhere), {"access_token": "t"})

        changed, locations = reconfigure(runtime, "square:a", settings={"requests_per_minute": 300}, secrets=None)
        assert (changed.settings["requests_per_minute"], locations) == (300, [])
        with pytest.raises(FluxError):  # whatever a call can prove is proved, and put back
            reconfigure(runtime, "square:a", settings={"requests_per_minute": 5, "cutoff_hour": 4}, secrets=None)
        assert runtime.state.connections.get("square:a").settings == {**nowhere, "requests_per_minute": 300}


@pytest.mark.parametrize("code", [-9, 137])
def test_a_server_that_was_killed_is_not_said_to_have_died_of_its_last_words(tmp_path: Path, code: int) -> None:
    log = tmp_path / "sandbox.log"
    log.write_text("The sandbox answers at http://127.0.0.1:8411\n")

    assert _how_it_ended(code, log) == "was ended by a signal (SIGKILL)"
    log.write_text("Traceback\nValueError: no\n")
    assert _how_it_ended(1, log) == "ended with code 1: Traceback / ValueError: no"
