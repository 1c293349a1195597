"""Imports go down only, and never in a circle: the table of `house.py`, enforced on every module's syntax tree."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.house import CONTRIBUTING, PACKAGE, ROOMS, SANDBOX, room_of, written

TESTS = PROJECT_ROOT / "flux_pipelines_tests"


def modules() -> Iterator[tuple[Path, str]]:
    """Yield every module of the product and its sandbox, with its full name."""
    for path in sorted([*PACKAGE.rglob("*.py"), *SANDBOX.rglob("*.py")]):
        parts = path.relative_to(PROJECT_ROOT).with_suffix("").parts
        yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rooms() -> Iterator[tuple[Path, str]]:
    """Yield every module with its room."""
    for path, module in modules():
        yield path, room_of(module)


def imports(path: Path) -> Iterator[str]:
    """Yield every module, or attribute of one, imported anywhere in the file, for type checking alone too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_down_only() -> None:
    wrong = []
    imported = [(path, room, name) for path, room in rooms() if room for name in imports(path)]
    for path, room, name in imported:
        first = name.partition(".")[0]
        if (first == "dagster" or first.startswith("dagster_")) and not ROOMS[room].dagster:
            wrong.append(f"{path} imports Dagster")
        if first == "httpx" and room != "transport":
            wrong.append(f"{path} imports httpx: use the transport")
        allowed = ROOMS[room].imports | {room, "", "__version__"}
        if first in (PACKAGE.name, SANDBOX.name) and room_of(name) not in allowed:
            wrong.append(f"{path}, of {room}, imports {name}")
    assert wrong == []


def test_every_room_is_in_the_table() -> None:
    assert {room for _, room in rooms()} - {""} == set(ROOMS)


def test_rooms_import_what_stands_below_them() -> None:
    """The table itself has no circle, and is in the order of the house."""
    order = list(ROOMS)
    for name, room in ROOMS.items():
        above = {other for other in room.imports if order.index(other) < order.index(name)}
        assert not above, f"{name} may import {above}"


def test_the_contributors_table_is_the_enforced_one() -> None:
    text = CONTRIBUTING.read_text()
    assert text == written(text), "run `make docs`"


def test_no_modules_import_each_other() -> None:
    """However far around, and for type checking alone too: what cannot be told apart is one module."""
    names = {module for _, module in modules()}
    graph = {}
    for path, module in modules():
        found = {name if name in names else name.rpartition(".")[0] for name in imports(path)}
        graph[module] = found & names - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


#: Where a merchant of the sandbox's world has its account is data (`businesses.toml`); a replayed data set says it in its reader.
MERCHANTS = {"dataset.py"}


def test_nobody_but_its_own_folder_names_a_provider() -> None:
    """Adding a provider is adding a folder."""
    named = {folder.name for folder in (PACKAGE / "providers").iterdir() if (folder / "__init__.py").exists()}
    for path, room in rooms():
        owner = path.parent.name if room in ("providers", SANDBOX.name) else ""
        if room == SANDBOX.name and path.name in MERCHANTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in named - {owner}, f"{path} names the provider {node.value}"


def test_environment_variables_are_read_in_one_place() -> None:
    for path, room in rooms():
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
    """The product by `dependencies`, the rest by extras: no part relies on what another library happens to need."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    product = names_of(project["dependencies"])
    sandbox = product | names_of(project["optional-dependencies"]["sandbox"])
    development = sandbox | names_of(project["optional-dependencies"]["dev"])
    distributions, lacking = packages_distributions(), []
    of = {SANDBOX.name: sandbox, TESTS.name: development}
    own = {PACKAGE.name, SANDBOX.name, TESTS.name, "benchmarks"}
    for path, room in [*rooms(), *((path, TESTS.name) for path in sorted(TESTS.rglob("*.py")))]:
        mine = of.get(room, product)
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
    # Of these, the product's own libraries need some as well.
    shared = {"markdown-it-py", "packaging", "psutil", "websockets", "werkzeug"}
    assert there.isdisjoint(names_of(extras["dev"]) - {"flux-pipelines"} - shared)
    assert there.isdisjoint({"docker", "flask", "networkx", "sympy"})


#: What reads JSON that Flux or Dagster has written, the text of one JSON string, or (the forecaster) within bounds of its own.
READS_JSON_ITSELF = {
    "domain/decoding.py", "holding.py", "state/people/authorizations.py", "state/migrations/versions/0005_calendars.py",
    "state/outbox/outbox.py",
    "lake/raw.py", "lake/raw_manifest.py", "lake/raw_write.py", "defs/sensors/changes.py", "defs/sensors/closed_dates.py",
    "defs/erasures.py", "privacy/redactor.py", "erasure/wanted.py", "forecaster/app.py", "forecaster/contract.py",
}  # fmt: skip


def test_json_of_others_is_decoded_in_one_place() -> None:
    """Its depth and width are bounded there."""
    found = set()
    for path, room in rooms():
        if room == SANDBOX.name:
            continue
        name = str(path.relative_to(PACKAGE))
        names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if names & {"json.loads", "json.load", "msgspec.json.decode", "msgspec.json.Decoder"}:
            found.add(name)
    assert found == READS_JSON_ITSELF
