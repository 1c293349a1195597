"""What the sandbox's objects hold beside plain values: connections, and fields that depend on their arguments.

An object of the API is a dict with every field that the sandbox plays; what is not in it is refused by name.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from flux_sandbox.shopify.errors import QueryError, unplayed
from flux_sandbox.shopify.ids import Json

#: Most objects that a connection or a list argument may ask for.
MOST = 250


class Call:
    """A field whose value depends on its arguments."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[Mapping[str, Any]], Any]) -> None:
        self.make = make


class Parts(dict[str, Any]):
    """An object of which some fields are made only when one of them is asked for.

    Args:
        known: the fields that are there from the beginning.
        parts: make the others, a part at a time, in this order.

    """

    def __init__(self, known: Json, parts: Sequence[Callable[[Json], Json]]) -> None:
        super().__init__(known)
        self._parts = list(parts)

    def __missing__(self, name: str) -> Any:
        while self._parts:
            self.update(self._parts.pop(0)(self))
            if name in self:
                return self[name]
        raise KeyError(name)


class Page:
    """A part of a connection.

    Args:
        entries: what the page's nodes are made of.
        make: makes a node.
        position: what the cursor to the entry of an index (on this page) holds.
        after: whether there are nodes behind it.
        rest: the entries of every page from this one on, which a bulk operation reads.

    """

    __slots__ = ("after", "items", "make", "position", "rest")

    def __init__(
        self,
        entries: Sequence[Any],
        make: Callable[[Any], Json],
        position: Callable[[int], Sequence[Any]],
        *,
        after: bool,
        rest: Sequence[Any],
    ) -> None:
        self.items = [make(entry) for entry in entries]
        self.make = make
        self.position = position
        self.after = after
        self.rest = rest

    def cursor(self, index: int) -> str:
        """Return the cursor of a node of the page."""
        return base64.b64encode(msgspec.json.encode(list(self.position(index)))).decode()


class Nodes:
    """A connection over objects that are all known; a cursor is an object's place."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Json]) -> None:
        self.items = items

    def page(self, args: Mapping[str, Any]) -> Page:
        """Return the page that the arguments ask for.

        Raises:
            QueryError: the arguments are not ones of a page.

        """
        return cut(self.items, args, lambda index: [index], lambda cursor: int(cursor[0]))


def whole(node: Json) -> Json:
    """Return an object that is made already."""
    return node


def invalid_cursor() -> QueryError:
    """Return the error of a cursor that does not belong to this connection."""
    return QueryError("Invalid cursor for current pagination sort.", "INVALID_CURSOR")


def cut(
    entries: Sequence[Any],
    args: Mapping[str, Any],
    position: Callable[[int], Sequence[Any]],
    find: Callable[[list[Any]], int],
    make: Callable[[Any], Json] = whole,
) -> Page:
    """Return a page of a connection; the sandbox pages forward only.

    Args:
        entries: everything that is found, in its final order.
        args: of the connection.
        position: what a cursor to an entry holds, by its index.
        find: the index of the entry that a cursor points to; one that it cannot read is an IndexError, TypeError or ValueError.
        make: makes a node of an entry.

    Raises:
        QueryError: the arguments are not ones of a page.

    """
    size = args.get("first")
    if any(args.get(name) for name in ("last", "before", "reverse")):
        raise unplayed("pages backwards")
    if size is None:
        raise QueryError("you must provide one of first or last", "BAD_REQUEST")
    if not 0 <= size <= MOST:
        raise QueryError(f"first must be from 0 to {MOST}: {size} was asked for", "BAD_REQUEST")
    start = 0
    try:
        if args.get("after") is not None:
            cursor = msgspec.json.decode(base64.b64decode(args["after"], validate=True), type=list[Any])
            start = max(0, find(cursor) + 1)
    except (IndexError, TypeError, ValueError, msgspec.MsgspecError):
        raise invalid_cursor() from None
    end = min(len(entries), start + size)
    return Page(
        entries[start:end],
        make,
        lambda index: position(start + index),
        after=end < len(entries),
        rest=entries[start:],
    )
