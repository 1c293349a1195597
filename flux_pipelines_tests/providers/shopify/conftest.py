"""What the tests of Shopify share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT, Settings

_SHARED = PROJECT_ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not _SHARED.exists():
        pytest.skip("the shared reference folder is not here")
    return _SHARED


@pytest.fixture(scope="session")
def examples(shared: Path) -> Path:
    return shared / "examples/shopify"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A home of its own, with a lake."""
    with Runtime(Settings(home=tmp_path_factory.mktemp("home"))) as opened:
        yield opened
