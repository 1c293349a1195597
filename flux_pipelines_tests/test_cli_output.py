from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flux_pipelines.cli.output import counted, flux_command


def test_what_is_said_to_be_typed_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [".venv/bin/flux", "demo"])
    assert flux_command() == ".venv/bin/flux"
    monkeypatch.setattr(sys, "argv", ["/my work/.venv/bin/flux", "demo"])
    assert flux_command() == "'/my work/.venv/bin/flux'"
    found = tmp_path / "flux"
    found.touch(mode=0o755)
    assert flux_command() == "flux"


def test_a_process_that_is_not_the_command_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/somewhere/flux_pipelines/cli/__main__.py", "demo"])
    assert flux_command() == "flux"


def test_one_is_not_many() -> None:
    assert [counted(n, "location") for n in (0, 1, 1200)] == ["0 locations", "1 location", "1,200 locations"]
