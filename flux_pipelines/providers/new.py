"""Writes the folders of a new provider: the worked example of docs/add-a-provider.md under another name, which works as it is."""

from __future__ import annotations

import re
from pathlib import Path

from flux_pipelines.domain.errors import ConfigurationError

_TEMPLATE = Path(__file__).parent / "template"
_SUFFIX = ".template"
#: Where each part of the example belongs in a checkout.
PLACES = {
    "provider": "flux_pipelines/providers",
    "sandbox": "flux_sandbox",
    "tests": "flux_pipelines_tests/providers",
}
#: As long as the provider of a connection's key may be.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_EXAMPLE = "acorn"


def files_of(name: str) -> dict[str, str]:
    """Return the files of a new provider by their paths in a checkout.

    Args:
        name: lower-case letters, digits and `_`.

    Raises:
        ConfigurationError: that is no name for a provider.

    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name!r} is no name for a provider",
            next_step="Take at most 32 lower-case letters, digits and `_`, a letter first: clover, for example.",
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    found = {}
    for part, place in PLACES.items():
        for path in sorted((_TEMPLATE / part).glob(f"*{_SUFFIX}")):
            file = path.name.removesuffix(_SUFFIX).replace(_EXAMPLE, name)
            text = path.read_text("utf-8").replace(_EXAMPLE, name).replace(_EXAMPLE.capitalize(), title)
            found[f"{place}/{name}/{file}"] = text
    return found


def write(name: str, root: Path) -> list[Path]:
    """Write a new provider into a checkout and return its files.

    Args:
        name: the provider's.
        root: the checkout.

    Raises:
        ConfigurationError: that is no name for a provider, no checkout, or there is such a provider.

    """
    files = files_of(name)
    if not all((root / place).is_dir() for place in PLACES.values()):
        raise ConfigurationError(
            f"{root} is no checkout of Flux Pipelines",
            next_step="Say where one is: `--into DIR`. What is installed from a package has no tests to put a provider's beside.",
        )
    taken = [place for place in PLACES.values() if (root / place / name).exists()]
    if taken:
        raise ConfigurationError(
            f"there is a {taken[0]}/{name} already", next_step="Choose another name, or remove it first."
        )
    for path, text in files.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return [root / path for path in files]
