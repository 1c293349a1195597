"""Bunch, the second worked example: a provider like Clover, whole, in one folder.

What is in `provider` and `sandbox` are the two folders of docs/add-a-provider.md; `put` puts them where they belong in a checkout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from flux_pipelines.providers.new import PLACES

_HERE = Path(__file__).parent


def put(root: Path) -> None:
    """Put Bunch's folders into a checkout."""
    for part in ("provider", "sandbox"):
        shutil.copytree(_HERE / part, root / PLACES[part] / "bunch", ignore=shutil.ignore_patterns("__pycache__"))
