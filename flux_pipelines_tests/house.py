"""The rooms of the house: what belongs in each, and what it may import. `test_layering.py` enforces it.

`python -m flux_pipelines_tests.house` (`make docs`) writes the table of CONTRIBUTING.md from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flux_pipelines.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "flux_pipelines"
#: Beside the product, and above it: a room that nobody imports.
SANDBOX = PROJECT_ROOT / "flux_sandbox"
CONTRIBUTING = PROJECT_ROOT / "CONTRIBUTING.md"

_BEGIN, _END = "<!-- the house: written by `make docs` -->\n", "<!-- end of the house -->\n"


@dataclass(frozen=True, slots=True)
class Room:
    """A room: what belongs there, and the rooms that it may import.

    `path` is how people write it; `dagster` says whether it may import Dagster.
    """

    path: str
    holds: str
    imports: frozenset[str]
    dagster: bool = False


def _room(path: str, holds: str, imports: str = "", *, dagster: bool = False) -> Room:
    return Room(path, holds, frozenset(imports.split()), dagster)


#: By name, the highest first. A provider's `resource.py` is a room: the face of a provider to Dagster, above the runtime.
ROOMS: dict[str, Room] = {
    SANDBOX.name: _room(
        "flux_sandbox/",
        "beside the product: every provider's wire protocol over one seeded world",
        "providers listening domain",
    ),
    "definitions": _room("definitions.py", "what Dagster loads", "defs"),
    "cli": _room(
        "cli/",
        "the `flux` command, thin",
        "defs gateway connections mapping erasure runtime forecaster sync privacy providers transport state lake settings "
        "listening holding domain",
    ),
    "gateway": _room(
        "gateway/",
        "what answers over HTTP: sign-in, pages, OAuth callbacks, webhooks, machine endpoints",
        "connections runtime sync privacy providers transport state lake settings listening domain",
    ),
    "pipelines": _room("pipelines/", "the name under which older homes know `defs/instance.py`", "defs", dagster=True),
    "defs": _room(
        "defs/",
        "Dagster: assets, partitions, schedules, sensors, checks, metadata",
        "mapping erasure runtime forecaster sync privacy providers transport state lake settings holding domain",
        dagster=True,
    ),
    "resource": _room(
        "providers/*/resource.py",
        "a provider as a Dagster resource: who asks it, and how",
        "runtime providers domain",
        dagster=True,
    ),
    "connections": _room("connections/", "connecting an account, and keeping it", "runtime providers transport domain"),
    "effects": _room("effects/", "writing to other systems what the outbox holds, each effect once", "state domain"),
    "mapping": _room("mapping/", "which store and product is which", "runtime state lake domain"),
    "erasure": _room("erasure/", "forgetting a person", "runtime privacy providers state lake domain"),
    "runtime": _room(
        "runtime.py",
        "opening the rooms below",
        "forecaster sync privacy providers transport state lake settings domain",
    ),
    "forecaster": _room("forecaster/", "the SageMaker-compatible demand model and its client", "settings domain"),
    "sync": _room("sync/", "records from a provider into raw, raw into rows", "providers transport lake domain"),
    "providers": _room("providers/", "one folder an external system", "transport domain"),
    "privacy": _room("privacy/", "taking what is personal out of records before they are stored", "domain"),
    "transport": _room("transport/", "the one way out to other systems", "sqlite domain"),
    "state": _room("state/", "the operational database", "sqlite domain"),
    "lake": _room("lake/", "raw files and tables", "domain"),
    "settings": _room("settings.py", "reading the environment"),
    "listening": _room("listening.py", "opening the sockets that servers answer on", "domain"),
    "holding": _room("holding.py", "locks that one process has at a time"),
    "sqlite": _room("sqlite.py", "what SQLite files with several writers need"),
    "domain": _room("domain/", "money, business days, partitions, table contracts, errors: pure"),
}


def room_of(module: str) -> str:
    """Return the room that a module is in, by its full name; empty for the package's own file."""
    parts = module.split(".")
    if parts[0] == SANDBOX.name:
        return SANDBOX.name
    if parts[1:2] == ["providers"] and parts[-1] == "resource":
        return "resource"
    return parts[1] if len(parts) > 1 else ""


def table() -> str:
    """Return the table of the house in Markdown."""
    lines = ["| room | what belongs there | may import |", "|---|---|---|"]
    for room in ROOMS.values():
        below = ", ".join(f"`{name}`" for name in ROOMS if name in room.imports)
        also = "Dagster" if room.dagster else ""
        lines.append(f"| `{room.path}` | {room.holds} | {', '.join(filter(None, (below, also))) or 'nothing'} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return CONTRIBUTING's text with the table in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def write(path: Path = CONTRIBUTING) -> None:
    """Write the table into a file that has its marks."""
    path.write_text(written(path.read_text()))


if __name__ == "__main__":
    write()
