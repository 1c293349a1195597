"""A lake, or a home, that may only be read: what reads works, what writes says one clear thing, nothing is half-done."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flux_pipelines.defs.driver import dagster_home
from flux_pipelines.defs.internals.instance import FluxStorage
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines_tests.integration.conftest import END_DAY, FluxProcess
from flux_sandbox.server import RunningSandbox

ONE_DAY = ("--from", str(END_DAY), "--to", str(END_DAY))
SYNC = ("sync", "square", "--sales-only", *ONE_DAY)

#: Runs `flux` as a user whom modes bind: root passes over them until it gives up CAP_DAC_OVERRIDE for its children.
_BOUND = """
import ctypes, os, sys
if os.geteuid() == 0:
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "CAP_DAC_OVERRIDE cannot be given up")
os.execv(sys.executable, [sys.executable, "-m", "flux_pipelines.cli", *sys.argv[1:]])
"""


class Bound(FluxProcess):
    """Runs `flux` as a user whom the modes of files bind."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _BOUND, *arguments]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write everything below a folder away for a `with` block."""
    found = [Path(root) / name for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    modes = {path: path.stat().st_mode for path in (folder, *found)}
    try:
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextmanager
def for_all_to_read() -> Iterator[None]:
    """Let the files that processes make be read by everybody unless they see to it, as on most machines."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def bound(world: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Bound:
    """A home with a day of a connection's sales."""
    flux = Bound(tmp_path_factory.mktemp("read-only") / "home")
    with for_all_to_read():
        flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
        flux(*SYNC)
    return flux


def test_nobody_else_on_the_machine_can_read_what_a_home_holds(bound: Bound) -> None:
    found = [bound.home, *bound.home.rglob("*")]
    assert len(found) > 50
    assert [path for path in found if path.lstat().st_mode & 0o077] == []


@pytest.mark.parametrize("first", ["state", "transport", "lake", "dagster", "storage"])
def test_a_home_is_closed_to_others_whoever_makes_it_and_one_that_was_open_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    home = tmp_path / "above" / "home"
    monkeypatch.setenv("FLUX_HOME", str(home))
    settings.cache_clear()

    def open_it() -> None:
        with Runtime() as runtime:
            if first == "lake":
                runtime.lake.prove_writable()
            elif first == "dagster":
                dagster_home(runtime.settings)
            elif first == "storage":
                FluxStorage().dispose()
            else:
                getattr(runtime, first)

    with for_all_to_read():
        open_it()
        assert [stat.S_IMODE(path.stat().st_mode) for path in (home.parent, home)] == [0o700, 0o700]
        home.chmod(0o755)
        open_it()
    if first != "lake":  # which may be read where nothing may be changed
        assert stat.S_IMODE(home.stat().st_mode) == 0o700


def refusal(message: str, where: Path) -> None:
    """What everything that writes says, once."""
    assert "is refused: permission denied" in message
    assert str(where) in message
    assert message.count("Running it again will not help by itself.") == 1
    assert "Let the user that Flux runs as read and write there" in message


def test_a_read_only_lake_answers_questions_and_refuses_the_rest_clearly(bound: Bound) -> None:
    lake = bound.home / "lake"
    count = "select count(*) as n from transactions"
    (before,) = bound.ask(count)
    assert before["n"] > 0
    with read_only(lake):
        assert bound.ask(count) == [before]
        refusal(bound.fails(*SYNC), lake)  # the failure of a step of a Dagster run
        refusal(bound.fails("privacy", "erase", "square:sakura", "--everything"), lake)
        (row,) = json.loads(bound("connections", "list", "--json"))
        assert row["contact"] == "Sync failed"
        assert "permission denied" in row["reason"]
    with read_only(lake / "raw"):
        done = bound.run("doctor")
        assert (done.returncode, done.stderr) == (1, "")
        (finding,) = [line for line in done.stdout.splitlines() if "✘" in line]
        assert "lake" in finding
        assert "is refused: permission denied" in finding
    bound(*SYNC)
    (row,) = json.loads(bound("connections", "list", "--json"))
    assert row["contact"] == "good"
    assert bound.ask(count) == [before]


def test_a_read_only_home_or_dagster_is_one_clear_error(bound: Bound) -> None:
    with read_only(bound.home / "dagster"):
        refusal(bound.fails(*SYNC), bound.home / "dagster")
    with read_only(bound.home):
        assert bound.ask("select count(*) as n from transactions")[0]["n"] > 0
        message = bound.fails("connections", "list")
        assert "state database" in message
        assert "Give this user the right to write the file and its folder." in message


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with read_only(tmp_path):
        refusal(Bound(tmp_path / "home").fails("connections", "list"), tmp_path / "home")
