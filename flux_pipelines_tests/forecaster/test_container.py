"""What can be said of the image without a container engine."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

from flux_pipelines.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy" / "forecaster"


def locked(file: Path) -> set[str]:
    return set(re.split(r"\n(?=\S)", file.read_text().strip()))


def test_its_lock_is_a_part_of_the_projects_lock() -> None:
    ours, all_of_it = locked(FOLDER / "requirements.lock"), locked(PROJECT_ROOT / "requirements.lock")
    assert len(ours) > 20
    assert ours <= all_of_it, "make the container's lock anew: the command is in deploy/forecaster/requirements.in"


def test_the_server_needs_nothing_but_what_the_image_holds() -> None:
    entries = (block.split(" \\", 1)[0].splitlines()[0] for block in locked(FOLDER / "requirements.lock"))
    installed = {Requirement(entry).name.replace("-", "_") for entry in entries}
    room = PROJECT_ROOT / "flux_pipelines" / "forecaster"
    for name in ("__init__", "__main__", "app", "workers", "model", "items"):
        for node in ast.walk(ast.parse((room / f"{name}.py").read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                top = module.partition(".")[0]
                copied = module == "flux_pipelines.forecaster" or module.startswith("flux_pipelines.forecaster.")
                assert top in sys.stdlib_module_names or top in installed or copied, f"{name}.py imports {module}"
