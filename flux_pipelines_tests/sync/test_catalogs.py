"""Catalogs of 100,000 variants, and menus as large, within 512 MiB, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flux_pipelines.settings import PROJECT_ROOT


def made(folder: Path, *asked: str) -> dict[str, int]:
    command = [sys.executable, "-m", "flux_pipelines_tests.sync.catalog_process", str(folder), *asked]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, check=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("provider", "records", "each", "rows"),
    [
        ("shopify", "50", "2000", 100_000),
        ("square", "400", "250", 100_000),  # 250 variations are the most that an item may have
        ("toast", "20", "2000", 120_000),  # items, options, and ten sizes of every tenth item
    ],
)
def test_a_large_catalog_fits_into_memory(tmp_path: Path, provider: str, records: str, each: str, rows: int) -> None:
    found = made(tmp_path, provider, records, each)
    assert found | {"peak": 0} == {"rows": rows, "bad": 0, "unchanged": True, "peak": 0}
    assert found["peak"] < 512, f"{found['peak']} MiB"


def test_a_smaller_one_takes_less_than_a_full_process(tmp_path: Path) -> None:
    """What failed first: 50 products of 100 variants, and the longest product that there can be."""
    assert made(tmp_path / "many", "shopify", "50", "100") | {"peak": 0} == {
        "rows": 5000,
        "bad": 0,
        "unchanged": True,
        "peak": 0,
    }
    found = made(tmp_path / "long", "shopify", "1", "2048")
    assert found | {"peak": 0} == {"rows": 2048, "bad": 0, "unchanged": True, "peak": 0}
    assert found["peak"] < 320, f"{found['peak']} MiB"
