"""What the tests of Shopify share."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_pipelines.settings import PROJECT_ROOT

_SHARED = PROJECT_ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not _SHARED.exists():
        pytest.skip("the shared reference folder is not here")
    return _SHARED


@pytest.fixture(scope="session")
def examples(shared: Path) -> Path:
    return shared / "examples/shopify"
