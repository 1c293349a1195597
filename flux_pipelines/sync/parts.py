"""Takes long records apart: what is listed inside one becomes records of their own, so that none of them is long.

A database reads some 2,000 records at once, and looks into each of them as often as its SQL asks for something. A product
with its 2,048 variants is 1 MB of text: with all of its text beside each variant it would be 2 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from flux_pipelines.domain.decoding import decoder

#: By the kind of a record: where in it others are (`variants.nodes`), a list or a map, and what kind they are; none are given
#: where the kind is empty.
Apart = Mapping[str, Mapping[str, str]]

_members = decoder(dict[str, msgspec.Raw])
_listed = decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])


class Part(NamedTuple):
    """A record, or one that was inside it.

    Args:
        kind: what it is.
        text: its JSON, without what was taken out of it.
        parent: the place of the part that it was in, among all of the record; None for the record itself.

    """

    kind: str
    text: str
    parent: int | None = None


def take_apart(kind: str, record: msgspec.Raw, apart: Apart) -> list[Part]:
    """Return a record and after it everything that was inside, as the document has it from top to bottom.

    Raises:
        msgspec.DecodeError: it is no JSON.
        UnicodeDecodeError: it is no text.

    """
    found: list[Part] = []
    waiting: list[tuple[str, msgspec.Raw, int | None]] = [(kind, record, None)]
    while waiting:
        of_kind, text, parent = waiting.pop()
        inside: list[tuple[str, msgspec.Raw, int | None]] = []
        for path, name in apart.get(of_kind, {}).items():
            text, taken = _without(text, path.split("."))
            inside += [(name, one, len(found)) for one in taken if name]
        found.append(Part(of_kind, bytes(text).decode(), parent))
        waiting += reversed(inside)
    return found


def _without(text: msgspec.Raw, path: list[str]) -> tuple[msgspec.Raw, list[msgspec.Raw]]:
    """Return an object without what is at a path, and that; what is no list is left where it is."""
    try:
        members = _members(text)
    except msgspec.ValidationError:
        return text, []
    name, *rest = path
    if name not in members:
        return text, []
    if rest:
        members[name], taken = _without(members[name], rest)
    else:
        try:
            listed = _listed(members[name])
        except msgspec.ValidationError:
            return text, []
        taken = list(listed.values()) if isinstance(listed, dict) else listed
        del members[name]
    return msgspec.Raw(msgspec.json.encode(members)), taken
