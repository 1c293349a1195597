"""Imports go down only: the table in docs and CONTRIBUTING, enforced on every module's syntax tree."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flux_pipelines.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "flux_pipelines"
#: Beside the product, and above it: a room that nobody imports.
SANDBOX = PROJECT_ROOT / "flux_sandbox"

#: What each room may import of the others. `__init__` stands for the package's own file, which everyone may import.
BELOW: dict[str, set[str]] = {
    "domain": set(),
    "settings": set(),
    "listening": {"domain"},
    "holding": set(),
    "sqlite": set(),
    "transport": {"domain", "sqlite", "providers"},  # only `providers.base`, for types: see below
    "state": {"domain", "sqlite"},
    "lake": {"domain"},
    "providers": {"domain", "transport"},
    "privacy": {"domain", "providers"},  # only `providers.base`: see below
    "sync": {"domain", "transport", "lake", "providers"},
    "forecaster": {"domain", "settings"},
    "runtime": {"domain", "settings", "transport", "state", "lake", "providers", "privacy", "sync", "forecaster"},
    "connections": {"domain", "transport", "runtime", "providers"},
    "mapping": {"domain", "state", "lake", "runtime"},
    "erasure": {"domain", "state", "lake", "providers", "privacy", "runtime"},
    "gateway": {
        "domain", "settings", "transport", "state", "lake", "providers", "privacy", "sync", "runtime", "connections",
        "listening",
    },
    "defs": {
        "domain", "settings", "transport", "state", "lake", "providers", "privacy", "sync", "forecaster", "runtime",
        "erasure", "mapping", "holding",
    },
    "pipelines": {"defs"},
    "definitions": {"defs"},
    "cli": {
        "domain", "settings", "transport", "state", "lake", "providers", "privacy", "sync", "forecaster",
        "runtime", "erasure", "mapping", "connections", "gateway", "defs", "holding", "listening",
    },
    "flux_sandbox": {"domain", "providers", "listening"},
}  # fmt: skip

#: Only these rooms know Dagster; a provider's resource.py does too.
DAGSTER = {"defs", "pipelines"}
SETTINGS_READERS = {"runtime", "defs", "cli", "forecaster", "gateway"}


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        first = path.relative_to(PACKAGE).parts[0]
        yield path, first.removesuffix(".py")
    for path in sorted(SANDBOX.rglob("*.py")):
        yield path, SANDBOX.name


def imports(path: Path) -> Iterator[str]:
    """Yield every module imported anywhere in the file, those for type checking included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            module = node.module or ""
            yield module
            if module == "flux_pipelines":
                yield from (f"flux_pipelines.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("path", "room"), list(modules()), ids=lambda value: str(value).removeprefix(str(PROJECT_ROOT) + "/")
)
def test_imports_go_down_only(path: Path, room: str) -> None:
    if room == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "dagster" or parts[0].startswith("dagster_"):
            assert room in DAGSTER or path.name == "resource.py", f"{path.name} imports Dagster"
        if parts[0] == "dagster" and any(part.startswith("_") for part in parts):
            assert path.parent.name == "internals", f"{path.name} imports {name}: only defs/internals does"
        if parts[0] == "httpx":
            assert room == "transport", f"{path.name} imports httpx: use the transport"
        assert parts[0] != SANDBOX.name or room == SANDBOX.name, f"{room}/{path.name} imports {name}"
        if parts[0] != "flux_pipelines" or len(parts) == 1:
            continue
        other = parts[1]
        if other in (room, "__version__"):
            continue
        if path.name == "resource.py" and other == "runtime":
            continue  # the face of a provider to Dagster: it stands above everything, whatever its folder
        assert other in BELOW[room], f"{room}/{path.name} imports {name}"
        if other == "settings":
            assert room in SETTINGS_READERS, f"{path.name} reads settings: give it arguments"
        if (room, other) in (("transport", "providers"), ("privacy", "providers")):
            assert name == "flux_pipelines.providers.base", f"{path.name} imports {name}"


def test_every_room_is_in_the_table() -> None:
    assert {room for _, room in modules()} - {"__init__"} == set(BELOW)


#: Where a merchant of the sandbox's world has its account is data: these files are the merchants.
MERCHANTS = {"businesses.py", "businesses_kitchen.py", "businesses_shop.py", "dataset.py"}


def test_nobody_but_its_own_folder_names_a_provider() -> None:
    """Adding a provider is adding a folder."""
    named = {folder.name for folder in (PACKAGE / "providers").iterdir() if (folder / "__init__.py").exists()}
    for path, room in modules():
        owner = path.parent.name if room in ("providers", SANDBOX.name) else ""
        if room == SANDBOX.name and path.name in MERCHANTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in named - {owner}, f"{path} names the provider {node.value}"


def test_environment_variables_are_read_in_one_place() -> None:
    for path, room in modules():
        if room == "settings":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called not in {"os.getenv", "os.environ.get"}, f"{path}:{node.lineno} reads the environment"


def names_of(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def locked(name: str) -> set[str]:
    """The exact versions of a lock file, whatever the systems that they are for."""
    lines = (PROJECT_ROOT / name).read_text().splitlines()
    return {line.partition(" ")[0] for line in lines if "==" in line}


def test_what_is_imported_is_declared() -> None:
    """The product by `dependencies`, its sandbox by an extra: no part relies on what another library happens to need."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    product = names_of(project["dependencies"])
    sandbox = product | names_of(project["optional-dependencies"]["sandbox"])
    distributions, lacking = packages_distributions(), []
    for path, room in modules():
        mine = sandbox if room == SANDBOX.name else product
        own = {"flux_pipelines", SANDBOX.name}
        for name in {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names - own:
            ours = {canonicalize_name(one) for one in distributions.get(name, ())}
            if not (name.startswith("mypy_") or mine & ours):  # stubs are for type checking
                lacking.append(f"{path} imports {name}")
    assert lacking == []


def test_the_products_lock_has_nothing_of_development() -> None:
    extras = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    product, everything = locked("requirements.lock"), locked("requirements-dev.lock")
    assert product < everything, "`make lock` resolves both"
    there = names_of(product)
    assert names_of(extras["sandbox"]) <= there, "`make demo` needs no more than the product"
    assert there.isdisjoint(names_of(extras["dev"]) - {"flux-pipelines"})
    assert there.isdisjoint({"docker", "flask", "networkx", "sympy"})


#: What reads JSON that Flux or Dagster has written, the text of one JSON string, or (the forecaster) within bounds of its own.
READS_JSON_ITSELF = {
    "domain/decoding.py", "holding.py", "state/people/authorizations.py", "state/migrations/versions/0005_calendars.py",
    "lake/raw.py", "lake/raw_manifest.py", "lake/raw_write.py", "defs/sensors/order_changes.py", "defs/sensors/closed_dates.py",
    "defs/erasures.py", "defs/sensors/feed_changes.py", "privacy/redactor.py", "erasure/wanted.py", "forecaster/app.py", "forecaster/contract.py",
}  # fmt: skip


def test_json_of_others_is_decoded_in_one_place() -> None:
    """Its depth and width are bounded there."""
    found = set()
    for path, room in modules():
        if room == SANDBOX.name:
            continue
        name = str(path.relative_to(PACKAGE))
        names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if names & {"json.loads", "json.load", "msgspec.json.decode", "msgspec.json.Decoder"}:
            found.add(name)
    assert found == READS_JSON_ITSELF
