"""Shopify's search syntax, as far as the connections of the sandbox document it.

`field:value`, `field:>=value` with < <= > >=, quoted values, `AND` (also a blank), `OR`, `NOT` or a minus, and brackets. A
field that a connection cannot be searched by is left out and told in `extensions.search`, as Shopify does it: such a query finds
more than was meant. Facts: https://shopify.dev/docs/api/usage/search-syntax.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from typing import Any

from flux_sandbox.shopify.ids import Json

Test = Callable[[Json], bool]
#: What a field of a connection compares: a value of the object, read as the query's value is.
Reader = tuple[Callable[[Json], Any], Callable[[str], Any]]

_TOKEN = re.compile(r"""\s*(?:(\()|(\))|(-(?=[\w(]))|((?:[\w.]+:(?:[<>]=?)?)?(?:"[^"]*"|'[^']*'|[^\s()]+)))""")
_TERM = re.compile(r"""^([\w.]+):([<>]=?)?(.*)$""", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {"": eq, "<": lt, "<=": le, ">": gt, ">=": ge}


def instant(text: str) -> datetime:
    """Return an instant of a query: a date is its beginning in UTC, and so is a time without an offset."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(name: str) -> Reader:
    return (lambda node: datetime.fromisoformat(node[name]) if node[name] else None), instant


def _word(name: str) -> Reader:
    return (lambda node: str(node[name] or "").lower()), str.lower


def _yes(name: str) -> Reader:
    return (lambda node: bool(node[name])), lambda text: {"true": True, "false": False}[text.lower()]


def _number(*owners: str) -> Reader:
    """Read the number in an object's id; the object may be one that another has, or does not have."""

    def read(node: Json) -> int | None:
        found: Any = node
        for name in (*owners, "legacyResourceId"):
            found = found[name] if found else None
        return int(found) if found else None

    return read, lambda text: int(text.rsplit("/", 1)[-1])


def _status(node: Json) -> str:
    if node["cancelledAt"]:
        return "cancelled"
    return "closed" if node["closed"] else "open"


#: What each connection can be searched by.
ORDER_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "updated_at": _moment("updatedAt"),
    "processed_at": _moment("processedAt"),
    "id": _number(),
    "name": (lambda node: node["name"].lstrip("#"), lambda text: text.lstrip("#")),
    "test": _yes("test"),
    "source_name": _word("sourceName"),
    "financial_status": _word("displayFinancialStatus"),
    "fulfillment_status": _word("displayFulfillmentStatus"),
    "status": (_status, str.lower),
    "location_id": _number("retailLocation"),
    "customer_id": _number("customer"),
    "email": _word("email"),
}
PRODUCT_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "updated_at": _moment("updatedAt"),
    "id": _number(),
    "title": _word("title"),
    "handle": _word("handle"),
    "status": _word("status"),
    "product_type": _word("productType"),
    "vendor": _word("vendor"),
}
VARIANT_FIELDS: dict[str, Reader] = {
    "updated_at": _moment("updatedAt"),
    "id": _number(),
    "sku": _word("sku"),
    "barcode": _word("barcode"),
    "title": _word("title"),
    "product_id": _number("product"),
}
ITEM_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "updated_at": _moment("updatedAt"),
    "id": _number(),
    "sku": _word("sku"),
}
LEVEL_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "updated_at": _moment("updatedAt"),
    "inventory_item_id": _number("item"),
}
LOCATION_FIELDS: dict[str, Reader] = {"id": _number(), "name": _word("name"), "active": _yes("isActive")}
EVENT_FIELDS: dict[str, Reader] = {
    "created_at": _moment("createdAt"),
    "action": _word("action"),
    "subject_type": (lambda node: node["subjectType"].lower(), lambda text: text.lower()),
    "id": (lambda node: int(node["id"].rsplit("/", 1)[-1]), int),
}
#: Words of a field that mean several values.
_ANY: dict[tuple[str, str], frozenset[str]] = {
    ("status", "any"): frozenset({"open", "closed", "cancelled"}),
    ("status", "not_closed"): frozenset({"open", "cancelled"}),
}


class Search:
    """A parsed query: tells whether an object is found, and what the query said that nobody understood."""

    def __init__(self, text: str, fields: Mapping[str, Reader]) -> None:
        self.warnings: list[Json] = []
        self._fields = fields
        self._tokens = self._split(text)
        self._place = 0
        self.matches: Test = self._either() if self._tokens else (lambda _: True)

    def _split(self, text: str) -> list[str]:
        tokens, place = [], 0
        while place < len(text.rstrip()):
            found = _TOKEN.match(text, place)
            if found is None:
                break
            tokens.append(next(group for group in found.groups() if group))
            place = found.end()
        return tokens

    def _peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _either(self) -> Test:
        tests = [self._both()]
        while self._peek() == "OR":
            self._place += 1
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda node: any(test(node) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while (token := self._peek()) and token not in ("OR", ")"):
            if token == "AND":  # noqa: S105
                self._place += 1
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda node: all(test(node) for test in tests)

    def _one(self) -> Test:
        token = self._peek()
        self._place += 1
        if token in ("NOT", "-"):
            inner = self._one()
            return lambda node: not inner(node)
        if token == "(":  # noqa: S105
            inner = self._either()
            self._place += self._peek() == ")"
            return inner
        return self._term(token)

    def _term(self, token: str) -> Test:
        found = _TERM.match(token)
        if found is None:
            wanted = token.strip("'\"").lower()
            return lambda node: wanted in str(node.get("name", node.get("title", ""))).lower()
        name, sign, value = found[1], found[2] or "", found[3].strip("'\"")
        reader = self._fields.get(name)
        if reader is None:
            self.warnings.append(
                {"field": name, "message": "Invalid search field for this query.", "code": "invalid_field"}
            )
            return lambda _: True
        read, convert = reader
        values = _ANY.get((name, value))
        if values is not None:
            return lambda node: read(node) in values
        try:
            wanted = convert(value)
        except (ValueError, KeyError):
            self.warnings.append({"field": name, "message": f"Input `{value}` is not valid.", "code": "invalid_value"})
            return lambda _: True
        compare = _COMPARE[sign]

        def test(node: Json) -> bool:
            mine = read(node)
            return mine is not None and compare(mine, wanted)

        return test


def filtered(nodes: Iterable[Json], query: str | None, fields: Mapping[str, Reader]) -> list[Json]:
    """Return the objects that a query finds."""
    return list(filter(Search(query, fields).matches, nodes)) if query else list(nodes)
