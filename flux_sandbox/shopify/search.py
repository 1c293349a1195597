"""Shopify's search syntax, as far as Flux asks by it: `field:value` and `field:>=value` with < <= > >=, joined by `AND` or a blank.

A field that a connection cannot be searched by is left out and told in `extensions.search`, as Shopify does it: such a query finds
more than was meant. Facts: https://shopify.dev/docs/api/usage/search-syntax.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from typing import Any

from flux_sandbox.shopify.errors import unplayed
from flux_sandbox.shopify.ids import Json

#: What a field of a connection compares: a value of the object, read as the query's value is.
Reader = tuple[Callable[[Json], Any], Callable[[str], Any]]

_TERM = re.compile(r"""\s*(?:AND\s+)?([\w.]+):([<>]=?)?("[^"]*"|'[^']*'|[^\s()]+)""")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {"": eq, "<": lt, "<=": le, ">": gt, ">=": ge}


def instant(text: str) -> datetime:
    """Return an instant of a query: a date is its beginning in UTC, and so is a time without an offset."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(name: str) -> Reader:
    return (lambda node: datetime.fromisoformat(node[name]) if node[name] else None), instant


def _word(name: str) -> Reader:
    return (lambda node: str(node[name] or "").lower()), str.lower


#: What each connection can be searched by.
ORDER_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "updated_at": _moment("updatedAt"),
    "processed_at": _moment("processedAt"),
}
EVENT_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "action": _word("action"),
    "subject_type": _word("subjectType"),
}


class Search:
    """A parsed query: tells whether an object is found, and what the query said that nobody understood.

    Raises:
        QueryError: the query says what the sandbox does not play.

    """

    def __init__(self, text: str, fields: Mapping[str, Reader]) -> None:
        self.warnings: list[Json] = []
        self._tests: list[tuple[Callable[[Json], Any], Callable[[Any, Any], bool], Any]] = []
        place = 0
        while text[place:].strip():
            found = _TERM.match(text, place)
            if found is None:
                raise unplayed(f"the search {text[place:].strip()!r}")
            place = found.end()
            self._term(found[1], found[2] or "", found[3].strip("'\""), fields)

    def _term(self, name: str, sign: str, value: str, fields: Mapping[str, Reader]) -> None:
        if name not in fields:
            message = "Invalid search field for this query."
            self.warnings.append({"field": name, "message": message, "code": "invalid_field"})
            return
        read, convert = fields[name]
        try:
            self._tests.append((read, _COMPARE[sign], convert(value)))
        except ValueError:
            self.warnings.append({"field": name, "message": f"Input `{value}` is not valid.", "code": "invalid_value"})

    def matches(self, node: Json) -> bool:
        """Tell whether an object is found."""
        return all((mine := read(node)) is not None and compare(mine, wanted) for read, compare, wanted in self._tests)
