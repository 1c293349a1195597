"""A fourth provider, Acorn, which `flux providers new` writes, and a fifth, Bunch (`bunch`): a folder of each is all that is needed.

They are played in a process of its own, which finds one folder of providers, and one of the sandbox's, more than this one. There they are put through
the contract suite, and through `fourth_provider.py` (assets, gateway, sandbox, and tables that equal the truth) and `fifth_provider.py`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_pipelines.cli import app
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers import new, witness
from flux_pipelines.providers.new import PLACES
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.contract import bunch

HERE = Path(__file__).parent
BOOKS = HERE / "test_books.py"
PLAYED = [path for path in sorted(HERE.glob("test_*.py")) if path != Path(__file__)]
#: For providers with a sales report of their own. Acorn has none: a report is a stream like others, and no provider needs it.
OF_A_REPORT = HERE / "test_reports.py"
PLUGIN = "one_folder_more"
_PLUGIN = """
import flux_sandbox
from flux_pipelines import providers

providers.__path__.append({folder!r} + "/flux_pipelines/providers")
flux_sandbox.__path__.append({folder!r} + "/flux_sandbox")
"""


def functions_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def checkout(folder: Path) -> Path:
    """Make what `flux providers new` takes for a checkout."""
    for place in PLACES.values():
        (folder / "worked" / place).mkdir(parents=True)
    return folder / "worked"


def suite(folder: Path, played: list[Path], names: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a process that finds the providers of a checkout beside the project's; `names` is what `-k` chooses by."""
    (folder / f"{PLUGIN}.py").write_text(_PLUGIN.format(folder=str(folder / "worked")))
    options = ("-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rA", "-k", names)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--basetemp", str(folder / "tests"), *map(str, played)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def passes(folder: Path, played: list[Path], name: str) -> None:
    """See that a provider of a checkout passes every test of some files."""
    ran = suite(folder, played, name)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    passed = set(re.findall(r"^PASSED \S*::(\w+)", ran.stdout, re.M))
    wanted = set().union(*(functions_of(path) for path in played if path != OF_A_REPORT))
    assert wanted
    assert passed == wanted, "every test of the suite has a case for it"


@pytest.mark.parametrize("name", ["acorn", "bunch"])
def test_nothing_outside_its_folder_names_it(name: str) -> None:
    for path in [*(PROJECT_ROOT / "flux_pipelines").rglob("*"), *(PROJECT_ROOT / "flux_sandbox").rglob("*")]:
        if path.suffix in {".py", ".sql", ".html"} and path != Path(new.__file__):
            assert re.search(rf"\b{name}", path.read_text(), re.I) is None, path


def test_a_folder_is_all_that_a_provider_needs(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["providers", "new", "acorn", "--into", str(checkout(tmp_path))])
    assert said.exit_code == 0, said.output
    assert "flux_sandbox/acorn/api.py" in said.output
    assert all(witness.STREAM not in text for text in new.files_of("acorn").values()), (
        "it has a report now: the suite's tests of it count"
    )
    own = tmp_path / "worked" / PLACES["tests"] / "acorn" / "test_acorn.py"
    passes(tmp_path, [own, HERE / "fourth_provider.py", *PLAYED], "acorn")


def test_so_it_is_of_one_with_unsigned_webhooks_of_several_accounts_offsets_and_a_limit_by_token(
    tmp_path: Path,
) -> None:
    bunch.put(checkout(tmp_path))
    passes(tmp_path, [HERE / "fifth_provider.py", *PLAYED], "bunch")


@pytest.mark.parametrize("name", ["", "Acorn", "1acorn", "a-b", "../x", "a" * 33, "ácorn"])
def test_what_is_no_name_for_a_provider_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name for a provider"):
        new.write(name, checkout(tmp_path))


