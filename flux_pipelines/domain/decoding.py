"""Reading JSON that others wrote: the one place where it is decoded, within bounds of depth and width.

Depth: msgspec gives up where Python's recursion limit is reached (1,000 levels, less what the stack has used already), which
no document of a provider comes near. Width: a value of two bytes becomes an object of some 70, so that a body within the
transport's cap could still take forty times its size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar, overload

import msgspec

T = TypeVar("T")

#: Values that one document may hold, counted by its commas: 300 MB of objects. A page of 1,000 long orders has 0.2 million.
MOST_VALUES: Final = 4_000_000

Document = bytes | str | msgspec.Raw


class UnboundedError(msgspec.DecodeError):
    """A document that is nested more deeply, or holds more values, than anything is read. The next one would be the same."""


@overload
def decoder(kind: type[T]) -> Callable[[Document], T]: ...
@overload
def decoder(kind: Any) -> Callable[[Document], Any]: ...
def decoder(kind: Any) -> Callable[[Document], Any]:
    """Return what decodes documents as a type. It raises what `decode` does."""
    read = msgspec.json.Decoder(kind).decode

    def decode_bounded(document: Document) -> Any:
        if isinstance(document, bytes) and len(document) > MOST_VALUES and document.count(b",") >= MOST_VALUES:
            raise UnboundedError(f"it holds more than {MOST_VALUES:,} values")
        try:
            return read(document)
        except RecursionError:
            raise UnboundedError("it is nested too deeply") from None

    return decode_bounded


_decoders = cache(decoder)


@overload
def decode(document: Document) -> Any: ...
@overload
def decode(document: Document, kind: type[T]) -> T: ...
@overload
def decode(document: Document, kind: Any) -> Any: ...
def decode(document: Document, kind: Any = Any) -> Any:
    """Return what a document holds.

    Raises:
        UnboundedError: it is nested too deeply, or holds too many values.
        msgspec.DecodeError: it is not JSON, or (`ValidationError`) not of the type.
        UnicodeDecodeError: a text in it is not UTF-8.

    """
    return _decoders(kind)(document)
