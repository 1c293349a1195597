"""The GraphQL texts, one file each, and how they are put together."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

#: The operations that the client sends, by file name.
OPERATIONS: Final = (
    "access",
    "bulk_cancel",
    "bulk_poll",
    "bulk_run",
    "deletions",
    "inventory",
    "locations",
    "more_agreements",
    "more_lines",
    "more_sales",
    "more_variants",
    "order_heads",
    "orders",
    "orders_by_id",
    "products",
    "report",
    "shop",
    "shop_domain",
    "uninstall",
    "versions",
)
_FRAGMENT_FILES = ("order_head", "order_parts", "line_parts", "agreement_parts", "variant_parts")
_FRAGMENT = re.compile(r"^fragment (\w+) on \w+ \{\n(.*?)^\}\n", re.MULTILINE | re.DOTALL)
_SPREAD = re.compile(r"\.\.\.([A-Z]\w+)")
_COMMENT = re.compile(r"^\s*#.*\n", re.MULTILINE)
_SPACES = re.compile(r"\s+")


@cache
def operation(name: str) -> str:
    """Return an operation with the fragments that it uses, in one document."""
    text = _read(name)
    needed: list[str] = []
    waiting = _SPREAD.findall(text)
    while waiting:
        fragment = waiting.pop(0)
        if fragment not in needed:
            needed.append(fragment)
            waiting += _SPREAD.findall(_fragments()[fragment][1])
    return _SPACES.sub(" ", "\n".join([text, *(_fragments()[fragment][0] for fragment in needed)])).strip()


def bulk_orders(search: str) -> str:
    """Return the query of a bulk operation over the orders that a search finds, without variables and fragments.

    Args:
        search: in Shopify's search syntax; it may hold single quotes, not double ones.

    """
    text = _read("bulk_orders")
    while _SPREAD.search(text):
        text = _SPREAD.sub(lambda spread: _fragments()[spread[1]][1], text)
    return _SPACES.sub(" ", text).strip().replace("QUERY", search, 1)


def _read(name: str) -> str:
    return _COMMENT.sub("", files(__name__).joinpath(f"{name}.graphql").read_text("utf-8"))


@cache
def _fragments() -> dict[str, tuple[str, str]]:
    """Return each fragment's whole text and the text of its fields."""
    return {match[1]: (match[0], match[2]) for name in _FRAGMENT_FILES for match in _FRAGMENT.finditer(_read(name))}
