"""The documentation says what is: commands, settings, errors, links, and the worked provider."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer

from flux_pipelines import providers
from flux_pipelines.cli import app
from flux_pipelines.domain import errors
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.domain.money import from_minor
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.settings import PROJECT_ROOT, Settings
from flux_pipelines.transport import errors as transport_errors

DOCS = PROJECT_ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
ADD_A_PROVIDER = (DOCS / "add-a-provider.md").read_text()
PAGES = sorted([PROJECT_ROOT / "README.md", PROJECT_ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None or command.invoke_without_command:
        yield path, command
    if inner is None:
        return
    for name, child in inner.items():
        yield from _commands(child, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app), ("flux",)))


def _section(command: tuple[str, ...]) -> str:
    """Return the part of the command reference that is about one command."""
    found = re.search(
        rf"^### `{re.escape(' '.join(command))}[ `].*?(?=^##)", OPERATIONS + "\n## ", re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/operations.md has no section for `{' '.join(command)}`"
    return found.group()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_documented(command: tuple[str, ...]) -> None:
    section = _section(command)
    options = {
        name
        for parameter in COMMANDS[command].params
        if parameter.param_type_name == "option"
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }
    documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
    assert options <= documented, f"not documented: {options - documented}"
    known = options | {name for parameter in COMMANDS[command].params for name in parameter.secondary_opts}
    assert documented <= known, f"no such options: {documented - known}"


def test_no_command_is_documented_that_does_not_exist() -> None:
    headings = re.findall(r"^### `(flux[^`]*)`", OPERATIONS, re.MULTILINE)
    assert {tuple(word for word in re.split(r" (?=[A-Z\[\"-])", heading)[0].split()) for heading in headings} == set(
        COMMANDS
    )


def test_every_setting_is_documented_with_its_description() -> None:
    rows = dict(re.findall(r"^\| `(FLUX_[A-Z_]+)` \|[^|]*\| ([^|]*) \|$", OPERATIONS, re.MULTILINE))
    assert rows == {f"FLUX_{name.upper()}": field.description for name, field in Settings.model_fields.items()}


def test_every_flux_variable_that_is_named_anywhere_is_a_setting() -> None:
    known = {f"FLUX_{name.upper()}" for name in Settings.model_fields}
    for page in [*PAGES, PROJECT_ROOT / ".env.example"]:
        named = set(re.findall(r"\bFLUX_[A-Z][A-Z_]*[A-Z]\b", page.read_text()))
        assert named <= known, f"{page.name}: {named - known}"


def _error_classes() -> dict[str, type[FluxError]]:
    return {
        name: kind
        for module in (errors, transport_errors)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, FluxError) and kind.__module__ == module.__name__
    }


def test_every_error_is_documented_and_whether_a_rerun_helps() -> None:
    rows = dict(re.findall(r"^\| `(\w+Error)` \| (yes|no) \|", OPERATIONS, re.MULTILINE))
    assert rows == {name: "yes" if kind.rerun_helps else "no" for name, kind in _error_classes().items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_relative_links_point_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {target}"


def test_copying_the_example_environment_changes_nothing() -> None:
    lines = (PROJECT_ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)


# The worked provider of docs/add-a-provider.md, written out and run. -------------------------------------------------


@pytest.fixture
def acorn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The skeleton's files, as a provider that the registry finds."""
    folder = tmp_path / "providers" / "acorn"
    folder.mkdir(parents=True)
    blocks = re.findall(
        r"^`flux_pipelines/providers/acorn/([\w.]+)`\n\n```\w+\n(.*?)^```$", ADD_A_PROVIDER, re.M | re.S
    )
    assert {name for name, _ in blocks} == {"__init__.py", "client.py", "oauth.py", "sandbox.py", "transactions.sql"}
    for name, text in blocks:
        (folder / name).write_text(text)
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(folder.parent)])
    importlib.invalidate_caches()
    all_providers.cache_clear()
    yield
    all_providers.cache_clear()
    for name in [name for name in sys.modules if name.startswith("flux_pipelines.providers.acorn")]:
        del sys.modules[name]
    if hasattr(providers, "acorn"):
        del providers.acorn


@pytest.mark.parametrize("merchant", ["harbor", "sakura"])
def test_the_worked_provider_fetches_every_order_to_the_cent(acorn: None, tmp_path: Path, merchant: str) -> None:
    from flux_pipelines.connect import connect_to_sandbox
    from flux_pipelines.providers.registry import provider
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.sandbox.options import SandboxOptions
    from flux_pipelines.sandbox.server import RunningSandbox
    from flux_pipelines.sandbox.truth import truth
    from flux_pipelines.sync.normalise import Normalisation
    from flux_pipelines.sync.orders import sync_orders

    last = date(2026, 11, 2)
    days = [last - timedelta(days=n) for n in range(3)]
    options = SandboxOptions(history_days=10, end_day=last, rate_limit=1_000_000)
    with RunningSandbox(options) as sandbox, Runtime(Settings(home=tmp_path / "home")) as runtime:
        key = f"acorn:{merchant}"
        connection, locations = connect_to_sandbox(runtime, key, tenant="tenant", url=sandbox.url)
        source = runtime.source(connection)
        spec = provider("acorn")
        outcomes = list(sync_orders(source, connection, locations, days, runtime.raw, provider=spec))
        manifests = [outcome.manifest for outcome in outcomes if outcome.manifest is not None]
        work = Normalisation(spec, runtime.raw, connection, manifests)
        rows = [row for batch in work.batches() for row in batch.to_pylist()]
        told = truth(sandbox.world, merchant=merchant, first=days[-1], last=days[0])

    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert {manifest.verification.status for manifest in manifests} == {"verified"}
    assert work.bad == []
    expected: dict[tuple[str, date], dict[str, Any]] = {
        (day.location_id, day.business_date): day.as_json() for day in told
    }
    assert expected
    assert {(row["location_id"], row["business_date"]) for row in rows} == set(expected)
    for where, day in expected.items():
        here = [row for row in rows if (row["location_id"], row["business_date"]) == where]
        for amount in ("net", "tax", "total"):
            assert sum((row[amount] for row in here), Decimal(0)) == from_minor(day[amount], day["currency"]), (
                where,
                amount,
            )


def test_the_worked_provider_gets_its_assets_and_automation(acorn: None) -> None:
    from flux_pipelines.definitions import build_definitions

    definitions = build_definitions()
    keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    assert {"acorn/raw_orders", "acorn/transactions"} <= keys
    assert {"acorn_daily"} <= {schedule.name for schedule in definitions.schedules or ()}
    assert {"acorn_changes", "acorn_connections", "acorn_watch"} <= {
        sensor.name for sensor in definitions.sensors or ()
    }
    assert definitions.resolve_job_def("sync_acorn") is not None
