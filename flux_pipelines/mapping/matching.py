"""Which things of different connections look like the same one: by code, or by name. Pure: no I/O.

Things (products, or locations) are nodes, likenesses are edges. The surest edges are taken first; two groups become one
unless that would put two things of one connection together, two names that people have given, or a pair that somebody
has said is not the same. What a group is called is what people call one of its members, or else its first member's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations
from typing import NamedTuple

#: A name that is less alike than this (percent) is not suggested.
_LEAST_ALIKE = 80.0
#: How much a likeness of names alone can be trusted at most.
_NAMES = Decimal("0.9")
_CODES: tuple[tuple[str, Decimal], ...] = (("upc", Decimal("1")), ("sku", Decimal("0.95")))
#: Names that each other name is compared with further.
_CANDIDATES = 5


class Key(NamedTuple):
    """A thing's identity: its connection and the provider's id."""

    connection: str
    id: str


@dataclass(frozen=True, slots=True)
class Thing:
    """A product or a location of one connection.

    Args:
        key: its identity.
        name: what the provider calls it, variation included.
        upc: its bar code.
        sku: its stock keeping unit.
        place: what must be equal for two things to be the same at all: a location's time zone; empty for products.

    """

    key: Key
    name: str
    upc: str = ""
    sku: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a thing is probably called in the books: how sure (0 to 1), and why."""

    name: str
    score: Decimal
    reason: str


class _Edge(NamedTuple):
    score: Decimal
    one: Key
    other: Key
    reason: str


@dataclass(slots=True)
class _Group:
    members: set[Key]
    connections: set[str]
    names: set[str] = field(default_factory=set)  # given by people
    refused: set[str] = field(default_factory=set)  # names that are not it, said people


def suggest(
    things: Sequence[Thing], decided: Mapping[Key, str], refused: Mapping[Key, frozenset[str]]
) -> dict[Key, Suggestion]:
    """Suggest a name for what nobody has decided yet.

    Args:
        things: all of one customer's, decided ones too.
        decided: the names that people have given.
        refused: names that people have said a thing is not.

    """
    by_key = {thing.key: thing for thing in things}
    groups = {
        key: _Group({key}, {key.connection}, {decided[key]} if key in decided else set(), set(refused.get(key, ())))
        for key in by_key
    }
    best: dict[Key, _Edge] = {}
    for edge in sorted(_edges(things), key=lambda e: (-e.score, e.one, e.other)):
        one, other = groups[edge.one], groups[edge.other]
        if one is not other:
            if not _may_join(one, other, by_key):
                continue
            _join(groups, one, other)
        best.setdefault(edge.one, edge)
        best.setdefault(edge.other, edge)
    return {
        key: Suggestion(_name(groups[key], by_key), edge.score, edge.reason)
        for key, edge in best.items()
        if key not in decided
    }


def _may_join(one: _Group, other: _Group, by_key: Mapping[Key, Thing]) -> bool:
    if one.connections & other.connections or len(one.names | other.names) > 1:
        return False
    called = _name(_Group(one.members | other.members, set(), one.names | other.names), by_key)
    return called not in one.refused | other.refused


def _join(groups: dict[Key, _Group], one: _Group, other: _Group) -> None:
    one.members |= other.members
    one.connections |= other.connections
    one.names |= other.names
    one.refused |= other.refused
    for key in other.members:
        groups[key] = one


def _name(group: _Group, by_key: Mapping[Key, Thing]) -> str:
    return min(group.names) if group.names else by_key[min(group.members)].name


def _edges(things: Sequence[Thing]) -> Iterator[_Edge]:
    coded: set[frozenset[Key]] = set()
    for code, score in _CODES:
        for one, other in _same_code(things, code):
            pair = frozenset((one.key, other.key))
            if pair not in coded:
                coded.add(pair)
                yield _Edge(score, one.key, other.key, f"the same {code} {getattr(one, code)}")
    for one, other, alike in _alike(things):
        if frozenset((one.key, other.key)) in coded:
            continue
        if one.upc and other.upc and _plain(one.upc) != _plain(other.upc):
            continue  # whoever prints different bar codes on them means different things
        score = (_NAMES * Decimal(str(round(alike, 1))) / 100).quantize(Decimal("0.001"))
        yield _Edge(score, one.key, other.key, f"names alike ({alike:.0f} %): {one.name} and {other.name}")


def _same_code(things: Sequence[Thing], code: str) -> Iterator[tuple[Thing, Thing]]:
    """Yield pairs of different connections with the same code; one that a connection uses twice says nothing."""
    by_code: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        if plain := _plain(getattr(thing, code)):
            by_code[plain].append(thing)
    for found in by_code.values():
        if len({thing.key.connection for thing in found}) == len(found):
            yield from combinations(sorted(found, key=lambda thing: thing.key), 2)


def _alike(things: Sequence[Thing]) -> Iterator[tuple[Thing, Thing, float]]:
    """Yield pairs of different connections whose names are alike, with how much (percent)."""
    from rapidfuzz import fuzz, process, utils

    by_connection: dict[str, list[Thing]] = defaultdict(list)
    for thing in sorted(things, key=lambda thing: thing.key):
        by_connection[thing.key.connection].append(thing)
    for first, second in combinations(sorted(by_connection), 2):
        others = by_connection[second]
        names = [utils.default_process(other.name) for other in others]
        for one in by_connection[first]:
            found = process.extract(
                utils.default_process(one.name),
                names,
                scorer=fuzz.token_sort_ratio,
                score_cutoff=_LEAST_ALIKE,
                limit=_CANDIDATES,
            )
            for _, alike, position in found:
                if one.place == others[position].place:
                    yield one, others[position], alike


def _plain(code: str) -> str:
    """Return a code as it is compared: `00-123 4` and `1234` are one (UPC and EAN differ by leading zeros)."""
    return "".join(c for c in code.upper() if c.isalnum()).lstrip("0")