def test_a_provider_that_is_there_is_not_written_again_and_a_package_has_no_place_for_one(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    (file, *_) = new.write("oak_tree", root)
    text = file.read_text()
    assert 'name="oak_tree"' in text
    assert 'title="OakTree"' in text
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match="oak_tree already"):
        new.write("oak_tree", root)
    assert file.read_text() == "mine"
    with pytest.raises(ConfigurationError, match="is no checkout"):
        new.write("oak_tree", root / "flux_sandbox")


FIGURES, CHECKS, SMALL = "test_every_figure_is_the_truth", "test_no_check_fails", "test_pages_are_small_and_many"
PEOPLE, INTERVAL = "test_no_file_names_anybody", "test_an_interval_holds_its_beginning_and_not_its_end"


@dataclass(frozen=True)
class Mistake:
    """A mistake that one can make with a provider, and the tests of the suite that find it.

    Args:
        file: of the worked provider.
        found_by: which tests fail, at the least.
        changes: what is written there, and what is written instead.

    """

    file: str
    found_by: set[str]
    changes: dict[str, str]


MISTAKES = {
    "paging_stops_after_page_one": Mistake(
        "client.py",
        {FIGURES, CHECKS, SMALL},
        {"lambda page: page.next,": "lambda page: None,"},
    ),
    "payments_doubled": Mistake(
        "payments.sql", {FIGURES}, {"    sign * amount_given AS": "    2 * sign * amount_given AS"}
    ),
    "refunds_positive": Mistake(
        "payments.sql",
        {FIGURES, CHECKS},
        {"payment ->> 'kind' = 'refund' THEN -1": "payment ->> 'kind' = 'refund' THEN 1"},
    ),
    "tax_counted_as_revenue": Mistake(
        "transactions.sql",
        {FIGURES},
        {
            "sign_of(status, e.side) * e.gross ELSE": "sign_of(status, e.side) * (e.gross + e.tax) ELSE",
            "sign_of(status, e.side) * e.tax ELSE": "0 * e.tax ELSE",
        },
    ),
    "prices_times_100": Mistake("products.sql", {FIGURES}, {"'price' AS BIGINT) AS": "'price' AS BIGINT) * 100 AS"}),
    "header_total_without_refunds": Mistake(
        "client.py", {FIGURES, CHECKS}, {"            found.total,": "            max(found.total, 0),"}
    ),
    "card_digits_kept": Mistake("__init__.py", {PEOPLE}, {'"email", "card_last4"': '"email"'}),
    "interval_includes_its_end": Mistake(
        "client.py",
        {INTERVAL},
        {
            "window.end.isoformat()": "(window.end + timedelta(milliseconds=1)).isoformat()",
            "import UTC, datetime": "import UTC, datetime, timedelta",
        },
    ),
}


def test_a_provider_with_a_mistake_does_not_pass(tmp_path: Path) -> None:
    """Eight providers, each of them new and with one mistake, are synced at once."""
    root = checkout(tmp_path)
    for number, (mistaken, mistake) in enumerate(MISTAKES.items()):
        new.write(f"acorn{number}", root)
        file = root / PLACES["provider"] / f"acorn{number}" / mistake.file
        text = file.read_text()
        for before, after in mistake.changes.items():
            assert text.count(before) == 1, (mistaken, before)
            text = text.replace(before, after)
        file.write_text(text)
    ran = suite(tmp_path, [BOOKS], "acorn")
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) \S*::(\w+)\[acorn(\d)\]", ran.stdout, re.M)
    assert {int(number) for *_, number in outcomes} == set(range(len(MISTAKES))), (
        ran.stdout[-6000:] + ran.stderr[-2000:]
    )
    failed = {
        mistaken: {test for outcome, test, of in outcomes if int(of) == number and outcome != "PASSED"}
        for number, mistaken in enumerate(MISTAKES)
    }
    missed = {
        name: mistake.found_by - failed[name] for name, mistake in MISTAKES.items() if mistake.found_by - failed[name]
    }
    assert not missed, ran.stdout[-6000:]
