"""What the sandbox's objects hold beside plain values: connections, and fields that depend on their arguments.

An object of the API is a dict with every field that the sandbox plays; what is not in it is refused by name.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from flux_sandbox.shopify.errors import QueryError
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
        before: whether there are nodes before the page.
        after: whether there are nodes behind it.
        rest: the entries of every page from this one on, which a bulk operation reads.

    """

    __slots__ = ("after", "before", "items", "make", "position", "rest")

    def __init__(
        self,
        entries: Sequence[Any],
        make: Callable[[Any], Json],
        position: Callable[[int], Sequence[Any]],
        *,
        before: bool,
        after: bool,
        rest: Sequence[Any],
    ) -> None:
        self.items = [make(entry) for entry in entries]
        self.make = make
        self.position = position
        self.before = before
        self.after = after
        self.rest = rest

    def cursor(self, index: int) -> str:
        """Return the cursor of a node of the page."""
        return seal(self.position(index))


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
        items = list(reversed(self.items)) if args.get("reverse") else self.items
        return cut(items, args, lambda index: [index], lambda cursor: int(cursor[0]))


def whole(node: Json) -> Json:
    """Return an object that is made already."""
    return node


def seal(position: Sequence[Any]) -> str:
    """Return a cursor."""
    return base64.b64encode(msgspec.json.encode(list(position))).decode()


def unseal(cursor: str) -> list[Any]:
    """Return what a cursor holds.

    Raises:
        QueryError: it is none.

    """
    try:
        return msgspec.json.decode(base64.b64decode(cursor, validate=True), type=list[Any])
    except (ValueError, msgspec.DecodeError, msgspec.ValidationError):
        raise invalid_cursor() from None


def invalid_cursor() -> QueryError:
    """Return the error of a cursor that does not belong to this connection."""
    return QueryError("Invalid cursor for current pagination sort.", "INVALID_CURSOR")


def size_of(args: Mapping[str, Any]) -> int:
    """Return how many objects a page is asked to hold.

    Raises:
        QueryError: neither `first` nor `last`, or both, or more than may be asked for.

    """
    first, last = args.get("first"), args.get("last")
    if first is None and last is None:
        raise QueryError("you must provide one of first or last", "BAD_REQUEST")
    if first is not None and last is not None:
        raise QueryError("providing both first and last is not supported", "BAD_REQUEST")
    size: int = first if first is not None else last  # type: ignore[assignment]
    name = "first" if first is not None else "last"
    if not 0 <= size <= MOST:
        raise QueryError(f"{name} must be from 0 to {MOST}: {size} was asked for", "BAD_REQUEST")
    return size


def cut(
    entries: Sequence[Any],
    args: Mapping[str, Any],
    position: Callable[[int], Sequence[Any]],
    find: Callable[[list[Any]], int],
    make: Callable[[Any], Json] = whole,
) -> Page:
    """Return a page of a connection.

    Args:
        entries: everything that is found, in its final order.
        args: of the connection.
        position: what a cursor to an entry holds, by its index.
        find: the index of the entry that a cursor points to; one that it cannot read is a KeyError, IndexError, TypeError or
            ValueError.
        make: makes a node of an entry.

    Raises:
        QueryError: the arguments are not ones of a page.

    """
    size = size_of(args)
    low, high = 0, len(entries)
    try:
        if args.get("after") is not None:
            low = max(0, find(unseal(args["after"])) + 1)
        if args.get("before") is not None:
            high = max(0, find(unseal(args["before"])))
    except (KeyError, IndexError, TypeError, ValueError):
        raise invalid_cursor() from None
    start, end = (low, min(high, low + size)) if args.get("first") is not None else (max(low, high - size), high)
    return Page(
        entries[start:end],
        make,
        lambda index: position(start + index),
        before=start > 0,
        after=end < len(entries),
        rest=entries[low:high],
    )
