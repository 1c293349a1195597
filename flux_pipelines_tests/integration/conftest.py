"""A home of its own, and the `flux` command: its own entry in this process, or as a user runs it, in one of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.cli import main
from flux_pipelines.forecaster.embedded import EmbeddedForecaster
from flux_pipelines.settings import PROJECT_ROOT, Settings, settings
from flux_pipelines_tests.defs.conftest import new_instance
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

SHARED = PROJECT_ROOT.parent / "shared"
PIZZA = SHARED / "data" / "pizza"
END_DAY = date(2026, 3, 10)  # two days after New York's clocks went forward
FIRST = END_DAY - timedelta(days=6)
RANGE = ("--from", str(FIRST), "--to", str(END_DAY))


class Flux:
    """Runs `flux` in a home of its own, in this process: starting Python takes longer than most commands."""

    #: One forecaster for all homes, while there is one: its libraries take seconds to load.
    forecast_url = "embedded"

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLUX_", "DAGSTER_HOME"))}
        self.environment = {
            **kept,
            "FLUX_HOME": str(home),
            "FLUX_START_DATE": "2026-01-01",
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "FLUX_FORECAST_URL": self.forecast_url,
            **environment,
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "flux_pipelines.cli", *arguments]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever comes of it."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["flux", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            settings.cache_clear()
            with pytest.raises(SystemExit) as ended:
                main()
        settings.cache_clear()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must succeed; return what it printed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"flux {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must fail with a message of ours; return the message."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"flux {arguments} succeeded: {done.stdout}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query over the lake."""
        rows: list[dict[str, Any]] = json.loads(self("sql", query, "--format", "json"))
        return rows

    def contents(self) -> dict[str, str]:
        """Return a fingerprint of the content of every table, in no order."""
        tables = [
            "square.transactions",
            "transactions",
            "daily_sales",
            "daily_item_demand",
            "demand_forecasts",
            "forecast_accuracy",
        ]
        query = " union all ".join(
            f"select '{table}' as name, count(*) || ' ' || coalesce(bit_xor(md5_number(t::varchar))::varchar, '') as print from {table} t"
            for table in tables
        )
        return {row["name"]: row["print"] for row in self.ask(query)}


class FluxProcess(Flux):
    """Runs `flux` as a user does: every command in a process of its own."""

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever comes of it."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=280,
            check=False,
        )


@pytest.fixture(scope="session", autouse=True)
def forecaster() -> Iterator[None]:
    with EmbeddedForecaster([Settings().forecast_endpoint]) as running:
        Flux.forecast_url = running.url
        yield
    Flux.forecast_url = "embedded"


@pytest.fixture
def flux(tmp_path: Path) -> Flux:
    """A home in which nothing has happened, with a Dagster instance that was not made for it but copied."""
    (tmp_path / "home").mkdir(mode=0o700)
    shutil.copytree(new_instance() / "dagster", tmp_path / "home" / "dagster")
    return Flux(tmp_path / "home")


@pytest.fixture(scope="module")
def world() -> Iterator[RunningSandbox]:
    """A seeded world that only reads are made of; tests that change a world start their own."""
    with RunningSandbox(SandboxOptions(history_days=40, end_day=END_DAY)) as sandbox:
        yield sandbox


def truth(sandbox: RunningSandbox, merchant: str, first: date, last: date, cutoff_hour: int = 0) -> dict[str, Any]:
    """Return the sandbox's own account of some business dates of a merchant."""
    answer = httpx.get(
        f"{sandbox.url}/sandbox/truth",
        params={"merchant": merchant, "from": str(first), "to": str(last), "cutoff_hour": cutoff_hour},
        timeout=60,
    )
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body
