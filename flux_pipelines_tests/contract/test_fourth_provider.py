"""A fourth provider, Acorn: written out of docs/add-a-provider.md into temporary folders, and nothing else is needed.

It is played in a process of its own, which finds one folder of providers, and one of the sandbox's, more than this one. There it is put through the
contract suite, and through `fourth_provider.py`: assets, gateway, sandbox, and tables that equal the truth.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from flux_pipelines.providers import witness
from flux_pipelines.settings import PROJECT_ROOT

HERE = Path(__file__).parent
PAGE = (PROJECT_ROOT / "docs" / "add-a-provider.md").read_text()
PLAYED = [*sorted(HERE.glob("test_*.py")), HERE / "fourth_provider.py"]
#: For providers with a sales report of their own. Acorn has none: a report is a stream like others, and no provider needs it.
OF_A_REPORT = HERE / "test_reports.py"
PLUGIN = "one_folder_more"
_PLUGIN = """
import flux_sandbox
from flux_pipelines import providers

providers.__path__.append({folder!r} + "/flux_pipelines/providers")
flux_sandbox.__path__.append({folder!r} + "/flux_sandbox")
"""


def files_of_the_page() -> dict[str, str]:
    """Return the worked provider's files by path."""
    blocks = re.findall(r"^`(flux_[\w/]+/acorn/[\w.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(blocks) == len(dict(blocks)), "a file stands twice"
    return dict(blocks)


def functions_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_nothing_outside_its_folder_names_it() -> None:
    for path in [*(PROJECT_ROOT / "flux_pipelines").rglob("*"), *(PROJECT_ROOT / "flux_sandbox").rglob("*")]:
        if path.suffix in {".py", ".sql", ".html"}:
            assert "acorn" not in path.read_text().lower(), path


def test_a_folder_is_all_that_a_provider_needs(tmp_path: Path) -> None:
    files = files_of_the_page()
    assert all(witness.STREAM not in text for text in files.values()), (
        "it has a report now: the suite's tests of it count"
    )
    for name, text in files.items():
        (tmp_path / "worked" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "worked" / name).write_text(text)
    (tmp_path / f"{PLUGIN}.py").write_text(_PLUGIN.format(folder=str(tmp_path / "worked")))
    played = [path for path in PLAYED if path != Path(__file__)]
    options = ("-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rA", "-k", "acorn")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--basetemp", str(tmp_path / "tests"), *map(str, played)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    passed = set(re.findall(r"^PASSED \S+::(\w+)", ran.stdout, re.M))
    wanted = set().union(*(functions_of(path) for path in played if path != OF_A_REPORT))
    assert wanted
    assert passed == wanted, "every test of the suite has a case for it"
