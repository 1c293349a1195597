"""The sandbox is an extra: without it, or without its libraries, whoever asks for it is told what to install."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

import flux_sandbox
from flux_pipelines.cli import serve
from flux_pipelines.cli.processes import Processes
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.registry import all_providers
from flux_sandbox import registry
from flux_sandbox.options import SandboxOptions
from flux_sandbox.world import World


def test_every_folder_with_an_api_is_played() -> None:
    folders = {path.parent.name for path in Path(flux_sandbox.__file__).parent.glob("*/api.py")}
    assert {"shopify", "square", "toast"} <= folders <= set(registry.simulated())
    assert set(registry.simulated()) == {name for name, spec in all_providers().items() if spec.source}


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(SandboxOptions(history_days=1, end_day=date(2026, 11, 2)))
    for name in [name for name in sys.modules if name.startswith("flux_sandbox.shopify")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "graphql"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "graphql", None)
    with pytest.raises(ConfigurationError, match="needs the library graphql") as refused:
        registry.build("shopify", world)
    assert "flux-pipelines[sandbox]" in refused.value.next_step
    assert registry.build("square", world).name == "square"


def test_servers_without_the_sandbox_do_not_start_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serve, "entry_points", lambda **_: ())
    with (
        Processes(tmp_path, "`flux up`") as processes,
        pytest.raises(ConfigurationError, match="the sandbox is not installed"),
    ):
        serve.start_sandbox(processes, 8411)
