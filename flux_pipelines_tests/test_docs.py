"""The documentation says what is: commands, settings, errors, links. Its worked provider: contract/test_fourth_provider.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flux_pipelines.cli import app
from flux_pipelines.domain import errors
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.settings import PROJECT_ROOT, Settings
from flux_pipelines.transport import errors as transport_errors

DOCS = PROJECT_ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
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
