"""The data dictionary: the table contracts as a page. `make docs` writes it; a test keeps it true."""

from __future__ import annotations

import sys

from flux_pipelines.domain.tables import SQL_TYPES, TABLES, Table


def render() -> str:
    """Return docs/data-dictionary.md as the contracts of `domain.tables` say it."""
    parts = [
        "# Data dictionary",
        "",
        "Generated from `flux_pipelines/domain/tables.py` by `make docs`; do not edit.",
        "",
        "A provider's own tables (`square/transactions`) have the contract of the core table of the same name. In `flux sql`",
        "they are `square.transactions`; core tables stand bare. Instants are UTC. Every amount is exact and in the currency of",
        "its row; sums over several currencies mean nothing.",
        "",
    ]
    for table in TABLES:
        parts += _section(table)
    return "\n".join(parts)


def _section(table: Table) -> list[str]:
    lines = [
        f"## {table.name}",
        "",
        table.description,
        "",
        f"- **Grain:** {table.grain}",
        f"- **Key:** {', '.join(f'`{name}`' for name in table.key)}",
        f"- **Partitioned by:** {', '.join(f'`{name}`' for name in table.partition_by)}",
        "",
        "| column | type | required | meaning |",
        "|---|---|---|---|",
    ]
    for column in table:
        meaning = column.meaning
        if column.allowed:
            meaning += " One of " + ", ".join(f"`{value}`" for value in column.allowed) + "."
        lines.append(
            f"| `{column.name}` | {SQL_TYPES[column.type]} | {'yes' if column.required else 'no'} | {meaning} |"
        )
    return [*lines, ""]


if __name__ == "__main__":
    sys.stdout.write(render())
